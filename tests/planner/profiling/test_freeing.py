"""Batches pinned in every way that exporters pin them: freed rightly, or refused by the layer's name."""

import numpy as np
import onnx_ir as ir
import pytest

from planner.model import InputError
from planner.profiling import free_batch, open_session, prepare_model, random_feeds, run_model
from planner.profiling.tracing import Fold, find_fold, put_together

OPSET = '<ir_version: 8, opset_import: ["" : 17]>'
OPSET_9 = '<ir_version: 4, opset_import: ["" : 9]>'


def model_of(text: str, **weights: tuple[int, ...]) -> ir.Model:
    """A model of a text, with seeded weights of the given shapes."""
    model = ir.from_onnx_text(text if text.startswith("<") else f"{OPSET} {text}")
    rng = np.random.default_rng(0)
    for name, shape in weights.items():
        numbers = (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)
        value = next(each for node in model.graph for each in node.inputs if each is not None and each.name == name)
        value.const_value = ir.tensor(numbers, name=name)
        value.shape, value.dtype = ir.Shape(shape), ir.DataType.FLOAT
        model.graph.register_initializer(value)
    return model


# name -> (text, weights). Every one has a batch of 1 (or says otherwise) and is a function of single requests.
FREED = {
    # (1,C,L) -> (groups, -1) -> normalised -> (1,C,L): the batch lies before the groups, in one axis with them
    "groups, open rest": (
        "g (float[1,4,3] x) => (float[1,4,3] y) <int64[2] t={2,-1}, int64[3] back={1,4,3}>"
        " { h = Relu(x) r = Reshape(h, t) m = ReduceMean<axes=[1],keepdims=1>(r) d = Sub(r, m) y = Reshape(d, back) }",
        {},
    ),
    "groups, all sizes": (
        "g (float[1,4,3] x) => (float[1,4,3] y) <int64[2] t={2,6}, int64[3] back={1,4,3}>"
        " { r = Reshape(x, t) m = ReduceMean<axes=[1],keepdims=1>(r) d = Sub(r, m) y = Reshape(d, back) }",
        {},
    ),
    "groups behind a batch": (
        "g (float[1,4,3] x) => (float[1,4,3] y) <int64[3] t={1,2,-1}, int64[3] back={1,4,3}>"
        " { r = Reshape(x, t) m = ReduceMean<axes=[2],keepdims=1>(r) d = Sub(r, m) y = Reshape(d, back) }",
        {},
    ),
    "groups as instances": (
        "g (float[1,4,6] x) => (float[1,4,6] y)"
        " <int64[3] t={0,2,-1}, int64[3] back={1,4,6}, float[2] one={1,1}, float[2] nil={0,0}>"
        " { r = Reshape(x, t) n = InstanceNormalization(r, one, nil) y = Reshape(n, back) }",
        {},
    ),
    # PyTorch's attention: (S,B,E), heads folded into the batch
    "heads in the batch": (
        "g (float[1,5,8] x) => (float[1,5,8] y) <int64[3] split={5,2,4}, int64[3] back={5,1,8}> {"
        " t = Transpose<perm=[1,0,2]>(x) q0 = MatMul(t, Wq) k0 = MatMul(t, Wk)"
        " q1 = Reshape(q0, split) k1 = Reshape(k0, split)"
        " q = Transpose<perm=[1,0,2]>(q1) k = Transpose<perm=[1,2,0]>(k1)"
        " qk = MatMul(q, k) p = Softmax<axis=-1>(qk) o = MatMul(p, q) o1 = Transpose<perm=[1,0,2]>(o)"
        " o2 = Reshape(o1, back) z = MatMul(o2, Wo) y = Transpose<perm=[1,0,2]>(z) }",
        {"Wq": (8, 8), "Wk": (8, 8), "Wo": (8, 8)},
    ),
    # heads beside the batch, as other exporters do
    "heads beside the batch": (
        "g (float[1,5,8] x) => (float[1,5,8] y) <int64[4] split={1,5,2,4}, int64[3] back={1,5,8}> {"
        " q0 = MatMul(x, Wq) q1 = Reshape(q0, split)"
        " q = Transpose<perm=[0,2,1,3]>(q1) k = Transpose<perm=[0,2,3,1]>(q1)"
        " s = MatMul(q, k) p = Softmax<axis=-1>(s) o = MatMul(p, q) o1 = Transpose<perm=[0,2,1,3]>(o)"
        " y = Reshape(o1, back) }",
        {"Wq": (8, 8)},
    ),
    # rows of all positions: (1,S,E) -> (S,E) -> (1,S,E)
    "rows": (
        "g (float[1,5,8] x) => (float[1,5,3] y) <int64[2] flat={5,8}, int64[3] back={1,5,3}>"
        " { r = Reshape(x, flat) m = Gemm(r, W, b) y = Reshape(m, back) }",
        {"W": (8, 3), "b": (3,)},
    ),
    "batch squeezed away": (
        "g (float[1,5,8] x) => (float[5,3] y) <int64[1] ax={0}> { r = Squeeze(x, ax) y = MatMul(r, W) }",
        {"W": (8, 3)},
    ),
    "first request taken": (
        "g (float[1,5,8] x) => (float[5,3] y) <int64 first={0}> { r = Gather<axis=0>(x, first) y = MatMul(r, W) }",
        {"W": (8, 3)},
    ),
    "expanded": (
        "g (float[1,1,8] x) => (float[1,5,8] y) <int64[3] t={1,5,8}> { h = Relu(x) y = Expand(h, t) }",
        {},
    ),
    "tiled": ("g (float[1,8] x) => (float[1,16] y) <int64[2] t={1,2}> { h = Relu(x) y = Tile(h, t) }", {}),
    # a class token for each request
    "token in front": (
        "g (float[1,4,3] x) => (float[1,5,3] y) <float[1,1,3] token={1,2,3}> { h = Relu(x)"
        " y = Concat<axis=1>(token, h) }",
        {},
    ),
    "token expanded": (
        "g (float[1,4,3] x) => (float[1,5,3] y) <float[1,1,3] token={1,2,3}, int64[3] t={1,-1,-1}, int64[3] u={1,1,3}>"
        " { h = Relu(x) e = Expand(token, u) y = Concat<axis=1>(e, h) }",
        {},
    ),
    "zeros made": (
        "g (float[1,4,3] x) => (float[1,5,3] y) <int64[3] t={1,1,3}>"
        " { h = Relu(x) z = ConstantOfShape(t) y = Concat<axis=1>(h, z) }",
        {},
    ),
    "slice of the batch": (
        "g (float[1,4,6] x) => (float[1,4,3] y) <int64[3] from={0,0,0}, int64[3] to={1,4,3}>"
        " { h = Relu(x) y = Slice(h, from, to) }",
        {},
    ),
    "slice, opset 9": (
        f"{OPSET_9} g (float[1,4,6] x) => (float[1,4,6] y)"
        " { h = Relu(x) y = Slice<starts=[0,0], ends=[1,4], axes=[0,1]>(h) }",
        {},
    ),
    "split to one": (
        "g (float[1,4,6] x) => (float[1,4,3] y) <int64[2] s={3,3}> { a, b = Split<axis=2>(x, s) y = Add(a, b) }",
        {},
    ),
    "resized": (
        "g (float[1,2,4,4] x) => (float[1,2,8,8] y) <int64[4] s={1,2,8,8}>"
        ' { h = Relu(x) y = Resize<mode="nearest">(h, , , s) }',
        {},
    ),
    "resized by scales": (
        "g (float[1,2,4,4] x) => (float[1,2,8,8] y) <float[4] s={1,1,2,2}>"
        ' { h = Relu(x) y = Resize<mode="nearest">(h, , s) }',
        {},
    ),
    "shuffled channels": (
        "g (float[1,4,2,2] x) => (float[1,4,2,2] y) <int64[5] t={1,2,2,2,2}, int64[4] back={1,4,2,2}>"
        " { r = Reshape(x, t) s = Transpose<perm=[0,2,1,3,4]>(r) y = Reshape(s, back) }",
        {},
    ),
    # initial states of zeros, as exporters write them
    "recurrent, states made": (
        "g (float[1,5,4] x) => (float[1,5,3] y) <int64[3] hs={1,1,3}, int64[1] ax={1}> {"
        " t = Transpose<perm=[1,0,2]>(x) h0 = ConstantOfShape(hs) c0 = ConstantOfShape(hs)"
        " o, hn, cn = LSTM<hidden_size=3>(t, W, R, , , h0, c0) s = Squeeze(o, ax) y = Transpose<perm=[1,0,2]>(s) }",
        {"W": (1, 12, 4), "R": (1, 12, 3)},
    ),
    "recurrent, one state": (
        "g (float[1,5,4] x) => (float[1,5,3] y) <int64[3] hs={1,1,3}, int64[1] ax={1}> {"
        " t = Transpose<perm=[1,0,2]>(x) h0 = ConstantOfShape(hs)"
        " o, hn = GRU<hidden_size=3>(t, W, R, , , h0) s = Squeeze(o, ax) y = Transpose<perm=[1,0,2]>(s) }",
        {"W": (1, 9, 4), "R": (1, 9, 3)},
    ),
    "state of the caller": (
        "g (float[1,4] x, float[1,1,3] state) => (float[1,3] y, float[1,1,3] next) <int64[1] ax={0}>"
        " { u = Unsqueeze(x, ax) o, next = GRU<hidden_size=3>(u, W, R, , , state) y = Squeeze(next, ax) }",
        {"W": (1, 9, 4), "R": (1, 9, 3)},
    ),
    "image to columns": (
        "g (float[1,4,4,1] x) => (float[1,4,4] y) <int64[4] t={1,1,4,4}, int64[3] back={1,4,4}>"
        " { r = Reshape(x, t) c = Relu(r) y = Reshape(c, back) }",
        {},
    ),
    "flat with an open rest": (
        "g (float[1,2,3] x) => (float[1,6] y) <int64[2] t={1,-1}> { h = Relu(x) y = Reshape<allowzero=0>(h, t) }",
        {},
    ),
    "open leading size": (
        "g (float[1,2,3] x) => (float[2,3] y) <int64[2] t={-1,3}> { h = Relu(x) y = Reshape(h, t) }",
        {},
    ),
    "a batch of 4": (
        "g (float[4,2,3] x) => (float[4,6] y) <int64[2] t={4,6}> { h = Relu(x) y = Reshape(h, t) }",
        {},
    ),
    "window attention": (  # (1,H,W,C) -> (1,H/2,2,W/2,2,C) -> (windows, 2, 2, C) and back
        "g (float[1,4,4,3] x) => (float[1,4,4,3] y) <int64[6] t={1,2,2,2,2,3}, int64[3] w={4,4,3},"
        " int64[6] u={1,2,2,2,2,3}, int64[4] back={1,4,4,3}> {"
        " a = Reshape(x, t) b = Transpose<perm=[0,1,3,2,4,5]>(a) c = Reshape(b, w) k = Transpose<perm=[0,2,1]>(c)"
        " s = MatMul(c, k) p = Softmax<axis=-1>(s) o = MatMul(p, c) d = Reshape(o, u)"
        " e = Transpose<perm=[0,1,3,2,4,5]>(d) y = Reshape(e, back) }",
        {},
    ),
    "window mask": (  # a constant for each window of a request: repeated for each request
        "g (float[1,4,2] x) => (float[1,4,2] y) <int64[3] w={2,2,2}, int64[3] back={1,4,2},"
        " float[2,2,2] mask={0,1,2,3,4,5,6,7}> {"
        " a = Reshape(x, w) k = Transpose<perm=[0,2,1]>(a) s = MatMul(a, k) m = Add(s, mask) p = Softmax<axis=-1>(m)"
        " o = MatMul(p, a) y = Reshape(o, back) }",
        {},
    ),
    "a batch of 4, resized": (  # sizes grow with rows, not with calls of 4
        "g (float[4,2,4,4] x) => (float[4,2,8,8] y) <int64[4] s={4,2,8,8}>"
        ' { h = Relu(x) y = Resize<mode="nearest">(h, , , s) }',
        {},
    ),
    "groups as columns": (
        "g (float[1,8,6] x) => (float[1,8,6] y) <int64[2] t={4,12}, int64[3] back={1,8,6}>"
        " { r = Reshape(x, t) c = Transpose(r) m = ReduceMean<axes=[0],keepdims=1>(c) d = Sub(c, m)"
        " e = Transpose(d) y = Reshape(e, back) }",
        {},
    ),
    "both directions": (
        "g (float[1,5,4] x) => (float[1,5,6] y) <int64[3] hs={2,1,3}, int64[3] back={5,1,6}> {"
        " t = Transpose<perm=[1,0,2]>(x) h0 = ConstantOfShape(hs)"
        ' o, hn = GRU<hidden_size=3, direction="bidirectional">(t, W, R, , , h0)'
        " p = Transpose<perm=[0,2,1,3]>(o) r = Reshape(p, back) y = Transpose<perm=[1,0,2]>(r) }",
        {"W": (2, 9, 4), "R": (2, 9, 3)},
    ),
    "sum of products": (
        "g (float[1,5,8] x) => (float[1,5,8] y) <int64[4] s={1,5,2,4}, int64[3] back={1,5,8}> {"
        ' q = Reshape(x, s) a = Einsum<equation="bqhd,bkhd->bhqk">(q, q) p = Softmax(a)'
        ' o = Einsum<equation="bhqk,bkhd->bqhd">(p, q) y = Reshape(o, back) }',
        {},
    ),
    "a function of its own": (
        '<ir_version: 8, opset_import: ["" : 17, "mine" : 1]>'
        " g (float[1,4,3] x) => (float[1,12] y) { y = mine.flat(x) }"
        ' <domain: "mine", opset_import: ["" : 17]> flat (a) => (c)'
        " { t = Constant<value=int64[2] {1,12}>() b = Relu(a) c = Reshape(b, t) }",
        {},
    ),
    "an input that nothing reads": (
        "g (float[1,4] x, float unread) => (float[1,2,2] y) <int64[3] t={1,2,2}> { h = Relu(x) y = Reshape(h, t) }",
        {},
    ),
    "recurrent layers of whose outputs the first has no name": (
        "g (float[5,1,4] x) => (float[2,1,3] y) <float[1,1,3] h0={1,2,3}, float[1,1,3] h1={3,2,1}> {"
        " ,a = GRU<hidden_size=3>(x, W, R, , , h0) ,b = GRU<hidden_size=3>(x, V, R, , , h1) y = Concat<axis=0>(a, b) }",
        {"W": (1, 9, 4), "V": (1, 9, 4), "R": (1, 9, 3)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FREED)
def test_a_freed_model_answers_each_request_as_its_file_does(case):
    text, weights = FREED[case]
    model = model_of(text, **weights)
    prepared = prepare_model(model, case)
    assert not prepared.single, prepared.reason
    assert prepared.freed
    assert_same_answers(model, prepared.graph.model)


@pytest.mark.parametrize("taken", ["r.target", "r.open"])
def test_what_is_added_has_names_that_are_free(taken):
    model = model_of(
        "g (float[1,4,4] x) => (float[1,16] y) <int64[2] s={1,16}> { r = Reshape(x, s) y = Mul(r, w) }", w=(16,)
    )
    model.graph.initializers["w"].name = taken
    prepared = prepare_model(model, "m")
    assert prepared.freed
    assert taken in prepared.graph.model.graph.initializers
    assert_same_answers(model, prepared.graph.model)


def assert_same_answers(pinned: ir.Model, freed: ir.Model):
    """Every batch of the file's calls, against calls of the file one after the other; inputs and outputs differ."""
    original, session = open_session(pinned), open_session(freed)
    calls = [random_feeds(pinned, 1, np.random.default_rng(100 + call)) for call in range(7)]
    alone = [run_model(original, feeds) for feeds in calls]
    axes = {
        str(value.name): [isinstance(size, int) for size in value.shape].index(False) for value in freed.graph.inputs
    }
    assert all(not np.allclose(alone[0][0], other[0]) for other in alone[1:])
    for batch in (1, 4, 7):
        together = {
            name: put_together([each[name] for each in calls[:batch]], Fold(axis)) for name, axis in axes.items()
        }
        for position, made in enumerate(run_model(session, together)):
            fold = find_fold([each[position] for each in alone[:batch]], made)
            assert fold is None or fold.outer == 1  # a text says what is wrong


# name -> (text, weights, layer). Nothing can serve two requests in one run; the layer is named.
KEPT = {
    "softmax over the batch": (
        "g (float[1,4] x) => (float[1,4] y) { h = Relu(x) [mix] y = Softmax<axis=0>(h) }",
        "mix",
    ),
    "sum over the batch": (
        "g (float[1,4] x) => (float[1,4] y) { h = Relu(x) [mix] s = ReduceSum<keepdims=1>(h) y = Div(h, s) }",
        "mix",
    ),
    "scale of all": (
        "g (float[1,8] x) => (float[1,8] y)"
        " { [scale] q, s, z = DynamicQuantizeLinear(x) y = DequantizeLinear(q, s, z) }",
        "scale",
    ),
    # without its batch a request is a row, and rows of several requests are one row
    "sum along requests": (
        "g (float[1,4] x) => (float[1,4] y) <int64[2] b={1,4}, int64[1] ax={0}, int64 zero={0}>"
        " { h = Squeeze(x, ax) [sum] c = CumSum(h, zero) y = Unsqueeze(c, ax) }",
        "sum",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", KEPT)
def test_a_model_whose_requests_cannot_share_a_run_takes_one_and_the_layer_is_named(case):
    text, layer = KEPT[case]
    model = model_of(text)
    prepared = prepare_model(model, case)
    assert prepared.single
    assert f"'{layer}'" in prepared.reason
    assert "\n" not in prepared.reason
    feeds = random_feeds(model, 1, np.random.default_rng(5))
    for made, expected in zip(
        run_model(open_session(prepared.graph.model), feeds), run_model(open_session(model), feeds), strict=True
    ):
        np.testing.assert_allclose(made, expected, rtol=1e-5)
    with pytest.raises(InputError, match=layer):
        free_batch(model)


def test_the_model_given_is_not_changed():
    text, weights = FREED["groups, open rest"]
    model = model_of(text, **weights)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    prepare_model(model, "groups")
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_freeing_is_the_same_each_time():
    text, weights = FREED["heads in the batch"]
    first, second = (
        ir.to_proto(free_batch(model_of(text, **weights))).SerializeToString(deterministic=True) for _ in range(2)
    )
    assert first == second
