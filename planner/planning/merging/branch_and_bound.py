"""The least memory of a few models that share layers, by branch and bound over boxes of cuts and replicas.

Boxes (`planner.planning.merging.boxes`) bound what is in them, by what replicas need at least on devices
(`planner.planning.merging.filling`). A pass goes through all of them and leaves out what is not below the best
deployment, less a gap. A first short one often does; else replicas are packed, and a pass with a wide gap finds what
makes the one with the gap asked for short.

Models that share nothing with each other, directly or by others, are apart: their memory adds up
(`planner.planning.merging.large`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner.planning.merging.boxes import Best, Family, explore, family_of, longer, stack_of
from planner.planning.merging.deployment import DeployedStage, MergeProblem, Stages, device_bytes, hopeless
from planner.planning.merging.filling import items_of, shelf_of
from planner.planning.merging.packing import pack
from planner.planning.merging.stages import Replicated, least_replicas
from planner.planning.programme.backends import Clock

FIRST_GAP = 0.05  # of the pass before the one with the gap asked for: what it finds makes that one short
PACKING_S = 2.0
STEPS = 200_000  # of filling, between looks at the clock
FIRST_ROOM = 1000  # boxes that a stack has room for, until it needs more


@dataclass(frozen=True)
class Found:
    """A deployment on devices that a family has for itself; no deployment needs less than ``bound_bytes``.

    ``finished`` tells that there is nothing else: without stages, that nothing fits.
    """

    stages: Stages | None
    bound_bytes: float
    finished: bool


def least_memory(problem: MergeProblem, gap: float, clock: Clock) -> Found:
    """Return where models run with the least memory, were all devices as large as the largest.

    Parameters
    ----------
    problem
        A family's: its models share layers with each other, and have all devices.
    gap
        How far above the least memory a deployment may be, relative.
    clock
        Tells when to stop; then the best so far is returned, and the bound of the passes that ended, or 0.
    """
    if hopeless(problem) is not None:
        return Found(None, 0.0, True)
    models = problem.models
    order = sorted(range(len(models)), key=lambda m: (models[m].max_stages > 1, -models[m].mean_devices))
    search = _Search(family_of(problem, order))
    packed, bound = None, 0.0
    finished = search.run(gap, clock, STEPS)
    if finished:
        bound = search.bound(gap)
    else:
        packed = _packed(problem, clock)
        if packed is not None:
            search.begin_with(float(sum(device_bytes(problem, packed))))
        for allowed in sorted({max(FIRST_GAP, gap), gap}, reverse=True):
            finished = search.run(allowed, clock)
            if not finished:
                break
            bound = search.bound(allowed)
    return Found(_stages(search.best, order) if search.best.length[0] else packed, bound, finished)


class _Search:
    """Passes through all boxes, with the best deployment so far, and room for replicas."""

    def __init__(self, family: Family) -> None:
        self.family = family
        most, words = int(family.stages.sum()) * family.devices, family.holds.shape[-1]
        self.best = Best(np.full(1, np.inf), np.zeros((most, 4), dtype=np.int64), np.zeros(1, dtype=np.int64))
        self.items, self.shelf = items_of(most, words), shelf_of(most, words, len(family.shared))

    def begin_with(self, known_bytes: float) -> None:
        """Take the bytes of a deployment found elsewhere, unless they are more than those of the best."""
        if known_bytes < self.best.bytes[0]:
            self.best.bytes[0], self.best.length[0] = known_bytes, 0

    def bound(self, gap: float) -> float:
        """Return what no deployment needs less than, after a pass that finished; 0 where there is none."""
        best = float(self.best.bytes[0])
        return best * (1 - gap) if best < np.inf else 0.0

    def run(self, gap: float, clock: Clock, most_steps: int | None = None) -> bool:
        """Go through all boxes; tell whether none is left that may have something below the best, less the gap."""
        boxes, height, finished, steps = stack_of(self.family, FIRST_ROOM), 1, True, 0
        while height and not clock.over and (most_steps is None or steps < most_steps):
            if height + int(self.family.stages.max()) >= len(boxes.joined):
                boxes = longer(boxes, stack_of(self.family, len(boxes.joined)))
            height, certain = explore(self.family, boxes, height, self.best, self.items, self.shelf, gap, STEPS)
            finished &= certain
            steps += STEPS
        return finished and not height


def _packed(problem: MergeProblem, clock: Clock) -> Stages | None:
    """Return a deployment to begin with, if one is found at once."""
    ends = [(0, len(model.groups)) for model in problem.models]
    whole = [
        Replicated(number, end, least_replicas(model, end))
        for number, (model, end) in enumerate(zip(problem.models, ends, strict=True))
    ]
    if any(one.replicas > len(problem.device_bytes) for one in whole):
        return None
    packing = clock.at_most(PACKING_S)
    return pack(problem, whole, enough_bytes=0.0, over=lambda: packing.over)


def _stages(best: Best, order: Sequence[int]) -> Stages:
    found: dict[tuple[int, int, int], list[int]] = {}
    for model, first, last, device in best.replicas[: best.length[0]].tolist():
        found.setdefault((order[model], first, last), []).append(device)
    return tuple(DeployedStage(*stage, tuple(sorted(devices))) for stage, devices in sorted(found.items()))
