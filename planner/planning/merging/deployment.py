"""Where every stage runs so that memory is least, given what is shared (CoMPI, SoCC 2025, section 4).

Sets
    m, g        models and their layer groups, in order
    I           intervals [a, b) of a model's groups: its possible stages
    j           devices, each with a memory and a load of at most 1
    c           classes of (model, group) that share one copy (`planner.planning.merging.schemes`)

Parameters
----------
    S_m         stages of model m at most;   P_m, mu_m   its peak and mean demand in devices
    t_I / T_m   the part of the model's latency that a stage takes
    size_g      bytes of a group;   memory_j   bytes of a device
    least_I     replicas that a stage needs: max(1, ceil(P_m · t_I / T_m))
    v_{m,I,k}   the load of each of k replicas, mu_m · t_I / (T_m · k)

Variables
    r_{m,I,k}   binary: I is a stage of k replicas, k >= least_I                          ``stage[m,I,k]``
    q_{m,I,k,j} binary: one of these replicas is on device j                               ``on[m,I,k,j]``
    w_{c,j}     the copy of class c is on device j, 0 to 1                                ``copy[c,j]``
    n_c         integer: the copies of class c                                           ``copies[c]``

    minimise    sum over j of the memory in use there
    path, stages    the intervals with r = 1 cover every group once, at most S_m of them
    placed[m,I,k]   sum over j of q_{m,I,k,j} = k · r_{m,I,k},    q_{m,I,k,j} <= r_{m,I,k}
    busy[j]         sum of v_{m,I,k} · q_{m,I,k,j} <= 1
    one[m,j]        sum over I, k of q_{m,I,k,j} <= 1                    a device holds one stage of a model
    copy[m,g,j]     w_{c,j} >= sum over I that hold g, k of q_{m,I,k,j}      for every member (m, g) of c
    memory[j]       sum of size over unshared groups present + sum over c of size_c · w_{c,j} <= memory_j

Rows that follow from these, but not from their relaxation: with f dual feasible (`stages.dual_feasible`)

    copies[c]       n_c = sum over j of w_{c,j}
    busy[f,c,j]     w_{c,j} >= sum over members (m, g) of c, over I that hold g, k of f(v_{m,I,k}) · q_{m,I,k,j}

With ``all_stages`` (the reference's rule) every model has exactly S_m stages, and an empty one still takes a device of
its own: replicas + (S_m - stages) <= devices.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Literal

from planner.model import InputError
from planner.planning.merging.schemes import Member, MergeModel, Sharing, check_models, check_sharing
from planner.planning.merging.stages import (
    ROUNDING,
    Replicated,
    add_paths,
    dual_loads,
    holding,
    intervals,
    least_replicas,
    replica_load,
    stage_name,
)
from planner.planning.programme.backends import Limits, TooLate, solve
from planner.planning.programme.linear import LinearModel, Solution

SCALE_BYTES = 1e6  # the programme counts megabytes
NOTHING_FITS = (
    "no deployment keeps memory, load and one stage of a model per device; "
    "add devices or memory, allow more stages, or merge more"
)


@dataclass(frozen=True)
class MergeProblem:
    """Models, the memory of each device (bytes), and which groups share one copy.

    With ``all_stages`` every model must have as many stages as it may.
    """

    models: tuple[MergeModel, ...]
    device_bytes: tuple[int, ...]
    sharing: Sharing = frozenset()
    all_stages: bool = False

    def __post_init__(self) -> None:
        """Refuse models and sharing that cannot be, and a problem without devices."""
        if not self.device_bytes:
            raise InputError("device_bytes: empty; give the memory of one device at least")
        for device, memory in enumerate(self.device_bytes):
            if not 0 <= memory < inf:
                raise InputError(f"device_bytes[{device}]: expected a number of bytes from 0 on, got {memory}")
        check_models(self.models)
        check_sharing(self.models, self.sharing)


@dataclass(frozen=True)
class DeployedStage:
    """Groups [first, last) of a model on devices, one replica on each."""

    model: int
    first: int
    last: int
    devices: tuple[int, ...]


Stages = tuple[DeployedStage, ...]


@dataclass(frozen=True)
class Deployment:
    """Where every stage runs; ``memory_bytes`` is in use, and no deployment uses less than ``bound_bytes``."""

    stages: Stages
    memory_bytes: int
    bound_bytes: float
    status: Literal["optimal", "feasible"]

    @property
    def gap(self) -> float:
        """The relative distance from the bound."""
        return 1 - self.bound_bytes / self.memory_bytes if self.memory_bytes else 0.0


@dataclass
class Formulation:
    """The programme and the numbers of its columns."""

    problem: MergeProblem
    model: LinearModel = field(default_factory=LinearModel)
    stage: dict[Replicated, int] = field(default_factory=dict)
    on: dict[tuple[Replicated, int], int] = field(default_factory=dict)

    @property
    def devices(self) -> range:
        """The devices, by number."""
        return range(len(self.problem.device_bytes))


def build(problem: MergeProblem) -> Formulation:
    """Return the programme of a problem."""
    formulation = without_memory(problem)
    copies = _add_copies(formulation)
    _add_memory(formulation, copies)
    return formulation


def without_memory(problem: MergeProblem, busy: Sequence[float] | None = None) -> Formulation:
    """Return the programme without copies, their limits and the objective; ``busy`` is the load that devices have."""
    formulation = Formulation(problem)
    _add_stages(formulation)
    add_paths(formulation.model, dict(enumerate(problem.models)), formulation.stage)
    _add_places(formulation)
    _add_loads(formulation, [0.0] * len(problem.device_bytes) if busy is None else busy)
    return formulation


def _add_stages(formulation: Formulation) -> None:
    problem, model = formulation.problem, formulation.model
    for number, merged in enumerate(problem.models):
        for interval in intervals(merged):
            for count in range(least_replicas(merged, interval), len(problem.device_bytes) + 1):
                stage = Replicated(number, interval, count)
                name = stage_name(problem.models, stage)
                formulation.stage[stage] = model.add_column(f"stage[{name}]", upper=1, integer=True)
                for device in formulation.devices:
                    column = model.add_column(f"on[{name},{device}]", upper=1, integer=True)
                    formulation.on[stage, device] = column


def _add_places(formulation: Formulation) -> None:
    """Add that replicas are on devices of their own; with ``all_stages`` empty stages take some, too."""
    problem, model = formulation.problem, formulation.model
    for stage, chosen in formulation.stage.items():
        name = stage_name(problem.models, stage)
        placed = [formulation.on[stage, device] for device in formulation.devices]
        terms = [*((column, 1.0) for column in placed), (chosen, -float(stage.replicas))]
        model.add_row(f"placed[{name}]", terms, lower=0, upper=0)
        if stage.replicas < len(placed):
            for device, column in enumerate(placed):
                model.add_row(f"open[{name},{device}]", [(column, 1.0), (chosen, -1.0)], upper=0)
    for number, merged in enumerate(problem.models):
        own = [(pair, column) for pair, column in formulation.on.items() if pair[0].model == number]
        for device in formulation.devices:
            here = [(column, 1.0) for (_, where), column in own if where == device]
            model.add_row(f"one[{merged.name},{device}]", here, upper=1)
        if problem.all_stages:
            empty = [(column, -1.0) for stage, column in formulation.stage.items() if stage.model == number]
            limit = len(problem.device_bytes) - merged.max_stages
            model.add_row(f"empty[{merged.name}]", [*((column, 1.0) for _, column in own), *empty], upper=limit)


def _add_loads(formulation: Formulation, busy: Sequence[float]) -> None:
    problem, model = formulation.problem, formulation.model
    loads = {stage: replica_load(problem.models, stage) for stage in formulation.stage}
    for device, already in enumerate(busy):
        here = [(column, loads[stage]) for (stage, where), column in formulation.on.items() if where == device]
        model.add_row(f"busy[{device}]", here, upper=1 + ROUNDING - already)


def _add_copies(formulation: Formulation) -> dict[tuple[int, int], int]:
    """Add copies where members are, and how many there are; return the columns by (class, device)."""
    problem, model = formulation.problem, formulation.model
    holders = holding(formulation.stage)
    copies: dict[tuple[int, int], int] = {}
    for number, members in enumerate(_classes(problem)):
        stages = {member: holders.get(member, []) for member in sorted(members)}
        by_load = list(dual_loads(problem.models, [stage for some in stages.values() for stage in some]))
        for device in formulation.devices:
            copy = copies[number, device] = model.add_column(f"copy[{number},{device}]", upper=1)
            for (owner, group), some in stages.items():
                terms = [(formulation.on[stage, device], -1.0) for stage in some]
                model.add_row(f"copy[{owner},{group},{device}]", [(copy, 1.0), *terms], lower=0)
            for name, taken in by_load:
                terms = [(formulation.on[stage, device], -part) for stage, part in taken.items()]
                model.add_row(f"busy[{name},{number},{device}]", [(copy, 1.0 + ROUNDING), *terms], lower=0)
        count = model.add_column(f"copies[{number}]", upper=len(formulation.devices), integer=True)
        terms = [(copies[number, device], 1.0) for device in formulation.devices]
        model.add_row(f"copies[{number}]", [*terms, (count, -1.0)], lower=0, upper=0)
    return copies


def _add_memory(formulation: Formulation, copies: dict[tuple[int, int], int]) -> None:
    """Add what devices hold at most, and the objective."""
    problem, model = formulation.problem, formulation.model
    shared = {member for members in problem.sharing for member in members}
    sizes = [_bytes(problem, min(members)) for members in _classes(problem)]
    held: list[dict[int, float]] = [{} for _ in formulation.devices]
    for (number, device), copy in copies.items():
        held[device][copy] = sizes[number] / SCALE_BYTES
    for (stage, device), column in formulation.on.items():
        own = [(stage.model, group) for group in stage.groups if (stage.model, group) not in shared]
        held[device][column] = sum(_bytes(problem, member) for member in own) / SCALE_BYTES
    for device, (terms, memory) in enumerate(zip(held, problem.device_bytes, strict=True)):
        model.add_row(f"memory[{device}]", terms.items(), upper=memory / SCALE_BYTES)
    model.set_objective([term for terms in held for term in terms.items()], maximise=False)


def _classes(problem: MergeProblem) -> list[frozenset[Member]]:
    return sorted(problem.sharing, key=min)


def _bytes(problem: MergeProblem, member: Member) -> int:
    return problem.models[member[0]].groups[member[1]].parameter_bytes


def extract(formulation: Formulation, solution: Solution, sharing: Sharing | None = None) -> Deployment:
    """Return the deployment in a solution, its memory counted anew; ``sharing`` is the problem's if None."""
    stages = tuple(
        DeployedStage(
            stage.model,
            *stage.interval,
            tuple(device for device in formulation.devices if solution.values[formulation.on[stage, device]] > 0.5),
        )
        for stage, column in sorted(formulation.stage.items(), key=lambda one: (one[0].model, one[0].interval))
        if solution.values[column] > 0.5
    )
    memory = sum(device_bytes(formulation.problem, stages, sharing))
    bound = min(float(memory), solution.bound * SCALE_BYTES)
    return Deployment(stages, memory, bound, "optimal" if solution.status == "optimal" else "feasible")


