"""Plans of a DNN whose pipelines have one stage on whole devices, NP's: how many devices of each type, by search.

With r_g the value of a device of type g and lambda_g its price, a plan is a vector n of devices, worth n · r at the
price lambda · n. With a price m of value at which no device gains,

    lambda · n  =  m · z  +  sum over g of n_g · (lambda_g - m · r_g)  +  m · (n · r - z)          all terms at least 0

so that vectors worth z within a budget of loss are found type by type, those that lose most for their value first, and
left where what the rest costs at least (`planner.planning.whole_devices.cover_bounds`) is beyond the budget. A vector
from which no device can be taken away is pointwise larger than no other one.
"""

from dataclasses import dataclass

import numpy as np

from planner.compilation import compiled
from planner.planning.arrays import Floats, Integers
from planner.planning.pipelines.sizes import CandidateTable
from planner.planning.whole_devices import cover_bounds
from planner.planning.whole_devices.offers import CAUTION, REACHED


@dataclass(frozen=True)
class DeviceRates:
    """The best candidate of a DNN on each of some device types, and what it is worth on a device.

    ``kind``, ``row`` and ``rate`` have an entry per type that serves the DNN.
    """

    kind: Integers
    row: Integers
    rate: Floats

    @classmethod
    def of(cls, table: CandidateTable, units: Integers) -> "DeviceRates | None":
        """Return those of a table; None where pipelines have several stages, or parts of devices."""
        whole = table.positions == 1 and (units == 1).all() and (table.share == 1).all() and (table.amount == 1).all()
        if not whole or len(table.stages) == 0:
            return None
        order = np.lexsort((-table.value[:, 0], table.device[:, 0]))
        kind, first = np.unique(table.device[order, 0], return_index=True)
        row = order[first]
        return cls(kind, row, table.value[row, 0])

    def vectors(
        self,
        price: Floats,
        value_price: float,
        target: float,
        limit: Integers,
        *,
        budget: float,
        cheapest: bool,
        most: tuple[int, int],
    ) -> tuple[bool, int, Integers]:
        """Return whether all vectors of a loss within the budget were found, steps, and vectors ``[vector, kind]``.

        Parameters
        ----------
        price, limit
            Per device type: prices, and how many there are.
        budget
            The loss, ``price`` of the devices less ``value_price`` of the target.
        cheapest
            Whether only ever cheaper ones are returned, the cheapest last.
        most
            Limits of vectors, and of steps, of which one more is taken where the search is cut off for them.

        Examples
        --------
        A device of type 0 is worth 2, one of type 1 is worth 3; 6 are wanted, a device costs what it is worth:

        >>> rates = DeviceRates(np.array([0, 1]), np.array([0, 1]), np.array([2.0, 3.0]))
        >>> price, limit = np.array([2.0, 3.0]), np.array([9, 9])
        >>> rates.vectors(price, 1.0, 6.0, limit, budget=1.0, cheapest=False, most=(9, 99))[2].tolist()
        [[0, 2], [2, 1], [3, 0]]
        """
        own_price = price[self.kind]
        loss = np.maximum(own_price - value_price * self.rate, 0.0)
        order = np.argsort(-loss / self.rate, kind="stable")
        least = cover_bounds.least_cost(self.rate, own_price, target)
        arguments = self.rate[order], loss[order], limit[self.kind[order]], value_price, target, least
        complete, taken, found = _vectors(*arguments, budget, cheapest, *most)
        vectors = np.empty_like(found)
        vectors[:, order] = found
        return bool(complete), int(taken), vectors


@compiled
def _vectors(
    rate: Floats,
    loss: Floats,
    limit: Integers,
    value_price: float,
    target: float,
    least: Floats,
    budget: float,
    cheapest: bool,
    most: int,
    steps: int,
) -> tuple[bool, int, Integers]:
    kinds, reach, parts_per_value = len(rate), target * REACHED, (len(least) - 1) / target
    found = np.empty((min(most, 64), kinds), np.int64)
    taken = np.zeros(kinds, np.int64)
    left, lost = np.full(kinds + 1, target), np.zeros(kinds + 1)
    count, at, work = 0, 0, 0
    taken[0] = -1
    while at >= 0:
        work += 1
        if work > steps:
            return False, work, found[:count].copy()
        taken[at] += 1
        if at == kinds - 1:  # the last type covers all that is left
            taken[at] = max(taken[at], np.int64(np.ceil((left[at] - reach) / rate[at])))
        rest, spent = left[at] - taken[at] * rate[at], lost[at] + taken[at] * loss[at]
        if taken[at] > limit[at] or spent > budget:
            at -= 1
            continue
        if rest > reach:
            needed = least[max(0, int(rest * parts_per_value - CAUTION))] - value_price * rest
            if at + 1 < kinds and spent + max(0.0, needed) <= budget:
                at += 1
                left[at], lost[at], taken[at] = rest, spent, -1
            continue
        spent -= value_price * rest
        needless = False
        for kind in range(at + 1):
            needless |= taken[kind] > 0 and rest + rate[kind] <= reach
        if spent <= budget and not needless:
            if count == most:
                return False, work, found[:count].copy()
            if count == len(found):
                longer = np.empty((min(most, 2 * count), kinds), np.int64)
                longer[:count] = found
                found = longer
            found[count] = 0
            found[count, : at + 1] = taken[: at + 1]
            count += 1
            if cheapest:
                budget = spent
        at -= 1
    return True, work, found[:count].copy()
