"""Whether a model may stand for its file: its answers to requests, alone and together, against the file's own.

The file is run as it is, one call at a time. It must answer a call twice alike. The model that will be planned and cut
must then give the same answers at several batch sizes, whatever requests share a run, but for what the file's own
arithmetic differs by between optimisation levels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from planner.model import InputError
from planner.profiling.graphs import RANDOM_OPERATORS, varying_values, where
from planner.profiling.inputs import Axes
from planner.profiling.onnx_graph import ModelGraph
from planner.profiling.opening import find_culprit
from planner.profiling.runtime import open_session, random_feeds, run_model
from planner.profiling.tracing import CLOSE, MIXED, Fold, Values, close, find_fold, put_together

BATCHES = (1, 2, 3, 5)
_LOOSE = 0.1  # of the largest magnitude
_NOISE = 4  # times what optimisations move an answer by


@dataclass(frozen=True, eq=False)
class Calls:
    """Calls of a file on different inputs, and its answers: ``answers[call]`` are its outputs."""

    feeds: Sequence[Values]
    answers: Sequence[Sequence[np.ndarray]]
    tolerance: float


def check_function(model: ir.Model) -> None:
    """Refuse a model that draws random numbers; raises InputError naming the layer."""
    varying = varying_values(model.graph)
    for node in model.graph.all_nodes():
        if node.op_type in RANDOM_OPERATORS and (node.graph is not model.graph or node.outputs[0] in varying):
            raise InputError(
                f"{where(node)} draws random numbers: the model is no function of its input, so that no answer of it "
                "can be checked; export it without that layer, or with the numbers as an input"
            )


def call_file(model: ir.Model, constants: Values, single: ir.Model) -> Calls:
    """Run the file on some calls; ``single`` is it with every size fixed, ``constants`` what all calls share.

    Raises
    ------
    InputError
        onnxruntime cannot run it, or it answers a call twice differently.
    """
    feeds = [random_feeds(single, 1, np.random.default_rng([11, call])) for call in range(max(BATCHES))]
    session = open_session(model)
    answers = [_run(session, {**constants, **each}) for each in feeds]
    slow, one = open_session(model, optimise=False), {**constants, **feeds[0]}
    plain = _run(slow, one)
    # Optimisations may take out what is random, in the whole model but not in a part.
    for earlier, again in ((answers[0], _run(session, one)), (plain, _run(slow, one))):
        for value, first, second in zip(model.graph.outputs, earlier, again, strict=True):
            if not _same(first, second):
                raise InputError(_moody(model, str(value.name), one))
    noise = max((_distance(a, b) for a, b in zip(answers[0], plain, strict=True)), default=0.0)
    return Calls(feeds, answers, max(CLOSE, _NOISE * noise))


def _run(session: Any, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    try:
        made = run_model(session, feeds)
    except InputError as error:
        raise InputError(f"{error}; where an input may only hold certain values, give them with --constant") from None
    for output, each in zip(session.get_outputs(), made, strict=True):
        if not isinstance(each, np.ndarray):
            raise InputError(
                f"output {output.name!r} is a {output.type}, no tensor; export the model with tensors as outputs"
            )
    return made


def _moody(model: ir.Model, output: str, feeds: Mapping[str, np.ndarray]) -> str:
    """Return a line about a model that answers a call twice differently, with the first layer that does."""
    made_by = {str(value.name): node for node in model.graph for value in node.outputs if value.name}
    try:
        session = open_session(model, optimise=False, outputs=list(made_by))
        first, second = (run_model(session, feeds, list(made_by)) for _ in range(2))
        pairs = zip(made_by.values(), first, second, strict=True)
        culprit = next((node for node, a, b in pairs if isinstance(a, np.ndarray) and not _same(a, b)), None)
    except Exception:  # whatever prevents the search, the line comes without the layer
        culprit = None
    named = "" if culprit is None else f"; {where(culprit)} is the first layer that does (is it in training mode?)"
    return (
        f"output {output!r} differs between two runs on the same input: the model is no function of its input{named}; "
        "export it for inference"
    )


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.array_equal(a, b, equal_nan=a.dtype.kind in "fc"))


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    if a.dtype.kind not in "fc" or a.shape != b.shape or not a.size:
        return 0.0
    both = np.isfinite(a) & np.isfinite(b)
    scale = float(np.abs(a[both]).max(initial=0.0))
    return float(np.abs(a[both].astype(np.float64) - b[both]).max(initial=0.0)) / scale if scale else 0.0


def check_batches(calls: Calls, graph: ModelGraph, axes: Axes, *, rewritten: bool) -> None:
    """Compare a model's answers to requests that share a run with the file's to each; raises InputError.

    Arithmetic at another batch size may differ by more than optimisations make it differ. So where a model that was
    not ``rewritten`` differs, one of the requests is run with others beside it: its answer must not change.
    """
    session = open_session(graph.model)
    for batch in BATCHES:
        made = _run_together(session, calls.feeds[:batch], axes)
        if isinstance(made, str):
            raise InputError(_culprit(graph, calls, axes, f"batch {batch} cannot be run: {made}"))
        for name, (*alone, output) in zip(graph.outputs, zip(*calls.answers[:batch], made, strict=True), strict=True):
            fold = find_fold(alone, output, calls.tolerance)
            if (
                fold == MIXED
                and not rewritten
                and _is_arithmetic(session, calls, axes, batch, graph.outputs.index(name))
            ):
                continue
            if fold is not None and not (isinstance(fold, Fold) and fold.outer == 1):
                reason = fold if isinstance(fold, str) else "holds requests in turn"
                raise InputError(_culprit(graph, calls, axes, f"output {name!r} at batch {batch} {reason}"))


def _run_together(session: object, feeds: Sequence[Values], axes: Axes) -> list[np.ndarray] | str:
    together = {name: put_together([each[name] for each in feeds], Fold(axis)) for name, axis in axes.items()}
    try:
        return run_model(session, together)
    except InputError as error:
        return str(error)


def _is_arithmetic(session: object, calls: Calls, axes: Axes, batch: int, output: int) -> bool:
    """Tell whether answers at a batch size are the same whatever shares the run, and not far from those alone."""
    first, *others = calls.feeds
    made = [
        _run_together(session, [first, *company[: batch - 1]], axes) for company in (others, list(reversed(others)))
    ]
    if batch == 1 or any(isinstance(each, str) for each in made):
        return False
    alone = [answers[output] for answers in calls.answers]
    here, there = (each[output] for each in made if not isinstance(each, str))
    companies = ([alone[0], *alone[1:batch]], [alone[0], *alone[:0:-1][: batch - 1]])
    folds = [find_fold(list(company), each, _LOOSE) for company, each in zip(companies, (here, there), strict=True)]
    if not all(isinstance(fold, Fold) and fold.outer == 1 for fold in folds):
        return False
    axis = folds[0].axis  # type: ignore[union-attr]
    rows = alone[0].shape[axis]
    return close(here.take(range(rows), axis), there.take(range(rows), axis))


def _culprit(graph: ModelGraph, calls: Calls, axes: Axes, reason: str) -> str:
    """Return a line that names the layer which keeps requests from sharing a run, if it can be found."""
    named = find_culprit(graph.model, calls.feeds[:3], axes)
    return named or f"requests that share a run are not answered as alone: {reason}"


def check_calls(calls: Calls, graph: ModelGraph) -> None:
    """Compare a model that takes one request a run with the file; raises InputError."""
    session = open_session(graph.model)
    for feeds, answers in zip(calls.feeds[:2], calls.answers, strict=False):
        for name, expected, made in zip(graph.outputs, answers, _run(session, feeds), strict=True):
            if find_fold([expected], made, calls.tolerance) is not None:
                raise InputError(f"output {name!r} is not what the file answers; report this model")
