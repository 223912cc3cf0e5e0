"""ConvNeXt-Large (Liu et al. 2022, "A ConvNet for the 2020s") as torchvision has it.

Layer normalisations and GELUs are spelled out in elementary operators, as exporters do for operator sets that lack
them; runtimes fuse them again.
"""

from math import sqrt

import onnx_ir as ir

from planner.profiling.zoo.builder import NetworkBuilder

DEPTHS = (3, 3, 27, 3)
WIDTHS = (192, 384, 768, 1536)


def build_convnext_large(builder: NetworkBuilder, classes: int) -> ir.Value:
    """ConvNeXt-Large: a stem, four stages of blocks with downsampling between, a classifier."""
    x = builder.conv(builder.input, WIDTHS[0], 4, "stem", stride=4)
    x = _image_norm(builder, x, "stem.norm")
    for stage, (depth, width) in enumerate(zip(DEPTHS, WIDTHS, strict=True)):
        if stage > 0:
            x = _image_norm(builder, x, f"downsample{stage}.norm")
            x = builder.conv(x, width, 2, f"downsample{stage}.conv", stride=2)
        for block in range(depth):
            x = _block(builder, x, f"stage{stage}.{block}")
    x = builder.layer("GlobalAveragePool", [x], "avgpool")
    x = _image_norm(builder, x, "classifier.norm")
    return builder.linear(builder.layer("Flatten", [x], "flatten", axis=1), classes, "classifier")


def _block(builder: NetworkBuilder, x: ir.Value, name: str) -> ir.Value:
    """Add a depthwise convolution of 7 × 7, then, channels last, a normalisation and two products around a GELU."""
    width = builder.channels(x)
    y = builder.conv(x, width, 7, f"{name}.depthwise", padding=3, groups=width)
    y = builder.layer("Transpose", [y], f"{name}.channels_last", perm=[0, 2, 3, 1])
    y = _norm(builder, y, f"{name}.norm")
    y = _gelu(builder, _linear(builder, y, 4 * width, f"{name}.expand"), f"{name}.gelu")
    y = _linear(builder, y, width, f"{name}.project")
    y = builder.layer("Transpose", [y], f"{name}.channels_first", perm=[0, 3, 1, 2])
    scale = builder.vector(f"{name}.layer_scale", (width, 1, 1), mean=0.5)
    return builder.layer("Add", [builder.layer("Mul", [y, scale], f"{name}.scale"), x], f"{name}.add")


def _linear(builder: NetworkBuilder, x: ir.Value, features: int, name: str) -> ir.Value:
    weights = builder.filters(f"{name}.weight", (builder.channels(x), features), output_axis=1)
    product = builder.layer("MatMul", [x, weights], name, features)
    return builder.layer("Add", [product, builder.vector(f"{name}.bias", (features,))], f"{name}.add")


def _image_norm(builder: NetworkBuilder, x: ir.Value, name: str) -> ir.Value:
    """Normalise over the channels of an image."""
    last = builder.layer("Transpose", [x], f"{name}.channels_last", perm=[0, 2, 3, 1])
    return builder.layer("Transpose", [_norm(builder, last, name)], f"{name}.channels_first", perm=[0, 3, 1, 2])


def _norm(builder: NetworkBuilder, x: ir.Value, name: str) -> ir.Value:
    """(x - mean) / sqrt(variance + 1e-6) · weight + bias, over the last axis."""
    width = builder.channels(x)
    mean = builder.layer("ReduceMean", [x], f"{name}.mean", axes=[-1], keepdims=1)
    centred = builder.layer("Sub", [x, mean], f"{name}.centre")
    square = builder.layer("Pow", [centred, builder.constant(f"{name}.two", 2.0)], f"{name}.square")
    variance = builder.layer("ReduceMean", [square], f"{name}.variance", axes=[-1], keepdims=1)
    padded = builder.layer("Add", [variance, builder.constant(f"{name}.epsilon", 1e-6)], f"{name}.pad")
    normal = builder.layer("Div", [centred, builder.layer("Sqrt", [padded], f"{name}.deviation")], f"{name}.divide")
    scaled = builder.layer("Mul", [normal, builder.vector(f"{name}.weight", (width,), mean=1.0)], f"{name}.scale")
    return builder.layer("Add", [scaled, builder.vector(f"{name}.bias", (width,))], f"{name}.shift")


def _gelu(builder: NetworkBuilder, x: ir.Value, name: str) -> ir.Value:
    """X · (1 + erf(x / sqrt 2)) / 2."""
    root = builder.constant(f"{name}.root", sqrt(2.0))
    erf = builder.layer("Erf", [builder.layer("Div", [x, root], f"{name}.divide")], f"{name}.erf")
    raised = builder.layer("Add", [erf, builder.constant(f"{name}.one", 1.0)], f"{name}.raise")
    product = builder.layer("Mul", [x, raised], f"{name}.multiply")
    return builder.layer("Mul", [product, builder.constant(f"{name}.half", 0.5)], f"{name}.halve")
