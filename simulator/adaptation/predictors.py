"""What is seen of the load, and rules that say how high it will be (IPA, JSys 2024, section 4.4).

The monitor counts requests per second. A predictor is a function of these counts so far; it returns the rate
(requests/s) to plan for, the largest of any second in the next `AHEAD_S`. Rules look at the last `WINDOW_S` seconds as
the largest of every `STEP_S` of them, 12 numbers; before there are so many seconds the largest rate so far holds.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from planner.model import InputError

WINDOW_S, STEP_S, AHEAD_S = 120, 10, 20

Counts = NDArray[np.float64]
Predictor = Callable[[Counts], float]


def window_maxima(counts: Counts) -> Counts:
    """Return the largest count of every step of the last window, the oldest first; raises InputError for fewer seconds.

    >>> window_maxima(np.arange(240.0))[[0, -1]].tolist()
    [129.0, 239.0]
    """
    if len(counts) < WINDOW_S:
        raise InputError(
            f"prediction: {len(counts)} s of load are shorter than the predictor's history of {WINDOW_S} s; "
            "use a longer workload, or the largest rate so far"
        )
    maxima: Counts = counts[-WINDOW_S:].reshape(-1, STEP_S).max(axis=1)
    return maxima


def from_window(rule: Callable[[Counts], float]) -> Predictor:
    """Return the predictor that applies a rule to the window's maxima; the largest rate so far until it is full."""

    def predict(counts: Counts) -> float:
        if len(counts) < WINDOW_S:
            return float(counts.max(initial=0.0))
        return rule(window_maxima(counts))

    return predict


def _ar1(maxima: Counts) -> float:
    before, after = maxima[:-1] - maxima.mean(), maxima[1:] - maxima.mean()
    scale = float(before @ before)
    slope = float(np.clip(before @ after / scale, -1.0, 1.0)) if scale > 0 else 0.0
    deviation = maxima[-1] - maxima.mean()
    steps = np.arange(1, AHEAD_S // STEP_S + 1)
    return float(max(0.0, (maxima.mean() + deviation * slope**steps).max()))


reactive = from_window(lambda maxima: float(maxima[-1]))
largest = from_window(lambda maxima: float(maxima.max()))
mean = from_window(lambda maxima: float(maxima.mean()))
ar1 = from_window(_ar1)

PREDICTORS: Mapping[str, Predictor] = {"reactive": reactive, "max": largest, "mean": mean, "ar1": ar1}


def oracle(future: Counts) -> Predictor:
    """Return the predictor that knows all counts in advance.

    >>> oracle(np.array([1.0, 5.0, 2.0]))(np.array([1.0]))
    5.0
    """

    def predict(counts: Counts) -> float:
        ahead = future[len(counts) : len(counts) + AHEAD_S]
        return float(ahead.max(initial=0.0)) if len(ahead) else float(counts.max(initial=0.0))

    return predict
