"""All plans of one DNN worth a target within a budget, by labels.

A plan is a multiset of items. A label is what some items of it come to: the value so far, the loss so far, and per pool
(position, type) the *residue*, what they fill of the last device begun. Whole devices behind the residue are paid for
and need not be remembered. With prices of devices lambda and a price m of value at which no item gains,

    cost of a plan  =  m · z  +  sum of its items' losses  +  m · (value beyond z)  +  rounding at the end
    loss of an item =  lambda · (devices it fills)  -  m · min(value, z)  >=  0

so a label's loss never falls, and is a bound already. With what covering the rest costs at least
(`planner.planning.whole_devices.cover_bounds`) it is a good one, and labels are expanded best bound first (A*).

Found are all vectors of whole devices by type on which some plan has the value, none of them pointwise larger than
another. Labels also remember the whole devices behind their residues; of equal residues, one with no more
value on no fewer devices of any type leads nowhere else. A device more costs its price, so that of types that cost more
than the budget such labels have equally many, and only those need to be compared.
"""

import numpy as np
from numpy.typing import NDArray

from planner.planning.arrays import Floats, Integers
from planner.planning.whole_devices.heaps import hash_table, pop, push, searched
from planner.planning.whole_devices.offers import CAUTION, REACHED, Offer, Within


def all_within(offer: Offer, counts: Integers, *, budget: float, most: tuple[int, int, int]) -> Within:
    """Return the least vectors of whole devices on which a plan of a loss within the budget has the target.

    Parameters
    ----------
    counts
        Devices of each type that there are.
    most
        Limits of labels, of plans, and of comparisons, at which the search ends incomplete.
    """
    types = len(counts)
    if len(offer.item) == 0:
        return Within(True, np.zeros((0, types), dtype=np.int64), np.zeros(0), [], 0, 0)
    complete, labels, work, use, value, start, items = _all_within(
        offer.use,
        offer.value,
        offer.loss,
        offer.unit,
        offer.price,
        offer.kind,
        counts,
        offer.value_price,
        offer.target,
        offer.least,
        offer.least_from,
        budget,
        *most,
    )
    parts = [offer.item[items[start[plan] : start[plan + 1]]] for plan in range(len(value))]
    return Within(bool(complete), use, value, parts, int(labels), int(work))


@searched
def _slot_apart(
    table: Integers,
    residue: NDArray[np.int16],
    wanted: NDArray[np.int16],
    whole: NDArray[np.int32],
    taken: Integers,
    apart: NDArray[np.bool_],
) -> int:
    """Return the place of a residue as `slot_of` does, where devices of types ``apart`` count as well."""
    mask = len(table) - 1
    mixed = 0
    for pool in range(len(wanted)):
        mixed = (mixed * 1000003 + wanted[pool]) & 0x7FFFFFFFFFFF
    for kind in range(len(taken)):
        if apart[kind]:
            mixed = (mixed * 1000003 + taken[kind]) & 0x7FFFFFFFFFFF
    at = (mixed ^ (mixed >> 23)) & mask
    while table[at] >= 0:
        known = table[at]
        same = True
        for pool in range(len(wanted)):
            if residue[known, pool] != wanted[pool]:
                same = False
                break
        for kind in range(len(taken)):
            if apart[kind] and whole[known, kind] != taken[kind]:
                same = False
                break
        if same:
            break
        at = (at + 1) & mask
    return at


@searched
def rest_of_pools(
    least_from: Floats, residue: NDArray[np.int16], unit: Integers, left: float, target: float, value_price: float
) -> float:
    """Return what covering a value that is left loses at least, by the pool that knows best."""
    at = max(0, int(left / target * (least_from.shape[1] - 1) - CAUTION))
    best = 0.0
    for pool in range(len(unit)):
        if unit[pool] > 1:
            best = max(best, least_from[pool, at, residue[pool]])
    return best * (1 - REACHED) - value_price * left


