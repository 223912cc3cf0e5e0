"""How good predictions and bounds are. All arguments are natural logarithms of times; results are fractions."""

import numpy as np

from planner.completion.observations import Floats, Ints


def mape(measured: Floats, predicted: Floats) -> float:
    """Return the mean of abs(C / Ĉ - 1), the error as Pitot's code counts it.

    >>> round(mape(np.log([2.0, 1.0]), np.log([1.0, 1.0])), 9)
    0.5
    """
    return float(np.mean(np.abs(np.expm1(measured - predicted))))


def tightness(measured: Floats, bound: Floats) -> float:
    """Return the mean of abs(C / U - 1): how far below the bound runtimes are, as a part of the bound.

    >>> round(tightness(np.log([1.0]), np.log([2.0])), 9)
    0.5
    """
    return mape(measured, bound)


def excess(measured: Floats, bound: Floats) -> float:
    """Return the mean of max(0, U - C) / C: what is provisioned beyond need, as a part of the need.

    >>> round(excess(np.log([1.0]), np.log([2.0])), 9)
    1.0
    """
    return float(np.mean(np.maximum(0.0, np.expm1(bound - measured))))


def coverage(measured: Floats, bound: Floats) -> float:
    """Return the share of rows within their bound."""
    return float(np.mean(measured <= bound))


def worst_coverage(measured: Floats, bound: Floats, groups: Ints, least: int = 30) -> float:
    """Return the smallest coverage of any group of at least ``least`` rows; NaN where there is none."""
    rows, inside = np.bincount(groups), np.bincount(groups, measured <= bound)
    counted = rows >= least
    return float((inside[counted] / rows[counted]).min()) if counted.any() else float("nan")
