import numpy as np
import onnx_ir as ir
import pytest

from planner.model import InputError
from planner.profiling import build_model, free_batch, open_session, random_feeds, read_graph, run_model

HEADER = '<ir_version: 8, opset_import: ["" : 13]>'

# The three models of the demonstration, and the one whose Reshapes are many.
USED = ["resnet50-light", "squeezenet-light", "shufflenet-light"]


def test_a_model_with_a_symbolic_batch_is_returned_as_it_is():
    model = ir.from_onnx_text(f"{HEADER} g (float[n, 4] x) => (float[n, 4] y) {{ y = Relu(x) }}")
    assert free_batch(model) is model


def test_targets_that_leave_a_dimension_open_copy_the_batch():
    model = ir.from_onnx_text(
        f"{HEADER} g (float[1, 2, 3] x) => (float[1, 6] y) <int64[2] t = {{1, -1}}> {{ y = Reshape(x, t) }}"
    )
    assert read_graph(free_batch(model)).tensors["y"].shape == (1, 6)


def test_a_shared_target_is_opened_only_where_requests_are_reshaped():
    model = ir.from_onnx_text(
        f"{HEADER} g (float[1, 2, 3] x) => (float[1, 6] y) <int64[2] t = {{1, 6}}, float[6] w = {{1, 2, 3, 4, 5, 6}}>"
        " {"
        " a = Reshape(x, t) b = Reshape(w, t) y = Add(a, b) }"
    )
    free = free_batch(model)
    feeds = random_feeds(free, 3, np.random.default_rng(0))
    (output,) = run_model(open_session(free), feeds)
    np.testing.assert_allclose(output, feeds["x"].reshape(3, 6) + np.arange(1, 7))


def test_initializers_stay_inputs_before_ir_version_4():
    model = ir.from_onnx_text(
        '<ir_version: 3, opset_import: ["" : 9]> g (float[1, 2, 3] x, int64[2] t) => (float[1, 6] y)'
        " <int64[2] t = {1, 6}> { y = Reshape(x, t) }"
    )
    free = free_batch(model)
    assert free.ir_version == 3
    assert set(free.graph.initializers) <= {value.name for value in free.graph.inputs}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        # Expand repeats one request's rows to a constant shape: nothing to open
        ("(float[1, 4] x) => (float[2, 4] y) <int64[2] t = {2, 4}> { y = Expand(x, t) }", "pins the batch|do not fit"),
        # a scalar input has no batch
        ("(float x) => (float y) { y = Relu(x) }", "has no batch dimension"),
    ],
)
def test_what_cannot_be_freed_is_refused(body, message):
    with pytest.raises(InputError, match=message):
        free_batch(ir.from_onnx_text(f"{HEADER} g {body}"))


def test_an_input_of_unknown_rank_is_refused():
    model = ir.from_onnx_text(f"{HEADER} g (float[1, 4] x) => (float[1, 4] y) {{ y = Relu(x) }}")
    model.graph.inputs[0].shape = None
    with pytest.raises(InputError, match="input 'x' has no shape"):
        free_batch(model)


@pytest.mark.parametrize("name", USED)
def test_a_batch_of_four_gives_the_rows_of_four_batches_of_one(name):
    model = build_model(name)
    session = open_session(model)
    feeds = random_feeds(model, 4, np.random.default_rng(7))
    (together,) = run_model(session, feeds)
    rows = [run_model(session, {key: value[row : row + 1] for key, value in feeds.items()})[0] for row in range(4)]
    scale = np.abs(together).max()
    # Different inputs give different outputs, or the comparison would say nothing.
    assert all(np.abs(together[0] - together[row]).max() > 1e-2 * scale for row in range(1, 4))
    np.testing.assert_allclose(np.concatenate(rows), together, rtol=1e-5, atol=1e-5 * scale)
