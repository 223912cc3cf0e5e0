"""All plans of one DNN worth a target within a budget, by labels.

Found are all vectors of whole devices by type on which some plan has the value, none of them pointwise larger than
another. Plans are built as by `planner.planning.whole_devices.ends`, from the dearest candidate to the cheapest, and
end with the least size of one that is worth what is left.

A label is what some items come to before the end: their value, loss and lowest rank, per pool (position, type) the
*residue*, what they fill of the last device begun, and the whole devices behind the residues by type. A label's loss,
and what is still lost at least (the bounds of `planner.planning.whole_devices.cheapest_plan`), is within the budget. Of
two labels of equal residues, one that has no more value, on no fewer devices of any type, and is not free to take more
candidates leads nowhere else. A device more costs its price, so that of types that cost more than the budget such
labels have equally many, and only those need to be compared.
"""

import numpy as np
from numpy.typing import NDArray

from planner.planning.arrays import Floats, Integers
from planner.planning.pipelines.sizes import TIE
from planner.planning.whole_devices.ends import Ends, Sizes, least_to_fill, loss_of_end, rest_of_pools, rounding_of
from planner.planning.whole_devices.heaps import hash_table, pop, push, searched, slot_of
from planner.planning.whole_devices.offers import CAUTION, REACHED, Offer, Within


