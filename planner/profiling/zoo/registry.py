"""Models by name: architectures with seeded random weights and a symbolic batch."""

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from planner.model import InputError
from planner.profiling.weights import balance_weights
from planner.profiling.zoo.builder import NetworkBuilder
from planner.profiling.zoo.chains import build_alexnet, build_mobilenet_v2, build_repvgg_b3, build_vgg16
from planner.profiling.zoo.convnext import build_convnext_large
from planner.profiling.zoo.inception import build_inception_v3
from planner.profiling.zoo.light import LIGHT_MODELS, build_light_model
from planner.profiling.zoo.residual import build_resnet18, build_resnet50, build_wide_resnet101_2


@dataclass(frozen=True)
class Architecture:
    """How to build a network, its usual image (height and width), and its published size for 1,000 classes.

    ``parameters`` counts what an inference needs, ``macs`` multiply-accumulates of one image; ``source`` cites both.
    ``top1_percent`` is the published share of ImageNet's validation images whose class the trained network names;
    ``top1_source`` says of which weights.
    """

    build: Callable[[NetworkBuilder, int], ir.Value]
    size: int
    parameters: float
    macs: float
    source: str
    top1_percent: float
    top1_source: str


TORCHVISION = (
    "torchvision 0.21, weights' meta data (num_params; _ops, its pages' GFLOPS, which count multiply-accumulates)"
)

TORCHVISION_V1 = "torchvision 0.21, acc@1 of the weights IMAGENET1K_V1"

ARCHITECTURES = {
    "alexnet": Architecture(build_alexnet, 224, 61_100_840, 0.714e9, TORCHVISION, 56.522, TORCHVISION_V1),
    "convnext_large": Architecture(
        build_convnext_large, 224, 197_767_336, 34.36e9, TORCHVISION, 84.414, TORCHVISION_V1
    ),
    "inception_v3": Architecture(
        build_inception_v3,
        299,
        23_851_784,
        5.713e9,
        f"Keras applications (without auxiliary classifier); {TORCHVISION}",
        77.294,
        TORCHVISION_V1,
    ),
    "mobilenet_v2": Architecture(build_mobilenet_v2, 224, 3_504_872, 0.30e9, TORCHVISION, 71.878, TORCHVISION_V1),
    "repvgg_b3": Architecture(
        build_repvgg_b3,
        224,
        110.96e6,
        26.2e9,
        "Ding et al. 2021, RepVGG, table 4 (merged for inference); OpenVINO's model zoo: 52.44 GFLOPs",
        80.50,
        "OpenVINO's model zoo, repvgg-b3 (200 epochs)",
    ),
    "resnet18": Architecture(build_resnet18, 224, 11_689_512, 1.814e9, TORCHVISION, 69.758, TORCHVISION_V1),
    "resnet50": Architecture(build_resnet50, 224, 25_557_032, 4.089e9, TORCHVISION, 76.13, TORCHVISION_V1),
    "vgg16": Architecture(build_vgg16, 224, 138_357_544, 15.47e9, TORCHVISION, 71.592, TORCHVISION_V1),
    "wide_resnet101_2": Architecture(
        build_wide_resnet101_2, 224, 126_886_696, 22.753e9, TORCHVISION, 78.848, TORCHVISION_V1
    ),
}


def model_names() -> tuple[str, ...]:
    """Return the names of all models that `build_model` makes.

    >>> {"resnet50", "resnet50-light"} <= set(model_names())
    True
    """
    return (*ARCHITECTURES, *LIGHT_MODELS)


def top1_percents() -> dict[str, float]:
    """Return the published top-1 accuracy (percent) of every architecture, as tasks and DNNs state it.

    >>> top1_percents()["resnet50"]
    76.13
    """
    return {name: architecture.top1_percent for name, architecture in ARCHITECTURES.items()}


def build_architecture(
    name: str, *, height: int | None = None, width: int | None = None, classes: int = 1000, seed: int = 0
) -> ir.Model:
    """Return a network whose weights are drawn when they are first read, and not balanced: enough for its costs.

    >>> from planner.profiling import read_graph
    >>> graph = read_graph(build_architecture("resnet18"))
    >>> len(graph.layers), round(sum(layer.cost.macs for layer in graph.layers) / 1e9, 2)
    (49, 1.81)
    """
    architecture = ARCHITECTURES[name]
    image = (3, height or architecture.size, width or architecture.size)
    builder = NetworkBuilder(name, image, seed)
    return builder.finish(architecture.build(builder, classes))


def build_model(
    name: str, seed: int = 0, *, height: int | None = None, width: int | None = None, classes: int = 1000
) -> ir.Model:
    """Return a model with a symbolic batch and random weights; equal arguments give equal models.

    ``height`` and ``width`` of the image default to the architecture's; the light models have one size.

    Raises
    ------
    InputError
        There is no such model, or it does not take such images.
    """
    if name in LIGHT_MODELS:
        if (height or 224, width or 224, classes) != (224, 224, 1000):
            raise InputError(f"{name} has images of 224 × 224 and 1,000 classes; take {name.removesuffix('-light')}")
        return build_light_model(name, seed)
    if name not in ARCHITECTURES:
        raise InputError(f"unknown model {name!r}; expected an .onnx file or one of {', '.join(model_names())}")
    return balance_weights(build_architecture(name, height=height, width=width, classes=classes, seed=seed), seed)