def class_of(problem: MergeProblem, sharing: Sharing | None = None) -> dict[Member, Member]:
    """Return for every member that shares a copy the first of those that do."""
    classes = problem.sharing if sharing is None else sharing
    return {member: min(members) for members in classes for member in members}


def held_by(
    problem: MergeProblem, stages: Iterable[DeployedStage], sharing: Sharing | None = None
) -> list[set[Member]]:
    """Return what lies on each device, a shared group as the first of those that share it."""
    shared = class_of(problem, sharing)
    held: list[set[Member]] = [set() for _ in problem.device_bytes]
    for stage in stages:
        for device in stage.devices:
            for group in range(stage.first, stage.last):
                member = stage.model, group
                held[device].add(shared.get(member, member))
    return held


def device_bytes(problem: MergeProblem, stages: Iterable[DeployedStage], sharing: Sharing | None = None) -> list[int]:
    """Return the bytes in use on each device: every group once, a shared one once for all that share it."""
    held = held_by(problem, stages, sharing)
    return [sum(_bytes(problem, member) for member in members) for members in held]


def loads_of(problem: MergeProblem, stages: Iterable[DeployedStage]) -> list[float]:
    """Return the load of each device."""
    busy = [0.0] * len(problem.device_bytes)
    for stage in stages:
        replicated = Replicated(stage.model, (stage.first, stage.last), len(stage.devices))
        for device in stage.devices:
            busy[device] += replica_load(problem.models, replicated)
    return busy


