import onnx_ir as ir
import pytest

from planner.model import InputError
from planner.profiling import read_graph

HEADER = '<ir_version: 8, opset_import: ["" : 17, "mine" : 1]>'


def graph_of(body: str):
    return read_graph(ir.from_onnx_text(f"{HEADER} {body}"))


def test_a_skip_connection_keeps_its_source_alive():
    # x [n,4] float: 16 bytes. a = Relu(x), b = Sigmoid(a), c = Tanh(b), y = c + a.
    # Cut 1: a. Cut 2: b and a (the skip). Cut 3: c and a.
    graph = graph_of("g (float[n, 4] x) => (float[n, 4] y) { a = Relu(x) b = Sigmoid(a) c = Tanh(b) y = Add(c, a) }")
    assert graph.alive == (("x",), ("a",), ("a", "b"), ("a", "c"), ("y",))
    assert graph.cut_bytes == (16, 32, 32)
    # While Sigmoid runs a and b live; while Tanh runs a, b and c.
    assert [layer.live_bytes for layer in graph.layers] == [32, 32, 48, 48]


def test_an_early_model_output_stays_alive_to_the_end():
    graph = graph_of("g (float[n, 4] x) => (float[n, 4] a, float[n, 4] y) { a = Relu(x) b = Tanh(x) y = Exp(b) }")
    assert graph.alive == (("x",), ("x", "a"), ("a", "b"), ("a", "y"))


def test_constant_nodes_are_parameters_not_layers():
    # w comes out of Constant -> Unsqueeze: 4 floats, shared by both layers, so 16 bytes in all.
    graph = graph_of(
        "g (float[n, 4] x) => (float[n, 4] y) {"
        " c = Constant<value = float[4] {1, 2, 3, 4}>() axis = Constant<value = int64[1] {0}>()"
        " w = Unsqueeze(c, axis) h = Add(x, w) y = Mul(h, w) }"
    )
    assert [layer.operator for layer in graph.layers] == ["Add", "Mul"]
    assert [layer.parameter_bytes for layer in graph.layers] == [16, 16]
    assert graph.parameter_bytes() == 16


def test_values_captured_by_a_subgraph_are_read():
    graph = graph_of(
        "g (float[n, 4] x) => (float[n, 4] y) {"
        " h = Relu(x) s = Size(x) b = Cast<to = 9>(s)"
        " y = If(b) <then_branch = t () => (float[n, 4] p) { p = Tanh(h) },"
        " else_branch = e () => (float[n, 4] q) { q = Identity(x) }> }"
    )
    branch = graph.layers[-1]
    assert branch.operator == "If"
    assert set(branch.inputs) == {"b", "h", "x"}
    assert set(graph.alive[-2]) == {"b", "h", "x"}


def test_local_functions_are_inlined():
    graph = read_graph(
        ir.from_onnx_text(
            '<ir_version: 8, opset_import: ["" : 17, "mine" : 1]>'
            " g (float[n, 4] x) => (float[n, 4] y) { y = mine.twice(x) }"
            ' <domain: "mine", opset_import: ["" : 17]> twice (a) => (c) { b = Relu(a) c = Add(b, a) }'
        )
    )
    assert [layer.operator for layer in graph.layers] == ["Relu", "Add"]
    assert graph.cut_bytes == (32,)


def test_unread_optional_outputs_need_no_shape():
    graph = graph_of(
        "g (float[n, 4, 8] x) => (float[n, 4, 4] y) {"
        " p, indices = MaxPool<kernel_shape = [2], strides = [2]>(x) y, mask = Dropout(p) }"
    )
    assert [layer.operator for layer in graph.layers] == ["MaxPool", "Dropout"]
    assert graph.alive == (("x",), ("p",), ("y",))


def test_a_batch_that_travels_through_shape_arithmetic_is_found():
    graph = graph_of(
        "g (float[n, 4, 2] x) => (float[n, 8] y) <int64[1] rest = {8}, int64[1] zero = {0}> {"
        " s = Shape(x) b = Gather(s, zero) t = Concat<axis = 0>(b, rest) y = Reshape(x, t) }"
    )
    assert graph.tensors["y"].shape == (8,) or graph.tensors["y"].shape == (1, 8)
    assert graph.tensors["y"].batched
    assert graph.tensors["y"].request_bytes == 32
    assert not graph.tensors["t"].batched


def test_dead_layers_are_dropped():
    graph = graph_of("g (float[n, 4] x) => (float[n, 4] y) { y = Relu(x) dead = Exp(x) }")
    assert [layer.operator for layer in graph.layers] == ["Relu"]


def test_unsorted_nodes_are_sorted():
    graph = graph_of("g (float[n, 4] x) => (float[n, 4] y) { y = Relu(h) h = Exp(x) }")
    assert [layer.operator for layer in graph.layers] == ["Exp", "Relu"]


def test_layers_without_a_name_of_their_own_are_named_after_their_output():
    graph = graph_of("g (float[n, 4] x) => (float[n, 4] y) { [same] h = Relu(x) [same] i = Exp(h) [own] y = Tanh(i) }")
    assert [layer.name for layer in graph.layers] == ["h", "i", "own"]


BAD = {
    # a cycle: h needs y, y needs h
    "cycle": ("g (float[n, 4] x) => (float[n, 4] y) { h = Add(x, y) y = Relu(h) }", "has a cycle"),
    # w is named by a node and defined nowhere
    "missing initializer": ("g (float[n, 4] x) => (float[n, 4] y) { y = Add(x, w) }", "neither an input, an init"),
    # the height of x is not a number
    "dynamic height": ("g (float[n, 3, h, 8] x) => (float[n, 3, h, 8] y) { y = Relu(x) }", "dimension 2 is no number"),
    # how many elements are not zero depends on the data
    "data-dependent": ("g (float[n, 4] x) => (int64[2, k] y) { y = NonZero(x) }", "size that depends on the data"),
    # ONNX knows no such operator, so nothing tells the shape of its output
    "unknown operator": (
        "g (float[n, 4] x) => (float[n, 4] y) { h = mine.Odd(x) y = Relu(h) }",
        "the operator is unknown",
    ),
    # a scalar has no dimension to batch along
    "no batch dimension": ("g (float x) => (float y) { y = Relu(x) }", "has no batch dimension"),
    # the Gather takes the first request of any batch
    "pinned batch": (
        "g (float[n, 4] x) => (float[1, 4] y) <int64[1] t = {0}> { h = Gather(x, t) y = Relu(h) }",
        "pins the batch",
    ),
    # nothing depends on the input
    "no layer": ("g (float[n, 4] x) => (float[4] y) <float[4] w = {1, 2, 3, 4}> { y = Relu(w) }", "has no layer"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_models_are_refused_in_one_line(case):
    body, message = BAD[case]
    with pytest.raises(InputError, match=message) as found:
        graph_of(body)
    assert "\n" not in str(found.value)
