"""What the simulator's commands read of plans: files, each with its problem."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from planner.cli.app import about
from planner.files import load_plan, load_problem, ppipe
from planner.model import InputError, Plan, Problem, digest
from planner.model.check import check


@dataclass(frozen=True)
class LoadedPlan:
    """A plan file: its name, its problem, and what plans of the same DNNs and devices have in common (``group``).

    ``violations`` are the constraints of the problem that it breaks; none unless it was let pass.
    """

    name: str
    problem: Problem
    plan: Plan
    group: str
    path: Path
    violations: tuple[str, ...] = ()
    published: bool = False


def load_plans(paths: Sequence[Path], problem: Path | None = None, data: Path | None = None) -> list[LoadedPlan]:
    """Read plan files, native or published by PPipe.

    Parameters
    ----------
    problem
        The native plans' problem; without it, problem.json or problem.toml beside each plan.
    data
        PPipe's data folder: the plans are files in its form.

    Raises
    ------
    InputError
        A file cannot be read, is given twice, or a plan was made for another problem or other DNNs.
    """
    if len(set(paths)) < len(paths):
        raise InputError("a plan file was given twice; give each once")
    loaded = [_load(path, problem) if data is None else _load_published(path, data) for path in paths]
    if len({one.name for one in loaded}) < len(loaded):  # files of one name in several folders
        loaded = [replace(one, name=str(path)) for one, path in zip(loaded, paths, strict=True)]
    return loaded


def checked(one: LoadedPlan, unchecked: bool) -> LoadedPlan:
    """Return a plan with the constraints of its problem that it breaks.

    Published plans, whose numbers are rounded, are compared when they are planned again, not here.

    Raises
    ------
    InputError
        It breaks one, and plans are not to pass ``unchecked``.
    """
    violations = () if one.published else tuple(map(str, check(one.problem, one.plan)))
    require_unbroken(one.path, violations, unchecked)
    return replace(one, violations=violations)


def require_unbroken(path: Path, violations: Sequence[str], unchecked: bool) -> None:
    """Raise InputError for a plan file that breaks constraints, unless plans are to pass ``unchecked``."""
    if violations and not unchecked:
        raise InputError(
            f"{path}: breaks {len(violations)} constraint{'s' * (len(violations) > 1)} of its problem, first: "
            f"{violations[0]}; plan again, or let it pass with --unchecked"
        )


def references(plans: Sequence[LoadedPlan], chosen: Path | None = None) -> dict[str, dict[str, LoadedPlan]]:
    """Return, per plan and DNN, the plan whose throughput is load factor 1, whatever the order of the plans.

    It is that of the plan's group with the largest throughput for the DNN: of its pipelines plans where there are
    any, else of all. ``chosen`` is the reference of its group instead.

    Raises
    ------
    InputError
        ``chosen`` is none of the plans.
    """
    named = [one for one in plans if one.path == chosen]
    if chosen is not None and not named:
        raise InputError(f"--reference: expected one of the plans given, got {chosen}")
    found: dict[str, dict[str, LoadedPlan]] = {}
    for one in plans:
        group = [other for other in plans if other.group == one.group]
        among = [other for other in group if other in named]
        among = among or [other for other in group if other.plan.scheduler == "pipelines"] or group
        found[one.name] = {
            dnn.name: max(among, key=lambda other: (other.plan.throughput_rps(dnn.name), other.name))
            for dnn in one.problem.planned.dnns
        }
    return found


def served_dnns(loaded: LoadedPlan, dnn: str | None) -> list[str]:
    """Return the DNN asked for, else all that the plan serves; raises InputError where it serves none."""
    served = [one.name for one in loaded.problem.planned.dnns if loaded.plan.of(one.name)]
    if dnn is None:
        if not served:
            raise InputError(f"{loaded.name}: serves no DNN; plan again")
        return served
    if loaded.problem.dnn(dnn).name not in served:
        raise InputError(f"{loaded.name}: does not serve {dnn}, only {', '.join(served) or 'no DNN'}; plan again")
    return [dnn]


def problem_beside(path: Path, problem: Path | None) -> Path:
    """Return the file of a plan's problem: the one given, else problem.json or problem.toml beside the plan."""
    choices = [problem] if problem else [path.with_name("problem.json"), path.with_name("problem.toml")]
    found = next((choice for choice in choices if choice.exists()), None)
    if found is None:
        raise InputError(f"{choices[0]}: no such file; give the plan's problem with --problem")
    return found


def _load(path: Path, problem: Path | None) -> LoadedPlan:
    found = problem_beside(path, problem)
    asked, plan = load_problem(found), load_plan(path)
    if plan.problem_sha256 and plan.problem_sha256 != digest(asked):
        raise InputError(
            f"{path}: was made for another problem (hash {plan.problem_sha256[:12]}) than {found} "
            f"({digest(asked)[:12]}); give its own, or plan again"
        )
    with about(path):
        for pipeline in plan.pipelines:
            asked.dnn(pipeline.dnn)
    return LoadedPlan(path.name, asked, plan, digest(asked), path)


def _load_published(path: Path, data: Path) -> LoadedPlan:
    problem = ppipe.read_problem(path, data)
    plan = ppipe.read_plan(path, problem)
    return LoadedPlan(
        path.name, problem, plan, path.name.removesuffix(".json").rpartition("_")[0], path, published=True
    )
