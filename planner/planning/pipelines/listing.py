"""Every pipeline of one variant of a DNN that meets the SLO, listed depth first by compiled code.

Sequences of places (device type, share) are walked as a tree. At every node stand the pipelines begun on that sequence,
a row per choice of batch size, cuts and parts; each is continued by a stage on the next place up to every later block.
Rows that cannot end within the budget, even at every block's fastest latency, are left; so are sequences for which the
cluster lacks the devices. Of the whole pipelines on one sequence, and of equal parts, the Pareto-best stay.

The rules themselves are told in `planner.planning.pipelines.candidates`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.compilation import compiled
from planner.planning.arrays import Flags, Floats, Integers
from planner.planning.pipelines.terrain import Terrain

BEST, ALL, FASTEST = 0, 1, 2  # which whole pipelines stay


@dataclass(frozen=True)
class Listing:
    """Pipelines as arrays ``[pipeline, stage]``; stages beyond a pipeline's own are not read.

    ``cuts[pipeline, 0..stages]``; ``place`` and ``part`` (the batch of a stage) index the terrain's.
    """

    stages: Integers
    cuts: NDArray[np.int32]
    place: NDArray[np.int32]
    part: NDArray[np.int32]
    slice_rps: Floats
    latency_us: Floats


def listed(terrain: Terrain, which: int = BEST, allowed: Flags | None = None) -> Listing:
    """Return the pipelines within the budget: the Pareto-best, all, or ever faster ones, the fastest last.

    Stages are those ``allowed[place, batch, first, last]``, by default all. Pipelines of one stage are listed without
    compiled code, which takes a minute where it is not compiled yet: NP and the plan to begin with need no other ones.
    """
    if len(terrain.device) == 0:
        none = np.zeros((0, terrain.max_stages + 1), dtype=np.int32)
        shape = none[:, 1:]
        return Listing(np.zeros(0, dtype=np.int64), none, shape, shape, shape.astype(float), np.zeros(0))
    latency_us = terrain.latency_us if allowed is None else np.where(allowed, terrain.latency_us, np.inf)
    if terrain.max_stages == 1 and which != FASTEST:
        return _one_stage(terrain, latency_us, which)
    return Listing(
        *_list(
            latency_us,
            terrain.batches,
            terrain.budget_us,
            terrain.building_us,
            _rest_us(terrain),
            terrain.device,
            terrain.counts,
            terrain.card_slices,
            terrain.link_class,
            terrain.wire_us,
            terrain.hop_us,
            terrain.parts,
            terrain.max_stages,
            which,
        )
    )


def _one_stage(terrain: Terrain, latency_us: Floats, which: int) -> Listing:
    """Return what `_list` does for one stage: of every place all batches within the budget, or the best one."""
    latency_us = latency_us[:, :, 0, -1]
    place, part = np.nonzero(latency_us <= terrain.budget_us)
    slice_rps, latency_us = 1e6 * terrain.batches[part] / latency_us[place, part], latency_us[place, part]
    if which == BEST:
        order = np.lexsort((latency_us, -slice_rps, place))
        rows = order[np.unique(place[order], return_index=True)[1]]
        place, part, slice_rps, latency_us = place[rows], part[rows], slice_rps[rows], latency_us[rows]
    cuts = np.tile(np.array([0, terrain.latency_us.shape[2] - 1], dtype=np.int32), (len(place), 1))
    columns = place.astype(np.int32)[:, np.newaxis], part.astype(np.int32)[:, np.newaxis]
    return Listing(np.ones(len(place), dtype=np.int64), cuts, *columns, slice_rps[:, np.newaxis], latency_us)


def _rest_us(terrain: Terrain) -> Floats:
    """Return the least time [batch, block] that the blocks from ``block`` on take, transfers left out."""
    blocks = terrain.latency_us.shape[2] - 1
    alone = np.arange(blocks)
    fastest_us = terrain.latency_us[:, :, alone, alone + 1].min(axis=0)
    fastest_us = np.array([fastest_us[parts].min(axis=0) for parts in terrain.parts])
    rest_us = np.zeros((len(terrain.batches), blocks + 1))
    rest_us[:, :-1] = fastest_us[:, ::-1].cumsum(axis=1)[:, ::-1]
    return rest_us


@compiled
def _longer(array: NDArray[Any], rows: int) -> NDArray[Any]:
    longer = np.zeros((rows, *array.shape[1:]), array.dtype)
    new, old = longer.ravel(), array.ravel()
    for k in range(len(old)):
        new[k] = old[k]
    return longer


@compiled
def _list(
    latency_us: Floats,
    batches: Integers,
    budget_us: Floats,
    building_us: Floats,
    rest_us: Floats,
    device: Integers,
    counts: Integers,
    card_slices: Floats,
    link_class: Integers,
    wire_us: Floats,
    hop_us: Floats,
    parts: NDArray[np.bool_],
    max_stages: int,
    which: int,
) -> tuple[Integers, NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], Floats, Floats]:
    # One function, as calls with these arrays cost more than their work: with the rows of a node and its transfers in
    # functions of their own it took 1.7 times as long. Copied item by item: slices take seconds each to compile.
    places, blocks, last_class = len(device), latency_us.shape[2] - 1, card_slices.shape[1] - 1
    budget_us, fastest_us = budget_us.copy(), np.inf
    room, found = 1024, 0
    out_stages, out_latency = np.zeros(room, np.int64), np.zeros(room)
    out_cuts = np.zeros((room, max_stages + 1), np.int32)
    out_place, out_part = np.zeros((room, max_stages), np.int32), np.zeros((room, max_stages), np.int32)
    out_rps = np.zeros((room, max_stages))
    # Rows of each depth: of depth 0 one per batch size, without stages.
    most = max(64, len(batches))
    height = np.zeros(max_stages + 1, np.int64)
    batch = np.zeros((most, max_stages + 1), np.int32)
    spent = np.zeros((most, max_stages + 1))
    cuts = np.zeros((most, max_stages + 1, max_stages + 1), np.int32)
    part = np.zeros((most, max_stages + 1, max_stages), np.int32)
    rps = np.zeros((most, max_stages + 1, max_stages))
    height[0] = len(batches)
    for size in range(len(batches)):
        batch[size, 0] = size
    left = counts.copy()
    sequence = np.full(max_stages, -1, np.int64)
    depth = 0
    while depth >= 0:
        if sequence[depth] >= 0:
            left[device[sequence[depth]]] += 1
        sequence[depth] += 1
        if sequence[depth] == places:
            sequence[depth] = -1
            depth -= 1
            continue
        here = sequence[depth]
        left[device[here]] -= 1
        if left[device[here]] < 0:
            continue
        rows, whole = 0, 0
        before = sequence[depth - 1] if depth else -1
        final = depth + 1 == max_stages
        for row in range(height[depth]):
            size, first = batch[row, depth], cuts[row, depth, depth]
            if first == blocks:
                continue
            wire, card_rps, sender_rps = 0.0, np.inf, np.inf
            arrived = 0.0
            if depth:
                one, other = link_class[before], link_class[here]
                wire = wire_us[one, other, first]
                arrived = batches[size] * wire + hop_us[one, other]
                card_rps = 1e6 / wire if wire > 0 else np.inf
                limit_rps = card_rps
                if depth > 1:
                    received = wire_us[link_class[sequence[depth - 2]], one, cuts[row, depth, depth - 1]]
                    limit_rps = min(limit_rps, 1e6 / received if received > 0 else np.inf)
                sender_rps = min(rps[row, depth, depth - 1], limit_rps / card_slices[before, other])
                card_rps = card_rps / card_slices[here, last_class]
            for run in range(len(batches)):
                if (depth == 0 and run != size) or (depth > 0 and not parts[size, run]):
                    continue
                for last in range(blocks if final else first + 1, blocks + 1):
                    inference = latency_us[here, run, first, last]
                    total = spent[row, depth] + inference + arrived
                    if not total + rest_us[size, last] <= budget_us[size]:
                        continue
                    if rows == most:
                        most *= 2
                        batch, spent, cuts = _longer(batch, most), _longer(spent, most), _longer(cuts, most)
                        part, rps = _longer(part, most), _longer(rps, most)
                    below = depth + 1
                    batch[rows, below], spent[rows, below] = size, total
                    for stage in range(depth):
                        cuts[rows, below, stage] = cuts[row, depth, stage]
                        part[rows, below, stage] = part[row, depth, stage]
                        rps[rows, below, stage] = rps[row, depth, stage]
                    cuts[rows, below, depth], cuts[rows, below, below], part[rows, below, depth] = first, last, run
                    if depth:
                        rps[rows, below, depth - 1] = sender_rps
                    rps[rows, below, depth] = min(1e6 * batches[run] / inference, card_rps)
                    whole += last == blocks
                    rows += 1
        height[depth + 1] = rows
        if whole:
            below = depth + 1
            chosen = _whole(cuts[:rows, below, below], blocks)
            if which == BEST:
                chosen = _pareto_best(
                    chosen, rps[:rows, below, :below], part[:rows, below, :below], batches, spent[:rows, below]
                )
            for row in chosen:
                if which == FASTEST:
                    needed_us = spent[row, below] + building_us[batch[row, below]]
                    if needed_us >= fastest_us:
                        continue
                    fastest_us = needed_us
                    for size in range(len(batches)):
                        budget_us[size] = fastest_us - building_us[size]
                if found == room:
                    room *= 2
                    out_stages, out_latency = _longer(out_stages, room), _longer(out_latency, room)
                    out_cuts, out_rps = _longer(out_cuts, room), _longer(out_rps, room)
                    out_place, out_part = _longer(out_place, room), _longer(out_part, room)
                out_stages[found], out_latency[found] = below, spent[row, below]
                for stage in range(below):
                    out_cuts[found, stage + 1] = cuts[row, below, stage + 1]
                    out_place[found, stage] = sequence[stage]
                    out_part[found, stage] = part[row, below, stage]
                    out_rps[found, stage] = rps[row, below, stage]
                found += 1
        if rows > whole and not final:
            depth += 1
            sequence[depth] = -1
    return (
        out_stages[:found].copy(),
        out_cuts[:found].copy(),
        out_place[:found].copy(),
        out_part[:found].copy(),
        out_rps[:found].copy(),
        out_latency[:found].copy(),
    )


@compiled
def _whole(last: NDArray[np.int32], blocks: int) -> Integers:
    return np.flatnonzero(last == blocks)


@compiled
def _pareto_best(rows: Integers, gain: Floats, part: NDArray[np.int32], batches: Integers, cost: Floats) -> Integers:
    """Return the rows that no other row of equal parts reaches in every stage, the cheapest of equal ones.

    The order is by falling total gain.
    """
    stages = gain.shape[1]
    total = np.zeros(len(rows))
    for at, row in enumerate(rows):
        for stage in range(stages):
            total[at] -= gain[row, stage]
    order = np.argsort(cost[rows], kind="mergesort")
    order = order[np.argsort(total[order], kind="mergesort")]
    kept = np.empty(len(rows), np.int64)
    count = 0
    for at in order:
        row = rows[at]
        reached = False
        for known in range(count):
            other = kept[known]
            reached = True
            size, other_size = batches[part[row, 0]], batches[part[other, 0]]
            for stage in range(stages):
                unlike = other_size * batches[part[row, stage]] != size * batches[part[other, stage]]
                if gain[row, stage] > gain[other, stage] or unlike:
                    reached = False
                    break
            if reached:
                break
        if not reached:
            kept[count] = row
            count += 1
    return kept[:count].copy()
