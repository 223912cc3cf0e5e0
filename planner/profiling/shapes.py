"""Shapes of all tensors of a model, and how they grow with the batch.

ONNX's shape inference runs on two batch sizes, 2 and 3, on which everything is a number: what grows in step is
the batch dimension, whatever path it took (Shape, Gather, Concat, Reshape). Neither size is 1, which would
broadcast with anything and hide a pinned batch. Where inference ends (an operator that it does not know, sizes that
depend on the data) the model is run instead (`planner.profiling.probing`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import onnx
import onnx_ir as ir

from planner.model import InputError
from planner.profiling.decisions import find_fork, sized_values
from planner.profiling.graphs import (
    TRAVELLING,
    axis_label,
    batch_dimension,
    input_shape,
    one_line,
    read_values,
    varying_values,
    where,
)
from planner.profiling.probing import Probe, probe_shapes

_INFERRED = (2, 3)
_PROBED = (2, 3, 5)
_SMALL = 1024  # elements; constants up to this size may hold shapes and are shown to the inference

_UNSIZED = {ir.DataType.UNDEFINED, ir.DataType.STRING}


@dataclass(frozen=True)
class Tensor:
    """A tensor's element type and its shape for one request.

    ``batch_axis`` is the axis along which it grows with the batch, None where its size is always the same.
    ``obstacle`` says why it cannot cross a cut, an empty text where it can; ``shape`` is then one that was met. Its
    size ``varies`` where it depends on the data.
    """

    name: str
    dtype: ir.DataType
    shape: tuple[int, ...]
    batch_axis: int | None
    obstacle: str = ""
    varies: bool = False

    @property
    def batched(self) -> bool:
        """Whether the tensor grows with the batch."""
        return self.batch_axis is not None

    @property
    def elements(self) -> int:
        """Number of elements per request."""
        return prod(self.shape)

    @property
    def request_bytes(self) -> int:
        """Bytes per request (the whole size where the tensor does not grow with the batch)."""
        return 0 if self.dtype in _UNSIZED else -(-self.elements * self.dtype.bitwidth // 8)


def infer_tensors(model: ir.Model, *, single: bool = False) -> dict[str, Tensor]:
    """Return every tensor of the main graph by name, and write symbolic shapes into the model's values.

    Parameters
    ----------
    single
        The inputs have no symbolic dimension: a run takes one request.

    Raises
    ------
    InputError
        Inputs are not ready (`check_inputs`), the batch is pinned, or shapes contradict each other.
    """
    check_inputs(model.graph, single=single)
    probes = _shapes(model, (1,) if single else _INFERRED)
    tensors: dict[str, Tensor] = {}
    for value, node in _values(model.graph):
        name = str(value.name)
        if not all(name in probe.shapes for probe in probes):
            if node is not None and not value.uses() and not value.is_graph_output():
                continue  # an optional output that nobody reads
            obstacle = next((probe.opaque[name] for probe in probes if name in probe.opaque), "")
            if not obstacle:
                raise InputError(_unknown(name, node))
            tensors[name] = Tensor(name, ir.DataType.UNDEFINED, (0,), None, f"it {obstacle}")
            continue
        tensor = _tensor(name, probes)
        tensors[name] = _as_request(value, tensor) if single else tensor
        if name not in model.graph.initializers and not tensor.obstacle:
            value.shape = ir.Shape(_symbolic(tensor))
            value.dtype = tensor.dtype
    if not single:
        _check_batch(model.graph, tensors)
    return tensors


def _shapes(model: ir.Model, batches: Sequence[int]) -> list[Probe]:
    """Return the shapes at some batch sizes, inferred where that gives all of them, else by running the model."""
    wanted = {
        str(value.name)
        for value, node in _values(model.graph)
        if node is None or value.uses() or value.is_graph_output()
    }
    try:
        inferred = [concrete_shapes(model, batch) for batch in batches]
        reason = None
    except InputError as error:
        inferred, reason = [], error
    if inferred and all(wanted <= found.keys() for found in inferred):
        return [Probe(batch, found, {}) for batch, found in zip(batches, inferred, strict=True)]
    constants = constant_shapes(model.graph)
    try:
        return probe_shapes(model, batches if batches == (1,) else _PROBED, constants)
    except InputError as error:
        for value, node in _values(model.graph):
            if inferred and str(value.name) in wanted and any(str(value.name) not in found for found in inferred):
                raise InputError(f"{_unknown(str(value.name), node)}; running it did not help: {error}") from None
        raise reason or error from None


def _unknown(name: str, node: ir.Node | None) -> str:
    return (
        f"unsupported dynamic shape: tensor {name!r} of {where(node)} has a shape that cannot be inferred "
        "(it depends on the data, or the operator is unknown); cut the model before it or fix the shape"
    )


def _tensor(name: str, probes: Sequence[Probe]) -> Tensor:
    """Return a tensor that was met at several batch sizes; linear in the batch, f(1) = f(b) / b along one axis."""
    dtype, first = probes[0].shapes[name]
    shapes = [probe.shapes[name][1] for probe in probes]
    opaque = next((probe.opaque[name] for probe in probes if name in probe.opaque), "")
    if opaque or len({len(shape) for shape in shapes}) > 1:
        reason = f"it {opaque or 'changes its number of dimensions with the batch'}"
        return Tensor(name, dtype, first, None, reason, varies=bool(opaque) and dtype in TRAVELLING)
    obstacle = "" if dtype in TRAVELLING else f"it holds {dtype.name.lower()}, which does not travel between stages"
    moved = [axis for axis in range(len(first)) if len({shape[axis] for shape in shapes}) > 1]
    if not moved:
        return Tensor(name, dtype, first, None, obstacle)
    axis, batch = moved[0], probes[0].batch
    if len(moved) > 1:
        return Tensor(name, dtype, first, axis, f"its axes {moved} all grow with the batch")
    if any(shape[axis] * batch != first[axis] * probe.batch for shape, probe in zip(shapes, probes, strict=True)):
        sizes = [shape[axis] for shape in shapes]
        at = [probe.batch for probe in probes]
        return Tensor(name, dtype, first, axis, f"its size along axis {axis} is {sizes} at batches {at}")
    return Tensor(name, dtype, (*first[:axis], first[axis] // batch, *first[axis + 1 :]), axis, obstacle)


def _as_request(value: ir.Value, tensor: Tensor) -> Tensor:
    """Return an input or output of a model that takes one request a run as if requests lay along its first axis."""
    first = 0 if tensor.shape and (value.is_graph_input() or value.is_graph_output()) else None
    return replace(tensor, batch_axis=first)


def _check_batch(graph: ir.Graph, tensors: dict[str, Tensor]) -> None:
    """Refuse a node that makes tensors of one size from tensors of many requests, and outputs that do not grow."""
    for node in graph:
        read = [tensors[str(value.name)] for value in node.inputs if value is not None and value.name in tensors]
        made = [tensors[str(value.name)] for value in node.outputs if value.name in tensors]
        pins = any(t.batched for t in read) and not any(t.batched or t.obstacle for t in made)
        if pins and node.op_type not in ("Shape", "Size"):
            raise InputError(
                f"{where(node)} mixes requests that share a run, or pins the batch: it makes shape "
                f"{list(made[0].shape)} of however many requests"
            )
    _check_decisions(graph, tensors)
    for value in graph.outputs:
        tensor = tensors[str(value.name)]
        if tensor.obstacle:
            raise InputError(f"output {value.name!r} is nothing that requests could share: {tensor.obstacle}")


def _check_decisions(graph: ir.Graph, tensors: dict[str, Tensor]) -> None:
    """Refuse what all requests of a run decide together, be it that drawn ones never decide otherwise."""
    varying = varying_values(graph, random=False)
    fork = find_fork(graph, varying)
    if fork is not None:
        raise InputError(
            f"{where(fork)} mixes requests that share a run: what they hold decides on one course for all of them"
        )
    data = varying - sized_values(graph, varying)
    for node in graph:
        read = [tensors[str(value.name)] for value in read_values(node) if value in data and value.name in tensors]
        common = next((tensor.name for tensor in read if not tensor.batched and not tensor.obstacle), None)
        if common is not None and any(tensor.batched for tensor in read):
            raise InputError(
                f"{where(node)} mixes requests that share a run: all of them decide {common!r}, which it reads"
            )


def concrete_shapes(model: ir.Model, batch: int) -> dict[str, tuple[ir.DataType, tuple[int, ...]]]:
    """Return the element type and shape of each tensor when the batch is ``batch``, as ONNX infers them.

    Tensors whose shape cannot be inferred are left out. Raises InputError where shapes contradict each other.
    """
    scratch = model.clone()
    graph = scratch.graph
    for value in graph.inputs:
        if value.name not in graph.initializers and value.shape is not None:
            value.shape = ir.Shape(input_shape(value, batch))
    for value, node in _values(graph):
        if node is not None:
            value.shape = None
    _hide_large_constants(graph)
    scratch.ir_version = max(scratch.ir_version, 4)
    try:
        inferred = onnx.shape_inference.infer_shapes(ir.to_proto(scratch), strict_mode=True, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        raise InputError(f"shapes do not fit at batch {batch}: {one_line(error)}") from None
    found = {}
    for info in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        tensor = info.type.tensor_type
        if info.type.HasField("tensor_type") and tensor.HasField("shape"):
            sizes = [size.dim_value if size.HasField("dim_value") else -1 for size in tensor.shape.dim]
            if min(sizes, default=0) >= 0:
                found[info.name] = (ir.DataType(tensor.elem_type), tuple(sizes))
    return found | constant_shapes(model.graph)


def constant_shapes(graph: ir.Graph) -> dict[str, tuple[ir.DataType, tuple[int, ...]]]:
    """Return the element types and shapes of the initializers."""
    return {
        name: (value.const_value.dtype, tuple(value.const_value.shape.numpy()))
        for name, value in graph.initializers.items()
        if value.const_value is not None
    }


def check_inputs(graph: ir.Graph, *, single: bool = False) -> None:
    """Refuse inputs without exactly one symbolic dimension, the batch (none where ``single``); raises InputError."""
    for value in graph.inputs:
        if value.name in graph.initializers:
            continue
        if value.shape is None:
            raise InputError(f"unsupported dynamic shape: input {value.name!r} has no shape; export the model with one")
        symbolic = [axis for axis, size in enumerate(value.shape) if not isinstance(size, int)]
        if len(value.shape) == 0 and not single:
            raise InputError(
                f"input {value.name!r} has no batch dimension (it is a scalar); "
                f"give its value with --constant {value.name}=VALUE"
            )
        if not symbolic and not single:
            raise InputError(f"input {value.name!r} pins the batch to {value.shape[0]}; free it first")
        for axis in symbolic[0 if single else 1 :]:
            raise InputError(
                f"unsupported dynamic shape: input {value.name!r} has shape {value.shape}, whose dimension "
                f"{axis} is no number; only the batch may vary: fix it with --fix {axis_label(value, axis)}=NUMBER"
            )


def _values(graph: ir.Graph) -> list[tuple[ir.Value, ir.Node | None]]:
    """Return the named values of the main graph, each with the node that makes it."""
    given: dict[str, ir.Value] = {str(value.name): value for value in graph.inputs}
    given.update(graph.initializers)
    values: list[tuple[ir.Value, ir.Node | None]] = [(value, None) for value in given.values()]
    return values + [(value, node) for node in graph for value in node.outputs if value.name]


def _hide_large_constants(graph: ir.Graph) -> None:
    """Make inputs of the large initializers, so that the inference neither loads nor copies them."""
    inputs = {value.name for value in graph.inputs}
    for name, value in list(graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or tensor.size <= _SMALL:
            continue
        value.shape, value.dtype = ir.Shape(tensor.shape.numpy()), tensor.dtype
        del graph.initializers[name]
        value.const_value = None
        if name not in inputs:
            graph.inputs.append(value)


def _symbolic(tensor: Tensor) -> list[int | str]:
    return [batch_dimension(size) if axis == tensor.batch_axis else size for axis, size in enumerate(tensor.shape)]