def plans_within(offer: Offer, sizes: Sizes, counts: Integers, *, budget: float, most: tuple[int, int, int]) -> Within:
    """Return the least vectors of whole devices on which a plan of a loss within the budget has the target.

    Parameters
    ----------
    sizes
        Of the candidates on offer.
    counts
        Devices of each type that there are.
    most
        Limits of labels, of plans, and of comparisons, at which the search ends incomplete.
    """
    types = len(counts)
    if len(sizes.candidate) == 0:
        return Within(True, np.zeros((0, types), dtype=np.int64), np.zeros(0), [], 0, 0)
    complete, labels, work, use, value, start, items, ends, left = _plans_within(
        sizes.use,
        sizes.value,
        sizes.loss,
        sizes.rank,
        sizes.ends,
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
    parts = []
    for plan in range(len(value)):
        own = items[start[plan] : start[plan + 1]]
        rows = sizes.candidate[np.append(sizes.rank[own], ends[plan])]
        parts.append((rows, np.append(sizes.value[own], left[plan])))
    return Within(bool(complete), use, value, parts, int(labels), int(work))


@searched
def _plans_within(
    use: NDArray[np.int32],
    value: Floats,
    loss: Floats,
    rank: Integers,
    ends: Ends,
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
) -> tuple[bool, int, int, Integers, Floats, Integers, Integers, Integers, Floats]:
    items, pools = use.shape
    types = len(counts)
    begun, whole_of, to_fill = use % unit, use // unit, least_to_fill(use, loss, unit, price)
    residue = np.zeros((label_limit, pools), np.int16)
    whole = np.zeros((label_limit, types), np.int32)
    worth, lost, key = np.zeros(label_limit), np.zeros(label_limit), np.zeros(label_limit)
    parent, last = np.full(label_limit, -1, np.int32), np.full(label_limit, -1, np.int32)
    depth, lowest = np.zeros(label_limit, np.int32), np.zeros(label_limit, np.int32)
    alike = np.full(label_limit, -1, np.int32)  # the next label of equal residues
    dead = np.zeros(label_limit, np.bool_)
    table = hash_table(label_limit)
    heap = np.empty(label_limit, np.int32)
    plan_use = np.empty((plan_limit, types), np.int64)
    plan_worth, plan_left = np.empty(plan_limit), np.empty(plan_limit)
    plan_label, plan_end = np.empty(plan_limit, np.int64), np.empty(plan_limit, np.int64)
    wanted, taken = np.zeros(pools, np.int16), np.zeros(types, np.int64)
    first_taken = np.zeros(types, np.int64)
    apart = np.zeros(types, np.bool_)
    for pool in range(pools):
        apart[kind[pool]] = price[pool] > budget
    lowest[0] = len(ends.excess)
    table[slot_of(table, residue, wanted, whole, taken, apart)] = 0
    size, labels, plans, work, complete = push(heap, key, 0, 0), 1, 0, 0, True
    while size > 0 and complete:
        size = pop(heap, key, size)
        label = heap[size]
        if dead[label]:
            continue
        left = target - worth[label]
        rounding = rounding_of(residue[label], unit, price)
        for of_kind in range(types):
            first_taken[of_kind] = whole[label, of_kind]
        for pool in range(pools):
            if residue[label, pool] > 0:
                first_taken[kind[pool]] += 1
        for end in range(lowest[label]):
            if lost[label] + ends.excess[end] * left > budget:
                break
            work += 1
            room = budget - lost[label]
            paid = loss_of_end(ends, end, left, value_price, room, residue[label], rounding, unit, price)
            if paid > room:
                continue
            for of_kind in range(types):
                taken[of_kind] = first_taken[of_kind]
            reached = np.inf
            for stage in range(ends.stages[end]):
                pool = ends.pool[end, stage]
                slices = np.int64(np.ceil(left / ends.value[end, stage] / TIE))
                reached = min(reached, slices * ends.value[end, stage])
                filled = np.int64(residue[label, pool]) + slices * ends.slice_use[end, stage]
                taken[kind[pool]] += (filled + unit[pool] - 1) // unit[pool] - (1 if residue[label, pool] > 0 else 0)
            if (taken > counts).any():
                continue
            dominated = False
            for plan in range(plans):
                work += 1
                if (plan_use[plan] <= taken).all():
                    dominated = True
                    break
            if dominated:
                continue
            kept = 0
            for plan in range(plans):
                if not (taken <= plan_use[plan]).all():
                    if kept < plan:
                        plan_use[kept], plan_worth[kept], plan_left[kept] = (
                            plan_use[plan],
                            plan_worth[plan],
                            plan_left[plan],
                        )
                        plan_label[kept], plan_end[kept] = plan_label[plan], plan_end[plan]
                    kept += 1
            plans = kept
            if plans == plan_limit:
                complete = False
                break
            plan_use[plans], plan_worth[plans], plan_left[plans] = taken, worth[label] + reached, left
            plan_label[plans], plan_end[plans] = label, end
            plans += 1
        for item in range(items):
            child_lost = lost[label] + loss[item]
            if child_lost > budget:
                break
            if rank[item] >= lowest[label] or value[item] >= left - REACHED * target:
                continue
            work += 1
            child_worth = worth[label] + value[item]
            left_then = target - child_worth
            at = max(0, int(left_then / target * (len(least) - 1) - CAUTION))
            child_key = max(child_lost, child_lost + least[at] - value_price * left_then)
            if child_key > budget:
                continue
            for of_kind in range(types):
                taken[of_kind] = whole[label, of_kind]
            filling = 0.0
            for pool in range(pools):
                filled = residue[label, pool] + begun[item, pool]
                taken[kind[pool]] += whole_of[item, pool]
                if filled >= unit[pool]:
                    filled -= unit[pool]
                    taken[kind[pool]] += 1
                wanted[pool] = filled
                filling += to_fill[pool, filled]
            child_key = max(child_key, child_lost + filling)
            if child_key > budget or (taken > counts).any():
                continue
            if least_from.shape[1] > 1:
                rest = rest_of_pools(least_from, wanted, unit, left_then, target, value_price)
                child_key = max(child_key, child_lost + rest)
                if child_key > budget:
                    continue
            slot = slot_of(table, residue, wanted, whole, taken, apart)
            dominated = False
            known, before = table[slot], -1
            while known >= 0:
                work += 1
                if not dead[known]:
                    fewer, more_devices = True, True
                    for of_kind in range(types):
                        if whole[known, of_kind] > taken[of_kind]:
                            fewer = False
                        if whole[known, of_kind] < taken[of_kind]:
                            more_devices = False
                    if fewer and worth[known] >= child_worth - REACHED * target and lowest[known] >= rank[item]:
                        dominated = True
                        break
                    if more_devices and child_worth >= worth[known] and rank[item] >= lowest[known]:
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
            for of_kind in range(types):
                whole[labels, of_kind] = taken[of_kind]
            worth[labels], lost[labels], key[labels] = child_worth, child_lost, child_key
            parent[labels], last[labels], depth[labels] = label, item, depth[label] + 1
            lowest[labels] = rank[item]
            alike[labels] = table[slot]
            table[slot] = labels
            size = push(heap, key, size, labels)
            labels += 1
        complete &= work <= work_limit
    start, chosen = _items_of(plan_label[:plans], parent, last, depth)
    return (
        complete, labels, work, plan_use[:plans].copy(), plan_worth[:plans].copy(),
        start, chosen, plan_end[:plans].copy(), plan_left[:plans].copy(),
    )  # fmt: skip


@searched
def _items_of(
    label: Integers, parent: NDArray[np.int32], last: NDArray[np.int32], depth: NDArray[np.int32]
) -> tuple[Integers, Integers]:
    """Return the items of labels: label i has those from ``start[i]`` to ``start[i + 1]``."""
    start = np.zeros(len(label) + 1, np.int64)
    for plan in range(len(label)):
        start[plan + 1] = start[plan] + depth[label[plan]]
    chosen = np.empty(start[-1], np.int64)
    for plan in range(len(label)):
        at_label = label[plan]
        for at in range(start[plan], start[plan + 1]):
            chosen[at] = last[at_label]
            at_label = parent[at_label]
    return start, chosen
