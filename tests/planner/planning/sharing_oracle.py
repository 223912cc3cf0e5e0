"""Optima of small problems by trying everything: every number of slices, laid on devices slot by slot.

Pipelines come from the planner's enumeration, which has oracles of its own (tests/planner/planning/oracles.py); how
many of each are taken, and what fits on devices, is found here without its code.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import product
from math import lcm

import numpy as np

from planner.model import (
    Block,
    Cluster,
    DeviceType,
    Dnn,
    LatencyTable,
    Network,
    Options,
    Problem,
    Profile,
    Provenance,
)
from planner.model.segments import kind_of, processes
from planner.planning.pipelines.candidates import Candidate, enumerate_candidates

Use = tuple[tuple[tuple[int, int, int | str], int], ...]  # (position, type, kind of segment) -> segments

A30 = {"1g.6gb": (1, (0, 1, 2, 3)), "2g.12gb": (2, (0, 2)), "4g.24gb": (4, (0,))}  # width, first slots
FOUR_CORES = {"1 core": (1, (0, 1, 2, 3)), "2 cores": (2, (0, 1, 2)), "4 cores": (4, (0,))}


def geometry(device: DeviceType, kind: int | str) -> tuple[int, int, tuple[int, ...]]:
    """Return slots of a device, width of a segment, and its first slots, from the tables above."""
    if isinstance(kind, int):
        slots = lcm(*device.shares)
        return slots, slots // kind, tuple(range(slots - slots // kind + 1))
    width, starts = (A30 if device.mig else FOUR_CORES)[kind]
    return 4, width, starts


def fewest(device: DeviceType, segments: Mapping[int | str, int]) -> int:
    """Return the fewest devices that hold so many segments; a device has 1/k or named ones, not both."""
    total = 0
    for named in (False, True):
        mine = tuple(sorted((kind, n) for kind, n in segments.items() if isinstance(kind, str) == named and n))
        if mine:
            total += next(count for count in range(1, 99) if _fits(device, mine, count))
    return total


@cache
def _by_device(device: DeviceType, kinds: tuple[int | str, ...]) -> frozenset[tuple[int, ...]]:
    """Return every multiset of segments that one device holds, by putting each at each slot."""
    found: set[tuple[int, ...]] = set()

    def put(held: tuple[int, ...], taken: frozenset[int], first: int) -> None:
        found.add(held)
        for number in range(first, len(kinds)):
            _, width, starts = geometry(device, kinds[number])
            for start in starts:
                slots = frozenset(range(start, start + width))
                if not slots & taken:
                    put((*held[:number], held[number] + 1, *held[number + 1 :]), taken | slots, number)

    put((0,) * len(kinds), frozenset(), 0)
    return frozenset(found)


@cache
def _fits(device: DeviceType, segments: tuple[tuple[int | str, int], ...], count: int) -> bool:
    if not any(n for _, n in segments):
        return True
    if count == 0:
        return False
    layouts = _by_device(device, tuple(kind for kind, _ in segments))
    return any(
        _fits(
            device, tuple((kind, max(0, n - less)) for (kind, n), less in zip(segments, held, strict=True)), count - 1
        )
        for held in layouts
        if any(held)
    )


def sizes(problem: Problem, candidate: Candidate) -> Iterator[tuple[int, ...]]:
    """Yield every number of slices per stage that its devices could hold, processes of a segment together."""
    limits = []
    for device, share in zip(candidate.devices, candidate.shares, strict=True):
        kind = problem.cluster.device_types[device]
        slots, width, _ = geometry(kind, kind_of(share))
        limits.append(range(processes(share), kind.count * (slots // width) * processes(share) + 1, processes(share)))
    yield from product(*limits)


def best_by_use(problem: Problem, number: int) -> dict[Use, float]:
    """Return the largest throughput of a DNN for every use of segments."""
    pieces: dict[Use, float] = {}
    for candidate in enumerate_candidates(problem, number, problem.dnns[number].np_throughput_rps or 0.0):
        for slices in sizes(problem, candidate):
            use: Counter[tuple[int, int, int | str]] = Counter()
            for position, (device, share, count) in enumerate(
                zip(candidate.devices, candidate.shares, slices, strict=True)
            ):
                use[position, device, kind_of(share)] += count // processes(share)
            rps = min(x * n for x, n in zip(candidate.slice_rps, slices, strict=True))
            key = tuple(sorted(use.items(), key=repr))
            if _devices(problem, [use]) is not None:
                pieces[key] = max(rps, pieces.get(key, 0.0))
    best: dict[Use, float] = {(): 0.0}
    for piece, rps in pieces.items():
        queue = list(best.items())
        while queue:
            base, value = queue.pop()
            use = Counter(dict(base)) + Counter(dict(piece))
            key = tuple(sorted(use.items(), key=repr))
            if value + rps > best.get(key, -1.0) and _devices(problem, [use]) is not None:
                best[key] = value + rps
                queue.append((key, value + rps))
    return best


def _devices(problem: Problem, uses: list[Counter[tuple[int, int, int | str]]]) -> tuple[int, ...] | None:
    """Return the fewest devices of each type for the uses of all DNNs; None where there are not so many."""
    shared = problem.options.device_sharing == "shared"
    pools: defaultdict[tuple[int, int, int], Counter[int | str]] = defaultdict(Counter)
    for dnn, use in enumerate(uses):
        for (position, device, kind), count in use.items():
            pools[(0, 0, device) if shared else (dnn, position, device)][kind] += count
    used = [0] * len(problem.cluster.device_types)
    for (_, _, device), segments in pools.items():
        used[device] += fewest(problem.cluster.device_types[device], segments)
    enough = all(n <= device.count for n, device in zip(used, problem.cluster.device_types, strict=True))
    return tuple(used) if enough else None


def brute_force(problem: Problem) -> float | None:
    """Return the optimum of a problem's objective; None where nothing satisfies it."""
    objective, best = problem.options.objective, None
    for choice in product(*(best_by_use(problem, number).items() for number in range(len(problem.dnns)))):
        rps = [value for _, value in choice]
        if objective == "max_min_throughput":
            value = min(got / dnn.weight for got, dnn in zip(rps, problem.dnns, strict=True))
        elif objective == "max_weighted_throughput":
            value = sum(got * dnn.weight for got, dnn in zip(rps, problem.dnns, strict=True))
        elif any(got < (dnn.rate_rps or 0.0) * (1 - 1e-9) for got, dnn in zip(rps, problem.dnns, strict=True)):
            continue
        else:
            value = 0.0
        if best is not None and objective.startswith("max") and value <= best:
            continue
        used = _devices(problem, [Counter(dict(use)) for use, _ in choice])
        if used is None:
            continue
        if objective == "fewest_devices":
            value = -float(sum(used))
        elif objective == "least_cost":
            types = problem.cluster.device_types
            value = -sum((device.price_per_hour or 0.0) * n for device, n in zip(types, used, strict=True))
        best = value if best is None else max(best, value)
    return best if best is None or objective.startswith("max") else -best


