"""The sizes of a candidate that are worth having, as arrays.

A candidate with n_s slices in stage s has the throughput min over s of x_s · n_s, so the only sizes worth having are
those where no slice can be taken away: from one slice per stage, add a slice to each stage that limits, and so on. A
candidate together with such a size is an *item*; a plan is a multiset of items, and uses n_s / k_s devices of a type
for each of their stages. Sizes are listed until their stages, each rounded up to whole devices, exceed the cluster.

Throughputs are divided by the DNN's weight here, so that the objective of a plan is the least sum of items over DNNs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, inf

import numpy as np
from numpy.typing import NDArray

from planner.compilation import compiled
from planner.model.segments import Kind, kind_of, processes
from planner.planning.arrays import Floats, Integers
from planner.planning.pipelines.candidates import Candidate, Pipelines
from planner.planning.pipelines.sizing import Sized

TIE = 1 + 1e-12  # stages this close to the slowest limit as well


@dataclass(frozen=True)
class CandidateTable:
    """The candidates of one DNN as arrays ``[candidate, stage]``; stages beyond a candidate's own are not read.

    ``value`` is x_s / weight. ``stages[candidate]`` counts stages. A slice takes ``amount / share`` of ``device``: 1/k
    of a type, or, on shared devices, an amount of a resource (`planner.planning.whole_devices.capacity`). Slices that
    come in groups (processes of one segment) count as one there.
    """

    candidates: Sequence[Candidate]
    weight: float
    value: Floats
    share: Integers
    device: Integers
    stages: Integers
    amount: Integers

    @classmethod
    def of(cls, candidates: Sequence[Candidate], weight: float) -> "CandidateTable":
        """Lay candidates of one DNN out as arrays.

        >>> halves = Candidate(0, 0, (0, 1, 3), (0, 1), (2, 1), (4, 4), (100.0, 70.0))
        >>> CandidateTable.of([halves], 0.5).value
        array([[200., 140.]])
        """
        positions = max((len(candidate.devices) for candidate in candidates), default=1)
        shape = len(candidates), positions
        value, share, device = np.ones(shape), np.ones(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        stages = np.array([len(candidate.devices) for candidate in candidates], dtype=np.int64)
        for row, candidate in enumerate(candidates):
            value[row, : stages[row]] = candidate.slice_rps
            share[row, : stages[row]] = candidate.shares
            device[row, : stages[row]] = candidate.devices
        return cls(candidates, weight, value / weight, share, device, stages, np.ones_like(share))

    @classmethod
    def of_pipelines(cls, pipelines: Pipelines, weight: float) -> "CandidateTable":
        """Take over the arrays of candidates."""
        share, value = pipelines.share, pipelines.slice_rps / weight
        return cls(pipelines, weight, value, share, pipelines.device, pipelines.stages, np.ones_like(share))

    @classmethod
    def of_shared(
        cls, pipelines: Pipelines, weight: float, takes: Mapping[tuple[int, Kind], tuple[int, int]]
    ) -> "CandidateTable":
        """Take over the arrays of candidates on shared devices; ``takes[type, kind]`` is (resource, amount)."""
        value, resource = pipelines.slice_rps / weight, np.zeros_like(pipelines.device)
        amount = np.ones_like(pipelines.device)
        there = np.arange(value.shape[1]) < pipelines.stages[:, np.newaxis]
        for number, share in enumerate(pipelines.shares):
            mine = there & (pipelines.place == number)
            for device in np.unique(pipelines.device[mine]).tolist():
                resource[mine], amount[mine] = takes[device, kind_of(share)]
            value[mine] *= processes(share)
        return cls(pipelines, weight, value, np.ones_like(amount), resource, pipelines.stages, amount)

    @property
    def positions(self) -> int:
        """The largest number of stages."""
        return int(self.value.shape[1])

    @property
    def least_value(self) -> float:
        """What no pipeline is worth less than: its slowest stage on one slice, or group of slices."""
        used = np.arange(self.value.shape[1]) < self.stages[:, np.newaxis]
        return float(np.where(used, self.value, np.inf).min(initial=np.inf))

    def device_use(self, types: int) -> Floats:
        """Return the devices ``[candidate, type]`` that a candidate fills per unit of value."""
        use = np.zeros((len(self.stages), types))
        for position in range(self.positions):
            rows = np.flatnonzero(self.stages > position)
            per_value = self.amount[rows, position] / (self.value[rows, position] * self.share[rows, position])
            np.add.at(use, (rows, self.device[rows, position]), per_value)
        return use

    def sized(self, row: int, value: float) -> Sized:
        """Return a candidate with the fewest slices that give a value.

        >>> halves = Candidate(0, 0, (0, 1, 3), (0, 1), (2, 1), (4, 4), (100.0, 70.0))
        >>> CandidateTable.of([halves], 0.5).sized(0, 280.0).slices
        (2, 2)
        """
        candidate = self.candidates[row]
        per_group = self.value[row, : self.stages[row]].tolist()
        slices = (group * ceil(value / own / TIE) for group, own in zip(candidate.groups, per_group, strict=True))
        return Sized(candidate, tuple(slices))


@dataclass(frozen=True)
class Items:
    """Items of one DNN: row of the candidate, value, and use ``[item, types · position + type]`` in 1/unit devices."""

    row: Integers
    value: Floats
    use: Integers
    types: int = 2

    def take(self, chosen: Integers | NDArray[np.bool_]) -> "Items":
        """Return some of the items."""
        return Items(self.row[chosen], self.value[chosen], self.use[chosen], self.types)

    def and_those_of(self, other: "Items") -> "Items":
        """Return the items of both."""
        row, value = np.concatenate((self.row, other.row)), np.concatenate((self.value, other.value))
        return Items(row, value, np.concatenate((self.use, other.use)), self.types)

    def with_totals(self) -> "Items":
        """Return the items with positions put together, for they share devices or have whole ones."""
        return Items(self.row, self.value, self.totals, self.types)

    @property
    def totals(self) -> Integers:
        """Use ``[item, type]``, summed over positions."""
        positions = self.use.shape[1] // self.types
        totals: Integers = self.use.reshape(len(self.use), positions, self.types).sum(axis=1)
        return totals

    def best_per(self, keys: Integers) -> "Items":
        """Return the most valuable item of each distinct row of ``keys``, in the order of the keys."""
        if len(self.row) == 0:
            return self
        order = np.lexsort((-self.value, *keys.T[::-1]))
        sorted_keys = keys[order]
        first = np.ones(len(order), dtype=np.bool_)
        first[1:] = (sorted_keys[1:] != sorted_keys[:-1]).any(axis=1)
        return self.take(order[first])


def best_whole(table: CandidateTable, counts: Integers) -> tuple[Floats, Integers]:
    """Return the best item per pair of whole devices (i, j), each stage rounded up to whole devices.

    Both arrays are ``[i, j]``: the value, 0 where there is no item, and the row of the candidate.
    """
    shape = int(counts[0]) + 1, int(counts[1]) + 1
    best, row = np.zeros(shape), np.full(shape, -1)
    _best_whole(table.value, table.share, table.device, table.stages, counts, best, row)
    return best, row


def cheap_items(
    table: CandidateTable,
    counts: Integers,
    units: Integers,
    device_price: Floats,
    value_price: float,
    budget: float,
    enough: float = inf,
) -> Items:
    """Return the items whose loss, price of their devices less that of their value, is within a budget.

    Parameters
    ----------
    counts, units, device_price
        Per device type: devices of the cluster, 1/``units`` of which an item's use counts, and their price.
    value_price
        Price of a unit of value.
    enough
        Sizes end at the first of this value, and a larger value is worth no more. Of candidates of one stage, whose
        sizes are sums of others, only powers of 2 are then listed.
    """
    arrays = table.value, table.share, table.amount, table.device, table.stages, counts, units, device_price
    limits = value_price, budget, enough
    room = 0
    while True:
        rows, values = np.empty(room, dtype=np.int64), np.empty(room)
        uses = np.zeros((room, len(counts) * table.positions), dtype=np.int64)
        found = _cheap_items(*arrays, *limits, rows, values, uses)
        if found <= room:
            return Items(rows, values, uses, len(counts))
        room = found


def sizes_looked_at(
    table: CandidateTable, counts: Integers, device_price: Floats, value_price: float, budget: float, enough: float
) -> float:
    """Return about how many sizes `cheap_items` looks at, for those who have no time for millions of them.

    >>> halves = Candidate(0, 0, (0, 1, 3), (0, 1), (2, 1), (4, 4), (100.0, 70.0))
    >>> table, counts = CandidateTable.of([halves], 1.0), np.array([30, 50])
    >>> sizes_looked_at(table, counts, np.ones(2), 0.0, 1e9, 700.0)
    17.0
    """
    used = np.arange(table.positions) < table.stages[:, np.newaxis]
    excess = np.maximum(table.device_use(len(counts)) @ device_price - value_price, 0.0)
    least_lost = np.divide(budget, excess, out=np.full(len(excess), inf), where=excess > 0)
    there = counts[table.device] * table.share * table.value / table.amount
    reach = np.where(used, there, inf).min(axis=1, initial=inf)
    reach = np.minimum(np.minimum(least_lost, reach), enough)
    per_stage = np.divide(reach[:, np.newaxis], table.value, out=np.zeros_like(table.value), where=used)
    return float(per_stage[table.stages > 1].sum())


def sizes_for(table: CandidateTable, row: int, value: Floats, units: Integers) -> Items:
    """Return the least sizes of a candidate that are worth each of some values."""
    stages = slice(0, int(table.stages[row]))
    per_slice, device = table.value[row, stages], table.device[row, stages]
    slices = np.ceil(value[:, np.newaxis] / per_slice / TIE).astype(np.int64)
    use = np.zeros((len(value), len(units) * table.positions), dtype=np.int64)
    pools = len(units) * np.arange(len(device)) + device
    use[:, pools] = slices * table.amount[row, stages] * units[device] // table.share[row, stages]
    return Items(np.full(len(value), row), (slices * per_slice).min(axis=1), use, len(units))


@compiled
def _slowest(value: Floats, slices: Integers, stages: int) -> float:
    slowest: float = value[0] * slices[0]
    for stage in range(1, stages):
        slowest = min(slowest, value[stage] * slices[stage])
    return slowest


@compiled
def _grow(value: Floats, slices: Integers, stages: int, slowest: float) -> None:
    """Add a slice to every stage that limits."""
    for stage in range(stages):
        if value[stage] * slices[stage] <= slowest * TIE:
            slices[stage] += 1


@compiled
def _best_whole(
    value: Floats,
    share: Integers,
    device: Integers,
    stages: Integers,
    counts: Integers,
    best: Floats,
    best_row: Integers,
) -> None:
    slices = np.empty(value.shape[1], dtype=np.int64)
    whole = np.empty(2, dtype=np.int64)
    for row in range(len(stages)):
        slices[:] = 1
        while True:
            whole[:] = 0
            for stage in range(stages[row]):
                whole[device[row, stage]] += -(-slices[stage] // share[row, stage])
            if whole[0] > counts[0] or whole[1] > counts[1]:
                break
            slowest = _slowest(value[row], slices, stages[row])
            if slowest > best[whole[0], whole[1]]:
                best[whole[0], whole[1]] = slowest
                best_row[whole[0], whole[1]] = row
            _grow(value[row], slices, stages[row], slowest)


@compiled
def _cheap_items(
    value: Floats,
    share: Integers,
    amount: Integers,
    device: Integers,
    stages: Integers,
    counts: Integers,
    units: Integers,
    device_price: Floats,
    value_price: float,
    budget: float,
    enough: float,
    rows: Integers,
    values: Floats,
    uses: Integers,
) -> int:
    """Write items for which there is room, and return how many there are."""
    found, types = 0, len(counts)
    slices = np.empty(value.shape[1], dtype=np.int64)
    whole = np.empty(types, dtype=np.int64)
    for row in range(len(stages)):
        slices[:] = 1
        excess = -value_price  # a unit of value loses at least this
        for stage in range(stages[row]):
            excess += device_price[device[row, stage]] * amount[row, stage] / (value[row, stage] * share[row, stage])
        while True:
            whole[:] = 0
            cost = 0.0
            for stage in range(stages[row]):
                taken = slices[stage] * amount[row, stage]
                whole[device[row, stage]] += -(-taken // share[row, stage])
                cost += device_price[device[row, stage]] * taken / share[row, stage]
            if (whole > counts).any():
                break
            slowest = _slowest(value[row], slices, stages[row])
            if cost - value_price * min(slowest, enough) <= budget:
                if found < len(rows):
                    rows[found] = row
                    values[found] = slowest
                    for stage in range(stages[row]):
                        kind = device[row, stage]
                        taken = slices[stage] * amount[row, stage]
                        uses[found, types * stage + kind] = taken * units[kind] // share[row, stage]
                found += 1
            if slowest >= enough or slowest * excess > budget:
                break
            if stages[row] == 1 and enough < np.inf:
                slices[0] *= 2
            else:
                _grow(value[row], slices, stages[row], slowest)
    return found
