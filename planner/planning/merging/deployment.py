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

Variables
    y_{m,I}     binary: I is a stage                                                     ``stage[m,I]``
    r_{m,I,k}   binary: the stage has k replicas, k >= least_I                             ``replicas[m,I,k]``
    q_{m,I,j}   binary: a replica of it is on device j                                    ``on[m,I,j]``
    f_{m,I,j}   its load there, mu_m · t_I / (T_m · k) if it is                            ``load[m,I,j]``
    w_{c,j}     the copy of class c is on device j, 0 to 1                                ``copy[c,j]``

    minimise    sum over j of the memory in use there
    path        the intervals with y = 1 cover every group once, at most S_m of them
    count[m,I]      sum over k of r_{m,I,k} = y_{m,I}
    placed[m,I]     sum over j of q_{m,I,j} = sum over k of k · r_{m,I,k}
    load[m,I,j]     f_{m,I,j} >= sum over k of (mu_m t_I / (T_m k)) · r_{m,I,k} - u · (1 - q_{m,I,j}),
                    u = mu_m t_I / (T_m least_I)
    busy[j]         sum of f_{m,I,j} <= 1
    one[m,j]        sum over I of q_{m,I,j} <= 1                       a device holds one stage of a model
    copy[m,g,j]     w_{c,j} >= sum over I that hold g of q_{m,I,j}       for every member (m, g) of c
    memory[j]       sum of size over unshared groups present + sum over c of size_c · w_{c,j} <= memory_j

