"""What the simulator's commands read: plans with their problems, and traces for their DNNs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from planner.cli.app import about, progress
from planner.files import load_plan, load_problem, ppipe
from planner.model import InputError, Plan, Problem, digest
from simulator.workload import Trace, assign, read_trace
from simulator.workload.arrivals import TimesS


@dataclass(frozen=True)
class LoadedPlan:
    """A plan file: its name, its problem, and what plans of the same DNNs and devices have in common (``group``)."""

    name: str
    problem: Problem
    plan: Plan
    group: str


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


def full_rates(plans: Sequence[LoadedPlan]) -> dict[str, dict[str, float]]:
    """Return, per plan and DNN, what load factor 1 means: the throughput of the pipelines plan of its group.

    Where no pipelines plan was given, it is the plan's own throughput.
    """
    reference = {one.group: one.plan for one in plans if one.plan.scheduler == "pipelines"}
    return {
        one.name: {
            dnn.name: reference.get(one.group, one.plan).throughput_rps(dnn.name) for dnn in one.problem.planned.dnns
        }
        for one in plans
    }


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


def load_trace(path: Path, schema: str = "auto", sort: bool = False, seed: int | None = None) -> Trace:
    """Read a trace under a progress bar; ``seed`` spreads counts per minute at random instead of evenly."""
    rng = None if seed is None else np.random.default_rng(seed)
    with progress() as bar:
        task = bar.add_task(f"reading {path.name}, rows", total=None)
        return read_trace(
            path,
            schema=schema,
            sort=sort,
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


def _load(path: Path, problem: Path | None) -> LoadedPlan:
    choices = [problem] if problem else [path.with_name("problem.json"), path.with_name("problem.toml")]
    found = next((choice for choice in choices if choice.exists()), None)
    if found is None:
        raise InputError(f"{choices[0]}: no such file; give the plan's problem with --problem")
    asked, plan = load_problem(found), load_plan(path)
    if plan.problem_sha256 and plan.problem_sha256 != digest(asked):
        raise InputError(
            f"{path}: was made for another problem (hash {plan.problem_sha256[:12]}) than {found} "
            f"({digest(asked)[:12]}); give its own, or plan again"
        )
    with about(path):
        for pipeline in plan.pipelines:
            asked.dnn(pipeline.dnn)
    return LoadedPlan(path.name, asked, plan, digest(asked))


def _load_published(path: Path, data: Path) -> LoadedPlan:
    problem = ppipe.read_problem(path, data)
    plan = ppipe.read_plan(path, problem)
    return LoadedPlan(path.name, problem, plan, path.name.removesuffix(".json").rpartition("_")[0])
