"""The batch opened node by node: calls are traced, and nodes that pin the batch are changed until nothing does.

A node may be opened in several ways that all fit what it makes (a Reshape of [5, 1, 8] to [5, 2, 4] may put the batch
into the first axis or the second). Which one is meant, nodes behind it tell: where one of them mixes requests, the
trace begins anew with the next way of the last node that has one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import onnx_ir as ir

from planner.model import InputError
from planner.profiling.decisions import sized_values
from planner.profiling.graphs import varying_values, where
from planner.profiling.rewriting import Change, changes
from planner.profiling.tracing import (
    Fold,
    NodeRunner,
    Traced,
    Values,
    attempt,
    find_fold,
    last_reads,
    put_together,
)

_TRACES = 12  # at most
_RESHAPING = {"Reshape", "Flatten"}  # what they make of several calls may fit by chance: other ways come first

Apply = Callable[[ir.Model, ir.Node], None]


@dataclass(frozen=True)
class Way:
    """How a node serves calls together: changed, or as it is (None); and how calls lie in its outputs then."""

    apply: Apply | None
    folds: tuple[Fold | None, ...]


@dataclass
class _Choices:
    """By node, which of its ways was taken and how many it has."""

    taken: dict[int, int] = field(default_factory=dict)
    offered: dict[int, int] = field(default_factory=dict)

    def take(self, index: int, ways: Sequence[Way]) -> Way:
        """Return the way of a node whose turn it is."""
        self.offered[index] = len(ways)
        return ways[self.taken.get(index, 0)]

    def revise(self) -> bool:
        """Turn to the next way of the last node that has one, and forget what came after it."""
        open_nodes = [at for at, count in self.offered.items() if self.taken.get(at, 0) + 1 < count]
        if not open_nodes:
            return False
        last = max(open_nodes)
        self.taken[last] = self.taken.get(last, 0) + 1
        self.taken = {at: way for at, way in self.taken.items() if at <= last}
        self.offered = {}
        return True


def open_nodes(model: ir.Model, calls: Sequence[Values], axes: Mapping[str, int], *, repeat: bool) -> None:
    """Change nodes of a model until calls can be put together along the axes of its inputs.

    With ``repeat`` what all requests share may be repeated for each call (`changes`).

    Raises
    ------
    InputError
        A node mixes requests, or pins the batch in a way that cannot be opened; its name is in the message.
    """
    choices = _Choices()
    first_error = None
    for _ in range(_TRACES):
        try:
            found = _trace(model, calls, axes, choices, repeat=repeat)
        except InputError as error:
            first_error = first_error or error
            if not choices.revise():
                break
        else:
            nodes = list(model.graph)
            for index, apply in found.items():
                apply(model, nodes[index])
            return
    assert first_error is not None
    raise first_error


def find_culprit(model: ir.Model, calls: Sequence[Values], axes: Mapping[str, int]) -> str:
    """Return a line that names the first node which keeps calls from being put together, an empty text for none."""
    try:
        _trace(model, calls, axes, None)
    except InputError as error:
        return str(error)
    return ""


def _trace(
    model: ir.Model, calls: Sequence[Values], axes: Mapping[str, int], choices: _Choices | None, *, repeat: bool = False
) -> dict[int, Apply]:
    """Run a model node by node on calls, and return by node what is to be changed; None offers no choice but to fit."""
    nodes = list(model.graph)
    varying = varying_values(model.graph)
    sized = sized_values(model.graph, varying)
    constants = {
        name: value.const_value.numpy()
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    }
    traced = {
        name: Traced(parts, put_together(parts, Fold(axis)), Fold(axis))
        for name, axis in axes.items()
        if (parts := tuple(feeds[name] for feeds in calls))
    }
    found: dict[int, Apply] = {}
    for index, (node, freed) in enumerate(zip(nodes, last_reads(model.graph, nodes), strict=True)):
        run = NodeRunner(node, model, constants)
        if not any(value in varying for value in node.outputs):
            constants.update(zip(run.outputs, _alone(run, {}), strict=True))
            continue
        outputs, together = _run(run, traced, len(calls))
        if node.outputs[0] in sized and not isinstance(together, str):
            for name, each, made in zip(run.outputs, outputs, together, strict=True):
                traced[name] = Traced(each, made, None, sized=True)
        else:
            offer = None if choices is None else partial(changes, consts=constants, repeat=repeat)
            ways = _ways(run, traced, outputs, together, offer)
            way = ways[0] if choices is None else choices.take(index, ways)
            if way.apply is not None:
                found[index] = way.apply
            for name, each, fold in zip(run.outputs, outputs, way.folds, strict=True):
                traced[name] = Traced(each, put_together(each, fold), fold)
        for name in freed:
            traced.pop(name, None)
    for value in model.graph.outputs:
        answer = traced.get(str(value.name))
        if answer is not None and answer.fold is not None and answer.fold.outer > 1:
            raise InputError(f"output {value.name!r} holds requests in turn: it cannot be handed to them")
    return found


def _run(
    run: NodeRunner, traced: Mapping[str, Traced], calls: int
) -> tuple[list[tuple[np.ndarray, ...]], list[np.ndarray] | str]:
    """Return by output what a node makes of each call, and what it makes of them together or why it cannot."""
    read = {name: traced[name] for name in run.reads if name in traced}
    alone = [_alone(run, {name: each.calls[call] for name, each in read.items()}) for call in range(calls)]
    return list(zip(*alone, strict=True)), attempt(run, {name: each.together for name, each in read.items()})


def _alone(run: NodeRunner, feeds: Values) -> list[np.ndarray]:
    made = attempt(run, feeds)
    if isinstance(made, str):
        raise InputError(f"{where(run.node)} cannot be run by itself: {made}")
    return made


def _ways(
    run: NodeRunner,
    traced: Mapping[str, Traced],
    outputs: Sequence[tuple[np.ndarray, ...]],
    together: list[np.ndarray] | str,
    offer: Callable[..., Iterator[Change]] | None,
) -> list[Way]:
    """Return the ways in which a node serves calls together, the likeliest first; raises InputError for none."""
    unchanged = _folds(outputs, together)
    reshapes = run.node.op_type in _RESHAPING
    if not isinstance(unchanged, str) and (offer is None or not reshapes):
        return [Way(None, unchanged)]
    ways: list[Way] = []
    if offer is not None:
        feeds = {name: traced[name] for name in run.reads if name in traced}
        for change in offer(run.node, feeds, outputs[0][0], len(outputs[0])):
            folds = _folds(outputs, _try(run, feeds, change))
            if not isinstance(folds, str) and all(folds != way.folds for way in ways):
                ways.append(Way(None if folds == unchanged else change.apply, folds))
    if not isinstance(unchanged, str) and all(way.folds != unchanged for way in ways):
        ways.append(Way(None, unchanged))
    if not ways:
        raise InputError(f"{where(run.node)} {unchanged}")
    return ways


def _try(run: NodeRunner, traced: Mapping[str, Traced], change: Change) -> list[np.ndarray] | str:
    """Return what a changed node makes of the calls together, or why it cannot."""
    together = {name: each.together for name, each in traced.items()}
    if change.reshape is None:
        return attempt(run, together, change.trial)
    first = run.node.inputs[0]
    assert first is not None
    data = together[str(first.name)]
    try:
        sizes = [data.shape[at] if size == 0 else size for at, size in enumerate(change.reshape.tolist())]
        return [data.reshape(sizes)]
    except (ValueError, IndexError) as error:
        return str(error)


def _folds(outputs: Sequence[Sequence[np.ndarray]], made: list[np.ndarray] | str) -> tuple[Fold | None, ...] | str:
    """Return how calls lie in each output, or why they do not."""
    if isinstance(made, str):
        return f"pins the batch: {made}"
    folds: list[Fold | None] = []
    for each, output in zip(outputs, made, strict=True):
        fold = find_fold(each, output)
        if isinstance(fold, str):
            return fold
        folds.append(fold)
    return tuple(folds)
