"""Losses of a predicted log time, with their derivatives, elementwise.

The error e is predicted less measured. ``quantile`` is the level that a head estimates:

    squared        e² / 2                                        least squares of logarithms
    pinball        (1/2) h(e) + (1/2 - quantile) e               h = Huber's loss over its corner: |e| but for a rounded
                                                                 tip of ±0.02; the median at quantile 1/2
    proportional   (exp(e) - 1)² / 2, linear beyond e = 1        relative error, as users state it

Pinball: Koenker and Bassett (1978), "Regression quantiles"; smoothed, so that steps end small. Absolute errors of
logarithms are near what MAPE counts, which is why the median beats least squares here.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Loss = Literal["squared", "pinball", "proportional"]
CORNER = 0.02
STEEPEST_AT = 1.0  # errors beyond it do not make the proportional loss steeper

Array = NDArray[np.floating]


def loss_values(kind: Loss, error: Array, quantile: float) -> Array:
    """Return the loss of each error.

    >>> loss_values("pinball", np.array([-1.0, 1.0]), 0.9).round(3)
    array([0.895, 0.095])
    """
    if kind == "squared":
        return error * error / 2
    if kind == "proportional":
        cut = np.minimum(error, STEEPEST_AT)
        return np.asarray(np.square(np.expm1(cut)) / 2 + np.expm1(cut) * np.exp(cut) * (error - cut))
    size = np.abs(error)
    rounded: Array = np.where(size < CORNER, error * error / (2 * CORNER), size - CORNER / 2)
    return np.asarray(rounded / 2 + (0.5 - quantile) * error)


def loss_slopes(kind: Loss, error: Array, quantile: float) -> Array:
    """Return the derivative of each loss by its error."""
    if kind == "squared":
        return error
    if kind == "proportional":
        cut = np.minimum(error, STEEPEST_AT)
        return np.asarray(np.expm1(cut) * np.exp(cut))
    return np.asarray(np.clip(error / CORNER, -1, 1) / 2 + (0.5 - quantile))
