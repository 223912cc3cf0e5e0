import functools

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.profiling import (
    build_model,
    extract_part,
    extract_parts,
    open_session,
    random_feeds,
    read_graph,
    run_chain,
    run_model,
)
from planner.profiling.zoo import LIGHT_MODELS


@functools.cache
def light(name: str):
    """A light model's graph, two requests, and what the whole answers without runtime optimisations."""
    graph = read_graph(build_model(name), name)
    feeds = random_feeds(graph.model, 2, np.random.default_rng(3))
    whole = run_model(open_session(graph.model, optimise=False), feeds)
    return graph, feeds, whole


def run_part(part, feeds, *, optimise=False):
    return run_model(open_session(part.model, optimise=optimise), feeds)


def assert_halves_equal_whole(name: str, cuts):
    graph, feeds, whole = light(name)
    assert not np.allclose(whole[0][0], whole[0][1], rtol=1e-3, atol=0)
    for cut in cuts:
        halves = extract_parts(graph, [0, cut])
        made = run_chain(halves, run_part, feeds)
        for output, expected in zip(graph.outputs, whole, strict=True):
            np.testing.assert_array_equal(made[output], expected, err_msg=f"{name}, cut {cut}")


def test_both_halves_of_squeezenet_equal_the_whole_at_every_cut():
    assert_halves_equal_whole("squeezenet-light", range(1, len(light("squeezenet-light")[0].layers)))


@pytest.mark.parametrize("name", ["resnet50-light", "shufflenet-light"])
def test_both_halves_equal_the_whole_at_some_cuts(name):
    layers = len(light(name)[0].layers)
    assert_halves_equal_whole(name, range(1, layers, layers // 6))


@pytest.mark.slow
@pytest.mark.parametrize("name", LIGHT_MODELS)
def test_every_light_model_is_alive_and_its_halves_equal_the_whole(name):
    # All cuts of all models are tried by scripts/verify_splits.py; that takes minutes.
    light.cache_clear()
    graph, _, (whole,) = light(name)
    rows = whole.reshape(2, -1)
    assert np.isfinite(rows).all()
    if (rows > 0).all():  # ends in a softmax: no class takes it all, and they are not all alike
        assert rows.max() < 0.5
        assert rows.max() > 2 * rows.mean()
    assert_halves_equal_whole(name, [len(graph.layers) // 2])
    light.cache_clear()


def test_many_parts_chained_equal_the_whole_with_optimisations():
    # onnxruntime fuses batch normalisations into convolutions within a part only: not bit-equal, but close.
    graph, feeds, whole = light("resnet50-light")
    made = run_chain(extract_parts(graph, range(0, 176, 13)), functools.partial(run_part, optimise=True), feeds)
    error = np.linalg.norm(made[graph.outputs[0]] - whole[0]) / np.linalg.norm(whole[0])
    assert error < 1e-5


def test_every_part_of_shufflenet_is_a_valid_model():
    graph = light("shufflenet-light")[0]
    for part in extract_parts(graph, range(len(graph.layers))):
        onnx.checker.check_model(ir.to_proto(part.model), full_check=True)
        assert [value.name for value in part.model.graph.outputs] == list(part.outputs)


def test_the_operator_set_and_ir_version_stay():
    model = ir.from_onnx_text(
        '<ir_version: 3, opset_import: ["" : 9]> g (float[n, 2] x, float[2] w) => (float[n, 2] y)'
        " <float[2] w = {1, 2}> { h = Relu(x) y = Add(h, w) }"
    )
    part = extract_part(read_graph(model), 1, 2)
    assert (part.model.ir_version, part.model.opset_imports) == (3, {"": 9})
    assert [value.name for value in part.model.graph.inputs] == ["h", "w"]  # as IR version 3 wants it
    onnx.checker.check_model(ir.to_proto(part.model))
    (output,) = run_part(part, {"h": np.ones((3, 2), np.float32)})
    np.testing.assert_array_equal(output, [[2, 3]] * 3)


def test_an_initializer_shared_by_two_parts_is_in_both():
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 2] x) => (float[n, 2] y)'
        " <float[2] w = {1, 2}> { h = Mul(x, w) y = Add(h, w) }"
    )
    parts = extract_parts(read_graph(model), [0, 1])
    assert [list(part.model.graph.initializers) for part in parts] == [["w"], ["w"]]
    made = run_chain(parts, run_part, {"x": np.ones((1, 2), np.float32)})
    np.testing.assert_array_equal(made["y"], [[2, 4]])


def test_a_tensor_alive_across_a_part_is_carried_past_it():
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 2] x) => (float[n, 2] y)'
        " { a = Relu(x) b = Exp(x) c = Log(b) y = Add(a, c) }"
    )
    parts = extract_parts(read_graph(model), [0, 2, 3])
    assert (parts[1].inputs, parts[1].outputs) == (("b",), ("c",))
    made = run_chain(parts, run_part, {"x": np.array([[1, -1]], np.float32)})
    np.testing.assert_allclose(made["y"], [[2, -1]], rtol=1e-6)


OPSETS = '<ir_version: 8, opset_import: ["" : 17, "mine" : 1]>'

