import numpy as np
import onnx_ir as ir
import pytest

from planner.profiling import read_graph

HEADER = '<ir_version: 8, opset_import: ["" : 17]>'

# name: (graph, kind, multiply-accumulates, operations), worked out by hand.
CASES = {
    # 8 output channels of 6 x 6, each summing 3 x 3 x 4: 8 * 36 * 36 = 10368
    "convolution": (
        "g (float[n, 4, 8, 8] x, float[8, 4, 3, 3] w) => (float[n, 8, 6, 6] y) { y = Conv(x, w) }",
        "conv", 10368, 20736,
    ),
    # two groups: each output channel sums 2 of the 4 input channels, half of the above
    "grouped": (
        "g (float[n, 4, 8, 8] x, float[8, 2, 3, 3] w) => (float[n, 8, 6, 6] y) { y = Conv<group = 2>(x, w) }",
        "grouped", 5184, 10368,
    ),
    # one input channel each: 4 * 36 * 9
    "depthwise": (
        "g (float[n, 4, 8, 8] x, float[4, 1, 3, 3] w) => (float[n, 4, 6, 6] y) { y = Conv<group = 4>(x, w) }",
        "depthwise", 1296, 2592,
    ),
    # every one of 4 * 64 input elements spreads over 8 * 2 * 2 outputs
    "transposed": (
        "g (float[n, 4, 8, 8] x, float[4, 8, 2, 2] w) => (float[n, 8, 9, 9] y) { y = ConvTranspose(x, w) }",
        "conv", 8192, 16384,
    ),
    # 10 columns summing 5 each
    "gemm": (
        "g (float[n, 5] x, float[10, 5] w) => (float[n, 10] y) { y = Gemm<transB = 1>(x, w) }",
        "matmul", 50, 100,
    ),
    # 3 rows of 10 columns summing 5 each
    "product": ("g (float[n, 3, 5] x, float[5, 10] w) => (float[n, 3, 10] y) { y = MatMul(x, w) }", "matmul", 150, 300),
    # the same, written as an Einstein sum
    "einsum": (
        'g (float[n, 3, 5] x, float[5, 10] w) => (float[n, 3, 10] y) { y = Einsum<equation = "bij,jk->bik">(x, w) }',
        "matmul", 150, 300,
    ),
    # 4 * 16 outputs of windows of 4
    "pool": (
        "g (float[n, 4, 8, 8] x) => (float[n, 4, 4, 4] y)"
        " { y = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(x) }",
        "pool", 0, 256,
    ),
    # one operation per input element
    "global pool": ("g (float[n, 4, 8, 8] x) => (float[n, 4, 1, 1] y) { y = GlobalAveragePool(x) }", "pool", 0, 256),
    "add": ("g (float[n, 7] x) => (float[n, 7] y) { y = Add(x, x) }", "elementwise", 0, 7),
    "sum of three": ("g (float[n, 7] x) => (float[n, 7] y) { y = Sum(x, x, x) }", "elementwise", 0, 14),
    "transpose": (
        "g (float[n, 3, 5] x) => (float[n, 5, 3] y) { y = Transpose<perm = [0, 2, 1]>(x) }",
        "move", 0, 0,
    ),
    "view": ("g (float[n, 3, 5] x) => (float[n, 15] y) { y = Flatten(x) }", "view", 0, 0),
}  # fmt: skip


def layer_of(body: str):
    """The one layer of a model; inputs other than x are weights, and made initializers."""
    model = ir.from_onnx_text(f"{HEADER} {body}")
    for value in [value for value in model.graph.inputs if value.name != "x"]:
        model.graph.inputs.remove(value)
        value.const_value = ir.tensor(np.zeros(value.shape.numpy(), np.float32), name=value.name)
        model.graph.register_initializer(value)
    (layer,) = read_graph(model).layers
    return layer


@pytest.mark.parametrize("case", CASES)
def test_operations_of_one_layer(case):
    body, kind, macs, operations = CASES[case]
    cost = layer_of(body).cost
    assert (cost.kind, cost.macs, cost.operations) == (kind, macs, operations)


def test_traffic_counts_activations_and_leaves_parameters_apart():
    layer = layer_of(CASES["convolution"][0])
    assert layer.cost.read_bytes == 4 * 4 * 64
    assert layer.cost.written_bytes == 4 * 8 * 36
    assert layer.parameter_bytes == 4 * 8 * 4 * 9


def test_a_view_moves_nothing():
    cost = layer_of(CASES["view"][0]).cost
    assert (cost.read_bytes, cost.written_bytes) == (0, 0)


def test_a_recurrent_layer_multiplies_weights_and_states_at_every_step():
    # 4 gates of 6 units over 2 steps of 5 inputs: 2 * (24 * 5 + 24 * 6) = 528. The batch is the second dimension.
    model = ir.from_onnx_text(
        f"{HEADER} g (float[n, 2, 5] x) => (float[n, 2, 1, 6] y)"
        " <float[1, 24, 5] w = {0}, float[1, 24, 6] r = {0}> {"
        " t = Transpose<perm = [1, 0, 2]>(x) h = LSTM<hidden_size = 6>(t, w, r) y = Transpose<perm = [2, 0, 1, 3]>(h) }"
    )
    for name, shape in (("w", (1, 24, 5)), ("r", (1, 24, 6))):
        model.graph.initializers[name].const_value = ir.tensor(np.zeros(shape, np.float32), name=name)
    assert read_graph(model).layers[1].cost.macs == 528
