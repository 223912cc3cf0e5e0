"""Models that were exported for one batch size, made to take any.

Exporters pin the batch in the inputs' shapes and in constants: targets of Reshape and Expand nodes, sizes of Resize,
ends of Slice, initial states. Which of these numbers hold the batch cannot be read off them (a target [2, -1] may be
groups of channels), so the model is traced with values (`planner.profiling.tracing`): where a node does not make of
three calls together what it makes of each, it is changed until it does (`planner.profiling.rewriting`), or named.

In most models only leading sizes of Reshape targets are pinned. Opening those is tried first, and kept if the answers
are those of the calls alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from planner.model import InputError, ModelSettings
from planner.profiling.graphs import BATCH, checked_copy, request_inputs, varying_values, where
from planner.profiling.inputs import Axes, as_single, batch_readings, name_batch
from planner.profiling.rewriting import changes
from planner.profiling.runtime import open_session, random_feeds, run_model
from planner.profiling.tracing import (
    Fold,
    NodeRunner,
    Traced,
    Values,
    attempt,
    find_fold,
    last_reads,
    put_together,
    sized_values,
)

CALLS = 3  # that are put together in a trace
_RESTARTS = 12  # when a node that could be opened in several ways was opened in a wrong one


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
        _open_nodes(freed, calls, axes)
        name_batch(freed.graph, axes)
    for value in freed.graph.outputs:
        value.shape = None  # no longer what the file says; inference finds it out
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
    name = f"{node.outputs[0].name}.target"
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


@dataclass
class _Choices:
    """Which of the ways that fit a node was taken, by node; a wrong one is found out by a later node."""

    taken: dict[int, int] = field(default_factory=dict)
    offered: dict[int, int] = field(default_factory=dict)

    def revise(self) -> bool:
        """Take the next way at the last node that has one; forget what came after it."""
        for index in sorted(self.offered, reverse=True):
            if self.taken.get(index, 0) + 1 < self.offered[index]:
                self.taken[index] = self.taken.get(index, 0) + 1
                self.taken = {at: way for at, way in self.taken.items() if at <= index}
                self.offered = {at: count for at, count in self.offered.items() if at <= index}
                return True
        return False


def _open_nodes(model: ir.Model, calls: Sequence[Values], axes: Axes) -> None:
    """Change the nodes of a model until calls can be put together; raises InputError naming one that prevents it."""
    choices = _Choices()
    first_error = None
    for _ in range(_RESTARTS):
        try:
            found = trace_calls(model, calls, axes, choices)
        except InputError as error:
            first_error = first_error or error
            if not choices.revise():
                break
            continue
        nodes = list(model.graph)
        for index, apply in found.items():
            apply(model, nodes[index])
        return
    assert first_error is not None
    raise first_error


Apply = Callable[[ir.Model, ir.Node], None]


def trace_calls(
    model: ir.Model, calls: Sequence[Values], axes: Mapping[str, int], choices: _Choices | None = None
) -> dict[int, Apply]:
    """Run a model node by node on calls, alone and together, and return by node what has to be changed.

    Without ``choices`` nothing may be changed. Raises InputError naming the first node that mixes requests or pins
    the batch.
    """
    nodes = list(model.graph)
    varying = varying_values(model.graph)
    sized = sized_values(model.graph, varying)
    constants = _initial_constants(model)
    traced = {
        name: Traced(parts, put_together(parts, Fold(axis)), Fold(axis))
        for name, axis in axes.items()
        if (parts := tuple(feeds[name] for feeds in calls))
    }
    found: dict[int, Apply] = {}
    freed = last_reads(model.graph, nodes)
    for index, node in enumerate(nodes):
        run = NodeRunner(node, model, constants)
        if not any(value in varying for value in node.outputs):
            _fold_constant(run, constants)
        else:
            is_sized = bool(node.outputs) and node.outputs[0] in sized
            change = _trace_node(run, traced, constants, len(calls), is_sized, index, choices)
            if change is not None:
                found[index] = change
        for name in freed[index]:
            traced.pop(name, None)
    for value in model.graph.outputs:
        each = traced.get(str(value.name))
        if each is not None and each.fold is not None and each.fold.outer > 1:
            raise InputError(f"output {value.name!r} holds requests in turn: it cannot be handed to them")
    return found


def _trace_node(
    run: NodeRunner,
    traced: dict[str, Traced],
    constants: Mapping[str, np.ndarray],
    calls: int,
    is_sized: bool,
    index: int,
    choices: _Choices | None,
) -> Apply | None:
    """Trace one node, changed where it must be; returns the change."""
    node = run.node
    read = {name: traced[name] for value in node.inputs if value is not None and (name := str(value.name)) in traced}
    read |= {name: each for name, each in traced.items() if name in run.reads}
    alone = [attempt(run, {name: each.calls[call] for name, each in read.items()}) for call in range(calls)]
    for made in alone:
        if isinstance(made, str):
            raise InputError(f"{where(node)} cannot be run by itself: {made}")
    outputs = list(zip(*alone, strict=True))  # by output, what each call made
    together = {name: each.together for name, each in read.items()}
    plain = attempt(run, together)
    if is_sized and not isinstance(plain, str):
        for name, each, output in zip(run.outputs, outputs, plain, strict=True):
            traced[name] = Traced(each, output, None, sized=True)
        return None
    ways: list[tuple[Apply | None, list[Fold | None]]] = []
    rank_changes = node.op_type in ("Reshape", "Flatten") and choices is not None
    unchanged = _folds(outputs, plain)
    if not rank_changes and not isinstance(unchanged, str):
        ways.append((None, unchanged))
    wanted = choices.taken.get(index, 0) + 2 if choices is not None else 1
    if choices is not None and (isinstance(unchanged, str) or rank_changes):
        for change in changes(node, read, outputs[0][0], calls, constants):
            made = _tried(run, together, change)
            folds = _folds(outputs, made)
            if not isinstance(folds, str) and all(folds != known for _, known in ways):
                ways.append((change.apply, folds))
            if len(ways) >= wanted:
                break
    if rank_changes and not isinstance(unchanged, str):
        same = [at for at, (_, folds) in enumerate(ways) if folds == unchanged]
        for at in same:
            ways[at] = (None, unchanged)
        if not same:
            ways.append((None, unchanged))
    if not ways:
        raise InputError(f"{where(node)} {unchanged}")
    if choices is not None:
        choices.offered[index] = len(ways)
    apply, folds = ways[min(choices.taken.get(index, 0) if choices is not None else 0, len(ways) - 1)]
    for name, each, fold in zip(run.outputs, outputs, folds, strict=True):
        traced[name] = Traced(each, put_together(each, fold), fold)
    return apply


def _tried(run: NodeRunner, together: Values, change: object) -> list[np.ndarray] | str:
    from planner.profiling.rewriting import Change

    assert isinstance(change, Change)
    if change.reshape is not None:
        first = run.node.inputs[0]
        assert first is not None
        sizes = change.reshape
        data = together[str(first.name)]
        try:
            shape = [data.shape[at] if size == 0 else int(size) for at, size in enumerate(sizes)]
            return [data.reshape(shape)]
        except (ValueError, IndexError) as error:
            return str(error)
    return attempt(run, together, change.trial)


def _folds(outputs: Sequence[Sequence[np.ndarray]], made: list[np.ndarray] | str) -> list[Fold | None] | str:
    """Return how calls lie in each output, or why they do not."""
    if isinstance(made, str):
        return f"pins the batch: {made}"
    folds: list[Fold | None] = []
    for each, output in zip(outputs, made, strict=True):
        fold = find_fold(each, output)
        if isinstance(fold, str):
            return fold
        folds.append(fold)
    return folds


def _initial_constants(model: ir.Model) -> dict[str, np.ndarray]:
    return {
        name: value.const_value.numpy()
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    }


def _fold_constant(run: NodeRunner, constants: dict[str, np.ndarray]) -> None:
    made = attempt(run, {})
    if isinstance(made, str):
        raise InputError(f"{where(run.node)} cannot be run by itself: {made}")
    constants.update(zip(run.outputs, made, strict=True))
