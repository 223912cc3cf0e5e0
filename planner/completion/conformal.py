"""Bounds that hold with a stated probability: split conformal prediction with exact order statistics.

Given scores (y - m) / s of n rows that nothing else was fitted to, and a new row that is exchangeable with them: its
score is at most the k-th smallest of theirs, k = ⌈(n + 1)(1 - miss)⌉, with probability at least 1 - miss, whatever the
distribution (Vovk et al. 2005; Lei et al. 2018, "Distribution-free predictive inference for regression", Theorem 2.2).
Where k > n no finite bound has that guarantee: the margin is infinite.

The statement is about all new rows together. Per group (a device's rows, say) it holds where the group's own rows
calibrate it; groups with fewer than ``least`` of them take the pooled margin.
"""

from collections.abc import Sequence
from math import ceil, floor, inf

import numpy as np

from planner.completion.observations import Floats, Ints
from planner.model import InputError

LEAST_OF_A_GROUP = 40


def rank(rows: int, miss: float) -> int:
    """Return k, which of ``rows`` scores in increasing order is the margin; above ``rows`` there is none.

    >>> rank(99, 0.05), rank(10, 0.05)
    (95, 11)
    """
    return ceil((rows + 1) * (1 - miss) - 1e-9)


def rows_needed(miss: float) -> int:
    """Return the fewest calibration rows that give a finite margin.

    >>> rows_needed(0.05), rows_needed(0.01)
    (19, 99)
    """
    rows = max(1, floor(1 / miss) - 2)
    while rank(rows, miss) > rows:
        rows += 1
    return rows


def margin(scores: Floats, miss: float) -> float:
    """Return the margin that a new score exceeds with probability at most ``miss``; infinite with too few scores.

    >>> margin(np.arange(1.0, 20.0), 0.05)
    19.0
    """
    k = rank(len(scores), miss)
    return inf if k > len(scores) else float(np.partition(scores, k - 1)[k - 1])


def finite_margin(scores: Floats, level: float, what: str) -> float:
    """Return the margin for a ``level`` such as 0.95.

    Raises
    ------
    InputError
        The level is not between 0 and 1, or there are too few rows.
    """
    require_rows(len(scores), level, what)
    return margin(scores, 1 - level)


def require_rows(rows: int, level: float, what: str) -> None:
    """Raise InputError unless so many rows can calibrate a level, which is to be between 0 and 1."""
    if not 0 < level < 1:
        raise InputError(f"level of {what}: expected a number between 0 and 1, got {level}")
    needed = rows_needed(1 - level)
    if rows < needed:
        raise InputError(
            f"level {level:g} of {what}: needs {needed} to calibrate on, got {rows}; measure {needed - rows} more, or "
            f"ask for at most {floor(1000 * rows / (rows + 1)) / 1000:g}"
        )


def margins_by_group(
    scores: Floats, groups: Ints, new_groups: Ints, miss: float, least: int = LEAST_OF_A_GROUP
) -> Floats:
    """Return the margin of each new row: its group's where that has at least ``least`` scores, else the pooled one."""
    found = np.full(len(new_groups), margin(scores, miss))
    for group in np.unique(groups):
        own = scores[groups == group]
        if len(own) >= least:
            found[new_groups == group] = margin(own, miss)
    return found


def best_head(heads: Sequence[Floats], measured: Floats, miss: float) -> int:
    """Return the quantile head whose calibrated bounds are tightest on the rows that calibrate them.

    Pitot's selection (Section 3.5). It looks at the calibration rows twice, which costs a little of the guarantee.
    ``heads`` are the heads' predicted log times, ``measured`` the measured ones.
    """
    widths = []
    for predicted in heads:
        bound = predicted + margin(measured - predicted, miss)
        widths.append(np.mean(np.abs(np.expm1(measured - bound))))
    return int(np.argmin(widths))
