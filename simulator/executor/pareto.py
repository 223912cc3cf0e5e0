"""Where to cut a model between two devices: every legal cut, both orders, and no cut at all.

For a batch of b, with the model's blocks [0, n) and a cut after block i, the first device takes L1 = its time for
blocks [0, i), the second L2 = its time for [i, n), the tensors alive at the cut take T = b · bytes · 8 / bandwidth
on the wire, and a hop costs H:

    latency     L1 + T + H + L2
    throughput  b / max(L1, T, L2)        (a pipeline: all three work at once)
    bytes       of the tensors alive at the cut, per request

A point is on the *front* if no other is at least as good in both latency and throughput, and better in one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf

import pandas as pd

from planner.model import InputError, Profile

HOUR_US = 3_600_000_000
SLOWEST_GBPS = 1e-6


@dataclass(frozen=True)
class WireLink:
    """The link between the two devices."""

    hop_latency_us: float
    bandwidth_gbps: float

    def __post_init__(self) -> None:
        """Refuse what is no link."""
        if not (0 <= self.hop_latency_us <= HOUR_US and SLOWEST_GBPS <= self.bandwidth_gbps < inf):
            raise InputError(
                "link: expected a latency of 0 ms to an hour and a finite bandwidth of "
                f"{SLOWEST_GBPS:g} Gbit/s or more, got {self.hop_latency_us / 1000:g} ms, "
                f"{self.bandwidth_gbps:g} Gbit/s"
            )

    def wire_us(self, size_bytes: float) -> float:
        """Return the time (µs) that bytes take on the wire."""
        return size_bytes * 8 / (self.bandwidth_gbps * 1000)


@dataclass(frozen=True)
class Served:
    """What a way to serve a model yields: latency of a batch (µs), throughput (requests/s)."""

    latency_us: float
    throughput_rps: float


@dataclass(frozen=True)
class SplitPoint:
    """A way to serve a model: one device, or two with a cut after block ``cut``.

    ``sequential`` is what the same stages yield with one batch under way at a time; it and ``measured`` are None
    where nothing was measured.
    """

    devices: tuple[str, ...]
    cut: int | None
    batch: int
    bytes_per_request: int
    predicted: Served
    on_front: bool = False
    measured: Served | None = None
    sequential: Served | None = None

    @property
    def name(self) -> str:
        """A short name, such as ``A`` or ``A|3|B``."""
        return self.devices[0] if self.cut is None else f"{self.devices[0]}|{self.cut}|{self.devices[1]}"


def split_points(profile: Profile, devices: tuple[str, str], link: WireLink, batch: int = 1) -> tuple[SplitPoint, ...]:
    """Return every way to serve a model on one or two devices, the front marked.

    Examples
    --------
    >>> from planner.model import Block, LatencyTable, Provenance
    >>> by_hand = Provenance("estimated", "by hand")
    >>> slow = LatencyTable("A", 1, (1,), ((4000, 6000),), by_hand)
    >>> fast = LatencyTable("B", 1, (1,), ((2000, 3000),), by_hand)
    >>> toy = Profile("toy", (Block(("a",)), Block(("b",))), (125_000,), (slow, fast))
    >>> for point in split_points(toy, ("A", "B"), WireLink(hop_latency_us=500, bandwidth_gbps=1)):
    ...     print(point.name, point.predicted.latency_us, round(point.predicted.throughput_rps), point.on_front)
    A 10000.0 100 False
    B 5000.0 200 True
    A|1|B 8500.0 250 True
    B|1|A 9500.0 167 False
    """
    points = [_single(profile, device, batch) for device in dict.fromkeys(devices)]
    orders = dict.fromkeys([devices, devices[::-1]])
    points += [point for order in orders for point in _splits(profile, order, link, batch)]
    return mark_front(points)


def _single(profile: Profile, device: str, batch: int) -> SplitPoint:
    latency_us = float(profile.stage_latency_us(device, 1, batch, 0, len(profile.blocks)))
    return SplitPoint((device,), None, batch, 0, Served(latency_us, batch / latency_us * 1e6))


def _splits(profile: Profile, order: tuple[str, str], link: WireLink, batch: int) -> Iterator[SplitPoint]:
    for cut in range(1, len(profile.blocks)):
        first_us = profile.stage_latency_us(order[0], 1, batch, 0, cut)
        second_us = profile.stage_latency_us(order[1], 1, batch, cut, len(profile.blocks))
        size_bytes = profile.cut_bytes[cut - 1]
        wire_us = link.wire_us(batch * size_bytes)
        latency_us = first_us + wire_us + link.hop_latency_us + second_us
        slowest_us = max(first_us, wire_us, second_us)
        yield SplitPoint(order, cut, batch, size_bytes, Served(latency_us, batch / slowest_us * 1e6))


def mark_front(points: Sequence[SplitPoint]) -> tuple[SplitPoint, ...]:
    """Mark the points that no other dominates."""
    best_rps = 0.0
    front: set[int] = set()
    order = sorted(
        range(len(points)), key=lambda i: (points[i].predicted.latency_us, -points[i].predicted.throughput_rps)
    )
    for index in order:
        if points[index].predicted.throughput_rps > best_rps:
            best_rps = points[index].predicted.throughput_rps
            front.add(index)
    return tuple(replace(point, on_front=index in front) for index, point in enumerate(points))


def split_table(points: Sequence[SplitPoint]) -> pd.DataFrame:
    """Return points as a table, a row each; NaN where nothing was measured, or nothing is cut."""
    rows = []
    for point in points:
        row: dict[str, object] = {
            "name": point.name,
            "devices": "+".join(point.devices),
            "cut": point.cut,
            "batch": point.batch,
            "bytes_per_request": point.bytes_per_request,
            "on_front": point.on_front,
        }
        for kind in ("predicted", "measured", "sequential"):
            served = getattr(point, kind) or Served(float("nan"), float("nan"))
            row[f"{kind}_latency_ms"] = served.latency_us / 1000
            row[f"{kind}_throughput_rps"] = served.throughput_rps
        rows.append(row)
    return pd.DataFrame(rows).astype({"cut": "Int64"})
