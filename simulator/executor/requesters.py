"""Who sends requests and gets the answers."""

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
    """Sends requests and gets the answers; both are called in the frontend's loop, so they must be quick."""

    def request(self, number: int) -> Tensors:
        """Return the inputs of a request, with a batch dimension of 1."""

    def answer(self, number: int, outputs: Tensors) -> None:
        """Take the outputs of a request; they are valid during the call."""


class Samples:
    """Requests with random inputs, from a few samples in turn; counts the answers."""

    def __init__(self, graph: ModelGraph, seed: int = 0, samples: int = SAMPLES) -> None:
        rng = np.random.default_rng(seed)
        self.samples: list[Tensors] = [random_feeds(graph.model, 1, rng) for _ in range(samples)]
        self.answered = 0

    def request(self, number: int) -> Tensors:
        """Return a sample."""
        return self.samples[number % len(self.samples)]

    def answer(self, number: int, outputs: Tensors) -> None:
        """Count an answer."""
        self.answered += 1


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
        self._expected = [dict(zip(graph.outputs, run_model(session, feeds), strict=True)) for feeds in self.samples]
        _require_differences(self._expected, graph.name)
        self._tolerance = tolerance
        self._bit_equal = self._wrong = 0
        self._worst = 0.0

    def answer(self, number: int, outputs: Tensors) -> None:
        """Compare an answer."""
        super().answer(number, outputs)
        expected = self._expected[number % len(self._expected)]
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
