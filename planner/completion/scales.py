"""How large errors are where: a scale for every pair, learned from out-of-fold residuals.

    log(|residual| + 0.004) = mean of the level + random effects

with effects of the platform, the workload, each × level, the workload beside, that × the platforms' first factor, and
the workload × each factor. Each effect is the sum of its residuals over (their number + λ), found by backfitting. The
scale of a row is s = exp(α · what the effects say + β · log(members' spread + 0.001)). Bounds are calibrated on errors
in units of s, so that s decides only how wide they are where, never whether they hold.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from planner.completion.observations import Floats, Ints, Observations

SMALLEST_RESIDUAL, SMALLEST_SPREAD = 0.004, 0.001
PASSES = 8
RIDGE_ENTITY, RIDGE_CROSSED, RIDGE_FACTOR = 8.0, 12.0, 10.0


@dataclass(frozen=True)
class Mixture:
    """α and β of a scale."""

    effects: float
    spread: float


USUAL = Mixture(0.5, 0.25)
RARE = Mixture(0.6, 0.4)  # for bounds that one in fifty or fewer may break
EVEN = Mixture(0.8, 0.3)  # wider in the mean, and better spread over platforms


def mixture_for(miss: float) -> Mixture:
    """Return the mixture for bounds that a fraction ``miss`` may break."""
    return RARE if miss < 0.025 else USUAL


@dataclass(frozen=True, eq=False)
class Scales:
    """Fitted effects: ``level_mean`` by level, and for each grouping its effects."""

    level_mean: Floats
    effects: Mapping[str, Floats]

    def log_scale(self, observations: Observations) -> Floats:
        """Return what the effects say of each row's log |residual|."""
        level = np.minimum(observations.level, len(self.level_mean) - 1)
        found = self.level_mean[level]
        for name, (keys, _, _) in groupings(observations).items():
            effect = self.effects[name]
            found = found + np.where(keys < len(effect), effect[np.minimum(keys, len(effect) - 1)], 0.0).mean(axis=1)
        return found

    def scale(self, observations: Observations, spread: Floats, mixture: Mixture) -> Floats:
        """Return s of each row, given the members' ``spread``."""
        effects = mixture.effects * self.log_scale(observations)
        return np.asarray(np.exp(effects + mixture.spread * np.log(spread + SMALLEST_SPREAD)))


def fit_scales(observations: Observations, residual: Floats) -> Scales:
    """Fit the scales to out-of-fold residuals of rows."""
    size = np.log(np.abs(residual) + SMALLEST_RESIDUAL)
    level = observations.level
    count = np.maximum(np.bincount(level), 1)
    level_mean = np.bincount(level, size) / count
    left = size - level_mean[level]
    groups = groupings(observations)
    effects = {name: np.zeros(number) for name, (_, number, _) in groups.items()}
    for _ in range(PASSES):
        for name, (keys, number, ridge) in groups.items():
            left = left + effects[name][keys].mean(axis=1)
            sums = np.bincount(keys.ravel(), np.repeat(left, keys.shape[1]), number)
            effects[name] = sums / (np.bincount(keys.ravel(), minlength=number) + ridge)
            left = left - effects[name][keys].mean(axis=1)
    return Scales(level_mean, effects)


def groupings(observations: Observations) -> dict[str, tuple[Ints, int, float]]:
    """Return, for each grouping: keys ``[n, c]`` whose effects are averaged, the number of keys, and λ.

    Keys of rows without anybody beside are 0.
    """
    i, j = observations.workload[:, None], observations.platform[:, None]
    workloads, platforms = len(observations.workloads), len(observations.platforms)
    level = observations.level[:, None]
    beside = observations.beside + 1 if observations.beside.shape[1] else np.zeros_like(i)
    levels = int(level.max(initial=0)) + 1
    found = {
        "platform": (j, platforms, RIDGE_ENTITY),
        "workload": (i, workloads, RIDGE_ENTITY),
        "platform × level": (level * platforms + j, levels * platforms, RIDGE_CROSSED),
        "workload × level": (level * workloads + i, levels * workloads, RIDGE_CROSSED),
        "beside": (beside, workloads + 1, RIDGE_CROSSED),
    }
    for number, (name, values) in enumerate(observations.platforms.factors.items()):
        of_row, size = values[observations.platform][:, None], int(values.max(initial=0)) + 1
        found[f"workload × {name}"] = (i * size + of_row, workloads * size, RIDGE_FACTOR)
        if number == 0:
            crossed = np.where(beside > 0, beside * size + of_row, 0)
            found[f"beside × {name}"] = (crossed, (workloads + 1) * size, RIDGE_CROSSED)
    return found
