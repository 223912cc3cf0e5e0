"""What the searches for plans of one DNN are given, and what they return."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planner.planning.arrays import Floats, Integers
from planner.planning.whole_devices import cover_bounds

REACHED = 1e-12  # relative: a value so close to the target reaches it
CAUTION = 1e-6  # of a part: sums of values in parts are off by less
FEW_ITEMS = 1000  # below, a search over all takes no longer than telling which a plan can hold


@dataclass(frozen=True)
class Offer:
    """Items of one DNN by rising loss at given prices, and what bounds the plans made of them.

    ``item`` numbers the item in its stock, ``pool`` the pool there; ``use[item, pool]`` in 1/``unit[pool]`` devices
    of ``kind[pool]``, which cost ``price[pool]`` each. ``least`` and ``least_from`` are tables of `cover_bounds`, the
    second one empty where it is not used.
    """

    item: Integers
    pool: Integers
    use: NDArray[np.int32]
    value: Floats
    loss: Floats
    unit: Integers
    price: Floats
    kind: Integers
    value_price: float
    target: float
    least: Floats
    least_from: Floats

    @property
    def cost(self) -> Floats:
        """What the devices that items fill cost."""
        return self.loss + self.value_price * self.value

    def within(self, budget: float) -> "Offer":
        """Return the items that a plan of a loss within a budget can hold, with the bounds that these give.

        The rest of a plan costs what covering its value costs at least; no table of pools stays. A few items are kept
        as they are.
        """
        if len(self.item) < FEW_ITEMS:
            return self
        left = self.target - self.value
        least_loss = self.least[self._parts(left, self.least)] - self.value_price * left
        rounding = np.zeros(len(self.item))
        for pool, unit in enumerate(self.unit.tolist()):
            residue = self.use[:, pool] % unit
            rounding += np.where(residue > 0, self.price[pool] * (unit - residue) / unit, 0.0)
            if unit > 1 and self.least_from.shape[1] > 1:
                least = self.least_from[pool, self._parts(left, self.least_from[pool]), residue]
                np.maximum(least_loss, least * (1 - REACHED) - self.value_price * left, out=least_loss)
        alone = left <= self.target * REACHED
        more = np.where(alone, rounding - self.value_price * left, np.maximum(least_loss, 0.0))
        return self._some(np.flatnonzero(self.loss + more <= budget))

    def _parts(self, value: Floats, table: Floats) -> Integers:
        parts: Integers = np.maximum(0, value / self.target * (len(table) - 1) - CAUTION).astype(np.int64)
        return parts

    def _some(self, chosen: Integers) -> "Offer":
        use = self.use[chosen]
        pools = np.flatnonzero(use.any(axis=0))
        some = replace(
            self,
            item=self.item[chosen],
            pool=self.pool[pools],
            use=np.ascontiguousarray(use[:, pools]),
            value=self.value[chosen],
            loss=self.loss[chosen],
            unit=self.unit[pools],
            price=self.price[pools],
            kind=self.kind[pools],
            least_from=np.zeros((1, 1, 1)),
        )
        return replace(some, least=cover_bounds.least_cost(some.value, some.cost, self.target, len(self.least) - 1))

    def with_pools(self) -> "Offer":
        """Return the offer with the tables of pools."""
        if len(self.item) == 0:
            return self
        table = cover_bounds.least_from(
            self.use.astype(np.int64), self.value, self.cost, self.unit, self.price, self.target
        )
        return replace(self, least_from=table)


@dataclass(frozen=True)
class Within:
    """All plans within a budget: whether these are all, devices ``[plan, type]``, values, and of each its candidates.

    These are rows of the table of candidates, with a value each. ``labels`` were made, in as many steps as ``work``.
    """

    complete: bool
    use: Integers
    value: Floats
    parts: list[tuple[Integers, Floats]]
    labels: int
    work: int
