"""What it costs at least to cover a value with items: two tables that bound every plan of a DNN from below.

At prices of devices, a plan worth z takes items whose values add up to z or more; it pays for the devices that they
fill, and for the rest of the devices that its pools begin. Two relaxations, with values in parts of z:

    least[q]             items cover q parts and pay for what they fill: the rounding of pools is left out
    least_from[p, q, r]  pool p, of which r units of a device are filled, pays for its own rounding at the end

Both round items up to whole parts, so that they never exceed what a plan pays, and are unbounded knapsacks (covering).
"""

import numpy as np

from planner.compilation import compiled
from planner.planning.arrays import Floats, Integers

PARTS = 16_000
POOL_PARTS = 2_000
HAIR = 1e-9  # of a part: an item that fills whole parts is not rounded up to the next


def in_parts(value: Floats, target: float, parts: int) -> Integers:
    """Return values in parts of a target, rounded up, at most all.

    >>> in_parts(np.array([0.5, 0.26, 3.0]), 1.0, 4)
    array([2, 2, 4])
    """
    units: Integers = np.minimum(np.ceil(value * (parts / target) - HAIR), parts).astype(np.int64)
    return units


def least_cost(value: Floats, cost: Floats, target: float, parts: int = PARTS) -> Floats:
    """Return ``least[q]`` for q of so many parts of the target, infinite where there are no items.

    >>> float(least_cost(np.array([1.0, 3.0]), np.array([2.0, 5.0]), 4.0)[-1])
    7.0
    """
    units = in_parts(value, target, parts)
    kept = undominated(units, cost)
    least = np.zeros(parts + 1)
    if len(kept) == 0:
        least[1:] = np.inf
    else:
        fill_cover(units[kept], cost[kept], least, np.zeros(parts + 1, dtype=np.int64))
    return least


def good_cover(value: Floats, cost: Floats, target: float) -> list[int]:
    """Return items that cover the target and together cost little; they are rounded down to whole parts.

    >>> good_cover(np.array([1.0, 3.0]), np.array([2.0, 5.0]), 4.0)
    [0, 1]
    """
    units = np.minimum(np.floor(value * (PARTS / target) + HAIR), PARTS).astype(np.int64)
    kept = undominated(units, cost)
    if len(kept) == 0:
        return []
    least, choice = np.zeros(PARTS + 1), np.zeros(PARTS + 1, dtype=np.int64)
    fill_cover(units[kept], cost[kept], least, choice)
    items, left = [], PARTS
    while left > 0:
        items.append(int(kept[choice[left]]))
        left -= int(units[items[-1]])
    return sorted(items)


def undominated(units: Integers, cost: Floats) -> Integers:
    """Return the items of at least one unit for which no other is as large and as cheap, by falling size."""
    order = np.lexsort((cost, -units))
    order = order[units[order] > 0]
    cheapest_before = np.minimum.accumulate(np.concatenate([[np.inf], cost[order]]))[:-1]
    return order[cost[order] < cheapest_before]


def least_from(use: Integers, value: Floats, cost: Floats, unit: Integers, price: Floats, target: float) -> Floats:
    """Return ``least_from[pool, q, residue]`` for q of `POOL_PARTS` parts; zeros for pools of whole devices.

    Parameters
    ----------
    use
        ``[item, pool]`` in 1/``unit[pool]`` devices.
    price
        Of a device, per pool.
    """
    units = in_parts(value, target, POOL_PARTS)
    table = np.zeros((use.shape[1], POOL_PARTS + 1, int(unit.max(initial=1))))
    order = np.argsort(cost, kind="stable")
    for pool in np.flatnonzero(unit > 1).tolist():
        kept = _useful(order, use[:, pool] % unit[pool], units, int(unit[pool]))
        residues = use[kept, pool] % unit[pool]
        _cover_pool(units[kept], cost[kept], residues, int(unit[pool]), float(price[pool]), table[pool])
    return table


def _useful(order: Integers, residue: Integers, units: Integers, unit: int) -> Integers:
    """Return the items that cover more than every cheaper one of their residue."""
    covered = np.zeros(unit, dtype=np.int64)
    kept = []
    for item, own, parts in zip(order.tolist(), residue[order].tolist(), units[order].tolist(), strict=True):
        if parts > covered[own]:
            covered[own] = parts
            kept.append(item)
    return np.array(kept, dtype=np.int64)


@compiled
def fill_cover(units: Integers, cost: Floats, least: Floats, choice: Integers) -> None:
    """Fill in the least cost of at least q units, for every q, and the item taken last."""
    least[0] = 0.0
    for q in range(1, len(least)):
        least[q] = np.inf
        for item in range(len(units)):
            total = cost[item] + least[max(0, q - units[item])]
            if total < least[q]:
                least[q] = total
                choice[q] = item


@compiled
def _cover_pool(units: Integers, cost: Floats, residue: Integers, unit: int, price: float, least: Floats) -> None:
    """Fill in the least cost of at least q units from every residue of a pool, its rounding included.

    Rows of the table in work are written twice, one behind the other, so that residues run on without a remainder.
    """
    twice = np.empty((len(least), 2 * unit))
    for r in range(unit):
        twice[0, r] = price * (unit - r) / unit if r > 0 else 0.0
    twice[0, unit:] = twice[0, :unit]
    for q in range(1, len(least)):
        twice[q] = np.inf
        for item in range(len(units)):
            paid, before, shift = cost[item], max(0, q - units[item]), residue[item]
            for r in range(unit):
                total = paid + twice[before, r + shift]
                known = twice[q, r]
                twice[q, r] = total if total < known else known
        twice[q, unit:] = twice[q, :unit]
    least[:, :unit] = twice[:, :unit]
