"""What plans of one DNN are made of: sizes of candidates, and one of them that is worth just what is left.

A plan is a multiset of items (candidates with sizes). Two sizes of one candidate together are worth no more than its
size on the same slices, so that a plan holds a candidate once. Candidates are put in the order of what a unit of their
value costs, the *rank*; a plan is built from the dearest to the cheapest, and *ends* with the least size of one
candidate that is worth what is left. So large items, of which there are thousands of sizes, are mostly looked up and
not tried, and no plan is met twice. With prices of devices lambda and a price m of value at which no item gains,

    cost of a plan  =  m · z  +  sum of its items' losses  +  m · (value beyond z)  +  rounding at the end
    loss of an item =  lambda · (devices it fills)  -  m · min(value, z)  >=  0
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner.planning.arrays import Floats, Integers
from planner.planning.pipelines.sizes import TIE, CandidateTable
from planner.planning.whole_devices.heaps import searched
from planner.planning.whole_devices.offers import CAUTION, REACHED, Offer


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


@searched
def least_to_fill(use: NDArray[np.int32], loss: Floats, unit: Integers, price: Floats) -> Floats:
    """Return ``[pool, residue]``, what a pool pays at least: for the rest of its device, or for items that fill it.

    Items may fill several pools, so that every pool takes of their losses what it needs to be worth as much as it is,
    and leaves the rest to the pools after it, those of cheaper devices: what all pools pay adds up.
    """
    items, pools = use.shape
    paid, left = np.zeros((pools, unit.max())), loss.copy()
    for pool in np.argsort(-price):
        size = unit[pool]
        lost = np.full(size, np.inf)  # by the cheapest item that fills so much of a device
        for item in range(items):
            filled = use[item, pool] % size
            lost[filled] = min(lost[filled], left[item])
        for residue in range(1, size):
            paid[pool, residue] = price[pool] * (size - residue) / size
        for _ in range(size):  # no cheapest way takes more items than there are residues
            for residue in range(1, size):
                for more in range(1, size):
                    total = lost[more] + paid[pool, (residue + more) % size]
                    paid[pool, residue] = min(paid[pool, residue], total)
        needed = np.zeros(size)
        for residue in range(size):
            for more in range(1, size):
                needed[more] = max(needed[more], paid[pool, residue] - paid[pool, (residue + more) % size])
        for item in range(items):
            left[item] = max(left[item] - needed[use[item, pool] % size], 0.0)
    return paid


@searched
def rounding_of(residue: NDArray[np.int16], unit: Integers, price: Floats) -> float:
    """Return what the rest of the devices that pools have begun costs."""
    paid = 0.0
    for pool in range(len(unit)):
        if residue[pool] > 0:
            paid += price[pool] * (unit[pool] - residue[pool]) / unit[pool]
    return paid


@searched
def loss_of_end(
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
