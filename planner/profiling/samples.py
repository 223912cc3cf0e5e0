"""Requests to try a model with: samples of what one request brings, joined to batches and cut from them.

Samples are ``[sample, ...]`` of every input, each sample of the shape that one request has. Along a tensor's batch axis
requests follow each other; a tensor without one is the same for all requests of a batch.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from planner.model import InputError
from planner.profiling.onnx_graph import ModelGraph
from planner.profiling.runtime import open_session, random_feeds, run_model
from planner.profiling.shapes import Tensor

Tensors = Mapping[str, np.ndarray]


def draw_samples(graph: ModelGraph, count: int, seed: int) -> dict[str, np.ndarray]:
    """Return random samples of values that the model can take (`planner.profiling.drawing`).

    Of a model with states each sample is the next call of one caller: it brings what the call before gave back.
    """
    rng = np.random.default_rng(seed)
    drawn = [random_feeds(graph.model, 1, rng) for _ in range(count)]
    if graph.states:
        _carry_states(graph, drawn)
    return {
        tensor.name: np.stack([drawn[number if tensor.batched else 0][tensor.name] for number in range(count)])
        for tensor in graph.inputs
    }


def _carry_states(graph: ModelGraph, calls: Sequence[dict[str, np.ndarray]]) -> None:
    """Put into each call the states that the one before gave back; the first begins with zeros."""
    session = open_session(graph.model)
    states = {
        name: np.zeros(graph.tensors[name].shape, graph.tensors[name].dtype.numpy()) for name in graph.states.values()
    }
    for feeds in calls:
        feeds.update(states)
        made = dict(zip(graph.outputs, run_model(session, feeds), strict=True))
        states = {name: made[output] for output, name in graph.states.items()}


def cut_samples(graph: ModelGraph, given: Sequence[Tensors]) -> dict[str, np.ndarray]:
    """Return the samples in batches of inputs; raises InputError where they are not what the model takes.

    Where no batch has the states of a model, samples are the calls of one caller, in order, as `draw_samples` has them.

    Examples
    --------
    >>> import onnx_ir as ir
    >>> from planner.profiling.onnx_graph import read_graph
    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["" : 13]>
    ...     twice (float[n, 2] x) => (float[n, 2] y) { y = Add (x, x) }''')
    >>> cut_samples(read_graph(model), [{"x": np.zeros((3, 2), np.float32)}])["x"].shape
    (3, 1, 2)
    """
    carried = set(graph.states.values())
    if any(carried & set(batch) for batch in given):
        carried = set()
    brought = [tensor for tensor in graph.inputs if tensor.name not in carried]
    known = {tensor.name for tensor in brought}
    pieces: dict[str, list[np.ndarray]] = {name: [] for name in known}
    for batch in given:
        if not known <= set(batch):
            raise InputError(
                f"inputs: {min(known - set(batch))!r} is missing; expected arrays {', '.join(sorted(known))}"
            )
        counts = {tensor.name: _requests(tensor, batch[tensor.name]) for tensor in brought if tensor.batched}
        if len(set(counts.values())) > 1:
            raise InputError(f"inputs: expected as many requests in each array, got {counts}")
        count = next(iter(counts.values()), 1)
        for tensor in brought:
            array = _of_type(tensor, batch[tensor.name])
            _requests(tensor, array)
            axis = tensor.batch_axis
            pieces[tensor.name] += np.split(array, count, axis) if axis is not None else [array] * count
    if not all(pieces.values()):
        raise InputError("inputs: no sample; expected at least one")
    if carried:
        calls = [dict(zip(pieces, call, strict=True)) for call in zip(*pieces.values(), strict=True)]
        _carry_states(graph, calls)
        pieces = {tensor.name: [call[tensor.name] for call in calls] for tensor in graph.inputs}
    return {name: np.stack(found) for name, found in pieces.items()}


def _requests(tensor: Tensor, array: np.ndarray) -> int:
    """Return how many requests an array holds; raises InputError where its shape is not the tensor's."""
    axis, own = tensor.batch_axis, tensor.shape
    fits = array.ndim == len(own) and all(
        size % unit == 0 and size >= unit if at == axis and unit else size == unit
        for at, (size, unit) in enumerate(zip(array.shape, own, strict=True))
    )
    if not fits:
        text = ", ".join(f"{unit} · requests" if at == axis else str(unit) for at, unit in enumerate(own))
        raise InputError(f"inputs: {tensor.name!r} has shape {list(array.shape)}, expected [{text}]")
    return 1 if axis is None else array.shape[axis] // max(1, own[axis])


def _of_type(tensor: Tensor, array: np.ndarray) -> np.ndarray:
    """Return an array of a tensor's type; texts as objects, as onnxruntime takes them."""
    wanted = np.dtype(tensor.dtype.numpy())
    if wanted.kind == "O" and array.dtype.kind in "OUS":
        return array.astype(str).astype(object)
    if array.dtype != wanted and not np.can_cast(array.dtype, wanted, "same_kind"):
        raise InputError(f"inputs: {tensor.name!r} is of type {array.dtype}, expected {wanted}")
    return array.astype(wanted)


def join(graph: ModelGraph, samples: Tensors, numbers: Sequence[int]) -> dict[str, np.ndarray]:
    """Return a batch of some samples; raises InputError as `join_requests` does."""
    return {
        tensor.name: join_requests(tensor.name, samples[tensor.name], numbers, tensor.batch_axis)
        for tensor in graph.inputs
    }


def join_requests(name: str, samples: np.ndarray, numbers: Sequence[int], axis: int | None) -> np.ndarray:
    """Return what a batch of some samples has of a tensor.

    Raises
    ------
    InputError
        The tensor has no batch axis, so that requests of a batch must have it alike, and they have not.
    """
    chosen = [np.asarray(samples[number]) for number in numbers]
    if axis is not None:
        return np.concatenate(chosen, axis)
    if any(not np.array_equal(chosen[0], other) for other in chosen[1:]):
        raise InputError(
            f"inputs: {name!r} has no batch axis, so all requests of a batch have it alike; got samples that differ"
        )
    return chosen[0]


def take(tensor: Tensor, array: np.ndarray, position: int, size: int) -> np.ndarray:
    """Return what one of ``size`` requests has of a tensor: its part along the batch axis, all where there is none."""
    axis = tensor.batch_axis
    if axis is None or array.ndim <= axis or array.shape[axis] % size:
        return array
    rows = array.shape[axis] // size
    part = slice(position * rows, (position + 1) * rows)
    return array[(slice(None),) * axis + (part,)]
