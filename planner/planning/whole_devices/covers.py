"""Whole devices for columns: per DNN a plan that covers a value, together on no more devices than there are.

For a target z, a *plan* of DNN d is a multiset of items of value at least z (throughput / weight), an item being a
column on whole devices of its own at every stage. At prices of devices the cheapest plan is a covering knapsack, in
one dimension: value, in z / `UNITS`. Whether some choice of plans fits the cluster is a programme over them (Dantzig
and Wolfe's, by DNN), with overload s:

    minimise s  subject to   sum over plans P of p_{d,P} = 1               for every DNN d
                             sum over d and P of use_{P,g} · p_{d,P} <= (1 + s) · count_g   for every type g
                             p binary

Its relaxation has a basic solution with at most as many DNNs divided among plans as there are types, so its rounding
is good where DNNs are many; its dual prices ask for further plans, until none is cheaper than the plan in use. The
largest target that fits is bisected between what plain rounding up reaches and the bound.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from planner.compilation import compiled
from planner.model import Problem
from planner.planning.arrays import Floats, Integers
from planner.planning.pipelines.candidates import Candidate
from planner.planning.pipelines.sizes import TIE, CandidateTable
from planner.planning.pipelines.sizing import Sized, Sizing
from planner.planning.programme.backends import Clock, Limits, solve
from planner.planning.programme.linear import LinearModel
from planner.planning.programme.relaxation import relax
from planner.planning.whole_devices.cover_bounds import fill_cover
from planner.planning.whole_devices.spaced import spaced_items

log = logging.getLogger(__name__)


UNITS = 2500
PRECISION = 5e-5  # of the target, relative
PERTURBATIONS = 6  # of the prices, at least, and so many that there are about `PLANS` plans to choose from
PLANS = 300
SPREAD = 0.15  # of the logarithm of perturbed prices
ROUNDS = 6  # of dual prices
MIXTURES = 3  # rounds of plans between those that the relaxed choice mixes
MIXED_COLUMNS = 5
RESTARTS = 30  # of exchanges
PAIRED = 300  # plans tried in pairs
ITEMS_PER_SIZE = 100  # items kept per doubling of the value
CHOICE_LIMITS = Limits(gap=0.0, time_limit_s=2.0)
FITS = 1e-9
WALKED = 2_000  # devices of a type, up to which all sizes are walked through
SEED = 0


@dataclass(frozen=True)
class Pool:
    """Items of one DNN on whole devices: row of the column, value, and devices ``[item, type]``."""

    table: CandidateTable
    row: Integers
    value: Floats
    use: Integers

    def cheapest(self, device_price: Floats, target: float) -> "Cover | None":
        """Return the cheapest plan worth at least a target, None where there are no items."""
        units = np.minimum(np.floor(self.value * (UNITS / target) * TIE), UNITS).astype(np.int64)
        cost = self.use @ device_price
        kept = _undominated(units, cost)
        if len(kept) == 0:
            return None
        least, choice = np.empty(UNITS + 1), np.zeros(UNITS + 1, dtype=np.int64)
        fill_cover(units[kept], cost[kept], least, choice)
        items, left = [], UNITS
        while left > 0:
            item = int(kept[choice[left]])
            items.append(item)
            left -= int(units[item])
        parts = sorted((int(self.row[item]), float(self.value[item])) for item in items)
        return Cover(tuple(parts), tuple(self.use[items].sum(axis=0).tolist()))

    def between(self, mixture: Mapping["Cover", float], device_price: Floats, target: float) -> list["Cover"]:
        """Return plans near a mixture: each column at the next size below or above, and what is missing covered."""
        wanted: defaultdict[int, float] = defaultdict(float)
        for cover, share in mixture.items():
            for row, value in cover.parts:
                wanted[row] += share * value
        largest = sorted(wanted, key=lambda row: -wanted[row])[:MIXED_COLUMNS]
        found = []
        for roundings in product((np.floor, np.ceil), repeat=len(largest)):
            sizes = [self._whole(row, wanted[row], rounding) for row, rounding in zip(largest, roundings, strict=True)]
            parts = [(row, value) for row, (value, _) in zip(largest, sizes, strict=True) if value > 0]
            use = np.sum([devices for _, devices in sizes], axis=0)
            missing = target - sum(value for _, value in parts)
            if missing > 0:
                rest = self.cheapest(device_price, missing)
                if rest is None:
                    continue
                parts, use = parts + list(rest.parts), use + np.array(rest.use)
            found.append(Cover(tuple(sorted(parts)), tuple(use.tolist())))
        return found

    def _whole(self, row: int, value: float, rounding: Callable[[Floats], Floats]) -> tuple[float, Integers]:
        """Return the value and the devices of a column whose stages are rounded to whole devices."""
        stages = slice(0, int(self.table.stages[row]))
        per_device = self.table.value[row, stages] * self.table.share[row, stages]
        value = float((rounding(value / per_device) * per_device).min())
        use = np.zeros(self.use.shape[1], dtype=np.int64)
        np.add.at(use, self.table.device[row, stages], np.ceil(value / per_device / TIE).astype(np.int64))
        return value, use

    def sized(self, cover: "Cover") -> list[Sized]:
        """Return the pipelines of a plan."""
        return [self.table.sized(row, value) for row, value in cover.parts]


@dataclass(frozen=True)
class Cover:
    """A plan of one DNN: its parts, each a column (row) and its value, and the devices of each type that they use."""

    parts: tuple[tuple[int, float], ...]
    use: tuple[int, ...]


def size(
    problem: Problem,
    columns: Sequence[Candidate],
    device_price: Floats,
    bound: float,
    clock: Clock,
    report: Callable[[float, float], None],
) -> Sizing:
    """Return a plan on whole devices, as good as bisection finds in the time left, or until Ctrl-C.

    Parameters
    ----------
    columns
        Of all DNNs, at least one each.
    device_price
        Prices of the device types in the relaxation.
    bound
        What no plan exceeds.
    report
        Is told every better value, and the bound.
    """
    counts = np.array([device.count for device in problem.cluster.device_types])
    tables = [
        CandidateTable.of([column for column in columns if column.dnn == number], dnn.weight)
        for number, dnn in enumerate(problem.dnns)
    ]
    best = _rounded_up(problem, columns, tables, counts)
    low, high = _least(best, tables), bound
    pools = [_pool(table, counts, device_price, bound) for table in tables]
    rng = np.random.default_rng(SEED)
    try:
        report(low, bound)
        while high - low > PRECISION * high and not clock.over:
            target = (low + high) / 2
            chosen = _choose(pools, counts, device_price, target, rng, clock)
            log.debug("%.9g of %.9g: %s", target, bound, "no plan" if chosen is None else "a plan")
            if chosen is None:
                high = target
            else:
                best = [pool.sized(cover) for pool, cover in zip(pools, chosen, strict=True)]
                low = max(target, _least(best, tables))
                report(low, bound)
    except KeyboardInterrupt:
        log.info("interrupted; the best plan so far is taken")
    return Sizing(tuple(sized for pipelines in best for sized in pipelines), bound, "highs").merged()


def _least(pipelines: Sequence[Sequence[Sized]], tables: Sequence[CandidateTable]) -> float:
    """Return the objective of the pipelines of every DNN."""
    return min(
        sum(sized.throughput_rps for sized in own) / table.weight for own, table in zip(pipelines, tables, strict=True)
    )


def _rounded_up(
    problem: Problem, columns: Sequence[Candidate], tables: Sequence[CandidateTable], counts: Integers
) -> list[list[Sized]]:
    """Return the relaxation's rates, each stage rounded up to whole devices, at the largest scale that fits."""
    rates = relax(problem, columns).rates
    values = [
        np.array([rate for column, rate in zip(columns, rates, strict=True) if column.dnn == number]) / table.weight
        for number, table in enumerate(tables)
    ]
    low, high = 0.0, 1.0
    while high - low > PRECISION:
        scale = (low + high) / 2
        used = sum(_whole_use(table, value * scale, counts) for table, value in zip(tables, values, strict=True))
        low, high = (scale, high) if (used <= counts).all() else (low, scale)
    return [
        [table.sized(row, float(value[row] * low)) for row in np.flatnonzero(value * low > 0).tolist()]
        for table, value in zip(tables, values, strict=True)
    ]


