"""Prices of resources and the bound that they prove, where every candidate is listed.

The relaxation with fractions of slices and devices: per unit of value a candidate uses a vector of resources, and at
any prices at which the cluster costs 1

    z  <=  1 / sum over DNNs of the least price of a unit of value

So it is the master (`planner.planning.whole_devices.master`) with candidates for plans: those that are cheapest at its
prices become plans of it, until none is cheaper than those known. Prices are smoothed as columns' are
(`planner.planning.whole_devices.columns`).
"""

from collections.abc import Sequence

import numpy as np

from planner.planning.arrays import Floats
from planner.planning.pipelines.sizes import CandidateTable
from planner.planning.programme.backends import Clock, TooLate
from planner.planning.whole_devices import master
from planner.planning.whole_devices.capacity import Capacity

ROUNDS = 200
CLOSED = 1e-7  # relative gap at which generation ends
SMOOTHING = 0.5


def relaxed(tables: Sequence[CandidateTable], capacity: Capacity, clock: Clock) -> tuple[Floats, float]:
    """Return prices at which the cluster costs 1, and the bound on the least value of all DNNs that they prove.

    Where a clock is over before they are the best ones, they are those known.
    """
    per_value = [table.device_use(len(capacity.limit)) for table in tables]
    known: list[list[int]] = [[] for _ in tables]
    best = price = asked = capacity.normed(np.zeros(len(capacity.limit)))
    bound = scale = 1 / sum(float((use @ asked).min()) for use in per_value)
    for _ in range(ROUNDS):
        cost = [use @ asked for use in per_value]
        cheapest = [int(own.argmin()) for own in cost]
        spent = sum(float(own[row]) for own, row in zip(cost, cheapest, strict=True))
        if spent * bound > 1:
            best, bound = asked, 1 / spent
        new = any(row not in own for own, row in zip(known, cheapest, strict=True))
        if not new and asked is price:
            break
        for own, row in zip(known, cheapest, strict=True):
            own += [row] if row not in own else []
        try:
            mixed = master.mix([use[own] * scale for use, own in zip(per_value, known, strict=True)], capacity, clock)
        except TooLate:
            break
        if bound * (1 + mixed.overload) <= scale * (1 + CLOSED):
            break
        price = mixed.price
        asked = SMOOTHING * asked + (1 - SMOOTHING) * price if new else price
    return best, bound
