"""Unbounded knapsacks over two resources: the best value of a multiset of items within every capacity (i, j)."""

import numpy as np
from numpy.typing import NDArray

from planner.compilation import compiled
from planner.planning.arrays import Floats, Integers

Choices = NDArray[np.int32]

NOTHING = -1


def fill(use: Integers, value: Floats, size: tuple[int, int]) -> tuple[Floats, Choices]:
    """Return the best value within every capacity, and the item that last improved it.

    Parameters
    ----------
    use
        ``[item, 2]``, at least one of a row positive. Items are tried by growing use, and left out where smaller ones
        are worth as much together.
    value
        ``[item]``.
    size
        The largest capacity of each resource.

    Returns
    -------
    best, choice
        Both ``[i, j]`` with 0 <= i <= size[0] and 0 <= j <= size[1]; `taken` reads a multiset from ``choice``.

    Examples
    --------
    >>> best, choice = fill(np.array([[1, 0], [0, 2]]), np.array([1.0, 5.0]), (2, 3))
    >>> best
    array([[0., 0., 5., 5.],
           [1., 1., 6., 6.],
           [2., 2., 7., 7.]])
    >>> taken(choice, np.array([[1, 0], [0, 2]]), (2, 3))
    [0, 0, 1]
    """
    order = np.lexsort((use[:, 0], use.sum(axis=1)))
    best = np.zeros((size[0] + 1, size[1] + 1))
    choice = np.full(best.shape, NOTHING, dtype=np.int32)
    _fill(use, value, order, best, choice)
    return best, choice


def taken(choice: Choices, use: Integers, capacity: tuple[int, int]) -> list[int]:
    """Return the items, in growing order, behind a cell that `fill` computed."""
    i, j = capacity
    items = []
    while choice[i, j] != NOTHING:
        item = int(choice[i, j])
        items.append(item)
        i, j = i - int(use[item, 0]), j - int(use[item, 1])
    return sorted(items)


@compiled
def _fill(use: Integers, value: Floats, order: Integers, best: Floats, choice: Choices) -> None:
    rows, columns = best.shape
    for item in order:
        first, second = use[item]
        if first >= rows or second >= columns or best[first, second] >= value[item]:
            continue
        for i in range(first, rows):
            for j in range(second, columns):
                total = best[i - first, j - second] + value[item]
                if total > best[i, j]:
                    best[i, j] = total
                    choice[i, j] = item
