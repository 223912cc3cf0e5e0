"""Clusters: device types, how many of each, and the network between their servers."""

from collections.abc import Mapping
from dataclasses import field, replace
from fractions import Fraction
from functools import cached_property
from math import inf
from typing import Annotated, Literal

from annotated_types import Ge, Le, MinLen

from planner.model.errors import InputError
from planner.model.record import LATER, record
from planner.model.segments import (
    MIG,
    MOST_CORES,
    MOST_SHARES,
    MOST_SLOTS,
    Division,
    Kind,
    Segment,
    Share,
    core_segments,
    division,
    equal_shares,
    kind_of,
    processes,
)

# No document means more, and 64 bits hold sums of such numbers; smaller bounds stand at the fields that need them.
LEAST, MOST = 1e-15, 10**15
MOST_DEVICES = 10**7

Positive = Annotated[int, Ge(1), Le(MOST)]
Count = Annotated[int, Ge(0), Le(MOST)]
Quantity = Annotated[float, Ge(LEAST), Le(MOST)]  # beyond these, solvers' numbers overflow


@record
class DeviceType:
    """One kind of device, and how many the cluster has.

    A *share* k means 1/k of a device: NVIDIA MPS, or k co-located workers on one CPU. ``shares`` lists
    the k that plans may use. The ``devices_per_server`` devices of a server share its network card.
    ``memory_bytes`` and ``price_per_hour`` (any currency, the same for all types) are None when unknown.

    Named kinds of segments (`planner.model.segments`) are told in one of three ways: ``mig`` names a GPU whose MIG
    profiles are known, ``cores`` is the number of a CPU's cores, or ``segments`` on ``slots``. Segments of one device
    together hold no more memory than it has. Where not all that fits the slots is possible, ``layouts`` lists what is:
    numbers of segments by name. In a named segment up to ``processes`` processes of one stage may run.

    ``neighbours`` is the ground on which latencies stand where unlike stages run on one device: its segments are
    *isolated*, the tables were *measured* with such neighbours, or it is *assumed* that these matter no more than those
    in the tables. None is isolated for MIG, else assumed.

    A device in use draws ``idle_watts``, and ``busy_watts`` while all of it works; None when unknown.
    """

    name: Annotated[str, MinLen(1)]
    count: Annotated[int, Ge(0), Le(MOST_DEVICES)]
    kind: Literal["gpu", "cpu"] = "gpu"
    shares: Annotated[tuple[Annotated[int, Ge(1), Le(MOST_SHARES)], ...], MinLen(1)] = (1,)
    devices_per_server: Positive = 1
    memory_bytes: Positive | None = None
    price_per_hour: Annotated[float, Ge(0), Le(MOST)] | None = None
    mig: Annotated[str, MinLen(1)] | None = field(default=None, metadata=LATER)
    cores: Annotated[int, Ge(1), Le(MOST_CORES)] | None = field(default=None, metadata=LATER)
    slots: Annotated[int, Ge(1), Le(MOST_SLOTS)] | None = field(default=None, metadata=LATER)
    segments: tuple[Segment, ...] = field(default=(), metadata=LATER)
    layouts: tuple[Mapping[str, Positive], ...] = field(default=(), metadata=LATER)
    processes: Annotated[int, Ge(1), Le(MOST_SHARES)] = field(default=1, metadata=LATER)
    neighbours: Literal["isolated", "measured", "assumed"] | None = field(default=None, metadata=LATER)
    idle_watts: Annotated[float, Ge(0), Le(MOST)] | None = field(default=None, metadata=LATER)
    busy_watts: Annotated[float, Ge(0), Le(MOST)] | None = field(default=None, metadata=LATER)

    def __post_init__(self) -> None:
        """Refuse shares out of order, which would make equal clusters differ, and segments that cannot be."""
        if list(self.shares) != sorted(set(self.shares)):
            raise InputError(f"shares of {self.name}: expected increasing numbers, got {list(self.shares)}")
        if (self.mig is not None) + (self.cores is not None) + bool(self.segments or self.slots) > 1:
            raise InputError(f"{self.name}: expected one of mig, cores, and segments with slots, got several")
        if self.mig is not None and self.mig not in MIG:
            raise InputError(f"mig of {self.name}: expected one of {sorted(MIG)}, got {self.mig!r}")
        if bool(self.segments) != bool(self.slots):
            raise InputError(f"{self.name}: segments and slots belong together; give both")
        if self.segments and self.slots:
            division(self.slots, self.segments)
        for layout in self.layouts:
            unknown = [name for name in layout if self.named is None or name not in self.named.widths]
            if unknown:
                raise InputError(
                    f"layouts of {self.name}: unknown segment {unknown[0]!r}; {self.name} has {self.names}"
                )
        if self.idle_watts is not None and self.busy_watts is not None and self.idle_watts > self.busy_watts:
            raise InputError(
                f"busy_watts of {self.name}: expected at least idle_watts, {self.idle_watts:g}, got {self.busy_watts:g}"
            )

    @cached_property
    def _named_segments(self) -> tuple[int, tuple[Segment, ...]] | None:
        if self.mig is not None:
            return MIG[self.mig]
        if self.cores is not None:
            return self.cores, core_segments(self.cores)
        return (self.slots, self.segments) if self.slots else None

    @cached_property
    def named(self) -> Division | None:
        """The division into named segments; None where the type has none."""
        return division(*self._named_segments) if self._named_segments else None

    @property
    def names(self) -> list[Kind]:
        """The kinds of named segments."""
        return list(self.named.widths) if self.named else []

    @cached_property
    def offers(self) -> tuple[Share, ...]:
        """All shares that slices may run on: ``shares``, and every named segment with 1 to ``processes`` processes."""
        counts = range(1, self.processes + 1)
        return (*self.shares, *(str(name) if p == 1 else f"{name}/{p}" for name in self.names for p in counts))

    def division(self, kind: Kind) -> Division:
        """Return the division of a device that has segments of a kind; raises InputError for an unknown one."""
        if isinstance(kind, int) and kind in self.shares:
            return self._shares
        if self.named is None or kind not in self.named.widths:
            raise InputError(f"share of {self.name}: expected one of {list(self.offers)}, got {kind!r}")
        return self.named

    @cached_property
    def _shares(self) -> Division:
        return equal_shares(self.shares)

    def fraction(self, share: Share) -> Fraction:
        """Return the part of a device that a slice takes, and of a network card that it may use.

        >>> DeviceType("L4", 1, shares=(1, 2)).fraction(2), DeviceType("A100", 1, mig="a100-40gb").fraction("3g.20gb/2")
        (Fraction(1, 2), Fraction(1, 4))
        """
        kind = kind_of(share)
        if isinstance(kind, int):
            return Fraction(1, kind)
        divided = self.division(kind)
        return Fraction(divided.widths[kind], divided.slots * processes(share))

    def slice_memory_bytes(self, share: Share) -> float:
        """Return the memory that a slice may hold, infinite where it is unknown."""
        own = self.segment_memory_bytes(kind_of(share))
        return inf if own is None else own / processes(share)

    def segment_memory_bytes(self, kind: Kind) -> float | None:
        """Return the memory of a segment: its own, or its part of the device's; None where that is unknown."""
        for segment in self._named_segments[1] if self._named_segments else ():
            if segment.name == kind and segment.memory_bytes is not None:
                return segment.memory_bytes
        return None if self.memory_bytes is None else float(self.memory_bytes * self.fraction(kind))

    @property
    def ground(self) -> Literal["isolated", "measured", "assumed"]:
        """On what latencies beside unlike neighbours stand."""
        return self.neighbours or ("assumed" if self.mig is None else "isolated")


