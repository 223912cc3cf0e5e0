"""From a model file to a graph whose layers can be planned, and to what its users must know.

The one way in which commands read a user's model. Settings say what the file leaves open; sizes that do not change are
made constants; a pinned batch is freed. The result is compared with the file. Where requests cannot share a run,
because a layer mixes them or pins the batch in a way that cannot be opened, the model takes one request a run.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from planner.model import InputError, ModelSettings
from planner.profiling.acceptance import call_file, check_batches, check_calls, check_function
from planner.profiling.batching import free_batch
from planner.profiling.folding import fold_sizes
from planner.profiling.graphs import axis_label, request_inputs
from planner.profiling.inputs import Axes, as_single, batch_readings, constant_inputs, name_batch, with_settings
from planner.profiling.onnx_graph import ModelGraph, read_graph


@dataclass(frozen=True, eq=False)
class Prepared:
    """A model ready to be cut.

    ``settings`` are those that led to the graph; ``reason`` says why a run takes one request, if so; ``freed`` whether
    the file pins the batch and the graph does not. ``assumed`` are dimensions that the file leaves open, and that are 1
    since a run takes one request.
    """

    graph: ModelGraph
    settings: ModelSettings
    reason: str = ""
    freed: bool = False
    assumed: tuple[str, ...] = ()

    @property
    def single(self) -> bool:
        """Whether a run takes one request."""
        return self.settings.single


def prepare_model(
    model: ir.Model, name: str, settings: ModelSettings | None = None, *, compare: bool = True
) -> Prepared:
    """Return a model's layers as they will be planned, cut and run.

    Parameters
    ----------
    model
        As read from its file; it is not changed.
    name
        What the graph is called.
    settings
        What the file leaves open.
    compare
        Run the file and the result on some requests; without it trust the settings (of a profile, for example).

    Raises
    ------
    InputError
        Settings are missing or do not fit, the model is no function of its inputs, or it cannot be run.

    Examples
    --------
    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["" : 17]>
    ...     mixing (float[n, 4] x) => (float[n, 4] y) { h = Relu (x)   [mix] y = Softmax <axis = 0> (h) }''')
    >>> prepared = prepare_model(model, "mixing")
    >>> prepared.single, prepared.reason
    (True, "node 'mix' (Softmax) mixes requests that share a run")
    """
    settings = settings or ModelSettings()
    plain = with_settings(model, settings)
    axes = next(batch_readings(plain.graph, settings)) if request_inputs(plain.graph) else {}
    single = plain.clone()
    as_single(single.graph, axes)
    check_function(plain)
    constants = constant_inputs(model, plain)
    calls = call_file(model, constants, single) if compare else None
    pinned = _is_pinned(plain)
    reason = "its settings say so"
    for opened in _ways(settings, pinned):
        try:
            batched = free_batch(single, replace(settings, batch_axes=axes)) if opened else _batched(plain, settings)
            graph = _with_callers(read_graph(fold_sizes(batched), name), constants, settings)
            if calls is not None:
                check_batches(calls, graph, batch_axes(batched), rewritten=opened or pinned)
            return Prepared(graph, replace(settings, opened=opened), freed=opened or pinned)
        except InputError as error:
            reason = str(error)
    graph = _with_callers(read_graph(fold_sizes(single, single=True), name, single=True), constants, settings)
    if calls is not None:
        check_calls(calls, graph)
    return Prepared(graph, replace(settings, single=True), reason, assumed=_open_sizes(plain, axes))


def _with_callers(graph: ModelGraph, constants: Mapping[str, np.ndarray], settings: ModelSettings) -> ModelGraph:
    """Return a graph that knows what its callers do: share inputs, and bring outputs back.

    Raises
    ------
    InputError
        An output cannot be brought back as the input, since it looks different.
    """
    for output, name in settings.states.items():
        back, state = graph.tensors[output], graph.tensors.get(name)
        if state is None or (back.dtype, back.shape, back.batch_axis) != (state.dtype, state.shape, state.batch_axis):
            looks = f"{back.dtype.name.lower()} {list(back.shape)}, batch axis {back.batch_axis}"
            wanted = "" if state is None else f", not {state.dtype.name.lower()} {list(state.shape)}"
            raise InputError(f"--state: output {output!r} cannot come back as input {name!r}: it is {looks}{wanted}")
    return replace(graph, constants=constants, states=dict(settings.states))


def _ways(settings: ModelSettings, pinned: bool) -> tuple[bool, ...]:
    """Return whether the batch is to be opened inside a model whose inputs leave it open, in the order to try."""
    if settings.single:
        return ()
    return (True,) if settings.opened else (False,) if pinned else (False, True)


def _open_sizes(plain: ir.Model, axes: Axes) -> tuple[str, ...]:
    """Return the names of the dimensions that were to be the batch."""
    labels = (
        axis_label(value, axes[str(value.name)])
        for value in request_inputs(plain.graph)
        if value.shape is not None and not isinstance(value.shape[axes[str(value.name)]], int)
    )
    return tuple(dict.fromkeys(labels))


def _is_pinned(model: ir.Model) -> bool:
    return any(all(isinstance(size, int) for size in value.shape or ()) for value in request_inputs(model.graph))


def _batched(plain: ir.Model, settings: ModelSettings) -> ir.Model:
    """Return a copy whose inputs call their open dimension the batch; one without is freed."""
    if _is_pinned(plain):
        return free_batch(plain, settings)
    batched = plain.clone()
    name_batch(batched.graph, next(batch_readings(plain.graph, settings)))
    return batched


def batch_axes(model: ir.Model) -> Axes:
    """Return the axis of the batch of each input."""
    return {
        str(value.name): next(axis for axis, size in enumerate(value.shape or ()) if not isinstance(size, int))
        for value in request_inputs(model.graph)
    }
