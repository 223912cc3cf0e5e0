import functools

import numpy as np
import onnx
import onnx_ir as ir
import pytest

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
    assert_halves_equal_whole(name, range(1, len(graph.layers), len(graph.layers) // 3))
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
