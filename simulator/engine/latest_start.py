"""Plans served latest start first (CoMPI, SoCC 2025): a station per pool, whose batches mix the DNNs that it serves.

Every pipeline of a DNN is a class of requests with a route through its stages; arrivals are spread over pipelines in
proportion to what these are planned to serve. A pool is one station of rule LATEST_START (`simulator.engine.network`),
whoever's stages it is. With work_s the planned latency of stage s and all that follows, transfers included,

    latest start    0.8 · SLO - work_s in the first stage, SLO - work_s in later ones, after the arrival
    discard line    2 · SLO - work_s after the arrival
    counted         a batch that is not full with 0.8 of its latency
    timeout         half of what the SLO leaves, (0.8 · SLO - work_0) / 2, an equal part of it in every stage; in a pool
                    the least of its stages'

The records of a DNN are a view: of a batch that mixes DNNs each sees its own requests, from when the last of them had
joined.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planner.model import InputError
from simulator.dispatch.system import Ints, Pools, System
from simulator.engine.accounts import check_network_accounts
from simulator.engine.network import LATEST_START, Network, Route, Servers, Station, Step
from simulator.engine.plans import outages_of
from simulator.engine.running import Run
from simulator.engine.together import Served, check_worlds, conditions_of, failures_of
from simulator.engine.views import joined_visits, network_records
from simulator.engine.world import World, require_no_takeovers
from simulator.results.records import NetworkRecords, Records, Visits

EVENLY = (5**0.5 - 1) / 2  # multiples of it, modulo 1, fill [0, 1) evenly from the first on


@dataclass(frozen=True)
class Rules:
    """The numbers of the rule, those of CoMPI's server by default; ``timeout_us`` None is the module's.

    ``start_slos`` and ``discard_slos`` are the parts of the SLO in the lines of the first stage, ``counted`` the part
    of its latency with which a batch that is not full is counted.
    """

    start_slos: float = 0.8
    discard_slos: float = 2.0
    epsilon_us: int = 5000
    counted: float = 0.8
    timeout_us: int | None = None
    discard: bool = True


@dataclass(frozen=True, eq=False)
class Routed:
    """The network of some systems; ``stations[dnn][pipeline]`` are those of its stages, ``classes[dnn]`` its first."""

    network: Network
    stations: tuple[tuple[tuple[int, ...], ...], ...]
    classes: tuple[int, ...]


def routed(
    systems: Sequence[System],
    pools: Sequence[Pools] | None = None,
    rules: Rules | None = None,
    spread: float | str = 0.0,
) -> Routed:
    """Return the network of routes of some DNNs.

    Parameters
    ----------
    pools
        Per DNN, ``(pipeline, stage)`` -> name of a pool that it shares with whoever names it; a stage that is not there
        has a pool of its own.
    spread
        Of all service times, or "profile": each stage's own.

    Raises
    ------
    InputError
        Stages of one pool have unlike slices, batches or latencies.
    """
    rules = rules or Rules()
    names: dict[object, int] = {}
    stations: list[Station] = []
    cards: list[int] = []
    routes: list[Route] = []
    numbers: list[tuple[tuple[int, ...], ...]] = []
    classes = []
    for d, system in enumerate(systems):
        classes.append(len(routes))
        own = []
        for p, stages in enumerate(system.stages.tolist()):
            row = []
            for s in range(stages):
                name = (pools[d] if pools else {}).get((p, s), (d, p, s))
                new = _station(system, p, s, rules, len(cards), spread)
                if name in names:
                    q = names[name]
                    stations[q] = _joined(stations[q], new, f"pool {name}: {system.dnn}, stage {s} of pipeline {p}")
                else:
                    q = names[name] = len(stations)
                    on_card = int(system.card_slices[p, s])
                    cards += [new.servers[0] + k // on_card * on_card for k in range(len(new.servers))]
                    stations.append(new)
                row.append(q)
            routes.append(Route(f"{system.dnn}/{p}", _steps(system, p, row, rules)))
            own.append(tuple(row))
        numbers.append(tuple(own))
    kind = np.zeros(len(cards), np.int64)
    servers = Servers(kind, np.array(cards, np.int64), np.arange(len(cards)), np.ones(len(cards), np.bool_))
    return Routed(Network(servers, tuple(stations), tuple(routes)), tuple(numbers), tuple(classes))


def _station(system: System, p: int, s: int, rules: Rules, first: int, spread: float | str) -> Station:
    """Return the station of a stage whose slices are servers from ``first`` on."""
    batch, stages = int(system.batch[p]), int(system.stages[p])
    latency_us = system.latency_us[p, s][None, : batch + 1]
    counted_us = np.rint(latency_us * rules.counted).astype(np.int64)
    counted_us[:, batch] = latency_us[:, batch]
    free_us = int(rules.start_slos * system.slo_us) - _work_us(system, p, 0)
    if isinstance(spread, str):
        spread = 0.0 if system.spread is None else float(system.spread[p, s])
    last = s == stages - 1
    return Station(
        LATEST_START,
        tuple(range(first, first + int(system.slices[p, s]))),
        latency_us,
        max_batch=batch,
        timeout_us=max(0, free_us // (2 * stages)) if rules.timeout_us is None else rules.timeout_us,
        epsilon_us=rules.epsilon_us,
        discard=rules.discard,
        counted_us=counted_us,
        wire_us=0 if last else int(system.transfer_us[p, s + 1]),
        hop_us=0 if last else int(system.hop_us[p, s + 1]),
        spread=spread,
    )


def _joined(station: Station, other: Station, where: str) -> Station:
    """Return the station of a pool that a further stage names: its hop the longer one, its timeout the shorter."""
    if len(station.servers) != len(other.servers) or station.max_batch != other.max_batch:
        raise InputError(
            f"{where} has {len(other.servers)} slices and batches of {other.max_batch}; the pool has "
            f"{len(station.servers)} and {station.max_batch}: expected as many"
        )
    if not np.array_equal(station.latency_us, other.latency_us):
        raise InputError(f"{where} has other latencies than the pool; expected merged blocks, plan again")
    return replace(
        station,
        wire_us=max(station.wire_us, other.wire_us),
        hop_us=max(station.hop_us, other.hop_us),
        timeout_us=min(station.timeout_us, other.timeout_us),
        spread=max(station.spread, other.spread),
    )


def _work_us(system: System, p: int, s: int) -> int:
    """Return the planned latency of a stage and all that follow, transfers between them included."""
    batch, after = int(system.batch[p]), slice(s + 1, int(system.stages[p]))
    inference_us = system.latency_us[p, s : int(system.stages[p]), batch].sum()
    return int(inference_us + batch * system.transfer_us[p, after].sum() + system.hop_us[p, after].sum())


def _steps(system: System, p: int, stations: Sequence[int], rules: Rules) -> tuple[Step, ...]:
    found = []
    for s, station in enumerate(stations):
        work_us = _work_us(system, p, s)
        start = rules.start_slos if s == 0 else 1.0
        found.append(
            Step(
                station,
                (s + 1,) if s + 1 < len(stations) else (),
                latest_start_us=max(0, int(start * system.slo_us) - work_us),
                discard_us=max(0, int(rules.discard_slos * system.slo_us) - work_us),
            )
        )
    return tuple(found)


def spread_over(system: System, requests: int) -> Ints:
    """Return ``[request]``, the pipeline that each goes to: evenly, in proportion to what pipelines can serve."""
    rate = np.array([_planned_rps(system, p) for p in range(len(system.stages))])
    upto = np.cumsum(rate / rate.sum())
    upto[-1] = 1.0
    chosen: Ints = np.searchsorted(upto, (np.arange(requests) * EVENLY) % 1.0, side="right")
    return chosen


def _planned_rps(system: System, p: int) -> float:
    batch = int(system.batch[p])
    stages = range(int(system.stages[p]))
    return min(float(system.slices[p, s]) * batch / max(1.0, float(system.latency_us[p, s, batch])) for s in stages)


def simulate_latest_start(
    systems: Sequence[System],
    arrivals_us: Sequence[Ints],
    pools: Sequence[Pools] | None = None,
    worlds: Sequence[World] | None = None,
    *,
    rules: Rules | None = None,
    oracle: bool = False,
) -> list[Records]:
    """Simulate DNNs latest start first, and return the records of each.

    Raises
    ------
    InputError
        Pools or worlds that cannot be, or a world with plans that take over.
    """
    worlds = [World()] * len(systems) if worlds is None else worlds
    for world in worlds:
        require_no_takeovers(world)
    check_worlds(systems, worlds, pools)
    made = routed(systems, pools, rules, worlds[0].spread)
    spread = Spread.of(systems, arrivals_us)
    served = [Served(*one) for one in zip(range(len(systems)), systems, worlds, arrivals_us, strict=True)]
    outages = outages_of(systems, made.network, made.stations, failures_of(served, pools))
    conditions = conditions_of(worlds[0], outages, corrected=True)
    if oracle:
        from simulator.engine.oracle import run_oracle  # SimPy

        records, busy_us = run_oracle(made.network, spread.arrivals_us, conditions), None
    else:
        run = Run(made.network, spread.arrivals_us, conditions)
        run.to_the_end()
        records, busy_us = network_records(run.state), run.state.server["busy_us"]
    check_network_accounts(records, busy_us)
    return records_of_dnns(records, systems, made, spread)


@dataclass(frozen=True, eq=False)
class Spread:
    """Requests spread over pipelines: ``pipelines[dnn][request]``, and what arrives of each class of a network."""

    pipelines: tuple[Ints, ...]
    arrivals_us: tuple[Ints, ...]
    requests: tuple[Ints, ...]

    @staticmethod
    def of(systems: Sequence[System], arrivals_us: Sequence[Ints]) -> "Spread":
        """Spread the requests of some DNNs."""
        chosen = [spread_over(system, len(arrivals)) for system, arrivals in zip(systems, arrivals_us, strict=True)]
        classes = [
            (arrivals[pipelines == p], np.flatnonzero(pipelines == p))
            for system, arrivals, pipelines in zip(systems, arrivals_us, chosen, strict=True)
            for p in range(len(system.stages))
        ]
        return Spread(tuple(chosen), tuple(one for one, _ in classes), tuple(requests for _, requests in classes))


def records_of_dnns(records: NetworkRecords, systems: Sequence[System], made: Routed, spread: Spread) -> list[Records]:
    """Return the records of each DNN, a view of those of their network."""
    starts = np.cumsum([0, *map(len, spread.requests)])
    found = []
    for d, system in enumerate(systems):
        order = np.empty(len(spread.pipelines[d]), np.int64)  # of the network's requests, by order of arrival
        for k in range(made.classes[d], made.classes[d] + len(system.stages)):
            order[spread.requests[k]] = np.arange(starts[k], starts[k + 1])
        found.append(_of_dnn(records, system, made, d, order, spread.pipelines[d]))
    return found


def _of_dnn(records: NetworkRecords, system: System, made: Routed, d: int, order: Ints, pipelines: Ints) -> Records:
    """Return what a DNN sees of a network's records; ``order`` are its requests, in order of arrival."""
    column = _columns(made.network)
    visit, visits = [], []
    for s in range(system.max_stages):
        row = records.visit[order, s] if s < records.visit.shape[1] else np.full(len(order), -1, np.int32)
        served = np.flatnonzero(row >= 0)
        batches, first, number, size = np.unique(
            row[served], return_index=True, return_inverse=True, return_counts=True
        )
        joined_us = np.zeros(len(batches), np.int64)
        np.maximum.at(joined_us, number, records.joined_us[order[served], s])
        own = np.full(len(order), -1, np.int32)
        own[served] = number
        visit.append(own)
        mine = Visits(
            pipelines[served[first]].astype(np.int16),
            size.astype(np.int16),
            column[records.server[batches]],
            joined_us,
            records.start_us[batches],
            records.end_us[batches],
        )
        cut = _cut_short(records, made.stations[d], column, s)
        visits.append(joined_visits([mine, cut]) if len(cut.size) else mine)
    return Records(
        system, records.engine, records.arrival_us[order], records.outcome[order], tuple(visit), tuple(visits)
    )


def _columns(network: Network) -> NDArray[np.int16]:
    """Return ``[server]``, its number in its pool."""
    column = np.zeros(len(network.servers), np.int16)
    for station in network.stations:
        column[list(station.servers)] = range(len(station.servers))
    return column


def _cut_short(records: NetworkRecords, stations: Sequence[Sequence[int]], column: NDArray[np.int16], s: int) -> Visits:
    """Return what failures cut short in a stage, as batches of no requests of the first pipeline that is served there.

    Those of a pool that DNNs share are seen by all of them, as the batches are whose requests they mix.
    """
    pipeline_of = {row[s]: p for p, row in reversed(list(enumerate(stations))) if s < len(row)}
    cut = np.flatnonzero((records.size == 0) & (records.start_us >= 0) & np.isin(records.station, list(pipeline_of)))
    pipeline = np.array([pipeline_of[q] for q in records.station[cut].tolist()], np.int16)
    times_us = (times[cut] for times in (records.reach_us, records.start_us, records.end_us))
    return Visits(pipeline, records.size[cut], column[records.server[cut]], *times_us)
