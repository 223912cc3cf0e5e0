"""Models that were exported for one batch size, made to take any.

Exporters pin the batch in the inputs' shapes and in constants: targets of Reshape and Expand nodes, sizes of Resize,
ends of Slice, initial states. Which of these numbers hold the batch cannot be read off them (a target [2, -1] may be
groups of channels), so the model is traced with values (`planner.profiling.tracing`): where a node does not make of
three calls together what it makes of each, it is changed until it does (`planner.profiling.opening`), or named.

In most models only leading sizes of Reshape targets are pinned. Opening those is tried first, and kept if the answers
are those of the calls alone.
"""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from planner.model import InputError, ModelSettings
from planner.profiling.graphs import BATCH, checked_copy, free_prefix, request_inputs, result_name, varying_values
from planner.profiling.inputs import Axes, as_single, batch_readings, name_batch
from planner.profiling.opening import open_nodes
from planner.profiling.runtime import open_session, random_feeds, run_model
from planner.profiling.tracing import Fold, Values, find_fold, put_together

CALLS = 3  # that are put together in a trace


def free_batch(model: ir.Model, settings: ModelSettings | None = None) -> ir.Model:
    """Return the model with a symbolic batch dimension; the given one where the batch is symbolic already.

    Raises
    ------
    InputError
        An input has no batch dimension, or a node that cannot be changed pins the batch or mixes requests.

    Examples
    --------
    >>> model = ir.from_onnx_text('''<ir_version: 8, opset_import: ["" : 13]>
    ...     flat (float[1, 2, 3] x) => (float[1, 6] y) <int64[2] target = {1, 6}> { y = Reshape (x, target) }''')
    >>> free = free_batch(model)
    >>> str(free.graph.inputs[0].shape), str(free.graph.outputs[0].shape)
    ('[batch,2,3]', '[batch,6]')
    """
    if not any(_is_pinned(value) for value in request_inputs(model.graph)):
        return model
    copy = checked_copy(model)
    first_error = None
    for axes in batch_readings(copy.graph, settings or ModelSettings()):
        try:
            return _free(copy, axes)
        except InputError as error:
            first_error = first_error or error
    assert first_error is not None
    raise first_error


def _is_pinned(value: ir.Value) -> bool:
    return value.shape is None or all(isinstance(size, int) for size in value.shape)


def _free(model: ir.Model, axes: Axes) -> ir.Model:
    """Open the batch along the given axes of the inputs."""
    whole = model.clone()
    as_single(whole.graph, axes)
    calls = [random_feeds(whole, 1, np.random.default_rng([7, call])) for call in range(CALLS)]
    freed = open_targets(model, axes)
    if not answers_alike(whole, freed, calls, axes):
        freed = model.clone()
        rows = name_batch(model.clone().graph, axes)
        open_nodes(freed, calls, axes, repeat=rows == 1)
        name_batch(freed.graph, axes)
    _shape_outputs(whole, freed, calls, axes)
    return freed


def open_targets(model: ir.Model, axes: Axes | None = None) -> ir.Model:
    """Return a copy with symbolic inputs and the first size of all constant Reshape targets open.

    That is right where the batch leads in all of them; whoever calls this has to know, or to find out.
    """
    free = checked_copy(model)
    varying = varying_values(free.graph)
    name_batch(free.graph, axes or {str(value.name): 0 for value in request_inputs(free.graph)})
    for node in free.graph:
        if node.op_type == "Reshape" and node.inputs[0] in varying:
            _open_target(free, node)
    for value in free.graph.outputs:
        value.shape = None
    return free


def _open_target(model: ir.Model, node: ir.Node) -> None:
    """Open the first dimension of a constant target; targets computed from the input stay."""
    target = node.inputs[1] if len(node.inputs) > 1 else None
    constant = ir.convenience.get_const_tensor(target) if target is not None else None
    if constant is None:
        return
    sizes = constant.numpy().astype(np.int64)
    if sizes.size == 0 or sizes[0] <= 0:
        return
    sizes[0] = 0 if -1 in sizes else -1
    name = free_prefix(model, f"{result_name(node)}.target")
    opened = ir.Value(name=name, const_value=ir.tensor(sizes, name=name))
    model.graph.register_initializer(opened)
    if model.ir_version < 4:
        model.graph.inputs.append(opened)
    node.replace_input_with(1, opened)


def answers_alike(whole: ir.Model, freed: ir.Model, calls: Sequence[Values], axes: Axes) -> bool:
    """Tell whether a freed model answers calls together as the whole one answers each."""
    try:
        session = open_session(whole)
        alone = [run_model(session, feeds) for feeds in calls]
        together = {name: put_together([feeds[name] for feeds in calls], Fold(axis)) for name, axis in axes.items()}
        made = run_model(open_session(freed), together)
    except InputError:
        return False
    except Exception:  # onnxruntime raises a dozen unrelated types where a pinned size does not fit
        return False
    found = [find_fold(each, output) for *each, output in zip(*alone, made, strict=True)]
    return all(fold is None or (isinstance(fold, Fold) and fold.outer == 1) for fold in found)


def _shape_outputs(whole: ir.Model, freed: ir.Model, calls: Sequence[Values], axes: Axes) -> None:
    """Write the outputs' shapes, in which one dimension is the batch."""
    alone = run_model(open_session(whole, optimise=False), calls[0])
    together = {name: put_together([feeds[name] for feeds in calls], Fold(axis)) for name, axis in axes.items()}
    made = run_model(open_session(freed, optimise=False), together)
    for value, one, three in zip(freed.graph.outputs, alone, made, strict=True):
        sizes = zip(one.shape, three.shape, strict=True)
        value.shape = ir.Shape(low if low == high else BATCH if low == 1 else f"{BATCH}*{low}" for low, high in sizes)
