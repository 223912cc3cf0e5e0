"""The nine architectures that the onnx wheel carries, made fit to run: any batch, random weights.

They are the backend tests' "light" models: a fixed batch of 1, and every weight a constant made by a
ConstantOfShape node, so that their output is the same whatever the input.
"""

from pathlib import Path

import onnx
import onnx_ir as ir

from planner.profiling.batching import open_targets
from planner.profiling.weights import balance_weights, randomise_weights

LIGHT_MODELS = {
    "alexnet-light": "bvlc_alexnet",
    "densenet121-light": "densenet121",
    "inception_v1-light": "inception_v1",
    "inception_v2-light": "inception_v2",
    "resnet50-light": "resnet50",
    "shufflenet-light": "shufflenet",
    "squeezenet-light": "squeezenet",
    "vgg19-light": "vgg19",
    "zfnet512-light": "zfnet512",
}


def build_light_model(name: str, seed: int = 0) -> ir.Model:
    """Return one of the light models with a symbolic batch and seeded random weights.

    >>> model = build_light_model("squeezenet-light")
    >>> str(model.graph.inputs[0].shape), str(model.graph.outputs[0].shape)
    ('[batch,3,224,224]', '[batch,1000,1,1]')
    """
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    model = ir.load(folder / f"light_{LIGHT_MODELS[name]}.onnx")
    model.graph.name = name
    return balance_weights(open_targets(randomise_weights(model, seed)), seed)
