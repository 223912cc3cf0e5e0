"""Latencies of devices that are not at hand: a roofline per layer, from the datasheet and a few coefficients.

With b requests on a share 1/k of a device of peak P and bandwidth W:

    latency = k^s · (max(compute, traffic)) + launch
    compute = (b · operations) / (P · e_kind · u),      u = n / (n + n_half / k),  n = b · output elements
    traffic = (b · activation bytes + parameter bytes) / (W · e_memory)

e_kind and e_memory are efficiencies, u how well n output elements fill the device (Williams, Waterman and
Patterson (2009), "Roofline", gives the maximum; u and launch are what small layers add). Runtimes fuse an
element-wise operator or a batch normalisation into the convolution or product before it, if nobody else reads
that: a fused layer launches nothing and only reads what it adds. Views are free.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from planner.model import LatencyTable, Provenance
from planner.profiling.catalogue import CatalogueDevice
from planner.profiling.onnx_graph import Layer, ModelGraph

FUSED_NORMALISATIONS = {"BatchNormalization"}


def estimate_layers(graph: ModelGraph, device: CatalogueDevice, batch: int, share: int) -> tuple[float, ...]:
    """Return the estimated latency (µs) of each layer for ``batch`` requests on 1/``share`` of a device."""
    fused = fused_layers(graph)
    return tuple(
        _layer_us(layer, graph, device, batch, share, fused=index in fused) for index, layer in enumerate(graph.layers)
    )


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
    ends = [*starts[1:], len(graph.layers)]
    tables = []
    for device in devices:
        for share in [k for k in device.shares if shares is None or k in shares]:
            rows = []
            for batch in batches:
                layers = estimate_layers(graph, device, batch, share)
                blocks = (sum(layers[first:last]) for first, last in zip(starts, ends, strict=True))
                rows.append(tuple(max(1, round(block)) for block in blocks))
            provenance = Provenance("estimated", f"roofline, {device.precision}; {device.coefficients.source}")
            tables.append(LatencyTable(device.name, share, tuple(batches), tuple(rows), provenance))
    return tuple(tables)


def fused_layers(graph: ModelGraph) -> frozenset[int]:
    """Return the indices of the layers that a runtime fuses into the convolution or product before them."""
    readers = Counter(name for layer in graph.layers for name in layer.inputs)
    readers.update(graph.outputs)
    hosts: set[str] = set()  # tensors that end a chain of convolution or product and fused layers
    fused = set()
    for index, layer in enumerate(graph.layers):
        fits = layer.cost.kind == "elementwise" or layer.operator in FUSED_NORMALISATIONS
        if fits and any(name in hosts and readers[name] == 1 for name in layer.inputs):
            fused.add(index)
            hosts.update(layer.outputs)
        elif layer.cost.macs:
            hosts.update(layer.outputs)
    return frozenset(fused)


def _layer_us(
    layer: Layer, graph: ModelGraph, device: CatalogueDevice, batch: int, share: int, *, fused: bool
) -> float:
    """Return the latency of one layer in µs (see the module's formula)."""
    cost, by = layer.cost, device.coefficients
    if cost.kind == "view":
        return 0.0
    scale = device.element_bytes / 4  # activations and parameters are float32 in the file
    elements = sum(graph.tensors[name].elements for name in layer.outputs) * batch
    if fused:
        beside = cost.read_bytes - max(graph.tensors[name].request_bytes for name in layer.inputs)
        return float(share**by.share_exponent * beside * batch * scale / _bytes_per_us(device))
    efficiency = {
        "conv": by.conv_efficiency,
        "grouped": by.grouped_efficiency,
        "depthwise": by.depthwise_efficiency,
        "matmul": by.matmul_efficiency,
    }.get(cost.kind, by.vector_efficiency)
    filled = elements / (elements + by.saturation_elements / share)
    compute = batch * cost.operations / (device.peak_gflops * 1e3 * efficiency * filled)
    moved = (cost.read_bytes + cost.written_bytes) * batch + layer.parameter_bytes
    traffic = moved * scale / _bytes_per_us(device)
    return float(share**by.share_exponent * max(compute, traffic) + by.launch_us)


def _bytes_per_us(device: CatalogueDevice) -> float:
    return device.memory_gigabytes_per_s * 1e3 * device.coefficients.memory_efficiency
