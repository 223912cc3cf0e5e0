"""Copies of what many models share, counted over all devices: stages to begin with, and a bound.

The programme of `planner.planning.merging.deployment` has columns per device, which are alike where devices are alike;
here copies are only counted. With its words, w_I = mu_m · t_I / T_m the load of a stage, J the number of devices,

    r_{m,I,k}   binary: the stage I of model m has k replicas                            ``stage[m,I,k]``
    n_c         integer: the copies of class c on all devices                            ``copies[c]``

    minimise    sum over c of size_c · n_c + sum over r of k · (bytes of its unshared groups) · r_{m,I,k}
    path, stages    as there
    members[m,g]    n_c >= sum over I that hold g of k · r_{m,I,k}             for every member (m, g) of c
    busy[f,c]       n_c >= sum over members (m, g), over I that hold g, of k · f(w_I / k) · r_{m,I,k}
    busy[f]         J >= sum over all of k · f(w_I / k) · r_{m,I,k}
    one[m]          sum over I of k · r_{m,I,k} <= J
    memory          what is in use <= sum of memory_j

f is dual feasible (`stages.dual_feasible`). What a device with a copy of c runs of c's members is a load of at most 1,
so that the optimum bounds every deployment. Counts of the least + `MORE` or above are one column, which costs what its
least count does and counts in busy[f] with f(x) = x alone.

A class's copies are counted without asking whether the same devices hold the classes before and after it, or which
loads fit together beyond what f knows: on twenty models of up to 52 groups the bound is 5 % below the least memory.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from planner.model import InputError
from planner.planning.merging.deployment import NOTHING_FITS, SCALE_BYTES, MergeProblem
from planner.planning.merging.schemes import Member
from planner.planning.merging.stages import (
    ROUNDING,
    Replicated,
    add_paths,
    dual_loads,
    holding,
    intervals,
    least_replicas,
    stage_name,
)
from planner.planning.programme.backends import Limits, solve
from planner.planning.programme.linear import LinearModel

MORE = 2  # replicas beyond the least that have columns of their own


@dataclass
class Counting:
    """The programme and the numbers of its columns."""

    problem: MergeProblem
    model: LinearModel = field(default_factory=LinearModel)
    stage: dict[Replicated, int] = field(default_factory=dict)
    copies: list[int] = field(default_factory=list)

    @property
    def classes(self) -> list[frozenset[Member]]:
        """The sets of members that share one copy, in the order of ``copies``."""
        return sorted(self.problem.sharing, key=min)


def build(problem: MergeProblem) -> Counting:
    """Return the programme that counts."""
    counting = Counting(problem)
    _add_columns(counting)
    add_paths(counting.model, dict(enumerate(problem.models)), counting.stage)
    _add_replicas(counting)
    _add_copies(counting)
    _add_totals(counting)
    return counting


def _add_columns(counting: Counting) -> None:
    problem, model = counting.problem, counting.model
    devices = len(problem.device_bytes)
    for number, merged in enumerate(problem.models):
        for interval in intervals(merged):
            least = least_replicas(merged, interval)
            for count in range(least, min(least + MORE, devices) + 1):
                one = Replicated(number, interval, count, count == least + MORE < devices)
                name = f"stage[{stage_name(problem.models, one)}]"
                counting.stage[one] = model.add_column(name, upper=1, integer=True)
    counting.copies = [
        model.add_column(f"copies[{number}]", upper=devices, integer=True) for number in range(len(problem.sharing))
    ]


def _add_replicas(counting: Counting) -> None:
    for number, merged in enumerate(counting.problem.models):
        taken = [(column, float(one.replicas)) for one, column in counting.stage.items() if one.model == number]
        counting.model.add_row(f"one[{merged.name}]", taken, upper=len(counting.problem.device_bytes))


def _add_copies(counting: Counting) -> None:
    """Add that copies are at least those of every member, and enough for the load of all."""
    model, holders = counting.model, holding(counting.stage)
    for number, (members, copies) in enumerate(zip(counting.classes, counting.copies, strict=True)):
        here = []
        for member in sorted(members):
            terms = [(counting.stage[one], -float(one.replicas)) for one in holders[member]]
            model.add_row(f"members[{number},{member[0]},{member[1]}]", [(copies, 1.0), *terms], lower=0)
            here += holders[member]
        for name, weighted in _busy(counting, here):
            model.add_row(f"busy[{name},{number}]", [(copies, 1.0 + ROUNDING), *weighted], lower=0)


def _busy(counting: Counting, stages: Iterable[Replicated]) -> Iterable[tuple[str, list[tuple[int, float]]]]:
    """Yield for every dual feasible function the negative of what stages take of devices."""
    for name, taken in dual_loads(counting.problem.models, stages):
        yield name, [(counting.stage[one], -one.replicas * part) for one, part in taken.items()]


def _add_totals(counting: Counting) -> None:
    """Add the limits of all devices together, and the objective."""
    problem, model = counting.problem, counting.model
    for name, terms in _busy(counting, counting.stage):
        model.add_row(f"busy[{name}]", terms, lower=-len(problem.device_bytes) * (1 + ROUNDING))
    shared = {member for members in problem.sharing for member in members}
    total = [
        (copies, _bytes(problem, [min(members)]))
        for members, copies in zip(counting.classes, counting.copies, strict=True)
    ]
    for one, column in counting.stage.items():
        own = [(one.model, group) for group in range(*one.interval) if (one.model, group) not in shared]
        total.append((column, one.replicas * _bytes(problem, own)))
    model.add_row("memory", total, upper=sum(problem.device_bytes) / SCALE_BYTES)
    model.set_objective(total, maximise=False)


def _bytes(problem: MergeProblem, members: Iterable[Member]) -> float:
    return sum(problem.models[model].groups[group].parameter_bytes for model, group in members) / SCALE_BYTES


@dataclass(frozen=True)
class Counted:
    """The stages that need the fewest copies, none where none was found in time, and the least memory of any."""

    chosen: list[Replicated]
    bound_bytes: float


def count_copies(problem: MergeProblem, backend: str, limits: Limits) -> Counted:
    """Return stages for all models, and a bound of every deployment.

    Raises
    ------
    InputError
        No deployment keeps the limits of memory, load and devices.
    """
    counting = build(problem)
    solution, _ = solve(counting.model, backend, Limits(limits.gap / 4, limits.time_limit_s))
    if solution.status == "infeasible":
        raise InputError(NOTHING_FITS)
    chosen = [one for one, column in counting.stage.items() if solution.values[column] > 0.5] if solution.found else []
    return Counted(chosen, solution.bound * SCALE_BYTES)
