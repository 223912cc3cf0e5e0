"""CoMPI's own way to deploy, as a baseline (SoCC 2025, section 4; ``model_merge/parallel.py`` of its published code).

The models, in order of their stage limits, are halved until each is alone (`planner.planning.merging.schemes.middle`).
At every node of that tree a programme places its two halves h as if each were one model with

    S_h = least S_m,   mu_h = sum of mu_m,   P_h = max(largest P_m, mu_h)              over the models m of the half

and exactly S_h stages, in the words of `planner.planning.merging.deployment`. With present_{h,g,j} = the sum over I
that hold g, k of q_{h,I,k,j},

    copies_{h,g}   copies of group g that the models of the half need; of what they share the original knows only what
                   part of them shares, and that only if all of them share some group
    free_{g,j}     0 where a node above has put a copy for all of these models on device j, else 1
    both_{g,j}     at most present_{h,g,j} of either half                                  ``both[g,j]``

    minimise    sum over j, h, g of size_g · copies_{h,g} · free_{g,j} · present_{h,g,j}
                - sum over j, over groups g that all models of the node share,
                  of size_g · (models - 1) · free_{g,j} · both_{g,j}
    memory[j]   what of that is on device j fits in what the models placed so far leave there

Of equal placements one is taken whose shortest stages are longest, summed over both halves. A half of one model stays
where it is placed; while the models of a larger first half are placed, the second half's load is kept free.

It is no exact method: all models of a half are divided alike, and copies are heeded down one path of the tree only.

Deviation: heads are never copies (the original counts them as shared); a node without a placement is an error (the
original goes on, and takes the models left out for a saving); there are no devices beyond those of the problem (the
original adds some, at the price of the memory of two and more, to begin with a placement, and gives up if they stay).
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from planner.model import InputError
from planner.planning.arrays import Floats
from planner.planning.merging.deployment import (
    SCALE_BYTES,
    DeployedStage,
    Deployment,
    Formulation,
    MergeProblem,
    device_bytes,
    extract,
    hopeless,
    without_memory,
)
from planner.planning.merging.schemes import MergeModel, middle
from planner.planning.merging.stages import latency_share, stage_name
from planner.planning.programme.backends import Limits, solve
from planner.planning.programme.linear import Solution

LIMITS = Limits(gap=1e-9)
BYTE = 1 / SCALE_BYTES
Present = dict[tuple[int, int, int], list[int]]  # half, group, device -> columns


def deploy_recursively(
    problem: MergeProblem, backend: str = "highs", ties: np.random.Generator | None = None
) -> Deployment:
    """Return the deployment that CoMPI's recursion finds; its bound is 0, for the recursion proves nothing.

    Parameters
    ----------
    problem
        Models of one architecture in order of their stage limits; all models of a node of the tree share a group.
        Every model has as many stages as it may, whether ``all_stages`` is set or not.
    ties
        Chooses among equally good placements; None takes the solver's first.

    Raises
    ------
    InputError
        Models or sharing of another kind, no placement at some node, or one that exceeds the memory in the end.

    Examples
    --------
    >>> from planner.planning.merging.schemes import LayerGroup, Scheme, sharing_of
    >>> group, head = LayerGroup(100, 1.0), LayerGroup(10, 1.0, mergeable=False)
    >>> models = tuple(MergeModel(name, (group, head), 1, 1.0, 0.3) for name in "abc")
    >>> deploy_recursively(MergeProblem(models, (1000,), sharing_of(models, [Scheme((0, 1, 2), 0, 2)]))).memory_bytes
    130
    """
    problem = replace(problem, all_stages=True)
    _check(problem)
    if (reason := hopeless(problem)) is not None:
        raise InputError(reason)
    recursion = _Recursion(problem, backend, ties)
    recursion.place(range(len(problem.models)), np.ones((len(problem.device_bytes), len(problem.models[0].groups))))
    stages = tuple(sorted(recursion.stages, key=lambda stage: (stage.model, stage.first)))
    held = device_bytes(problem, stages)
    for device, (used, most) in enumerate(zip(held, problem.device_bytes, strict=True)):
        if used > most:
            raise InputError(
                f"CoMPI's recursion puts {used} bytes on device {device}, which has {most}: it counted on copies that "
                "then were not there; use `deploy`"
            )
    return Deployment(stages, sum(held), 0.0, "feasible")


def _check(problem: MergeProblem) -> None:
    """Refuse what the recursion has no words for."""
    limits = [model.max_stages for model in problem.models]
    if limits != sorted(limits):
        raise InputError(f"models: expected them by increasing stage limit, got limits {limits}")
    if len({model.groups for model in problem.models}) > 1:
        raise InputError("models: expected one architecture, as CoMPI's recursion does; use `deploy`")
    nodes = {tuple(node) for node in _nodes(range(len(limits)), limits)}
    for members in problem.sharing:
        if len({group for _, group in members}) > 1 or tuple(sorted(model for model, _ in members)) not in nodes:
            raise InputError(
                f"sharing {sorted(members)}: expected one group of the models of a node of CoMPI's tree, "
                f"{', '.join(map(str, sorted(nodes)))}; use `deploy`"
            )


def _nodes(models: range, limits: Sequence[int]) -> Iterator[range]:
    """Yield the nodes of the tree with more than one model."""
    if len(models) > 1:
        yield models
        for half in _halves(models, limits):
            yield from _nodes(half, limits)


def _halves(models: range, limits: Sequence[int]) -> tuple[range, ...]:
    """Return the halves of some models; one model is its own half."""
    if len(models) == 1:
        return (models,)
    cut = models.start + middle(limits[models.start : models.stop])
    return range(models.start, cut), range(cut, models.stop)


class _Recursion:
    """The stages placed so far, and the load of every device with what is kept free for others."""

    def __init__(self, problem: MergeProblem, backend: str, ties: np.random.Generator | None) -> None:
        self.problem, self.backend, self.ties = problem, backend, ties
        self.limits = [model.max_stages for model in problem.models]
        self.stages: list[DeployedStage] = []
        self.busy: Floats = np.zeros(len(problem.device_bytes))

    def place(self, models: range, free: Floats) -> None:
        """Place some models; ``free[device, group]`` is 0 where a copy for all of them is there already."""
        halves = _halves(models, self.limits)
        placed = self._solve(models, halves, free)
        free = free.copy()
        for stages in placed:
            for stage in stages:
                for group in self._shared(models, slice(stage.first, stage.last)):
                    free[list(stage.devices), group] = 0.0
        for number, half in enumerate(halves):
            if len(half) == 1:
                self.stages += [replace(stage, model=half.start) for stage in placed[number]]
                self.busy += self._load(half, placed[number])
            else:
                kept = sum(self._load(halves[later], placed[later]) for later in range(number + 1, len(halves)))
                self.busy += kept
                self.place(half, free)
                self.busy -= kept

    def _solve(self, models: range, halves: Sequence[range], free: Floats) -> list[list[DeployedStage]]:
        """Return the stages of each half, were it one model."""
        held = device_bytes(self.problem, self.stages)
        room = tuple(most - used for most, used in zip(self.problem.device_bytes, held, strict=True))
        joint = tuple(_as_one([self.problem.models[model] for model in half]) for half in halves)
        formulation = without_memory(MergeProblem(joint, room, all_stages=True), self.busy.tolist())
        total = self._add_memory(formulation, models, halves, free)
        solution = _best(formulation, total, self.backend, self.ties)
        if solution is None:
            names = ", ".join(self.problem.models[model].name for model in models)
            raise InputError(f"CoMPI's recursion finds no place for {names} beside what it placed before; use `deploy`")
        stages = extract(formulation, solution).stages
        return [[stage for stage in stages if stage.model == number] for number in range(len(halves))]

    def _add_memory(
        self, formulation: Formulation, models: range, halves: Sequence[range], free: Floats
    ) -> list[tuple[int, float]]:
        """Add what devices hold at most, and return the bytes of all (megabytes)."""
        model = formulation.model
        sizes = [group.parameter_bytes / SCALE_BYTES for group in self.problem.models[0].groups]
        copies = [[self._copies(half, group) for group in range(len(sizes))] for half in halves]
        held: list[defaultdict[int, float]] = [defaultdict(float) for _ in formulation.problem.device_bytes]
        present: Present = defaultdict(list)
        for (stage, device), column in formulation.on.items():
            for group in stage.groups:
                present[stage.model, group, device].append(column)
                held[device][column] += sizes[group] * copies[stage.model][group] * free[device, group]
        for device, group in np.argwhere(free > 0).tolist():
            if len(halves) > 1 and group in self._shared(models):
                both = model.add_column(f"both[{group},{device}]", upper=1)
                for half in range(len(halves)):
                    terms = [(column, -1.0) for column in present[half, group, device]]
                    model.add_row(f"both[{group},{device},{half}]", [(both, 1.0), *terms], upper=0)
                held[device][both] -= sizes[group] * (len(models) - 1)
        for device, room in enumerate(formulation.problem.device_bytes):
            model.add_row(f"memory[{device}]", held[device].items(), upper=room / SCALE_BYTES)
        return [term for terms in held for term in terms.items()]

    def _shared(self, models: range, within: slice = slice(None)) -> list[int]:
        """Return the groups, of some, that are one copy in exactly these models."""
        groups = range(len(self.problem.models[0].groups))[within]
        return [g for g in groups if frozenset((model, g) for model in models) in self.problem.sharing]

    def _copies(self, models: range, group: int) -> int:
        """Return how many copies of a group some models need, for all that the original knows of (see above)."""
        if not self._shared(models):
            return len(models)
        within = [members for members in self.problem.sharing if all(m in models and g == group for m, g in members)]
        return len(models) - sum(len(members) - 1 for members in within if len(members) < len(models))

    def _load(self, half: range, stages: Sequence[DeployedStage]) -> Floats:
        """Return what the stages of a half keep busy of every device."""
        joint = _as_one([self.problem.models[model] for model in half])
        load = np.zeros(len(self.busy))
        for stage in stages:
            work = joint.mean_devices * latency_share(joint, (stage.first, stage.last))
            load[list(stage.devices)] += work / len(stage.devices)
        return load


def _as_one(models: Sequence[MergeModel]) -> MergeModel:
    """Return some models as the one that stands for them at a node."""
    mean = sum(model.mean_devices for model in models)
    return MergeModel(
        "+".join(model.name for model in models),
        models[0].groups,
        min(model.max_stages for model in models),
        max(mean, *(model.peak_devices for model in models)),
        mean,
    )


def _best(
    formulation: Formulation, total: Sequence[tuple[int, float]], backend: str, ties: np.random.Generator | None
) -> Solution | None:
    """Return a solution with the least memory, of these one with the longest shortest stages; None where there is none.

    With ``ties`` these are drawn from: random weights of places decide.
    """
    model = formulation.model
    model.set_objective(total, maximise=False)
    solution, name = solve(model, backend, LIMITS)
    if not solution.found:
        return None
    model.add_row("least", total, upper=solution.objective + BYTE)
    shortest = [(_add_shortest(formulation, number), 1.0) for number in range(len(formulation.problem.models))]
    model.set_objective(shortest, maximise=True)
    solution, _ = solve(model, name, LIMITS)
    if ties is not None and solution.found:
        model.add_row("balanced", shortest, lower=solution.objective - BYTE)
        weights: NDArray[np.float64] = ties.uniform(size=len(formulation.on))
        model.set_objective(zip(formulation.on.values(), weights.tolist(), strict=True), maximise=False)
        solution, _ = solve(model, name, LIMITS)
    return solution if solution.found else None


def _add_shortest(formulation: Formulation, number: int) -> int:
    """Add a column for the part of the latency that a model's shortest stage takes, 0 where a stage is empty."""
    model, merged = formulation.model, formulation.problem.models[number]
    shortest = model.add_column(f"shortest[{merged.name}]", upper=1)
    full = model.add_column(f"full[{merged.name}]", upper=1, integer=True)
    own = {stage: column for stage, column in formulation.stage.items() if stage.model == number}
    for stage, column in own.items():
        name = f"shortest[{stage_name(formulation.problem.models, stage)}]"
        model.add_row(name, [(shortest, 1.0), (column, 1.0)], upper=1 + latency_share(merged, stage.interval))
    counted = [(column, -1.0) for column in own.values()]
    model.add_row(f"full[{merged.name}]", [(full, float(merged.max_stages)), *counted], upper=0)
    model.add_row(f"shortest[{merged.name}]", [(shortest, 1.0), (full, -1.0)], upper=0)
    return shortest
