"""Training classifiers that share weights (CoMPI, SoCC 2025, section 4.2): all together, then what is each one's own.

Groups that share one copy begin with the first model's weights. Some epochs all models are trained together, each
weighted by how far it is from the accuracy that it must have; then each alone, what is shared as it is. Training ends
as soon as every model is as accurate as it must be. Adam (Kingma and Ba, ICLR 2015) on the cross entropy of the logits;
equal seeds give equal weights.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd import value_and_grad
from numpy.typing import NDArray

from planner.model import InputError
from planner.planning.merging.schemes import Sharing
from planner.profiling import ModelGraph
from planner.retraining.operators import answer, trainable

Weights = dict[str, NDArray[np.float32]]

LEAST_WEIGHT = 0.05  # of a model that is accurate enough already, before weights are made to sum to 1


@dataclass(frozen=True)
class Effort:
    """How long and how models are trained: at most so many epochs together and alone, CoMPI's by default.

    A small data set has few steps an epoch, and needs more epochs.
    """

    joint_epochs: int = 3
    own_epochs: int = 5
    batch: int = 64
    step: float = 1e-3


@dataclass(frozen=True, eq=False)
class Task:
    """A classifier, what it learns from and is tested on, and how accurate it must be (percent).

    ``starts`` are the layers at which its layer groups begin. Its output are logits or probabilities ``[request,
    class]``; ``labels`` are numbers of classes.
    """

    graph: ModelGraph
    starts: tuple[int, ...]
    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]
    test_inputs: NDArray[np.float32]
    test_labels: NDArray[np.int64]
    min_accuracy: float

    def group(self, number: int) -> list[str]:
        """Return the names of the weights of a layer group."""
        ends = (*self.starts[1:], len(self.graph.layers))
        return trainable(self.graph, self.starts[number], ends[number])


@dataclass(frozen=True, eq=False)
class Retrained:
    """Weights and accuracies (percent, on test data) of every model; accepted if all are accurate enough."""

    weights: tuple[Weights, ...]
    accuracy: tuple[float, ...]
    accepted: bool


def weights_of(graph: ModelGraph) -> Weights:
    """Return the weights in a model's file that can be trained."""
    constants = graph.model.graph.initializers
    found = {}
    for name in trainable(graph):
        tensor = constants[name].const_value
        assert tensor is not None
        found[name] = tensor.numpy().astype(np.float32)
    return found


def accuracy(task: Task, weights: Weights) -> float:
    """Return how many test inputs are classified right (percent)."""
    found = np.asarray(answer(task.graph, weights, task.test_inputs))
    return float((found.argmax(axis=1) == task.test_labels).mean() * 100)


def train(task: Task, epochs: int, seed: int = 0, effort: Effort | None = None) -> Retrained:
    """Train one model from the weights in its file, to the end."""
    weights = [weights_of(task.graph)]
    adam = _Adam(effort or Effort())
    for epoch in range(epochs):
        _epoch([task], weights, {}, adam, [1.0], frozenset(), np.random.default_rng((seed, epoch)))
    reached = accuracy(task, weights[0])
    return Retrained(tuple(weights), (reached,), reached >= task.min_accuracy)


def retrain(tasks: Sequence[Task], sharing: Sharing, seed: int = 0, effort: Effort | None = None) -> Retrained:
    """Return the models trained with what they share as one copy.

    Raises
    ------
    InputError
        Groups that share have weights of unlike shapes.
    """
    effort = effort or Effort()
    weights = [weights_of(task.graph) for task in tasks]
    copies = tied(tasks, sharing)
    for (model, name), (first, theirs) in copies.items():
        weights[model][name] = weights[first][theirs]
    reached = [accuracy(task, own) for task, own in zip(tasks, weights, strict=True)]

    def short() -> list[float]:
        return [max(0.0, task.min_accuracy - now) for task, now in zip(tasks, reached, strict=True)]

    adam = _Adam(effort)
    for epoch in range(effort.joint_epochs):
        if not any(short()):
            break
        missing = np.array(short()) / max(short()) + LEAST_WEIGHT
        rng = np.random.default_rng((seed, epoch))
        _epoch(tasks, weights, copies, adam, (missing / missing.sum()).tolist(), frozenset(), rng)
        reached = [accuracy(task, own) for task, own in zip(tasks, weights, strict=True)]
    shared = frozenset(copies) | frozenset(copies.values())
    for number, task in enumerate(tasks):
        adam = _Adam(effort)
        for epoch in range(effort.own_epochs):
            if reached[number] >= task.min_accuracy:
                break
            frozen = frozenset((0, name) for model, name in shared if model == number)
            rng = np.random.default_rng((seed, number + 1, epoch))
            _epoch([task], weights[number : number + 1], {}, adam, [1.0], frozen, rng)
            reached[number] = accuracy(task, weights[number])
    return Retrained(tuple(weights), tuple(reached), not any(short()))


