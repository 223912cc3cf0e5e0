"""Boxes of deployments: what a few models that share layers need at least, wherever in a box they are cut.

A *box* says of every model how many stages it has, in which range [a, b] of groups each cut lies, and in which range
[k, K] each stage's number of replicas. With the words of `planner.planning.merging.deployment`, of a stage between cuts
in [a, b] and [c, d] it is known that

    it holds the groups [b, c);   it has k' = max(k, ceil(P_m · t_[b,c) / T_m)) replicas or more;
    each of them is a load of mu_m · t_[b,c) / (T_m · K) or more

and some stage holds every other group, at least as often as the stage with the fewest replicas. What k' replicas with
these groups and loads need at least on devices (`planner.planning.merging.filling`) therefore bounds every deployment
of the box. Of every shared group there are copies for the load of all models at least, of which each has, wherever it
is cut, the load from that group to what its stage holds for certain.

The first box knows nothing. Models join one by one, in a box for every number of stages: those that cannot be cut
first, and of alike ones the busier; of models that have not joined yet their unshared bytes are counted. A box that has
nothing below the best deployment is dropped. Others are divided where most is open: a cut's range in halves, of which
size_[a,b) bytes are open, or replicas into k' and more, of which the load (1 - k' / K) · mu_m · t_[b,c) / T_m is, times
the family's bytes per load. When nothing is open it is a deployment.
"""

from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

import numpy as np

from planner.compilation import compiled
from planner.planning.arrays import Floats, Integers
from planner.planning.merging.deployment import MergeProblem, class_of
from planner.planning.merging.filling import BITS, Items, Masks, Shelf, fill
from planner.planning.merging.stages import ROUNDING

MOST_STEPS = 2_000_000  # of filling one box, after which nothing is said of it
CAUTION = 1e-6  # of a device: sums of loads are off by less
SETTLED = 3  # replicas beyond those of the whole model, below which their number is settled before others join


class Family(NamedTuple):
    """Some models in numbers, those first that cannot be cut; W words of a bit per shared class."""

    groups: Integers  # [model]
    stages: Integers  # [model], at most
    holds: Masks  # [model, first, last, W]: the shared classes in the groups [first, last)
    own: Floats  # [model, group]: bytes before it that are not shared
    size: Floats  # [model, group]: all bytes before it
    time: Floats  # [model, group]: the part of the latency before it
    peak: Floats  # [model], devices
    mean: Floats  # [model], devices
    kind: Integers  # [model, group]: its class, -1 if it is not shared
    shared: Floats  # [class], bytes
    room: float  # the largest device's bytes
    devices: int


class Boxes(NamedTuple):
    """A stack of boxes; the cuts of a model begin with 0 and end with its groups."""

    joined: Integers  # [box]: how many models
    stages: Integers  # [box, model]: how many it has
    low: Integers  # [box, model, stage + 1]: the first group at which it may be cut
    high: Integers  # [box, model, stage + 1]: the last one
    few: Integers  # [box, model, stage]: replicas at least
    many: Integers  # [box, model, stage]: and at most


class Best(NamedTuple):
    """The best deployment so far: its stages in columns of model, first, last, device; none of one known elsewhere."""

    bytes: Floats  # [1]: infinite where none is known
    replicas: Integers  # [replica, 4]
    length: Integers  # [1]