def deploy(problem: MergeProblem, backend: str = "highs", limits: Limits | None = None) -> Deployment:
    """Return the deployment with the least memory in use, with a proven bound.

    Raises
    ------
    InputError
        No deployment keeps the limits of memory, load and devices.
    TooLate
        None was found in time; its bound is the least memory (bytes).

    Examples
    --------
    Two models of 100 bytes and a head of 10 on one device, with and without sharing:

    >>> from planner.planning.merging.schemes import LayerGroup, Scheme, sharing_of
    >>> group, head = LayerGroup(100, 1.0), LayerGroup(10, 1.0, mergeable=False)
    >>> models = tuple(MergeModel(name, (group, head), 1, 1.0, 0.4) for name in "ab")
    >>> deploy(MergeProblem(models, (1000,))).memory_bytes
    220
    >>> deploy(MergeProblem(models, (1000,), sharing_of(models, [Scheme((0, 1), 0, 2)]))).memory_bytes
    120
    """
    if (reason := hopeless(problem)) is not None:
        raise InputError(reason)
    formulation = build(problem)
    solution, _ = solve(formulation.model, backend, limits or Limits(gap=1e-9))
    if solution.status == "infeasible":
        raise InputError(NOTHING_FITS)
    if not solution.found:
        raise TooLate("no deployment was found in the time given; raise the time limit", solution.bound * SCALE_BYTES)
    return extract(formulation, solution)


def hopeless(problem: MergeProblem) -> str | None:
    """Return why nothing fits, where that is seen without a search."""
    load, devices = sum(model.mean_devices for model in problem.models), len(problem.device_bytes)
    if load > devices * (1 + ROUNDING):
        return f"the models need {load:.3g} devices on the mean, there are {devices}; add devices"
    for model in problem.models:
        least = least_replicas(model, (0, len(model.groups)))
        if model.max_stages == 1 and least > devices:
            return f"{model.name} needs {least} replicas at its peak, there are {devices} devices; add devices"
        if problem.all_stages and model.max_stages > devices:
            return f"{model.name} must have {model.max_stages} stages, there are {devices} devices; add devices"
        largest = max(group.parameter_bytes for group in model.groups)
        whole = model.parameter_bytes if model.max_stages == 1 else largest
        if whole > max(problem.device_bytes):
            return (
                f"{model.name} needs at least {whole} bytes on a device, the largest has {max(problem.device_bytes)}; "
                "add a device with more memory, or allow more stages"
            )
    return None
