"""Right answers pass, wrong ones do not, whatever their type and the model's own noise."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest
from onnx import numpy_helper, parser

from planner.model import InputError
from planner.profiling import cuts, extract_parts, open_session, read_graph, run_chain, run_model
from planner.profiling.cuts import choose_cuts, run_parts, try_cuts
from planner.profiling.differences import Difference, difference, equal, scale_of
from planner.profiling.samples import cut_samples, draw_samples, join, take
from planner.profiling.verification import Yardstick, measure_yardstick

HEAD = '<ir_version: 10, opset_import: ["" : %d]> g '
BATCH = 4


def with_weights(text: str, opset: int = 17, **weights: np.ndarray) -> ir.Model:
    proto = parser.parse_model(HEAD % opset + text)
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return ir.from_proto(proto)


def weights(*shape: int, seed: int = 0, dtype: type = np.float32) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) / np.sqrt(shape[0])).astype(dtype)


def deep(dtype: str = "float", layers: int = 6) -> ir.Model:
    """A network of residual layers; ``dtype`` of all its tensors."""
    kind = np.float16 if dtype == "float16" else np.float32
    names = ["x", *(f"h{at}" for at in range(layers))]
    steps = " ".join(
        f"m{at} = MatMul({names[at]}, w{at}) t{at} = Tanh(m{at}) h{at} = Add(t{at}, {names[at]})"
        for at in range(layers)
    )
    text = f"({dtype}[n, 32] x) => ({dtype}[n, 32] y) {{ {steps} y = Softmax(h{layers - 1}) }}"
    return with_weights(text, **{f"w{at}": weights(32, 32, seed=at, dtype=kind) for at in range(layers)})


def quantised() -> ir.Model:
    """Two products of bytes, as exporters write them: quantised, dequantised, and quantised again."""
    text = """(float[n, 32] x) => (float[n, 32] y) <float s = {0.03}, int8 z = {0}, float sw = {0.004}> {
        xq = QuantizeLinear(x, s, z) xd = DequantizeLinear(xq, s, z) wd = DequantizeLinear(wq, sw, z)
        h = MatMul(xd, wd) r = Relu(h) rq = QuantizeLinear(r, s, z) rd = DequantizeLinear(rq, s, z)
        vd = DequantizeLinear(vq, sw, z) y = MatMul(rd, vd) }"""
    rng = np.random.default_rng(0)
    wq, vq = (rng.integers(-127, 128, (32, 32)).astype(np.int8) for _ in range(2))
    return with_weights(text, wq=wq, vq=vq)


def labels(gap: float = 1.0) -> ir.Model:
    """The place of the largest of four scores; the last two are ``gap`` times as far apart as they were drawn."""
    columns = weights(8, 4)
    columns[:, 3] = columns[:, 2] + gap * (columns[:, 3] - columns[:, 2])
    return with_weights(
        "(float[n, 8] x) => (int64[n] label)"
        " { s = MatMul(x, w) p = Tanh(s) label = ArgMax<axis = 1, keepdims = 0>(p) }",
        w=columns,
    )


MODELS: dict[str, Callable[[], ir.Model]] = {
    "float": deep,
    "half": lambda: deep("float16"),
    "quantised": quantised,
    "labels": labels,
    "not a number": lambda: with_weights("(float[n, 4] x) => (float[n, 4] y) { h = Log(x) y = Mul(h, h) }"),
    "infinite": lambda: with_weights(
        "(float[n, 4] x) => (float[n, 4] y) { r = Relu(x) h = Log(r) k = Abs(h) y = Sub(k, x) }"
    ),
    "bytes": lambda: with_weights(
        "(float[n, 8] x) => (uint8[n, 8] y) <float s = {0.05}, uint8 z = {128}>"
        " { h = MatMul(x, w) y = QuantizeLinear(h, s, z) }",
        w=weights(8, 8),
    ),
    "mask": lambda: with_weights(
        "(float[n, 8] x) => (bool[n, 8] y) <float zero = {0.0}> { h = MatMul(x, w) k = Tanh(h) y = Greater(k, zero) }",
        w=weights(8, 8),
    ),
    "best three": lambda: with_weights(
        "(float[n, 8] x) => (float[n, 3] v, int64[n, 3] i) <int64[1] three = {3}>"
        " { h = MatMul(x, w) v, i = TopK(h, three) }",
        w=weights(8, 8),
    ),
}


class Case:
    """A model, samples, and what the original says of them."""

    def __init__(self, model: ir.Model, tolerance: float | None = None) -> None:
        self.graph = read_graph(model, "case")
        self.samples = draw_samples(self.graph, 8, 0)
        self.yardstick = measure_yardstick(model, self.graph, self.samples, tolerance)

    def answers(self, graph=None, starts=(0,), change=lambda name, tensor: tensor) -> dict[str, np.ndarray]:
        """Return what the parts of a graph answer to a batch; ``change`` spoils tensors between them."""

        def run(part, feeds):
            spoilt = {name: change(name, tensor) for name, tensor in feeds.items()}
            return run_model(open_session(part.model), spoilt)

        made = run_chain(extract_parts(graph or self.graph, starts), run, join(self.graph, self.samples, range(BATCH)))
        return {name: made[name] for name in self.graph.outputs}

    def wrong(self, answers: dict[str, np.ndarray]) -> int:
        """Count the wrong ones of a batch."""
        tensors = self.graph.tensors
        own = [{name: take(tensors[name], array, at, BATCH) for name, array in answers.items()} for at in range(BATCH)]
        return sum(not self.yardstick.judge(at, each).right for at, each in enumerate(own))


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.filterwarnings("error")
def test_every_split_of_a_model_is_right(kind: str) -> None:
    case = Case(MODELS[kind]())
    for way in try_cuts(case.graph, choose_cuts(case.graph, None), case.samples, case.yardstick, BATCH):
        assert (way.wrong, way.moved) == ({}, 0)
        assert way.cuts == len(case.graph.layers) - 1
        if not way.optimised and kind != "half":  # which onnxruntime computes in pieces of full precision
            assert way.equal == way.cuts


def test_a_wrong_split_is_found_however_loud_a_model_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without optimisations parts are compared with the whole, not with what the noise allows."""
    case = Case(deep())
    loud = replace(case.yardstick, allowed={"y": Difference(1.0, 1.0)})

    def spoilt(graph, starts, feeds, *, optimise):
        made = run_parts(graph, starts, feeds, optimise=optimise)
        return made if len(starts) == 1 else {**made, "y": made["y"] * np.float32(1.001)}

    monkeypatch.setattr(cuts, "run_parts", spoilt)
    plain, optimised = try_cuts(case.graph, [3], case.samples, loud, BATCH)
    assert set(plain.wrong) == {3}
    assert "from the unsplit model's" in plain.wrong[3]
    assert optimised.wrong == {}  # nothing but the noise to hold it against


