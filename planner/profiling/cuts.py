"""A model split at its cuts and put together again, to see whether the halves answer as the whole does.

Each cut is tried in two ways. Without optimisations both sides compute every layer in the same way, so answers are
equal to the bit as a rule. With them onnxruntime fuses layers of one half only with each other. In either way answers
are compared with the original file's, per request (`planner.profiling.verification`).

What onnxruntime makes of a part may be less exact than what it makes of the whole (products of 4-bit weights, for which
it rounds activations to bytes, in some graphs and not in others). Such parts answer otherwise with optimisations than
without, which is no fault of the split: where they are right without, that much is allowed with them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from planner.profiling.differences import NONE, Difference, difference, equal, largest
from planner.profiling.onnx_graph import ModelGraph
from planner.profiling.runtime import open_session, run_model
from planner.profiling.samples import Tensors, join, take
from planner.profiling.split import Part, extract_parts, run_chain
from planner.profiling.verification import Yardstick, floors_of

BATCH = 2  # requests of a batch: enough to tell rows that are mixed up


@dataclass
class CutsTried:
    """What the cuts of a model gave in one way.

    ``equal`` counts those whose answers are the unsplit model's to the bit, ``moved`` those which differ by more than
    the whole model does from itself, but only with optimisations. ``worst`` is the largest difference from the
    original's answers, ``wrong`` says by cut what is not its answer. Cut 0 is the unsplit model itself.
    """

    optimised: bool
    cuts: int
    equal: int = 0
    moved: int = 0
    worst: Difference = NONE
    wrong: dict[int, str] = field(default_factory=dict)


def choose_cuts(graph: ModelGraph, count: int | None) -> list[int]:
    """Return all legal cuts, or about ``count`` of them, evenly spaced from the first to the last.

    >>> from types import SimpleNamespace
    >>> choose_cuts(SimpleNamespace(layers=range(10), barred={2: "a sequence"}), 3)
    [1, 6, 9]
    """
    cuts = [cut for cut in range(1, len(graph.layers)) if cut not in graph.barred]
    if count is None or count >= len(cuts):
        return cuts
    return sorted({cuts[round(at)] for at in np.linspace(0, len(cuts) - 1, count)})


def try_cuts(
    graph: ModelGraph,
    cuts: Sequence[int],
    samples: Tensors,
    yardstick: Yardstick,
    batch: int = BATCH,
    progress: Callable[[], None] = lambda: None,
) -> tuple[CutsTried, CutsTried]:
    """Split a model at each of some cuts, run the halves on a batch of samples, and judge the answers.

    Returns
    -------
    tuple
        What came of it without optimisations, and with them.

    Raises
    ------
    InputError
        onnxruntime refuses a part, or what another one made for it.
    """
    feeds = join(graph, samples, range(batch))
    plain, optimised = CutsTried(False, len(cuts)), CutsTried(True, len(cuts))
    wholes = [run_parts(graph, [0], feeds, optimise=way.optimised) for way in (plain, optimised)]
    exact = _computes_exactly(graph)
    for cut in [0, *cuts]:
        made = (
            [run_parts(graph, [0, cut], feeds, optimise=way.optimised) for way in (plain, optimised)] if cut else wholes
        )
        moves = moved_by(graph, made[0], made[1], batch, yardstick.scales)
        for way, whole, own in zip((plain, optimised), wholes, made, strict=True):
            answers = [take_all(graph, own, at, batch) for at in range(batch)]
            way.equal += cut > 0 and all(equal(own[name], whole[name]) for name in graph.outputs)
            way.worst = largest([way.worst, *(yardstick.judge(at, each).worst for at, each in enumerate(answers))])
            why = _first_wrong(yardstick, answers)
            if way is plain and exact:
                why = why or _apart(graph, own, whole, yardstick)
            if way is optimised and why and cut not in plain.wrong:
                why = _first_wrong(yardstick.widened(moves), answers)
                way.moved += not why
            if why:
                way.wrong[cut] = why
        progress()
    return plain, optimised


def _computes_exactly(graph: ModelGraph) -> bool:
    """Tell whether every layer alone computes what it does within the whole; onnxruntime widens half precision."""
    halves = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16}
    return not any(graph.tensors[name].dtype in halves for layer in graph.layers for name in layer.outputs)


def _apart(graph: ModelGraph, made: Tensors, whole: Tensors, yardstick: Yardstick) -> str:
    """Return how parts without optimisations differ from the whole without them, by more than their types allow.

    Both compute every layer alike, so that this finds what is wrong even where a model's noise is loud.
    """
    floors = floors_of(graph)
    for name, scale in yardstick.scales.items():
        gap = difference(made[name], whole[name], scale)
        if not gap.within(largest([floors[name], yardstick.allowed[name]] if yardstick.tolerance else [floors[name]])):
            return f"output {name!r} is {gap.largest:.2g} from the unsplit model's, which the same layers make"
    return ""


def _first_wrong(yardstick: Yardstick, answers: Sequence[Tensors]) -> str:
    """Return what is wrong with the first answer of a batch that is, an empty text where all are right."""
    judged = (yardstick.judge(at, answer) for at, answer in enumerate(answers))
    return next((f"request {at} of {len(answers)}: {each.why}" for at, each in enumerate(judged) if each.why), "")


def run_parts(graph: ModelGraph, starts: Sequence[int], feeds: Tensors, *, optimise: bool) -> dict[str, np.ndarray]:
    """Return what the parts of a model that begin at layers ``starts`` make, run one after the other."""

    def run(part: Part, given: Tensors) -> list[np.ndarray]:
        return run_model(open_session(part.model, optimise=optimise), given)

    return run_chain(extract_parts(graph, starts), run, feeds)


def moved_by(
    graph: ModelGraph, plain: Tensors, optimised: Tensors, batch: int, scales: Mapping[str, Difference]
) -> dict[str, Difference]:
    """Return how far optimisations move the answers to a batch, at most, per output and relative to its scale."""
    pairs = [(take_all(graph, optimised, at, batch), take_all(graph, plain, at, batch)) for at in range(batch)]
    return {
        name: largest([difference(mine[name], theirs[name], scale) for mine, theirs in pairs])
        for name, scale in scales.items()
    }


def take_all(graph: ModelGraph, made: Tensors, position: int, batch: int) -> dict[str, np.ndarray]:
    """Return the answer to one request of a batch."""
    return {name: take(graph.tensors[name], made[name], position, batch) for name in graph.outputs}
