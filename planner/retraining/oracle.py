"""The oracle that retrains, what it needs to know of models, and what it makes of them."""

from collections.abc import Callable, Sequence

import onnx_ir as ir

from planner.model import InputError
from planner.planning.merging.schemes import LayerGroup, Sharing
from planner.profiling import ModelGraph
from planner.profiling.merged_blocks import content
from planner.retraining.training import Effort, Retrained, Task, Weights, retrain


class Retraining:
    """Says of sharing whether all models are as accurate as they must be once they were trained with it.

    What was trained is kept, and would come out the same again: ``result`` trains where that is not at hand, for
    instance where a history of answers made it needless to ask.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        seed: int = 0,
        effort: Effort | None = None,
        report: Callable[[Sharing, Retrained], None] = lambda *_: None,
    ) -> None:
        self.tasks, self.seed, self.effort, self.report = tuple(tasks), seed, effort, report
        self._results: dict[Sharing, Retrained] = {}

    def __call__(self, sharing: Sharing) -> bool:
        """Return whether sharing is accepted."""
        return self.result(sharing).accepted

    def result(self, sharing: Sharing) -> Retrained:
        """Return the models with this sharing."""
        if sharing not in self._results:
            self._results[sharing] = retrain(self.tasks, sharing, self.seed, self.effort)
            self.report(sharing, self._results[sharing])
        return self._results[sharing]


def groups_of(graph: ModelGraph, starts: Sequence[int]) -> tuple[LayerGroup, ...]:
    """Return the layer groups of a model that begin at some layers; the last is its head, and never merged.

    Groups of equal structure are of one kind, whatever their weights; the work of each stands for its latency.
    """
    ends = (*starts[1:], len(graph.layers))
    return tuple(
        LayerGroup(
            graph.parameter_bytes(first, last),
            1.0 + sum(layer.cost.macs + layer.cost.operations for layer in graph.layers[first:last]),
            mergeable=last < len(graph.layers),
            kind=content(graph, first, last, weights=False).digest,
        )
        for first, last in zip(starts, ends, strict=True)
    )


def write_models(tasks: Sequence[Task], weights: Sequence[Weights]) -> list[ir.Model]:
    """Return the models with other weights; what is one copy is equal to the byte in all of them.

    Raises
    ------
    InputError
        A weight is stored in another type than float32.
    """
    found = []
    for task, own in zip(tasks, weights, strict=True):
        model = task.graph.model.clone()
        for name, values in own.items():
            constant = model.graph.initializers[name]
            assert constant.const_value is not None
            if constant.const_value.dtype != ir.DataType.FLOAT:
                raise InputError(f"{task.graph.name}: weight {name!r}: expected float32 to train, got another type")
            constant.const_value = ir.tensor(values, name=name)
        found.append(model)
    return found
