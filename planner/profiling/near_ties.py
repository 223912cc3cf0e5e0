"""Discrete outputs that differ because scores were nearly equal.

A label is the place of the largest of some scores, a mask whether a score is above a threshold, a byte a rounded
number. Where scores differ by no more than the model's own arithmetic moves them, either answer is right. So the scores
behind a discrete output are found in the graph, and a difference is explained by them or by nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from planner.model import InputError
from planner.profiling.runtime import open_session, run_model

Tensors = Mapping[str, np.ndarray]

_RESHAPED = {"Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape", "Flatten"}
_ELEMENTWISE = {
    *_RESHAPED, "Add", "And", "Ceil", "Clip", "Equal", "Floor", "Greater", "GreaterOrEqual", "Less", "LessOrEqual",
    "Mul", "Not", "Or", "QuantizeLinear", "Round", "Sign", "Sub",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Choice:
    """An output of places of the largest (or smallest) scores along an axis."""

    scores: str
    axis: int
    keeps_axis: bool

    def explains(self, got: np.ndarray, expected: np.ndarray, scores: np.ndarray, margin: float) -> bool:
        """Tell whether wherever places differ, the scores at both are within ``margin`` of each other."""
        axis = self.axis % scores.ndim
        if got.shape != expected.shape:
            return False
        shape = list(scores.shape)
        shape[axis] = -1 if self.keeps_axis else 1
        places, right = (array.reshape(shape).astype(np.int64) for array in (got, expected))
        if places.min(initial=0) < 0 or places.max(initial=0) >= scores.shape[axis]:
            return False
        exact = scores.astype(np.float64)
        gaps = np.take_along_axis(exact, places, axis) - np.take_along_axis(exact, right, axis)
        return bool(np.all((np.abs(gaps) <= margin) | (places == right)))


@dataclass(frozen=True, eq=False)
class Threshold:
    """An output that each score of its own decides, by comparing or rounding it; ``tail`` makes it from the scores."""

    scores: str
    tail: Any

    def explains(self, got: np.ndarray, expected: np.ndarray, scores: np.ndarray, margin: float) -> bool:
        """Tell whether wherever answers differ, scores moved by ``margin`` either way would give this one."""
        moved = [scores.astype(np.float64) + step for step in (-margin, margin)]
        answers = [run_model(self.tail, {self.scores: each.astype(scores.dtype)})[0] for each in moved]
        if any(answer.shape != got.shape for answer in answers):
            return False
        low, high = np.minimum(*answers), np.maximum(*answers)
        return bool(np.all((got == expected) | ((low <= got) & (got <= high))))


def find_tie(model: ir.Model, output: ir.Value) -> Choice | Threshold | None:
    """Return how an output is made from floating-point scores, None where that cannot be told; values have types."""
    value, node = output, output.producer()
    while node is not None and node.op_type in _RESHAPED and node.inputs[0] is not None and not _is_float(value):
        value, node = node.inputs[0], node.inputs[0].producer()
    if node is None or node.inputs[0] is None:
        return None
    if node.op_type in ("ArgMax", "ArgMin") or (node.op_type == "TopK" and value is node.outputs[1]):
        axis = node.attributes["axis"].as_int() if "axis" in node.attributes else (-1 if node.op_type == "TopK" else 0)
        return Choice(str(node.inputs[0].name), axis, node.op_type == "TopK")
    return _threshold(model, output)


def _threshold(model: ir.Model, output: ir.Value) -> Threshold | None:
    """Return the elementwise layers behind an output up to the one float tensor that they begin with."""
    sources: set[ir.Value] = set()
    waiting = [output]
    while waiting:
        value = waiting.pop()
        node = value.producer()
        if value is not output and (_is_float(value) or node is None):
            if ir.convenience.get_const_tensor(value) is None:
                sources.add(value)
            continue
        if node is None or node.op_type not in _ELEMENTWISE:
            return None
        waiting += [each for each in node.inputs if each is not None]
    if len(sources) != 1:
        return None
    (scores,) = sources
    if not _is_float(scores):
        return None
    tail = ir.Model(ir.convenience.extract(model.graph, [scores], [output]), ir_version=model.ir_version)
    try:
        return Threshold(str(scores.name), open_session(tail, optimise=False))
    except InputError:  # layers that cannot be run apart from the others
        return None


def _is_float(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.is_floating_point()
