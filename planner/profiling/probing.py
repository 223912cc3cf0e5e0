"""Shapes that running reveals: the model is run at some batch sizes, with the shape of every tensor as an output.

That knows every operator that onnxruntime knows, and sees sizes that are computed on the way. It is run on
different inputs, and again with operators that find something (NonZero, NonMaxSuppression) finding one more, and at
most one: a size that differs depends on the data.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from planner.model import InputError
from planner.profiling.decisions import FINDERS, sizing_nodes
from planner.profiling.graphs import one_line, varying_values
from planner.profiling.runtime import open_session, random_feeds

_SUFFIX = "//shape"  # of the outputs' names; a tensor of a model is hardly called so
_TYPES = {
    "float": ir.DataType.FLOAT, "double": ir.DataType.DOUBLE, "float16": ir.DataType.FLOAT16,
    "bfloat16": ir.DataType.BFLOAT16, "bool": ir.DataType.BOOL, "string": ir.DataType.STRING,
    "complex64": ir.DataType.COMPLEX64, "complex128": ir.DataType.COMPLEX128,
    **{f"int{bits}": ir.DataType[f"INT{bits}"] for bits in (4, 8, 16, 32, 64)},
    **{f"uint{bits}": ir.DataType[f"UINT{bits}"] for bits in (4, 8, 16, 32, 64)},
}  # fmt: skip


@dataclass(frozen=True)
class Probe:
    """What was met at a batch size: types and shapes by tensor, and by tensor why it has no shape of its own."""

    batch: int
    shapes: Mapping[str, tuple[ir.DataType, tuple[int, ...]]]
    opaque: Mapping[str, str]


def probe_shapes(
    model: ir.Model, batches: Sequence[int], constants: Mapping[str, tuple[ir.DataType, tuple[int, ...]]]
) -> list[Probe]:
    """Run a model at some batch sizes and return what its tensors look like; raises InputError where it cannot run."""
    types = _value_types(model)
    tensors = {name: dtype for name, dtype in types.items() if isinstance(dtype, ir.DataType)}
    opaque = {name: str(kind) for name, kind in types.items() if not isinstance(kind, ir.DataType)}
    sizing = sizing_nodes(model.graph, varying_values(model.graph))
    decided = {str(value.name) for node in sizing for value in node.outputs}
    probed = _with_shapes(model, list(tensors))
    session = open_session(probed, optimise=False)
    probes: list[Probe] = []
    finding: list[Any] = []
    for batch in batches:
        feeds, shapes = _run(session, model, tensors, batch, seed=1)
        found = {name: (dtype, shape) for (name, dtype), shape in zip(tensors.items(), shapes, strict=True)}
        if not finding:
            finders = {str(node.outputs[0].name) for node in sizing if node.op_type in FINDERS}
            finding = [
                open_session(_finding(probed, found, finders, more=more), optimise=False) for more in (True, False)
            ]
        met = [
            shapes,
            _run(session, model, tensors, batch, seed=2)[1],
            _run(finding[0], model, tensors, batch, seed=1)[1],
        ]
        with suppress(InputError):  # one may be too few
            met.append(_run(finding[1], model, tensors, batch, seed=1)[1])
        moving = {
            name: "has a size that depends on the data"
            for name, *each in zip(tensors, *met, strict=True)
            if name in decided or len(set(each)) > 1
        }
        given = {name: (_type_of(feed), feed.shape) for name, feed in feeds.items()}
        probes.append(Probe(batch, {**constants, **given, **found}, opaque | moving))
    return probes


def _run(
    session: Any, model: ir.Model, tensors: Mapping[str, ir.DataType], batch: int, seed: int
) -> tuple[dict[str, np.ndarray], list[tuple[int, ...]]]:
    """Return inputs, and the shapes of the tensors that the model makes of them."""
    feeds = random_feeds(model, batch, np.random.default_rng([seed, batch]))
    try:
        made = session.run([name + _SUFFIX for name in tensors], feeds)
    except Exception as error:  # onnxruntime raises a dozen unrelated types
        raise InputError(f"it cannot be run at batch {batch}: {one_line(error)}") from None
    return feeds, [tuple(int(size) for size in shape) for shape in made]


def _finding(
    probed: ir.Model, shapes: Mapping[str, tuple[ir.DataType, tuple[int, ...]]], finders: set[str], *, more: bool
) -> ir.Model:
    """Return the model with one ``more`` result, of zeros, from nodes that find some in the data, or at most one."""
    model = probed.clone()
    for node in list(model.graph):
        output = node.outputs[0]
        if not output.name or output.name not in finders:
            continue
        axis = FINDERS[node.op_type]
        dtype, sizes = shapes[str(output.name)]
        zeros = np.zeros([1 if at == axis else size for at, size in enumerate(sizes)], dtype.numpy())
        numbers = {"one": zeros} if more else {key: np.array([n]) for key, n in (("from", 0), ("to", 1), ("at", axis))}
        operands = []
        for key, array in numbers.items():
            name = f"{output.name}//{key}"
            value = ir.Value(name=name, const_value=ir.tensor(array, name=name), shape=ir.Shape(array.shape))
            value.dtype = dtype if more else ir.DataType.INT64
            model.graph.register_initializer(value)
            operands.append(value)
        given = ir.Value(name=f"{output.name}//given", type=output.type)
        output.replace_all_uses_with(given, replace_graph_outputs=True)
        attributes = [ir.AttrInt64("axis", axis)] if more else []
        operator = "Concat" if more else "Slice"
        model.graph.insert_after(node, [ir.Node("", operator, [output, *operands], attributes, outputs=[given])])
    return model


def _type_of(feed: np.ndarray) -> ir.DataType:
    return ir.DataType.from_numpy(feed.dtype)


def _value_types(model: ir.Model) -> dict[str, ir.DataType | str]:
    """Return the element type of each tensor that nodes make, or what it is instead of a tensor, in words."""
    names = [str(value.name) for node in model.graph for value in node.outputs if value.name]
    session = open_session(model, optimise=False, outputs=names)
    types: dict[str, ir.DataType | str] = {}
    for output in session.get_outputs():
        kind, _, rest = output.type.partition("(")
        known = _TYPES.get(rest.rstrip(")")) if kind == "tensor" else None
        if output.name in names:
            types[output.name] = known if known is not None else f"is a {output.type}"
    return types


def _with_shapes(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """Return the model with the shapes of tensors as its outputs."""
    probed = model.clone()
    made = {value.name: value for node in probed.graph for value in node.outputs}
    outputs = []
    for name in names:
        shape = ir.Value(name=name + _SUFFIX, type=ir.TensorType(ir.DataType.INT64))
        probed.graph.append(ir.Node("", "Shape", [made[name]], outputs=[shape]))
        outputs.append(shape)
    probed.graph.outputs[:] = outputs
    return probed
