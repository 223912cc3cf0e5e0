"""Models by name: architectures with seeded random weights and a symbolic batch."""

import onnx_ir as ir

from planner.model import InputError
from planner.profiling.light import LIGHT_MODELS, build_light_model


def model_names() -> tuple[str, ...]:
    """Return the names of all models that `build_model` makes.

    >>> "resnet50-light" in model_names()
    True
    """
    return tuple(LIGHT_MODELS)


def build_model(name: str, seed: int = 0) -> ir.Model:
    """Return a model of the zoo; equal names and seeds give equal models.

    Raises
    ------
    InputError
        The zoo has no such model.
    """
    if name in LIGHT_MODELS:
        return build_light_model(name, seed)
    raise InputError(f"unknown model {name!r}; expected an .onnx file or one of {', '.join(model_names())}")
