"""What one DNN can be served with: its items, its known plans, and the cheapest plan at given prices of devices.

Items depend on no prices, but only those are listed that some prices asked for: all whose loss at these prices was
within a budget. A search at other prices, or with a larger budget, first extends the list (`Supply.extend`), after
which the bound of the search holds for every plan.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import inf

import numpy as np

from planner.compilation import compiled
from planner.planning.arrays import Floats, Integers
from planner.planning.pipelines.candidates import Pipelines
from planner.planning.pipelines.sizes import TIE, CandidateTable, Items, cheap_items, sizes_for
from planner.planning.pipelines.sizing import Sized
from planner.planning.whole_devices import cover_bounds, offers, whole_pools
from planner.planning.whole_devices.cheapest_plan import Cheapest, cheapest
from planner.planning.whole_devices.ends import Sizes
from planner.planning.whole_devices.offers import Offer
from planner.planning.whole_devices.plans_within import plans_within
from planner.planning.whole_devices.vectors import DeviceRates

REACHED = 1 - offers.REACHED
QUICK_LABELS = 8_000  # of a search without tables of pools, which cost more than that many labels
VECTORS, STEPS = 10_000, 250  # of devices; and steps for each label that a search would be allowed
ROOM = 64  # plans, twice as many whenever they are more
LARGEST = 2**62  # number that classes may have before they are counted anew
ROUNDING = 0.4  # dearest devices: a plan that loses more loses it by rounding pools
REST_PARTS = 4_000  # of what completes a plan, which is little
Lister = Callable[[Floats, float], Pipelines]  # of prices and a budget
Parts = tuple[Integers, Floats] | tuple[Sized, ...]  # rows and values of candidates, or pipelines


@dataclass(frozen=True)
class Priced:
    """The cheapest plan's price as far as known, a bound on any plan's price, and the steps that it took."""

    price: float
    bound: float
    steps: int


@dataclass(frozen=True)
class Listed:
    """What was listed last: all items up to a loss at some prices, of sizes up to a target."""

    price: Floats = field(default_factory=lambda: np.zeros(0))
    budget: float = -inf
    target: float = -inf

    def holds(self, price: Floats, budget: float, target: float) -> bool:
        """Tell whether items within a budget are among those."""
        return budget <= self.budget and target <= self.target and np.array_equal(price, self.price)


@dataclass
class Supply:
    """One DNN and what it uses of each resource (`planner.planning.whole_devices.capacity`).

    Parameters
    ----------
    table
        Its candidates, all or those listed so far.
    limit, units
        Per resource: how much there is, and the parts in which it is used. Resources in parts are devices of the DNN's
        own: what pools begin of them, they have.
    lister
        Lists all candidates of which some size loses no more than a budget at some prices; None: ``table`` has all.
    """

    table: CandidateTable
    limit: Integers
    units: Integers
    lister: Lister | None = None
    items: Items = field(init=False)
    _listed: Listed = field(default_factory=Listed)
    _parts: list[Parts] = field(default_factory=list)
    _known: dict[tuple[int, ...], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin with no items and no plans."""
        none = np.zeros((0, len(self.limit) * (self.table.positions if self._in_parts else 1)), dtype=np.int64)
        self.items = Items(np.zeros(0, dtype=np.int64), np.zeros(0), none, len(self.limit))
        self._filled = self.items.totals / self.units
        self._class = np.zeros(0, dtype=np.int64)
        self._take_table(self.table)
        self._use, self._value = np.zeros((ROOM, len(self.limit)), dtype=np.int64), np.zeros(ROOM)

    def _take_table(self, table: CandidateTable) -> None:
        self.table = table
        self._per_value = table.device_use(len(self.limit))
        self._rates = DeviceRates.of(table, self.units) if self.lister is None else None

    @property
    def least_value(self) -> float:
        """What no plan is worth less than."""
        return 0.0 if self.lister else self.table.least_value

    @property
    def use(self) -> Integers:
        """What the known plans use ``[plan, resource]``."""
        return self._use[: len(self._parts)]

    @property
    def value(self) -> Floats:
        """What the known plans are worth."""
        return self._value[: len(self._parts)]

    @property
    def _in_parts(self) -> bool:
        return bool(self.units.max(initial=1) > 1)

    def value_price(self, price: Floats) -> float:
        """Return what a unit of value costs on what the cheapest candidate fills, a hair less."""
        return float((self._per_value @ price).min(initial=inf)) * REACHED

    def extend(self, price: Floats, budget: float, target: float) -> bool:
        """List all items that lose no more than a budget at these prices; tell whether there are new ones."""
        if self._listed.holds(price, budget, target):
            return False
        self._listed = Listed(price.copy(), budget, target)
        if self.lister is not None:
            self._list_candidates(self.lister, price, budget, target)
        listed = self._cheap_items(self.table, price, budget, target)
        listed = self.items.and_those_of(self.pooled(listed))
        listed = listed.take(np.lexsort((listed.use.sum(axis=1), -listed.value)))
        listed = listed.take(_undominated(listed.use))
        same = len(listed.row) == len(self.items.row) and (listed.row == self.items.row).all()
        if same and (listed.use == self.items.use).all():
            return False
        self.keep_items(listed)
        return True

    def _cheap_items(self, table: CandidateTable, price: Floats, budget: float, target: float) -> Items:
        value_price = float((table.device_use(len(self.limit)) @ price).min(initial=inf)) * REACHED
        return cheap_items(table, self.limit, self.units, price, value_price, budget, target)

    def _list_candidates(self, lister: Lister, price: Floats, budget: float, target: float) -> None:
        """Let the table have all candidates of items that lose no more than a budget at these prices."""
        found = lister(price, budget)
        table = CandidateTable.of_pipelines(found, self.table.weight)
        best = int((table.device_use(len(self.limit)) @ price).argmin())
        rows = np.unique(np.append(self._cheap_items(table, price, budget, target).row, best))
        known = self.table.candidates
        both = known.and_those_of(found.take(rows)) if isinstance(known, Pipelines) else found.take(rows)
        self._take_table(CandidateTable.of_pipelines(both, self.table.weight))

    def pooled(self, items: Items) -> Items:
        """Return items with the use that counts: per position, or in all where devices are whole or shared."""
        return items if self._in_parts else items.with_totals()

    def keep_items(self, items: Items) -> None:
        """Take these items in place of those that are listed."""
        self.items = items
        self._filled = items.totals / self.units
        units = np.resize(self.units, items.use.shape[1])
        self._class = _classes(items.use % units, units)

    def price(
        self, price: Floats, target: float, *, label_limit: int, below: float = inf, tolerance: float = 0.0
    ) -> Priced:
        """Find the cheapest plan worth a target, and keep it.

        Parameters
        ----------
        price
            Of each resource.
        below
            Only a plan of a lower price is of interest.
        tolerance
            By how much a plan may be dearer than the cheapest.
        """
        base = self.value_price(price) * target
        below = self._least_price(price, target, below)
        if below == inf:
            below = self._cover(price, target)
        below = max(below - base, 0.0) + 1e-12 * base
        if self._rates is not None:
            most = VECTORS, label_limit * STEPS
            complete, steps = self._keep_vectors(self._rates, price, target, below, self.limit, True, most)
            found_price = self._least_price(price, target, base + below)
            return Priced(found_price, found_price if complete else base, steps)
        offer = self.offer(price, target, below, cheapest_only=True)
        sparse = self.lister is not None  # few of items listed for their loss would be left out, for twice the tables
        offer = offer if sparse else offer.within(below)
        if len(offer.item) == 0 or offer.least[-1] - base >= below:
            return Priced(base + below, base + below, 0)
        quick = min(QUICK_LABELS, label_limit)
        found = self._cheapest(offer, price, below, tolerance, quick)
        if found.bound < found.loss - tolerance and label_limit > QUICK_LABELS:
            below = min(below, found.loss)
            offer = offer.with_pools() if sparse else offer.with_pools().within(below).with_pools()
            found = self._cheapest(offer, price, below, tolerance, label_limit)
            if found.bound < found.loss - tolerance and found.loss > ROUNDING * offer.price.max():
                least = whole_pools.least_loss(offer, self._sizes(offer, price).ends)
                found = replace(found, bound=min(max(found.bound, least), found.loss))
        return Priced(base + found.loss, base + found.bound, found.labels * STEPS)

    def _cheapest(self, offer: Offer, price: Floats, below: float, tolerance: float, label_limit: int) -> Cheapest:
        """Find the cheapest plan, and keep it."""
        found = cheapest(offer, self._sizes(offer, price), below=below, tolerance=tolerance, label_limit=label_limit)
        if len(found.rows):
            self._keep(self._items(found))
        return found

    def _sizes(self, offer: Offer, price: Floats) -> Sizes:
        return Sizes.of(offer, self.items.row[offer.item], self.table, self.units, price, self._in_parts)

    def _items(self, found: Cheapest) -> Items:
        """Return the items of a plan."""
        items = self.items.take(np.zeros(0, dtype=np.int64))
        for row, value in zip(found.rows.tolist(), found.values.tolist(), strict=True):
            items = items.and_those_of(self.pooled(sizes_for(self.table, row, np.array([value]), self.units)))
        return items

    def all_within(
        self, price: Floats, target: float, budget: float, limit: Integers, most: tuple[int, int, int]
    ) -> tuple[bool, int]:
        """Find and keep all plans worth a target that cost no more than a budget; tell whether these are all.

        None uses more of a resource than ``limit``.
        Of plans of equal use one is kept, and none that uses more of everything than another. Items within the budget
        must be listed. The second number returned is that of the steps taken; where the search was cut off, it is more
        than the last of ``most``, which limits labels, plans and steps.
        """
        left = budget - self.value_price(price) * target
        if self._rates is not None:
            return self._keep_vectors(self._rates, price, target, left, limit, False, most[1:])
        labels, plans, steps = most
        offer = self.offer(price, target, left, cheapest_only=False).within(left)
        quick = min(QUICK_LABELS, labels)
        first = min(quick * STEPS, steps)
        found = plans_within(offer, self._sizes(offer, price), limit, budget=left, most=(quick, plans, first))
        taken = found.work
        if not found.complete and steps > first:
            offer = offer.with_pools().within(left).with_pools()
            found = plans_within(offer, self._sizes(offer, price), limit, budget=left, most=most)
            taken = max(taken, found.work)
        for use, value, own in zip(found.use, found.value.tolist(), found.parts, strict=True):
            self.add(use, value, own)
        return found.complete, taken

    def usable(self, target: float) -> Integers:
        """Return the known plans worth a target."""
        return np.flatnonzero(self.value >= target * REACHED)

    def add(self, use: Integers, value: float, parts: Parts) -> bool:
        """Keep a plan, unless one of the same use is worth as much; tell whether it was kept."""
        key = tuple(use.tolist())
        known = self._known.get(key)
        if known is None:
            count = self._known[key] = len(self._parts)
            if count == len(self._value):
                self._use, self._value = np.concatenate([self._use] * 2), np.concatenate([self._value] * 2)
            self._use[count], self._value[count] = use, value
            self._parts.append(parts)
        elif value > self.value[known] * TIE:
            self.value[known], self._parts[known] = value, parts
        else:
            return False
        return True

    def pipelines(self, plan: int) -> list[Sized]:
        """Return the pipelines of a known plan."""
        rows, *rest = self._parts[plan]
        if isinstance(rows, Sized):
            return [part for part in self._parts[plan] if isinstance(part, Sized)]
        return [
            self.table.sized(row, value) for row, value in zip(rows.tolist(), np.asarray(rest[0]).tolist(), strict=True)
        ]

    def offer(
        self, price: Floats, target: float, budget: float, *, cheapest_only: bool, parts: int = cover_bounds.PARTS
    ) -> Offer:
        """Return the items within a budget at these prices, for a search.

        With ``cheapest_only`` an item is left out where another of equal residues has no less value and costs no more.
        """
        value_price = self.value_price(price)
        value = np.minimum(self.items.value, target)
        cost = self._filled @ price
        loss = np.maximum(cost - value_price * value, 0.0)
        chosen = np.flatnonzero(loss <= budget)
        if cheapest_only and len(chosen):
            order = chosen[np.lexsort((cost[chosen], -value[chosen], self._class[chosen]))]
            chosen = _cheaper_than_larger(order, self._class, cost)
        chosen = chosen[np.argsort(loss[chosen], kind="stable")]
        use = self.items.use[chosen]
        pools = np.flatnonzero(use.any(axis=0))
        kind = pools % len(self.limit)
        return Offer(
            chosen,
            pools,
            np.ascontiguousarray(use[:, pools].astype(np.int32)),
            value[chosen],
            loss[chosen],
            self.units[kind],
            price[kind],
            kind,
            value_price,
            target,
            cover_bounds.least_cost(value[chosen], cost[chosen], target, parts),
            np.zeros((1, 1, 1)),
        )

    def complete(self, begun: Items, price: Floats, target: float, *, budget: float, label_limit: int) -> bool:
        """Find the cheapest plan worth a target that holds some items already, and keep it; tell whether there is one.

        Parameters
        ----------
        budget
            What the items that are added may lose, with the rounding of all pools.
        """
        left = target - float(begun.value.sum())
        if left <= target * (1 - REACHED):
            return self._keep(begun)
        offer = self.offer(price, left, budget, cheapest_only=True, parts=REST_PARTS)
        if len(offer.item) == 0:
            return False
        residues = begun.use.sum(axis=0) % np.resize(self.units, begun.use.shape[1])
        found = cheapest(
            offer,
            self._sizes(offer, price),
            below=budget,
            tolerance=0.01 * budget,
            label_limit=label_limit,
            begun=residues[offer.pool],
        )
        return len(found.rows) > 0 and self._keep(begun.and_those_of(self._items(found)))

    def _least_price(self, price: Floats, target: float, otherwise: float) -> float:
        """Return the price of the cheapest known plan worth a target, or another one that is lower."""
        usable = self.usable(target)
        return min(otherwise, float((self.use[usable] @ price).min())) if len(usable) else otherwise

    def _keep_vectors(
        self,
        rates: DeviceRates,
        price: Floats,
        target: float,
        budget: float,
        limit: Integers,
        cheapest: bool,
        most: tuple[int, int],
    ) -> tuple[bool, int]:
        """Keep the plans of one stage on whole devices within a budget of loss; returns as `all_within`."""
        value_price = self.value_price(price)
        complete, steps, vectors = rates.vectors(
            price, value_price, target, limit, budget=budget, cheapest=cheapest, most=most
        )
        for vector in vectors[-1:] if cheapest else vectors:
            taken = np.flatnonzero(vector)
            use, worth = np.zeros_like(self.limit), vector * rates.rate
            use[rates.kind] = vector
            self.add(use, float(worth.sum()), (rates.row[taken], worth[taken]))
        return complete, steps

    def _cover(self, price: Floats, target: float) -> float:
        """Keep a plan found by rounding every item up to whole devices, and return its price; infinite if none."""
        if len(self.items.row) == 0:
            return inf
        whole = -(-self.items.use // np.resize(self.units, self.items.use.shape[1]))
        cost = whole.reshape(len(whole), -1, len(self.limit)).sum(axis=1) @ price
        items = np.array(cover_bounds.good_cover(self.items.value, cost, target))
        if len(items) == 0:
            return inf
        chosen = self.items.take(items)
        self._keep(chosen)
        return float(self._whole(chosen) @ price)

    def _keep(self, items: Items) -> bool:
        return self.add(self._whole(items), float(items.value.sum()), (items.row, items.value))

    def _whole(self, items: Items) -> Integers:
        """Return what items use of each resource: whole devices, positions apart, where they have their own."""
        filled = items.use.sum(axis=0)
        whole = -(-filled // np.resize(self.units, len(filled)))
        by_type: Integers = whole.reshape(-1, len(self.limit)).sum(axis=0)
        return by_type


def _classes(residues: Integers, units: Integers) -> Integers:
    """Return numbers of the distinct rows of residues of ``units``, by which rows are told apart.

    >>> _classes(np.array([[0, 1], [2, 1], [0, 1]]), np.array([3, 2])).tolist()
    [0, 1, 0]
    """
    number = np.zeros(len(residues), dtype=np.int64)
    size = 1  # numbers are below it
    for residue, unit in zip(residues.T, units.tolist(), strict=True):
        if size * unit > LARGEST:
            number = np.unique(number, return_inverse=True)[1]
            size = int(number.max(initial=0)) + 1
        number = number * unit + residue
        size *= unit
    classes: Integers = np.unique(number, return_inverse=True)[1]
    return classes


@compiled
def _undominated(use: Integers) -> Integers:
    """Return the items (by falling value, then rising total use) whose every use no earlier one keeps within.

    Items use a few pools of many: those kept are grouped by the pools they use, and only groups within an item's own
    pools are looked through. Pools 63 apart share a bit, which costs comparisons and nothing else.
    """
    items, pools = use.shape
    kept, total = np.empty(items, np.int64), np.zeros(items, np.int64)
    group_pools = np.empty(items, np.int64)
    last, before = np.full(items, -1), np.full(items, -1)  # the last item kept of a group, and the one kept before
    count = groups = 0
    for item in range(items):
        own = 0
        for pool in range(pools):
            total[item] += use[item, pool]
            if use[item, pool] > 0:
                own |= 1 << (pool % 63)
        dominated, mine = False, -1
        for group in range(groups):
            if group_pools[group] == own:
                mine = group
            if group_pools[group] & ~own:
                continue
            other = last[group]
            while other >= 0 and not dominated:
                dominated = total[other] <= total[item]
                for pool in range(pools):
                    if use[other, pool] > use[item, pool]:
                        dominated = False
                        break
                other = before[other]
            if dominated:
                break
        if dominated:
            continue
        if mine < 0:
            mine, groups = groups, groups + 1
            group_pools[mine] = own
        before[item], last[mine] = last[mine], item
        kept[count] = item
        count += 1
    return kept[:count].copy()


@compiled
def _cheaper_than_larger(order: Integers, kind: Integers, cost: Floats) -> Integers:
    """Of items sorted by kind, falling value and rising cost, return those cheaper than all larger ones of a kind."""
    kept = np.empty(len(order), np.int64)
    count, last, cheapest = 0, -1, np.inf
    for item in order:
        if kind[item] != last:
            last, cheapest = kind[item], np.inf
        if cost[item] < cheapest:
            kept[count] = item
            count += 1
            cheapest = cost[item]
    return kept[:count].copy()
