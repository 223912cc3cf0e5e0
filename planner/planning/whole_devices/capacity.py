"""What the plans of all DNNs share: devices, as resources that plans use and layouts provide.

A *resource* is something of which a plan of a DNN uses a whole number, whatever the others do:

    own devices        the devices of a type
    shared devices     parts of a device (1/lcm of the shares) where sums of fractions say what fits
                       (`planner.model.packing.sums_decide`), else the segments of one kind

Each of the D_g devices of a type g provides one of its *layouts*, a vector of resources. Uses u_r of all plans together
fit if and only if

    u_r <= sum over l of layout_{l,r} · D_{g,l}   for every resource r of g,      sum over l of D_{g,l} <= D_g

with whole D_{g,l}. At prices lambda_r of resources a device is worth its dearest layout, and the cluster

    sum over g of D_g · max over l of lambda · layout_l
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import gcd

import numpy as np

from planner.model import Problem
from planner.model.packing import geometries, maximal_layouts, sums_decide, usable_shares
from planner.model.placing import Layouts, Pool, pool_of
from planner.model.segments import Kind, kind_of, processes
from planner.planning.arrays import Floats, Integers
from planner.planning.pipelines.sizing import Sized
from planner.planning.programme.backends import solve
from planner.planning.programme.linear import LinearModel

Terms = list[tuple[int, float]]


@dataclass(frozen=True)
class Group:
    """Devices of a type: the resources that they provide, and the layouts ``[layout, resource]`` of one device."""

    resources: Integers
    layouts: Integers
    devices: int


@dataclass(frozen=True)
class Capacity:
    """All devices; resources are numbered, and every one is of one group."""

    groups: tuple[Group, ...]

    @classmethod
    def of_devices(cls, counts: Iterable[int]) -> "Capacity":
        """Return the capacity whose resources are the devices of each type.

        >>> Capacity.of_devices([3, 2]).limit
        array([3, 2])
        """
        return cls(tuple(Group(np.array([kind]), np.array([[1]]), int(n)) for kind, n in enumerate(counts)))

    @cached_property
    def limit(self) -> Integers:
        """How much of each resource there is if nothing else is used."""
        return self._by_resource([group.devices * group.layouts.max(axis=0) for group in self.groups])

    @cached_property
    def counts(self) -> Integers:
        """Devices of each group."""
        return np.array([group.devices for group in self.groups], dtype=np.int64)

    def price_of(self, device_price: Floats) -> Floats:
        """Return prices of resources at which a device of each group is worth a price.

        >>> Capacity((Group(np.array([0, 1]), np.array([[2, 0], [1, 1], [0, 3]]), 1),)).price_of(np.array([6.0]))
        array([3., 2.])
        """
        price = np.zeros(len(self.limit))
        for group, own in zip(self.groups, device_price.tolist(), strict=True):
            equal = 1.0 / np.maximum(group.layouts.max(axis=0), 1)
            price[group.resources] = equal * own / float((group.layouts @ equal).max())
        return price

    def worth(self, price: Floats) -> Floats:
        """Return what a device of each group is worth at prices of resources."""
        return np.array([float((group.layouts @ price[group.resources]).max()) for group in self.groups])

    def cost(self, price: Floats) -> float:
        """Return what the cluster costs at prices of resources."""
        return float(self.worth(price) @ self.counts)

    def normed(self, price: Floats) -> Floats:
        """Return prices at which the cluster costs 1: equal ones per device where all are 0.

        Devices of which there are none cost as much as the whole cluster.

        >>> Capacity.of_devices([3, 2, 0]).normed(np.array([1.0, 0.5, 2.0]))
        array([0.25 , 0.125, 1.   ])
        """
        total = self.cost(price)
        normed = price / total if total > 0 else self.price_of(np.full(len(self.groups), 1 / self.counts.sum()))
        for group in self.groups:
            if group.devices == 0:
                normed[group.resources] = 1.0
        return normed

    def add_rows(
        self, model: LinearModel, used: Sequence[Terms], *, more: Sequence[Terms] | None = None, integer: bool = False
    ) -> list[int]:
        """Add the rows that keep what is used of each resource within the devices, and return a row per resource.

        Parameters
        ----------
        used
            Terms that add up to the use of each resource.
        more
            Terms that add up to the devices of each group beyond those that there are.
        """
        rows = [0] * len(used)
        for number, group in enumerate(self.groups):
            beyond = [] if more is None else more[number]
            of_one = dict(zip(group.resources.tolist(), group.layouts.T.tolist(), strict=True))
            if len(group.layouts) == 1:
                for resource, (provided,) in of_one.items():
                    terms = [*used[resource], *((column, -coefficient * provided) for column, coefficient in beyond)]
                    most = float(group.devices * provided)
                    rows[resource] = model.add_row(f"used[{resource}]", terms, upper=most)
                continue
            columns = [model.add_column(f"layout[{number},{i}]", integer=integer) for i in range(len(group.layouts))]
            terms = [
                *((column, 1.0) for column in columns),
                *((column, -coefficient) for column, coefficient in beyond),
            ]
            model.add_row(f"devices[{number}]", terms, upper=float(group.devices))
            for resource, provided in of_one.items():
                given = [(column, -float(count)) for column, count in zip(columns, provided, strict=True) if count]
                rows[resource] = model.add_row(f"used[{resource}]", [*used[resource], *given], upper=0.0)
        return rows

    @cached_property
    def of_whole_devices(self) -> bool:
        """Whether resources are the devices of each type."""
        return all(group.layouts.tolist() == [[1]] for group in self.groups)

    def without_devices(self) -> "Capacity":
        """Return the same resources and layouts, but no devices."""
        return Capacity(tuple(replace(group, devices=0) for group in self.groups))

    def packed(self, use: Integers) -> list[Integers] | None:
        """Return the layouts ``[device, resource]`` of the fewest devices per group that hold a use; None: too much."""
        if (use > self.limit).any():
            return None
        found = []
        for group in self.groups:
            wanted = use[group.resources]
            if len(group.layouts) == 1:
                count = int((-(-wanted // group.layouts[0])).max(initial=0))
                numbers = [0] * count
            else:
                model = LinearModel()
                columns = [model.add_column(f"layout[{i}]", integer=True) for i in range(len(group.layouts))]
                model.set_objective([(column, 1.0) for column in columns], maximise=False)
                for at, most in enumerate(wanted.tolist()):
                    terms = [(c, float(n)) for c, n in zip(columns, group.layouts[:, at].tolist(), strict=True) if n]
                    model.add_row(f"used[{at}]", terms, lower=float(most))
                solution, _ = solve(model, "highs")
                numbers = [i for i, column in enumerate(columns) for _ in range(round(solution.values[column]))]
                count = len(numbers)
            if count > group.devices:
                return None
            found.append(group.layouts[numbers])
        return found

    def _by_resource(self, values: Sequence[Integers]) -> Integers:
        found = np.zeros(sum(len(group.resources) for group in self.groups), dtype=np.int64)
        for group, value in zip(self.groups, values, strict=True):
            found[group.resources] = value
        return found


@dataclass(frozen=True)
class SharedDevices:
    """Devices on which any DNNs lie: their capacity, and what a segment takes of which resource.

    ``takes[type, kind]`` is (resource, amount); ``kinds`` the kind of each resource that is the segments of one.
    """

    capacity: Capacity
    takes: Mapping[tuple[int, Kind], tuple[int, int]]
    kinds: Mapping[int, Kind] = field(default_factory=dict)

    @classmethod
    def of(cls, problem: Problem) -> "SharedDevices":
        """Return those of a problem.

        >>> from planner.model import *
        >>> table = LatencyTable("L4", 1, (1,), ((4000,),), Provenance("measured", "by hand"))
        >>> dnn = Dnn("toy", 20_000, (Profile("toy", (Block(("a",)),), (), (table,)),))
        >>> def on(*shares):
        ...     return SharedDevices.of(Problem(Cluster((DeviceType("L4", 2, shares=shares),), Network(10)), (dnn,)))
        >>> on(1, 2, 4).takes
        {(0, 1): (0, 4), (0, 2): (0, 2), (0, 4): (0, 1)}
        >>> on(2, 3, 5).takes, len(on(2, 3, 5).capacity.groups[0].layouts)
        ({(0, 2): (0, 1), (0, 3): (1, 1), (0, 5): (2, 1)}, 7)
        """
        groups: list[Group] = []
        takes: dict[tuple[int, Kind], tuple[int, int]] = {}
        kinds: dict[int, Kind] = {}
        resources = 0
        for index, device in enumerate(problem.cluster.device_types):
            first, blocks = resources, []
            for geometry in geometries(device, dict.fromkeys(kind_of(share) for share in usable_shares(device))):
                if sums_decide(geometry):
                    unit = gcd(geometry.slots, *geometry.widths)
                    blocks.append(np.array([[geometry.slots // unit]]))
                    for kind, width in zip(geometry.kinds, geometry.widths, strict=True):
                        takes[index, kind] = resources, width // unit
                else:
                    blocks.append(np.array(maximal_layouts(geometry)))
                    for number, kind in enumerate(geometry.kinds, start=resources):
                        takes[index, kind], kinds[number] = (number, 1), kind
                resources += blocks[-1].shape[1]
            groups.append(Group(np.arange(first, resources), _diagonal(blocks), device.count))
        return cls(Capacity(tuple(groups)), takes, kinds)

    def use_of(self, pipelines: Iterable[Sized]) -> Integers:
        """Return what pipelines use of each resource."""
        use = np.zeros(len(self.capacity.limit), dtype=np.int64)
        for sized in pipelines:
            chosen = sized.candidate
            for device, share, slices in zip(chosen.devices, chosen.shares, sized.slices, strict=True):
                resource, amount = self.takes[device, kind_of(share)]
                use[resource] += amount * -(-slices // processes(share))
        return use

    def layouts(self, problem: Problem, pipelines: Iterable[Sized]) -> dict[Pool, tuple[Layouts, ...]]:
        """Return the layouts of devices that hold pipelines, of types whose sums of fractions do not say what fits."""
        packed = self.capacity.packed(self.use_of(pipelines))
        if packed is None:
            raise ValueError("pipelines that do not fit the cluster have no layouts")
        found: dict[Pool, tuple[Layouts, ...]] = {}
        for device, group, devices in zip(problem.cluster.device_types, self.capacity.groups, packed, strict=True):
            named = [(at, self.kinds[r]) for at, r in enumerate(group.resources.tolist()) if r in self.kinds]
            of_each = tuple({kind: int(row[at]) for at, kind in named} for row in devices)
            held = tuple(one for one in of_each if any(one.values()))
            if held:
                found[pool_of("shared", device.name, "", 0)] = held
        return found


def _diagonal(blocks: Sequence[Integers]) -> Integers:
    """Return layouts of a device that is divided one way or another."""
    height, width = (sum(block.shape[axis] for block in blocks) for axis in (0, 1))
    whole = np.zeros((height, width), dtype=np.int64)
    row = column = 0
    for block in blocks:
        whole[row : row + block.shape[0], column : column + block.shape[1]] = block
        row, column = row + block.shape[0], column + block.shape[1]
    return whole