def family_of(problem: MergeProblem, order: Sequence[int]) -> Family:
    """Return some models in numbers, in a given order."""
    models = [problem.models[number] for number in order]
    most = max(len(model.groups) for model in models) + 1
    classes = class_of(problem)
    here = sorted({first for (model, _), first in classes.items() if model in order})
    bit = {member: place for place, member in enumerate(here)}
    words = max(1, ceil(len(here) / BITS))
    holds = np.zeros((len(models), most, most, words), dtype=np.uint64)
    own, size, time = (np.zeros((len(models), most)) for _ in range(3))
    kind = np.full((len(models), most), -1, dtype=np.int64)
    for at, (number, model) in enumerate(zip(order, models, strict=True)):
        for group, layers in enumerate(model.groups):
            member = classes.get((number, group))
            if member is not None:
                kind[at, group] = bit[member]
                word, place = divmod(bit[member], BITS)
                holds[at, : group + 1, group + 1 :, word] |= np.uint64(1 << place)
            own[at, group + 1 :] += 0 if member is not None else layers.parameter_bytes
            size[at, group + 1 :] += layers.parameter_bytes
            time[at, group + 1 :] += layers.latency / model.latency
    return Family(
        groups=np.array([len(model.groups) for model in models]),
        stages=np.array([min(model.max_stages, len(model.groups)) for model in models]),
        holds=holds,
        own=own,
        size=size,
        time=time,
        peak=np.array([model.peak_devices for model in models], dtype=np.float64),
        mean=np.array([model.mean_devices for model in models], dtype=np.float64),
        kind=kind,
        shared=np.array([problem.models[m].groups[g].parameter_bytes for m, g in here], dtype=np.float64),
        room=float(max(problem.device_bytes)),
        devices=len(problem.device_bytes),
    )


def stack_of(family: Family, room: int) -> Boxes:
    """Return a stack with the box of no models at its foot, and room for so many boxes and those that one becomes."""
    models, stages = len(family.groups), int(family.stages.max())
    height = room + stages
    return Boxes(
        joined=np.zeros(height, dtype=np.int64),
        stages=np.zeros((height, models), dtype=np.int64),
        low=np.zeros((height, models, stages + 1), dtype=np.int64),
        high=np.zeros((height, models, stages + 1), dtype=np.int64),
        few=np.zeros((height, models, stages), dtype=np.int64),
        many=np.zeros((height, models, stages), dtype=np.int64),
    )


def longer(first: Boxes, then: Boxes) -> Boxes:
    """Return a stack with the room of two."""
    return Boxes(*(np.concatenate(both) for both in zip(first, then, strict=True)))


@compiled
def explore(
    family: Family, boxes: Boxes, height: int, best: Best, items: Items, shelf: Shelf, gap: float, steps: int
) -> tuple[int, bool]:
    """Go on with the boxes on the stack for so many steps; return its height, and whether all was certain.

    It also ends where the stack has no room left. Of a box where something is open any filling below the best will do.
    """
    models, most = len(family.groups), max(2, family.stages.max())
    certain = True
    while height > 0 and steps > 0 and height + most <= len(boxes.joined):
        top = height - 1
        joined = boxes.joined[top]
        elsewhere = _replicas(family, boxes, top, items)
        if elsewhere < 0:
            height -= 1
            continue
        for later in range(joined, models):
            elsewhere += family.own[later, family.groups[later]]
        _needed(family, boxes, top, shelf.needed)
        below = best.bytes[0] * (1 - gap) - elsewhere
        model, stage, cut = -1, -1, False
        if joined:
            model, stage = _unsettled(family, boxes, top)
        if joined == models and model < 0:
            model, stage, cut = _widest(family, boxes, top)
        whole = joined == models and model < 0
        length = items.length[0]
        cost, taken = fill(items, shelf, family.shared, family.room, family.devices, below, whole, MOST_STEPS)
        steps -= taken + 1
        if taken > MOST_STEPS and whole:
            certain = False
        if cost < below and whole:
            best.bytes[0] = cost + elsewhere
            best.length[0] = length
            for at in range(length):
                for part in range(3):
                    best.replicas[at, part] = items.stage[at, part]
                best.replicas[at, 3] = shelf.found[at]
        if whole or (cost >= below and taken <= MOST_STEPS):
            height -= 1
        elif model >= 0:
            height = _divide(family, boxes, top, model, stage, cut)
        else:
            height = _join(family, boxes, top)
    return height, certain


