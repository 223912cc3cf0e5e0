"""The places where a DNN's stages can run, as arrays: what enumeration and pricing of pipelines rest on."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from planner.model import Cluster, Problem, Profile
from planner.model.packing import usable_shares
from planner.model.segments import Share
from planner.planning.arrays import Flags, Floats, Integers

LATENCY_TOLERANCE = 1e-12  # of the SLO: rounding of sums of latencies, far below the microsecond


@dataclass(frozen=True)
class Terrain:
    """What pipelines of one variant are made of: arrays over places (type, share), batches, blocks, and link classes.

    ``latency_us[place, batch, first, last]`` is infinite where the place cannot run these blocks;
    a place is ``shares[place]`` of ``device[place]``, a ``fraction`` of it;
    ``wire_us[class, class, cut]`` is per request; ``building_us[batch]`` is B, ``limit_us`` what it and inference and
    transfers may take together;
    ``card_slices[place, class after]`` is k · G, the last column for a last stage; ``parts[batch, part]`` tells whether
    a later stage may run batches of the one size in batches of the other.
    """

    batches: Integers
    max_stages: int
    device: Integers
    shares: tuple[Share, ...]
    fraction: Floats
    counts: Integers
    card_slices: Floats
    link_class: Integers
    latency_us: Floats
    wire_us: Floats
    hop_us: Floats
    building_us: Floats
    limit_us: float
    parts: NDArray[np.bool_]

    @property
    def budget_us(self) -> Floats:
        """What inference and transfers may take, per batch; minus infinity where the batch cannot be built."""
        known = np.isfinite(self.building_us)
        return np.where(known, self.limit_us - np.where(known, self.building_us, 0.0), -np.inf)


def terrain(problem: Problem, dnn_index: int, variant: int, x0_rps: float, limit_us: float | None = None) -> Terrain:
    """Return the arrays of one variant of a DNN.

    Parameters
    ----------
    x0_rps
        NP's throughput X0; 0 allows batches of 1 only, ``math.inf`` leaves batch building out.
    limit_us
        What inference, transfers and batch building may take; None: what the SLO leaves.
    """
    dnn, types = problem.dnns[dnn_index], problem.cluster.device_types
    profile = dnn.variants[variant]
    most = min(problem.options.max_stages, len(profile.blocks))
    shared = problem.options.device_sharing == "shared"  # all positions may then lie on one device
    batches = np.array(planned_batches(profile))
    places = placements(problem, profile)
    classes = np.array(link_classes(problem.cluster, by_server=problem.options.card_sharing == "larger"))
    device = np.array([place.device for place in places], dtype=np.int64)
    latency_us = [
        np.where(place.usable, (place.before_us[:, np.newaxis, :] - place.before_us[:, :, np.newaxis]), inf)
        for place in places
    ]
    wire_us, hop_us = _links(problem, profile, classes)
    in_parts = (
        batches[:, np.newaxis] % batches == 0 if problem.options.stage_batches else np.eye(len(batches), dtype=bool)
    )
    return Terrain(
        batches,
        most,
        device,
        tuple(place.share for place in places),
        np.array([float(types[place.device].fraction(place.share)) for place in places]),
        np.array([most * kind.count if shared else kind.count for kind in types], dtype=np.int64),
        _card_slices(problem, places, classes),
        classes[device] if len(places) else classes[:0],
        np.array(latency_us),
        wire_us,
        hop_us,
        np.array([batch_building_us(problem, batch, x0_rps) for batch in batches.tolist()]),
        dnn.slo_us * (1 + LATENCY_TOLERANCE) - problem.slack_us(dnn) if limit_us is None else limit_us,
        in_parts,
    )


def batch_building_us(problem: Problem, batch: int, x0_rps: float) -> float:
    """Return B, the time (µs) to build a batch while requests arrive at X0; infinite where X0 is 0 and b > 1."""
    if batch == 1 or problem.options.batch_building_factor == 0:
        return 0.0
    return problem.options.batch_building_factor * (batch - 1) / x0_rps * 1e6 if x0_rps > 0 else inf


def planned_batches(profile: Profile) -> tuple[int, ...]:
    """Return the batch sizes that plans may use: 1, and all that were profiled on any share of any device."""
    return tuple(sorted({1}.union(*(table.batches for table in profile.tables))))


@dataclass(frozen=True)
class Placement:
    """A place where a stage can run: a share of a device of type ``device`` (an index), as arrays over batches.

    ``before_us[batch, block]`` sums the latencies of the blocks before ``block``; ``usable[batch, first, last]``
    tells whether blocks [first, last) have latencies at that batch and fit the slice's memory.
    """

    device: int
    share: Share
    before_us: Integers
    usable: Flags


def placements(problem: Problem, profile: Profile) -> list[Placement]:
    """Return where stages of a profile can run, ordered by device type and share."""
    batches = planned_batches(profile)
    memory_bytes = _stage_memory_bytes(profile, batches)
    found = []
    for index, device in enumerate(problem.cluster.device_types):
        for share in usable_shares(device):
            if device.count == 0 or not profile.has(device.name, share):
                continue
            table = profile.table(device.name, share)
            known = np.array([batch <= table.batches[-1] for batch in batches])
            latency_us = np.zeros((len(batches), len(profile.blocks) + 1), dtype=np.int64)
            for row, batch in enumerate(batches):
                if known[row]:
                    latency_us[row, 1:] = table.block_latency_us(batch)
            fits = memory_bytes <= device.slice_memory_bytes(share)
            found.append(
                Placement(
                    index,
                    share,
                    latency_us.cumsum(axis=1),
                    fits & known[:, np.newaxis, np.newaxis],
                )
            )
    return found


def _stage_memory_bytes(profile: Profile, batches: tuple[int, ...]) -> Floats:
    """Return the bytes [batch, first, last] that a slice of blocks [first, last) holds; infinite if empty."""
    count = len(profile.blocks)
    parameters = np.array([block.parameter_bytes for block in profile.blocks], dtype=np.float64)
    activations = np.array([block.activation_bytes for block in profile.blocks], dtype=np.float64)
    memory_bytes = np.full((len(batches), count + 1, count + 1), inf)
    for first in range(count):
        peak = np.maximum.accumulate(activations[first:])
        memory_bytes[:, first, first + 1 :] = parameters[first:].cumsum() + np.outer(batches, peak)
    return memory_bytes


def link_classes(cluster: Cluster, *, by_server: bool = False) -> list[int]:
    """Return a class per device type, equal for types that no link (nor devices per server) tells apart.

    >>> from planner.model import DeviceType, Link, Network
    >>> types = tuple(DeviceType(name, 1) for name in ("L4", "Pi5", "T4"))
    >>> link_classes(Cluster(types, Network(10, links=(Link("L4", "Pi5", 1.0), Link("T4", "Pi5", 1.0)))))
    [0, 1, 0]
    """
    names = [device.name for device in cluster.device_types]
    network = cluster.network

    def rates(sender: str, receiver: str) -> tuple[float, float]:
        link = network.link(sender, receiver)
        return link.bandwidth_gbps, link.hop_latency_us

    def alike(one: str, other: str) -> bool:
        if by_server and cluster.device(one).devices_per_server != cluster.device(other).devices_per_server:
            return False
        inside = {rates(a, b) for a in (one, other) for b in (one, other)}
        others = [name for name in names if name not in (one, other)]
        return len(inside) == 1 and all(
            rates(one, name) == rates(other, name) and rates(name, one) == rates(name, other) for name in others
        )

    classes: list[int] = []
    first: list[str] = []
    for name in names:
        known = next((number for number, member in enumerate(first) if alike(member, name)), None)
        if known is None:
            known = len(first)
            first.append(name)
        classes.append(known)
    return classes


def _links(problem: Problem, profile: Profile, classes: Integers) -> tuple[Floats, Floats]:
    """Return ``wire_us[class, class, cut]`` per request, 0 at both ends of the model, and ``hop_us[class, class]``."""
    names = _a_type_of_each(problem, classes)
    count, network = len(names), problem.cluster.network
    wire_us = np.zeros((count, count, len(profile.blocks) + 1))
    hop_us = np.zeros((count, count))
    for sender, name in enumerate(names):
        for receiver, other in enumerate(names):
            wire_us[sender, receiver, 1:-1] = [network.wire_us(name, other, size) for size in profile.cut_bytes]
            hop_us[sender, receiver] = network.link(name, other).hop_latency_us
    return wire_us, hop_us


def _card_slices(problem: Problem, places: Sequence[Placement], classes: Integers) -> Floats:
    """Return ``[place, class after]``, how many slices of a stage share a network card; the last column, of a last."""
    following = [*_a_type_of_each(problem, classes), None]
    types = problem.cluster.device_types
    found = [
        [
            float(problem.card_devices(types[place.device].name, name) / types[place.device].fraction(place.share))
            for name in following
        ]
        for place in places
    ]
    return np.array(found, dtype=np.float64).reshape(len(places), len(following))


def _a_type_of_each(problem: Problem, classes: Integers) -> list[str]:
    """Return the name of the first device type of every class."""
    _, first = np.unique(classes, return_index=True)
    return [problem.cluster.device_types[index].name for index in first.tolist()]
