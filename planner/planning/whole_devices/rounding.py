"""Whole devices for many: the relaxed plan rounded, DNN by DNN.

A basic solution of the relaxation over columns has at most as many rates as there are DNNs and types, so that most DNNs
run one column and a few divide themselves among several. Of a column that takes hundreds of devices, some sizes waste
next to nothing. For a target z a plan of a DNN is therefore put together of two parts:

    begun       sizes of the columns in use near their relaxed rates, those that lose least at the prices of devices;
                what is worth `REST` average devices, or a little less, is left open
    completed   the cheapest items for that rest (`planner.planning.whole_devices.cheapest_plan`), which use up what the
                begun part left of its last devices

DNNs that divide themselves begin with sizes on either side of their rates, for it is they that move devices from type
to type until everything fits. Of each DNN one plan is chosen, by `planner.planning.whole_devices.exchanges` or
`planner.planning.whole_devices.master`. The largest target that fits is looked for between what plain rounding up
reaches and the bound; the overload of the relaxed choice tells how far to go.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
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
from planner.planning.whole_devices import master
from planner.planning.whole_devices.capacity import Capacity
from planner.planning.whole_devices.exchanges import exchanged
from planner.planning.whole_devices.supply import Supply

log = logging.getLogger(__name__)

REST = 20.0  # average devices that are left open, at most
LOSING = 1.5  # average devices that the rest may lose, rounding included
BEGUN, DIVIDED = 6, 5  # beginnings of a DNN with one column; per further column of one that divides itself
MOST_BEGUN = 24
SPREADS = 0.0, 0.1, 0.2  # of the logarithm of the prices at which rests are completed
LABELS = 4_000
LOST = 0.25  # devices that a DNN's plan loses about, from where targets begin
PRECISION = 1e-5  # of the target, relative
CHOICE_LIMIT_S = 2.0
FITS = 1e-9
FAR = 0.01  # overload that is assumed where a DNN has no plan
SEED = 0


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
    search = Rounding(problem, columns, device_price, bound, clock, report)
    with suppress(TooLate):
        search.prepare()
        search.run()
    return search.found


class Rounding:
    """The DNNs' columns and plans, and the best plan of the cluster so far."""

    def __init__(
        self,
        problem: Problem,
        columns: Sequence[Candidate],
        device_price: Floats,
        bound: float,
        clock: Clock,
        report: Report,
    ) -> None:
        self.counts = np.array([device.count for device in problem.cluster.device_types], dtype=np.int64)
        units = np.array([lcm(*device.shares) for device in problem.cluster.device_types], dtype=np.int64)
        self.capacity = Capacity.of_devices(self.counts)
        self.price = self.capacity.normed(np.maximum(device_price, 1e-4 * device_price.max()))
        self.bound, self._clock, self._report = bound, clock, report
        self.tables, self.relaxed = _relaxed(problem, columns)
        self.supplies = [Supply(table, self.counts, units) for table in self.tables]
        self.device = 1 / float(self.counts.sum())  # the average price
        self.rest: list[float] = []
        self._rng = np.random.default_rng(SEED)
        self._take(_rounded_up(self.tables, self.relaxed, self.counts))

    @property
    def found(self) -> Sizing:
        """The best plan so far."""
        return Sizing(tuple(sized for own in self.best for sized in own), self.bound, "highs").merged()

    def _take(self, plans: list[list[Sized]]) -> None:
        self.best, self.value = plans, _least(plans, self.tables)
        self._report(self.found)

    def prepare(self) -> None:
        """List the items of which what is left open of plans is put together."""
        for supply in self.supplies:
            self._clock.expect_time()
            self.rest.append(min(REST * self.device / supply.value_price(self.price), self.bound))
            supply.extend(self.price, LOSING * self.device, self.rest[-1])

    def run(self) -> None:
        """Raise the value until targets just above it fail, or the time is over."""
        expected = min(LOST * len(self.supplies) / float(self.counts.sum()), 0.5)
        failed, target, step = self.bound, max(self.bound * (1 - expected), self.value), PRECISION
        while failed - self.value > PRECISION * self.bound and not self._clock.over:
            self._make_plans(target)
            overload, chosen = self._choose(target)
            log.debug("%.9g of %.9g: overload %.3g, chosen %s", target, self.bound, overload, chosen is not None)
            if chosen is None:
                failed = min(failed, target)
                target *= 1 - max(overload, step)
                step *= 2
            else:
                self._take(chosen)
                target = min(self.value * (1 + max(-overload, PRECISION)), (self.value + failed) / 2)
            if target <= self.value:
                target = (self.value + failed) / 2

    def _choose(self, target: float) -> tuple[float, list[list[Sized]] | None]:
        """Return the overload of the relaxed choice, and plans worth a target that together fit, if some are found."""
        own = [supply.usable(target) for supply in self.supplies]
        uses = [supply.use[plans] for supply, plans in zip(self.supplies, own, strict=True)]
        if not all(map(len, uses)):
            return FAR, None
        mixed = master.mix(uses, self.capacity, self._clock)
        if mixed.overload > FITS:
            return mixed.overload, None
        picked = exchanged(uses, mixed.parts, self.counts, mixed.price, self._rng, self._clock)
        if picked is None:
            limits = self._clock.at_most(CHOICE_LIMIT_S).remaining()
            picked, _ = master.choose(uses, self.capacity, self.price, limits)
        if picked is None:
            return mixed.overload, None
        chosen = zip(self.supplies, own, picked, strict=True)
        return mixed.overload, [supply.pipelines(int(plans[at])) for supply, plans, at in chosen]

    def _make_plans(self, target: float) -> None:
        """Let every DNN know plans worth a target near its relaxed rates."""
        for number, supply in enumerate(self.supplies):
            for begun in self._beginnings(number, target):
                self._clock.expect_time()
                for spread in SPREADS:
                    noise = np.exp(self._rng.normal(0.0, spread, len(self.price))) if spread else 1.0
                    price = self.price * noise
                    supply.complete(begun, price, target, budget=LOSING * self.device, label_limit=LABELS)

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


