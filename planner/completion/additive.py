"""The additive baseline: log time = mean + what the workload adds + what the platform adds.

Fitted by alternating ridge means: each effect is the sum of its residuals over their number plus ``ridge``, so that an
entity that was never measured keeps 0. What is left over is for the network to learn.
"""

from dataclasses import dataclass

import numpy as np

from planner.completion.observations import Floats, Observations

PASSES, RIDGE = 30, 0.3


@dataclass(frozen=True, eq=False)
class Additive:
    """``mean``, and effects per workload and per platform."""

    mean: float
    workload: Floats
    platform: Floats


def fit_additive(observations: Observations, ridge: float = RIDGE, passes: int = PASSES) -> Additive:
    """Fit the baseline to the rows that ran alone.

    >>> from planner.completion.observations import Axis, observe
    >>> empty = np.zeros((2, 0))
    >>> rows = [("a", "x", 1.0, ()), ("a", "y", 2.0, ()), ("b", "x", 3.0, ()), ("b", "y", 6.0, ())]
    >>> fitted = fit_additive(observe(Axis(("a", "b"), empty), Axis(("x", "y"), empty), rows), ridge=0.0)
    >>> float(np.exp(fitted.mean + fitted.workload[1] + fitted.platform[1]).round(9))
    6.0
    """
    alone = observations.take(observations.level == 0)
    i, j, y = alone.workload, alone.platform, alone.log_time
    workloads, platforms = len(observations.workloads), len(observations.platforms)
    mean = float(y.mean())
    on_workload, on_platform = np.zeros(workloads), np.zeros(platforms)
    per_workload = np.maximum(np.bincount(i, minlength=workloads) + ridge, 1e-9)
    per_platform = np.maximum(np.bincount(j, minlength=platforms) + ridge, 1e-9)
    for _ in range(passes):
        on_workload = np.bincount(i, y - mean - on_platform[j], workloads) / per_workload
        on_platform = np.bincount(j, y - mean - on_workload[i], platforms) / per_platform
    return Additive(mean, on_workload, on_platform)
