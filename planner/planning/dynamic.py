"""The main plan by exact dynamic programming, for at most two device types.

A plan is a multiset of items (`planner.planning.sizes`) per DNN, whose use of devices is rounded up to whole ones per
(DNN, position, type). DNNs do not share devices, so that per DNN a table of the best value on (i, j) whole devices is
all that the other DNNs need to know. Two tables close in on it from both sides:

1. *Lower*: a knapsack over the whole devices of items, each stage rounded up. A restriction, for stages of several
   pipelines at one position could share a device. Combined over DNNs (`planner.planning.splits`) it gives a plan of
   value I.
2. *Prices*: the linear relaxation has a price per device type and one per DNN. An item's loss, the price of its
   devices less that of its value, is at least 0, and the losses of a plan add up to at most U - (its value), with U
   the relaxation's bound. A plan better than I therefore has only items of loss at most U - I; few are left.
3. *Upper*: a knapsack over those items in units of 1/lcm(shares) devices, which ignores the rounding. It bounds every
   plan better than I.
4. *Closing*: combine the upper tables. While they promise more than I, look at the very cells that this split of the
   cluster takes: the best multiset there with all roundings (`planner.planning.labels`) replaces the promise.

The result is optimal when the upper tables promise nothing better than I. A search stopped at its limit of labels or
time leaves a valid bound, and the mixed-integer programme over the candidates left closes the gap.

Of the plans of that value the one on the fewest devices is then found in the same way, on these devices one of the
fewest pipelines.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf, lcm
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from planner.model import InputError, Problem
from planner.planning import knapsack, labels, milp
from planner.planning.backends import Limits
from planner.planning.candidates import Candidate
from planner.planning.linear import Floats
from planner.planning.relaxation import relax
from planner.planning.sizes import TIE, CandidateTable, Items, best_whole, cheap_items
from planner.planning.sizing import Sized, Sizing
from planner.planning.splits import Cell, best_split, fewest_devices

log = logging.getLogger(__name__)

Integers = NDArray[np.int64]

# Plans better by less than this, relative, are not looked for: it covers the rounding of sums of floats.
EPSILON = 1e-9
LABEL_LIMIT = 50_000
SIMPLEST_LIMIT = 2_000  # labels; and seconds: a plan that is only good to read is not worth waiting for
SPARE_LIMIT_S = 1.0
CELL_LIMIT = 30_000_000  # of an upper table: 240 MB
TYPES = 2


@dataclass(frozen=True)
class Prices:
    """A dual solution: U, the bound it proves, the price of a device of each type and of a unit of each DNN's value.

    The prices of the DNNs add up to 1, and no candidate's value is worth more than the devices it fills.
    """

    bound: float
    device: Floats
    value: Floats


@dataclass
class _Restricted:
    """The lower table of one DNN, every stage on whole devices of its own, and what it is made of."""

    table: CandidateTable
    row: Integers
    use: Integers
    value: Floats
    best: Floats
    choice: knapsack.Choices

    def pipelines(self, cell: Cell) -> list[Sized]:
        items = knapsack.taken(self.choice, self.use, cell)
        return [self.table.sized(int(self.row[item]), float(self.value[item])) for item in items]


@dataclass
class _Bounds:
    """What is known of one DNN on (i, j) whole devices: tables from below and above that searches bring together."""

    restricted: _Restricted
    items: Items
    units: Integers
    rest: Floats
    lower: Floats
    upper: Floats
    searched: list[tuple[Cell, float, tuple[int, ...]]] = field(default_factory=list)

    def space(self, cell: Cell) -> labels.Space:
        return labels.Space(self.items, cell, self.units, self.rest)

    def close(self, cell: Cell, floor: float, enough: float) -> bool:
        """Search a cell for a value above ``floor``; tell whether a bound moved."""
        before = self.lower[cell], self.upper[cell]
        floor = max(floor, float(self.lower[cell]))
        found = labels.search(self.space(cell), floor=floor, enough=enough, label_limit=LABEL_LIMIT)
        log.debug("devices %s: %.9g to %.9g, found %.9g to %.9g", cell, *before, found.value, found.bound)
        if found.items:
            self.searched.append((cell, found.value, found.items))
            larger = self.lower[cell[0] :, cell[1] :]
            np.maximum(larger, found.value, out=larger)
        smaller = self.upper[: cell[0] + 1, : cell[1] + 1]
        np.minimum(smaller, found.bound, out=smaller)
        return (self.lower[cell], self.upper[cell]) != before

    def pipelines(self, cell: Cell) -> list[Sized]:
        """Return the plan behind ``lower[cell]``."""
        for (i, j), value, items in self.searched:
            if i <= cell[0] and j <= cell[1] and value >= self.lower[cell]:
                return self._sized(items)
        return self.restricted.pipelines(cell)

    def simplest(self, cell: Cell, value: float) -> list[Sized]:
        """Return a plan on a cell of at least a value, ``lower[cell]`` or less, with the fewest pipelines."""
        known = self.pipelines(cell)
        items = labels.smallest(self.space(cell), value=value, fewer_than=len(known), label_limit=SIMPLEST_LIMIT)
        return known if items is None else self._sized(items)

    def _sized(self, items: tuple[int, ...]) -> list[Sized]:
        chosen = self.items.take(np.array(items))
        rows, values = chosen.row.tolist(), chosen.value.tolist()
        return [self.restricted.table.sized(row, value) for row, value in zip(rows, values, strict=True)]


def admits(problem: Problem, candidates: Sequence[Candidate]) -> bool:
    """Tell whether the programme applies: the max-min objective, two device types, tables that fit in memory."""
    if len(problem.cluster.device_types) > TYPES or problem.options.objective != "max_min_throughput":
        return False
    return float(np.prod(_counts(problem) * _units(candidates) + 1.0)) <= CELL_LIMIT


def size(problem: Problem, candidates: Sequence[Candidate], backend: str, limits: Limits) -> Sizing:
    """Return the best sizes of the candidates, to a gap or until the time is up.

    Parameters
    ----------
    problem
        At most two device types, maximising the least throughput / weight.
    candidates
        Of all DNNs.
    backend
        Solves what is left where a search ended at its limit of labels.
    limits
        When to stop closing the gap.

    Raises
    ------
    InputError
        The problem is of another kind, or its tables are too large.
    """
    if not admits(problem, candidates):
        raise InputError(
            "method dynamic: expected at most 2 device types, the objective max_min_throughput and at most "
            f"{CELL_LIMIT} table cells; use --method milp or columns"
        )
    counts = _counts(problem)
    tables = [
        CandidateTable.of([candidate for candidate in candidates if candidate.dnn == index], dnn.weight)
        for index, dnn in enumerate(problem.dnns)
    ]
    if not all(table.candidates for table in tables):
        return Sizing((), 0.0, "none")
    deadline = inf if limits.time_limit_s is None else monotonic() + limits.time_limit_s
    restricted = [_restrict(table, counts) for table in tables]
    incumbent, _ = best_split([lower.best for lower in restricted])
    prices = price(tables, counts, relax(problem, candidates).device_price)
    log.debug("whole devices %.9g, relaxation %.9g", incumbent, prices.bound)
    bounds = _bounds(restricted, counts, _units(candidates), prices, incumbent)
    bound, cells = _close(bounds, limits.gap, deadline)
    value = min(float(known.lower[cell]) for known, cell in zip(bounds, cells, strict=True)) / TIE
    cells = _spare(bounds, cells, value, deadline)
    pipelines = [sized for known, cell in zip(bounds, cells, strict=True) for sized in known.simplest(cell, value)]
    found = Sizing(tuple(pipelines), bound, "none").merged()
    found = replace(found, bound=max(bound, found.value(problem)))  # sums of floats in another order
    if found.bound <= found.value(problem) * (1 + limits.gap):
        return found
    left_s = None if deadline == inf else deadline - monotonic()
    return _finish(problem, bounds, found, backend, Limits(limits.gap, left_s))


def price(tables: Sequence[CandidateTable], counts: Integers, device_price: Floats) -> Prices:
    """Return what given prices of devices prove, whichever they are.

    A unit of a DNN's value costs at least the cheapest candidate's devices, and a plan of value z pays for z units of
    each, out of at most all devices: z <= (price of all devices) / (sum over DNNs of the price of a unit).
    """
    device_price = np.resize(np.append(device_price, 0.0), len(counts))
    value_price = np.array([(table.device_use(len(counts)) @ device_price).min() for table in tables])
    total = value_price.sum()
    return Prices(float(device_price @ counts / total), device_price / total, value_price / total)


def _counts(problem: Problem) -> Integers:
    """Return the devices of two types; the second may be missing."""
    counts = [device.count for device in problem.cluster.device_types]
    return np.array([*counts, 0][: max(TYPES, len(counts))])


def _units(candidates: Sequence[Candidate]) -> Integers:
    """Return per type the least common multiple of the shares in use."""
    shares: list[set[int]] = [{1}, {1}]
    for candidate in candidates:
        for device, share in zip(candidate.devices, candidate.shares, strict=True):
            if device < TYPES:
                shares[device].add(share)
    return np.array([lcm(*used) for used in shares])


def _restrict(table: CandidateTable, counts: Integers) -> _Restricted:
    """Return the best values when every stage has whole devices of its own."""
    item_value, item_row = best_whole(table, counts)
    use = np.argwhere(item_row >= 0)
    value, row = item_value[tuple(use.T)], item_row[tuple(use.T)]
    best, choice = knapsack.fill(use, value, (int(counts[0]), int(counts[1])))
    return _Restricted(table, row, use, value, best, choice)


def _bounds(
    restricted: Sequence[_Restricted], counts: Integers, units: Integers, prices: Prices, incumbent: float
) -> list[_Bounds]:
    """Return both tables of every DNN; the upper one bounds plans better than the incumbent only."""
    budget = prices.bound - incumbent + EPSILON * prices.bound
    size = int(counts[0] * units[0]), int(counts[1] * units[1])
    bounds = []
    for lower, value_price in zip(restricted, prices.value, strict=True):
        items = cheap_items(lower.table, counts, units, prices.device, float(value_price), budget)
        items = items.best_per(items.use)
        by_total = items.best_per(items.totals)
        log.debug("%d items, %d by total use", len(items.row), len(by_total.row))
        rest, _ = knapsack.fill(by_total.totals, by_total.value, size)
        upper = np.maximum(rest[:: units[0], :: units[1]], lower.best)
        bounds.append(_Bounds(lower, items, units, rest, lower.best.copy(), upper))
    return bounds


def _close(bounds: Sequence[_Bounds], gap: float, deadline: float) -> tuple[float, list[Cell]]:
    """Bring the tables together until they agree on the best split; return the bound and the split's cells."""
    while True:
        incumbent, cells = best_split([known.lower for known in bounds])
        floor = incumbent * (1 + EPSILON)
        bound, promising = best_split([known.upper for known in bounds])
        log.debug("%.9g to %.9g on %s", incumbent, bound, promising)
        if bound <= max(floor, incumbent * (1 + gap)) or monotonic() > deadline:
            return max(bound, incumbent), cells
        if not any([known.close(cell, floor, bound) for known, cell in zip(bounds, promising, strict=True)]):
            return bound, cells


