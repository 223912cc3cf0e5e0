"""Writing convolutional networks down as ONNX graphs.

Networks are written as an exporter leaves them for inference: batch normalisations are folded into the convolutions
before them (which so have a bias), dropout is gone. Weights are drawn when they are first read, so that a network's
structure costs nothing.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import onnx_ir as ir

from planner.profiling.graphs import BATCH
from planner.profiling.weights import draw_filters, draw_normal

IR_VERSION = 8
OPSET = 17

Pair = int | tuple[int, int]


class NetworkBuilder:
    """A graph under construction: every method adds a layer named after it and returns its output.

    ``channels`` of a value are tracked, so that callers name what a layer makes, not what it reads.
    """

    def __init__(self, name: str, image: tuple[int, int, int], seed: int) -> None:
        self.name = name
        self.seed = seed
        self.input = ir.Value(name="input", shape=ir.Shape([BATCH, *image]), type=ir.TensorType(ir.DataType.FLOAT))
        self._channels = {self.input: image[0]}
        self._nodes: list[ir.Node] = []
        self._initializers: list[ir.Value] = []

    def channels(self, value: ir.Value) -> int:
        """Return the number of channels of a value."""
        return self._channels[value]

    def layer(
        self,
        operator: str,
        inputs: Sequence[ir.Value],
        name: str,
        channels: int | None = None,
        **attributes: str | float | Sequence[int],
    ) -> ir.Value:
        """Add any operator; its output has the channels of its first input unless told otherwise."""
        output = ir.Value(name=f"{name}_output")
        self._nodes.append(ir.node(operator, inputs, attributes=attributes, outputs=[output], name=name))
        self._channels[output] = self.channels(inputs[0]) if channels is None else channels
        return output

    def weight(self, name: str, shape: Sequence[int], draw: Callable[[], np.ndarray]) -> ir.Value:
        """Add an initializer that is drawn when first read."""
        tensor = ir.LazyTensor(
            lambda: ir.tensor(draw(), name=name), dtype=ir.DataType.FLOAT, shape=ir.Shape(shape), name=name
        )
        value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT), const_value=tensor)
        self._initializers.append(value)
        return value

    def constant(self, name: str, value: float) -> ir.Value:
        """Add a scalar."""
        return self.weight(name, (), lambda: np.array(value, np.float32))

    def filters(self, name: str, shape: tuple[int, ...], output_axis: int = 0) -> ir.Value:
        """Add the weights of a convolution or product."""
        return self.weight(name, shape, partial(draw_filters, name, shape, self.seed, output_axis))

    def vector(self, name: str, shape: tuple[int, ...], mean: float = 0.0) -> ir.Value:
        """Add a bias (mean 0) or a scale, of deviation 0.1."""
        return self.weight(name, shape, partial(draw_normal, name, shape, self.seed, mean, 0.1))

    def conv(
        self,
        x: ir.Value,
        channels: int,
        kernel: Pair,
        name: str,
        *,
        stride: int = 1,
        padding: Pair = 0,
        groups: int = 1,
    ) -> ir.Value:
        """Add a convolution with bias."""
        height, width = _pair(kernel)
        rows, columns = _pair(padding)
        weights = self.filters(f"{name}.weight", (channels, self.channels(x) // groups, height, width))
        bias = self.vector(f"{name}.bias", (channels,))
        return self.layer(
            "Conv", [x, weights, bias], name, channels,
            kernel_shape=[height, width], strides=[stride, stride], pads=[rows, columns, rows, columns], group=groups,
        )  # fmt: skip

    def conv_relu(
        self, x: ir.Value, channels: int, kernel: Pair, name: str, *, stride: int = 1, padding: Pair = 0
    ) -> ir.Value:
        """Add a convolution and a rectifier."""
        return self.relu(self.conv(x, channels, kernel, name, stride=stride, padding=padding), f"{name}.relu")

    def relu(self, x: ir.Value, name: str) -> ir.Value:
        """Add a rectifier."""
        return self.layer("Relu", [x], name)

    def pool(self, operator: str, x: ir.Value, kernel: int, stride: int, name: str, padding: int = 0) -> ir.Value:
        """Add MaxPool or AveragePool."""
        return self.layer(operator, [x], name, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[padding] * 4)

    def linear(self, x: ir.Value, features: int, name: str, inputs: int | None = None) -> ir.Value:
        """Add a product with bias of a matrix with ``inputs`` columns (default: the channels)."""
        read = self.channels(x) if inputs is None else inputs
        weights = self.filters(f"{name}.weight", (features, read))
        bias = self.vector(f"{name}.bias", (features,))
        return self.layer("Gemm", [x, weights, bias], name, features, transB=1)

    def classifier(self, x: ir.Value, classes: int, name: str = "fc") -> ir.Value:
        """Add global average pooling and the last product."""
        pooled = self.layer("GlobalAveragePool", [x], "avgpool")
        return self.linear(self.layer("Flatten", [pooled], "flatten", axis=1), classes, name)

    def finish(self, output: ir.Value) -> ir.Model:
        """Return the model that answers with ``output``."""
        output.name = "output"
        graph = ir.Graph(
            [self.input], [output], nodes=self._nodes, initializers=self._initializers,
            opset_imports={"": OPSET}, name=self.name,
        )  # fmt: skip
        return ir.Model(graph, ir_version=IR_VERSION, producer_name="poolpipe")


def _pair(size: Pair) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size
