"""Inception v3 (Szegedy et al. 2016) as torchvision has it, without the auxiliary classifier: 299 × 299 images."""

from collections.abc import Sequence

import onnx_ir as ir

from planner.profiling.zoo.builder import NetworkBuilder, Pair

# One convolution of a branch: channels, kernel, stride. Those of stride 1 keep the size.
Step = tuple[int, Pair, int]


def build_inception_v3(builder: NetworkBuilder, classes: int) -> ir.Value:
    """Inception v3: the modules A, A, A, B, C, C, C, C, D, E, E of torchvision's ``inception.py``."""
    x = builder.conv_relu(builder.input, 32, 3, "Conv2d_1a", stride=2)
    x = builder.conv_relu(x, 32, 3, "Conv2d_2a")
    x = builder.conv_relu(x, 64, 3, "Conv2d_2b", padding=1)
    x = builder.pool("MaxPool", x, 3, 2, "maxpool1")
    x = builder.conv_relu(x, 80, 1, "Conv2d_3b")
    x = builder.conv_relu(x, 192, 3, "Conv2d_4a")
    x = builder.pool("MaxPool", x, 3, 2, "maxpool2")
    for letter, pooled in (("b", 32), ("c", 64), ("d", 64)):
        x = _module_a(builder, x, pooled, f"Mixed_5{letter}")
    x = _reduction(builder, x, [[(384, 3, 2)], [(64, 1, 1), (96, 3, 1), (96, 3, 2)]], "Mixed_6a")
    for letter, width in (("b", 128), ("c", 160), ("d", 160), ("e", 192)):
        x = _module_c(builder, x, width, f"Mixed_6{letter}")
    x = _reduction(
        builder, x, [[(192, 1, 1), (320, 3, 2)], [(192, 1, 1), (192, (1, 7), 1), (192, (7, 1), 1), (192, 3, 2)]],
        "Mixed_7a",
    )  # fmt: skip
    for letter in "bc":
        x = _module_e(builder, x, f"Mixed_7{letter}")
    return builder.classifier(x, classes)


def _branch(builder: NetworkBuilder, x: ir.Value, steps: Sequence[Step], name: str) -> ir.Value:
    for number, (channels, kernel, stride) in enumerate(steps, start=1):
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (height // 2, width // 2) if stride == 1 else 0
        x = builder.conv_relu(x, channels, kernel, f"{name}_{number}", stride=stride, padding=padding)
    return x


def _pooled(builder: NetworkBuilder, x: ir.Value, channels: int, name: str) -> ir.Value:
    pooled = builder.pool("AveragePool", x, 3, 1, f"{name}.pool", padding=1)
    return builder.conv_relu(pooled, channels, 1, f"{name}.branch_pool")


def _concat(builder: NetworkBuilder, branches: Sequence[ir.Value], name: str) -> ir.Value:
    return builder.layer("Concat", branches, f"{name}.concat", sum(map(builder.channels, branches)), axis=1)


def _module_a(builder: NetworkBuilder, x: ir.Value, pooled: int, name: str) -> ir.Value:
    branches = [
        _branch(builder, x, [(64, 1, 1)], f"{name}.branch1x1"),
        _branch(builder, x, [(48, 1, 1), (64, 5, 1)], f"{name}.branch5x5"),
        _branch(builder, x, [(64, 1, 1), (96, 3, 1), (96, 3, 1)], f"{name}.branch3x3dbl"),
        _pooled(builder, x, pooled, name),
    ]
    return _concat(builder, branches, name)


def _module_c(builder: NetworkBuilder, x: ir.Value, width: int, name: str) -> ir.Value:
    row, column = (1, 7), (7, 1)
    twice: list[Step] = [(width, 1, 1), (width, column, 1), (width, row, 1), (width, column, 1), (192, row, 1)]
    branches = [
        _branch(builder, x, [(192, 1, 1)], f"{name}.branch1x1"),
        _branch(builder, x, [(width, 1, 1), (width, row, 1), (192, column, 1)], f"{name}.branch7x7"),
        _branch(builder, x, twice, f"{name}.branch7x7dbl"),
        _pooled(builder, x, 192, name),
    ]
    return _concat(builder, branches, name)


def _module_e(builder: NetworkBuilder, x: ir.Value, name: str) -> ir.Value:
    def fork(y: ir.Value, branch: str) -> list[ir.Value]:
        return [
            builder.conv_relu(y, 384, (1, 3), f"{name}.{branch}a", padding=(0, 1)),
            builder.conv_relu(y, 384, (3, 1), f"{name}.{branch}b", padding=(1, 0)),
        ]

    branches = [_branch(builder, x, [(320, 1, 1)], f"{name}.branch1x1")]
    branches += fork(_branch(builder, x, [(384, 1, 1)], f"{name}.branch3x3"), "branch3x3_2")
    branches += fork(_branch(builder, x, [(448, 1, 1), (384, 3, 1)], f"{name}.branch3x3dbl"), "branch3x3dbl_3")
    branches.append(_pooled(builder, x, 192, name))
    return _concat(builder, branches, name)


def _reduction(builder: NetworkBuilder, x: ir.Value, steps: Sequence[Sequence[Step]], name: str) -> ir.Value:
    """Halve the image: branches whose last convolution strides, beside a maximum."""
    branches = [_branch(builder, x, branch, f"{name}.branch{number}") for number, branch in enumerate(steps, start=1)]
    branches.append(builder.pool("MaxPool", x, 3, 2, f"{name}.pool"))
    return _concat(builder, branches, name)
