"""The cheapest plan of one DNN worth a target, by labels.

Plans are built as in `planner.planning.whole_devices.ends`: from the dearest candidate to the cheapest, ended by the
least size of one that is worth what is left.

*Labels.* A label is what some items come to before the end: their value, loss and lowest rank, and per pool (position,
type) the *residue*, what they fill of the last device begun. Whole devices behind the residue are paid for and need not
be remembered. Losses never fall, so a label's loss bounds every plan that it leads to, with what the pools that have
begun a device pay at least, for its rest or for items that fill it (`ends.least_to_fill`). Labels are expanded best
bound first (A*). What ends lose is as good as random, so that where there are many labels one of them soon ends well,
and the search with it: it takes about as many labels whether a DNN has ten devices or thousands. Tables of what
covering the rest costs at least (`planner.planning.whole_devices.cover_bounds`) bound them as well.

Of two labels of equal residues, one that has no more value, costs no less and is not free to take more candidates leads
nowhere else. The key of the label expanded last is a valid bound whenever the search ends.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.planning.arrays import Floats, Integers
from planner.planning.whole_devices.ends import Ends, Sizes, least_to_fill, loss_of_end, rest_of_pools, rounding_of
from planner.planning.whole_devices.heaps import hash_table, pop, push, searched, slot_of
from planner.planning.whole_devices.offers import CAUTION, REACHED, Offer

ALIKE = 50  # labels of equal residues that a new one is compared with: more of them take longer than they spare
COMPARISONS = 250  # of labels, items and ends, per label of the limit


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
    more, to_fill = use % unit, least_to_fill(use, loss, unit, price)
    residue = np.zeros((label_limit, pools), np.int16)
    worth, lost, key = np.zeros(label_limit), np.zeros(label_limit), np.zeros(label_limit)
    parent, last = np.full(label_limit, -1, np.int32), np.full(label_limit, -1, np.int32)
    lowest = np.zeros(label_limit, np.int32)
    alike = np.full(label_limit, -1, np.int32)  # the next label of equal residues
    dead = np.zeros(label_limit, np.bool_)
    table = hash_table(label_limit)
    heap = np.empty(label_limit, np.int32)
    wanted = begun.copy()
    lowest[0] = len(ends.excess)
    for pool in range(pools):  # one by one: to assign a row takes seconds to compile
        residue[0, pool] = begun[pool]
    no_whole, no_taken, apart = np.zeros((1, 0), np.int32), np.zeros(0, np.int64), np.zeros(0, np.bool_)
    table[slot_of(table, residue, wanted, no_whole, no_taken, apart)] = 0
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
        rounding = rounding_of(residue[label], unit, price)
        for end in range(lowest[label]):
            if lost[label] + ends.excess[end] * left >= best:
                break
            work += 1
            paid = loss_of_end(ends, end, left, value_price, best - lost[label], residue[label], rounding, unit, price)
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
            child_key, filling = max(child_lost, key[label]), 0.0
            for pool in range(pools):
                filled = residue[label, pool] + more[item, pool]
                if filled >= unit[pool]:
                    filled -= unit[pool]
                wanted[pool] = filled
                filling += to_fill[pool, filled]
            child_key = max(child_key, child_lost + filling)
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
            slot = slot_of(table, residue, wanted, no_whole, no_taken, apart)
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
            for pool in range(pools):
                residue[labels, pool] = wanted[pool]
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
def _items_of(label: int, parent: NDArray[np.int32], last: NDArray[np.int32]) -> Integers:
    count, at = 0, label
    while at > 0:
        count += 1
        at = parent[at]
    chosen, at = np.empty(count, np.int64), label
    for step in range(count):
        chosen[step] = last[at]
        at = parent[at]
    return chosen
