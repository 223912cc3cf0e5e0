"""The best plan of one pipeline per DNN, however long: chains over the devices of small clusters.

Where a model fits no device whole, or a cluster has one device of each kind, a plan is a chain of stages, and cuts are
too many to list (60 blocks in 12 stages: 10^11). For a target z every stage of DNN d must sustain y = w_d · z, which
fixes what it takes: on 1/k of type g, at batch b, ceil(ceil(y / x_s) / k) whole devices. A shortest path is left:

    least_us[j, u] = min over places p and i < j of  least_us[i, u - devices of (p, i, j)] + L_s + T_s

over the blocks done j and the vector u of devices taken, with the classes of both neighbours (`planner.planning.
pipelines.terrain`) beside j, as transfers depend on them. Where the number of stages is limited below what blocks and
devices allow, it is one more entry of u. A vector on which all blocks are done within the latency budget is one on
which the DNN reaches the target; `planner.planning.whole_devices.master` chooses one for every DNN. The largest target
is bisected; no plan of one pipeline per DNN is worth more than the bound by which it ended.
"""

from contextlib import suppress
from dataclasses import dataclass
from math import ceil, inf, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.compilation import compiled
from planner.model import InputError, Problem
from planner.planning.arrays import Flags, Floats, Integers
from planner.planning.pipelines.candidates import Candidate
from planner.planning.pipelines.pricing import pricers
from planner.planning.pipelines.reach import unreachable
from planner.planning.pipelines.sizing import Sized, Sizing
from planner.planning.pipelines.terrain import Terrain, terrain
from planner.planning.programme.backends import Clock, Limits, TooLate
from planner.planning.whole_devices import columns, master
from planner.planning.whole_devices.capacity import Capacity

VECTORS = 300_000  # of devices; times blocks, of numbers that are kept
TIE = 1 + 1e-12
CHOICE_LIMIT_S = 10.0
STEPS = 100_000_000  # between looks at the clock, about a tenth of a second
LEAST = 1e-9  # requests/s per weight: what is less is nothing


@dataclass(frozen=True)
class Reached:
    """The least latencies ``[block, class, class after, vector]`` at one batch size, and how each was reached."""

    terrain: Terrain
    batch: int
    rate_rps: float
    least_us: Floats
    parent: NDArray[np.int32]


def admits(problem: Problem) -> bool:
    """Tell whether the method applies, and the cluster is small enough."""
    kind = columns.admits(problem) and not problem.options.stage_batches and not problem.options.limited
    return kind and _vectors(problem) <= VECTORS


def _vectors(problem: Problem) -> int:
    return prod(device.count + 1 for device in problem.cluster.device_types)


def exhaust(problem: Problem) -> bool:
    """Tell whether plans of one pipeline per DNN are all that there are: devices are too few for one more.

    Pipelines of whole devices take at least one per stage, and a DNN's stages are at least as many as a walk takes
    that goes as far with each as memory and latencies allow. X0 must be known.
    """
    if not admits(problem) or any(device.shares != (1,) for device in problem.cluster.device_types):
        return False
    least = [_fewest_stages(problem, number) for number in range(len(problem.dnns))]
    return sum(least) + min(least) > sum(device.count for device in problem.cluster.device_types)


def _fewest_stages(problem: Problem, number: int) -> int:
    fewest = 0
    for variant in range(len(problem.dnns[number].variants)):
        ground = terrain(problem, number, variant, problem.dnns[number].np_throughput_rps or 0.0)
        anywhere: Flags = np.any(np.isfinite(ground.latency_us), axis=(0, 1))  # [first, last)
        stages = block = 0
        while block < len(anywhere) - 1 and anywhere[block].any():
            block, stages = int(np.flatnonzero(anywhere[block])[-1]), stages + 1
        fewest = min(fewest, stages) if fewest else stages
    return fewest


def size(problem: Problem, limits: Limits) -> Sizing:
    """Return the best plan of one pipeline per DNN; X0 must be known.

    Raises
    ------
    InputError
        The problem is of another kind, the cluster too large, or a DNN out of reach.
    """
    if not admits(problem):
        raise InputError(
            "one pipeline per DNN: expected max_min_throughput, one batch size per pipeline, device_sharing own, "
            f"shares that may be added up and at most {VECTORS} vectors of devices (product of counts + 1), got "
            f"{_vectors(problem)}; leave out --pipelines"
        )
    counts = np.array([device.count for device in problem.cluster.device_types], dtype=np.int64)
    clock, priced = Clock(limits), []
    for number in range(len(problem.dnns)):
        clock.expect_time()
        priced.append(pricers(problem, number))
        if not priced[-1]:
            raise unreachable(problem, number)
    terrains = [[one.terrain for one in own] for own in priced]
    bound = high = columns.generate(problem, priced, clock).bound * TIE
    best: tuple[Sized, ...] = ()
    low, target = 0.0, high
    with suppress(TooLate):
        while high - low > limits.gap * high and (low > 0 or high >= LEAST):
            found, certain = _plan_worth(problem, terrains, counts, target, clock)
            if found is not None:
                best, low = found, Sizing(found, 0.0, "").value(problem)
            else:
                high = target
                bound = target if certain else bound
            # Far from the bound at first: halves, then what lies between.
            target = (low + high) / 2 if low > 0 else high / 2
    return Sizing(best, max(bound, low), "highs")


