"""Arrays of many shapes in one vector, and the optimiser that moves it.

AdamW (Loshchilov and Hutter 2019, "Decoupled weight decay regularization") with a linear warm-up and a cosine to 0.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import cos, pi, prod

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array = NDArray[np.floating]

FIRST_DECAY, SECOND_DECAY = 0.9, 0.99
WARM_UP = 0.05  # of all steps


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
    first, second = np.zeros_like(parameters.vector), np.zeros_like(parameters.vector)
    scratch = np.empty_like(first)
    for step in range(schedule.steps):
        compute_gradient()
        gradient = parameters.gradient
        first *= FIRST_DECAY
        first += (1 - FIRST_DECAY) * gradient
        second *= SECOND_DECAY
        np.multiply(gradient, gradient, out=scratch)
        scratch *= 1 - SECOND_DECAY
        second += scratch
        # in place: the vectors are longer than a core's cache
        np.divide(second, 1 - SECOND_DECAY ** (step + 1), out=scratch)
        np.sqrt(scratch, out=scratch)
        scratch += 1e-8
        np.divide(first, scratch, out=scratch)
        scratch *= 1 / (1 - FIRST_DECAY ** (step + 1))
        scratch += decay * parameters.vector
        scratch *= schedule.rate(step)
        parameters.vector -= scratch
