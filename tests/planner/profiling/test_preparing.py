"""What files leave open, what inference does not see, and what keeps requests from sharing a run."""

import numpy as np
import onnx_ir as ir
import pytest

from planner.model import Constant, InputError, ModelSettings
from planner.profiling import extract_parts, open_session, prepare_model, random_feeds, run_chain, run_model
from planner.profiling.samples import cut_samples, draw_samples

OPSETS = '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1, "ai.onnx.ml" : 3]>'


def model_of(body: str, opsets: str = OPSETS) -> ir.Model:
    return ir.from_onnx_text(f"{opsets} g {body}")


def assert_parts_answer_as_the_whole(model: ir.Model, settings: ModelSettings | None = None):
    """Every legal cut of what was prepared, without optimisations: equal to the bit."""
    graph = prepare_model(model, "m", settings).graph
    feeds = random_feeds(graph.model, 1 if graph.single else 3, np.random.default_rng(2))
    whole = run_model(open_session(graph.model, optimise=False), feeds)
    for cut in range(1, len(graph.layers)):
        if cut in graph.barred:
            continue
        parts = extract_parts(graph, [0, cut])
        made = run_chain(parts, lambda part, given: run_model(open_session(part.model, optimise=False), given), feeds)
        for name, expected in zip(graph.outputs, whole, strict=True):
            np.testing.assert_array_equal(made[name], expected)
    return graph


# name -> (body, settings, layers, barred cuts). Shapes that ONNX infers not at all or only with sizes fixed.
SEEN_BY_RUNNING = {
    "sequence": (
        "(float[N,4] x) => (float[N,8] y)"
        " { a = Relu(x) b = Tanh(x) s = SequenceConstruct(a, b) y = ConcatFromSequence<axis=1>(s) }",
        4,
        [3],
    ),
    "optional": ("(float[N,4] x) => (float[N,4] y) { a = Relu(x) o = Optional(a) y = OptionalGetElement(o) }", 3, [2]),
    "microsoft": ("(float[N,4] x) => (float[N,4] y) { a = Relu(x) b = com.microsoft.Gelu(a) y = Tanh(b) }", 3, []),
    "ml": (
        "(float[N,2] x) => (float[N,2] y) { a = ai.onnx.ml.Scaler<offset=[1.0,2.0], scale=[3.0,4.0]>(x) y = Relu(a) }",
        2,
        [],
    ),
    "loop": (
        "(float[N,4] x) => (float[N,4] y) <int64 n={3}, bool t={1}> { h = Relu(x)"
        " y = Loop(n, t, h) <body = b (int64 i, bool c, float[N,4] s) => (bool d, float[N,4] r)"
        " { d = Identity(c) r = Add(s, h) }> }",
        2,
        [],
    ),
    # one row more than requests: nothing that is so many times as large for a batch
    "a row more": (
        "(float[N,4] x) => (float[N,4] y) <float[1,4] c={1,2,3,4}, int64[1] z={0}, int64[1] e={-1}>"
        " { a = Relu(x) k = Concat<axis=0>(a, c) l = Tanh(k) y = Slice(l, z, e) }",
        4,
        [2, 3],
    ),
    "bfloat16": ("(float[N,4] x) => (float[N,4] y) { a = Relu(x) b = Cast<to=16>(a) y = Cast<to=1>(b) }", 3, [2]),
    "batch computed": (
        "(float[N,2,3] x) => (float[N,6] y) <int64[1] zero={0}, int64[1] one={1}, int64[1] six={6}>"
        " { s = Shape(x) b = Slice(s, zero, one) t = Concat<axis=0>(b, six) h = Relu(x) y = Reshape(h, t) }",
        5,
        [],
    ),
}


@pytest.mark.parametrize("case", SEEN_BY_RUNNING)
def test_what_inference_does_not_see_is_found_by_running(case):
    body, layers, barred = SEEN_BY_RUNNING[case]
    graph = assert_parts_answer_as_the_whole(model_of(body))
    assert not graph.single
    assert len(graph.layers) == layers
    assert sorted(graph.barred) == barred


