"""From a model to its profile: layers priced, blocks cut, latencies measured and estimated.

Profiling and planning meet here: blocks are cut by `planner.planning.prepartition` from what layers cost on every
device, which `planner.profiling` measures or estimates.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from planner.model import Profile

if TYPE_CHECKING:
    import onnx_ir as ir

    from planner.profiling import CatalogueDevice, DeviceAtHand, Effort, ModelGraph


@dataclass(frozen=True, eq=False)
class Profiled:
    """A profile, and the model that it is of: free of a pinned batch, as executors need it."""

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
    progress: Callable[[str], None] = lambda _: None,
) -> Profiled:
    """Cut a model into blocks and return their latencies on devices at hand and of the catalogue.

    Parameters
    ----------
    model
        An ONNX model; a pinned batch is freed.
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
    progress
        Called with a short text after every measurement.

    Raises
    ------
    InputError
        The model cannot be split or run, or a device cannot be used.
    """
    from planner.profiling import blank_profile, estimate_tables, free_batch, measure_tables, read_graph, with_tables

    free = free_batch(model)
    graph = read_graph(free, name)
    starts = cut_blocks(graph, at_hand, estimated, blocks)
    profile = with_tables(blank_profile(graph, starts), estimate_tables(graph, starts, estimated, batches, shares))
    for device in at_hand:
        profile = with_tables(profile, measure_tables(graph, starts, device, batches, effort, progress))
    return Profiled(profile, free, graph)


def cut_blocks(
    graph: "ModelGraph",
    at_hand: Sequence["DeviceAtHand"],
    estimated: Sequence["CatalogueDevice"],
    blocks: int,
    *,
    even: bool = False,
) -> tuple[int, ...]:
    """Return the layers at which blocks begin, balanced on every device given.

    Within the bounds of prepartition the fewest bytes decide, and of cuts of equal size those that part no layers which
    runtimes fuse; with ``even`` the most even runtime does.
    """
    from planner.planning.prepartition import even_runtime, prepartition
    from planner.profiling import estimate_layers, measure_layers
    from planner.profiling.roofline import fused_layers

    latencies_us = [measure_layers(graph, device).latency_us for device in at_hand]
    latencies_us += [estimate_layers(graph, device, batch=1, share=1) for device in estimated]
    fused = fused_layers(graph)
    sizes = [size * len(graph.layers) + (at in fused) for at, size in enumerate(graph.cut_bytes, start=1)]
    return (even_runtime if even else prepartition)(latencies_us, sizes, blocks).starts
