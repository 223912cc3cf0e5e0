"""What data decide, where inputs that are drawn never decide otherwise."""

import numpy as np
import onnx_ir as ir
import pytest

from planner.profiling import open_session, prepare_model, run_model
from planner.profiling.decisions import find_fork, sized_values, sizing_nodes
from planner.profiling.graphs import varying_values

COUNT = "t = Tanh(x) places = NonZero(t) s = Shape(places) count = Gather(s, one)"
CONSTANTS = "int64 zero={0}, int64 one={1}, int64 four={4}, float many={50}, bool yes={1}, int64 three={3}"


def model_of(body: str, shape: str = "N,6") -> ir.Model:
    return ir.from_onnx_text(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[{shape}] x) => (float[{shape}] y)'
        f" <{CONSTANTS}> {{ {body} }}"
    )


# name -> (body, what its requests decide together)
SHARED = {
    "a branch by what was found": (
        f"{COUNT} c = Greater(count, four) [fork] y = If(c) <then_branch = a () => (float[N,6] p) {{ p = Relu(x) }},"
        " else_branch = b () => (float[N,6] q) { q = Neg(x) }>",
        "fork",
    ),
    "a choice by what was found": (
        f"{COUNT} c = Greater(count, four) r = Relu(x) n = Neg(x) [fork] y = Where(c, r, n)",
        "fork",
    ),
    "a loop that stops by what it has": (
        "[fork] y = Loop(three, yes, x) <body = b (int64 i, bool c, float[N,6] s) => (bool d, float[N,6] r)"
        " { m = ReduceMax<keepdims=0>(s) d = Less(m, many) r = Add(s, s) }>",
        "fork",
    ),
    "a branch in a loop": (
        "y = Loop(three, yes, x) <body = b (int64 i, bool c, float[N,6] s) => (bool d, float[N,6] r)"
        " { d = Identity(c) m = ReduceMax<keepdims=0>(s) g = Greater(m, many)"
        " [fork] r = If(g) <then_branch = a () => (float[N,6] p) { p = Neg(s) },"
        " else_branch = e () => (float[N,6] q) { q = Tanh(s) }> }>",
        "fork",
    ),
    "a bound from what was found": (
        f"{COUNT} least = Min(count, four) f = Cast<to=1>(least) [fork] y = Mul(x, f)",
        "fork",
    ),
}


@pytest.mark.parametrize("case", SHARED)
def test_what_requests_decide_together_keeps_them_apart(case):
    body, layer = SHARED[case]
    prepared = prepare_model(model_of(body), case)
    assert prepared.single
    assert f"'{layer}'" in prepared.reason
    assert "mixes requests that share a run" in prepared.reason


APART = {
    "a mask assigned": (
        "c = Greater(x, many) places = NonZero(c) t = Transpose(places) s = Shape(t)"
        " first = Constant<value = int64[1] {0}>() second = Constant<value = int64[1] {1}>() minus = Neg(many)"
        " k = Slice(s, first, second) v = Expand(minus, k) y = ScatterND(x, t, v)"
    ),
    "an optional value": (
        "o = Optional(x) h = OptionalHasElement(o) f = Cast<to=1>(h) e = OptionalGetElement(o) y = Mul(e, f)"
    ),
    "a loop of known trips": (
        "y = Loop(three, yes, x) <body = b (int64 i, bool c, float[N,6] s) => (bool d, float[N,6] r)"
        " { d = Less(i, four) r = Tanh(s) }>"
    ),
    "a loop over requests": (
        "s = Shape(x) n = Gather(s, zero) y = Loop(n, yes) <body = b (int64 i, bool c) => (bool d, float[6] r)"
        " { d = Identity(c) e = Gather<axis=0>(x, i) r = Tanh(e) }>"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", APART)
def test_what_each_request_decides_for_itself_lets_them_share_a_run(case):
    model = model_of(APART[case])
    graph = prepare_model(model, case).graph
    assert not graph.single
    x = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32) * np.float32(100)
    x[1] = 0
    alone = [run_model(open_session(model), {"x": x[at : at + 1]})[0] for at in range(4)]
    np.testing.assert_array_equal(run_model(open_session(graph.model), {"x": x})[0], np.concatenate(alone))


@pytest.mark.parametrize("zeros", range(7))
def test_a_count_of_what_is_found_is_no_constant(zeros):
    """Six numbers that are drawn are never zero; of these some are."""
    model = model_of(f"{COUNT} f = Cast<to=1>(count) y = Add(x, f)", "1,6")
    graph = prepare_model(model, "count").graph
    x = np.array([[0] * zeros + [1] * (6 - zeros)], np.float32)
    (made,) = run_model(open_session(graph.model), {"x": x})
    np.testing.assert_array_equal(made, x + 6 - zeros)


def test_a_size_that_data_decide_is_known_though_draws_agree():
    """The two largest of at most two that were found: drawn numbers never give fewer."""
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[1,6] x) => (float[1,K] y)'
        " <int64[1] two={2}, int64[1] one={1}, int64[1] second={2}> {"
        " t = Tanh(x) p = NonZero(t) s = Shape(p) n = Slice(s, one, second) k = Min(n, two)"
        " v, i = TopK(t, k) y = Neg(v) }"
    )
    graph = prepare_model(model, "largest").graph
    assert graph.tensors["v"].varies
    assert graph.tensors["y"].varies


def test_forks_and_sizes_of_graphs():
    graph = model_of(SHARED["a branch by what was found"][0]).graph
    varying = varying_values(graph)
    assert [node.op_type for node in sizing_nodes(graph, varying)] == ["NonZero"]
    fork = find_fork(graph, varying)
    assert fork is not None
    assert fork.name == "fork"
    # Counted from sizes instead, the same graph has neither.
    graph = model_of(SHARED["a branch by what was found"][0].replace("NonZero(t)", "Shape(t)")).graph
    varying = varying_values(graph)
    assert sizing_nodes(graph, varying) == []
    assert find_fork(graph, varying) is None
    assert {value.name for value in sized_values(graph, varying)} == {"places", "s", "count", "c"}