def test_sizes_are_fixed_and_what_they_fix_is_folded():
    # A grid of H · W numbers from Shape, Gather, Mul, Range: with sizes fixed a constant, so only 5 layers of 14 stay:
    # Shape, Gather and Concat of the batch, Reshape, Add.
    model = model_of(
        "(float[N,3,H,W] x) => (float[N,C,P] y) <int64 zero={0}, int64 one={1}, int64 two={2}, int64 three={3},"
        " int64[1] m1={-1}, int64[1] ax={0}> { s = Shape(x) h = Gather(s, two) w = Gather(s, three) p = Mul(h, w)"
        " r = Range(zero, p, one) rf = Cast<to=1>(r) n = Gather(s, zero) nu = Unsqueeze(n, ax) c = Gather(s, one)"
        " cu = Unsqueeze(c, ax) t = Concat<axis=0>(nu, cu, m1) f = Reshape(x, t) y = Add(f, rf) }"
    )
    settings = ModelSettings(sizes={"H": 4, "W": 6})
    graph = assert_parts_answer_as_the_whole(model, settings)
    assert [layer.operator for layer in graph.layers] == ["Shape", "Gather", "Unsqueeze", "Concat", "Reshape", "Add"]
    assert graph.tensors["y"].shape == (1, 3, 24)


def test_a_branch_that_is_always_taken_is_made_of_layers():
    model = model_of(
        "(float[N,4] x, int64 rate) => (float[N,4] y) <int64 wanted={16}> { h = Relu(x) c = Equal(rate, wanted)"
        " y = If(c) <then_branch = t () => (float[N,4] a) { t1 = Tanh(h) a = Exp(t1) },"
        " else_branch = e () => (float[N,4] b) { b = Neg(h) }> }"
    )
    for rate, operators in ((16, ["Relu", "Tanh", "Exp"]), (8, ["Relu", "Neg"])):
        settings = ModelSettings(constants={"rate": Constant((), (rate,))})
        graph = assert_parts_answer_as_the_whole(model, settings)
        found = [layer.operator for layer in graph.layers]
        assert [name for name in found if name != "Identity"] == operators


def test_a_batch_behind_other_axes_is_found():
    model = model_of("(float[N,4] x, float[2,N,4] state) => (float[2,N,4] y) { a = Relu(x) y = Add(a, state) }")
    graph = prepare_model(model, "m").graph
    assert [tensor.batch_axis for tensor in graph.inputs] == [0, 1]
    assert graph.tensors["y"].batch_axis == 1


def test_a_batch_axis_that_is_said_is_taken():
    # Nothing tells rows from columns: both are open.
    model = model_of("(float[R,C] x) => (float[R,C] y) { a = Relu(x) y = Tanh(a) }")
    settings = ModelSettings(sizes={"R": 3}, batch_axes={"x": 1})
    assert prepare_model(model, "m", settings).graph.tensors["y"].batch_axis == 1


SINGLE = {
    "softmax over requests": ("(float[N,4] x) => (float[N,4] y) { h = Relu(x) [mix] y = Softmax<axis=0>(h) }", "mix"),
    "similarities": (
        "(float[N,4] x) => (float[N,4] y) { t = Transpose(x) [all] s = MatMul(x, t) p = Softmax(s) y = MatMul(p, x) }",
        "all",
    ),
    "mean of requests": ("(float[N,4] x) => (float y) { a = Relu(x) [mean] y = ReduceMean<keepdims=0>(a) }", "mean"),
    "as many trips as requests": (
        "(float[N,4] x) => (float[N,4] y) <bool t={1}, int64 z={0}> { h = Relu(x) s = Shape(x) n = Gather(s, z)"
        " [trips] y = Loop(n, t, h) <body = b (int64 i, bool c, float[N,4] s0) => (bool d, float[N,4] r)"
        " { d = Identity(c) r = Add(s0, h) }> }",
        "trips",
    ),
    "what is found": ("(float[N,4] x) => (int64[2,K] y) { h = Relu(x) [find] y = NonZero(h) }", "find"),
}  # fmt: skip


@pytest.mark.parametrize("case", SINGLE)
def test_requests_that_cannot_share_a_run_take_one_each_and_the_layer_is_named(case):
    body, layer = SINGLE[case]
    prepared = prepare_model(model_of(body), case)
    assert prepared.single
    assert prepared.settings.single
    assert f"'{layer}'" in prepared.reason
    assert "\n" not in prepared.reason
    # The settings alone lead to the same graph, without comparing again.
    again = prepare_model(model_of(body), case, prepared.settings, compare=False)
    assert [one.name for one in again.graph.layers] == [one.name for one in prepared.graph.layers]


