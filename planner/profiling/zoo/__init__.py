"""Architectures of the field's papers, built as ONNX models with seeded random weights."""

from planner.profiling.zoo.light import LIGHT_MODELS
from planner.profiling.zoo.registry import (
    ARCHITECTURES,
    Architecture,
    build_architecture,
    build_model,
    model_names,
    top1_percents,
)

__all__ = [
    "ARCHITECTURES",
    "LIGHT_MODELS",
    "Architecture",
    "build_architecture",
    "build_model",
    "model_names",
    "top1_percents",
]