def _spare(bounds: Sequence[_Bounds], cells: list[Cell], value: float, deadline: float) -> list[Cell]:
    """Return the split that gives every DNN a value with the fewest devices, as far as it is settled in time."""
    deadline = min(deadline, monotonic() + SPARE_LIMIT_S)
    floor = float(np.nextafter(value, 0.0))
    while monotonic() < deadline:
        cells = fewest_devices([known.lower for known in bounds], value) or cells
        promising = fewest_devices([known.upper for known in bounds], value) or cells
        if sum(map(sum, promising)) >= sum(map(sum, cells)):
            break
        doubtful = [(known, cell) for known, cell in zip(bounds, promising, strict=True) if known.lower[cell] < value]
        if not any([known.close(cell, floor, value) for known, cell in doubtful]):
            break
    return cells


def _finish(problem: Problem, bounds: Sequence[_Bounds], found: Sizing, backend: str, limits: Limits) -> Sizing:
    """Solve the programme over the candidates that have an item left, which are those of every better plan."""
    if limits.time_limit_s is not None and limits.time_limit_s <= 0:
        return found
    left = [known.restricted.table.candidates[row] for known in bounds for row in np.unique(known.items.row).tolist()]
    log.info("%d candidates are left to the mixed-integer programme", len(left))
    try:
        last = milp.size(problem, left, backend, limits)
    except InputError:  # no plan in the time that was left
        return found
    value = found.value(problem)
    best = max(found, last, key=lambda sizing: sizing.value(problem))
    return Sizing(best.pipelines, min(found.bound, max(last.bound, value)), last.backend)