def test_a_tensor_whose_size_depends_on_the_data_crosses_no_cut():
    # All of 4 normal numbers differ from zero: only finding one more shows that the size is the data's.
    model = model_of("(float[N,4] x) => (int64[2,K] y) { h = Tanh(x) i = NonZero(h) j = Abs(i) y = Neg(j) }")
    graph = prepare_model(model, "m").graph
    assert sorted(graph.barred) == [2, 3]
    assert "depends on the data" in graph.barred[2]
    assert "'i'" in graph.barred[2]


def test_a_batch_pinned_behind_open_inputs_is_opened():
    model = model_of(
        "(float[N,2,41,3] x) => (float[M,82,3] y) <int64[3] t={1,82,-1}> { h = Relu(x) y = Reshape(h, t) }"
    )
    prepared = prepare_model(model, "m")
    assert not prepared.single
    assert prepared.settings.opened
    again = prepare_model(model, "m", prepared.settings, compare=False)
    feeds = random_feeds(again.graph.model, 4, np.random.default_rng(0))
    alone = [run_model(open_session(model), {"x": feeds["x"][at : at + 1]})[0] for at in range(4)]
    (together,) = run_model(open_session(again.graph.model), feeds)
    np.testing.assert_array_equal(together, np.concatenate(alone))


