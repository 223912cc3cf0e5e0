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

from planner.model import InputError
from planner.profiling.bodies import tensors_inside, trips
from planner.profiling.graphs import subgraphs
from planner.profiling.shapes import Tensor

Shape = tuple[int, ...]
Shapes = Sequence[Shape]
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


def layer_cost(
    node: ir.Node,
    tensors: Mapping[str, Tensor],
    inputs: Sequence[str],
    outputs: Sequence[str],
    opsets: Mapping[str, int],
) -> Cost:
    """Return a node's cost, given all tensors and the names of the activations that it reads and writes.

    The work of an If is that of its dearer branch, of a Loop that of its trips where their number is a constant, else
    of one. ``opsets`` are the versions of the operators.
    """
    if next(subgraphs(node), None) is not None:
        return _body_cost(node, tensors, inputs, outputs, opsets)
    shapes = [tensors[str(value.name)].shape if value is not None and value.name else () for value in node.inputs]
    made = tensors[outputs[0]].shape
    if _is_fused_quantisation(node):
        return Cost("view", 0, 0, 0, 0)
    kind, operations, macs = _work(node, shapes, made)
    moved = (0, 0)
    if kind != "view":
        by_name = {str(value.name): value for value in (*node.inputs, *node.outputs) if value is not None}
        moved = (
            sum(tensors[_as_read(by_name.get(name), name)].request_bytes for name in inputs),
            sum(tensors[_as_written(by_name.get(name), name)].request_bytes for name in outputs),
        )
    return Cost(kind, operations, macs, *moved, _unit_kernel(node, shapes))


def _is_fused_quantisation(node: ir.Node) -> bool:
    """Whether runtimes make a node part of the operators around it: what it converts never lies in memory.

    That is so between the DequantizeLinear and the operators that read it, and an operator and the QuantizeLinear that
    alone reads its output: together they are one operator on small integers.
    """
    if node.op_type == "DequantizeLinear":
        return not node.outputs[0].is_graph_output() and bool(node.outputs[0].uses())
    if node.op_type == "QuantizeLinear" and node.inputs[0] is not None:
        return _only_quantised(node.inputs[0])
    return False


def _only_quantised(value: ir.Value) -> bool:
    uses = list(value.uses())
    alone = len(uses) == 1 and uses[0].node.op_type == "QuantizeLinear" and not value.is_graph_output()
    return alone and value.producer() is not None


def _as_read(value: ir.Value | None, name: str) -> str:
    """Return the tensor that is read from memory for a value: the integers where it is dequantised on the way."""
    node = value.producer() if value is not None else None
    if node is not None and node.op_type == "DequantizeLinear" and node.inputs[0] is not None:
        return str(node.inputs[0].name)
    return name


def _as_written(value: ir.Value | None, name: str) -> str:
    """Return the tensor that is written to memory for a value: the integers where it is quantised on the way."""
    if value is not None and _only_quantised(value):
        return str(next(iter(value.uses())).node.outputs[0].name)
    return name


def _body_cost(
    node: ir.Node,
    tensors: Mapping[str, Tensor],
    inputs: Sequence[str],
    outputs: Sequence[str],
    opsets: Mapping[str, int],
) -> Cost:
    """Return the cost of a node with bodies."""
    bodies = [_work_inside(node, body, tensors, opsets) for body in subgraphs(node)]
    operations, macs = max(bodies, key=lambda body: (body[1], body[0]))
    times = trips(node, tensors)
    read = sum(tensors[name].request_bytes for name in inputs)
    written = sum(tensors[name].request_bytes for name in outputs)
    return Cost("matmul" if macs else "elementwise", times * operations, times * macs, read, written)


