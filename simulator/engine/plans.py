"""From the systems of DNNs, and a world, to the network, the conditions and the plans that take over."""

from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from planner.model import InputError, Plan
from simulator.dispatch.system import System
from simulator.engine.network import REACTIVE, REACTS, RESERVED, Frontend, Network, Outage, Servers, Station
from simulator.engine.world import Failure, slices_of

DEVICES = 1_000_000  # more than there are of a type
Pools = Mapping[tuple[int, int], Hashable]


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
    first: int = 0,
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
    first
        Number of the first DNN, which tells devices of DNNs apart: each has its own.
    by_type
        What must drain before a later plan may use it is all that a DNN has of a type, not the device that a slice is
        on.
    """
    stations: list[Station] = []
    slices: dict[Hashable, range] = {}
    columns: list[tuple[np.ndarray, np.ndarray]] = []
    frontends = []
    for d, system in enumerate(systems):
        numbers = []
        for p, stages in enumerate(system.stages.tolist()):
            row = []
            for s in range(stages):
                name = (pools[d] if pools else {}).get((p, s), (d, p, s))
                count = int(system.slices[p, s])
                if name not in slices:
                    begin = sum(len(each) for each in slices.values())
                    slices[name] = range(begin, begin + count)
                    on_card = int(system.card_slices[p, s])
                    number = 0 if by_type or system.number is None else system.number[p, s, :count]
                    on_type = (first + d) * len(system.device_types) + int(system.device[p, s])
                    on_device = np.full(count, on_type * DEVICES) + number
                    columns.append((begin + np.arange(count) // on_card * on_card, on_device))
                elif len(slices[name]) != count:
                    raise InputError(
                        f"pool {name}: {system.dnn} has {count} slices of it in stage {s} of pipeline {p}, another DNN "
                        f"has {len(slices[name])}; expected as many"
                    )
                row.append(len(stations))
                stations.append(_station(system, p, s, policy, tuple(slices[name]), spread))
            numbers.append(tuple(row))
        frontends.append(Frontend(system, policy, tuple(numbers)))
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


def outages_of(system: System, network: Network, failures: Sequence[Failure], frontend: int = 0) -> list[Outage]:
    """Return what stops when the units of a plan fail, in order of time."""
    one = network.classes[frontend]
    assert isinstance(one, Frontend)
    found = []
    for failure in failures:
        servers = network.stations[one.stations[failure.pipeline][failure.stage]].servers
        struck = tuple(servers[w] for w in slices_of(system, failure))
        found.append(Outage(failure.at_us, struck, failure.repair_us))
    return sorted(found, key=lambda outage: outage.at_us)