@compiled
def _replicas(family: Family, boxes: Boxes, top: int, items: Items) -> float:
    """Write what replicas a box has at least, largest load first; return bytes elsewhere, or -1 where it is empty."""
    items.length[0] = 0
    elsewhere = 0.0
    for model in range(boxes.joined[top]):
        groups, count = family.groups[model], boxes.stages[top, model]
        fewest, known = family.devices, 0.0
        for stage in range(count):
            if boxes.low[top, model, stage] >= boxes.high[top, model, stage + 1]:
                return -1.0
            first, last = boxes.high[top, model, stage], boxes.low[top, model, stage + 1]
            replicas, load = _least(family, boxes, top, model, stage)
            if replicas > boxes.many[top, model, stage] or load > 1 + ROUNDING:
                return -1.0
            fewest = min(fewest, replicas)
            if first < last:
                own = family.own[model, last] - family.own[model, first]
                known += own
                for _ in range(replicas):
                    _insert(items, family, model, first, last, load)
        elsewhere += fewest * (family.own[model, groups] - known)
    return elsewhere


@compiled
def _needed(family: Family, boxes: Boxes, top: int, needed: Integers) -> None:
    """Write how many copies of every class there must be.

    As many as the stages that may hold a group have replicas at least, and as the loads of all models need: wherever a
    model is cut, the stage that holds a group has the load between that group and what it holds for certain. Of a model
    that has not joined that is all groups before or after it where it may have two stages, with more its own.
    """
    loads = np.zeros(len(needed))
    needed[:] = 1
    for model in range(len(family.groups)):
        groups, time, joined = family.groups[model], family.time[model], model < boxes.joined[top]
        stages = boxes.stages[top, model] if joined else 1
        for group in range(groups):
            kind = family.kind[model, group]
            if kind < 0:
                continue
            part, fewest = 1.0, family.devices
            for stage in range(stages):
                first, last = 0, groups
                if joined:
                    if not boxes.low[top, model, stage] <= group < boxes.high[top, model, stage + 1]:
                        continue
                    first, last = boxes.high[top, model, stage], boxes.low[top, model, stage + 1]
                    fewest = min(fewest, boxes.few[top, model, stage])
                part = min(part, time[max(group + 1, last)] - time[min(group, first)])
            if not joined and family.stages[model] == 2:
                part = min(time[group + 1], time[groups] - time[group])
            elif not joined and family.stages[model] > 2:
                part = time[group + 1] - time[group]
            loads[kind] += family.mean[model] * part
            if joined:
                needed[kind] = max(needed[kind], fewest)
    for kind in range(len(needed)):
        needed[kind] = max(needed[kind], int(np.ceil(loads[kind] - CAUTION)))


@compiled
def _least(family: Family, boxes: Boxes, top: int, model: int, stage: int) -> tuple[int, float]:
    """Return how many replicas a stage has at least, and the load of each."""
    first, last = boxes.high[top, model, stage], boxes.low[top, model, stage + 1]
    part = family.time[model, last] - family.time[model, first] if first < last else 0.0
    needed = int(np.ceil(family.peak[model] * part - ROUNDING))
    return max(boxes.few[top, model, stage], needed), family.mean[model] * part / boxes.many[top, model, stage]


@compiled
def _insert(items: Items, family: Family, model: int, first: int, last: int, load: float) -> None:
    """Add a replica behind those of its load or more."""
    at, words = items.length[0], items.holds.shape[1]
    items.length[0] += 1
    while at > 0 and items.load[at - 1] < load:  # one by one: to assign a row takes seconds to compile
        for part in range(3):
            items.stage[at, part] = items.stage[at - 1, part]
        for word in range(words):
            items.holds[at, word] = items.holds[at - 1, word]
        items.own[at] = items.own[at - 1]
        items.load[at] = items.load[at - 1]
        at -= 1
    items.stage[at, 0], items.stage[at, 1], items.stage[at, 2] = model, first, last
    for word in range(words):
        items.holds[at, word] = family.holds[model, first, last, word]
    items.own[at] = family.own[model, last] - family.own[model, first]
    items.load[at] = load