def random_problem(
    seed: int, *types: DeviceType, dnns: int = 2, stages: int = 1, sharing: str = "shared", objective: str | None = None
) -> Problem:
    """A problem on these types, with latencies for all of their shares, small enough for brute force."""
    rng = np.random.default_rng(seed)
    cluster = Cluster(types, Network(10.0))
    served = []
    for number in range(dnns):
        base_us, tables = rng.integers(1500, 4000, stages), []
        for device in types:
            speed = rng.uniform(0.7, 1.5)
            for share in device.offers:
                slowdown = float(1 / device.fraction(share)) ** rng.uniform(0.6, 1.0) * speed
                rows = [np.ceil(base_us * slowdown * (0.3 + 0.7 * batch)).astype(int) for batch in (1, 2)]
                latency_us = tuple(tuple(row.tolist()) for row in rows)
                tables.append(LatencyTable(device.name, share, (1, 2), latency_us, Provenance("measured", "drawn")))
        blocks = tuple(Block((f"d{number}{block}",)) for block in range(stages))
        cuts = tuple(rng.integers(1000, 200_000, stages - 1).tolist())
        served.append(
            Dnn(
                f"d{number}",
                float(rng.integers(20_000, 60_000)),
                (Profile(f"d{number}", blocks, cuts, tuple(tables)),),
                weight=float(rng.uniform(0.3, 1.0)),
                np_throughput_rps=float(rng.uniform(200, 2000)),
                rate_rps=float(rng.uniform(20, 200)),
            )
        )
    chosen = objective or str(rng.choice(["max_min_throughput", "max_weighted_throughput", "fewest_devices"]))
    options = Options(objective=chosen, max_stages=stages, slack_fraction=0.2, device_sharing=sharing)  # type: ignore[arg-type]
    return Problem(cluster, tuple(served), options)
