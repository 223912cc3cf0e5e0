"""ONNX models as differentiable functions: their layers computed by autograd's NumPy.

The operators of small classifiers, in their usual forms: what is missing is said by name. Convolutions and pools are
sums and maxima over the places of a kernel, each a slice of the whole batch.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import autograd.numpy as anp
import numpy as np
import onnx_ir as ir

from planner.model import InputError
from planner.profiling import ModelGraph
from planner.profiling.common_layers import node_of

Array = Any  # NumPy's arrays, or what autograd traces them with


def answer(graph: ModelGraph, weights: Mapping[str, Array], x: Array) -> Array:
    """Return the (first) output of a model whose only input is ``x`` ``[request, ...]``.

    Parameters
    ----------
    weights
        Values of initializers by name, in place of those in the file.

    Raises
    ------
    InputError
        The model has several inputs, or an operator or a form of it that is not known here.
    """
    if len(graph.inputs) != 1:
        raise InputError(f"{graph.name}: expected one input to train with, got {[one.name for one in graph.inputs]}")
    known: dict[str, Array] = {graph.inputs[0].name: x}
    for layer in graph.layers:
        node = node_of(graph, layer)
        if node.op_type not in OPERATORS or len(layer.outputs) > 1:
            raise InputError(
                f"{graph.name}: layer {layer.name}: cannot train through operator {node.op_type}; expected one of "
                f"{', '.join(sorted(OPERATORS))}"
            )
        values = [None if value is None else _value(graph, known, weights, str(value.name)) for value in node.inputs]
        known[layer.outputs[0]] = OPERATORS[node.op_type](values, node)
    return known[graph.outputs[0]]


def trainable(graph: ModelGraph, first: int = 0, last: int | None = None) -> list[str]:
    """Return the names of the floating-point weights of layers [first, last), in the order in which they are read."""
    names = dict.fromkeys(name for layer in graph.layers[first:last] for name in layer.parameters)
    constants = graph.model.graph.initializers
    return [name for name in names if name in constants and _is_floating(constants[name])]


def _is_floating(value: ir.Value) -> bool:
    tensor = value.const_value
    return tensor is not None and bool(tensor.dtype.is_floating_point())


def group_starts(graph: ModelGraph) -> tuple[int, ...]:
    """Return the layers at which layer groups begin: the first, and every later one with weights."""
    weighted = [number for number in range(len(graph.layers)) if trainable(graph, number, number + 1)]
    return 0, *weighted[1:]


def _value(graph: ModelGraph, known: Mapping[str, Array], weights: Mapping[str, Array], name: str) -> Array:
    for where in (known, weights):
        if name in where:
            return where[name]
    constant = graph.model.graph.initializers.get(name) or _made_by_a_node(graph, name)
    tensor = None if constant is None else ir.convenience.get_const_tensor(constant)
    if tensor is None:
        raise InputError(f"{graph.name}: cannot tell the value of {name!r}; export the model with constants folded")
    return tensor.numpy()


def _made_by_a_node(graph: ModelGraph, name: str) -> ir.Value | None:
    return next((value for node in graph.model.graph for value in node.outputs if value.name == name), None)


def _attribute(node: ir.Node, name: str, default: Any) -> Any:
    return node.attributes[name].value if name in node.attributes else default


def _refuse(node: ir.Node, **usual: Any) -> None:
    """Raise InputError unless attributes that are given are as usual."""
    for name, expected in usual.items():
        got = _attribute(node, name, expected)
        got = got if isinstance(got, int | str) else list(got)
        if got != expected:
            raise InputError(f"cannot train through {node.op_type} with {name} = {got}; expected {expected}")


def _gemm(values: Sequence[Array], node: ir.Node) -> Array:
    a, b = values[:2]
    a = a.T if _attribute(node, "transA", 0) else a
    b = b.T if _attribute(node, "transB", 0) else b
    product = _attribute(node, "alpha", 1.0) * anp.dot(a, b)
    return product if len(values) < 3 or values[2] is None else product + _attribute(node, "beta", 1.0) * values[2]


def _windows(x: Array, node: ir.Node, kernel: Sequence[int], fill: float) -> list[tuple[int, int, Array]]:
    """Return for every place of a kernel the values under it, ``[request, channel, row, column]``."""
    _refuse(node, auto_pad="NOTSET", dilations=[1, 1], ceil_mode=0)
    strides = _attribute(node, "strides", (1, 1))
    top, left, bottom, right = _attribute(node, "pads", (0, 0, 0, 0))
    if top or left or bottom or right:
        x = anp.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), mode="constant", constant_values=fill)
    rows, columns = ((x.shape[2 + axis] - kernel[axis]) // strides[axis] + 1 for axis in (0, 1))
    return [
        (i, j, x[:, :, i : i + rows * strides[0] : strides[0], j : j + columns * strides[1] : strides[1]])
        for i in range(kernel[0])
        for j in range(kernel[1])
    ]


def _convolution(values: Sequence[Array], node: ir.Node) -> Array:
    _refuse(node, group=1)
    x, weight = values[:2]
    made = sum(
        anp.einsum("nchw,oc->nohw", under[:, :, : under.shape[2]], weight[:, :, i, j])
        for i, j, under in _windows(x, node, weight.shape[2:], 0.0)
    )
    return made if len(values) < 3 or values[2] is None else made + values[2][None, :, None, None]


def _max_pool(values: Sequence[Array], node: ir.Node) -> Array:
    first, *rest = (u for _, _, u in _windows(values[0], node, _attribute(node, "kernel_shape", ()), -np.inf))
    for other in rest:
        first = anp.maximum(first, other)
    return first


def _average_pool(values: Sequence[Array], node: ir.Node) -> Array:
    _refuse(node, pads=[0, 0, 0, 0])
    under = [u for _, _, u in _windows(values[0], node, _attribute(node, "kernel_shape", ()), 0.0)]
    return sum(under) / len(under)


def _normalised(values: Sequence[Array], node: ir.Node) -> Array:
    _refuse(node, training_mode=0)
    x, scale, shift, mean, variance = values
    shape = (1, -1, *(1,) * (x.ndim - 2))
    factor = scale / anp.sqrt(variance + _attribute(node, "epsilon", 1e-5))
    return x * anp.reshape(factor, shape) + anp.reshape(shift - mean * factor, shape)


def _flatten(values: Sequence[Array], node: ir.Node) -> Array:
    _refuse(node, axis=1)
    return anp.reshape(values[0], (values[0].shape[0], -1))


def _reshape(values: Sequence[Array], node: ir.Node) -> Array:
    x, shape = values[0], [int(size) for size in values[1]]
    sizes = [x.shape[axis] if size == 0 else size for axis, size in enumerate(shape)]
    return anp.reshape(x, (x.shape[0], *sizes[1:]))


def _softmax(values: Sequence[Array], node: ir.Node) -> Array:
    axis = _attribute(node, "axis", -1)
    powers = anp.exp(values[0] - anp.max(values[0], axis=axis, keepdims=True))
    return powers / anp.sum(powers, axis=axis, keepdims=True)


OPERATORS: Mapping[str, Callable[[Sequence[Array], ir.Node], Array]] = {
    "Add": lambda values, _: values[0] + values[1],
    "AveragePool": _average_pool,
    "BatchNormalization": _normalised,
    "Conv": _convolution,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda values, _: anp.mean(values[0], axis=(2, 3), keepdims=True),
    "Identity": lambda values, _: values[0],
    "MatMul": lambda values, _: anp.matmul(values[0], values[1]),
    "MaxPool": _max_pool,
    "Mul": lambda values, _: values[0] * values[1],
    "Relu": lambda values, _: anp.maximum(values[0], 0.0),
    "Reshape": _reshape,
    "Sigmoid": lambda values, _: 1 / (1 + anp.exp(-values[0])),
    "Softmax": _softmax,
    "Sub": lambda values, _: values[0] - values[1],
    "Tanh": lambda values, _: anp.tanh(values[0]),
}
