"""Latencies of devices that are not at hand: a roofline per layer, from the datasheet and a few coefficients.

With b requests on a share 1/k of a device of peak P and bandwidth W:

    latency = k^s · max(compute, traffic) + launch
    compute = (b · operations) / (P · e_kind · u),      u = n / (n + n_half / k),  n = b · output elements
    traffic = (b · activation bytes + parameter bytes) / (W · e_memory)

e_kind and e_memory are efficiencies, u how well n output elements fill the device (Williams, Waterman and
Patterson (2009), "Roofline", gives the maximum; u and launch are what small layers add). Convolutions of 3 × 3 and
stride 1 have an efficiency of their own: runtimes compute them with fewer operations than are counted (Lavin and
Gray (2016), "Fast algorithms for convolutional neural networks"). Runtimes fuse an element-wise operator or a batch
normalisation into the layer before it, if nobody else reads that: a fused layer launches nothing and only reads
what it adds. Views are free.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.model import LatencyTable, Provenance
from planner.profiling.catalogue import CatalogueDevice
from planner.profiling.onnx_graph import ModelGraph

Floats = NDArray[np.float64]

# Kinds of work with an efficiency of their own, in the order of `_efficiencies`.
WORK = ("conv3x3", "conv1x1", "conv", "grouped", "depthwise", "matmul", "vector")
FUSED_NORMALISATIONS = {"BatchNormalization"}


@dataclass(frozen=True, eq=False)
class Workload:
    """What the layers of a model do for one request, one number per layer.

    ``work`` is an index into `WORK`. Bytes are those of the file, whose numbers have 4 bytes. ``latent_bytes``
    is what a fused layer reads beside the tensor that it is fused to.
    """

    work: NDArray[np.int64]
    operations: Floats
    moved_bytes: Floats
    parameter_bytes: Floats
    elements: Floats
    latent_bytes: Floats
    fused: NDArray[np.bool_]
    free: NDArray[np.bool_]


def describe(graph: ModelGraph) -> Workload:
    """Return what `estimate_workload` needs to know of a model."""
    fused = fused_layers(graph)
    layers = graph.layers
    read = [[graph.tensors[name].request_bytes for name in layer.inputs] for layer in layers]
    return Workload(
        np.array([WORK.index(_work(layer.cost.kind, layer.cost.kernel)) for layer in layers]),
        np.array([layer.cost.operations for layer in layers], float),
        np.array([layer.cost.read_bytes + layer.cost.written_bytes for layer in layers], float),
        np.array([layer.parameter_bytes for layer in layers], float),
        np.array([sum(graph.tensors[name].elements for name in layer.outputs) for layer in layers], float),
        np.array([sum(sizes) - max(sizes, default=0) for sizes in read], float),
        np.array([index in fused for index in range(len(layers))]),
        np.array([layer.cost.kind == "view" for layer in layers]),
    )


def estimate_workload(workload: Workload, device: CatalogueDevice, batch: int, share: int) -> Floats:
    """Return the latency (µs) of each layer for ``batch`` requests on 1/``share`` of a device (see above)."""
    by = device.coefficients
    scale = device.element_bytes / 4
    bytes_per_us = device.memory_gigabytes_per_s * 1e3 * by.memory_efficiency / scale
    elements = batch * workload.elements
    filled = elements / (elements + by.saturation_elements / share)
    efficiency = _efficiencies(device)[workload.work] * filled
    compute = batch * workload.operations / (device.peak_gflops * 1e3 * efficiency)
    traffic = (batch * workload.moved_bytes + workload.parameter_bytes) / bytes_per_us
    slowdown = share**by.share_exponent
    alone = slowdown * np.maximum(compute, traffic) + by.launch_us
    fused = slowdown * batch * workload.latent_bytes / bytes_per_us
    return np.where(workload.free, 0.0, np.where(workload.fused, fused, alone))


def estimate_layers(graph: ModelGraph, device: CatalogueDevice, batch: int, share: int) -> tuple[float, ...]:
    """Return the estimated latency (µs) of each layer for ``batch`` requests on 1/``share`` of a device."""
    return tuple(estimate_workload(describe(graph), device, batch, share).tolist())


def estimate_tables(
    graph: ModelGraph,
    starts: Sequence[int],
    devices: Iterable[CatalogueDevice],
    batches: Sequence[int],
    shares: Sequence[int] | None = None,
) -> tuple[LatencyTable, ...]:
    """Return estimated tables of the blocks that begin at layers ``starts``, for each device and share.

    ``shares`` limits the shares that a device of the catalogue offers.
    """
    workload = describe(graph)
    tables = []
    for device in devices:
        method = f"roofline, {device.precision}; {device.coefficients.source}"
        provenance = Provenance("estimated", "; ".join([method, *([graph.opaque] if graph.opaque else [])]))
        for share in [k for k in device.shares if shares is None or k in shares]:
            rows = []
            for batch in batches:
                blocks = np.add.reduceat(estimate_workload(workload, device, batch, share), list(starts))
                rows.append(tuple(max(1, round(block)) for block in blocks.tolist()))
            tables.append(LatencyTable(device.name, share, tuple(batches), tuple(rows), provenance))
    return tuple(tables)


def fused_layers(graph: ModelGraph) -> frozenset[int]:
    """Return the indices of the layers that a runtime fuses into the layer before them."""
    readers = Counter(name for layer in graph.layers for name in layer.inputs)
    readers.update(graph.outputs)
    hosts: set[str] = set()  # outputs of products and of element-wise layers, fused or not
    fused = set()
    for index, layer in enumerate(graph.layers):
        fits = layer.cost.kind == "elementwise" or layer.operator in FUSED_NORMALISATIONS
        if fits and any(name in hosts and readers[name] == 1 for name in layer.inputs):
            fused.add(index)
        if fits or layer.cost.macs:
            hosts.update(layer.outputs)
    return frozenset(fused)


def _work(kind: str, kernel: tuple[int, ...]) -> str:
    if kind == "conv" and kernel in ((3, 3), (1, 1)):
        return "conv3x3" if kernel == (3, 3) else "conv1x1"
    return kind if kind in WORK else "vector"


def _efficiencies(device: CatalogueDevice) -> Floats:
    by = device.coefficients
    return np.array(
        [
            by.conv3x3_efficiency,
            by.conv1x1_efficiency,
            by.conv_efficiency,
            by.grouped_efficiency,
            by.depthwise_efficiency,
            by.matmul_efficiency,
            by.vector_efficiency,
        ]
    )
