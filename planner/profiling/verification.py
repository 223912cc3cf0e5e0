"""Are these answers the model's? Compared with the original file, run per request as its owner runs it.

No two ways to run a model give the same bits: kernels add in another order for another batch size, and optimisations
fuse layers. So the model is first compared with itself: the original at other optimisation levels, and at another batch
size. How far its answers move then, per output, is its own *noise*; answers may differ by a few times as much, and by
what the least precise numbers in it allow anyway. What requests do to each other in a batch is not noise: the batch
size may count for no more than a few times what optimisations do.

NaN equals NaN, and infinities of one sign each other. Integers, booleans and texts are to be equal, unless the scores
behind them are nearly tied (`near_ties`) or the model itself gave that answer under other optimisations.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from planner.model import InputError
from planner.profiling.differences import NONE, Difference, difference, equal, largest, scale_of
from planner.profiling.graphs import request_inputs
from planner.profiling.near_ties import Choice, Threshold, find_tie
from planner.profiling.onnx_graph import ModelGraph
from planner.profiling.runtime import open_session, run_model
from planner.profiling.samples import Tensors, join, take

TIMES_NOISE = 3.0  # how many times the noise that a few samples showed answers may differ
TIMES_BATCH = 4.0  # how many times the noise of optimisations the batch size may add
NOISE_SAMPLES = 4
LOUD = 0.3  # noise that drowns the answers
LEVELS: tuple[Any, ...] = (False, "basic", "extended")

# What arithmetic of a type may do without showing in a few samples.
_FLOORS = {
    ir.DataType.DOUBLE: Difference(1e-12, 1e-12),
    ir.DataType.FLOAT: Difference(1e-5, 1e-5),
    ir.DataType.FLOAT16: Difference(4e-3, 1e-3),
    ir.DataType.BFLOAT16: Difference(3e-2, 8e-3),
}
_STEPS = Difference(1e-2, 2e-3)  # a step or two of a quantised tensor
_QUANTISING = {
    "QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "MatMulInteger", "ConvInteger",
}  # fmt: skip
_DISCRETE = "biuOSU"  # kinds of numpy types: booleans, integers, texts


@dataclass(frozen=True)
class Judgement:
    """What was found of one answer: equal to the bit, right, the worst difference of numbers, and why it is wrong."""

    equal: bool
    worst: Difference
    why: str = ""

    @property
    def right(self) -> bool:
        """Whether the answer is the model's, as far as the model's own noise lets tell."""
        return not self.why


@dataclass(frozen=True, eq=False)
class Yardstick:
    """What the original answers to samples, and how far answers may be from it.

    Attributes
    ----------
    answers
        Per sample: its outputs by name.
    others
        Per sample (the first few): its outputs under other optimisations.
    scales, noise, allowed
        Per output of numbers: how large it gets in all answers, how far the original is from itself relative to that,
        how far answers may be.
    scores, margins, ties
        Per discrete output: what decides it, per sample, and how far apart scores count as tied.
    tolerance
        What was asked for in place of the noise.
    """

    answers: Sequence[Tensors]
    others: Sequence[Sequence[Tensors]]
    scales: Mapping[str, Difference]
    noise: Mapping[str, Difference]
    allowed: Mapping[str, Difference]
    ties: Mapping[str, Choice | Threshold]
    scores: Sequence[Tensors]
    margins: Mapping[str, float]
    tolerance: float | None = None

    def judge(self, sample: int, outputs: Tensors) -> Judgement:
        """Return what is to be said of an answer to a sample."""
        expected = self.answers[sample]
        if all(equal(outputs[name], tensor) for name, tensor in expected.items()):
            return Judgement(True, NONE)
        gaps = {name: difference(outputs[name], expected[name], self.scales[name]) for name in self.allowed}
        why = [
            f"output {name!r} is {gap.largest:.2g} off (root mean square {gap.rms:.2g}), allowed are "
            f"{self.allowed[name].largest:.2g} ({self.allowed[name].rms:.2g})"
            for name, gap in gaps.items()
            if not gap.within(self.allowed[name])
        ]
        why += [
            f"output {name!r} is not the original's, and no near tie explains it"
            for name in expected.keys() - self.allowed.keys()
            if not self._same_or_tied(sample, name, outputs[name])
        ]
        return Judgement(False, largest(list(gaps.values())), "; ".join(sorted(why)))

    def _same_or_tied(self, sample: int, name: str, got: np.ndarray) -> bool:
        expected = self.answers[sample][name]
        if equal(got, expected) or (
            sample < len(self.others) and any(equal(got, other[name]) for other in self.others[sample])
        ):
            return True
        tie = self.ties.get(name)
        return (
            tie is not None
            and got.dtype == expected.dtype
            and tie.explains(got, expected, self.scores[sample][tie.scores], self.margins[tie.scores])
        )

    def widened(self, noise: Mapping[str, Difference]) -> "Yardstick":
        """Return a yardstick that allows for more noise, per output; the same one where a tolerance was asked for."""
        if self.tolerance is not None:
            return self
        allowed = {
            name: largest([own, noise[name].times(TIMES_NOISE) if noise[name].largest <= LOUD else NONE])
            for name, own in self.allowed.items()
        }
        return replace(
            self, allowed=allowed, noise={name: largest([own, noise[name]]) for name, own in self.noise.items()}
        )

    @property
    def loudest(self) -> float:
        """The largest noise of any output."""
        return largest(list(self.noise.values())).largest


def measure_yardstick(
    original: ir.Model, graph: ModelGraph, samples: Tensors, tolerance: float | None = None
) -> Yardstick:
    """Run the original on samples, and return what answers are to be compared with.

    Parameters
    ----------
    original
        The model as its file has it; ``graph`` is what was made of it: which inputs there are, where the batch lies.
    samples
        ``[sample, ...]`` of every input (`planner.profiling.samples`).
    tolerance
        Allowed relative difference of numbers, in place of what the noise says.

    Raises
    ------
    InputError
        Comparing would prove nothing: the original answers all samples alike, answers the same one differently when it
        is asked again, or its noise drowns its answers.
    """
    names = [str(value.name) for value in original.graph.outputs]
    ties = _find_ties(original, graph)
    watched = [*names, *dict.fromkeys(tie.scores for tie in ties.values())]
    count = len(next(iter(samples.values())))
    *answers, again = _per_request(original, graph, samples, [*range(count), 0], watched, True)
    _require_meaning(answers, again, names, graph.name)
    few = range(min(count, NOISE_SAMPLES))
    levels = [_per_request(original, graph, samples, few, watched, level) for level in LEVELS]
    ways = [list(each) for each in zip(*levels, strict=True)]
    numbers = [name for name in watched if answers[0][name].dtype.kind not in _DISCRETE]
    scales = {name: scale_of([answer[name] for answer in answers]) for name in numbers}
    floors = floors_of(graph)
    noise = {
        name: largest([difference(way[name], answers[at][name], scales[name]) for at in few for way in ways[at]])
        for name in numbers
    }
    answered = {name: scales[name] for name in numbers if name in names}
    for name, apart in _noise_of_batches(graph, samples, answers, answered).items():
        capped = largest([noise[name], floors[name]]).times(TIMES_BATCH)
        noise[name] = largest([noise[name], apart if apart.within(capped) else NONE])
    _require_quiet(noise, graph.name)
    usual = {name: largest([floors[name], noise[name].times(TIMES_NOISE)]) for name in numbers}
    allowed = usual if tolerance is None else dict.fromkeys(numbers, Difference(tolerance, tolerance))
    return Yardstick(
        answers=[{name: answer[name] for name in names} for answer in answers],
        others=ways,
        scales=answered,
        noise={name: noise[name] for name in answered},
        allowed={name: allowed[name] for name in answered},
        ties=ties,
        scores=answers,
        margins={name: 2 * usual[name].largest * scales[name].largest for name in numbers},
        tolerance=tolerance,
    )


def _find_ties(original: ir.Model, graph: ModelGraph) -> dict[str, Choice | Threshold]:
    """Return what decides the discrete outputs, where the original itself tells the scores."""
    told = {value.name for node in original.graph for value in node.outputs} | {
        each.name for each in original.graph.inputs
    }
    found = {}
    for output in graph.model.graph.outputs:
        if output.dtype is None or not output.dtype.is_floating_point():
            tie = find_tie(graph.model, output)
            if tie is not None and tie.scores in told:
                found[str(output.name)] = tie
    return found


def _per_request(
    original: ir.Model, graph: ModelGraph, samples: Tensors, numbers: Sequence[int], outputs: Sequence[str], level: Any
) -> list[dict[str, np.ndarray]]:
    """Return what the original answers to samples, one after the other, in calls of as many requests as it takes."""
    session = open_session(original, optimise=level, outputs=outputs)
    at_once = _requests_of_a_call(original, graph)
    unread = _unread(original, graph)
    found = []
    for first in range(0, len(numbers), at_once):
        own = numbers[first : first + at_once]
        call = [*own, *[own[0]] * (at_once - len(own))]
        feeds = unread | join(graph, samples, call)
        try:
            made = run_model(session, feeds, outputs)
        except InputError as error:
            raise InputError(f"{error}; give inputs that the model takes with --inputs") from None
        named = dict(zip(outputs, made, strict=True))
        found += [
            {name: take(graph.tensors[name], array, position, at_once) for name, array in named.items()}
            for position in range(len(own))
        ]
    return found


def _requests_of_a_call(original: ir.Model, graph: ModelGraph) -> int:
    """Return how many requests one call of the original takes: 1, or what its shapes are fixed to."""
    for value in request_inputs(original.graph):
        tensor = graph.tensors.get(str(value.name))
        if tensor is None or tensor.batch_axis is None or value.shape is None or len(value.shape) != len(tensor.shape):
            continue
        size = value.shape[tensor.batch_axis]
        if isinstance(size, int):
            return max(1, size // max(1, tensor.shape[tensor.batch_axis]))
    return 1


def _unread(original: ir.Model, graph: ModelGraph) -> dict[str, np.ndarray]:
    """Return the inputs that no request brings: constants, and zeros for those that nothing reads."""
    known = {tensor.name for tensor in graph.inputs} | set(graph.constants)
    return dict(graph.constants) | {
        str(value.name): np.zeros([size if isinstance(size, int) else 1 for size in value.shape], value.dtype.numpy())
        for value in request_inputs(original.graph)
        if value.name not in known and value.shape is not None and value.dtype is not None
    }


def _noise_of_batches(
    graph: ModelGraph, samples: Tensors, answers: Sequence[Tensors], scales: Mapping[str, Difference]
) -> dict[str, Difference]:
    """Return how far answers are from those that the model gives to some samples in one batch, per output."""
    names = list(scales)
    count = min(len(answers), NOISE_SAMPLES)
    symbolic = [
        size for each in request_inputs(graph.model.graph) for size in each.shape or () if not isinstance(size, int)
    ]
    if count == 1 or not symbolic or not names:
        return {}
    gaps: dict[str, list[Difference]] = {name: [] for name in names}
    for level in (True, False):
        made = run_model(open_session(graph.model, optimise=level), join(graph, samples, range(count)), names)
        for name, array in zip(names, made, strict=True):
            own = [take(graph.tensors[name], array, at, count) for at in range(count)]
            gaps[name] += [difference(each, answers[at][name], scales[name]) for at, each in enumerate(own)]
    return {name: largest(found) for name, found in gaps.items()}


def _require_quiet(noise: Mapping[str, Difference], model: str) -> None:
    for name, own in noise.items():
        if own.largest > LOUD:
            raise InputError(
                f"model {model}: its own answers differ by {own.largest:.2g} in {name!r} from one level of "
                "optimisation to another, so comparing would prove nothing; give inputs that it was made for (--inputs)"
            )


def _require_meaning(answers: Sequence[Tensors], again: Tensors, names: Sequence[str], model: str) -> None:
    """Refuse a model that answers all samples alike, or the first one otherwise when it is asked ``again``."""
    if len(answers) > 1 and all(equal(answers[0][name], other[name]) for other in answers[1:] for name in names):
        raise InputError(
            f"model {model} gives equal outputs for different inputs, so comparing outputs would prove nothing; "
            "give it trained or random weights, or inputs that differ (--inputs)"
        )
    if not all(equal(answers[0][name], again[name]) for name in names):
        raise InputError(
            f"model {model} gives another answer to the same request when it is asked again: it draws random numbers, "
            "so there is nothing to compare with; export it for inference"
        )


def floors_of(graph: ModelGraph) -> dict[str, Difference]:
    """Return by tensor what the least precise numbers on the way to it may do to it."""
    floors = {name: _FLOORS.get(tensor.dtype, NONE) for name, tensor in graph.tensors.items()}
    for layer in graph.layers:
        met = [floors[name] for name in layer.inputs]
        if layer.operator in _QUANTISING:
            met.append(_STEPS)
        for name in layer.outputs:
            floors[name] = largest([floors[name], *met])
    return floors
