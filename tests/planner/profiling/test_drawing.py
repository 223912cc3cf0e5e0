"""Inputs are drawn so that onnxruntime takes them, and as varied as it allows."""

import numpy as np
import onnx_ir as ir
import pytest

from planner.profiling import open_session, random_feeds, run_model
from planner.profiling.drawing import Domain, draw, find_domains

HEAD = '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1, "ai.onnx.ml" : 3]> g '
TABLE = "<float[5, 2] table = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}"

# what the model is like: its text, and what its integers may be (both ends included)
DOMAINS = {
    "rows of a table": (f"(int64[n, 3] i) => (float[n, 3, 2] y) {TABLE}> {{ y = Gather(table, i) }}", (-5, 4)),
    "columns of a table": (f"(int64[n] i) => (float[5, n] y) {TABLE}> {{ y = Gather<axis = -1>(table, i) }}", (-2, 1)),
    "a table behind casts and reshapes": (
        f"(int32[n, 3] i) => (float[n, 1, 3, 2] y) {TABLE}, int64[1] one = {{1}}>"
        " { a = Cast<to = 7>(i) b = Unsqueeze(a, one) y = Gather(table, b) }",
        (-5, 4),
    ),
    "ids that are floats": (
        f"(float[n, 3] i) => (float[n, 3, 2] y) {TABLE}> {{ a = Cast<to = 7>(i) y = Gather(table, a) }}", (-5, 4)
    ),
    "positions that begin at two": (
        f"(int64[n, 3] i) => (float[n, 3, 2] y) {TABLE}, int64 two = {{2}}> {{ a = Add(i, two) y = Gather(table, a) }}",
        (-7, 2),
    ),
    "one table for several columns": (
        f"(int64[n, 2] i) => (float[n, 2, 2] y) {TABLE}, int64[2] at = {{0, 3}}>"
        " { a = Add(i, at) y = Gather(table, a) }",
        (-5, 1),
    ),
    "every other row": (
        f"(int64[n, 3] i) => (float[n, 3, 2] y) {TABLE}, int64 two = {{2}}> {{ a = Mul(i, two) y = Gather(table, a) }}",
        (-2, 2),
    ),
    "the smaller of two tables": (
        f"(int64[n] i) => (float[n, 2] y) {TABLE}, float[2, 2] small = {{1, 2, 3, 4}}>"
        " { a = Gather(table, i) b = Gather(small, i) y = Add(a, b) }",
        (-2, 1),
    ),
    "a one-hot code": (
        "(int64[n] i) => (float[n, 4] y) <int64 four = {4}, float[2] v = {0, 1}> { y = OneHot(i, four, v) }", (-4, 3)
    ),
    "points of a table": (
        "(int64[n, 2] i) => (float[n] y) <float[5, 2] table = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}>"
        " { y = GatherND(table, i) }",
        (-2, 1),
    ),
    "a table of unknown height": (
        "(int64[n] i, float[m, 2] t) => (float[n, 2] y) { y = Gather(t, i) }", (0, 0)
    ),
    "a divisor": ("(int64[n] i) => (int64[n] y) <int64 seven = {7}> { y = Div(seven, i) }", (1, None)),
    "lengths of sequences": (
        "(float[n, 6, 2] x, int64[n] i) => (float[n, 6, 2] y)"
        " { y = ReverseSequence<time_axis = 1, batch_axis = 0>(x, i) }",
        (1, 6),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", DOMAINS)
def test_integers_are_within_what_operators_allow(kind: str) -> None:
    text, (low, high) = DOMAINS[kind]
    model = ir.from_onnx_text(HEAD + text)
    domain = find_domains(model.graph)["i"]
    assert domain.low == low
    assert domain.high == (float("inf") if high is None else high)
    feeds = random_feeds(model, 64, np.random.default_rng(0))
    run_model(open_session(model, optimise=False), feeds)  # onnxruntime refuses what is out of bounds
    if high is not None:
        assert set(np.unique(feeds["i"])) == set(range(max(0, low), high + 1))


def test_integers_that_reach_no_index_are_zero_and_one() -> None:
    model = ir.from_onnx_text(HEAD + "(int64[n, 9] mask) => (float[n, 9] y) { y = Cast<to = 1>(mask) }")
    assert find_domains(model.graph) == {}
    assert set(np.unique(random_feeds(model, 9, np.random.default_rng(0))["mask"])) == {0, 1}


@pytest.mark.parametrize(
    "before",
    [
        "b = Identity(boxes)",
        "b = Mul(boxes, half)",
        "a = Div(boxes, half) b = Sub(a, half)",
        "a = Add(half, boxes) b = Clip(a)",
    ],
)
def test_boxes_are_not_inside_out(before: str) -> None:
    model = ir.from_onnx_text(
        HEAD + "(float[n, 3, 8, 8] x, float[n, 4] boxes, int64[n] of) => (float[n, 3, 2, 2] y) <float half = {0.5}>"
        f" {{ {before} y = RoiAlign<output_height = 2, output_width = 2>(x, b, of) }}"
    )
    feeds = random_feeds(model, 200, np.random.default_rng(0))
    assert (feeds["boxes"][:, :2] <= feeds["boxes"][:, 2:]).all()
    assert set(feeds["of"]) == {0}
    run_model(open_session(model), feeds)  # onnxruntime's counters overflow on boxes of negative size


def test_a_value_that_falls_with_an_input_says_nothing_of_its_order() -> None:
    model = ir.from_onnx_text(
        HEAD + "(float[n, 3, 8, 8] x, float[n, 4] boxes, int64[n] of) => (float[n, 3, 2, 2] y) <float one = {1}>"
        " { b = Sub(one, boxes) y = RoiAlign<output_height = 2, output_width = 2>(x, b, of) }"
    )
    assert "boxes" not in find_domains(model.graph)


def test_texts_are_of_the_vocabulary() -> None:
    model = ir.from_onnx_text(
        HEAD + '(string[n, 1] x) => (int64[n, 1] y) { y = ai.onnx.ml.LabelEncoder<keys_strings = ["left", "right"],'
        " values_int64s = [1, 2]>(x) }"
    )
    feeds = random_feeds(model, 32, np.random.default_rng(0))
    assert set(feeds["x"].reshape(-1)) == {"left", "right"}
    assert set(np.unique(run_model(open_session(model), feeds)[0])) == {1, 2}


def test_bytes_have_their_whole_range() -> None:
    rng = np.random.default_rng(0)
    found = draw(ir.DataType.UINT8, (4000,), Domain(), rng)
    assert (found.dtype, found.min(), found.max()) == (np.uint8, 0, 255)
    assert draw(ir.DataType.INT8, (4000,), Domain(), rng).min() == -128


@pytest.mark.parametrize("dtype", [ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE])
def test_every_float_is_standard_normal(dtype: ir.DataType) -> None:
    found = draw(dtype, (4000,), Domain(), np.random.default_rng(0))
    assert found.dtype == dtype.numpy()
    assert abs(float(found.astype(np.float64).std()) - 1) < 0.05


def test_the_seed_decides() -> None:
    model = ir.from_onnx_text(HEAD + f"(int64[n, 3] i) => (float[n, 3, 2] y) {TABLE}> {{ y = Gather(table, i) }}")
    first, again, other = (random_feeds(model, 9, np.random.default_rng(seed))["i"] for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()
