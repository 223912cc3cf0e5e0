"""Fit, calibrate, predict: the whole method in one object.

`fit` learns from some rows and calibrates on others; the result predicts any workload on any platform, alone or beside
others, and bounds it: U = m + q · s, where m is the ensemble's mean, s the scale, and q the margin of the calibration
rows of the same level (all alone, one beside, ...) and, where enough of them calibrate, of the same device.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from planner.completion.configurations import Method, ours
from planner.completion.conformal import LEAST_OF_A_GROUP, best_head, margins_by_group
from planner.completion.ensemble import Ensemble, train_ensemble
from planner.completion.observations import Floats, Observations
from planner.completion.scales import Scales, fit_scales, mixture_for


@dataclass(frozen=True, eq=False)
class Completion:
    """A fitted method with the rows that calibrate it."""

    method: Method
    ensemble: Ensemble
    scales: Scales | None
    calibration: Observations

    def predict(self, observations: Observations) -> Floats:
        """Return the predicted log time of each row: its median, by the loss of most methods."""
        return self.ensemble.predict(observations)[0]

    def bound(self, observations: Observations, miss: float, group: str | None = None) -> Floats:
        """Return upper bounds of the rows' log times that a fraction ``miss`` of new rows may break.

        Parameters
        ----------
        group
            A factor of platforms whose levels calibrate themselves where they have at least 40 rows.

        Returns
        -------
        array
            ``[n]``; infinite where too few rows calibrate (see `planner.completion.conformal.rows_needed`).
        """
        found = np.empty(len(observations))
        known_level, level = self.calibration.level, observations.level
        for one in np.unique(level):
            known = self.calibration.take(known_level == one)
            new = observations.take(level == one)
            head = self._head(known, miss)
            (known_mean, known_scale), (mean, scale) = (self._centre(rows, head, miss) for rows in (known, new))
            scores = (known.log_time - known_mean) / known_scale
            groups = [rows.factor(group) if group else np.zeros(len(rows), np.int64) for rows in (known, new)]
            least = LEAST_OF_A_GROUP if group else len(known) + 1
            found[level == one] = mean + scale * margins_by_group(scores, groups[0], groups[1], miss, least)
        return found

    def _head(self, known: Observations, miss: float) -> int:
        heads = len(self.method.recipe.architecture.quantiles)
        if heads == 1:
            return 0
        return best_head([self.ensemble.predict(known, head)[0] for head in range(heads)], known.log_time, miss)

    def _centre(self, rows: Observations, head: int, miss: float) -> tuple[Floats, Floats]:
        mean, spread = self.ensemble.predict(rows, head)
        if self.scales is None:
            return mean, np.ones(len(rows))
        return mean, self.scales.scale(rows, spread, mixture_for(miss))


def fit(
    learn: Observations,
    calibrate: Observations,
    method: Method | None = None,
    seed: int = 0,
    progress: Callable[[], None] = lambda: None,
) -> Completion:
    """Learn from some rows and keep others for calibration.

    Parameters
    ----------
    method
        Default: this project's for so many rows.
    progress
        Called after each member of the ensemble.

    Raises
    ------
    InputError
        Nothing was measured alone.
    """
    method = method or ours(len(learn))
    ensemble = train_ensemble(method.recipe, learn, method.members, seed, progress)
    scales = fit_scales(learn, ensemble.residual) if method.scaled else None
    return Completion(method, ensemble, scales, calibrate)
