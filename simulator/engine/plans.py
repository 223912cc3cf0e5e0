"""From the systems of DNNs, and a world, to the network, the conditions and the plans that take over."""

from collections.abc import Hashable, Sequence

import numpy as np

from planner.model import InputError, Plan
from simulator.dispatch.system import Pools, System
from simulator.engine.network import REACTIVE, REACTS, RESERVED, Frontend, Network, Outage, Servers, Station
from simulator.engine.world import Failure, slices_of, unit_numbers

DEVICES = 1_000_000  # more than there are of a type
Stations = Sequence[Sequence[Sequence[int]]]  # [dnn][pipeline][stage], numbers in a network


def pools_of(plan: Plan, dnns: Sequence[str]) -> list[Pools] | None:
    """Return, per DNN, the pools that its stages name, by (pipeline, stage); None where no stage names one."""
    found: list[Pools] = [
        {
            (number, position): stage.pool
            for number, pipeline in enumerate(plan.of(name))
            for position, stage in enumerate(pipeline.stages)
            if stage.pool is not None
        }
        for name in dnns
    ]
    return found if any(found) else None


def network_of(
    systems: Sequence[System],
    policy: int,
    *,
    pools: Sequence[Pools] | None = None,
    spread: float | str = 0.0,
    numbers: Sequence[int] | None = None,
    by_type: bool = True,
) -> Network:
    """Return the network of some DNNs.

    Parameters
    ----------
    policy
        Of all frontends (`simulator.engine.network.Frontend`).
    pools
        Per DNN, ``(pipeline, stage)`` -> name of a pool that it shares with whoever names it, on as many slices; a
        stage that is not there has a pool of its own.
    spread
        Of all service times, or "profile": each stage's own.
    numbers
        Of the DNNs, in a run with others.
    by_type
        What must drain before a later plan may use it is all that a DNN has of a type, not the device that a slice is
        on, whichever DNN's (`System.number`).
    """
    numbers = range(len(systems)) if numbers is None else numbers
    stations: list[Station] = []
    slices: dict[Hashable, range] = {}
    columns: list[tuple[np.ndarray, np.ndarray]] = []
    frontends = []
    for d, system in enumerate(systems):
        rows = []
        for p, stages in enumerate(system.stages.tolist()):
            row = []
            for s in range(stages):
                name = (pools[d] if pools else {}).get((p, s), (d, p, s))
                count = int(system.slices[p, s])
                if name not in slices:
                    begin = sum(len(each) for each in slices.values())
                    slices[name] = range(begin, begin + count)
                    on_card = int(system.card_slices[p, s])
                    if by_type or system.number is None:
                        on_device = np.full(count, numbers[d] * len(system.device_types) + int(system.device[p, s]))
                    else:
                        on_device = int(system.device[p, s]) * DEVICES + system.number[p, s, :count]
                    columns.append((begin + np.arange(count) // on_card * on_card, on_device))
                elif len(slices[name]) != count:
                    raise InputError(
                        f"pool {name}: {system.dnn} has {count} slices of it in stage {s} of pipeline {p}, another DNN "
                        f"has {len(slices[name])}; expected as many"
                    )
                row.append(len(stations))
                stations.append(_station(system, p, s, policy, tuple(slices[name]), spread))
            rows.append(tuple(row))
        frontends.append(Frontend(system, policy, tuple(rows)))
    card, device = (np.concatenate(parts).astype(np.int64) for parts in zip(*columns, strict=True))
    servers = Servers(np.zeros(len(card), np.int64), card, device, np.ones(len(card), np.bool_))
    return Network(servers, tuple(stations), tuple(frontends))


def _station(system: System, p: int, s: int, policy: int, servers: tuple[int, ...], spread: float | str) -> Station:
    """Return a stage of a pipeline as a station."""
    if isinstance(spread, str):
        spread = 0.0 if system.spread is None else float(system.spread[p, s])
    last = s == system.stages[p] - 1
    return Station(
        REACTIVE if policy == REACTS else RESERVED,
        servers,
        system.latency_us[p, s][None],
        max_batch=int(system.batch[p]),
        wire_us=0 if last else int(system.transfer_us[p, s + 1]),
        hop_us=0 if last else int(system.hop_us[p, s + 1]),
        spread=spread,
    )


def stations_of(network: Network) -> Stations:
    """Return the stations of the DNNs whose frontends are the classes of a network."""
    return [one.stations for one in network.classes if isinstance(one, Frontend)]


def outages_of(
    systems: Sequence[System], network: Network, stations: Stations, failures: Sequence[tuple[int, Failure]]
) -> tuple[Outage, ...]:
    """Return what stops when units fail, in order of time; each failure comes with the number of its DNN."""
    struck: dict[tuple[object, ...], tuple[int, ...]] = {}
    found = []
    for d, failure in failures:
        unit = d, failure.unit, failure.pipeline, failure.stage, failure.index
        if unit not in struck:
            struck[unit] = _servers_on(systems, network, stations, d, failure)
        found.append(Outage(failure.at_us, struck[unit], failure.repair_us))
    return tuple(sorted(found, key=lambda outage: outage.at_us))


def _servers_on(
    systems: Sequence[System], network: Network, stations: Stations, d: int, failure: Failure
) -> tuple[int, ...]:
    """Return the servers on a unit: all that lie there where it is known, else those of the pool that names it."""
    system, p, s = systems[d], failure.pipeline, failure.stage
    slices = slices_of(system, failure)
    found = {network.stations[stations[d][p][s]].servers[w] for w in slices}
    if failure.unit == "slice" or system.number is None:
        return tuple(sorted(found))
    number = unit_numbers(system, failure.unit, p, s)[slices[0]]
    for e, other in enumerate(systems):
        if other.number is None or other.device_types != system.device_types:
            continue
        for at in np.argwhere(other.device == system.device[p, s]).tolist():
            there = np.flatnonzero(unit_numbers(other, failure.unit, *at) == number)
            found.update(network.stations[stations[e][at[0]][at[1]]].servers[w] for w in there)
    return tuple(sorted(found))