def _plan_worth(
    problem: Problem, terrains: list[list[Terrain]], counts: Integers, target: float, clock: Clock
) -> tuple[tuple[Sized, ...] | None, bool]:
    """Return a pipeline per DNN that each reach the target and together fit, or None and whether there are none.

    Raises TooLate where the clock is over before.
    """
    uses, makers = [], []
    for dnn, own in zip(problem.dnns, terrains, strict=True):
        reached = [
            (variant, made)
            for variant, terrain in enumerate(own)
            for batch in range(len(terrain.batches))
            if (made := _reach(terrain, batch, dnn.weight * target, counts, clock)) is not None
        ]
        ends = [(way, vector) for way, (_, made) in enumerate(reached) for vector in _ends(made)]
        if not ends:
            return None, True
        use = np.array([_devices(vector, counts) for _, vector in ends])
        kept = master.least_vectors(use)
        uses.append(use[kept])
        makers.append([(*reached[ends[row][0]], ends[row][1]) for row in kept.tolist()])
    limits = clock.at_most(CHOICE_LIMIT_S).remaining()
    chosen, status = master.choose(uses, Capacity.of_devices(counts), np.ones(len(counts)), limits)
    if chosen is None:
        return None, status == "infeasible"
    picked = [(number, *makers[number][plan]) for number, plan in enumerate(chosen)]
    return tuple(_sized(number, variant, made, end, counts) for number, variant, made, end in picked), True


def _shape(terrain: Terrain, counts: Integers) -> tuple[int, int]:
    """Return how many vectors of devices there are, and how many stages are told apart (1: any number)."""
    blocks = terrain.latency_us.shape[2] - 1
    limited = terrain.max_stages < min(blocks, int(counts.sum()))
    return int(np.prod(counts + 1)), terrain.max_stages + 1 if limited else 1


def _devices(vector: int, counts: Integers) -> list[int]:
    """Return the devices of each type behind the number of a vector."""
    found = []
    for count in counts.tolist():
        vector, devices = divmod(vector, count + 1)
        found.append(devices)
    return found


