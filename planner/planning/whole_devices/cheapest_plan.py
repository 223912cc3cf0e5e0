"""The cheapest plan of one DNN worth a target, by labels.

A plan is a multiset of items (candidates with sizes). With prices of devices lambda and a price m of value at which no
item gains,

    cost of a plan  =  m · z  +  sum of its items' losses  +  m · (value beyond z)  +  rounding at the end
    loss of an item =  lambda · (devices it fills)  -  m · min(value, z)  >=  0

*Order.* Two sizes of one candidate together are worth no more than its size on the same slices, so that a plan holds a
candidate once. Candidates are put in the order of what a unit of their value costs, the *rank*; a plan is built from
the dearest to the cheapest, and *ends* with the least size of one candidate that is worth what is left. So large
items, of which there are thousands of sizes, are mostly looked up and not tried, and no plan is met twice.

*Labels.* A label is what some items come to before the end: their value, loss and lowest rank, and per pool (position,
type) the *residue*, what they fill of the last device begun. Whole devices behind the residue are paid for and need not
be remembered. Losses never fall, so a label's loss bounds every plan that it leads to, with what a pool that has begun
a device pays at least, for its rounding or for items that fill it (`_least_to_fill`). Labels are expanded best bound
first (A*). What ends lose is as good as random, so that where there are many labels one of them soon ends well, and the
search with it: it takes about as many labels whether a DNN has ten devices or thousands. Tables of what covering the
rest costs at least (`planner.planning.whole_devices.cover_bounds`) bound them as well.

Of two labels of equal residues, one that has no more value, costs no less and is not free to take more candidates leads
nowhere else. The key of the label expanded last is a valid bound whenever the search ends.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner.planning.arrays import Floats, Integers
from planner.planning.pipelines.sizes import TIE, CandidateTable
from planner.planning.whole_devices.heaps import hash_table, pop, push, searched, slot_of
from planner.planning.whole_devices.offers import CAUTION, REACHED, Offer
from planner.planning.whole_devices.searches import rest_of_pools

ALIKE = 50  # labels of equal residues that a new one is compared with: more of them take longer than they spare
COMPARISONS = 250  # of labels, items and ends, per label of the limit


class Ends(NamedTuple):
    """Candidates by rising cost of a unit of value, at any size that is left when a plan ends with one of them.

    ``excess[candidate]`` is what a unit of value costs beyond the price of value. Per stage ``[candidate, stage]``: the
    value of a slice, its pool, what it uses there and costs.
    """

    excess: Floats
    stages: Integers
    value: Floats
    pool: Integers
    slice_use: Integers
    slice_price: Floats


@dataclass(frozen=True)
class Sizes:
    """All sizes of the candidates on offer that are taken before the end, by rising loss.

    ``rank[item]`` is the item's candidate in ``ends``, which is row ``candidate[end]`` of its table.
    """

    candidate: Integers
    rank: Integers
    use: NDArray[np.int32]
    value: Floats
    loss: Floats
    ends: Ends

    @classmethod
    def of(
        cls, offer: Offer, rows: Integers, table: CandidateTable, units: Integers, price: Floats, positions: bool
    ) -> "Sizes":
        """Return those of an offer.

        Parameters
        ----------
        rows
            Of the offer's items, in the table of candidates.
        units, price
            Per resource: parts in which it is used, and its price.
        positions
            Whether pools are told apart by position.
        """
        candidate, rank = np.unique(rows, return_inverse=True)
        device, share, amount = (of_all[candidate] for of_all in (table.device, table.share, table.amount))
        slice_price, slice_use = price[device] * amount / share, amount * units[device] // share
        value, stages = table.value[candidate], table.stages[candidate]
        there = np.arange(value.shape[1]) < stages[:, np.newaxis]
        per_value = np.divide(slice_price, value, out=np.zeros_like(slice_price), where=there).sum(axis=1)
        order = np.argsort(per_value, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        first = len(price) * np.arange(value.shape[1]) if positions else 0
        # Stages beyond a candidate's own have no pool of its items, and are not read.
        pool = np.minimum(np.searchsorted(offer.pool, first + device), max(len(offer.pool) - 1, 0))
        excess = np.maximum(per_value - offer.value_price, 0.0)
        ends = Ends(excess[order], stages[order], value[order], pool[order], slice_use[order], slice_price[order])
        found = cls(candidate[order], place[rank], offer.use, offer.value, offer.loss, ends)
        return found._with_all_of_one_stage(offer)

    def _with_all_of_one_stage(self, offer: Offer) -> "Sizes":
        """Put all sizes of candidates of one stage in the place of 1, 2, 4, .. slices, of which they are sums."""
        several = self.ends.stages[self.rank] > 1
        rank, use = [self.rank[several]], [self.use[several]]
        value, loss = [self.value[several]], [self.loss[several]]
        most = np.zeros(len(self.candidate))
        np.maximum.at(most, self.rank, self.value)
        for end in np.flatnonzero(self.ends.stages == 1).tolist():
            slice_value = float(self.ends.value[end, 0])
            slices = np.arange(1, 2 * int(np.ceil(most[end] / slice_value)) + 1)
            slices = slices[slices * slice_value < offer.target]
            own = np.zeros((len(slices), self.use.shape[1]), dtype=np.int32)
            own[:, self.ends.pool[end, 0]] = slices * self.ends.slice_use[end, 0]
            rank.append(np.full(len(slices), end))
            use.append(own)
            value.append(np.multiply(slices, slice_value, dtype=np.float64))
            loss.append(np.maximum(slices * (self.ends.slice_price[end, 0] - offer.value_price * slice_value), 0.0))
        order = np.argsort(np.concatenate(loss), kind="stable")
        return Sizes(
            self.candidate,
            np.concatenate(rank)[order],
            np.ascontiguousarray(np.concatenate(use)[order]),
            np.concatenate(value)[order],
            np.concatenate(loss)[order],
            self.ends,
        )


@dataclass(frozen=True)
class Cheapest:
    """The cheapest plan's loss, rows of its candidates and their values, a bound on any plan's loss, labels made.

    No candidates: there is nothing below the limit.
    """

    loss: float
    bound: float
    rows: Integers
    values: Floats
    labels: int


def cheapest(
    offer: Offer,
    sizes: Sizes,
    *,
    below: float,
    tolerance: float,
    label_limit: int,
    begun: Integers | None = None,
) -> Cheapest:
    """Return the plan of least loss, if it is less than ``below``.

    Parameters
    ----------
    sizes
        Of the candidates on offer.
    begun
        Residues of the pools at the beginning, none by default: what is there already of them.
    below
        A loss that is known to be reached, or at which nothing cheaper matters.
    tolerance
        The search ends when nothing can be cheaper than the best plan by more than this.
    label_limit
        The search ends after so many labels, or `COMPARISONS` as many comparisons; its bound is then below its loss.
    """
    none = np.zeros(0, dtype=np.int64)
    if len(sizes.candidate) == 0:
        return Cheapest(below, below, none, np.zeros(0), 0)
    loss, bound, labels, items, end, left = _cheapest(
        (np.zeros_like(offer.unit) if begun is None else begun).astype(np.int16),
        sizes.use,
        sizes.value,
        sizes.loss,
        sizes.rank,
        sizes.ends,
        offer.unit,
        offer.price,
        offer.value_price,
        offer.target,
        offer.least,
        offer.least_from,
        below,
        tolerance,
        label_limit,
    )
    if end < 0:
        return Cheapest(float(loss), float(bound), none, np.zeros(0), int(labels))
    rows = sizes.candidate[np.append(sizes.rank[items], end)]
    return Cheapest(float(loss), float(bound), rows, np.append(sizes.value[items], left), int(labels))


@searched
def _least_to_fill(use: NDArray[np.int32], loss: Floats, unit: Integers, price: Floats) -> Floats:
    """Return ``[pool, residue]``, what a pool pays at least: for the rest of its device, or for items that fill it."""
    items, pools = use.shape
    paid = np.zeros((pools, unit.max()))
    for pool in range(pools):
        size = unit[pool]
        lost = np.full(size, np.inf)  # by the cheapest item that fills so much of a device
        for item in range(items):
            filled = use[item, pool] % size
            lost[filled] = min(lost[filled], loss[item])
        for residue in range(1, size):
            paid[pool, residue] = price[pool] * (size - residue) / size
        for _ in range(size):  # no cheapest way takes more items than there are residues
            for residue in range(1, size):
                for more in range(1, size):
                    total = lost[more] + paid[pool, (residue + more) % size]
                    paid[pool, residue] = min(paid[pool, residue], total)
    return paid


@searched
def _rounding(residue: NDArray[np.int16], unit: Integers, price: Floats) -> float:
    """Return what the rest of the devices that pools have begun costs."""
    paid = 0.0
    for pool in range(len(unit)):
        if residue[pool] > 0:
            paid += price[pool] * (unit[pool] - residue[pool]) / unit[pool]
    return paid


@searched
def _loss_of_end(
    ends: Ends, end: int, left: float, value_price: float, most: float,
    residue: NDArray[np.int16], rounding: float, unit: Integers, price: Floats,
) -> float:  # fmt: skip
    """Return what ending with a candidate loses, rounding of all pools included; or more than ``most``."""
    total = -value_price * left
    for stage in range(ends.stages[end]):
        total += ends.slice_price[end, stage] * np.ceil(left / ends.value[end, stage] / TIE)
    if total >= most:
        return total
    total += rounding
    for stage in range(ends.stages[end]):
        pool = ends.pool[end, stage]
        size, begun = unit[pool], np.int64(residue[pool])
        slices = np.int64(np.ceil(left / ends.value[end, stage] / TIE))
        filled = (begun + slices * ends.slice_use[end, stage]) % size
        total += price[pool] * ((size - filled) % size - (size - begun) % size) / size
    return total


@searched
def _cheapest(
    begun: NDArray[np.int16],
    use: NDArray[np.int32],
    value: Floats,
    loss: Floats,
    rank: Integers,
    ends: Ends,
    unit: Integers,
    price: Floats,
    value_price: float,
    target: float,
    least: Floats,
    least_from: Floats,
    below: float,
    tolerance: float,
    label_limit: int,
) -> tuple[float, float, int, Integers, int, float]:
    items, pools = use.shape
    more, to_fill = use % unit, _least_to_fill(use, loss, unit, price)
    residue = np.zeros((label_limit, pools), np.int16)
    worth, lost, key = np.zeros(label_limit), np.zeros(label_limit), np.zeros(label_limit)
    parent, last, lowest = np.full(label_limit, -1), np.full(label_limit, -1), np.zeros(label_limit, np.int64)
    alike = np.full(label_limit, -1)  # the next label of equal residues
    dead = np.zeros(label_limit, np.bool_)
    table = hash_table(label_limit)
    heap = np.empty(label_limit, np.int64)
    wanted = begun.copy()
    residue[0], lowest[0] = begun, len(ends.excess)
    table[slot_of(table, residue, wanted)] = 0
    size, labels = push(heap, key, 0, 0), 1
    best, best_label, best_end, bound, full, work = below, -1, -1, below, False, 0
    while size > 0:
        size = pop(heap, key, size)
        label = heap[size]
        if key[label] >= best - tolerance:
            bound = min(bound, key[label])
            break
        if dead[label]:
            continue
        left = target - worth[label]
        rounding = _rounding(residue[label], unit, price)
        for end in range(lowest[label]):
            if lost[label] + ends.excess[end] * left >= best:
                break
            work += 1
            paid = _loss_of_end(ends, end, left, value_price, best - lost[label], residue[label], rounding, unit, price)
            if lost[label] + paid < best:
                best, best_label, best_end = lost[label] + paid, label, end
        for item in range(items):
            child_lost = lost[label] + loss[item]
            if child_lost >= best:
                break
            if rank[item] >= lowest[label] or value[item] >= left - REACHED * target:
                continue
            work += 1
            child_worth = worth[label] + value[item]
            child_key = max(child_lost, key[label])
            for pool in range(pools):
                filled = residue[label, pool] + more[item, pool]
                if filled >= unit[pool]:
                    filled -= unit[pool]
                wanted[pool] = filled
                child_key = max(child_key, child_lost + to_fill[pool, filled])
            left_then = target - child_worth
            at = max(0, int(left_then / target * (len(least) - 1) - CAUTION))
            child_key = max(child_key, child_lost + least[at] - value_price * left_then)
            if child_key < best and least_from.shape[1] > 1:
                rest = rest_of_pools(least_from, wanted, unit, left_then, target, value_price)
                child_key = max(child_key, child_lost + rest)
            if child_key >= best:
                continue
            if labels == label_limit or work > COMPARISONS * label_limit:
                full = True
                break
            slot = slot_of(table, residue, wanted)
            dominated = False
            known, before, first = table[slot], -1, work
            paid = child_lost + value_price * child_worth
            while known >= 0 and work < first + ALIKE:
                work += 1
                if not dead[known]:
                    known_paid = lost[known] + value_price * worth[known]
                    as_good = worth[known] >= child_worth - REACHED * target and known_paid <= paid + REACHED * best
                    if as_good and lowest[known] >= rank[item]:
                        dominated = True
                        break
                    if child_worth >= worth[known] and paid <= known_paid and rank[item] >= lowest[known]:
                        dead[known] = True
                if dead[known] and before >= 0:  # the first of a chain keeps its place in the table
                    alike[before] = alike[known]
                else:
                    before = known
                known = alike[known]
            if dominated:
                continue
            worth[labels], lost[labels], key[labels] = child_worth, child_lost, child_key
            parent[labels], last[labels], lowest[labels] = label, item, rank[item]
            residue[labels] = wanted
            alike[labels] = table[slot]
            table[slot] = labels
            size = push(heap, key, size, labels)
            labels += 1
        if full:
            bound = min(bound, key[label])
            break
    bound = min(bound, best)
    left = target - worth[best_label] if best_label >= 0 else 0.0
    return best, bound, labels, _items_of(best_label, parent, last), best_end, left


@searched
def _items_of(label: int, parent: Integers, last: Integers) -> Integers:
    count, at = 0, label
    while at > 0:
        count += 1
        at = parent[at]
    chosen, at = np.empty(count, np.int64), label
    for step in range(count):
        chosen[step] = last[at]
        at = parent[at]
    return chosen
