"""Networks that are chains, or nearly: AlexNet, VGG-16, MobileNetV2, RepVGG-B3."""

import onnx_ir as ir

from planner.profiling.zoo.builder import NetworkBuilder


def build_alexnet(builder: NetworkBuilder, classes: int) -> ir.Value:
    """AlexNet as torchvision has it (Krizhevsky 2014, "One weird trick"): for images of 224 × 224."""
    x = builder.conv_relu(builder.input, 64, 11, "features.0", stride=4, padding=2)
    x = builder.pool("MaxPool", x, 3, 2, "features.2")
    x = builder.conv_relu(x, 192, 5, "features.3", padding=2)
    x = builder.pool("MaxPool", x, 3, 2, "features.5")
    for index, channels in ((6, 384), (8, 256), (10, 256)):
        x = builder.conv_relu(x, channels, 3, f"features.{index}", padding=1)
    x = builder.pool("MaxPool", x, 3, 2, "features.12")
    return _dense_classifier(builder, x, 256 * 6 * 6, classes)


def build_vgg16(builder: NetworkBuilder, classes: int) -> ir.Value:
    """VGG-16 (Simonyan and Zisserman 2015, configuration D): for images of 224 × 224."""
    x = builder.input
    for stage, (channels, layers) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), start=1):
        for layer in range(1, layers + 1):
            x = builder.conv_relu(x, channels, 3, f"conv{stage}_{layer}", padding=1)
        x = builder.pool("MaxPool", x, 2, 2, f"pool{stage}")
    return _dense_classifier(builder, x, 512 * 7 * 7, classes)


def _dense_classifier(builder: NetworkBuilder, x: ir.Value, features: int, classes: int) -> ir.Value:
    x = builder.layer("Flatten", [x], "flatten", axis=1)
    x = builder.relu(builder.linear(x, 4096, "fc6", features), "fc6.relu")
    x = builder.relu(builder.linear(x, 4096, "fc7"), "fc7.relu")
    return builder.linear(x, classes, "fc8")


def build_mobilenet_v2(builder: NetworkBuilder, classes: int) -> ir.Value:
    """MobileNetV2 (Sandler et al. 2018, table 2), width 1."""
    limits = [builder.constant("zero", 0.0), builder.constant("six", 6.0)]

    def relu6(x: ir.Value, name: str) -> ir.Value:
        return builder.layer("Clip", [x, *limits], f"{name}.relu6")

    def inverted_residual(x: ir.Value, expansion: int, channels: int, stride: int, name: str) -> ir.Value:
        entered, wide = x, builder.channels(x) * expansion
        if expansion > 1:
            x = relu6(builder.conv(x, wide, 1, f"{name}.expand"), f"{name}.expand")
        x = builder.conv(x, wide, 3, f"{name}.depthwise", stride=stride, padding=1, groups=wide)
        x = builder.conv(relu6(x, f"{name}.depthwise"), channels, 1, f"{name}.project")
        if stride == 1 and channels == builder.channels(entered):
            x = builder.layer("Add", [entered, x], f"{name}.add")
        return x

    x = relu6(builder.conv(builder.input, 32, 3, "features.0", stride=2, padding=1), "features.0")
    number = 1
    # expansion, channels, repeats, stride of the first
    for expansion, channels, repeats, stride in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ):  # fmt: skip
        for repeat in range(repeats):
            x = inverted_residual(x, expansion, channels, stride if repeat == 0 else 1, f"features.{number}")
            number += 1
    x = relu6(builder.conv(x, 1280, 1, "features.18"), "features.18")
    return builder.classifier(x, classes)


def build_repvgg_b3(builder: NetworkBuilder, classes: int) -> ir.Value:
    """RepVGG-B3 (Ding et al. 2021, table 2), its branches merged for inference: 28 convolutions of 3 × 3."""
    x = builder.conv_relu(builder.input, 64, 3, "stage0", stride=2, padding=1)
    for stage, (channels, layers) in enumerate(((192, 4), (384, 6), (768, 16), (2560, 1)), start=1):
        for layer in range(layers):
            stride = 2 if layer == 0 else 1
            x = builder.conv_relu(x, channels, 3, f"stage{stage}.{layer}", stride=stride, padding=1)
    return builder.classifier(x, classes, "linear")
