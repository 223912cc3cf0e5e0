import numpy as np
import pytest

from planner.profiling import build_model, read_graph

# Parameters and multiply-accumulates as published for the architectures (torchvision's model tables, and the
# papers), to 2 %: the wheel's AlexNet and Inception v1 are Caffe's, which differ from torchvision's.
PUBLISHED = {
    "resnet50-light": (25.56e6, 4.09e9),  # torchvision resnet50: 25,557,032 parameters, 4.09 GFLOPS (MACs)
    "squeezenet-light": (1.235e6, 0.35e9),  # torchvision squeezenet1_1: 1,235,496, 0.35
    "densenet121-light": (7.98e6, 2.83e9),  # torchvision densenet121: 7,978,856, 2.83
    "vgg19-light": (143.67e6, 19.63e9),  # torchvision vgg19: 143,667,240, 19.63
}


@pytest.mark.parametrize("name", ["resnet50-light", "squeezenet-light", "densenet121-light"])
def test_light_models_have_the_published_size(name):
    graph = read_graph(build_model(name))
    parameters, macs = PUBLISHED[name]
    assert graph.parameter_bytes() / 4 == pytest.approx(parameters, rel=0.03)
    assert sum(layer.cost.macs for layer in graph.layers) == pytest.approx(macs, rel=0.01)


def test_equal_seeds_give_equal_weights():
    first, again, other = (build_model("squeezenet-light", seed) for seed in (1, 1, 2))
    for name, value in first.graph.initializers.items():
        np.testing.assert_array_equal(value.const_value.numpy(), again.graph.initializers[name].const_value.numpy())
    weight = next(name for name, value in first.graph.initializers.items() if len(value.shape) == 4)
    assert not np.allclose(
        first.graph.initializers[weight].const_value.numpy(), other.graph.initializers[weight].const_value.numpy()
    )