@compiled
def _unsettled(family: Family, boxes: Boxes, top: int) -> tuple[int, int]:
    """Return the stage of the model that joined last whose few replicas are open, -1 where there is none."""
    model = boxes.joined[top] - 1
    for stage in range(boxes.stages[top, model]):
        replicas, _ = _least(family, boxes, top, model, stage)
        if replicas < min(boxes.many[top, model, stage], np.ceil(family.peak[model] - ROUNDING) + SETTLED):
            return model, stage
    return -1, -1


@compiled
def _widest(family: Family, boxes: Boxes, top: int) -> tuple[int, int, bool]:
    """Return the model and stage whose replicas are most open, or the cut before it that is; -1 where nothing is."""
    ends = family.size[:, -1].sum() / max(family.mean.sum(), CAUTION)  # bytes a load
    chosen, widest = (-1, -1, False), -1.0
    for model in range(len(family.groups)):
        for stage in range(boxes.stages[top, model]):
            low, high = boxes.low[top, model, stage], boxes.high[top, model, stage]
            open_bytes = family.size[model, high] - family.size[model, low]
            if low < high and open_bytes > widest:
                chosen, widest = (model, stage, True), open_bytes
            replicas, load = _least(family, boxes, top, model, stage)
            many = boxes.many[top, model, stage]
            open_load = load * (many - replicas)
            if replicas < many and open_load * ends > widest:
                chosen, widest = (model, stage, False), open_load * ends
    return chosen


@compiled
def _copy(boxes: Boxes, source: int, target: int) -> None:
    boxes.joined[target] = boxes.joined[source]
    for model in range(boxes.stages.shape[1]):
        boxes.stages[target, model] = boxes.stages[source, model]
        for cut in range(boxes.low.shape[2]):
            boxes.low[target, model, cut] = boxes.low[source, model, cut]
            boxes.high[target, model, cut] = boxes.high[source, model, cut]
        for stage in range(boxes.few.shape[2]):
            boxes.few[target, model, stage] = boxes.few[source, model, stage]
            boxes.many[target, model, stage] = boxes.many[source, model, stage]


@compiled
def _join(family: Family, boxes: Boxes, top: int) -> int:
    """Let the next model join, with every number of stages in a box of its own; return the height."""
    model = boxes.joined[top]
    most = family.stages[model]
    for later in range(1, most):
        _copy(boxes, top, top + later)
    for place in range(most):
        here, count = top + place, most - place
        boxes.joined[here] = model + 1
        boxes.stages[here, model] = count
        for stage in range(count):
            boxes.low[here, model, stage] = stage
            boxes.high[here, model, stage] = family.groups[model] - count + stage if stage else 0
            boxes.few[here, model, stage] = 1
            boxes.many[here, model, stage] = family.devices
        boxes.low[here, model, count] = boxes.high[here, model, count] = family.groups[model]
    return top + int(most)


@compiled
def _divide(family: Family, boxes: Boxes, top: int, model: int, stage: int, cut: bool) -> int:
    """Divide a cut's range in halves of bytes, or replicas in the fewest and more; return the height."""
    _copy(boxes, top, top + 1)
    if cut:
        size, low, high = family.size[model], boxes.low[top, model, stage], boxes.high[top, model, stage]
        middle = low
        while middle + 1 < high and 2 * size[middle + 1] <= size[low] + size[high]:
            middle += 1
        boxes.low[top, model, stage] = middle + 1
        boxes.high[top + 1, model, stage] = middle
    else:
        replicas, _ = _least(family, boxes, top, model, stage)
        boxes.few[top, model, stage] = replicas + 1
        boxes.few[top + 1, model, stage] = boxes.many[top + 1, model, stage] = replicas
    return top + 2
