"""Dividing devices of two types among DNNs: the largest least value, from each DNN's table of value by devices."""

from collections.abc import Sequence

import numpy as np

from planner.planning.arrays import Floats

Cell = tuple[int, int]


def best_split(tables: Sequence[Floats]) -> tuple[float, list[Cell]]:
    """Return the largest least value over DNNs and how many devices (i, j) each needs for it.

    Parameters
    ----------
    tables
        Per DNN the value ``[i, j]`` of i devices of the one and j of the other type, all of the shape of the cluster
        and growing in both. DNNs do not share devices.

    Examples
    --------
    Two DNNs on two devices of one type and one of the other:

    >>> fast = np.array([[0.0, 4.0], [5.0, 9.0], [10.0, 14.0]])
    >>> slow = np.array([[0.0, 1.0], [5.0, 6.0], [6.0, 7.0]])
    >>> best_split([fast, slow])
    (5.0, [(1, 0), (1, 0)])
    """
    values = np.unique(np.concatenate([table.ravel() for table in tables]))
    low, high = 0, len(values) - 1  # values[0] is that of no devices at all
    split = fewest_devices(tables, values[0])
    while low < high:
        middle = (low + high + 1) // 2
        found = fewest_devices(tables, values[middle])
        if found is None:
            high = middle - 1
        else:
            low, split = middle, found
    assert split is not None  # no devices suffice for the value of no devices
    return float(values[low]), split


def fewest_devices(tables: Sequence[Floats], value: float) -> list[Cell] | None:
    """Return devices per DNN that give each a value, the fewest in total; None where the cluster is too small.

    >>> fewest_devices([np.array([[0.0, 4.0], [5.0, 9.0]])], 4.0)
    [(0, 1)]
    """
    rows, columns = tables[0].shape
    needed = [_fewest(table, value) for table in tables]
    total, choices = needed[0], []
    for further in needed[1:]:
        sums = np.full((rows, rows), np.inf)  # [devices in all, devices of the DNN added]
        for own in range(rows):
            sums[own:, own] = total[: rows - own] + further[own]
        choices.append(sums.argmin(axis=1))
        total = sums.min(axis=1)
    within = np.flatnonzero(total < columns)
    if len(within) == 0:
        return None
    left = int(within[np.argmin(within + total[within])])
    cells: list[Cell] = []
    for choice, further in zip(reversed(choices), reversed(needed[1:]), strict=True):
        own = int(choice[left])
        cells.append((own, int(further[own])))
        left -= own
    cells.append((left, int(needed[0][left])))
    return cells[::-1]


def _fewest(table: Floats, value: float) -> Floats:
    """Return per i the fewest j with ``table[i, j]`` at least ``value``, infinite where no j has it."""
    fewest: Floats = (table < value).sum(axis=1).astype(np.float64)
    fewest[fewest == table.shape[1]] = np.inf
    return fewest