@record
class Link:
    """The network from servers of one device type to servers of another, where it differs from the default."""

    sender: str
    receiver: str
    bandwidth_gbps: Quantity
    hop_latency_us: Annotated[float, Ge(0)] = 0.0


@record
class Network:
    """Bandwidth of a server's network card (Gbit/s) and the latency of a hop (µs), with exceptions per pair."""

    bandwidth_gbps: Quantity
    hop_latency_us: Annotated[float, Ge(0)] = 0.0
    links: tuple[Link, ...] = ()

    @cached_property
    def _links(self) -> Mapping[tuple[str, str], Link]:
        return {(link.sender, link.receiver): link for link in self.links}

    def link(self, sender: str, receiver: str) -> Link:
        """Return the link from ``sender`` to ``receiver`` servers (device type names)."""
        default = Link(sender, receiver, self.bandwidth_gbps, self.hop_latency_us)
        return self._links.get((sender, receiver), default)

    def wire_us(self, sender: str, receiver: str, size_bytes: int) -> float:
        """Return the time (µs) that ``size_bytes`` occupy the card: bytes · 8 / bandwidth, without the hop latency.

        >>> Network(bandwidth_gbps=10).wire_us("L4", "T4", 1_250_000)
        1000.0
        """
        return size_bytes * 8 / (self.link(sender, receiver).bandwidth_gbps * 1000)


@record
class Cluster:
    """What there is to plan on. The order of ``device_types`` is the order of every per-type array."""

    device_types: Annotated[tuple[DeviceType, ...], MinLen(1)]
    network: Network

    def __str__(self) -> str:
        """Return the devices in words: ``2 L4 + 8 RaspberryPi5``."""
        return " + ".join(f"{device.count} {device.name}" for device in self.device_types)

    def __post_init__(self) -> None:
        """Refuse a cluster without devices, two types of one name, and links of unknown types."""
        names = [device.name for device in self.device_types]
        if len(set(names)) != len(names):
            raise InputError(f"device_types: names must differ, got {names}")
        if sum(device.count for device in self.device_types) == 0:
            raise InputError("device_types: the cluster has zero devices; give at least one type a count >= 1")
        for link in self.network.links:
            for name in (link.sender, link.receiver):
                if name not in names:
                    raise InputError(f"network.links: unknown device type {name!r}; the cluster has {names}")
        ends = [(link.sender, link.receiver) for link in self.network.links]
        for sender, receiver in ends:
            if ends.count((sender, receiver)) > 1:
                raise InputError(f"network.links: two links from {sender} to {receiver}; remove one")

    @cached_property
    def _index(self) -> Mapping[str, int]:
        return {device.name: index for index, device in enumerate(self.device_types)}

    def index(self, name: str) -> int:
        """Return the position of a device type.

        Raises
        ------
        InputError
            The cluster has no such type.
        """
        if name not in self._index:
            raise InputError(f"unknown device type {name!r}; the cluster has {list(self._index)}")
        return self._index[name]

    def device(self, name: str) -> DeviceType:
        """Return a device type by name; raises InputError as `index` does."""
        return self.device_types[self.index(name)]

    def with_counts(self, counts: Mapping[str, int]) -> "Cluster":
        """Return the same cluster with other numbers of devices; types not named keep theirs."""
        return replace(
            self,
            device_types=tuple(
                replace(device, count=counts.get(device.name, device.count)) for device in self.device_types
            ),
        )
