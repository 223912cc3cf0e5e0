"""Which latencies that a plan relies on are upper bounds, and how often a run kept them.

A plan made with bounds (``latency = {bound = 0.95}``) relies on bounds of what was estimated, and on medians of what
was measured. Half of all batches take longer than a median, so that only the former can be held to their level.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.model import Plan, Problem
from simulator.results import Records


@dataclass(frozen=True, eq=False)
class Bounds:
    """``is_bound[pipeline, stage, batch]`` tells which latencies of a system are upper bounds, of a ``level``."""

    level: float
    is_bound: NDArray[np.bool_]

    def kept(self, records: Records, pipeline: int, stage: int, window_us: tuple[int, int]) -> float:
        """Return the share of a stage's batches with a bound that took no longer; NaN without any."""
        visits = records.visits[stage]
        own = (visits.pipeline == pipeline) & (visits.start_us >= window_us[0]) & (visits.end_us < window_us[1])
        own[own] = self.is_bound[pipeline, stage, visits.size[own]]
        bound_us = records.system.latency_us[pipeline, stage, visits.size[own]]
        taken_us = visits.end_us[own] - visits.start_us[own]
        return float(np.mean(taken_us <= bound_us)) if own.any() else float("nan")


def bounds_of(problem: Problem, plan: Plan, dnn_name: str) -> Bounds | None:
    """Return which latencies of a DNN's stages are bounds; None where the plan relies on nominal latencies.

    A stage's is one where any block of it was not measured at that batch size.
    """
    level = problem.options.bound
    if level is None:
        return None
    dnn, pipelines = problem.planned.dnn(dnn_name), plan.of(dnn_name)
    stages = max(len(pipeline.stages) for pipeline in pipelines)
    is_bound = np.zeros((len(pipelines), stages, max(pipeline.batch for pipeline in pipelines) + 1), bool)
    for p, pipeline in enumerate(pipelines):
        profile = dnn.variant(pipeline.variant)
        for s, stage in enumerate(pipeline.stages):
            table = profile.table(stage.device, stage.share)
            for batch in range(1, stage.batch + 1):
                measured = table.measured_blocks(batch)[stage.first_block : stage.last_block]
                is_bound[p, s, batch] = table.provenance.kind == "bound" and not all(measured)
    return Bounds(level, is_bound)