def _least(pipelines: Sequence[Sequence[Sized]], tables: Sequence[CandidateTable]) -> float:
    """Return the objective of the pipelines of every DNN."""
    return min(
        sum(sized.throughput_rps for sized in own) / table.weight for own, table in zip(pipelines, tables, strict=True)
    )


def _rounded_up(tables: Sequence[CandidateTable], relaxed: Sequence[Relaxed], counts: Integers) -> list[list[Sized]]:
    """Return the relaxation's rates, each stage rounded up to whole devices, at the largest scale that fits."""
    low, high = 0.0, 1.0
    while high - low > PRECISION:
        scale = (low + high) / 2
        used = sum(_whole_use(table, own, scale, counts) for table, own in zip(tables, relaxed, strict=True))
        low, high = (scale, high) if (used <= counts).all() else (low, scale)
    return [
        [
            table.sized(row, value)
            for row, value in zip(own.row.tolist(), (own.value * low).tolist(), strict=True)
            if value
        ]
        for table, own in zip(tables, relaxed, strict=True)
    ]


def _whole_use(table: CandidateTable, relaxed: Relaxed, scale: float, counts: Integers) -> Integers:
    """Return the whole devices per type that a DNN's columns need for a part of their values."""
    use = np.zeros_like(counts)
    for row, value in zip(relaxed.row.tolist(), relaxed.value.tolist(), strict=True):
        stages = slice(0, int(table.stages[row]))
        devices = np.ceil(value * scale / (table.value[row, stages] * table.share[row, stages]) / TIE)
        np.add.at(use, table.device[row, stages], devices.astype(np.int64))
    return use
