"""From a model to its profile: layers priced, blocks cut, latencies measured and estimated.

Profiling and planning meet here: blocks are cut by `planner.planning.prepartition` from what layers cost on every
device, which `planner.profiling` measures or estimates.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from planner.model import InputError, ModelSettings, Profile

if TYPE_CHECKING:
    import onnx_ir as ir

    from planner.profiling import CatalogueDevice, DeviceAtHand, Effort, ModelGraph


@dataclass(frozen=True, eq=False)
class Profiled:
    """A profile, the model that it is of as it was given, which is what executors need, and its layers."""

    profile: Profile
    model: "ir.Model"
    graph: "ModelGraph"


def profile_model(
    model: "ir.Model",
    name: str,
    *,
    at_hand: Sequence["DeviceAtHand"] = (),
    estimated: Sequence["CatalogueDevice"] = (),
    batches: Sequence[int] = (1, 2, 4, 8),
    shares: Sequence[int] | None = None,
    blocks: int = 10,
    effort: "Effort | None" = None,
    settings: ModelSettings | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Profiled:
    """Cut a model into blocks and return their latencies on devices at hand and of the catalogue.

    Parameters
    ----------
    model
        An ONNX model; a pinned batch is freed. Where it is measured, it is also compared with what it becomes.
    name
        What the profile calls it.
    at_hand
        Devices to measure, each with its own shares.
    estimated
        Devices to estimate; ``shares`` limits theirs.
    batches
        Batch sizes, increasing.
    blocks
        How many blocks to make; a model of fewer layers has one per layer.
    effort
        How long to measure.
    settings
        What the model leaves open, such as sizes.
    progress
        Called with a short text after every measurement.

    Raises
    ------
    InputError
        The model cannot be split or run, or a device cannot be used.
    """
    from planner.profiling import blank_profile, estimate_tables, measure_tables, prepare_model, with_tables

    prepared = prepare_model(model, name, settings, compare=bool(at_hand))
    graph = prepared.graph
    if prepared.single and tuple(batches) != (1,):
        raise InputError(f"batches: a run of {name} takes one request: {prepared.reason}; profile it at batch 1 alone")
    starts = cut_blocks(graph, at_hand, estimated, blocks)
    profile = with_tables(blank_profile(graph, starts), estimate_tables(graph, starts, estimated, batches, shares))
    for device in at_hand:
        profile = with_tables(profile, measure_tables(graph, starts, device, batches, effort, progress))
    if prepared.settings != ModelSettings():
        profile = replace(profile, settings=prepared.settings)
    return Profiled(profile, model, graph)


def cut_blocks(
    graph: "ModelGraph",
    at_hand: Sequence["DeviceAtHand"],
    estimated: Sequence["CatalogueDevice"],
    blocks: int,
    *,
    even: bool = False,
) -> tuple[int, ...]:
    """Return the layers at which blocks begin, balanced on every device given, at cuts that are legal.

    Within the bounds of prepartition the fewest bytes decide, and of cuts of equal size those that part no layers which
    runtimes fuse; with ``even`` the most even runtime does.
    """
    import numpy as np

    from planner.planning.prepartition import even_runtime, prepartition
    from planner.profiling import estimate_layers, measure_layers
    from planner.profiling.roofline import fused_layers

    latencies_us = [measure_layers(graph, device).latency_us for device in at_hand]
    latencies_us += [estimate_layers(graph, device, batch=1, share=1) for device in estimated]
    fused = fused_layers(graph)
    # Layers between which no cut is legal are one unit.
    units = [0, *(cut for cut in range(1, len(graph.layers)) if cut not in graph.barred)]
    sizes = [graph.cut_bytes[at - 1] * len(graph.layers) + (at in fused) for at in units[1:]]
    unit_us = [np.add.reduceat(np.asarray(each, float), units).tolist() for each in latencies_us]
    starts = (even_runtime if even else prepartition)(unit_us, sizes, blocks).starts
    return tuple(units[start] for start in starts)
