"""The best multiset of items whose use, rounded up to whole devices at every position, fits a number of devices.

A label is a use vector over (position, type), reached by some multiset of items; its value is the best known one. From
it every item leads to a further label. What the rest of the cluster can still be worth is bounded by a knapsack that
ignores the rounding, so labels are expanded best first (A*): the bound never grows along a path, each label is final
when it is expanded, and the search ends when no label left could beat the best plan known.
"""

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.planning.linear import Floats
from planner.planning.sizes import Items

Integers = NDArray[np.int64]
Label = tuple[int, ...]


@dataclass(frozen=True)
class Found:
    """The search's result: a better value with its items, if any was found, and a bound on every value."""

    value: float
    items: tuple[int, ...]
    bound: float


def search(
    items: Items,
    capacity: tuple[int, int],
    units: Integers,
    rest: Floats,
    *,
    floor: float,
    enough: float,
    label_limit: int,
) -> Found:
    """Look for a multiset of items worth more than ``floor`` on ``capacity`` whole devices of the two types.

    Parameters
    ----------
    items
        Use is in 1/``units[type]`` devices.
    rest
        ``rest[i, j]`` bounds the value of any multiset that uses at most (i, j) units.
    floor
        A value known to be reached; only better ones are looked for.
    enough
        The search stops at a multiset worth this much.
    label_limit
        The search stops after expanding this many labels; its bound is then above its value.

    Examples
    --------
    Two items of half a device fit one device where they share a position; at different positions they do not:

    >>> rest = np.array([[0.0], [1.0], [2.0]])
    >>> one = Items(np.array([0]), np.array([1.0]), np.array([[1, 0, 0, 0]]))
    >>> search(one, (1, 0), np.array([2, 1]), rest, floor=0.0, enough=9.0, label_limit=99).value
    2.0
    >>> both = Items(np.array([0]), np.array([2.0]), np.array([[1, 0, 1, 0]]))
    >>> search(both, (1, 0), np.array([2, 1]), rest, floor=0.0, enough=9.0, label_limit=99).value
    0.0
    """
    explorer = _Explorer(items, capacity, units, rest, floor)
    expanded = 0
    while explorer.heap and explorer.best < enough:
        bound, label = explorer.pop()
        if bound <= explorer.best:
            return explorer.found(explorer.best)
        if expanded == label_limit:
            return explorer.found(bound)
        expanded += explorer.expand(label, bound)
    return explorer.found(max(explorer.best, enough) if explorer.heap else explorer.best)


class _Explorer:
    """The labels of one search."""

    def __init__(self, items: Items, capacity: tuple[int, int], units: Integers, rest: Floats, floor: float) -> None:
        self.capacity = np.array(capacity)
        self.units = units
        self.rest = rest
        self.budget = self.capacity * units
        totals = items.totals
        left = self.budget - totals
        fits = (left >= 0).all(axis=1)
        promising = np.flatnonzero(fits)
        promising = promising[items.value[fits] + rest[left[fits, 0], left[fits, 1]] > floor]
        self.numbers = promising
        self.value, self.use, self.totals = items.value[promising], items.use[promising], totals[promising]
        self.best = floor
        self.best_label: Label | None = None
        start = (0,) * items.use.shape[1]
        self.reached: dict[Label, float] = {start: 0.0}
        self.parent: dict[Label, tuple[Label, int]] = {}
        self.heap: list[tuple[float, Label]] = [(-float(rest[tuple(self.budget)]), start)]

    def pop(self) -> tuple[float, Label]:
        """Return the label of the largest bound."""
        negative, label = heapq.heappop(self.heap)
        return -negative, label

    def expand(self, label: Label, bound: float) -> int:
        """Add every item to a label; 0 where a better way to the label was found since it was queued."""
        value = self.reached[label]
        vector = np.array(label)
        left = self.budget - np.array([vector[0::2].sum(), vector[1::2].sum()])
        if value + self.rest[left[0], left[1]] > bound:
            return 0
        after = left - self.totals
        fits = np.flatnonzero((after >= 0).all(axis=1))
        reach = value + self.value[fits]
        bounds = reach + self.rest[after[fits, 0], after[fits, 1]]
        promising = bounds > self.best
        fits, reach, bounds = fits[promising], reach[promising], bounds[promising]
        vectors = vector + self.use[fits]
        inside = self._inside(vectors)
        self._add(label, fits[inside], reach[inside], bounds[inside], vectors[inside])
        return 1

    def _inside(self, vectors: Integers) -> NDArray[np.bool_]:
        """Tell which use vectors, rounded up to whole devices at every position, the capacity holds."""
        held = np.ones(len(vectors), dtype=np.bool_)
        for kind in (0, 1):
            whole = -(-vectors[:, kind::2] // self.units[kind])
            held &= whole.sum(axis=1) <= self.capacity[kind]
        return held

    def _add(self, label: Label, items: Integers, reach: Floats, bounds: Floats, vectors: Integers) -> None:
        for item, value, bound, vector in zip(
            items.tolist(), reach.tolist(), bounds.tolist(), vectors.tolist(), strict=True
        ):
            child = tuple(vector)
            if self.reached.get(child, -1.0) >= value:
                continue
            self.reached[child] = value
            self.parent[child] = (label, item)
            if value > self.best:
                self.best, self.best_label = value, child
            heapq.heappush(self.heap, (-bound, child))

    def found(self, bound: float) -> Found:
        """Return the best multiset with a bound."""
        items = []
        label = self.best_label
        while label in self.parent:
            label, item = self.parent[label]
            items.append(int(self.numbers[item]))
        return Found(self.best, tuple(sorted(items)), max(bound, self.best))