With ``all_stages`` (the reference's rule) every model has exactly S_m stages, and an empty one still takes a device of
its own: replicas + (S_m - stages) <= devices.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Literal

from planner.model import InputError
from planner.planning.merging.schemes import Member, MergeModel, Sharing, check_models, check_sharing
from planner.planning.programme.backends import Limits, solve
from planner.planning.programme.linear import LinearModel, Solution

Interval = tuple[int, int]
ROUNDING = 1e-9
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
        check_models(self.models)
        check_sharing(self.models, self.sharing)


@dataclass(frozen=True)
class DeployedStage:
    """Groups [first, last) of a model on devices, one replica on each."""

    model: int
    first: int
    last: int
    devices: tuple[int, ...]


@dataclass(frozen=True)
class Deployment:
    """Where every stage runs; ``memory_bytes`` is in use, and no deployment uses less than ``bound_bytes``."""

    stages: tuple[DeployedStage, ...]
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
    stage: dict[tuple[int, Interval], int] = field(default_factory=dict)
    on: dict[tuple[int, Interval, int], int] = field(default_factory=dict)
    load: dict[tuple[int, Interval, int], int] = field(default_factory=dict)
    replicas: dict[tuple[int, Interval], dict[int, int]] = field(default_factory=dict)


def build(problem: MergeProblem) -> Formulation:
    """Return the programme of a problem."""
    formulation = without_memory(problem)
    _add_memory(formulation)
    return formulation


def without_memory(problem: MergeProblem, busy: Sequence[float] | None = None) -> Formulation:
    """Return the programme without copies, their limits and the objective; ``busy`` is the load that devices have."""
    formulation = Formulation(problem)
    _add_stages(formulation)
    _add_paths(formulation)
    _add_replicas(formulation)
    _add_loads(formulation, [0.0] * len(problem.device_bytes) if busy is None else busy)
    return formulation


def least_replicas(model: MergeModel, interval: Interval) -> int:
    """Return the replicas that a stage needs at the model's peak: max(1, ceil(P · t / T))."""
    return max(1, ceil(model.peak_devices * latency_share(model, interval) - ROUNDING))


def latency_share(model: MergeModel, interval: Interval) -> float:
    """Return the part of the model's latency that a stage takes."""
    return sum(group.latency for group in model.groups[slice(*interval)]) / model.latency


def _add_stages(formulation: Formulation) -> None:
    problem, model = formulation.problem, formulation.model
    devices = range(len(problem.device_bytes))
    for number, merged in enumerate(problem.models):
        for interval in intervals(merged):
            least = least_replicas(merged, interval)
            if least > len(devices):
                continue
            name = f"{merged.name},{interval[0]}-{interval[1]}"
            formulation.stage[number, interval] = model.add_column(f"stage[{name}]", upper=1, integer=True)
            formulation.replicas[number, interval] = {
                count: model.add_column(f"replicas[{name},{count}]", upper=1, integer=True)
                for count in range(least, len(devices) + 1)
            }
            for device in devices:
                key = number, interval, device
                formulation.on[key] = model.add_column(f"on[{name},{device}]", upper=1, integer=True)
                formulation.load[key] = model.add_column(f"load[{name},{device}]", upper=1)


def intervals(model: MergeModel) -> list[Interval]:
    """Return the stages that a model may have: with one all groups, with two those that touch an end, else any."""
    count = len(model.groups)
    return [
        (first, last)
        for first in range(count)
        for last in range(first + 1, count + 1)
        if (first > 0) + (last < count) < model.max_stages
    ]


def _add_paths(formulation: Formulation) -> None:
    """Add that a model's stages follow each other from its first group to its last, and how many there may be."""
    problem, model = formulation.problem, formulation.model
    for number, merged in enumerate(problem.models):
        stages = {interval: column for (owner, interval), column in formulation.stage.items() if owner == number}
        for boundary in range(len(merged.groups) + 1):
            begins = [(column, 1.0) for (first, _), column in stages.items() if first == boundary]
            ends = [(column, -1.0) for (_, last), column in stages.items() if last == boundary]
            balance = (boundary == 0) - (boundary == len(merged.groups))
            model.add_row(f"path[{merged.name},{boundary}]", [*begins, *ends], lower=balance, upper=balance)
        counted = [(column, 1.0) for column in stages.values()]
        model.add_row(f"stages[{merged.name}]", counted, upper=merged.max_stages)
        if problem.all_stages:
            placed = [(column, 1.0) for (owner, _, _), column in formulation.on.items() if owner == number]
            empty = [(column, -1.0) for column in stages.values()]
            limit = len(problem.device_bytes) - merged.max_stages
            model.add_row(f"empty[{merged.name}]", [*placed, *empty], upper=limit)


def _add_replicas(formulation: Formulation) -> None:
    problem, model = formulation.problem, formulation.model
    devices = range(len(problem.device_bytes))
    for (number, interval), counts in formulation.replicas.items():
        name = f"{problem.models[number].name},{interval[0]}-{interval[1]}"
        stage = formulation.stage[number, interval]
        model.add_row(f"count[{name}]", [*((c, 1.0) for c in counts.values()), (stage, -1.0)], lower=0, upper=0)
        placed = [(formulation.on[number, interval, device], 1.0) for device in devices]
        model.add_row(f"placed[{name}]", [*placed, *((c, -float(k)) for k, c in counts.items())], lower=0, upper=0)
        for device in devices:
            model.add_row(
                f"open[{name},{device}]", [(formulation.on[number, interval, device], 1.0), (stage, -1.0)], upper=0
            )
    for number, merged in enumerate(problem.models):
        for device in devices:
            here = [(c, 1.0) for (owner, _, where), c in formulation.on.items() if (owner, where) == (number, device)]
            model.add_row(f"one[{merged.name},{device}]", here, upper=1)


def _add_loads(formulation: Formulation, busy: Sequence[float]) -> None:
    problem, model = formulation.problem, formulation.model
    for (number, interval, device), on in formulation.on.items():
        merged = problem.models[number]
        work = merged.mean_devices * latency_share(merged, interval)
        counts = formulation.replicas[number, interval]
        most = work / min(counts)
        load = formulation.load[number, interval, device]
        shares = [(column, -work / count) for count, column in counts.items()]
        name = f"load[{merged.name},{interval[0]}-{interval[1]},{device}]"
        model.add_row(name, [(load, 1.0), *shares, (on, -most)], lower=-most)
    for device, already in enumerate(busy):
        here = [(column, 1.0) for (_, _, where), column in formulation.load.items() if where == device]
        model.add_row(f"busy[{device}]", here, upper=1 + ROUNDING - already)


def _add_memory(formulation: Formulation) -> None:
    """Add the copies, what a device holds at most, and the objective."""
    problem, model = formulation.problem, formulation.model
    classes = sorted(problem.sharing, key=min)
    shared = {member for members in classes for member in members}
    present: defaultdict[tuple[Member, int], list[int]] = defaultdict(list)
    for (number, (first, last), device), column in formulation.on.items():
        for group in range(first, last):
            present[(number, group), device].append(column)
    total: defaultdict[int, float] = defaultdict(float)
    for device, memory in enumerate(problem.device_bytes):
        held: defaultdict[int, float] = defaultdict(float)
        for number, members in enumerate(classes):
            copy = model.add_column(f"copy[{number},{device}]", upper=1)
            held[copy] += _bytes(problem, min(members))
            for member in sorted(members):
                columns = [(column, -1.0) for column in present[member, device]]
                model.add_row(f"copy[{member[0]},{member[1]},{device}]", [(copy, 1.0), *columns], lower=0)
        for (member, where), holders in present.items():
            if where == device and member not in shared:
                for column in holders:
                    held[column] += _bytes(problem, member)
        terms = [(column, size / SCALE_BYTES) for column, size in held.items()]
        model.add_row(f"memory[{device}]", terms, upper=memory / SCALE_BYTES)
        for column, size in held.items():
            total[column] += size / SCALE_BYTES
    model.set_objective(total.items(), maximise=False)


def _bytes(problem: MergeProblem, member: Member) -> int:
    return problem.models[member[0]].groups[member[1]].parameter_bytes


def extract(formulation: Formulation, solution: Solution, sharing: Sharing | None = None) -> Deployment:
    """Return the deployment in a solution, its memory counted anew; ``sharing`` is the problem's if None."""
    stages = tuple(
        DeployedStage(
            number,
            *interval,
            tuple(
                device
                for device in range(len(formulation.problem.device_bytes))
                if solution.values[formulation.on[number, interval, device]] > 0.5
            ),
        )
        for (number, interval), column in sorted(formulation.stage.items())
        if solution.values[column] > 0.5
    )
    memory = sum(device_bytes(formulation.problem, stages, sharing))
    bound = min(float(memory), solution.bound * SCALE_BYTES)
    return Deployment(stages, memory, bound, "optimal" if solution.status == "optimal" else "feasible")


def device_bytes(problem: MergeProblem, stages: Sequence[DeployedStage], sharing: Sharing | None = None) -> list[int]:
    """Return the bytes in use on each device: every group once, a shared one once for all that share it."""
    classes = problem.sharing if sharing is None else sharing
    shared = {member: min(members) for members in classes for member in members}
    held: list[set[Member]] = [set() for _ in problem.device_bytes]
    for stage in stages:
        for device in stage.devices:
            for group in range(stage.first, stage.last):
                member = stage.model, group
                held[device].add(shared.get(member, member))
    return [sum(_bytes(problem, member) for member in members) for members in held]


def deploy(problem: MergeProblem, backend: str = "highs", limits: Limits | None = None) -> Deployment:
    """Return the deployment with the least memory in use, with a proven bound.

    Raises
    ------
    InputError
        No deployment keeps the limits of memory, load and devices, or none was found in time.

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
        raise InputError("no deployment was found in the time given; raise the time limit")
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
