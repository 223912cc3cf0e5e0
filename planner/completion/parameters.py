"""Arrays of many shapes in one vector, and the optimiser that moves it.

AdamW (Loshchilov and Hutter 2019, "Decoupled weight decay regularization") with a linear warm-up and a cosine to 0.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import cos, pi, prod, sqrt

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array = NDArray[np.floating]

FIRST_DECAY, SECOND_DECAY = 0.9, 0.99
SMALLEST = 1e-8  # root of the second moment
WARM_UP = 0.05  # of all steps
PIECE = 1 << 15  # parameters that are moved at once, so that a core's cache holds them


class Parameters:
    """Named arrays (``values``) and their gradients, views of ``vector`` and of ``gradient``."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], dtype: DTypeLike = np.float32) -> None:
        self._shapes = dict(shapes)
        size = sum(prod(shape) for shape in shapes.values())
        self.vector: Array = np.zeros(size, dtype)
        self.gradient: Array = np.zeros(size, dtype)
        self.values = self.views(self.vector)
        self.gradients = self.views(self.gradient)

    def views(self, vector: Array) -> dict[str, Array]:
        """Return a vector of all parameters as named arrays that share its memory."""
        found, start = {}, 0
        for name, shape in self._shapes.items():
            found[name] = vector[start : start + prod(shape)].reshape(shape)
            start += prod(shape)
        return found


@dataclass(frozen=True)
class Schedule:
    """How many steps, the largest learning rate, and decay by kind of parameter."""

    steps: int
    learning_rate: float
    weight_decay: float = 0.3
    embedding_decay: float = 5.0
    input_decay: float = 1.0

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        warming = min(1.0, (step + 1) / (WARM_UP * self.steps))
        return self.learning_rate * warming * (1 + cos(pi * step / self.steps)) / 2


def minimise(
    parameters: Parameters,
    decay: Array,
    schedule: Schedule,
    compute_gradient: Callable[[], None],
) -> None:
    """Move parameters along gradients, which ``compute_gradient`` leaves in ``parameters.gradient`` at each step.

    ``decay`` has a coefficient per parameter.
    """
    vector, gradient = parameters.vector, parameters.gradient
    first, second = np.zeros_like(vector), np.zeros_like(vector)
    scratch = np.empty(PIECE, vector.dtype)
    pieces = [slice(start, start + PIECE) for start in range(0, len(vector), PIECE)]
    for step in range(schedule.steps):
        compute_gradient()
        rate = schedule.rate(step)
        second_scale = sqrt(1 - SECOND_DECAY ** (step + 1))
        first_scale = rate * second_scale / (1 - FIRST_DECAY ** (step + 1))
        for piece in pieces:
            x, g, m, v = vector[piece], gradient[piece], first[piece], second[piece]
            way = scratch[: len(x)]
            m *= FIRST_DECAY
            m += np.multiply(g, 1 - FIRST_DECAY, out=way)
            v *= SECOND_DECAY
            np.multiply(g, g, out=way)
            way *= 1 - SECOND_DECAY
            v += way
            np.multiply(decay[piece], -rate, out=way)
            way += 1
            x *= way
            np.sqrt(v, out=way)
            way += SMALLEST * second_scale
            np.divide(m, way, out=way)
            way *= first_scale
            x -= way
