"""Shapes that running reveals: the model is run at some batch sizes, with the shape of every tensor as an output.

That knows every operator that onnxruntime knows, and sees sizes that are computed on the way. It is run on
different inputs, and once more with operators that find something (NonZero, NonMaxSuppression) finding one more: a size
that differs depends on the data.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from planner.model import InputError
from planner.profiling.graphs import one_line
from planner.profiling.runtime import open_session, random_feeds

_SUFFIX = "//shape"  # of the outputs' names; a tensor of a model is hardly called so
_FINDERS = {"NonZero": 1, "NonMaxSuppression": 0, "Unique": 0, "Compress": 0}  # operator -> axis of what it finds
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
    probed = _with_shapes(model, list(tensors))
    session = open_session(probed, optimise=False)
    probes: list[Probe] = []
    finding = None
    for batch in batches:
        feeds, shapes = _run(session, model, tensors, batch, seed=1)
        found = {name: (dtype, shape) for (name, dtype), shape in zip(tensors.items(), shapes, strict=True)}
        if finding is None:
            finding = open_session(_finding_more(probed, found), optimise=False)
        others = _run(session, model, tensors, batch, seed=2)[1]
        more = _run(finding, model, tensors, batch, seed=1)[1]
        moving = {
            name: "has a size that depends on the data"
            for name, *met in zip(tensors, shapes, others, more, strict=True)
            if len(set(met)) > 1
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


def _finding_more(probed: ir.Model, shapes: Mapping[str, tuple[ir.DataType, tuple[int, ...]]]) -> ir.Model:
    """Return the model with one more result, of zeros, from each operator that finds as many as there are."""
    model = probed.clone()
    for node in list(model.graph):
        axis = _FINDERS.get(node.op_type)
        if axis is None or node.domain not in ("", "ai.onnx") or not node.outputs[0].name:
            continue
        output = node.outputs[0]
        dtype, sizes = shapes[str(output.name)]
        zeros = np.zeros([1 if at == axis else size for at, size in enumerate(sizes)], dtype.numpy())
        one = ir.Value(
            name=f"{output.name}//one", const_value=ir.tensor(zeros, dtype=dtype), shape=ir.Shape(zeros.shape)
        )
        one.dtype = dtype
        more = ir.Value(name=f"{output.name}//more", type=output.type)
        output.replace_all_uses_with(more, replace_graph_outputs=True)
        model.graph.register_initializer(one)
        join = ir.Node("", "Concat", [output, one], [ir.AttrInt64("axis", axis)], outputs=[more])
        model.graph.insert_after(node, [join])
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
