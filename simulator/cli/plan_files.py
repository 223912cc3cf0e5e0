"""What the simulator's commands read: plans with their problems, and traces for their DNNs."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from planner.cli.app import about, progress
from planner.files import load_plan, load_problem, ppipe
from planner.model import InputError, Plan, Problem, TaskPlan, digest
from planner.model.check import check
from simulator.sweep import LARGEST_LOAD
from simulator.workload import Trace, assign, offer, read_trace
from simulator.workload.arrivals import ArrivalsUs, TimesS
from simulator.workload.offering import How


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
    if violations and not unchecked:
        raise InputError(
            f"{one.path}: breaks {len(violations)} constraint{'s' * (len(violations) > 1)} of its problem, first: "
            f"{violations[0]}; plan again, or let it pass with --unchecked"
        )
    return replace(one, violations=violations)


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


@dataclass(frozen=True, eq=False)
class Offered:
    """What a DNN is offered: the rate asked for (None: the trace's own), the arrivals, and the rate that came."""

    rate_rps: float | None
    arrivals_us: ArrivalsUs
    offered_rps: float


def offer_all(
    times_s: Mapping[str, TimesS],
    plan: Plan | TaskPlan,
    how: How,
    *,
    rate: float | None,
    load: float | None,
    default: float,
    duration_s: float,
    seed: int,
) -> dict[str, Offered]:
    """Offer each DNN its times at ``rate``, or at a share ``load`` of what the plan serves, else at the default share.

    Raises
    ------
    InputError
        The rate cannot be offered, the load is none, or both or either are given where there is no choice.
    """
    if load is not None and not 0 < load <= LARGEST_LOAD / 100:
        raise InputError(f"--load: expected a share above 0 and at most {LARGEST_LOAD / 100:g}, got {load:g}")
    if rate is not None and load is not None:
        raise InputError("--rate and --load both say how much is offered; give one of them")
    if how == "verbatim" and (rate is not None or load is not None):
        raise InputError("--replay verbatim: offers the trace's own rate; leave out --rate and --load")
    found = {}
    for name, times in times_s.items():
        share = default if load is None else load
        rate_rps = None if how == "verbatim" else share * plan.throughput_rps(name) if rate is None else rate
        with about(Path(name)):
            arrivals_us = offer(times, rate_rps, duration_s, how=how, seed=seed)
        found[name] = Offered(rate_rps, arrivals_us, len(arrivals_us) / duration_s)
    return found


def trace_sha256(trace: Trace) -> str:
    """Return the SHA-256 of what a trace says."""
    return hashlib.sha256(trace.times_s.tobytes() + trace.function.tobytes()).hexdigest()


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


@dataclass(frozen=True)
class Layout:
    """What the options say of how a trace is laid out; see `simulator.workload.read_trace`."""

    schema: str = "auto"
    time_column: str | None = None
    unit: str = "s"
    sort: bool = False


def load_trace(path: Path, layout: Layout, seed: int | None = None) -> Trace:
    """Read a trace under a progress bar; ``seed`` spreads counts per minute at random instead of evenly."""
    rng = None if seed is None else np.random.default_rng(seed)
    with progress() as bar:
        task = bar.add_task(f"reading {path.name}, rows", total=None)
        return read_trace(
            path,
            schema=layout.schema,
            time_column=layout.time_column,
            unit=layout.unit,
            sort=layout.sort,
            minute_rng=rng,
            progress=lambda rows: bar.update(task, completed=rows),
        )


def times_per_dnn(trace: Trace, dnns: Sequence[str], round_robin: bool) -> dict[str, TimesS]:
    """Return the times that each DNN is offered: all of them, or those of every so-many-th function.

    Raises
    ------
    InputError
        A DNN is offered too few times to fold.
    """
    parts = assign(trace, len(dnns)) if round_robin else [trace.times_s] * len(dnns)
    offered = dict(zip(dnns, parts, strict=True))
    for name, times_s in offered.items():
        if not len(times_s) or times_s[0] == times_s[-1]:
            raise InputError(
                f"{trace.source}: offers {name} {len(times_s)} arrival{'s' * (len(times_s) != 1)}; "
                "expected at least two times that differ: give a longer trace, or one with more functions"
            )
    return offered


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