def tied(tasks: Sequence[Task], sharing: Sharing) -> dict[tuple[int, str], tuple[int, str]]:
    """Return, by (model, weight), the (model, weight) that it is a copy of: the first of those that share it."""
    copies: dict[tuple[int, str], tuple[int, str]] = {}
    for members in sorted(sharing, key=min):
        (first, group), *others = sorted(members)
        own = tasks[first].group(group)
        for other, place in others:
            theirs = tasks[other].group(place)
            shapes = [_shapes(tasks[first], own), _shapes(tasks[other], theirs)]
            if shapes[0] != shapes[1]:
                raise InputError(
                    f"group {group} of {tasks[first].graph.name} and group {place} of {tasks[other].graph.name} cannot "
                    f"share: expected weights of equal shapes, got {shapes[0]} and {shapes[1]}"
                )
            copies.update({(other, name): (first, mine) for mine, name in zip(own, theirs, strict=True)})
    return copies


def _shapes(task: Task, names: Sequence[str]) -> list[tuple[int, ...]]:
    known = weights_of(task.graph)
    return [known[name].shape for name in names]


class _Adam:
    """Steps of Adam, for weights by name."""

    def __init__(self, effort: Effort) -> None:
        self.effort = effort
        self.count: dict[tuple[int, str], int] = {}
        self.mean: dict[tuple[int, str], Any] = {}
        self.square: dict[tuple[int, str], Any] = {}

    def step(self, key: tuple[int, str], slope: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what to subtract from a weight, given its gradient."""
        n = self.count[key] = self.count.get(key, 0) + 1
        mean = self.mean[key] = 0.9 * self.mean.get(key, np.zeros_like(slope)) + 0.1 * slope
        square = self.square[key] = 0.999 * self.square.get(key, np.zeros_like(slope)) + 0.001 * slope**2
        rooted = np.sqrt(square / (1 - 0.999**n)) + 1e-8
        step: NDArray[np.float32] = self.effort.step * (mean / (1 - 0.9**n)) / rooted
        return step


def _epoch(
    tasks: Sequence[Task],
    weights: Sequence[Weights],
    copies: Mapping[tuple[int, str], tuple[int, str]],
    adam: _Adam,
    importance: Sequence[float],
    frozen: frozenset[tuple[int, str]],
    rng: np.random.Generator,
) -> None:
    """Change weights by one pass over the data of all models, a batch of each at a time."""
    slopes = [value_and_grad(_loss(task)) for task in tasks]
    for batches in zip(*(_batches(len(task.labels), adam.effort.batch, rng) for task in tasks), strict=False):
        sums: dict[tuple[int, str], Any] = {}
        for number, (task, batch) in enumerate(zip(tasks, batches, strict=True)):
            _, slope = slopes[number](weights[number], task.inputs[batch], task.labels[batch])
            for name, own in slope.items():
                key = copies.get((number, name), (number, name))
                part = np.float32(importance[number]) * own
                sums[key] = sums[key] + part if key in sums else part
        for key, total in sums.items():
            if key not in frozen:
                model, name = key
                weights[model][name] = (weights[model][name] - adam.step(key, total)).astype(np.float32)
        for (model, name), (first, theirs) in copies.items():
            weights[model][name] = weights[first][theirs]


def _batches(count: int, size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    order = rng.permutation(count)
    return (order[begin : begin + size] for begin in range(0, count, size))


def _loss(task: Task) -> Callable[[Any, Any, Any], Any]:
    """Return the cross entropy of a batch as a function of the weights."""
    ends_in_softmax = task.graph.layers[-1].operator == "Softmax"

    def loss(weights: Any, x: Any, labels: Any) -> Any:
        found = answer(task.graph, weights, x)
        chosen = found[np.arange(len(labels)), labels]
        if ends_in_softmax:
            return -anp.mean(anp.log(chosen + 1e-12))
        largest = anp.max(found, axis=1)
        return anp.mean(largest + anp.log(anp.sum(anp.exp(found - largest[:, None]), axis=1)) - chosen)

    return loss
