"""Shapes of all tensors of a model, and how they grow with the batch.

ONNX's shape inference runs on two batch sizes, 2 and 3, on which everything is a number: what grows in step is
the batch dimension, whatever path it took (Shape, Gather, Concat, Reshape). Neither size is 1, which would
broadcast with anything and hide a pinned batch.
"""

from dataclasses import dataclass
from math import prod

import onnx
import onnx_ir as ir

from planner.model import InputError

BATCH = "batch"
_PROBES = (2, 3)
_SMALL = 1024  # elements; constants up to this size may hold shapes and are shown to the inference


@dataclass(frozen=True)
class Tensor:
    """A tensor's element type and its shape for one request.

    ``batch_axis`` is the axis along which it grows with the batch, None where its size is always the same.
    """

    name: str
    dtype: ir.DataType
    shape: tuple[int, ...]
    batch_axis: int | None

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
        return -(-self.elements * self.dtype.bitwidth // 8)


def infer_tensors(model: ir.Model) -> dict[str, Tensor]:
    """Return every tensor of the main graph by name, and write symbolic shapes into the model's values.

    Raises
    ------
    InputError
        The batch is pinned, or a shape depends on the data or on an unknown operator.
    """
    small, large = (concrete_shapes(model, batch) for batch in _PROBES)
    constants = set(model.graph.initializers)
    tensors = {}
    for value, node in _values(model.graph):
        name = str(value.name)
        if name not in small or name not in large:
            if node is not None and not value.uses() and not value.is_graph_output():
                continue  # an optional output that nobody reads
            raise InputError(
                f"unsupported dynamic shape: tensor {name!r} of {_where(node)} has a shape that cannot be inferred "
                "(it depends on the data, or the operator is unknown); cut the model before it or fix the shape"
            )
        (dtype, low), (_, high) = small[name], large[name]
        # Linear in the batch: f(1) = 2 f(2) - f(3).
        unit = tuple(2 * low_size - high_size for low_size, high_size in zip(low, high, strict=True))
        moved = [axis for axis, sizes in enumerate(zip(low, high, strict=True)) if len(set(sizes)) > 1]
        tensors[name] = Tensor(name, dtype, unit, moved[0] if moved else None)
        if name not in constants:
            value.shape = ir.Shape([_symbolic(*sizes) for sizes in zip(unit, low, strict=True)])
            value.dtype = dtype
    _check_batch(model.graph, tensors)
    return tensors


def _check_batch(graph: ir.Graph, tensors: dict[str, Tensor]) -> None:
    """Refuse a node that makes tensors of one size from tensors of many requests, and outputs that do not grow."""
    for node in graph:
        read = [tensors[str(value.name)] for value in node.inputs if value is not None and value.name in tensors]
        made = [tensors[str(value.name)] for value in node.outputs if value.name in tensors]
        if any(t.batched for t in read) and not any(t.batched for t in made) and node.op_type not in ("Shape", "Size"):
            raise InputError(
                f"{_where(node)} pins the batch: it makes shape {list(made[0].shape)} whatever the batch is; "
                "export the model with a symbolic batch dimension"
            )
    for value in graph.outputs:
        if value.shape is None or len(value.shape) == 0 or isinstance(value.shape[0], int):
            raise InputError(
                f"output {value.name!r} pins the batch: its shape is {value.shape}, whose first dimension does not "
                "grow with the batch; export the model with a symbolic batch dimension"
            )


def concrete_shapes(model: ir.Model, batch: int) -> dict[str, tuple[ir.DataType, tuple[int, ...]]]:
    """Return the element type and shape of each tensor when the inputs' symbolic first dimensions are ``batch``.

    Tensors whose shape cannot be inferred are left out. Raises InputError where shapes contradict each other
    or an input is not ready (`check_inputs`).
    """
    check_inputs(model.graph)
    scratch = model.clone()
    graph = scratch.graph
    for value in graph.inputs:
        if value.name not in graph.initializers and value.shape is not None:
            value.shape = ir.Shape([batch, *value.shape[1:]])
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
    for name, value in model.graph.initializers.items():
        if value.const_value is not None:
            found[name] = (value.const_value.dtype, tuple(value.const_value.shape.numpy()))
    return found


def check_inputs(graph: ir.Graph) -> None:
    """Refuse inputs without a symbolic batch dimension first and numbers after it; raises InputError."""
    for value in graph.inputs:
        if value.name in graph.initializers:
            continue
        if value.shape is None:
            raise InputError(f"unsupported dynamic shape: input {value.name!r} has no shape; export the model with one")
        if len(value.shape) == 0:
            raise InputError(f"input {value.name!r} has no batch dimension (it is a scalar); export the model with one")
        if isinstance(value.shape[0], int):
            raise InputError(f"input {value.name!r} pins the batch to {value.shape[0]}; free it first")
        for position, size in enumerate(value.shape[1:], start=1):
            if not isinstance(size, int):
                raise InputError(
                    f"unsupported dynamic shape: input {value.name!r} has shape {value.shape}, whose dimension "
                    f"{position} is no number; only the batch may vary: export the model with that dimension fixed"
                )


def one_line(error: BaseException) -> str:
    """Return an error's message on one line, shortened to 200 characters."""
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:197] + "..."


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


def _symbolic(unit: int, at_two: int) -> int | str | None:
    if unit == at_two:
        return unit
    if at_two == 2 * unit:
        return BATCH if unit == 1 else f"{BATCH}*{unit}"
    return None


def _where(node: ir.Node | None) -> str:
    return "the model" if node is None else f"node {node.name or node.outputs[0].name!r} ({node.op_type})"
