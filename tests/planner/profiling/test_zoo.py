import numpy as np
import pytest

from planner.model import InputError
from planner.profiling import (
    build_architecture,
    build_model,
    extract_parts,
    model_names,
    open_session,
    random_feeds,
    read_graph,
    run_chain,
    run_model,
)
from planner.profiling.zoo import ARCHITECTURES

# The heavier networks have up to 200 million weights to draw: some are checked among the slow tests, at every cut by
# scripts/verify_splits.py.
QUICK = ["mobilenet_v2", "resnet18"]
SLOW = ["inception_v3", "resnet50", "repvgg_b3"]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_parameters_and_multiply_accumulates_are_as_published(name):
    graph = read_graph(build_architecture(name))
    architecture = ARCHITECTURES[name]
    assert graph.parameter_bytes() / 4 == pytest.approx(architecture.parameters, rel=0.01)
    assert sum(layer.cost.macs for layer in graph.layers) == pytest.approx(architecture.macs, rel=0.01)


def test_the_architectures_are_among_the_models():
    assert set(ARCHITECTURES) < set(model_names())


def test_images_and_classes_can_be_chosen():
    graph = read_graph(build_architecture("resnet18", height=64, width=96, classes=10))
    assert graph.inputs[0].shape == (1, 3, 64, 96)
    assert graph.tensors["output"].shape == (1, 10)


def test_depthwise_convolutions_are_told_from_dense_ones():
    layers = read_graph(build_architecture("mobilenet_v2")).layers
    depthwise = [layer for layer in layers if layer.cost.kind == "depthwise"]
    assert len(depthwise) == 17
    # the first: 32 channels of 112 × 112, 9 products each
    assert depthwise[0].cost.macs == 32 * 112 * 112 * 9


def assert_parts_and_rows_equal_the_whole(name: str, pieces: int):
    graph = read_graph(build_model(name), name)
    feeds = random_feeds(graph.model, 2, np.random.default_rng(11))
    session = open_session(graph.model, optimise=False)
    (whole,) = run_model(session, feeds)
    scale = np.abs(whole).max()
    assert np.abs(whole[0] - whole[1]).max() > 0.05 * scale  # two inputs, two answers
    rows = [run_model(session, {"input": feeds["input"][row : row + 1]})[0] for row in range(2)]
    np.testing.assert_allclose(np.concatenate(rows), whole, rtol=1e-5, atol=1e-5 * scale)
    starts = [0, *range(1, len(graph.layers), max(1, len(graph.layers) // pieces))]
    made = run_chain(
        extract_parts(graph, starts),
        lambda part, given: run_model(open_session(part.model, optimise=False), given),
        feeds,
    )
    np.testing.assert_array_equal(made["output"], whole)


@pytest.mark.parametrize("name", QUICK)
def test_every_layer_a_part_of_its_own_equals_the_whole(name):
    assert_parts_and_rows_equal_the_whole(name, pieces=1000)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_parts_of_the_larger_models_equal_the_whole(name):
    assert_parts_and_rows_equal_the_whole(name, pieces=8)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet51", {}, "unknown model 'resnet51'; expected an .onnx file or one of"),
        ("vgg19-light", {"height": 64}, "vgg19-light has images of 224 × 224"),
    ],
)
def test_models_that_there_are_not_are_refused(name, options, message):
    with pytest.raises(InputError, match=message):
        build_model(name, **options)
