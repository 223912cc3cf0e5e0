"""What networks, conditions and changes must be: whatever else would be simulated wrongly is refused in one line."""

from typing import Any

import numpy as np

from planner.model import InputError
from simulator.engine.core.calendar import SOURCES
from simulator.engine.network import (
    BY_SLACK,
    CENTRAL,
    LATEST_START,
    NO_LIMIT_US,
    REACTIVE,
    REACTS,
    RESERVED,
    ROUND_ROBIN,
    Change,
    Conditions,
    Frontend,
    Network,
    Route,
    Station,
)

STATION_TIMES = ("timeout_us", "drop_age_us", "end_by_us", "epsilon_us", "wire_us", "hop_us")
LARGEST_SEED = (1 << 63) - 1


def check_network(network: Network, rows: int) -> None:
    """Raise InputError if a network names what it lacks, mixes what cannot be mixed, or lacks rows of arrivals."""
    if not network.classes or rows != len(network.classes):
        raise InputError(
            f"network: {len(network.classes)} classes of requests and {rows} rows of arrivals; expected a row for "
            "each, and at least one"
        )
    servers = network.servers
    if not len(servers.card) == len(servers.device) == len(servers.on) == len(servers):
        raise InputError("network: servers: expected columns of one length")
    for name in ("kind", "card"):
        if (least := int(getattr(servers, name).min(initial=0))) < 0:
            raise InputError(f"network: servers: {name}: expected numbers from 0 on, got {least}")
    if (card := int(servers.card.max(initial=0))) >= SOURCES:
        raise InputError(f"network: servers: card: expected numbers below {SOURCES}, got {card}")
    used: dict[int, int] = {}
    for q, station in enumerate(network.stations):
        where = f"network: station {q}"
        _check_station(station, network, where)
        for w in station.servers:
            other = used.setdefault(w, q)
            if other != q and (station.rule != network.stations[other].rule or station.rule == CENTRAL):
                raise InputError(
                    f"{where}: server {w} is station {other}'s; only stations of one rule share servers, and central "
                    "queues do not"
                )
    for number, one in enumerate(network.classes):
        if isinstance(one, Route):
            _check_route(one, network, f"network: class {number} ({one.name})")
            if number and isinstance(network.classes[number - 1], Frontend):
                raise InputError(f"network: class {number} ({one.name}): expected routes before frontends")
        else:
            _check_frontend(one, network, f"network: class {number} ({one.system.dnn})")


def check_conditions(conditions: Conditions, servers: int) -> None:
    """Raise InputError for conditions that cannot be, in a network of so many servers."""
    _require_time(conditions.load_us, "conditions: load_us")
    if not 0 <= conditions.seed <= LARGEST_SEED:
        raise InputError(f"conditions: seed: expected a number from 0 to 2^63 - 1, got {conditions.seed}")
    factors = np.asarray(conditions.factors)
    if not (np.isfinite(factors) & (factors > 0)).all():
        raise InputError(f"conditions: factors: expected finite numbers above 0, got {factors.tolist()}")
    before_us = 0
    for k, outage in enumerate(conditions.outages):
        where = f"conditions: outage {k}"
        if not all(0 <= w < servers for w in outage.servers):
            raise InputError(f"{where}: expected servers of 0 to {servers - 1}, got {list(outage.servers)}")
        if outage.at_us < before_us or outage.repair_us < 1:
            raise InputError(
                f"{where}: expected a time from {before_us} µs on (outages are in order of time) and a repair of at "
                f"least 1 µs, got {outage.at_us} and {outage.repair_us}"
            )
        before_us = outage.at_us
    for k, slow in enumerate(conditions.slowdowns):
        if not (slow.from_us < slow.until_us and 0 < slow.factor < np.inf):
            raise InputError(
                f"conditions: slowdown {k}: expected from_us < until_us and a finite factor above 0, got "
                f"{slow.from_us}, {slow.until_us} and {slow.factor:g}"
            )


def check_change(change: Change, network: Network) -> None:
    """Raise InputError for a configuration that cannot be."""
    if not isinstance(change, Change):
        raise InputError(f"change: expected a Change, got {change!r}")
    q = change.station
    if not 0 <= q < len(network.stations):
        raise InputError(f"change: expected a station of 0 to {len(network.stations) - 1}, got {q}")
    kinds, batches = network.stations[q].latency_us.shape
    fits = 1 <= len(change.replicas) <= kinds and min(change.replicas) >= 0
    if network.stations[q].rule != CENTRAL or not fits or not 1 <= change.max_batch < batches:
        raise InputError(
            f"change of station {q}: expected a central station, replicas of kinds 0 to {kinds - 1} and a batch of 1 "
            f"to {batches - 1}, got {change}"
        )
    if not 0 <= change.at_us <= change.ready_us:
        raise InputError(
            f"change of station {q}: expected 0 <= at_us <= ready_us, got {change.at_us} and {change.ready_us}"
        )