def _whole_use(table: CandidateTable, value: Floats, counts: Integers) -> Integers:
    """Return the whole devices per type that columns need for the values given."""
    use = np.zeros_like(counts)
    for position in range(table.positions):
        rows = np.flatnonzero(table.stages > position)
        devices = np.ceil(value[rows] / (table.value[rows, position] * table.share[rows, position]) / TIE)
        np.add.at(use, table.device[rows, position], devices.astype(np.int64))
    return use


def _pool(table: CandidateTable, counts: Integers, device_price: Floats, most: float) -> Pool:
    """Return the items of one DNN that are good for their size, up to the value ``most``."""
    row, value, use = _sizes(table, counts, device_price, most)
    size = np.floor(np.log2(np.maximum(value * (UNITS / most), 0.5)))
    price = use @ device_price / value
    order = np.lexsort((price, size))
    begins = np.searchsorted(size[order], size[order])
    kept = order[(np.arange(len(order)) - begins < ITEMS_PER_SIZE) & (size[order] >= 0)]
    return Pool(table, row[kept], value[kept], use[kept])


def _sizes(
    table: CandidateTable, counts: Integers, device_price: Floats, most: float
) -> tuple[Integers, Floats, Integers]:
    """Return row, value and use of the sizes of all columns; of some sizes where devices are thousands."""
    if counts.max() > WALKED:
        whole = replace(table, value=table.value * table.share, share=np.ones_like(table.share))
        items = spaced_items(whole, counts, np.ones_like(counts), device_price, most)
        return items.row, items.value, items.totals
    arguments = table.value * table.share, table.device, table.stages, counts, most
    room = 0
    while True:
        row, value = np.empty(room, dtype=np.int64), np.empty(room)
        use = np.zeros((room, len(counts)), dtype=np.int64)
        found = _whole_items(*arguments, row, value, use)
        if found <= room:
            return row, value, use
        room = found