BAD = {
    # sizes that are no numbers, all of them named at once
    "sizes": (
        "(float[N,3,H,W] x, float t) => (float[N,3,H,W] y) { y = Mul(x, t) }",
        ModelSettings(),
        r"dimension 2 is no number; only the batch may vary: give --fix H=NUMBER,W=NUMBER --constant t=VALUE",
    ),
    "nameless size": (
        "(float[N,?] x) => (float[N,?] y) { y = Relu(x) }",
        ModelSettings(),
        "give --fix x:1=NUMBER",
    ),
    "scalar": (
        "(float[N,4] x, float t) => (float[N,4] y) { y = Mul(x, t) }",
        ModelSettings(),
        r"input 't' has no batch dimension \(it is a scalar\): give --constant t=VALUE",
    ),
    "no batch": (
        "(float[N,4] x, float[3,4] w) => (float[N,4] y) { z = Gather(w, i) y = Add(x, z) }".replace(
            "float[3,4] w)", "float[3,4] w, int64[N] i)"
        ),
        ModelSettings(),
        r"input 'w' has no batch dimension: its shape is \[3, 4\]: give --constant w=FILE.npy",
    ),
    "unknown size": (
        "(float[N,H] x) => (float[N,H] y) { y = Relu(x) }",
        ModelSettings(sizes={"h": 3}),
        "--fix: the model has no symbolic dimension 'h'; it has N, x:0, H, x:1",
    ),
    "unknown constant": (
        "(float[N,4] x) => (float[N,4] y) { y = Relu(x) }",
        ModelSettings(constants={"t": Constant((), (1.0,))}),
        "--constant: the model has no input 't'; it has x",
    ),
    "unknown state": (
        "(float[N,4] x) => (float[N,4] y) { y = Relu(x) }",
        ModelSettings(states={"z": "x"}),
        "--state: the model has no output 'z'; it has y",
    ),
    "constant's shape": (
        "(float[N,4] x, float[4] w) => (float[N,4] y) { y = Mul(x, w) }",
        ModelSettings(constants={"w": Constant((3,), (1.0, 2.0, 3.0))}),
        r"--constant: input 'w' has shape \[4\], the value given has \[3\]",
    ),
    "constant's type": (
        "(float[N,4] x, int64 k) => (float[N,4] y) { c = Cast<to=1>(k) y = Mul(x, c) }",
        ModelSettings(constants={"k": Constant((), (1.5,))}),
        "input 'k' is int64, which cannot hold the value given",
    ),
    "no such axis": (
        "(float[N,4] x) => (float[N,4] y) { y = Relu(x) }",
        ModelSettings(batch_axes={"x": 2}),
        "--batch-axis: input 'x' has 2 dimensions, so no axis 2",
    ),
    "texts": (
        "(string[N,1] x) => (int64[N,1] y)"
        ' { y = ai.onnx.ml.LabelEncoder<keys_strings=["a","b"], values_int64s=[0,1]>(x) }',
        ModelSettings(),
        "input 'x' is of string: ",
    ),
    "requests of nothing": (
        "(float[N,0] x) => (float[N,0] y) { y = Relu(x) }",
        ModelSettings(),
        r"input 'x' has shape \[N,0\], with a size of 0: a request would bring nothing; export",
    ),
    "numbers that NumPy has not": (
        "(bfloat16[N,4] x) => (float[N,4] y) { y = Cast<to=1>(x) }",
        ModelSettings(),
        "input 'x' is of bfloat16: .*export the model",
    ),
    # no function of the input: drawn, or dropped at random where optimisations do not take it out
    "random numbers": (
        "(float[N,4] x) => (float[N,4] y) { [draw] r = RandomNormalLike(x) y = Add(x, r) }",
        ModelSettings(),
        r"node 'draw' \(RandomNormalLike\) draws random numbers",
    ),
    "random constant": (
        "(float[N,4] x) => (float[N,4] y) { [draw] r = RandomNormal<shape=[4], seed=1.0>() y = Add(x, r) }",
        ModelSettings(),
        "'draw'",
    ),
    "dropout in training": (
        "(float[N,64] x) => (float[N,64] y) <bool t={1}, float half={0.5}>"
        " { a = Exp(x) [drop] d = Dropout(a, half, t) y = Tanh(d) }",
        ModelSettings(),
        r"differs between two runs on the same input.*node 'drop' \(Dropout\)",
    ),
    "running statistics": (
        "(float[N,2,4] x) => (float[N,2,4] y)"
        " <float[2] s={1,1}, float[2] b={0,0}, float[2] m={0,0}, float[2] v={1,1}>"
        " { h = Relu(x) [norm] y, rm, rv = BatchNormalization<training_mode=1>(h, s, b, m, v) }",
        ModelSettings(),
        "no function of its input",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_missing_or_wrong_is_said_in_one_line(case):
    body, settings, message = BAD[case]
    with pytest.raises(InputError, match=message) as found:
        prepare_model(model_of(body), "m", settings)
    assert "\n" not in str(found.value)


def test_samples_of_a_model_with_states_are_the_calls_of_one_caller():
    model = model_of(
        "(float[N,4] x, float[N,4] state) => (float[N,4] y, float[N,4] next)"
        " { s = Add(x, state) next = Tanh(s) y = Neg(next) }"
    )
    graph = prepare_model(model, "m", ModelSettings(states={"next": "state"})).graph
    samples = draw_samples(graph, 4, seed=1)
    assert not samples["state"][0].any()
    for call in range(3):
        expected = np.tanh(samples["x"][call] + samples["state"][call])
        np.testing.assert_allclose(samples["state"][call + 1], expected, rtol=1e-6)


def test_samples_given_without_states_are_the_calls_of_one_caller():
    """The running sum of what the calls bring: 1, 1 + 2, 1 + 2 + 4. States that are given are kept."""
    model = model_of(
        "(float[N,1] x, float[N,1] state) => (float[N,1] y, float[N,1] next) { next = Add(x, state) y = Neg(next) }"
    )
    graph = prepare_model(model, "m", ModelSettings(states={"next": "state"})).graph
    x = np.array([[1], [2], [4]], np.float32)
    assert cut_samples(graph, [{"x": x}])["state"].ravel().tolist() == [0, 1, 3]
    assert cut_samples(graph, [{"x": x, "state": x}])["state"].ravel().tolist() == [1, 2, 4]
    with pytest.raises(InputError, match="'state' is missing"):
        cut_samples(graph, [{"x": x, "state": x}, {"x": x}])


def test_a_state_that_cannot_come_back_is_refused():
    model = model_of("(float[N,4] x, float[N,3] state) => (float[N,4] y) { r = ReduceSum(state) y = Mul(x, r) }")
    with pytest.raises(InputError, match="--state: output 'y' cannot come back as input 'state'"):
        prepare_model(model, "m", ModelSettings(states={"y": "state"}))
