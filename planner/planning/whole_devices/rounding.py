"""Whole devices for many: the relaxed plan rounded, DNN by DNN.

A basic solution of the relaxation over columns has at most as many rates as there are DNNs and types, so that most DNNs
run one column and a few divide themselves among several. Of a column that takes hundreds of devices, some sizes waste
next to nothing. For a target z a plan of a DNN is therefore put together of two parts:

    begun       sizes of the columns in use near their relaxed rates, those that lose least at the prices of devices;
                what is worth `REST` average devices, or a little less, is left open
    completed   the cheapest items for that rest (`planner.planning.whole_devices.cheapest_plan`), which use up what the
                begun part left of its last devices

DNNs that divide themselves begin with sizes on either side of their rates, for it is they that move devices from type
to type until everything fits. Targets and choices are those of `planner.planning.whole_devices.choosing`, from what
plain rounding up reaches to the bound.

Plans of hundreds of devices are why there is more than plans near the cheapest, which are listed by labels: of 50 DNNs
on 10,000 devices those alone leave 0.29 % open after 60 s where these leave 0.13 % after 10 s, of 100 on 100,000
devices 0.21 % where these leave 0.04 %.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from math import lcm

import numpy as np

from planner.model import Problem
from planner.planning.arrays import Floats, Integers
from planner.planning.pipelines.candidates import Candidate
from planner.planning.pipelines.sizes import TIE, CandidateTable, Items, sizes_for
from planner.planning.pipelines.sizing import Report, Sized, Sizing
from planner.planning.programme.backends import Clock, TooLate
from planner.planning.programme.relaxation import relax
from planner.planning.whole_devices.capacity import Capacity
from planner.planning.whole_devices.choosing import PRECISION, Choosing
from planner.planning.whole_devices.supply import Supply

REST = 20.0  # average devices that are left open, at most
LOSING = 1.5  # average devices that the rest may lose, rounding included
BEGUN, DIVIDED = 6, 5  # beginnings of a DNN with one column; per further column of one that divides itself
MOST_BEGUN = 24
SPREADS = 0.0, 0.1, 0.2  # of the logarithm of the prices at which rests are completed
LABELS = 4_000
LOST = 0.25  # devices that a DNN's plan loses about, from where targets begin
FITS = 1e-9
LEAST_PRICE = 1e-4  # of the dearest device


@dataclass(frozen=True)
class Relaxed:
    """The columns of a DNN that the relaxation uses, by falling value, and their values at its optimum."""

    row: Integers
    value: Floats


def size(
    problem: Problem,
    columns: Sequence[Candidate],
    device_price: Floats,
    bound: float,
    clock: Clock,
    report: Report,
) -> Sizing:
    """Return a plan on whole devices, as good as is found in the time left.

    Parameters
    ----------
    columns
        Of all DNNs, at least one each.
    device_price
        Prices of the device types in the relaxation.
    bound
        What no plan exceeds.
    report
        Is told every better plan.
    """
    tables, relaxed = _relaxed(problem, columns)
    counts = np.array([device.count for device in problem.cluster.device_types], dtype=np.int64)
    units = np.array([lcm(*device.shares) for device in problem.cluster.device_types], dtype=np.int64)
    capacity = Capacity.of_devices(counts)
    search = Rounding(
        [Supply(table, counts, units) for table in tables],
        capacity,
        capacity.normed(np.maximum(device_price, LEAST_PRICE * device_price.max())),
        bound,
        clock.remaining().gap,
        clock,
        relaxed=relaxed,
    )
    search.report = lambda: report(search.found)
    with suppress(TooLate):
        search.run()
    return search.found


@dataclass
class Rounding(Choosing):
    """The search for a choice of plans near the relaxed rates, of the columns that the relaxation uses."""

    relaxed: Sequence[Relaxed] = ()
    rest: list[float] = field(default_factory=list)  # what is left open of a DNN's plan, by value

    @property
    def found(self) -> Sizing:
        """The best plan so far."""
        return Sizing(tuple(sized for own in self.best for sized in own), self.bound, "highs").merged()

    @property
    def _device(self) -> float:
        """The average price of a device."""
        return 1 / float(self.capacity.counts.sum())

    def run(self) -> None:
        """Begin with the relaxed rates rounded up, and raise the value as long as there is time."""
        tables = [supply.table for supply in self.supplies]
        self.begin(*_rounded_up(tables, self.relaxed, self.capacity.counts))
        for supply in self.supplies:
            self.clock.expect_time()
            self.rest.append(min(REST * self._device / supply.value_price(self.price), self.bound))
            supply.extend(self.price, LOSING * self._device, self.rest[-1])
        lost = min(LOST * len(self.supplies) * self._device, 0.5)
        self.climb(max(self.bound * (1 - lost), self.value))

    def make_plans(self, target: float) -> None:
        """Let every DNN know plans worth a target near its relaxed rates."""
        for number, supply in enumerate(self.supplies):
            for begun in self._beginnings(number, target):
                self.clock.expect_time()
                for spread in SPREADS:
                    noise = np.exp(self._rng.normal(0.0, spread, len(self.price))) if spread else 1.0
                    price = self.price * noise
                    supply.complete(begun, price, target, budget=LOSING * self._device, label_limit=LABELS)

    def _beginnings(self, number: int, target: float) -> list[Items]:
        """Return sizes of the columns that a DNN uses which together are worth a little less than a target."""
        relaxed, rest = self.relaxed[number], self.rest[number]
        values = relaxed.value * (target / relaxed.value.sum())
        nothing = self.supplies[number].items.take(np.zeros(0, dtype=np.int64))
        further: list[list[Items]] = []
        for row, value in zip(relaxed.row[1:].tolist(), values[1:].tolist(), strict=True):
            if value > rest / 4:
                edges = value + rest / 2 * np.linspace(-1, 1, DIVIDED + 1)
                windows = zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
                further.append([one for low, high in windows for one in self._losing_least(number, row, low, high, 1)])
        found: list[Items] = []
        for others in product(*further):
            begun = nothing
            for one in others:
                begun = begun.and_those_of(one)
            left = target - float(begun.value.sum())
            if left <= rest:
                found.append(begun)
                continue
            row, count = int(relaxed.row[0]), 2 if others else BEGUN
            for one in self._losing_least(number, row, left - rest, left - rest / 4, count):
                found.append(begun.and_those_of(one))
            if len(found) >= MOST_BEGUN:
                break
        return found

    def _losing_least(self, number: int, row: int, low: float, high: float, count: int) -> list[Items]:
        """Return sizes of a column within a range of values that lose least by rounding, an item each."""
        supply = self.supplies[number]
        sizes = supply.pooled(sizes_between(supply.table, row, max(low, 0.0), high, supply.units))
        loss = (sizes.totals / supply.units) @ self.price - supply.value_price(self.price) * sizes.value
        chosen = np.argsort(loss, kind="stable")[:count]
        return [sizes.take(chosen[at : at + 1]) for at in range(len(chosen))]


def sizes_between(table: CandidateTable, row: int, low: float, high: float, units: Integers) -> Items:
    """Return the sizes of a candidate that are worth having, in a range of values."""
    per_slice = table.value[row, : table.stages[row]]
    steps = [own * np.arange(np.ceil(low / own), np.floor(high / own) + 1) for own in per_slice.tolist()]
    value = np.unique(np.concatenate(steps))
    return sizes_for(table, row, value[value > 0], units)


def _relaxed(problem: Problem, columns: Sequence[Candidate]) -> tuple[list[CandidateTable], list[Relaxed]]:
    """Return the columns of every DNN, and those of them that the relaxation uses."""
    rates = relax(problem, columns).rates
    tables, relaxed = [], []
    for number, dnn in enumerate(problem.dnns):
        mine = [at for at, column in enumerate(columns) if column.dnn == number]
        tables.append(CandidateTable.of([columns[at] for at in mine], dnn.weight))
        value = rates[mine] / dnn.weight
        rows = np.argsort(-value, kind="stable")[: np.count_nonzero(value > FITS * value.sum())]
        relaxed.append(Relaxed(rows, value[rows]))
    return tables, relaxed


def _rounded_up(
    tables: Sequence[CandidateTable], relaxed: Sequence[Relaxed], counts: Integers
) -> tuple[list[list[Sized]], list[Integers]]:
    """Return the relaxation's rates, each stage rounded up to whole devices, at the largest scale that fits.

    Returns the pipelines of every DNN, and the devices that they use.
    """
    low, high = 0.0, 1.0
    while high - low > PRECISION:
        scale = (low + high) / 2
        used = sum(_whole_use(table, own, scale, counts) for table, own in zip(tables, relaxed, strict=True))
        low, high = (scale, high) if (used <= counts).all() else (low, scale)
    plans = [
        [
            table.sized(row, value)
            for row, value in zip(own.row.tolist(), (own.value * low).tolist(), strict=True)
            if value
        ]
        for table, own in zip(tables, relaxed, strict=True)
    ]
    return plans, [_whole_use(table, own, low, counts) for table, own in zip(tables, relaxed, strict=True)]


def _whole_use(table: CandidateTable, relaxed: Relaxed, scale: float, counts: Integers) -> Integers:
    """Return the whole devices per type that a DNN's columns need for a part of their values."""
    use = np.zeros_like(counts)
    for row, value in zip(relaxed.row.tolist(), relaxed.value.tolist(), strict=True):
        stages = slice(0, int(table.stages[row]))
        devices = np.ceil(value * scale / (table.value[row, stages] * table.share[row, stages]) / TIE)
        np.add.at(use, table.device[row, stages], devices.astype(np.int64))
    return use
