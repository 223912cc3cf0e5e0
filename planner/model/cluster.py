"""Clusters: device types, how many of each, and the network between their servers."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Annotated, Literal

from annotated_types import Ge, Gt, MinLen

from planner.model.errors import InputError
from planner.model.record import record

Positive = Annotated[int, Ge(1)]
Count = Annotated[int, Ge(0)]


@record
class DeviceType:
    """One kind of device, and how many the cluster has.

    A *share* k means 1/k of a device: NVIDIA MPS, or k co-located workers on one CPU. ``shares`` lists
    the k that plans may use. The ``devices_per_server`` devices of a server share its network card.
    ``memory_bytes`` and ``price_per_hour`` (any currency, the same for all types) are None when unknown.
    """

    name: Annotated[str, MinLen(1)]
    count: Count
    kind: Literal["gpu", "cpu"] = "gpu"
    shares: Annotated[tuple[Positive, ...], MinLen(1)] = (1,)
    devices_per_server: Positive = 1
    memory_bytes: Positive | None = None
    price_per_hour: Annotated[float, Ge(0)] | None = None

    def __post_init__(self) -> None:
        """Refuse shares out of order, which would make equal clusters differ."""
        if list(self.shares) != sorted(set(self.shares)):
            raise InputError(f"shares of {self.name}: expected increasing numbers, got {list(self.shares)}")


@record
class Link:
    """The network from servers of one device type to servers of another, where it differs from the default."""

    sender: str
    receiver: str
    bandwidth_gbps: Annotated[float, Gt(0)]
    hop_latency_us: Annotated[float, Ge(0)] = 0.0


@record
class Network:
    """Bandwidth of a server's network card (Gbit/s) and the latency of a hop (µs), with exceptions per pair."""

    bandwidth_gbps: Annotated[float, Gt(0)]
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