# Every kind of graph that has more to a cut than one tensor, or more to a part than its nodes.
GRAPHS = {
    # a is alive past b and c
    "skip connection": (
        f"{OPSETS} g (float[n, 4] x) => (float[n, 4] y) {{ a = Exp(x) b = Sin(a) c = Cos(b) y = Add(c, a) }}"
    ),
    # three branches, up to four tensors alive at once
    "branches": (
        f"{OPSETS} g (float[n, 4] x) => (float[n, 12] y)"
        " { a = Sin(x) b = Cos(x) c = Exp(x) d = Mul(a, b) e = Sub(b, c) y = Concat<axis = 1>(d, e, a) }"
    ),
    # both inputs are read late again, and an output is made early
    "inputs and outputs": (
        f"{OPSETS} g (float[n, 4] x, float[n, 4] z) => (float[n, 4] early, float[n, 4] y)"
        " { early = Sin(z) a = Exp(x) b = Add(a, z) c = Cos(b) y = Mul(c, x) }"
    ),
    # w is read on both sides of every cut, as it is and reshaped by a constant node
    "shared initializer": (
        f"{OPSETS} g (float[n, 4] x) => (float[n, 4] y) <float[4] w = {{1, 2, 3, 4}}, int64[2] s = {{1, 4}}>"
        " { v = Reshape(w, s) a = Mul(x, w) b = Sin(a) c = Add(b, v) y = Mul(c, w) }"
    ),
    # two calls of a function of two nodes, which cuts may part
    "local function": (
        f"{OPSETS} g (float[n, 4] x) => (float[n, 4] y) {{ a = mine.wave(x) y = mine.wave(a) }}"
        ' <domain: "mine", opset_import: ["" : 17]> wave (u) => (w) { v = Sin(u) w = Add(v, u) }'
    ),
    # MaxPool's indices are read, Dropout's mask is not; the second input of Clip is left out
    "optional inputs and outputs": (
        f"{OPSETS} g (float[n, 4, 8] x) => (float[n, 4, 4] y) <float six = {{0.5}}> {{"
        " p, i = MaxPool<kernel_shape = [2], strides = [2]>(x) q, mask = Dropout(p) r = Clip(q, , six)"
        " f = Cast<to = 1>(i) y = Add(r, f) }"
    ),
    # the branches of If read tensors of the graph around them
    "captured by a subgraph": (
        f"{OPSETS} g (float[n, 4] x) => (float[n, 4] y) {{"
        " h = Sin(x) s = Size(x) b = Cast<to = 9>(s) k = Cos(h)"
        " i = If(b) <then_branch = t () => (float[n, 4] p) { p = Tanh(h) },"
        " else_branch = e () => (float[n, 4] q) { q = Identity(x) }> y = Add(i, k) }"
    ),
    # as models of 2018 are: initializers are inputs too
    "initializers among the inputs": (
        '<ir_version: 3, opset_import: ["" : 9]> g (float[n, 4] x, float[4, 4] w, float[4] b) => (float[n, 4] y)'
        " <float[4, 4] w = {1, 2, 0, 0, 0, 1, 2, 0, 0, 0, 1, 2, 2, 0, 0, 1}, float[4] b = {1, 2, 3, 4}>"
        " { h = MatMul(x, w) a = Add(h, b) c = Relu(a) d = MatMul(c, w) y = Add(d, a) }"
    ),
}


@pytest.mark.parametrize("kind", GRAPHS)
def test_graphs_of_every_kind_are_split_anywhere(kind):
    graph = read_graph(ir.from_onnx_text(GRAPHS[kind]))
    assert_split_anywhere(graph)


def assert_split_anywhere(graph):
    """All halves, and all layers alone, are valid models of the whole's versions and reproduce it to the bit."""
    feeds = random_feeds(graph.model, 3, np.random.default_rng(5))
    whole = run_model(open_session(graph.model, optimise=False), feeds)
    assert not np.array_equal(whole[-1][0], whole[-1][1])
    layers = len(graph.layers)
    for starts in ([0], *([0, cut] for cut in range(1, layers)), range(layers)):
        parts = extract_parts(graph, starts)
        for part in parts:
            assert (part.model.ir_version, part.model.opset_imports) == (
                graph.model.ir_version,
                graph.model.opset_imports,
            )
            onnx.checker.check_model(ir.to_proto(part.model))
        made = run_chain(parts, run_part, feeds)
        for output, expected in zip(graph.outputs, whole, strict=True):
            np.testing.assert_array_equal(made[output], expected, err_msg=f"parts begin at {list(starts)}")


@st.composite
def random_graphs(draw):
    """Up to eight layers, each reading any of the tensors before it; some of them answer."""
    names, nodes = ["x"], []
    for index in range(draw(st.integers(2, 8))):
        first, second = draw(st.sampled_from(names)), draw(st.sampled_from([*names, "w"]))
        made = f"t{index}"
        operator = draw(st.sampled_from(["Sin", "Cos", "Add", "Mul"]))
        nodes.append(
            f"{made} = {operator}({first})" if operator in ("Sin", "Cos") else f"{made} = {operator}({first}, {second})"
        )
        names.append(made)
    outputs = draw(st.lists(st.sampled_from(names[1:]), max_size=2, unique=True))
    outputs = [*(name for name in outputs if name != names[-1]), names[-1]]
    answers = ", ".join(f"float[n, 3] {name}" for name in outputs)
    return f"{OPSETS} g (float[n, 3] x) => ({answers}) <float[3] w = {{1, 2, 3}}> {{ {' '.join(nodes)} }}"


@settings(max_examples=25, deadline=None, derandomize=True)
@given(random_graphs())
def test_random_graphs_are_split_anywhere(text):
    assert_split_anywhere(read_graph(ir.from_onnx_text(text)))