def _check_station(station: Station, network: Network, where: str) -> None:
    """Raise InputError unless a station has servers, latencies for them, and numbers that its rule can use."""
    if station.rule not in (CENTRAL, LATEST_START, RESERVED, REACTIVE):
        raise InputError(f"{where}: unknown rule {station.rule}; expected one of {CENTRAL} to {REACTIVE}")
    if not ROUND_ROBIN <= station.placement <= BY_SLACK:
        raise InputError(f"{where}: unknown placement {station.placement}; expected one of {ROUND_ROBIN} to {BY_SLACK}")
    mine, last = station.servers, len(network.servers) - 1
    if not mine or not all(0 <= w <= last for w in mine) or len(set(mine)) < len(mine):
        raise InputError(f"{where}: expected servers of 0 to {last}, each once, got {list(mine)}")
    tables = {"latency_us": station.latency_us}
    if station.counted_us is not None:
        tables["counted_us"] = station.counted_us
    for name, table in tables.items():
        if table.ndim != 2 or not np.issubdtype(table.dtype, np.integer) or table.shape != station.latency_us.shape:
            raise InputError(
                f"{where}: {name}: expected integer µs [kind, batch], as many everywhere, got {table.dtype} of shape "
                f"{table.shape}"
            )
        if table.size and not 0 <= table[:, 1:].min(initial=0) <= table[:, 1:].max(initial=0) <= NO_LIMIT_US:
            raise InputError(
                f"{where}: {name}: expected 0 to {NO_LIMIT_US} µs, got {table[:, 1:].min()} to {table[:, 1:].max()}"
            )
    kinds, batches = station.latency_us.shape
    if not 1 <= station.max_batch < batches:
        raise InputError(
            f"{where}: expected a largest batch of 1 to {batches - 1} (those have a latency), got {station.max_batch}"
        )
    if (worst := int(network.servers.kind[list(mine)].max())) >= kinds:
        raise InputError(f"{where}: latencies are of {kinds} kinds of servers, got a server of kind {worst}")
    for name in STATION_TIMES:
        _require_time(getattr(station, name), f"{where}: {name}")
    if not 0 <= station.spread < np.inf:
        raise InputError(f"{where}: spread: expected a finite number from 0 on, got {station.spread:g}")


def _check_route(route: Route, network: Network, where: str) -> None:
    """Raise InputError unless steps follow each other in increasing order and all are reached from step 0."""
    if not route.steps:
        raise InputError(f"{where}: no steps; expected at least one")
    stations = len(network.stations)
    reached = {0}
    for n, step in enumerate(route.steps):
        if not 0 <= step.station < stations:
            raise InputError(f"{where}: step {n}: expected a station of 0 to {stations - 1}, got {step.station}")
        if network.stations[step.station].rule not in (CENTRAL, LATEST_START):
            raise InputError(
                f"{where}: step {n}: station {step.station} is a frontend's, expected a central queue or latest start"
            )
        if not all(n < m < len(route.steps) for m in step.then) or len(set(step.then)) < len(step.then):
            raise InputError(f"{where}: step {n}: expected later steps, each once, got {list(step.then)}")
        reached.update(step.then)
    if missing := set(range(len(route.steps))) - reached:
        raise InputError(f"{where}: no step leads to step {min(missing)}; expected steps that all follow from step 0")


def _check_frontend(frontend: Frontend, network: Network, where: str) -> None:
    """Raise InputError unless every stage of its system has a station, with a server for every slice."""
    rule = REACTIVE if frontend.policy == REACTS else RESERVED
    stages = [int(stages) for stages in frontend.system.stages]
    if [len(row) for row in frontend.stations] != stages:
        raise InputError(f"{where}: expected stations for {stages} stages, got {frontend.stations}")
    for p, row in enumerate(frontend.stations):
        for s, q in enumerate(row):
            if not 0 <= q < len(network.stations) or network.stations[q].rule != rule:
                raise InputError(f"{where}: stage {s} of pipeline {p}: expected a station of rule {rule}, got {q}")
            slices, count = int(frontend.system.slices[p, s]), len(network.stations[q].servers)
            if count != slices:
                raise InputError(
                    f"{where}: stage {s} of pipeline {p} has {slices} slices; expected as many servers, got {count}"
                )


def _require_time(value: Any, where: str) -> None:
    if not 0 <= value <= NO_LIMIT_US:
        raise InputError(f"{where}: expected 0 to {NO_LIMIT_US} µs, got {value}")
