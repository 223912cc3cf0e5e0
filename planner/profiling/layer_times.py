"""Latencies of single layers on a device at hand, from onnxruntime's own profiler.

The model runs as one session without graph optimisations, so that every layer is a kernel of its own: a fused
layer's time is not known otherwise. The sum is therefore above the optimised model's latency; it tells how the
work divides, which is what cutting into blocks needs. Time between kernels is no layer's.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from planner.profiling.onnx_graph import ModelGraph
from planner.profiling.profiler import DeviceAtHand
from planner.profiling.runtime import open_session, random_feeds, run_model
from planner.profiling.split import extract_part
from planner.profiling.timing import pinned


def measure_layers(graph: ModelGraph, device: DeviceAtHand, batch: int = 1, repeats: int = 5) -> tuple[float, ...]:
    """Return the median kernel time (µs) of each layer over ``repeats`` runs, after one to warm up."""
    model = extract_part(graph, 0, len(graph.layers)).model
    layer_of = {output: index for index, layer in enumerate(graph.layers) for output in layer.outputs}
    for node in model.graph:
        index = next((layer_of[str(value.name)] for value in node.outputs if value.name in layer_of), None)
        node.name = f"constant {node.name}" if index is None else f"layer {index}"
    with tempfile.TemporaryDirectory(prefix="poolpipe-") as folder:
        session = open_session(
            model, threads=device.threads(1), provider=device.provider, optimise=False,
            profile_prefix=str(Path(folder) / "layers"),
        )  # fmt: skip
        feeds = random_feeds(model, batch, np.random.default_rng(0))
        with pinned(device.cores):
            for _ in range(1 + repeats):
                run_model(session, feeds)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return _medians(events, len(graph.layers))


def _medians(events: list[dict[str, Any]], layers: int) -> tuple[float, ...]:
    times: list[list[float]] = [[] for _ in range(layers)]
    for event in events:
        name, _, kind = str(event.get("name")).rpartition("_kernel_")
        if kind == "time" and name.startswith("layer "):
            times[int(name.removeprefix("layer "))].append(event["dur"])
    return tuple(float(np.median(runs[1:])) if len(runs) > 1 else 0.0 for runs in times)
