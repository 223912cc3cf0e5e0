"""Ways to open the batch in a node that pins it, and the nodes that do so.

Each way says with which constants the node would have to run to serve some calls at once (`Change.trial`), and how to
make the model compute them for any number of calls (`Change.apply`). Which of them is right is not decided here:
`planner.profiling.batching` tries them on values.

A Reshape keeps the order of elements. With P elements before the batch (in row-major order) the batch lies in the new
shape o at an axis j with P = o[0] · ... · o[j-1] · q, q dividing o[j]; q = 1 first.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
import onnx_ir as ir

from planner.profiling.graphs import free_prefix, result_name
from planner.profiling.tracing import Fold, Traced

_ENDLESS = np.iinfo(np.int64).max
_VIEWS = {"Squeeze", "Unsqueeze", "Flatten", "Gather", "Slice", "Split", "Identity", "Expand", "GatherND"}
_TARGETS = {"Expand": 1, "Resize": 3}  # input that holds the size of each axis of the output


@dataclass(frozen=True, eq=False)
class Change:
    """A way to change a node: ``trial`` are its constants for the calls of a trace.

    With ``reshape`` the node becomes a Reshape of its first input.
    """

    trial: Mapping[str, np.ndarray]
    apply: Callable[[ir.Model, ir.Node], None]
    reshape: np.ndarray | None = field(default=None)


def changes(
    node: ir.Node,
    traced: Mapping[str, Traced],
    made: np.ndarray,
    calls: int,
    consts: Mapping[str, np.ndarray],
    *,
    repeat: bool,
) -> Iterator[Change]:
    """Yield the ways to open a node, the likeliest first; ``made`` is its first output for one call.

    With ``repeat`` operands may be repeated for each call: right only if a call is one request.
    """
    first = node.inputs[0] if node.inputs else None
    data = traced.get(str(first.name)) if first is not None else None
    if data is not None and data.fold is not None and data.calls[0].size == made.size:
        if node.op_type == "Reshape":
            yield from _reshapes(node, data.calls[0].shape, data.fold, made.shape, consts)
        elif node.op_type in _VIEWS and np.array_equal(
            data.calls[0].ravel(), made.ravel(), equal_nan=made.dtype.kind == "f"
        ):
            yield from _views(data.calls[0].shape, data.fold, made.shape)
    if node.op_type == "Slice" and data is not None and data.fold is not None:
        yield from _slices(node, data.fold, consts)
    if node.op_type in _TARGETS and data is not None:
        yield from _targets(node, _TARGETS[node.op_type], traced, made.shape, calls, consts)
    if repeat:
        yield from _repeated(node, traced, calls, consts)


def _positions(shape: tuple[int, ...], fold: Fold, made: tuple[int, ...]) -> list[int]:
    """Return the axes of a new shape in which the batch may lie."""
    before = prod(shape[: fold.axis]) * fold.outer
    found = []
    for axis, size in enumerate(made):
        head = prod(made[:axis])
        if head and before % head == 0 and size % (before // head) == 0 and size:
            found.append((before // head, axis))
    return [axis for _, axis in sorted(found)]


def _reshapes(
    node: ir.Node, shape: tuple[int, ...], fold: Fold, made: tuple[int, ...], consts: Mapping[str, np.ndarray]
) -> Iterator[Change]:
    """Yield the targets of a Reshape whose batch is open."""
    name = str(node.inputs[1].name) if len(node.inputs) > 1 and node.inputs[1] is not None else ""
    target = consts.get(name)
    zero_is_zero = "allowzero" in node.attributes and node.attributes["allowzero"].as_int() == 1
    for axis in _positions(shape, fold, made):
        sizes = [np.array([-1 if at == axis else size for at, size in enumerate(made)], np.int64)]
        if axis == 0 and target is not None and len(target) and target[0] > 0:
            lean = target.astype(np.int64)  # as few edits as possible: other sizes may adapt to the input
            lean[0] = 0 if -1 in lean else -1
            if lean[0] == -1 or (fold.axis == 0 and shape[0] == made[0] and not zero_is_zero):
                sizes.insert(0, lean)
        for each in sizes:
            yield Change({name: each} if name else {}, _set_input(1, each, "target"), each)


def _views(shape: tuple[int, ...], fold: Fold, made: tuple[int, ...]) -> Iterator[Change]:
    """Yield Reshapes in place of a node that only sees its input in another shape."""
    for axis in _positions(shape, fold, made):
        sizes = np.array([-1 if at == axis else size for at, size in enumerate(made)], np.int64)
        yield Change({}, _become_reshape(sizes), sizes)


def _slices(node: ir.Node, fold: Fold, consts: Mapping[str, np.ndarray]) -> Iterator[Change]:
    """Yield a Slice that takes all of the batch from where it starts."""
    names = [str(value.name) if value is not None else "" for value in node.inputs]
    if len(names) < 3 or not all(name in consts for name in names[1:3]):
        return
    ends = consts[names[2]].astype(np.int64)
    axes = consts[names[3]] if len(names) > 3 and names[3] in consts else np.arange(len(ends))
    if fold.axis in axes.tolist():
        ends = np.where(axes == fold.axis, _ENDLESS, ends)
        yield Change({names[2]: ends}, _set_input(2, ends, "ends"))


def _targets(
    node: ir.Node,
    position: int,
    traced: Mapping[str, Traced],
    made: tuple[int, ...],
    calls: int,
    consts: Mapping[str, np.ndarray],
) -> Iterator[Change]:
    """Yield sizes of the output that grow with the batch along one axis."""
    if len(node.inputs) <= position or node.inputs[position] is None:
        return
    name = str(node.inputs[position].name)  # type: ignore[union-attr]
    if name not in consts or len(consts[name]) != len(made):
        return
    data = traced[str(node.inputs[0].name)]  # type: ignore[union-attr]
    if data.fold is None:
        return
    axis = data.fold.axis + len(made) - data.calls[0].ndim
    sizes = np.array([size * calls if at == axis else size for at, size in enumerate(made)], np.int64)
    source, rows = str(node.inputs[0].name), data.calls[0].shape[data.fold.axis]  # type: ignore[union-attr]
    yield Change({name: sizes}, _grow_input(position, source, data.fold.axis, rows, axis, made))


def _repeated(
    node: ir.Node, traced: Mapping[str, Traced], calls: int, consts: Mapping[str, np.ndarray]
) -> Iterator[Change]:
    """Yield operands that are the same for all requests repeated, one for each call."""
    batched = next(
        ((name, each) for value in node.inputs if value is not None and (name := str(value.name)) in traced
         and (each := traced[name]).fold is not None),
        None,
    )  # fmt: skip
    if batched is None:
        return
    source, like = batched
    assert like.fold is not None
    operands = {}
    for position, value in enumerate(node.inputs):
        name = "" if value is None else str(value.name)
        if name in consts and consts[name].ndim:
            operands[position] = consts[name]
        elif name in traced and traced[name].fold is None and traced[name].calls[0].ndim and not traced[name].sized:
            operands[position] = traced[name].calls[0]
    states: list[int] = [position for position in (5, 6) if position in operands]
    groups: list[list[int]] = [[position] for position in operands]
    if node.op_type in ("LSTM", "GRU", "RNN") and len(states) > 1:
        groups.insert(0, states)
    for group in groups:
        for axis in range(min(operands[position].ndim for position in group)):
            if operands[group[0]].size > 1_000_000:
                continue
            repeats = {position: _repeats(operands[position].ndim, axis, calls) for position in group}
            trial = {
                str(node.inputs[position].name): np.tile(operands[position], repeats[position])  # type: ignore[union-attr]
                for position in group
            }
            rows = like.calls[0].shape[like.fold.axis]
            ranks = {position: operands[position].ndim for position in group}
            yield Change(trial, _repeat_inputs(ranks, axis, source, like.fold.axis, rows))


def _repeats(rank: int, axis: int, times: int) -> tuple[int, ...]:
    return tuple(times if at == axis else 1 for at in range(rank))


def _constant(model: ir.Model, name: str, numbers: np.ndarray) -> ir.Value:
    """Add an initializer; before IR version 4 it must be an input as well."""
    value = ir.Value(name=name, const_value=ir.tensor(numbers, name=name))
    value.shape, value.dtype = ir.Shape(numbers.shape), ir.DataType.from_numpy(numbers.dtype)
    model.graph.register_initializer(value)
    if model.ir_version < 4:
        model.graph.inputs.append(value)
    return value


def _set_input(position: int, numbers: np.ndarray, what: str) -> Callable[[ir.Model, ir.Node], None]:
    def apply(model: ir.Model, node: ir.Node) -> None:
        node.replace_input_with(position, _constant(model, free_prefix(model, f"{result_name(node)}.{what}"), numbers))

    return apply


def _become_reshape(sizes: np.ndarray) -> Callable[[ir.Model, ir.Node], None]:
    def apply(model: ir.Model, node: ir.Node) -> None:
        old = node.outputs[0]
        target = _constant(model, free_prefix(model, f"{old.name}.target"), sizes)
        made = ir.Value(name=old.name, type=old.type)
        _replace(model, node, [ir.Node("", "Reshape", [node.inputs[0], target], outputs=[made], name=node.name)], made)

    return apply


def _replace(model: ir.Model, node: ir.Node, nodes: list[ir.Node], made: ir.Value) -> None:
    model.graph.insert_before(node, nodes)
    node.outputs[0].replace_all_uses_with(made, replace_graph_outputs=True)
    model.graph.remove(node, safe=True)


def _scaled(
    model: ir.Model,
    node: ir.Node,
    source: str,
    source_axis: int,
    rows: int,
    sizes: Sequence[int],
    axis: int,
    prefix: str,
) -> ir.Value:
    """Insert nodes before ``node`` that compute sizes, that of an axis times the rows of a batched input of the node.

    ``sizes`` are those for a call, in which the input has ``rows`` rows.
    """
    value = next(each for each in node.inputs if each is not None and each.name == source)
    grow = np.array([size if at == axis else 0 for at, size in enumerate(sizes)], np.int64)
    constants = {
        "axis": np.array([source_axis], np.int64),
        "grow": grow,
        "per_call": np.array([rows], np.int64),
        "stay": np.array(sizes, np.int64) - grow,
    }
    known = {name: _constant(model, f"{prefix}.{name}", numbers) for name, numbers in constants.items()}
    nodes: list[ir.Node] = []

    def then(operator: str, inputs: list[ir.Value], name: str) -> ir.Value:
        made = ir.Value(name=f"{prefix}.{name}", type=ir.TensorType(ir.DataType.INT64))
        nodes.append(ir.Node("", operator, inputs, outputs=[made]))
        return made

    batch = then("Gather", [then("Shape", [value], "shape"), known["axis"]], "rows")
    grown = then("Div", [then("Mul", [known["grow"], batch], "product"), known["per_call"]], "grown")
    total = then("Add", [grown, known["stay"]], "sizes")
    model.graph.insert_before(node, nodes)
    return total


def _grow_input(
    position: int, source: str, source_axis: int, rows: int, axis: int, made: tuple[int, ...]
) -> Callable[[ir.Model, ir.Node], None]:
    def apply(model: ir.Model, node: ir.Node) -> None:
        prefix = free_prefix(model, f"{result_name(node)}.open")
        node.replace_input_with(position, _scaled(model, node, source, source_axis, rows, made, axis, prefix))

    return apply


def _repeat_inputs(
    ranks: Mapping[int, int], axis: int, source: str, source_axis: int, rows: int
) -> Callable[[ir.Model, ir.Node], None]:
    def apply(model: ir.Model, node: ir.Node) -> None:
        prefix = free_prefix(model, f"{result_name(node)}.open")
        for position, rank in ranks.items():
            value = node.inputs[position]
            assert value is not None
            repeats = _scaled(model, node, source, source_axis, rows, [1] * rank, axis, f"{prefix}{position}")
            made = ir.Value(name=f"{prefix}{position}.repeated", type=value.type)
            model.graph.insert_before(node, [ir.Node("", "Tile", [value, repeats], outputs=[made])])
            node.replace_input_with(position, made)

    return apply