def test_outputs_of_a_request_that_are_nearly_nothing_are_measured_by_what_others_get() -> None:
    """A detector's scores where nothing is to be seen are the rounding of its sigmoid."""
    got, expected = np.array([1e-7], np.float32), np.array([2e-7], np.float32)
    assert difference(got, expected).largest == pytest.approx(0.5)
    scale = scale_of([expected, np.array([0.5], np.float32)])
    assert difference(got, expected, scale).largest == pytest.approx(2e-7)


def test_what_the_runtime_does_to_parts_alone_is_told_apart() -> None:
    """onnxruntime rounds activations in products of 4-bit weights, but not where two products share their scales."""
    import ml_dtypes

    text = """(float[n, 64] x) => (float[n, 64] y) { a = DequantizeLinear<axis = 0, block_size = 32>(wq, scales)
        h = MatMul(x, a) r = Relu(h) b = DequantizeLinear<axis = 0, block_size = 32>(vq, scales) y = MatMul(r, b) }"""
    rng = np.random.default_rng(0)
    wq, vq = (rng.integers(-8, 7, (64, 64)).astype(ml_dtypes.int4) for _ in range(2))
    case = Case(with_weights(text, 21, wq=wq, vq=vq, scales=np.full((2, 64), 0.05, np.float32)))
    plain, optimised = try_cuts(case.graph, choose_cuts(case.graph, None), case.samples, case.yardstick, BATCH)
    assert (plain.wrong, plain.moved, plain.equal) == ({}, 0, plain.cuts)
    assert optimised.wrong == {}
    assert optimised.moved > 0
    assert optimised.worst.rms > 10 * plain.worst.rms


def test_a_model_that_was_rewritten_wrongly_is_wrong_unsplit() -> None:
    original = with_weights(
        "(float[1, 4, 3] x) => (float[1, 4, 3] y) <int64[2] groups = {2, -1}, int64[3] back = {1, 4, 3}>"
        " { h = Relu(x) r = Reshape(h, groups) m = ReduceMean<axes = [1], keepdims = 1>(r) d = Sub(r, m)"
        " y = Reshape(d, back) }"
    )
    wrong = with_weights(
        "(float[n, 4, 3] x) => (float[n, 4, 3] y) <int64[2] groups = {0, -1}, int64[3] back = {-1, 4, 3}>"
        " { h = Relu(x) r = Reshape(h, groups) m = ReduceMean<axes = [1], keepdims = 1>(r) d = Sub(r, m)"
        " y = Reshape(d, back) }"
    )
    graph = read_graph(wrong, "case")
    samples = draw_samples(graph, 8, 0)
    ways = try_cuts(graph, [2], samples, measure_yardstick(original, graph, samples))
    assert all(set(way.wrong) == {0, 2} for way in ways)


