"""Forecasts that learn: a linear model of what follows a window, bounds that hold, and a blend of predictors.

    forecast   scale · (w · features + w_0), scale the mean of the window's maxima, features the window's maxima and
               means per step and its last counts, all over the scale
    bound      forecast · (1 + q), q the level-quantile of the relative residuals of a later part of the history that
               the weights have not seen (split conformal: Lei et al., JASA 2018), so that the rate stays below it with
               about that probability as long as load behaves as it did

Weights minimise what errors are reported in, |p - y| / ((p + y) / 2), by iteratively reweighted least squares.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.model import InputError
from simulator.adaptation.predictors import AHEAD_S, STEP_S, WINDOW_S, Counts, Predictor

LAST_S = 10  # single counts that are features
CALIBRATION = 0.25  # of the history, its end, calibrates bounds
ROUNDS = 15
SMALLEST_ERROR = 1e-3


@dataclass(frozen=True)
class Forecast:
    """A fitted predictor; ``level`` None forecasts the middle, else a bound of that level."""

    weights: NDArray[np.float64]
    residuals: NDArray[np.float64]
    level: float | None = None

    def __call__(self, counts: Counts) -> float:
        """Return the rate to plan for; the largest so far before the window is full."""
        if len(counts) < WINDOW_S:
            return float(counts.max(initial=0.0))
        scale, features = _features(counts[np.newaxis, -WINDOW_S:])
        middle = max(0.0, float(scale[0] * (features[0] @ self.weights)))
        if self.level is None:
            return middle
        return middle * (1 + float(np.quantile(self.residuals, self.level)))

    def at(self, level: float) -> "Forecast":
        """Return the bound that holds with a probability."""
        if not 0 < level < 1:
            raise InputError(f"level of a bound: expected a probability between 0 and 1, got {level}")
        return Forecast(self.weights, self.residuals, level)


def fit_forecast(history: Counts, every_s: int = STEP_S) -> Forecast:
    """Return a forecast fitted to counts per second, looked at every so many seconds.

    Raises
    ------
    InputError
        The history is too short for as many windows as there are weights.

    Examples
    --------
    >>> load = 20 + 5 * np.sin(np.arange(20_000) / 50)
    >>> forecast = fit_forecast(load)
    >>> bool(abs(forecast(load[:5000]) - load[5000:5020].max()) < 0.2)
    True
    """
    starts = np.arange(0, len(history) - WINDOW_S - AHEAD_S + 1, every_s)
    needed = 2 * (2 * WINDOW_S // STEP_S + LAST_S + 1)
    if len(starts) * (1 - CALIBRATION) < needed:
        raise InputError(
            f"forecast: {len(history)} s of history give {len(starts)} windows; expected at least "
            f"{round(needed / (1 - CALIBRATION))}: give a longer history, or take a rule that needs none"
        )
    scale, features = _features(history[starts[:, np.newaxis] + np.arange(WINDOW_S)])
    ahead = history[(starts + WINDOW_S)[:, np.newaxis] + np.arange(AHEAD_S)].max(axis=1)
    target = ahead / scale
    train = slice(0, int(len(starts) * (1 - CALIBRATION)))
    weights = _least_absolute(features[train], target[train])
    middle = np.maximum(features @ weights, SMALLEST_ERROR)
    return Forecast(weights, np.sort((target / middle - 1)[train.stop :]))


def _features(windows: Counts) -> tuple[Counts, Counts]:
    """Return ``[window]`` scales and ``[window, feature]``."""
    steps = windows.reshape(len(windows), -1, STEP_S)
    maxima, means = steps.max(axis=2), steps.mean(axis=2)
    scale = np.maximum(maxima.mean(axis=1), 1.0)
    columns = np.concatenate([maxima, means, windows[:, -LAST_S:]], axis=1) / scale[:, np.newaxis]
    return scale, np.concatenate([columns, np.ones((len(windows), 1))], axis=1)


def _least_absolute(features: Counts, target: Counts) -> NDArray[np.float64]:
    """Minimise the sum of |p - y| / ((p + y) / 2), p = features · weights."""
    weight = 1 / np.maximum(target, SMALLEST_ERROR) ** 2
    found: NDArray[np.float64] = np.zeros(features.shape[1])
    for _ in range(ROUNDS):
        weighted = features * weight[:, np.newaxis]
        normal = weighted.T @ features + 1e-9 * np.eye(features.shape[1])
        found = np.asarray(np.linalg.solve(normal, weighted.T @ target), np.float64)
        middle = features @ found
        size = np.maximum((np.abs(middle) + target) / 2, SMALLEST_ERROR)
        weight = 1 / (size * np.maximum(np.abs(middle - target), SMALLEST_ERROR))
    return found


def blend(experts: Sequence[Predictor], looks: int = 12, sharpness: float = 30.0) -> Predictor:
    """Return the predictor that trusts each of several by how well it would have done lately.

    Weights are exp(-sharpness · mean error) over the last ``looks`` times of prediction whose outcome is known by now
    (the exponentially weighted average forecaster: Cesa-Bianchi and Lugosi 2006, section 2.1), errors as in SMAPE.

    >>> blend([lambda counts: 10.0, lambda counts: 30.0])(np.full(300, 30.0)) > 29.9
    True
    """

    def predict(counts: Counts) -> float:
        now = np.array([expert(counts) for expert in experts])
        known = [len(counts) - AHEAD_S - STEP_S * look for look in range(looks)]
        errors = [
            [_error(expert(counts[:at]), float(counts[at : at + AHEAD_S].max())) for expert in experts]
            for at in known
            if at >= WINDOW_S
        ]
        if not errors:
            return float(now.mean())
        mean = np.mean(errors, axis=0)
        weights = np.exp(-sharpness * (mean - mean.min()))
        return float(weights @ now / weights.sum())

    return predict


def _error(predicted: float, actual: float) -> float:
    size = (abs(predicted) + abs(actual)) / 2
    return abs(predicted - actual) / size if size > 0 else 0.0


def smape_percent(predictor: Predictor, counts: Counts, every_s: int = STEP_S) -> float:
    """Return the symmetric mean absolute percentage error of a predictor over a workload.

    It is asked every so often from the first full window on, as long as the whole time ahead is known:
    100 · mean of |p - y| / ((|p| + |y|) / 2), 0 where both are 0.

    Raises
    ------
    InputError
        The workload is shorter than a window and the time ahead.

    Examples
    --------
    >>> smape_percent(lambda counts: 10.0, np.full(200, 30.0))
    100.0
    """
    if len(counts) < WINDOW_S + AHEAD_S:
        raise InputError(
            f"SMAPE: a workload of {len(counts)} s is shorter than the predictor's history and what it predicts, "
            f"{WINDOW_S + AHEAD_S} s"
        )
    times = range(WINDOW_S, len(counts) - AHEAD_S + 1, every_s)
    errors = [_error(predictor(counts[:now]), float(counts[now : now + AHEAD_S].max())) for now in times]
    return 100 * float(np.mean(errors))