def _undominated(units: Integers, cost: Floats) -> Integers:
    """Return the items of at least one unit for which no other is as large and as cheap, by falling size."""
    order = np.lexsort((cost, -units))
    order = order[units[order] > 0]
    cheapest_before = np.minimum.accumulate(np.concatenate([[np.inf], cost[order]]))[:-1]
    return order[cost[order] < cheapest_before]


def _choose(
    pools: Sequence[Pool],
    counts: Integers,
    device_price: Floats,
    target: float,
    rng: np.random.Generator,
    clock: Clock,
) -> list[Cover] | None:
    """Return a plan of at least ``target`` per DNN, together on the cluster, if one is found."""
    floor = 0.01 * device_price.max()
    perturbations = max(PERTURBATIONS, PLANS // len(pools))
    noise = np.exp(rng.normal(0.0, SPREAD, (perturbations + 1, len(counts))))
    noise[0] = 1.0
    known: list[dict[Cover, None]] = [{} for _ in pools]
    for price in np.maximum(device_price, floor) * noise:
        for pool, own in zip(pools, known, strict=True):
            cover = pool.cheapest(price, target)
            if cover is None:
                return None
            own[cover] = None
    for _ in range(ROUNDS):
        choice = _relaxed_choice(known, counts)
        if not _add_cheaper(pools, known, choice, target) or clock.over:
            break
    for _ in range(MIXTURES):
        choice = _relaxed_choice(known, counts)
        if choice.overload > FITS or clock.over:
            return None
        for pool, own, taken in zip(pools, known, choice.taken, strict=True):
            if len(taken) > 1:
                own.update(dict.fromkeys(pool.between(taken, np.maximum(choice.device_price, floor), target)))
    log.debug("%d plans, relaxed overload %.3g", sum(map(len, known)), choice.overload)
    return _exchanged(known, choice, counts, rng) or _binary_choice(known, counts, clock)


def _exchanged(
    known: Sequence[dict[Cover, None]], choice: "Choice", counts: Integers, rng: np.random.Generator
) -> list[Cover] | None:
    """Return a plan per DNN that together fit, found by exchanging plans of one or two DNNs, or None.

    It begins with a plan of each DNN drawn by its part in the relaxed choice, and always takes the exchange that
    leaves the least excess of devices, relative and added up over types.
    """
    covers = [cover for own in known for cover in own]
    owner = np.repeat(np.arange(len(known)), [len(own) for own in known])
    use = np.array([cover.use for cover in covers])
    parts = np.concatenate(
        [[taken.get(cover, 0.0) for cover in own] for own, taken in zip(known, choice.taken, strict=True)]
    )
    scale = 1 / np.maximum(counts, 1)
    for attempt in range(RESTARTS):
        drawn = parts * rng.exponential(size=len(parts)) if attempt else parts
        chosen = np.array(
            [int(np.flatnonzero(owner == dnn)[drawn[owner == dnn].argmax()]) for dnn in range(len(known))]
        )
        while True:
            over = use[chosen].sum(axis=0) - counts
            excess = float((np.maximum(over, 0) * scale).sum())
            if excess == 0:
                return [covers[plan] for plan in chosen]
            change = use - use[chosen[owner]]
            single = (np.maximum(over + change, 0) * scale).sum(axis=1)
            best = int(single.argmin())
            pair: tuple[int, ...] = (best,)
            if single[best] > excess / 2:  # pairs are many, and only worth it where one exchange does not go far
                near = np.argsort(single, kind="stable")[:PAIRED]
                both = (np.maximum(over + change[near, np.newaxis] + change[near], 0) * scale).sum(axis=2)
                both[owner[near, np.newaxis] == owner[near]] = np.inf
                one, other = np.unravel_index(int(both.argmin()), both.shape)
                if both[one, other] < single[best]:
                    pair, single[best] = (int(near[one]), int(near[other])), both[one, other]
            if single[best] >= excess:
                break
            for plan in pair:
                chosen[owner[plan]] = plan
    return None


def _add_cheaper(pools: Sequence[Pool], known: Sequence[dict[Cover, None]], choice: "Choice", target: float) -> bool:
    """Add the plans that cost less than those in use; tell whether there were any."""
    added = False
    for pool, own, worth in zip(pools, known, choice.worth, strict=True):
        cover = pool.cheapest(choice.device_price, target)
        if cover is not None and cover not in own and float(choice.device_price @ np.array(cover.use)) < worth - FITS:
            own[cover] = None
            added = True
    return added


@dataclass(frozen=True)
class Choice:
    """The relaxed choice of plans: overload, prices of devices, worth of a plan per DNN, and the plans in use."""

    overload: float
    device_price: Floats
    worth: Floats
    taken: list[dict[Cover, float]]


def _model(known: Sequence[dict[Cover, None]], counts: Integers, *, binary: bool) -> LinearModel:
    """Return the programme that chooses a plan per DNN; its first column is the overload."""
    model = LinearModel()
    overload = model.add_column("overload", lower=0.0 if binary else -1.0, objective=1.0)
    terms: list[list[tuple[int, float]]] = [[(overload, -float(count))] for count in counts]
    for number, own in enumerate(known):
        chosen = [model.add_column(f"plan[{number},{plan}]", upper=1.0, integer=binary) for plan in range(len(own))]
        model.add_row(f"one[{number}]", [(column, 1.0) for column in chosen], lower=1.0, upper=1.0)
        for column, cover in zip(chosen, own, strict=True):
            for device, devices in enumerate(cover.use):
                if devices:
                    terms[device].append((column, float(devices)))
    for device, count in enumerate(counts):
        model.add_row(f"devices[{device}]", terms[device], upper=float(count))
    return model


def _relaxed_choice(known: Sequence[dict[Cover, None]], counts: Integers) -> Choice:
    """Return the choice of least overload, in which plans may be mixed."""
    solution, _ = solve(_model(known, counts, binary=False), "highs")
    parts = iter(solution.values[1:].tolist())
    taken = [{cover: share for cover in own if (share := next(parts)) > FITS} for own in known]
    duals = solution.row_duals
    return Choice(solution.objective, abs(duals[len(known) :]), duals[: len(known)], taken)


def _binary_choice(known: Sequence[dict[Cover, None]], counts: Integers, clock: Clock) -> list[Cover] | None:
    """Return a plan per DNN that together do not overload the cluster, if the solver finds them in time."""
    solution, _ = solve(_model(known, counts, binary=True), "highs", clock.within(CHOICE_LIMITS))
    if not solution.found or solution.objective > FITS:
        return None
    chosen = iter(solution.values[1:].tolist())
    picked = [[cover for cover in own if next(chosen) > 0.5] for own in known]
    return [covers[0] for covers in picked]


@compiled
def _whole_items(
    value: Floats,
    device: Integers,
    stages: Integers,
    counts: Integers,
    most: float,
    rows: Integers,
    values: Floats,
    uses: Integers,
) -> int:
    """Write the sizes of columns in whole devices for which there is room, and return how many there are.

    ``value[row, stage]`` is that of one device.
    """
    found = 0
    devices = np.empty(value.shape[1], dtype=np.int64)
    use = np.empty(len(counts), dtype=np.int64)
    for row in range(len(stages)):
        devices[:] = 1
        slowest = 0.0
        while slowest < most:
            use[:] = 0
            slowest = np.inf
            for stage in range(stages[row]):
                use[device[row, stage]] += devices[stage]
                slowest = min(slowest, value[row, stage] * devices[stage])
            if (use > counts).any():
                break
            if found < len(rows):
                rows[found], values[found] = row, slowest
                uses[found] = use
            found += 1
            for stage in range(stages[row]):
                if value[row, stage] * devices[stage] <= slowest * TIE:
                    devices[stage] += 1
    return found