@pytest.mark.parametrize("kind", ["float", "half", "quantised"])
def test_parts_that_are_given_each_others_tensors_are_wrong(kind: str) -> None:
    case = Case(MODELS[kind]())
    right = case.answers(starts=[0, 4])
    assert case.wrong(right) == 0
    # Requests of a batch change places between the stages.
    assert case.wrong(case.answers(starts=[0, 4], change=lambda name, t: t if name == "x" else t[::-1])) == BATCH


def test_weights_that_are_off_by_a_thousandth_are_wrong() -> None:
    case = Case(deep())
    other = deep()
    value = other.graph.initializers["w3"]
    value.const_value = ir.tensor(value.const_value.numpy() * np.float32(1.001), name="w3")
    assert case.wrong(case.answers(read_graph(other, "case"))) == BATCH


def test_a_label_that_is_shifted_is_wrong() -> None:
    case = Case(labels())
    right = case.answers()
    assert case.wrong(right) == 0
    assert case.wrong({"label": (right["label"] + 1) % 4}) == BATCH
    assert case.wrong({"label": right["label"] + 4}) == BATCH  # no place at all
    assert case.wrong({"label": right["label"].astype(np.int32)}) == BATCH  # another type
    assert case.wrong({"label": right["label"][:, None]}) == BATCH  # another shape


def test_a_label_is_right_where_the_scores_are_nearly_tied() -> None:
    tied, apart = Case(labels(gap=1e-7)), Case(labels(gap=1.0))
    for case, expected in ((tied, 0), (apart, None)):
        right = case.answers()
        swapped = {"label": np.where(right["label"] >= 2, 5 - right["label"], right["label"])}
        moved = int((swapped["label"] != right["label"]).sum())
        assert moved > 0
        assert case.wrong(swapped) == (moved if expected is None else expected)


@pytest.mark.parametrize(("kind", "step"), [("bytes", 1), ("mask", 1)])
def test_a_rounded_number_next_to_the_right_one_is_wrong_unless_it_was_near_the_edge(kind: str, step: int) -> None:
    case = Case(MODELS[kind]())
    (name,) = case.graph.outputs
    right = case.answers()[name]
    assert case.wrong({name: right}) == 0
    other = ~right if right.dtype == bool else right + np.uint8(step)
    assert case.wrong({name: other}) == BATCH
    # An input that lies exactly on the edge: either neighbour is right.
    yardstick = case.yardstick
    tie = yardstick.ties[name]
    scores = np.full((1, 8), 0.025 if kind == "bytes" else 0.0, np.float32)
    low, high = (np.full((1, 8), value, right.dtype) for value in ((128, 129) if kind == "bytes" else (False, True)))
    assert tie.explains(low, high, scores, 1e-4)
    assert tie.explains(high, low, scores, 1e-4)
    assert not tie.explains(low, high, scores + np.float32(0.01), 1e-4)


def test_places_of_the_best_may_change_only_where_the_scores_are_tied() -> None:
    case = Case(MODELS["best three"]())
    right = case.answers()
    assert case.wrong(right) == 0
    assert case.wrong({**right, "i": right["i"][:, ::-1]}) == BATCH
    assert case.wrong({**right, "v": right["v"] * np.float32(1.001)}) == BATCH


def test_requests_that_influence_each_other_are_no_noise() -> None:
    model = with_weights("(float[n, 4] x) => (float[n, 4] y) { h = Relu(x) s = Softmax<axis = 0>(h) y = Mul(s, h) }")
    case = Case(model)
    assert case.wrong(case.answers()) == BATCH


def test_the_noise_of_a_model_is_what_it_does_to_itself() -> None:
    quiet, half = Case(deep()), Case(deep("float16"))
    assert quiet.yardstick.loudest < 1e-6
    assert half.yardstick.loudest > 10 * quiet.yardstick.loudest
    assert half.yardstick.allowed["y"].largest <= 0.01


def test_a_tolerance_takes_the_place_of_the_noise_for_numbers_alone() -> None:
    strict, loose = Case(deep(), 1e-12), Case(deep(), 0.5)
    spoilt = {"y": strict.answers()["y"] * np.float32(1.01)}
    assert (strict.wrong(spoilt), loose.wrong(spoilt)) == (BATCH, 0)
    label = Case(labels(), 0.5)
    assert label.wrong({"label": (label.answers()["label"] + 1) % 4}) == BATCH


