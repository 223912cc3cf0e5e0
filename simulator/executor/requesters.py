"""Who sends requests and gets the answers.

Inputs are made before a run, a few samples that requests bring in turn, and lie where workers read them when a run
begins, as if requesters had written them there themselves. So sending a request costs the frontend nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from planner.model import InputError
from planner.profiling.onnx_graph import ModelGraph
from planner.profiling.runtime import open_session, random_feeds, run_model
from simulator.executor.fleet import Tensors

SAMPLES = 16


class Requester(Protocol):
    """Gets the answers, in the frontend's loop, so it must be quick."""

    def answer(self, first: int, size: int, outputs: Tensors) -> None:
        """Take the outputs of requests [first, first + size), a batch; they are valid during the call."""


class Samples:
    """Requests with random inputs, ``inputs[name][number % samples]``; counts the answers."""

    def __init__(self, graph: ModelGraph, seed: int = 0, samples: int = SAMPLES) -> None:
        self.inputs: Tensors = random_feeds(graph.model, samples, np.random.default_rng(seed))
        self.samples = samples
        self.answered = 0

    def answer(self, first: int, size: int, outputs: Tensors) -> None:
        """Count answers."""
        self.answered += size


@dataclass(frozen=True)
class Verdict:
    """How many answers were compared with the unsplit model's, how many were equal to the bit, and the worst error.

    ``worst`` is the largest difference over all elements of an answer, relative to that tensor's largest magnitude.
    """

    compared: int
    bit_equal: int
    wrong: int
    worst: float
    tolerance: float

    def __str__(self) -> str:
        """Return a line for people."""
        return (
            f"{self.compared} answers compared with the unsplit model's: {self.bit_equal} equal to the bit, "
            f"{self.wrong} wrong, worst relative difference {self.worst:.2g} (allowed {self.tolerance:.0e})"
        )


class Verifier(Samples):
    """Requests with random inputs whose every answer is compared with the unsplit model's.

    Kernels may add in another order for another batch size or another split, so answers may differ in the last bits.

    Raises
    ------
    InputError
        The model answers two different inputs alike, so that a comparison would prove nothing.
    """

    def __init__(self, graph: ModelGraph, seed: int = 0, samples: int = SAMPLES, tolerance: float = 1e-5) -> None:
        super().__init__(graph, seed, samples)
        session = open_session(graph.model)
        self._expected: list[Tensors] = []
        for sample in range(samples):
            feeds = {name: tensor[sample : sample + 1] for name, tensor in self.inputs.items()}
            self._expected.append(dict(zip(graph.outputs, run_model(session, feeds), strict=True)))
        _require_differences(self._expected, graph.name)
        self._tolerance = tolerance
        self._bit_equal = self._wrong = 0
        self._worst = 0.0

    def answer(self, first: int, size: int, outputs: Tensors) -> None:
        """Compare the answers."""
        super().answer(first, size, outputs)
        for position in range(size):
            own = {name: _rows_of(tensor, position, size) for name, tensor in outputs.items()}
            self._compare(own, self._expected[(first + position) % self.samples])

    def _compare(self, outputs: Tensors, expected: Tensors) -> None:
        if all(np.array_equal(outputs[name], tensor) for name, tensor in expected.items()):
            self._bit_equal += 1
            return
        worst = max(_difference(outputs[name], tensor) for name, tensor in expected.items())
        self._worst = max(self._worst, worst)
        self._wrong += not worst <= self._tolerance  # NaN is wrong

    @property
    def verdict(self) -> Verdict:
        """What was found so far."""
        return Verdict(self.answered, self._bit_equal, self._wrong, self._worst, self._tolerance)


def _rows_of(tensor: np.ndarray, position: int, size: int) -> np.ndarray:
    """Return the rows of one of ``size`` requests; all of a tensor that does not grow with the batch."""
    rows, rest = divmod(len(tensor), size) if tensor.ndim else (0, 0)
    return tensor[position * rows : (position + 1) * rows] if rows and not rest else tensor


def _difference(got: np.ndarray, expected: np.ndarray) -> float:
    if got.shape != expected.shape:
        return float("inf")
    scale = float(np.max(np.abs(expected))) or 1.0
    return float(np.max(np.abs(got.astype(np.float64) - expected))) / scale


def _require_differences(expected: Sequence[Tensors], name: str) -> None:
    first = expected[0]
    for other in expected[1:]:
        if all(np.array_equal(first[key], other[key]) for key in first):
            raise InputError(
                f"model {name} gives equal outputs for different inputs, so comparing outputs would prove nothing; "
                "give it trained or random weights"
            )
