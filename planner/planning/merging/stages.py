"""Stages of models and their replicas: what a deployment chooses from, whichever way it is found."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from planner.planning.merging.schemes import MergeModel, Sharing
from planner.planning.programme.linear import LinearModel

Interval = tuple[int, int]
ROUNDING = 1e-9
THRESHOLDS = (0.5, 0.4, 0.3, 0.2)  # e of f_e


@dataclass(frozen=True)
class Replicated:
    """The groups [first, last) of a model as a stage with its number of replicas.

    ``open_ended`` stands for so many replicas or more.
    """

    model: int
    interval: Interval
    replicas: int
    open_ended: bool = False

    @property
    def groups(self) -> range:
        """The layer groups of the stage."""
        return range(*self.interval)


def intervals(model: MergeModel) -> list[Interval]:
    """Return the stages that a model may have: with one all groups, with two those that touch an end, else any."""
    count = len(model.groups)
    return [
        (first, last)
        for first in range(count)
        for last in range(first + 1, count + 1)
        if (first > 0) + (last < count) < model.max_stages
    ]


def latency_share(model: MergeModel, interval: Interval) -> float:
    """Return the part of the model's latency that a stage takes."""
    return sum(group.latency for group in model.groups[slice(*interval)]) / model.latency


def least_replicas(model: MergeModel, interval: Interval) -> int:
    """Return the replicas that a stage needs at the model's peak: max(1, ceil(P · t / T))."""
    return max(1, ceil(model.peak_devices * latency_share(model, interval) - ROUNDING))


def replica_load(models: Sequence[MergeModel], stage: Replicated) -> float:
    """Return the load of each replica of a stage: mu · t / (T · k)."""
    model = models[stage.model]
    return model.mean_devices * latency_share(model, stage.interval) / stage.replicas


def dual_feasible(load: float, threshold: float) -> float:
    """Return f_e(x): 0 below e, 1 above 1 - e, else x; for e = 0 it is x.

    Loads whose sum is at most 1 have images whose sum is at most 1 (Fekete and Schepers, "New classes of fast lower
    bounds for bin packing problems", Mathematical Programming 91, 2001, u^(e) there).

    Examples
    --------
    >>> dual_feasible(0.6, 0.5), dual_feasible(0.6, 0.3), dual_feasible(0.2, 0.3)
    (1.0, 0.6, 0.0)
    """
    if load < threshold:
        return 0.0
    return 1.0 if threshold and load > 1 - threshold + ROUNDING else load


def dual_loads(
    models: Sequence[MergeModel], stages: Iterable[Replicated]
) -> Iterator[tuple[str, dict[Replicated, float]]]:
    """Yield for every dual feasible function its name, and what a replica of each stage takes of a device by it.

    Of an open-ended stage, whose replicas may be smaller, only f(x) = x knows.
    """
    loads = {stage: replica_load(models, stage) for stage in stages}
    for threshold in (0.0, *THRESHOLDS):
        taken = {
            stage: dual_feasible(load, threshold)
            for stage, load in loads.items()
            if not (threshold and stage.open_ended)
        }
        yield f"{threshold:g}", {stage: part for stage, part in taken.items() if part}


def add_paths(model: LinearModel, models: Mapping[int, MergeModel], columns: Mapping[Replicated, int]) -> None:
    """Add that the chosen stages of a model follow each other from its first group to its last, and how many there are.

    Rows ``path[m,boundary]`` and ``stages[m]``; ``columns`` are binaries, one per stage and number of replicas.
    """
    for number, merged in models.items():
        own = [(stage.interval, column) for stage, column in columns.items() if stage.model == number]
        for boundary in range(len(merged.groups) + 1):
            begins = [(column, 1.0) for (first, _), column in own if first == boundary]
            ends = [(column, -1.0) for (_, last), column in own if last == boundary]
            balance = (boundary == 0) - (boundary == len(merged.groups))
            model.add_row(f"path[{merged.name},{boundary}]", [*begins, *ends], lower=balance, upper=balance)
        model.add_row(f"stages[{merged.name}]", [(column, 1.0) for _, column in own], upper=merged.max_stages)


def stage_name(models: Sequence[MergeModel], stage: Replicated) -> str:
    """Return how a stage is called in names of columns and rows."""
    first, last = stage.interval
    return f"{models[stage.model].name},{first}-{last},{stage.replicas}"


def holding(stages: Collection[Replicated]) -> dict[tuple[int, int], list[Replicated]]:
    """Return for every (model, group) the stages that hold it."""
    found: dict[tuple[int, int], list[Replicated]] = {}
    for stage in stages:
        for group in stage.groups:
            found.setdefault((stage.model, group), []).append(stage)
    return found


def families(models: Sequence[MergeModel], sharing: Sharing) -> list[int]:
    """Return a number per model, alike where models share something, directly or by others."""
    family = list(range(len(models)))
    for members in sharing:
        joined = {family[model] for model, _ in members}
        family = [min(joined) if own in joined else own for own in family]
    return family
