"""What a layer costs per request: operations, multiply-accumulates, bytes moved, and the kind of work.

Operation counts follow the usual convention: a multiply-accumulate is two operations, and only convolutions and
matrix products (recurrent cells included) have multiply-accumulates; published "MACs" or "GFLOPs" of vision
models count these. Pooling counts one operation per element of its windows, normalisations a few per element,
element-wise operators one. Operators not listed count one per output element.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import onnx_ir as ir

from planner.profiling.shapes import Tensor

Kind = Literal["conv", "grouped", "depthwise", "matmul", "pool", "norm", "elementwise", "move", "view"]

VIEWS = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Shape", "Size"}
MOVES = {"Concat", "Transpose", "Slice", "Split", "Gather", "GatherElements", "GatherND", "ScatterElements",
         "ScatterND", "Pad", "Tile", "Expand", "Cast", "DepthToSpace", "SpaceToDepth", "ConstantOfShape"}  # fmt: skip
NORMS = {"BatchNormalization": 2, "LayerNormalization": 8, "InstanceNormalization": 8, "GroupNormalization": 8,
         "RMSNormalization": 5, "LpNormalization": 4, "Softmax": 5, "LogSoftmax": 6}  # fmt: skip
COSTLY_ELEMENTS = {"Sigmoid": 4, "Tanh": 6, "Erf": 8, "Gelu": 10, "Exp": 4, "Log": 4, "Pow": 4, "Sqrt": 2,
                   "HardSigmoid": 3, "HardSwish": 4, "Elu": 4, "Mish": 8, "Swish": 5}  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """Work of a layer for one request.

    ``read_bytes`` and ``written_bytes`` are its activations; parameters are read once per batch and kept apart
    (``Layer.parameter_bytes``). A view moves nothing. ``kernel`` is that of a convolution of stride 1, empty elsewhere.
    """

    kind: Kind
    operations: int
    macs: int
    read_bytes: int
    written_bytes: int
    kernel: tuple[int, ...] = ()


def layer_cost(node: ir.Node, tensors: Mapping[str, Tensor], inputs: Sequence[str], outputs: Sequence[str]) -> Cost:
    """Return a node's cost, given all tensors and the names of the activations that it reads and writes."""
    shapes = [tensors[str(value.name)].shape if value is not None and value.name else () for value in node.inputs]
    made = tensors[outputs[0]].shape
    kind, operations, macs = _work(node, shapes, made)
    moved = (0, 0)
    if kind != "view":
        moved = (
            sum(tensors[name].request_bytes for name in inputs),
            sum(tensors[name].request_bytes for name in outputs),
        )
    return Cost(kind, operations, macs, *moved, _unit_kernel(node, shapes))


def _unit_kernel(node: ir.Node, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the kernel of a convolution whose strides and dilations are 1."""
    if node.op_type != "Conv" or {*_integers(node, "strides"), *_integers(node, "dilations")} - {1}:
        return ()
    return shapes[1][2:]


def _work(node: ir.Node, shapes: Sequence[tuple[int, ...]], made: tuple[int, ...]) -> tuple[Kind, int, int]:
    """Return the kind of work, the operations and the multiply-accumulates of a node for one request."""
    operator = node.op_type
    if operator in MULTIPLIERS:
        kind, macs = MULTIPLIERS[operator](node, shapes, made)
        return kind, 2 * macs, macs
    elements = prod(made)
    if operator in VIEWS:
        return "view", 0, 0
    if operator in MOVES:
        return "move", 0, 0
    if operator in NORMS:
        return "norm", NORMS[operator] * elements, 0
    if operator == "LRN":
        return "norm", (_integer(node, "size", 1) * 2 + 4) * elements, 0
    if operator in ("MaxPool", "AveragePool", "LpPool"):
        return "pool", prod(_integers(node, "kernel_shape")) * elements, 0
    if operator.startswith(("Global", "Reduce", "Arg", "CumSum", "TopK")):
        return "pool", prod(shapes[0]) if shapes else elements, 0
    return "elementwise", COSTLY_ELEMENTS.get(operator, 1) * elements * max(1, len(shapes) - 1), 0


def _convolution(node: ir.Node, shapes: Sequence[tuple[int, ...]], made: tuple[int, ...]) -> tuple[Kind, int]:
    """Multiply-accumulates: every output element sums kernel × input channels of its own group."""
    weights = shapes[3] if node.op_type == "QLinearConv" else shapes[1]
    return _convolution_kind(node, shapes[0][1]), prod(made) * prod(weights[1:])


def _transposed_convolution(
    node: ir.Node, shapes: Sequence[tuple[int, ...]], made: tuple[int, ...]
) -> tuple[Kind, int]:
    """Multiply-accumulates: every input element spreads over kernel × output channels of its own group."""
    return _convolution_kind(node, shapes[0][1]), prod(shapes[0]) * prod(shapes[1][1:])


def _convolution_kind(node: ir.Node, channels: int) -> Kind:
    groups = _integer(node, "group", 1)
    if groups == 1:
        return "conv"
    return "depthwise" if groups == channels else "grouped"


def _gemm(node: ir.Node, shapes: Sequence[tuple[int, ...]], made: tuple[int, ...]) -> tuple[Kind, int]:
    summed = shapes[0][0] if _integer(node, "transA", 0) else shapes[0][1]
    return "matmul", prod(made) * summed


def _product(node: ir.Node, shapes: Sequence[tuple[int, ...]], made: tuple[int, ...]) -> tuple[Kind, int]:
    return "matmul", prod(made) * shapes[0][-1]


def _einsum(node: ir.Node, shapes: Sequence[tuple[int, ...]], made: tuple[int, ...]) -> tuple[Kind, int]:
    """Multiply-accumulates: the product of the sizes of all subscripts."""
    terms = node.attributes["equation"].as_string().replace(" ", "").partition("->")[0].split(",")
    sizes = {letter: size for term, shape in zip(terms, shapes, strict=True) for letter, size in zip(term, shape)}  # noqa: B905
    return "matmul", prod(sizes.values())


def _recurrence(node: ir.Node, shapes: Sequence[tuple[int, ...]], made: tuple[int, ...]) -> tuple[Kind, int]:
    """Multiply-accumulates: per step and request, each gate's weights times its input and its state."""
    weights, states = shapes[1], shapes[2]
    return "matmul", prod(shapes[0][:2]) * (prod(weights) + prod(states))


MULTIPLIERS: dict[str, Callable[..., tuple[Kind, int]]] = {
    "Conv": _convolution, "ConvInteger": _convolution, "QLinearConv": _convolution,
    "ConvTranspose": _transposed_convolution, "Gemm": _gemm, "MatMul": _product, "MatMulInteger": _product,
    "QLinearMatMul": _product, "Einsum": _einsum, "LSTM": _recurrence, "GRU": _recurrence, "RNN": _recurrence,
}  # fmt: skip


def _integer(node: ir.Node, name: str, default: int) -> int:
    return node.attributes[name].as_int() if name in node.attributes else default


def _integers(node: ir.Node, name: str) -> Sequence[int]:
    return node.attributes[name].as_ints() if name in node.attributes else ()
