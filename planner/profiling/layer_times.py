"""Latencies of single layers on a device at hand, from onnxruntime's own profiler.

The model runs as one session without graph optimisations, so that every layer is a kernel of its own: a fused
layer's time is not known otherwise. The sum is therefore above the optimised model's latency; it tells how the
work divides, which is what cutting into blocks needs. Time between kernels is no layer's.
"""

import json
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from planner.profiling.onnx_graph import ModelGraph
from planner.profiling.profiler import DeviceAtHand
from planner.profiling.runtime import open_session, random_feeds, run_model
from planner.profiling.split import extract_part
from planner.profiling.timing import Effort, pinned, time_runs


@dataclass(frozen=True)
class LayerTimes:
    """Median kernel times (µs) of the layers of one batch size, and of whole runs with and without the profiler."""

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


def measure_layers(graph: ModelGraph, device: DeviceAtHand, batch: int = 1, repeats: int = 5) -> LayerTimes:
    """Return each layer's kernel time over ``repeats`` runs, after one to warm up.

    Raises
    ------
    InputError
        The execution provider is missing, or onnxruntime refuses the model.
    """
    model = extract_part(graph, 0, len(graph.layers)).model
    layer_of = {output: index for index, layer in enumerate(graph.layers) for output in layer.outputs}
    for node in model.graph:
        index = next((layer_of[str(value.name)] for value in node.outputs if value.name in layer_of), None)
        node.name = f"constant {node.name}" if index is None else f"layer {index}"
    feeds = random_feeds(model, batch, np.random.default_rng(0))
    options: dict[str, Any] = {"threads": device.threads(1), "provider": device.provider, "optimise": False}
    effort = Effort(warm_up=1, min_repeats=repeats, max_repeats=repeats)
    with pinned(device.cores), tempfile.TemporaryDirectory(prefix="poolpipe-") as folder:
        plain = time_runs(partial(run_model, open_session(model, **options), feeds), effort)
        session = open_session(model, **options, profile_prefix=str(Path(folder) / "layers"))
        profiled = time_runs(partial(run_model, session, feeds), effort)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return LayerTimes(_medians(events, len(graph.layers)), float(np.median(profiled)), float(np.median(plain)))


def _medians(events: list[dict[str, Any]], layers: int) -> tuple[float, ...]:
    times: list[list[float]] = [[] for _ in range(layers)]
    for event in events:
        name, _, kind = str(event.get("name")).rpartition("_kernel_")
        if kind == "time" and name.startswith("layer "):
            times[int(name.removeprefix("layer "))].append(event["dur"])
    return tuple(float(np.median(runs[1:])) if len(runs) > 1 else 0.0 for runs in times)
