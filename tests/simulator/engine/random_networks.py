"""Random networks of routes, small enough for the oracle and full of ties."""

from dataclasses import dataclass

import numpy as np

from simulator.engine.network import (
    BY_SLACK,
    CENTRAL,
    IDLE_FIRST,
    LATEST_START,
    NO_LIMIT_US,
    ROUND_ROBIN,
    Change,
    Conditions,
    Network,
    Outage,
    Route,
    Slowdown,
    Station,
    Step,
    servers,
)


@dataclass(frozen=True, eq=False)
class Case:
    """A network with all that happens to it."""

    network: Network
    arrivals_us: list[np.ndarray]
    conditions: Conditions
    changes: tuple[Change, ...]


def random_case(seed: int, *, requests: int = 60) -> Case:
    """Return a case; odd seeds have coarse times, so that much happens at one instant."""
    rng = np.random.default_rng(seed)
    grain = 10 if seed % 2 else 1
    kinds, batches = int(rng.integers(1, 3)), 4
    stations: list[Station] = []
    pool: list[int] = []
    devices = 0
    for _ in range(rng.integers(1, 5)):
        latency_us = np.zeros((kinds, batches + 1), np.int64)
        latency_us[:, 1:] = (np.sort(rng.integers(3, 40, (kinds, batches)), axis=1) // grain + 1) * grain
        way = {"wire_us": int(rng.integers(0, 4)) * grain // 2, "hop_us": int(rng.choice([0, 0, 5, 20]))}
        spread = float(rng.choice([0.0, 0.3]))
        earlier = [q for q, station in enumerate(stations) if station.rule == LATEST_START]
        if rng.random() < 0.5:
            mine = list(range(devices, devices + int(rng.integers(1, 5))))
            station = Station(
                CENTRAL,
                tuple(rng.permutation(mine).tolist()),
                latency_us,
                max_batch=int(rng.integers(1, batches + 1)),
                timeout_us=int(rng.choice([0, 10, 30, 100])),
                placement=int(rng.choice([ROUND_ROBIN, IDLE_FIRST, BY_SLACK])),
                drop_age_us=int(rng.choice([100, 300, NO_LIMIT_US])),
                end_by_us=int(rng.choice([60, 150])),
                spread=spread,
                **way,
            )
        else:
            mine = list(range(devices, devices + int(rng.integers(1, 4))))
            if earlier and rng.random() < 0.5:
                mine += [w for w in stations[int(rng.choice(earlier))].servers if rng.random() < 0.7]
            counted = latency_us * 4 // 5 if rng.random() < 0.5 else None
            station = Station(
                LATEST_START,
                tuple(rng.permutation(mine).tolist()),
                latency_us,
                max_batch=int(rng.integers(1, batches + 1)),
                timeout_us=int(rng.choice([0, 10, 40])),
                epsilon_us=int(rng.choice([0, 5, 20])),
                discard=bool(rng.random() < 0.7),
                counted_us=counted,
                spread=spread,
                **way,
            )
        devices = max([devices, *(w + 1 for w in mine)])
        stations.append(station)
        pool += mine
    kind = rng.integers(0, kinds, devices)
    on = [bool(rng.random() < 0.9) for _ in range(devices)]
    together = servers(kind.tolist(), card=rng.integers(0, devices, devices).tolist(), on=on)
    routes = tuple(random_route(rng, f"r{n}", len(stations)) for n in range(rng.integers(1, 4)))
    span = int(rng.integers(10, 60)) * requests
    arrivals = [np.sort(rng.integers(0, span, requests) // grain * grain) for _ in routes]
    return Case(
        Network(together, tuple(stations), routes),
        arrivals,
        random_conditions(rng, devices, span),
        random_changes(rng, stations, kinds, span) if rng.random() < 0.4 else (),
    )


def random_route(rng: np.random.Generator, name: str, stations: int) -> Route:
    """A chain, a tree, or a graph with joins."""
    count = int(rng.integers(1, 5))
    after: list[set[int]] = [set() for _ in range(count)]
    shape = rng.choice(["chain", "tree", "graph"])
    for step in range(1, count):
        before = [step - 1] if shape == "chain" else [int(rng.integers(0, step))]
        if shape == "graph" and step > 1:
            before.append(int(rng.integers(0, step)))
        for one in before:
            after[one].add(step)
    steps = []
    for step in range(count):
        latest = int(rng.integers(20, 200)) + 30 * step
        discard = latest + int(rng.integers(0, 200))
        steps.append(Step(int(rng.integers(0, stations)), tuple(sorted(after[step])), latest, discard))
    return Route(name, tuple(steps))


def random_conditions(rng: np.random.Generator, devices: int, span: int) -> Conditions:
    """Failures, loads, slow cards, measured factors: each sometimes."""
    times = np.sort(rng.integers(0, span, rng.integers(0, 6)))
    outages = tuple(
        Outage(int(at), tuple(np.flatnonzero(rng.random(devices) < 0.4).tolist()), int(rng.integers(5, 200)))
        for at in times
    )
    outages = tuple(outage for outage in outages if outage.servers) if rng.random() < 0.6 else ()
    slowdowns = (Slowdown(span // 4, span // 2, 2.5),) if rng.random() < 0.3 else ()
    factors = rng.uniform(0.5, 2.0, 7) if rng.random() < 0.2 else np.zeros(0)
    load_us = int(rng.choice([0, 0, 30]))
    return Conditions(int(rng.integers(0, 99)), factors, load_us, outages, slowdowns, corrected=True)


def random_changes(rng: np.random.Generator, stations: list[Station], kinds: int, span: int) -> tuple[Change, ...]:
    """New configurations of central stations."""
    found = []
    for q, station in enumerate(stations):
        if station.rule == CENTRAL:
            for at in np.sort(rng.integers(0, span, rng.integers(0, 4))):
                replicas = rng.multinomial(rng.integers(1, len(station.servers) + 1), np.full(kinds, 1 / kinds))
                batch, ready = int(rng.integers(1, 5)), int(at) + int(rng.integers(0, 100))
                found.append(Change(int(at), q, tuple(replicas.tolist()), batch, ready))
    return tuple(sorted(found, key=lambda change: change.at_us))
