"""Who sends requests and gets the answers.

Inputs are there before a run, a few samples that requests bring in turn, and lie where workers read them when a run
begins, as if requesters had written them there themselves. So sending a request costs the frontend nothing.
"""

from dataclasses import dataclass
from typing import Protocol

from planner.profiling.differences import NONE, Difference, largest
from planner.profiling.onnx_graph import ModelGraph
from planner.profiling.samples import take
from planner.profiling.verification import Yardstick
from simulator.executor.fleet import Tensors

SAMPLES = 16


class Requester(Protocol):
    """Gets the answers, in the frontend's loop, so it must be quick."""

    @property
    def reads(self) -> bool:
        """Whether it looks at them; else none are brought."""

    def answer(self, first: int, size: int, outputs: Tensors) -> None:
        """Take the outputs of requests [first, first + size), a batch; they are valid during the call."""


class Samples:
    """Requests that bring samples in turn, ``inputs[name][number % samples]``; counts the answers."""

    reads = False

    def __init__(self, inputs: Tensors) -> None:
        self.inputs = inputs
        self.samples = len(next(iter(inputs.values())))
        self.answered = 0

    def answer(self, first: int, size: int, outputs: Tensors) -> None:
        """Count answers."""
        self.answered += size


@dataclass(frozen=True)
class Verdict:
    """How answers compare with the original model's (`planner.profiling.verification`).

    ``worst`` and ``worst_rms`` are the largest differences of numbers, relative to the largest magnitude of an output
    and as root mean squares; ``noise`` is how far the original is from itself. ``tolerance`` is what was asked for in
    place of that, None if nothing was. ``reason`` says what is wrong with the first wrong answer.
    """

    compared: int
    bit_equal: int
    wrong: int
    worst: float
    worst_rms: float
    noise: float
    tolerance: float | None
    inputs: str
    reason: str = ""

    def __str__(self) -> str:
        """Return a line for people."""
        allowed = "" if self.tolerance is None else f", allowed {self.tolerance:g}"
        return (
            f"{self.compared} answers to {self.inputs} compared with the original model's: {self.bit_equal} equal to "
            f"the bit, {self.wrong} wrong, worst relative difference {self.worst:.2g} (its own noise: {self.noise:.2g}"
            f"{allowed})" + (f"; {self.reason}" if self.reason else "")
        )


class Verifier(Samples):
    """Requests whose every answer is compared with the original model's."""

    reads = True

    def __init__(self, inputs: Tensors, graph: ModelGraph, yardstick: Yardstick, source: str) -> None:
        super().__init__(inputs)
        self._yardstick, self._source = yardstick, source
        self._outputs = [graph.tensors[name] for name in graph.outputs]
        self._bit_equal = self._wrong = 0
        self._worst: Difference = NONE
        self._reason = ""

    def answer(self, first: int, size: int, outputs: Tensors) -> None:
        """Compare the answers."""
        super().answer(first, size, outputs)
        for position in range(size):
            own = {tensor.name: take(tensor, outputs[tensor.name], position, size) for tensor in self._outputs}
            judgement = self._yardstick.judge((first + position) % self.samples, own)
            self._bit_equal += judgement.equal
            self._wrong += not judgement.right
            self._worst = largest([self._worst, judgement.worst])
            self._reason = self._reason or judgement.why

    @property
    def verdict(self) -> Verdict:
        """What was found so far."""
        return Verdict(
            self.answered,
            self._bit_equal,
            self._wrong,
            *self._worst,
            self._yardstick.loudest,
            self._yardstick.tolerance,
            self._source,
            self._reason,
        )
