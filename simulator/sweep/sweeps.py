"""The sweep itself: which runs there are, which are known already, and what came of the rest."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

from planner.model import InputError, Plan, Problem
from simulator.engine import System, World, build_system
from simulator.engine.run import require_runnable
from simulator.sweep.hosts import Item, run_here, run_in_processes, run_on_ray
from simulator.sweep.loads import AS_PLANNED, Row, Series, SweepOptions, holds_up_to, is_finished, largest_load
from simulator.sweep.store import Store
from simulator.workload.arrivals import TimesS

Hosts = Literal["local", "ray"]
MakeWorld = Callable[[System, int], World | None]


@dataclass(frozen=True)
class Failure:
    """A series that ended with an error, in words."""

    series: Series
    error: str


@dataclass(frozen=True)
class SweepResult:
    """A row per run, in the order of the series and from the highest load down; a row per series; what failed."""

    rows: list[Row]
    largest: list[Row]
    failures: list[Failure]


def series_of_plan(
    name: str,
    problem: Problem,
    plan: Plan,
    traces: Mapping[str, Sequence[str]],
    *,
    references: Mapping[str, tuple[str, Plan]] | None = None,
    policies: Sequence[str] = ("reservation",),
    seeds: Sequence[int] = (0,),
    worlds: Mapping[str, MakeWorld] | None = None,
) -> list[Series]:
    """Return the series of every DNN of a plan.

    Parameters
    ----------
    name
        What the plan is called in the results.
    traces
        DNN -> the names of the traces that it is offered.
    references
        DNN -> name and plan whose throughput for it is load factor 1; by default the plan itself.
    worlds
        Name -> a function of system and seed that returns what goes differently; by default all goes as planned.

    Raises
    ------
    InputError
        The plan cannot be simulated (`build_system`).
    """
    return [
        Series(
            *(name, plan.scheduler, dnn.name, trace, policy, seed, refer.throughput_rps(dnn.name)),
            *(system, world, make(system, seed), called),
        )
        for dnn in problem.planned.dnns
        if plan.of(dnn.name)
        for called, refer in ((references or {}).get(dnn.name, (name, plan)),)
        for system in (build_system(problem, plan, dnn.name),)
        for trace in traces[dnn.name]
        for policy in policies
        for seed in seeds
        for world, make in (worlds or {AS_PLANNED: lambda *_: None}).items()
    ]


def run_sweep(
    series: Sequence[Series],
    traces: Mapping[str, TimesS],
    options: SweepOptions | None = None,
    *,
    folder: Path | None = None,
    overwrite: bool = False,
    processes: int = 1,
    hosts: Hosts = "local",
    progress: Callable[[int, int], None] | None = None,
) -> SweepResult:
    """Simulate every series at every load.

    Parameters
    ----------
    traces
        Name -> sorted times (s), folded to each rate.
    folder
        Where finished runs are kept; a second call finds them there and runs only what is missing or has changed.
    overwrite
        Remove what another sweep left in the folder.
    processes
        How many processes of this machine work (1: this one).
    hosts
        ``ray`` runs on a Ray cluster instead.
    progress
        Called with the numbers of finished and of all series.

    Raises
    ------
    InputError
        The folder belongs to another sweep, there is nothing to run, a policy is unknown, a world asks for another
        engine or policy, or Ray is not installed.
    """
    options = options or SweepOptions()
    if not series:
        raise InputError("nothing to simulate: no plan serves any DNN")
    for one in series:
        require_runnable(one.policy, options.engine, one.world)
        if one.world is not None and one.world.replan is not None:
            raise InputError("runs are filed by their content, which a function has not: simulate a replan by itself")
    store = Store(folder, series, traces, overwrite=overwrite)
    keys = [store.key(one, options) for one in series]
    known = [store.known(key, one, options.loads) for key, one in zip(keys, series, strict=True)]
    items = [Item(*item) for item in zip(range(len(series)), series, known, keys, strict=True)]
    finished = [item for item in items if is_finished(item.known, options)]
    work = [item for item in items if not is_finished(item.known, options)]
    if hosts == "ray" and work:
        outcomes = run_on_ray(work, traces, options)
    elif processes > 1 and len(work) > 1:
        outcomes = run_in_processes(work, traces, options, processes, store.path)
    else:
        outcomes = run_here(work, traces, options, store.path)
    found: dict[int, list[Row]] = {}
    errors: dict[int, str] = {}
    for done in chain(run_here(finished, traces, options), outcomes):
        if done.error:
            errors[done.number] = done.error
        store.add(keys[done.number], done.rows, done.filed)
        found[done.number] = done.rows
        if progress:
            progress(len(found), len(series))
    return SweepResult(
        rows=[row for number in sorted(found) for row in found[number]],
        largest=[_largest(series[n], found[n], options) for n in sorted(found) if n not in errors],
        failures=[Failure(series[number], errors[number]) for number in sorted(errors)],
    )


def _largest(series: Series, rows: list[Row], options: SweepOptions) -> Row:
    """Return the largest load of a series that holds, and up to which all do."""
    return (
        series.label
        | {"largest_load_factor": largest_load(rows, options.target)}
        | {"holds_up_to": None if options.largest_only else holds_up_to(rows, options.target)}
    )
