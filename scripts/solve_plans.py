#!/usr/bin/env python
"""Plan many problems: one plan file each and one summary, resumed where it stopped.

    scripts/solve_plans.py problems/*.json --jobs 2 --out plans/out
    scripts/solve_plans.py problems/*.json --engine-hosts ray --out plans/out    # on the Ray cluster at RAY_ADDRESS

Plans are the same wherever they are made; only this process reads problems and writes plans. A problem whose plan is
there, made by the same scheduler from the same problem (by its hash), is not solved again. A problem that fails is
reported and the rest go on. The exit status is 0 if every problem has a plan, 1 if some failed,
130 after Ctrl-C, which keeps what is finished.
"""

import csv
import io
import multiprocessing
import signal
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from planner.cli.app import console, errors, new_app, progress, run
from planner.cli.planning import BackendOption, GapOption, MethodOption, Scheduler, SchedulerOption, TimeLimitOption
from planner.files import load_plan, load_problem, save, write_text
from planner.model import InputError, Plan, Problem, digest
from planner.planning import make_plan
from simulator.ray_cluster import address, join, ray_module

COLUMNS = ("problem", "plan", "scheduler", "status", "value", "bound", "gap", "seconds", "method", "backend", "error")
SUMMARY = "summary.csv"

Row = dict[str, object]
Outcome = Plan | str  # a plan, or why there is none
Options = Mapping[str, Any]
Hosts = Literal["local", "ray"]

app = new_app("Plan many problems, resumed where it stopped.")


@app.command()
def main(
    problems: Annotated[list[Path], typer.Argument(help="Problem files (JSON or TOML).")],
    out: Annotated[Path, typer.Option(help="Folder for NAME.json per problem and summary.csv.")],
    jobs: Annotated[int, typer.Option(min=1, help="Problems solved at a time, one process each.")] = 1,
    engine_hosts: Annotated[Hosts, typer.Option(help="local, or ray: solve on a Ray cluster.")] = "local",
    scheduler: SchedulerOption = Scheduler.PIPELINES,
    method: MethodOption = "auto",
    backend: BackendOption = "highs",
    gap: GapOption = 1e-6,
    time_limit: TimeLimitOption = None,
    again: Annotated[bool, typer.Option("--again", help="Solve finished problems again.")] = False,
) -> None:
    """Plan every problem; see the module's text for what is kept, skipped and reported."""
    targets = name_plans(problems, out)
    options = {
        "scheduler": scheduler.value,
        "method": method,
        "backend": backend,
        "gap": gap,
        "time_limit_s": time_limit,
    }
    rows: dict[Path, Row] = {}
    try:
        waiting: dict[Path, Problem] = {}
        for path, target in targets.items():
            outcome = known(path, target, scheduler.value, again)
            if isinstance(outcome, Problem):
                waiting[path] = outcome
            else:
                rows[path] = finish(path, target, outcome)
        solved = solve_on_ray(waiting, options) if engine_hosts == "ray" else solve_here(waiting, options, jobs)
        with progress() as bar:
            task = bar.add_task("planning", total=len(waiting))
            for path, done in solved:
                rows[path] = finish(path, targets[path], done)
                bar.advance(task)
    finally:
        write_summary(out / SUMMARY, [rows[path] for path in problems if path in rows])
    states = Counter(str(row["status"]) for row in rows.values())
    console.print(", ".join(f"{count} {state}" for state, count in sorted(states.items())) + f"; see {out / SUMMARY}")
    if states["failed"]:
        raise typer.Exit(1)


def name_plans(problems: Sequence[Path], out: Path) -> dict[Path, Path]:
    """Return where each problem's plan goes; raises InputError where two would share a file."""
    targets = {path: out / f"{path.stem}.json" for path in problems}
    for target, count in Counter(targets.values()).items():
        if count > 1:
            raise InputError(f"{target}: {count} problem files would share it; rename them or use two output folders")
    return targets


def known(path: Path, target: Path, scheduler: str, again: bool) -> Problem | Outcome:
    """Return a problem that is to be solved; else its plan, where it is finished, or what is wrong with it."""
    try:
        problem = load_problem(path)
    except InputError as error:
        return str(error)
    return (None if again else finished_plan(target, problem, scheduler)) or problem


def solve_here(problems: Mapping[Path, Problem], options: Options, jobs: int) -> Iterator[tuple[Path, Outcome]]:
    """Yield plans as they are finished, made by processes of this machine; on Ctrl-C those at work are dropped."""
    with ProcessPoolExecutor(jobs, initializer=_obey_the_parent) as pool:
        futures = {pool.submit(solve_one, problem, options): path for path, problem in problems.items()}
        try:
            for future in as_completed(futures):
                yield futures[future], _outcome(future)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def _obey_the_parent() -> None:
    """Leave Ctrl-C to it, and end at once when it says so: a handler would raise where a search keeps what it has."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _outcome(future: Future[Outcome]) -> Outcome:
    try:
        return future.result()
    except BrokenProcessPool:
        return "its process, or one beside it, was killed; the memory may not do for so many jobs"


def solve_on_ray(problems: Mapping[Path, Problem], options: Options) -> Iterator[tuple[Path, Outcome]]:
    """Yield plans as they are finished, made on the Ray cluster at RAY_ADDRESS, else one on this machine."""
    if not problems:
        return
    ray = ray_module()
    join(ray, address())
    try:
        remote = ray.remote(num_cpus=1)(solve_one)
        waiting = {remote.remote(problem, dict(options)): path for path, problem in problems.items()}
        while waiting:
            (done, *_), _ = ray.wait(list(waiting))
            yield waiting.pop(done), _of_ray(ray, done)
    finally:
        ray.shutdown()


def _of_ray(ray: Any, done: Any) -> Outcome:
    try:
        outcome: Outcome = ray.get(done)
    except ray.exceptions.RayError as error:  # its worker was killed, or its machine has gone
        return f"its worker on the cluster was lost ({type(error).__name__})"
    return outcome


def solve_one(problem: Problem, options: Options) -> Outcome:
    """Return a problem's plan, or what went wrong."""
    try:
        return make_plan(problem, **options)
    except InputError as error:
        return str(error)
    except Exception as error:  # a defect of ours; the other problems are still worth solving
        return f"{type(error).__name__}: {error}"


def finish(problem_path: Path, plan_path: Path, outcome: Outcome) -> Row:
    """Write a plan, or say what went wrong, and return the row of the summary."""
    if isinstance(outcome, str):
        errors.print(f"error: {problem_path}: {outcome}")
        return {"problem": problem_path, "status": "failed", "error": outcome}
    save(outcome, plan_path)
    return {
        "problem": problem_path,
        "plan": plan_path,
        **{name: getattr(outcome, name) for name in COLUMNS[2:-1]},
    }


def finished_plan(path: Path, problem: Problem, scheduler: str) -> Plan | None:
    """Return the plan in a file if this scheduler made it from this very problem."""
    if not path.exists():
        return None
    try:
        plan = load_plan(path)
    except InputError:  # not a plan, or of an older version: made anew
        return None
    return plan if (plan.problem_sha256, plan.scheduler) == (digest(problem), scheduler) else None


def write_summary(path: Path, rows: Sequence[Row]) -> None:
    """Write the summary in one step."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


if __name__ == "__main__":
    run(app)
