"""Profiles put together: blocks of a model, and latency tables measured or estimated for them."""

from collections.abc import Sequence
from dataclasses import replace

from planner.model import Block, InputError, LatencyTable, Profile
from planner.profiling.onnx_graph import ModelGraph


def blank_profile(graph: ModelGraph, starts: Sequence[int], model_sha256: str | None = None) -> Profile:
    """Return a profile without latencies, of the blocks that begin at layers ``starts`` (the first is 0)."""
    ends = [*starts[1:], len(graph.layers)]
    blocks = tuple(
        Block(
            tuple(layer.name for layer in graph.layers[first:last]),
            graph.parameter_bytes(first, last),
            graph.live_bytes(first, last),
        )
        for first, last in zip(starts, ends, strict=True)
    )
    cut_bytes = tuple(graph.cut_bytes[start - 1] for start in starts[1:])
    input_bytes = sum(tensor.request_bytes for tensor in graph.inputs)
    answers = [graph.tensors[name] for name in graph.outputs if name in graph.tensors]
    outputs = tuple(f"{one.dtype.name}{list(one.shape)}".replace(" ", "") for one in answers)
    return Profile(graph.name, blocks, cut_bytes, (), model_sha256, input_bytes=input_bytes, outputs=outputs)


def with_tables(profile: Profile, tables: Sequence[LatencyTable]) -> Profile:
    """Return the profile with further tables; one of the same device and share is replaced."""
    merged = {(table.device, table.share): table for table in (*profile.tables, *tables)}
    return replace(profile, tables=tuple(merged.values()))


def block_starts(graph: ModelGraph, profile: Profile) -> tuple[int, ...]:
    """Return the layers at which a profile's blocks begin in a model.

    Raises
    ------
    InputError
        The profile's layers are not the model's.
    """
    names = [name for block in profile.blocks for name in block.layers]
    if names != [layer.name for layer in graph.layers]:
        raise InputError(
            f"profile {profile.name} is of another model: its {len(names)} layers are not the {len(graph.layers)} "
            f"layers of {graph.name}; profile the model again"
        )
    starts = [0]
    for block in profile.blocks[:-1]:
        starts.append(starts[-1] + len(block.layers))
    return tuple(starts)
