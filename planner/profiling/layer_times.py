"""Latencies of single layers on a device at hand, from onnxruntime's own profiler.

onnxruntime fuses layers before it runs them, and names what it makes after the tensors or nodes that went in. So all
of them are given names that tell their layer, and a kernel's time goes to the last layer that its name tells; the
layers fused with it have none. Kernels that rearrange tensors for others have no such name: their time, the profiler's
own and that between kernels is what `LayerTimes` states apart. Where no kernel's time tells of a layer, all have equal
parts of a run.
"""

import json
import re
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from planner.profiling.onnx_graph import ModelGraph
from planner.profiling.profiler import DeviceAtHand
from planner.profiling.runtime import open_session, random_feeds, run_model
from planner.profiling.split import extract_part
from planner.profiling.timing import Effort, pinned, time_passes

LEAST_S = 0.2  # how long a model is run at least with the profiler, and without it


@dataclass(frozen=True)
class LayerTimes:
    """Least kernel times (µs) of the layers of one batch size, and of whole runs with and without the profiler.

    The least of some runs, since whatever disturbs a kernel that takes microseconds makes it longer.
    """

    latency_us: tuple[float, ...]
    profiled_us: float
    plain_us: float

    @property
    def overhead(self) -> float:
        """What the profiler adds to a run, as a fraction of it."""
        return self.profiled_us / self.plain_us - 1

    @property
    def between(self) -> float:
        """The fraction of a run without the profiler that no kernel accounts for (negative if kernels were slower)."""
        return 1 - sum(self.latency_us) / self.plain_us


def measure_layers(graph: ModelGraph, device: DeviceAtHand, batch: int = 1, repeats: int = 7) -> LayerTimes:
    """Return each layer's kernel time over ``repeats`` runs or more, after one to warm up.

    Runs with and without the profiler take turns, so that what else the machine does meets both alike.

    Raises
    ------
    InputError
        The execution provider is missing, or onnxruntime refuses the model.
    """
    model = extract_part(graph, 0, len(graph.layers)).model
    _name_after_layers(model, graph)
    feeds = random_feeds(model, batch, np.random.default_rng(0))
    options: dict[str, Any] = {"threads": device.threads(1), "provider": device.provider}
    effort = Effort(warm_up=1, min_repeats=repeats, max_repeats=repeats, least_s=LEAST_S)
    with pinned(device.cores), tempfile.TemporaryDirectory(prefix="poolpipe-") as folder:
        plain = open_session(model, **options)
        profiled = open_session(model, **options, profile_prefix=str(Path(folder) / "layers"))
        passes_us = time_passes([partial(run_model, session, feeds) for session in (plain, profiled)], effort)
        events = json.loads(Path(profiled.end_profiling()).read_text(encoding="utf-8"))
    plain_us, profiled_us = passes_us.min(axis=0).tolist()
    latency_us = _least(events, len(graph.layers))
    if not any(latency_us):  # kernels shorter than a µs, or of names that tell no layer
        latency_us = (plain_us / len(graph.layers),) * len(graph.layers)
    return LayerTimes(latency_us, profiled_us, plain_us)


def _name_after_layers(model: ir.Model, graph: ModelGraph) -> None:
    layer_of = {output: index for index, layer in enumerate(graph.layers) for output in layer.outputs}
    answers = set(model.graph.outputs)
    for node in model.graph:
        for value in node.outputs:
            if value.name in layer_of:
                node.name = f"layer_{layer_of[value.name]}_"
                if value not in answers:
                    value.name = f"{node.name}{value.index()}"


def _least(events: list[dict[str, Any]], layers: int) -> tuple[float, ...]:
    times: list[list[float]] = [[] for _ in range(layers)]
    for event in events:
        name = str(event.get("name"))
        named = re.findall(r"layer_(\d+)_", name)
        if name.endswith("_kernel_time") and named:
            times[int(named[-1])].append(event["dur"])
    return tuple(min(runs, default=0.0) for runs in times)
