"""Forecasts that learn from a history of counts per second: the middle of what is ahead, or a bound that holds.

    forecast   scale · w · features, scale the mean of the window's maxima; features: per step of the window the
    maximum,
               the mean and the standard deviation, and the last counts one by one, all over the scale; and 1
    middle     w minimises what errors are reported in, the mean of |p - y| / ((p + y) / 2)
    bound      w minimises the quantile loss at a level (Koenker and Bassett, Econometrica 1978) of y / p - 1, and is
    then
               multiplied by what makes it hold that often in a later part of the history that w has not seen (split
               conformal: Lei et al., JASA 2018), so that the rate stays below it with about that probability as long
               as load behaves as it did

Both by iteratively reweighted least squares.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from planner.model import InputError
from simulator.adaptation.predictors import AHEAD_S, STEP_S, WINDOW_S, Counts, Predictor

LAST_S = 10  # single counts that are features
FEATURES = 3 * (WINDOW_S // STEP_S) + LAST_S + 1
CALIBRATION = 0.25  # of the history, its end, calibrates bounds
ROUNDS = 20
SMALLEST = 0.1  # load, over the mean, that errors are relative to: gaps in a history are not what is learned
TIE = 1e-3  # error that counts as none


@dataclass(frozen=True)
class Span:
    """What is forecast: the largest or the mean count of the seconds from ``begin_s`` to before ``end_s`` from now."""

    begin_s: int
    end_s: int
    of: Literal["largest", "mean"]

    def ahead(self, history: Counts, now: NDArray[np.int64]) -> Counts:
        """Return what came after each of some times, ``[time]``."""
        counts = history[now[:, np.newaxis] + np.arange(self.begin_s, self.end_s)]
        found: Counts = counts.max(axis=1) if self.of == "largest" else counts.mean(axis=1)
        return found


PUBLISHED = Span(0, AHEAD_S, "largest")
PLAN_LIFE = Span(8, 18, "mean")  # a plan begins 8 s after its decision, the next one 10 s later


@dataclass(frozen=True)
class Forecast:
    """A fitted predictor, ``weights[feature]``."""

    weights: NDArray[np.float64]

    def __call__(self, counts: Counts) -> float:
        """Return the rate to plan for; the largest so far before the window is full."""
        if len(counts) < WINDOW_S:
            return float(counts.max(initial=0.0))
        scale, features = _features(counts[np.newaxis, -WINDOW_S:])
        return max(0.0, float(scale[0] * (features[0] @ self.weights)))


def fit_forecast(
    history: Counts, level: float | None = None, span: Span = PUBLISHED, every_s: int = STEP_S
) -> Forecast:
    """Return a forecast fitted to counts per second, looked at every so many seconds.

    Parameters
    ----------
    level
        Probability with which what comes is to stay below the forecast; None is for the middle.
    span
        What is forecast.

    Raises
    ------
    InputError
        The level is no probability, or the history is too short for as many windows as there are weights.

    Examples
    --------
    >>> load = 20 + 5 * np.sin(np.arange(20_000) / 50)
    >>> forecast = fit_forecast(load)
    >>> bool(abs(forecast(load[:5000]) - load[5000:5020].max()) < 0.2)
    True
    """
    if level is not None and not 0 < level < 1:
        raise InputError(f"level of a bound: expected a probability between 0 and 1, got {level}")
    now = np.arange(WINDOW_S, len(history) - span.end_s + 1, every_s)
    needed = 2 * FEATURES
    if len(now) * (1 - CALIBRATION) < needed:
        raise InputError(
            f"forecast: {len(history)} s of history give {len(now)} windows; expected at least "
            f"{round(needed / (1 - CALIBRATION))}: give a longer history, or take a rule that needs none"
        )
    scale, features = _features(history[now[:, np.newaxis] + np.arange(-WINDOW_S, 0)])
    target = span.ahead(history, now) / scale
    if level is None:
        return Forecast(_fit(features, target, None))
    train = int(len(now) * (1 - CALIBRATION))
    weights = _fit(features[:train], target[:train], level)
    exceeds = target[train:] / np.maximum(features[train:] @ weights, SMALLEST)
    return Forecast(weights * np.quantile(exceeds, level))


def _features(windows: Counts) -> tuple[Counts, Counts]:
    """Return ``[window]`` scales and ``[window, feature]``."""
    steps = windows.reshape(len(windows), -1, STEP_S)
    maxima = steps.max(axis=2)
    scale = np.maximum(maxima.mean(axis=1), 1.0)
    columns = [maxima, steps.mean(axis=2), steps.std(axis=2), windows[:, -LAST_S:]]
    features = np.concatenate(columns, axis=1) / scale[:, np.newaxis]
    return scale, np.concatenate([features, np.ones((len(windows), 1))], axis=1)


def _fit(features: Counts, target: Counts, level: float | None) -> NDArray[np.float64]:
    """Minimise the error of the middle, or the relative quantile loss, of p = features · weights."""
    weight = 1 / np.maximum(target, SMALLEST) ** 2
    found: NDArray[np.float64] = np.zeros(features.shape[1])
    for _ in range(ROUNDS):
        weighted = features * weight[:, np.newaxis]
        normal = weighted.T @ features + 1e-9 * np.eye(features.shape[1])
        found = np.asarray(np.linalg.solve(normal, weighted.T @ target), np.float64)
        middle = features @ found
        size = np.maximum((np.abs(middle) + target) / 2, SMALLEST)
        side = 1.0 if level is None else np.where(target > middle, level, 1 - level)
        weight = side / (size * np.maximum(np.abs(middle - target), TIE))
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
