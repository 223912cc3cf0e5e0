"""A model split at its cuts and put together again, to see whether the halves answer as the whole does.

Each cut is tried in two ways. Without optimisations both sides compute every layer in the same way, so answers are
equal to the bit as a rule. With them onnxruntime fuses layers of one half only with each other. In either way answers
are compared with the original file's, per request (`planner.profiling.verification`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from planner.profiling.differences import NONE, Difference, equal, largest
from planner.profiling.onnx_graph import ModelGraph
from planner.profiling.runtime import open_session, run_model
from planner.profiling.samples import Tensors, join, take
from planner.profiling.split import Part, extract_parts, run_chain
from planner.profiling.verification import Yardstick

BATCH = 2  # requests of a batch: enough to tell rows that are mixed up


@dataclass(frozen=True)
class CutsTried:
    """What the cuts of a model gave in one way.

    ``equal`` counts those whose answers are the unsplit model's to the bit, ``worst`` is the largest difference from
    the original's, ``wrong`` says by cut what is not the original's answer. Cut 0 is the unsplit model itself.
    """

    optimised: bool
    cuts: int
    equal: int
    worst: Difference
    wrong: dict[int, str]


def choose_cuts(graph: ModelGraph, count: int | None) -> list[int]:
    """Return all cuts, or about ``count`` of them, evenly spaced from the first to the last.

    >>> from types import SimpleNamespace
    >>> choose_cuts(SimpleNamespace(layers=range(10)), 3)
    [1, 5, 9]
    """
    cuts = range(1, len(graph.layers))
    if count is None or count >= len(cuts):
        return list(cuts)
    return sorted({cuts[round(at)] for at in np.linspace(0, len(cuts) - 1, count)})


def try_cuts(
    graph: ModelGraph,
    cuts: Sequence[int],
    samples: Tensors,
    yardstick: Yardstick,
    *,
    optimise: bool,
    batch: int = BATCH,
    progress: Callable[[], None] = lambda: None,
) -> CutsTried:
    """Split a model at each of some cuts, run the halves on a batch of samples, and judge the answers.

    Raises
    ------
    InputError
        onnxruntime refuses a part, or what another one made for it.
    """
    feeds = join(graph, samples, range(batch))

    def run(part: Part, given: Tensors) -> list[np.ndarray]:
        return run_model(open_session(part.model, optimise=optimise), given)

    whole = run_chain(extract_parts(graph, [0]), run, feeds)
    same, worst = 0, [NONE]
    wrong: dict[int, str] = {}
    for cut in [0, *cuts]:
        made = run_chain(extract_parts(graph, [0, cut]), run, feeds) if cut else whole
        same += cut > 0 and all(equal(made[name], whole[name]) for name in graph.outputs)
        for at in range(batch):
            own = {name: take(graph.tensors[name], made[name], at, batch) for name in graph.outputs}
            judgement = yardstick.judge(at, own)
            worst.append(judgement.worst)
            if not judgement.right:
                wrong.setdefault(cut, f"request {at} of {batch}: {judgement.why}")
        progress()
    return CutsTried(optimise, len(cuts), same, largest(worst), wrong)