REFUSED = {
    "gives equal outputs for different inputs": "(float[n, 4] x) => (float[n, 4] y) { h = Sub(x, x) y = Exp(h) }",
    "draws random numbers": (
        "(float[n, 4] x) => (float[n, 4] y) { r = RandomNormal<shape = [4], seed = 1.0>() y = Add(x, r) }"
    ),
}


@pytest.mark.parametrize("said", REFUSED)
def test_models_that_cannot_be_compared_are_refused(said: str) -> None:
    with pytest.raises(InputError, match=said):
        Case(with_weights(REFUSED[said]))


def test_an_original_for_one_request_or_for_four_is_run_as_it_is() -> None:
    free = deep()
    for fixed in (1, 4):
        original = free.clone()
        for value in (*original.graph.inputs, *original.graph.outputs):
            value.shape = ir.Shape([fixed, 32])
        graph = read_graph(free, "case")
        yardstick = measure_yardstick(original, graph, draw_samples(graph, 6, 0))
        assert [answer["y"].shape for answer in yardstick.answers] == [(1, 32)] * 6
        assert_answers(yardstick, measure_yardstick(free, graph, draw_samples(graph, 6, 0)))


def assert_answers(yardstick: Yardstick, other: Yardstick) -> None:
    for sample, answer in enumerate(other.answers):
        assert yardstick.judge(sample, answer).right


DIFFERENCES = [
    # got, expected, largest and root mean square, both relative
    ([1.0, 2.0], [1.0, 2.0], (0, 0)),
    ([1.0, 3.0], [1.0, 4.0], (0.25, np.sqrt(0.5 / 8.5))),
    ([np.nan, 4.0], [np.nan, 4.0], (0, 0)),
    ([np.nan, 4.0], [1.0, 4.0], (np.inf, np.inf)),
    ([1.0, 4.0], [np.nan, 4.0], (np.inf, np.inf)),
    ([np.inf, 1.0], [np.inf, 1.0], (0, 0)),
    ([-np.inf, 1.0], [np.inf, 1.0], (np.inf, np.inf)),
    ([np.inf, 1.0], [2.0, 1.0], (np.inf, np.inf)),
    ([0.0, 0.0], [0.0, 0.0], (0, 0)),
    ([0.5, 0.0], [0.0, 0.0], (0.5, np.sqrt(0.125))),
    ([], [], (0, 0)),
]


@pytest.mark.parametrize(("got", "expected", "found"), DIFFERENCES)
@pytest.mark.filterwarnings("error")
def test_differences(got: list[float], expected: list[float], found: tuple[float, float]) -> None:
    pair = np.array(got), np.array(expected)
    assert difference(*pair) == pytest.approx(Difference(*found))
    assert equal(*pair) == (difference(*pair) == (0, 0))


def test_shapes_and_types_must_be_the_same() -> None:
    one = np.ones((2, 3), np.float32)
    assert difference(one, one.astype(np.float64)).largest == np.inf
    assert difference(one, np.ones((3, 2), np.float32)).largest == np.inf
    assert not equal(one, one.astype(np.int64))


def test_samples_come_from_batches_of_any_size() -> None:
    graph = read_graph(deep(), "case")
    batches = [{"x": np.full((count, 32), count, np.float64), "unread": np.zeros(1)} for count in (1, 3)]
    samples = cut_samples(graph, batches)
    assert samples["x"].shape == (4, 1, 32)
    assert samples["x"].dtype == np.float32
    assert samples["x"][:, 0, 0].tolist() == [1, 3, 3, 3]


BAD_INPUTS = [
    # arrays; what is said
    ({}, "'x' is missing; expected arrays x"),
    ({"x": np.zeros((2, 31), np.float32)}, r"'x' has shape \[2, 31\], expected \[1 · requests, 32\]"),
    ({"x": np.zeros(32, np.float32)}, r"'x' has shape \[32\], expected"),
    ({"x": np.zeros((0, 32), np.float32)}, r"'x' has shape \[0, 32\], expected"),
    ({"x": np.zeros((2, 32), complex)}, "'x' is of type complex128, expected float32"),
    ({"x": np.full((2, 32), "a")}, "'x' is of type <U1, expected float32"),
]


@pytest.mark.parametrize(("arrays", "said"), BAD_INPUTS)
def test_inputs_that_are_not_the_models_are_refused(arrays: dict[str, np.ndarray], said: str) -> None:
    with pytest.raises(InputError, match=said):
        cut_samples(read_graph(deep(), "case"), [arrays])
