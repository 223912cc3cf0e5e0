"""Seeded random weights for architectures that come without trained ones.

Weights follow He et al. (2015), "Delving Deep into Rectifiers": normal with variance 2 / fan-in. Then, layer by
layer, each convolution's and product's weights and bias are scaled so that its output has a root mean square near 1 on
random input (Mishkin and Matas (2016), "All you need is a good init"), so that activations neither vanish nor
saturate a softmax. Scales are powers of two: exact, and the same on machines whose last bits differ.
"""

import zlib
from math import prod

import numpy as np
import onnx_ir as ir

from planner.profiling.graphs import varying_values
from planner.profiling.onnx_graph import read_graph
from planner.profiling.runtime import open_session, random_feeds, run_model
from planner.profiling.split import extract_part

_BATCH_NORM = {1: (1.0, 0.1), 2: (0.0, 0.1), 3: (0.0, 0.1), 4: (1.0, 0.1)}  # input -> mean, deviation
_CENTRED_FAN_IN = 16  # smaller filters (depthwise ones) would lose too much
_PASSED_THROUGH = {"Unsqueeze", "Reshape", "Squeeze", "Identity", "Cast", "Transpose"}


def randomise_weights(model: ir.Model, seed: int) -> ir.Model:
    """Return the model with seeded random initializers in place of float constants made by ConstantOfShape.

    Before IR version 4 an initializer is an input that callers may override, which keeps runtimes from folding
    it, so the IR version becomes at least 4. Values depend on the seed and the weight's name alone.
    """
    made = model.clone()
    graph = made.graph
    varying = varying_values(graph)
    for node in list(graph):
        output = node.outputs[0]
        if node.op_type != "ConstantOfShape" or output in varying or not _makes_floats(node):
            continue
        sizes = ir.convenience.get_const_tensor(node.inputs[0]) if node.inputs[0] is not None else None
        if sizes is None:
            continue
        shape = tuple(int(size) for size in sizes.numpy())
        name = str(output.name)
        weight = ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))
        weight.const_value = ir.tensor(_draw(output, shape, seed), name=name)
        output.replace_all_uses_with(weight, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        graph.register_initializer(weight)
    made.ir_version = max(made.ir_version, 4)
    _drop_unused_initializers(graph)
    return made


def balance_weights(model: ir.Model, seed: int) -> ir.Model:
    """Return the model with each convolution's and product's weights scaled until its output's size is near 1."""
    graph = read_graph(model)
    rng = np.random.default_rng(seed)
    alive = dict(random_feeds(graph.model, 2, rng))
    for index, layer in enumerate(graph.layers):
        part = extract_part(graph, index, index + 1)
        feeds = {name: alive[name] for name in part.inputs}
        made = run_model(open_session(part.model, optimise=False), feeds)
        if layer.cost.macs:
            scale = np.float32(2.0 ** -round(float(np.log2(np.sqrt(np.mean(np.square(made[0])))))))
            for name in layer.parameters:
                if name in graph.model.graph.initializers:
                    _scale(graph.model.graph.initializers[name], scale)
            made = [output * scale for output in made]
        alive.update(zip(part.outputs, made, strict=True))
        for name in set(alive) - set(graph.alive[index + 1]):
            del alive[name]
    return graph.model


def _scale(value: ir.Value, scale: np.float32) -> None:
    tensor = value.const_value
    assert tensor is not None
    value.const_value = ir.tensor(tensor.numpy() * scale, name=value.name)


def _draw(value: ir.Value, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Return random numbers that suit the operator which reads a weight, directly or through a reshape."""
    name = str(value.name)
    node, position = next(iter(value.uses()))
    while node.op_type in _PASSED_THROUGH:
        node, position = next(iter(node.outputs[0].uses()))
    if node.op_type == "BatchNormalization":
        mean, deviation = _BATCH_NORM[position]
    elif node.op_type in ("Conv", "Gemm", "MatMul", "ConvTranspose") and len(shape) > 1:
        return draw_filters(name, shape, seed, 0 if node.op_type == "Conv" or _transposed(node) else -1)
    else:
        mean, deviation = (1.0, 0.1) if node.op_type in ("Mul", "Div") else (0.0, 0.1)
    return draw_normal(name, shape, seed, mean, deviation)


def draw_normal(name: str, shape: tuple[int, ...], seed: int, mean: float, deviation: float) -> np.ndarray:
    """Return normal numbers that depend on the seed and the weight's name."""
    numbers = _generator(name, seed).standard_normal(shape, np.float32)
    numbers *= np.float32(deviation)
    numbers += np.float32(mean)
    return numbers


def draw_filters(name: str, shape: tuple[int, ...], seed: int, output_axis: int) -> np.ndarray:
    """Return normal weights that depend on the seed and the weight's name, each filter with mean 0.

    A filter's inputs lie along all axes but ``output_axis``. After a rectifier all activations are positive;
    filters of mean 0 see their differences, not their common part, which in a deep network would otherwise
    drown what tells one input from another.
    """
    summed = tuple(axis for axis in range(len(shape)) if axis != output_axis % len(shape))
    fan_in = prod(shape[axis] for axis in summed)
    numbers = _generator(name, seed).standard_normal(shape, np.float32)
    if fan_in >= _CENTRED_FAN_IN:
        numbers -= numbers.mean(axis=summed, keepdims=True)
    numbers *= np.float32(np.sqrt(2 / fan_in))
    return numbers


def _generator(name: str, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def _makes_floats(node: ir.Node) -> bool:
    return "value" not in node.attributes or node.attributes["value"].as_tensor().dtype == ir.DataType.FLOAT


def _transposed(node: ir.Node) -> bool:
    return "transB" in node.attributes and node.attributes["transB"].as_int() == 1


def _drop_unused_initializers(graph: ir.Graph) -> None:
    kept = {str(value.name) for node in graph.all_nodes() for value in node.inputs if value is not None}
    for name in [name for name in graph.initializers if name not in kept]:
        del graph.initializers[name]
    for value in [v for v in graph.inputs if v.name in graph.initializers or not v.uses()]:
        graph.inputs.remove(value)
