"""What each of two tables says of a DNN's value on (i, j) whole devices of two types: at least, and at most.

*Lower*: a knapsack over items (`planner.planning.pipelines.sizes`) on whole devices of their own at every stage. A
restriction, for stages of several pipelines at one position could share a device.

*Prices*: the linear relaxation has a price per device type and one per DNN. An item's loss, the price of its devices
less that of its value, is at least 0, and the losses of a plan add up to at most U - (its value), with U the
relaxation's bound. A plan better than a known value I therefore has only items of loss at most U - I; few are left.

*Upper*: a knapsack over those items in units of 1/lcm(shares) devices, which ignores that devices are rounded up to
whole ones per position. It bounds every plan better than I.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from math import lcm

import numpy as np

from planner.model import Problem
from planner.planning.arrays import Floats, Integers
from planner.planning.pipelines.candidates import Candidate
from planner.planning.pipelines.sizes import CandidateTable, Items, best_whole, cheap_items
from planner.planning.pipelines.sizing import Sized, Sizing
from planner.planning.programme.backends import Clock
from planner.planning.programme.relaxation import relax
from planner.planning.whole_devices import knapsack
from planner.planning.whole_devices.fractions import by_fractions
from planner.planning.whole_devices.splits import Cell, best_split

log = logging.getLogger(__name__)


# Plans better by less than this, relative, are not looked for: it covers the rounding of sums of floats.
EPSILON = 1e-9
CELL_LIMIT = 30_000_000  # of an upper table: 240 MB
CELLS_PER_SECOND, QUICK_CELLS = 2_000_000, 10_000_000  # of the upper tables of all DNNs
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
class Restricted:
    """The lower table of one DNN, every stage on whole devices of its own, and what it is made of."""

    table: CandidateTable
    row: Integers
    use: Integers
    value: Floats
    best: Floats
    choice: knapsack.Choices

    def pipelines(self, cell: Cell) -> list[Sized]:
        """Return the plan behind a cell."""
        items = knapsack.taken(self.choice, self.use, cell)
        return [self.table.sized(int(self.row[item]), float(self.value[item])) for item in items]


@dataclass
class Tables:
    """The items of one DNN that a plan better than the incumbent can hold, and both tables ``[i, j]``.

    ``rest[i, j]`` is the upper table in units of 1/``units[type]`` devices.
    """

    restricted: Restricted
    items: Items
    units: Integers
    rest: Floats
    lower: Floats
    upper: Floats


def admits(problem: Problem, candidates: Sequence[Candidate]) -> bool:
    """Tell whether the programme applies: the max-min objective, two device types, tables that fit in memory."""
    if (
        not by_fractions(problem)
        or len(problem.cluster.device_types) > TYPES
        or problem.options.objective != "max_min_throughput"
    ):
        return False
    return _cells(problem, _units(candidates)) <= CELL_LIMIT


def expects(problem: Problem, left_s: float | None) -> bool:
    """Tell before any candidate is listed whether tables are quick and fit in memory, if candidates are on all shares.

    Beyond some cells the decomposition is through sooner: 30 DNNs on 1,000 devices take it 2 s, tables more than 12.
    """
    shares = [device.shares for device in problem.cluster.device_types]
    if len(shares) > TYPES:
        return False
    cells = _cells(problem, np.array([lcm(*own) for own in [*shares, (1,)][:TYPES]]))
    quick = QUICK_CELLS if left_s is None else min(QUICK_CELLS, CELLS_PER_SECOND * left_s)
    return len(problem.dnns) * cells <= quick and cells <= CELL_LIMIT


def _cells(problem: Problem, units: Integers) -> float:
    """Return how large the largest table is; a split is chosen from one [devices in all, own]."""
    counts = _counts(problem)
    return max(float(np.prod(counts * units + 1.0)), float(counts[0] + 1) ** 2)


def build(problem: Problem, candidates: Sequence[Candidate], clock: Clock) -> list[Tables]:
    """Return the tables of every DNN; each has at least one candidate. Raises TooLate where a clock is over before."""
    counts = _counts(problem)
    tables = [
        CandidateTable.of([candidate for candidate in candidates if candidate.dnn == index], dnn.weight)
        for index, dnn in enumerate(problem.dnns)
    ]
    restricted = []
    for table in tables:
        clock.expect_time()
        restricted.append(_restrict(table, counts))
    incumbent, _ = best_split([lower.best for lower in restricted])
    prices = price(tables, counts, relax(problem, candidates, clock).device_price)
    log.debug("whole devices %.9g, relaxation %.9g", incumbent, prices.bound)
    return _tables(restricted, counts, _units(candidates), prices, incumbent, clock)


def narrowed(problem: Problem, candidates: Sequence[Candidate], clock: Clock) -> tuple[Sizing, list[Candidate]]:
    """Return the plan behind the lower tables, and the candidates of it and of every better plan.

    An item of a better plan is worth more than the incumbent together with the best that the rest of the cluster
    could serve of its DNN.
    """
    known = build(problem, candidates, clock)
    incumbent, cells = best_split([table.lower for table in known])
    pipelines = [sized for table, cell in zip(known, cells, strict=True) for sized in table.restricted.pipelines(cell)]
    kept = {sized.candidate: None for sized in pipelines}
    for table in known:
        left = np.array(table.rest.shape) - 1 - table.items.totals
        better = table.items.value + table.rest[left[:, 0], left[:, 1]] > incumbent
        kept.update(
            (table.restricted.table.candidates[row], None) for row in np.unique(table.items.row[better]).tolist()
        )
    return Sizing(tuple(pipelines), 0.0, "none").merged(), list(kept)


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
                shares[device].add(int(share))
    return np.array([lcm(*used) for used in shares])


def _restrict(table: CandidateTable, counts: Integers) -> Restricted:
    """Return the best values when every stage has whole devices of its own."""
    item_value, item_row = best_whole(table, counts)
    use = np.argwhere(item_row >= 0)
    value, row = item_value[tuple(use.T)], item_row[tuple(use.T)]
    best, choice = knapsack.fill(use, value, (int(counts[0]), int(counts[1])))
    return Restricted(table, row, use, value, best, choice)


def _tables(
    restricted: Sequence[Restricted], counts: Integers, units: Integers, prices: Prices, incumbent: float, clock: Clock
) -> list[Tables]:
    """Return both tables of every DNN; the upper one bounds plans better than the incumbent only."""
    budget = prices.bound - incumbent + EPSILON * prices.bound
    size = int(counts[0] * units[0]), int(counts[1] * units[1])
    found = []
    for lower, value_price in zip(restricted, prices.value, strict=True):
        clock.expect_time()
        items = cheap_items(lower.table, counts, units, prices.device, float(value_price), budget)
        items = items.best_per(items.use)
        by_total = items.best_per(items.totals)
        log.debug("%d items, %d by total use", len(items.row), len(by_total.row))
        rest, _ = knapsack.fill(by_total.totals, by_total.value, size)
        upper = np.maximum(rest[:: units[0], :: units[1]], lower.best)
        found.append(Tables(lower, items, units, rest, lower.best.copy(), upper))
    return found
