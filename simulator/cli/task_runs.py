"""``simulator run`` for plans task by task: central queues and slices per task, requests from task to task."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from planner.cli.app import about
from planner.cli.output import Column, output
from planner.files import load_problem, load_task_plan
from planner.model import InputError, Problem, TaskPlan, digest
from planner.model.check_tasks import check_tasks
from planner.model.task_graph import applications_of
from simulator.cli.demand import Demand
from simulator.cli.folders import owned, write_what
from simulator.cli.plan_files import problem_beside, require_unbroken
from simulator.cli.run_tables import RUN_COLUMNS, show_written
from simulator.dispatch.decisions import FINISHED, LATE
from simulator.engine.networks import NetworkEngine, simulate_network
from simulator.engine.task_plans import TaskClass, network_of_tasks
from simulator.results.metrics import WARM_UP_US, require_counted
from simulator.results.network_tables import write_network_records
from simulator.results.records import NetworkRecords
from simulator.results.tables import write_table

COLUMNS = {
    "application": Column("application"),
    **{key: column for key, column in RUN_COLUMNS.items() if key != "dnn"},
    "accuracy": Column("accuracy (%)", "{:.2f}".format),
}


def is_task_plan(path: Path) -> bool:
    """Return whether a file says that it is a plan task by task."""
    if not path.is_file():  # a pipe can be read once only
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        return '"task-plan/' in file.read(200)


def run_task_plan(
    path: Path,
    problem: Path | None,
    demand: Demand,
    engine: str,
    unchecked: bool,
    out: Path,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Simulate a plan task by task at one load, write its records, and say what they say."""
    engines: dict[str, NetworkEngine] = {"auto": "events", "events": "events", "simpy": "simpy"}
    if engine not in engines:
        raise InputError(f"--engine: plans task by task run on {', '.join(engines)}, got {engine}")
    require_counted(demand.duration_s)
    asked, plan = load_problem(problem_beside(path, problem)), load_task_plan(path)
    violations = check_tasks(asked, plan)
    require_unbroken(path, violations, unchecked)
    names = [one.name for one in applications_of(asked)]
    recorded = demand.read()
    offered = demand.offered(recorded, names, plan)
    with about(path):
        made = network_of_tasks(asked, plan, {name: one.arrivals_us for name, one in offered.items()})
    what = {
        "schema": "run/1",
        "plan": path.name,
        **demand.record(recorded, offered),
        "policy": "per-task",
        "engine": engine,
        "seed": demand.seed,
        "round_robin": demand.round_robin,
        "constraints_broken": list(violations),
        "plan_sha256": digest(plan),
        "problem_sha256": digest(asked),
        "versions": {name: version(name) for name in ("poolpipe", "numpy", "numba", "simpy")},
    }
    with owned(out, what, overwrite=overwrite, again=True):
        records = simulate_network(made.network, made.arrivals_us, engine=engines[engine])
        write_what(out, what, asked, plan, ())
        write_network_records(records, out, [_label(plan, one) for one in made.classes])
        rows = [
            {"application": name, "rate_rps": one.rate_rps, "offered_rps": one.offered_rps}
            | _summary(asked, name, made.classes, records)
            for name, one in offered.items()
        ]
        write_table(rows, out / "summary.csv")
    with output(as_json) as printed:
        printed.table("runs", COLUMNS, rows)
        show_written(printed, violations, out)


def _label(plan: TaskPlan, one: TaskClass) -> str:
    """Return what the requests of a class take: ``photos: look A × T4 batch 2, ...``."""
    services = (plan.services[number] for number in one.services)
    return f"{one.application}: " + ", ".join(
        f"{each.task} {each.variant} on {each.pool_text} in {each.batch}" for each in services
    )


def _summary(problem: Problem, name: str, classes: Sequence[TaskClass], records: NetworkRecords) -> dict[str, Any]:
    """Return the figures of an application's requests that came after the warm-up."""
    (application,) = (one for one in applications_of(problem) if one.name == name)
    of_class = np.array([one.application == name for one in classes])
    counted = of_class[records.request_class] & (records.arrival_us >= WARM_UP_US)
    finished = counted & (records.outcome == FINISHED)
    took_us = (records.done_us - records.arrival_us)[finished]
    late = int((took_us > application.slo_us).sum())
    requests, served = int(counted.sum()), int(finished.sum())
    row: dict[str, Any] = {
        "requests": requests,
        "dropped": int((records.outcome[counted] == LATE).sum()),
        "late": late,
        "attainment": (served - late) / requests if requests else None,
    }
    for share in (50, 95, 99):
        row[f"latency_p{share}_us"] = float(np.percentile(took_us, share)) if served else None
    percents = np.array([np.nan if one.accuracy is None else one.accuracy for one in classes])
    accuracy = percents[records.request_class[finished]]
    row["accuracy"] = float(accuracy.mean()) if served and not np.isnan(accuracy).any() else None
    return row