def _reach(terrain: Terrain, batch: int, rate_rps: float, counts: Integers, clock: Clock) -> Reached | None:
    budget_us = float(terrain.budget_us[batch])
    if budget_us < 0:
        return None
    vectors, levels = _shape(terrain, counts)
    if vectors * levels > 4 * VECTORS:
        raise InputError(f"one pipeline per DNN: {vectors} numbers of devices and {levels - 1} stages are too many")
    blocks, classes = terrain.latency_us.shape[2] - 1, len(terrain.hop_us)
    least_us = np.full((blocks + 1, classes, classes, levels * vectors), inf)
    parent = np.full(least_us.shape, -1, dtype=np.int32)
    arguments = _arguments(terrain, batch, rate_rps, counts)
    at_once = max(1, STEPS // (levels * vectors * blocks * len(terrain.shares) * classes))
    for first in range(0, blocks, at_once):
        clock.expect_time()
        _shortest(arguments, first, min(first + at_once, blocks), levels, vectors, budget_us, least_us, parent)
    made = Reached(terrain, batch, rate_rps, least_us, parent)
    return made if len(_ends(made)) else None


def _arguments(terrain: Terrain, batch: int, rate_rps: float, counts: Integers) -> tuple[Any, ...]:
    strides = np.concatenate([[1], np.cumprod(counts + 1)[:-1]]).astype(np.int64)
    per_device = np.array([int(share) for share in terrain.shares], dtype=np.int64)
    return (
        np.ascontiguousarray(terrain.latency_us[:, batch]),
        float(terrain.batches[batch]),
        rate_rps,
        terrain.device,
        per_device,
        terrain.card_slices,
        terrain.link_class,
        terrain.wire_us,
        terrain.hop_us,
        counts,
        strides,
    )


def _ends(reached: Reached) -> list[int]:
    """Return the vectors on which all blocks are done in time."""
    last = reached.least_us[-1].min(axis=1).min(axis=0)
    ends: list[int] = np.flatnonzero(last < inf).tolist()
    return ends


def _sized(dnn: int, variant: int, reached: Reached, end: int, counts: Integers) -> Sized:
    """Walk back from a vector and return the pipeline, with as many slices as its devices hold."""
    terrain, classes = reached.terrain, len(reached.terrain.hop_us)
    vectors, levels = _shape(terrain, counts)
    blocks = terrain.latency_us.shape[2] - 1
    arguments = _arguments(terrain, reached.batch, reached.rate_rps, counts)
    own = int(reached.least_us[-1, :, 0, end].argmin())
    block, after, vector = blocks, 0, end
    stages: list[tuple[int, int, int, float]] = []  # first block, place, slices, what a slice sustains
    cuts = [blocks]
    while block > 0:
        code = int(reached.parent[block, own, after, vector])
        code, before = divmod(code, classes)
        place, first = divmod(code, blocks + 1)
        rps = _slice_rps(arguments, place, first, block, before, after if block < blocks else -1)
        slices = ceil(reached.rate_rps / rps / TIE)
        devices = -(-slices // int(terrain.shares[place]))
        stages.append((first, place, devices * int(terrain.shares[place]), rps))
        vector -= devices * int(arguments[10][terrain.device[place]]) + (vectors if levels > 1 else 0)
        block, after, own = first, own, before
        cuts.append(first)
    stages.reverse()
    places = [place for _, place, _, _ in stages]
    candidate = Candidate(
        dnn,
        variant,
        tuple(reversed(cuts)),
        tuple(int(terrain.device[place]) for place in places),
        tuple(terrain.shares[place] for place in places),
        (int(terrain.batches[reached.batch]),) * len(places),
        tuple(float(rps) for *_, rps in stages),
    )
    return Sized(candidate, tuple(slices for _, _, slices, _ in stages)).trimmed()


@compiled
def _slice_rps(
    ground: tuple[Any, ...],
    place: int,
    first: int,
    last: int,
    before: int,
    after: int,
) -> float:
    """Return x_s of blocks [first, last) between places of two classes; ``after`` is -1 for the last stage."""
    latency_us, size, _, _, _, card_slices, link_class, wire_us, _, _, _ = ground
    blocks = latency_us.shape[1] - 1
    own = link_class[place]
    card = card_slices[place, after if last < blocks else card_slices.shape[1] - 1]
    rps: float = 1e6 * size / latency_us[place, first, last]
    if first > 0 and wire_us[before, own, first] > 0:
        rps = min(rps, 1e6 / wire_us[before, own, first] / card)
    if last < blocks and wire_us[own, after, last] > 0:
        rps = min(rps, 1e6 / wire_us[own, after, last] / card)
    return rps


@compiled
def _shortest(
    ground: tuple[Any, ...],
    from_block: int,
    to_block: int,
    levels: int,
    vectors: int,
    budget_us: float,
    least_us: Floats,
    parent: NDArray[np.int32],
) -> None:
    """Extend what reaches blocks [from_block, to_block) by a stage from there on."""
    latency_us, size, rate_rps, device, per_device, _, link_class, wire_us, hop_us, counts, strides = ground
    places, blocks, classes = len(device), latency_us.shape[1] - 1, len(hop_us)
    states = levels * vectors
    for own in range(classes if from_block == 0 else 0):
        least_us[0, 0, own, 0] = 0.0
    for first in range(from_block, to_block):
        for before in range(classes if first else 1):
            for own in range(classes):
                begun = least_us[first, before, own]
                for place in range(places):
                    if link_class[place] != own:
                        continue
                    kind = device[place]
                    for last in range(first + 1, blocks + 1):
                        inference = latency_us[place, first, last]
                        if not inference <= budget_us:
                            break
                        for after in range(classes if last < blocks else 1):
                            rps = _slice_rps(ground, place, first, last, before, after)
                            slices = np.ceil(rate_rps / rps / TIE)
                            if slices > counts[kind] * per_device[place]:
                                continue
                            devices = -(-np.int64(slices) // per_device[place])
                            spent = inference
                            if last < blocks:
                                spent += size * wire_us[own, after, last] + hop_us[own, after]
                            step = devices * strides[kind] + (vectors if levels > 1 else 0)
                            code = (place * (blocks + 1) + first) * classes + before
                            ended = least_us[last, own, after]
                            for vector in range(states - step):
                                total = begun[vector] + spent
                                if total > budget_us or not total < ended[vector + step]:
                                    continue
                                held = (vector // strides[kind]) % (counts[kind] + 1)
                                if held + devices <= counts[kind]:
                                    ended[vector + step] = total
                                    parent[last, own, after, vector + step] = code