def _work_inside(
    node: ir.Node, body: ir.Graph, tensors: Mapping[str, Tensor], opsets: Mapping[str, int]
) -> tuple[int, int]:
    """Return operations and multiply-accumulates of one run of a body; nodes of unknown shapes count nothing."""
    known = {**tensors, **tensors_inside(node, body, tensors, opsets)}
    operations = macs = 0
    for inner in body:
        made = [str(value.name) for value in inner.outputs if value.name in known]
        read = [str(value.name) for value in inner.inputs if value is not None and value.name]
        if not made or any(name not in known for name in read):
            continue
        cost = layer_cost(inner, known, [], made, opsets)
        operations, macs = operations + cost.operations, macs + cost.macs
    return operations, macs


def _unit_kernel(node: ir.Node, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the kernel of a convolution whose strides and dilations are 1."""
    if node.op_type != "Conv" or {*_integers(node, "strides"), *_integers(node, "dilations")} - {1}:
        return ()
    return shapes[1][2:]


def _work(node: ir.Node, shapes: Shapes, made: Shape) -> tuple[Kind, int, int]:
    """Return the kind of work, the operations and the multiply-accumulates of a node for one request."""
    operator = node.op_type
    multipliers = MICROSOFT_MULTIPLIERS if node.domain == "com.microsoft" else MULTIPLIERS
    if operator in multipliers:
        kind, macs = multipliers[operator](node, shapes, made)
        if macs:
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


def _convolution(node: ir.Node, shapes: Shapes, made: Shape) -> tuple[Kind, int]:
    """Multiply-accumulates: every output element sums kernel × input channels of its own group."""
    weights = shapes[3] if node.op_type == "QLinearConv" else shapes[1]
    return _convolution_kind(node, shapes[0][1]), prod(made) * prod(weights[1:])


def _transposed_convolution(node: ir.Node, shapes: Shapes, made: Shape) -> tuple[Kind, int]:
    """Multiply-accumulates: every input element spreads over kernel × output channels of its own group."""
    return _convolution_kind(node, shapes[0][1]), prod(shapes[0]) * prod(shapes[1][1:])


def _convolution_kind(node: ir.Node, channels: int) -> Kind:
    groups = _integer(node, "group", 1)
    if groups == 1:
        return "conv"
    return "depthwise" if groups == channels else "grouped"


def _gemm(node: ir.Node, shapes: Shapes, made: Shape) -> tuple[Kind, int]:
    summed = shapes[0][0] if _integer(node, "transA", 0) else shapes[0][1]
    return "matmul", prod(made) * summed


def _product(node: ir.Node, shapes: Shapes, made: Shape) -> tuple[Kind, int]:
    """Multiply-accumulates: every output element sums what the last dimension of the first matrix has."""
    return "matmul", prod(made) * shapes[0][-1]


def _fused_product(node: ir.Node, shapes: Shapes, made: Shape) -> tuple[Kind, int]:
    return "matmul", prod(made) * shapes[0][-2 if _integer(node, "transA", 0) else -1]


def _product_of_packed(node: ir.Node, shapes: Shapes, made: Shape) -> tuple[Kind, int]:
    """Multiply-accumulates: the second matrix is K × N, whatever the bits in which it is packed."""
    return "matmul", prod(made) * _integer(node, "K", shapes[0][-1])


def _einsum(node: ir.Node, shapes: Shapes, made: Shape) -> tuple[Kind, int]:
    """Multiply-accumulates: the product of the sizes of all subscripts, for each operand after the first.

    Dimensions behind ``...`` broadcast from the right. A single operand is summed or rearranged, not multiplied.
    """
    terms = node.attributes["equation"].as_string().replace(" ", "").partition("->")[0].split(",")
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        before, dots, after = term.partition("...")
        behind = len(shape) - len(before) - len(after) if dots else 0
        letters = [*before, *(f"...{position}" for position in range(behind, 0, -1)), *after]
        for letter, size in zip(letters, shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    return "matmul", prod(sizes.values()) * (len(terms) - 1)


def _attention(node: ir.Node, shapes: Shapes, made: Shape) -> tuple[Kind, int]:
    """Multiply-accumulates: queries times keys, and the weights times values, of each head (ONNX, opset 23).

    The whole product counts where a mask or ``is_causal`` leaves half of it out, as runtimes compute it.
    """
    queries, keys, values = shapes[:3]
    if len(queries) == 3:
        heads, kept = _integer(node, "q_num_heads", 1), _integer(node, "kv_num_heads", 1)
        queries = (queries[0], heads, queries[1], queries[2] // heads)
        keys = (keys[0], kept, keys[1], keys[2] // kept)
        values = (values[0], kept, values[1], values[2] // kept)
    past = shapes[4][2] if len(shapes) > 4 and len(shapes[4]) == 4 else 0
    pairs = prod(queries[:3]) * (keys[2] + past)
    return "matmul", pairs * (queries[3] + values[3])


def _separate_attention(node: ir.Node, shapes: Shapes, made: Shape) -> tuple[Kind, int]:
    """Multiply-accumulates of com.microsoft's MultiHeadAttention; queries, keys and values are [batch, n, width]."""
    queries, keys, values = shapes[:3]
    if len(queries) != 3 or len(keys) != 3 or len(values) != 3:
        raise InputError(
            f"node {node.name or node.op_type!r} (MultiHeadAttention): work is counted of separate queries, keys and "
            f"values of three dimensions only, got {[list(shape) for shape in shapes[:3]]}"
        )
    return "matmul", prod(queries[:2]) * keys[1] * (queries[2] + values[2])


def _attention_of_input(node: ir.Node, shapes: Shapes, made: Shape) -> tuple[Kind, int]:
    """Multiply-accumulates of com.microsoft's Attention: three projections of the input, then as above."""
    (batch, length, width), (_, projected) = shapes[0], shapes[1]
    attended = made[-1]
    return "matmul", batch * length * (width * projected + length * ((projected - attended) // 2 + attended))


def _recurrence(node: ir.Node, shapes: Shapes, made: Shape) -> tuple[Kind, int]:
    """Multiply-accumulates: per step and request, each gate's weights times its input and its state."""
    weights, states = shapes[1], shapes[2]
    return "matmul", prod(shapes[0][:2]) * (prod(weights) + prod(states))


MULTIPLIERS: dict[str, Callable[[ir.Node, Shapes, Shape], tuple[Kind, int]]] = {
    "Conv": _convolution, "ConvInteger": _convolution, "DeformConv": _convolution, "QLinearConv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "Gemm": _gemm, "MatMul": _product, "MatMulInteger": _product, "QLinearMatMul": _product, "Einsum": _einsum,
    "Attention": _attention, "LSTM": _recurrence, "GRU": _recurrence, "RNN": _recurrence,
}  # fmt: skip
MICROSOFT_MULTIPLIERS = {
    **MULTIPLIERS, "FusedConv": _convolution, "FusedGemm": _gemm, "FusedMatMul": _fused_product,
    "DynamicQuantizeMatMul": _product, "MatMulIntegerToFloat": _product, "QGemm": _gemm,
    "MatMulNBits": _product_of_packed, "MultiHeadAttention": _separate_attention, "Attention": _attention_of_input,
}  # fmt: skip


def is_opaque(node: ir.Node) -> bool:
    """Tell whether nothing here knows a node's work: an operator outside ONNX without a rule of its own.

    It counts one operation per output element, which may be far from what it does.
    """
    if node.domain in ("", "ai.onnx"):
        return False
    rules = (MICROSOFT_MULTIPLIERS, VIEWS, MOVES, NORMS, COSTLY_ELEMENTS) if node.domain == "com.microsoft" else ()
    return not any(node.op_type in rule for rule in rules)


def _integer(node: ir.Node, name: str, default: int) -> int:
    return node.attributes[name].as_int() if name in node.attributes else default


def _integers(node: ir.Node, name: str) -> Sequence[int]:
    return node.attributes[name].as_ints() if name in node.attributes else ()
