"""Residual networks: ResNet-18 and ResNet-50 (He et al. 2016), Wide-ResNet-101-2 (Zagoruyko and Komodakis 2016)."""

import onnx_ir as ir

from planner.profiling.zoo.builder import NetworkBuilder


def build_resnet18(builder: NetworkBuilder, classes: int) -> ir.Value:
    """ResNet-18: two convolutions of 3 × 3 a block."""
    return _residual(builder, classes, (2, 2, 2, 2), bottleneck=False)


def build_resnet50(builder: NetworkBuilder, classes: int) -> ir.Value:
    """ResNet-50 as torchvision has it: bottlenecks that stride in their convolution of 3 × 3 ("v1.5")."""
    return _residual(builder, classes, (3, 4, 6, 3), bottleneck=True)


def build_wide_resnet101_2(builder: NetworkBuilder, classes: int) -> ir.Value:
    """Wide-ResNet-101-2: ResNet-101 with twice the channels inside its bottlenecks."""
    return _residual(builder, classes, (3, 4, 23, 3), bottleneck=True, widening=2)


def _residual(
    builder: NetworkBuilder, classes: int, depths: tuple[int, ...], *, bottleneck: bool, widening: int = 1
) -> ir.Value:
    x = builder.conv_relu(builder.input, 64, 7, "conv1", stride=2, padding=3)
    x = builder.pool("MaxPool", x, 3, 2, "maxpool", padding=1)
    for stage, depth in enumerate(depths):
        width = 64 * 2**stage
        for block in range(depth):
            stride = 2 if stage > 0 and block == 0 else 1
            name = f"layer{stage + 1}.{block}"
            if bottleneck:
                x = _bottleneck(builder, x, width * widening, width * 4, stride, name)
            else:
                x = _basic(builder, x, width, stride, name)
    return builder.classifier(x, classes)


def _basic(builder: NetworkBuilder, x: ir.Value, channels: int, stride: int, name: str) -> ir.Value:
    y = builder.conv_relu(x, channels, 3, f"{name}.conv1", stride=stride, padding=1)
    y = builder.conv(y, channels, 3, f"{name}.conv2", padding=1)
    return _join(builder, x, y, stride, name)


def _bottleneck(builder: NetworkBuilder, x: ir.Value, width: int, channels: int, stride: int, name: str) -> ir.Value:
    y = builder.conv_relu(x, width, 1, f"{name}.conv1")
    y = builder.conv_relu(y, width, 3, f"{name}.conv2", stride=stride, padding=1)
    y = builder.conv(y, channels, 1, f"{name}.conv3")
    return _join(builder, x, y, stride, name)


def _join(builder: NetworkBuilder, x: ir.Value, y: ir.Value, stride: int, name: str) -> ir.Value:
    """Add the shortcut, projected where the shapes differ."""
    if stride > 1 or builder.channels(x) != builder.channels(y):
        x = builder.conv(x, builder.channels(y), 1, f"{name}.downsample", stride=stride)
    return builder.relu(builder.layer("Add", [y, x], f"{name}.add"), f"{name}.relu")