@searched
def _all_within(
    use: NDArray[np.int32],
    value: Floats,
    loss: Floats,
    unit: Integers,
    price: Floats,
    kind: Integers,
    counts: Integers,
    value_price: float,
    target: float,
    least: Floats,
    least_from: Floats,
    budget: float,
    label_limit: int,
    plan_limit: int,
    work_limit: int,
) -> tuple[bool, int, int, Integers, Floats, Integers, Integers]:
    items, pools = use.shape
    types = len(counts)
    with_pools = least_from.shape[1] > 1
    parts_per_value, reach = (len(least) - 1) / target, target * REACHED
    begun, whole_of = use % unit, use // unit
    residue = np.zeros((label_limit, pools), np.int16)
    whole = np.zeros((label_limit, types), np.int32)
    worth, lost, key = np.zeros(label_limit), np.zeros(label_limit), np.zeros(label_limit)
    parent, last, depth = np.full(label_limit, -1), np.full(label_limit, -1), np.zeros(label_limit, np.int64)
    alike = np.full(label_limit, -1)
    dead = np.zeros(label_limit, np.bool_)
    table = hash_table(label_limit)
    heap = np.empty(label_limit, np.int64)
    plan_use = np.empty((plan_limit, types), np.int64)
    plan_worth = np.empty(plan_limit)
    plan_label, plan_item = np.empty(plan_limit, np.int64), np.empty(plan_limit, np.int64)
    wanted, taken = np.zeros(pools, np.int16), np.zeros(types, np.int64)
    apart = np.zeros(types, np.bool_)
    for pool in range(pools):
        apart[kind[pool]] = price[pool] > budget
    table[_slot_apart(table, residue, wanted, whole, taken, apart)] = 0
    size, labels, plans, work, complete = push(heap, key, 0, 0), 1, 0, 0, True
    while size > 0 and complete:
        size = pop(heap, key, size)
        label = heap[size]
        if dead[label]:
            continue
        for item in range(items):
            child_lost = lost[label] + loss[item]
            if child_lost > budget:
                break
            work += 1
            child_worth = worth[label] + value[item]
            left = target - child_worth
            reached = left <= reach
            if reached:
                child_key = child_lost - value_price * left
            else:
                at = max(0, int(left * parts_per_value - CAUTION))
                child_key = child_lost + max(0.0, least[at] - value_price * left)
            if child_key > budget:
                continue
            rounding = 0.0
            for kind_of in range(types):
                taken[kind_of] = whole[label, kind_of]
            for pool in range(pools):
                filled = residue[label, pool] + begun[item, pool]
                taken[kind[pool]] += whole_of[item, pool]
                if filled >= unit[pool]:
                    filled -= unit[pool]
                    taken[kind[pool]] += 1
                wanted[pool] = filled
                if filled > 0:
                    rounding += price[pool] * (unit[pool] - filled) / unit[pool]
                    if reached:
                        taken[kind[pool]] += 1
            if (taken > counts).any():
                continue
            if reached:
                if child_key + rounding > budget:
                    continue
                dominated = False
                for plan in range(plans):
                    work += 1
                    if (plan_use[plan] <= taken).all():
                        dominated = True
                        break
                if dominated:
                    continue
                if plans == plan_limit:
                    complete = False
                    break
                plan_use[plans] = taken
                plan_worth[plans], plan_label[plans], plan_item[plans] = child_worth, label, item
                plans += 1
                continue
            if with_pools:
                more = rest_of_pools(least_from, wanted, unit, left, target, value_price)
                if child_lost + more > budget:
                    continue
                child_key = max(child_key, child_lost + more)
            slot = _slot_apart(table, residue, wanted, whole, taken, apart)
            dominated = False
            known, before = table[slot], -1
            while known >= 0:
                work += 1
                if not dead[known]:
                    fewer, more_devices = True, True
                    for kind_of in range(types):
                        if whole[known, kind_of] > taken[kind_of]:
                            fewer = False
                        if whole[known, kind_of] < taken[kind_of]:
                            more_devices = False
                    if fewer and worth[known] >= child_worth - REACHED * target:
                        dominated = True
                        break
                    if more_devices and child_worth >= worth[known]:
                        dead[known] = True
                if dead[known] and before >= 0:
                    alike[before] = alike[known]
                else:
                    before = known
                known = alike[known]
            if dominated:
                continue
            if labels == label_limit:
                complete = False
                break
            residue[labels] = wanted
            for kind_of in range(types):
                whole[labels, kind_of] = taken[kind_of]
            # Depth first among labels of like bounds: plans come early, and rule out others.
            worth[labels], lost[labels], key[labels] = (
                child_worth,
                child_lost,
                child_key - budget * child_worth / target,
            )
            parent[labels], last[labels], depth[labels] = label, item, depth[label] + 1
            alike[labels] = table[slot]
            table[slot] = labels
            size = push(heap, key, size, labels)
            labels += 1
        complete &= work <= work_limit
    start = np.zeros(plans + 1, np.int64)
    for plan in range(plans):
        start[plan + 1] = start[plan] + depth[plan_label[plan]] + 1
    chosen = np.empty(start[plans], np.int64)
    for plan in range(plans):
        at = start[plan]
        chosen[at] = plan_item[plan]
        label = plan_label[plan]
        while label > 0:
            at += 1
            chosen[at] = last[label]
            label = parent[label]
    return complete, labels, work, plan_use[:plans].copy(), plan_worth[:plans].copy(), start, chosen
