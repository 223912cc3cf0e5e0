"""Multisets of items whose use, rounded up to whole devices at every position, fits a number of devices.

A label is a use vector over (position, type), reached by some multiset of items; its value is the best known one. From
it every item leads to a further label. What the rest of the devices can still be worth is bounded by a knapsack that
ignores the rounding.

The best multiset is found by expanding labels best bound first (A*): the bound never grows along a path, so each label
is final when it is expanded, and the search ends when no label left could beat the best multiset known. The smallest
multiset of a given value is found level by level: labels of one item, of two items, and so on.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.planning.arrays import Floats, Integers
from planner.planning.pipelines.sizes import Items

Label = tuple[int, ...]


@dataclass(frozen=True)
class Found:
    """A search's result: the best value above the floor with its items, and a bound on every value.

    Where nothing was found there are no items, and the value is the floor.
    """

    value: float
    items: tuple[int, ...]
    bound: float


class Space:
    """The labels that one DNN can reach on a number of whole devices of the two types.

    Parameters
    ----------
    items
        Use is in 1/``units[type]`` devices.
    capacity
        Whole devices of each type.
    rest
        ``rest[i, j]`` bounds the value of any multiset that uses at most (i, j) units.
    """

    def __init__(self, items: Items, capacity: tuple[int, int], units: Integers, rest: Floats) -> None:
        self.items = items
        self.capacity = np.array(capacity)
        self.units = units
        self.rest = rest
        self.budget = self.capacity * units
        self.totals = items.totals
        self.start: Label = (0,) * items.use.shape[1]

    def bound(self, label: Label, value: float) -> float:
        """Return what a label of a value can lead to."""
        left = self.budget - np.array([sum(label[0::2]), sum(label[1::2])])
        return value + float(self.rest[left[0], left[1]])

    def children(self, label: Label, value: float, floor: float) -> Iterator[tuple[int, float, float, Label]]:
        """Yield item, value, bound and label for every item that leads from a label to a bound above ``floor``."""
        vector = np.array(label)
        after = self.budget - np.array([vector[0::2].sum(), vector[1::2].sum()]) - self.totals
        items = np.flatnonzero((after >= 0).all(axis=1))
        reach = value + self.items.value[items]
        bounds = reach + self.rest[after[items, 0], after[items, 1]]
        promising = bounds > floor
        items, reach, bounds = items[promising], reach[promising], bounds[promising]
        vectors = vector + self.items.use[items]
        inside = self._inside(vectors)
        columns = items[inside].tolist(), reach[inside].tolist(), bounds[inside].tolist(), vectors[inside].tolist()
        for item, child_value, bound, child in zip(*columns, strict=True):
            yield item, child_value, bound, tuple(child)

    def _inside(self, vectors: Integers) -> NDArray[np.bool_]:
        """Tell which use vectors, rounded up to whole devices at every position, the capacity holds."""
        held = np.ones(len(vectors), dtype=np.bool_)
        for kind in (0, 1):
            whole = -(-vectors[:, kind::2] // self.units[kind])
            held &= whole.sum(axis=1) <= self.capacity[kind]
        return held


def search(space: Space, *, floor: float, enough: float, label_limit: int) -> Found:
    """Look for the best multiset worth more than ``floor``.

    Parameters
    ----------
    floor
        A value known to be reached; only better ones are looked for.
    enough
        The search stops at a multiset worth this much.
    label_limit
        The search stops after expanding this many labels; its bound is then above its value.

    Examples
    --------
    Two items of half a device fit one device where they share a position; at different positions they do not:

    >>> rest, units = np.array([[0.0], [1.0], [2.0]]), np.array([2, 1])
    >>> one = Items(np.array([0]), np.array([1.0]), np.array([[1, 0, 0, 0]]))
    >>> search(Space(one, (1, 0), units, rest), floor=0.0, enough=9.0, label_limit=99)
    Found(value=2.0, items=(0, 0), bound=2.0)
    >>> both = Items(np.array([0]), np.array([2.0]), np.array([[1, 0, 1, 0]]))
    >>> search(Space(both, (1, 0), units, rest), floor=0.0, enough=9.0, label_limit=99)
    Found(value=0.0, items=(), bound=0.0)
    """
    best, best_label = floor, space.start
    reached: dict[Label, float] = {space.start: 0.0}
    parent: dict[Label, tuple[Label, int]] = {}
    heap = [(-space.bound(space.start, 0.0), space.start)]
    bound, expanded = best, 0
    while heap and best < enough:
        negative, label = heapq.heappop(heap)
        if -negative <= best:
            break
        value = reached[label]
        if space.bound(label, value) > -negative:  # a better way here was found since, and expanded
            continue
        if expanded == label_limit:
            bound = -negative
            break
        expanded += 1
        for item, child_value, child_bound, child in space.children(label, value, best):
            if reached.get(child, -1.0) >= child_value:
                continue
            reached[child], parent[child] = child_value, (label, item)
            if child_value > best:
                best, best_label = child_value, child
            heapq.heappush(heap, (-child_bound, child))
    if best >= enough and heap:
        bound = max(best, -heap[0][0])
    items = []
    label = best_label
    while label in parent:
        label, item = parent[label]
        items.append(item)
    return Found(best, tuple(sorted(items)), max(bound, best))


def smallest(space: Space, *, value: float, fewer_than: int, label_limit: int) -> tuple[int, ...] | None:
    """Return the fewest items worth at least ``value``, None where ``fewer_than`` items are not known to be too many.

    Examples
    --------
    >>> rest, units = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([1, 1])
    >>> items = Items(np.array([0, 1]), np.array([1.0, 2.0]), np.array([[1, 0], [2, 0]]))
    >>> smallest(Space(items, (3, 0), units, rest), value=3.0, fewer_than=3, label_limit=99)
    (0, 1)
    """
    floor = float(np.nextafter(value, 0.0))
    reached: dict[Label, float] = {space.start: 0.0}
    level: dict[Label, tuple[float, tuple[int, ...]]] = {space.start: (0.0, ())}
    expanded = 0
    for _ in range(fewer_than - 1):
        deeper: dict[Label, tuple[float, tuple[int, ...]]] = {}
        for label, (label_value, items) in level.items():
            expanded += 1
            if expanded > label_limit:
                return None
            for item, child_value, _, child in space.children(label, label_value, floor):
                if child_value >= value:
                    return tuple(sorted((*items, item)))
                if reached.get(child, -1.0) < child_value:
                    reached[child] = child_value
                    deeper[child] = child_value, (*items, item)
        level = deeper
    return None
