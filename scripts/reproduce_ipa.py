#!/usr/bin/env python
"""Reproduce IPA's results (JSys 2024) from a data folder: one sub-command per kind of result."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from matplotlib.figure import Figure
from study_ipa import LEVELS, STUDIES, Points, Study, options_of, read_points, resumed, study, table

from planner.cli.app import console, new_app, progress, run
from planner.files import write_text
from planner.model import (
    Application,
    Block,
    Cluster,
    DeviceType,
    InputError,
    LatencyTable,
    Network,
    Options,
    Problem,
    Profile,
    Provenance,
    Task,
)
from planner.planning import make_plan
from planner.planning.applications.accuracy import ranked
from planner.planning.applications.ipa import Configuration, Ipa, Option, Weights, optimise
from planner.planning.applications.ipa_profiles import (
    Point,
    TaskProfile,
    base_cores,
    fitted,
    scaled,
    task_sla_s,
)
from planner.planning.applications.per_task import plan_per_task
from simulator.results.style import COLOURS, DASHES, finish, save_figure

app = new_app("Reproduce IPA's published results.")

Data = Annotated[Path, typer.Option(help="Folder of the data (profiles_synthetic.json, ...).")]
Out = Annotated[Path, typer.Option(help="CSV file to write.")]

COLUMNS = (
    "name",
    "objective",
    "objective_as_coded",
    "reference_objective",
    "enumeration_as_paper",
    "enumeration_as_coded",
    "variants",
    "batches",
    "replicas",
    "cores",
    "seconds",
)


@app.command("all")
def everything(data: Data, out: Annotated[Path, typer.Option(help="Folder to write.")]) -> None:
    """Run the study of five applications (study_ipa.py), then write what plans are worth; what is done is kept.

    weights.csv has cores and accuracies as alpha / beta grows, solving.csv CPU seconds of the programme over tasks and
    variants, end_to_end.csv what plans task by task and end to end cost on servers of 16 cores, fronts.csv and
    fronts.png how accurate both are within growing budgets.
    """
    study(data, out)
    points = read_points(data)
    table(out / "weights.csv", weights_sweep(points))
    table(out / "solving.csv", solving_times(out))
    compared = [
        resumed(out, (name, "plans"), lambda name=name: {"rows": compare_plans(name, points)})  # type: ignore[misc]
        for name in STUDIES
    ]
    table(out / "end_to_end.csv", [row for one in compared for row in one["rows"]])
    fronts = [
        resumed(out, (name, "front"), lambda name=name: {"rows": front_rows(name, points)})  # type: ignore[misc]
        for name in STUDIES
    ]
    table(out / "fronts.csv", [row for one in fronts for row in one["rows"]])
    draw_fronts({name: one["rows"] for name, one in zip(STUDIES, fronts, strict=True)}, out / "fronts.png")


@app.command()
def solve(
    data: Data,
    cases: Annotated[Path, typer.Option(help="Cases with inputs and the reference's optima (reference_cases.json).")],
    out: Out,
) -> None:
    """Solve every case by the paper's formula, and by the code's for comparison; seconds are CPU time of the former."""
    profiles = read_profiles(data / "profiles_synthetic.json")
    rows = []
    with progress() as bar:
        for case in bar.track(json.loads(cases.read_text(encoding="utf-8")), description="cases"):
            begin_s = process_time()
            programme = programme_of(case["inputs"], profiles)
            found = optimise(programme)
            seconds = process_time() - begin_s
            coded = optimise(replace(programme, as_coded=True))
            rows.append(row_of(case, found, coded, seconds))
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(out, text.getvalue())
    equal = sum(
        abs(row["objective"] - row["enumeration_as_paper"]) <= 1e-6
        and abs(row["objective_as_coded"] - row["enumeration_as_coded"]) <= 1e-6
        for row in rows
    )
    slowest = max(row["seconds"] for row in rows)
    console.print(
        f"{equal} of {len(rows)} cases equal the enumeration by both formulas to 1e-6; "
        f"at most {slowest * 1000:.0f} ms of CPU time a case"
    )


def weights_sweep(points: Points, rate_rps: float = 20.0) -> list[dict[str, Any]]:
    """Return cores and accuracies of every application at one rate, as accuracy is worth more."""
    rows = []
    for name, one in STUDIES.items():
        for alpha in (0.5, 1, 2, 5, 10, 20, 50, 100):
            weights = replace(one.weights, accuracy=alpha, cores=1.0)
            best = optimise(Ipa(options_of(one, points, "IPA"), rate_rps, one.sla_s, "sum", weights))
            chosen = "+".join(choice.option.variant for choice in best.choices)
            rows.append(
                {
                    "application": name,
                    "alpha_over_beta": alpha,
                    "cores": best.cores,
                    "ranks": best.accuracy,
                    "variants": chosen,
                }
            )
    return rows


def compare_plans(name: str, points: Points) -> list[dict[str, Any]]:
    """Return what the cheapest plans task by task and end to end cost (cores of whole servers) at given accuracies.

    Replicas may have any profiled number of cores, as shares of servers of 16; both ways building a batch takes
    (b - 1) / rate.
    """
    one, rows = STUDIES[name], []
    for rate_rps in (20.0, 200.0):
        best = plan_per_task(problem_of(one, points, rate_rps, Options("most_accurate", slack_fraction=0)))
        for part in (0.5, 0.8, 1.0):
            least = part * best.objective
            options = Options(
                "least_cost", len(one.tasks), slack_fraction=0, batch_building_factor=1, min_accuracy=least * (1 - 1e-9)
            )
            problem = problem_of(one, points, rate_rps, options)
            alone, together = plan_per_task(problem), make_plan(problem, time_limit_s=30)
            rows.append(
                {
                    "application": name, "rate_rps": rate_rps, "min_accuracy": round(least, 2),
                    "per_task_cores": alone.objective, "end_to_end_cores": together.value,
                    "end_to_end_bound": round(together.bound, 3), "pipelines": len(together.pipelines),
                }
            )  # fmt: skip
    return rows


def front_rows(name: str, points: Points, rate_rps: float = 50.0, servers: int = 12) -> list[dict[str, Any]]:
    """Return the most accurate plans, end to end and task by task, for growing numbers of servers."""
    options = Options("most_accurate", len(STUDIES[name].tasks), slack_fraction=0, batch_building_factor=1)
    problem = problem_of(STUDIES[name], points, rate_rps, options, servers)
    rows: list[dict[str, Any]] = []
    for budget in range(1, servers + 1):
        limited = replace(problem, options=replace(options, budget_per_hour=16.0 * budget))
        row: dict[str, Any] = {"application": name, "cores": 16 * budget}
        for way, make in (("end_to_end", make_plan), ("per_task", plan_per_task)):
            try:
                row[way] = round(make(limited).accuracy["application"], 4)
            except InputError:
                row[way] = None
        rows.append(row)
    return rows


def draw_fronts(rows: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Draw accuracy over cores, an application each, both ways of planning."""
    figure = Figure(figsize=(13, 3), layout="constrained")
    for ax, (name, own) in zip(figure.subplots(1, len(rows)), rows.items(), strict=True):
        for number, (way, label) in enumerate((("end_to_end", "end to end"), ("per_task", "task by task"))):
            known = [(row["cores"], row[way]) for row in own if row[way] is not None]
            ax.plot(*zip(*known, strict=True), color=COLOURS[number], ls=DASHES[number], label=label)
        finish(ax, x="cores of whole servers", y="accuracy (%)" if name == next(iter(rows)) else "", title=name)
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    save_figure(figure, path)


def problem_of(one: Study, points: Points, rate_rps: float, options: Options, servers: int = 400) -> Problem:
    """Return an application on servers of 16 cores, each replica on a share of one."""
    tasks = []
    for number, task in enumerate(one.tasks):
        variants = []
        for name in task:
            tables = []
            for cores in LEVELS:
                known = sorted((batch, rps) for batch, (_, rps) in points.get((name, cores), {}).items())
                known = [(batch, rps) for batch, rps in known if batch <= one.batch_cap]
                rows = tuple((round(1e6 * batch / (rps * (1 + one.throughput_margin))),) for batch, rps in known)
                if rows:
                    sizes = tuple(batch for batch, _ in known)
                    tables.append(LatencyTable("server", 16 // cores, sizes, rows, Provenance("estimated", "study")))
            variants.append(Profile(name, (Block((name,)),), (), tuple(tables), input_bytes=100_000))
        accuracy = {name: percent for name, (percent, _) in task.items()}
        tasks.append(Task(f"task {number}", tuple(variants), accuracy))
    application = Application(
        "application", one.sla_s * 1e6, tuple(tasks), rate_rps=rate_rps, np_throughput_rps=rate_rps
    )
    server = DeviceType("server", servers, "cpu", LEVELS, price_per_hour=16.0)
    return Problem(Cluster((server,), Network(10)), (), options, (application,))


def solving_times(out: Path) -> list[dict[str, Any]]:
    """Return CPU seconds of random programmes; from the file where they were measured before."""
    path = out / "solving.csv"
    if path.exists():
        return pd.read_csv(path).to_dict("records")  # type: ignore[return-value]
    rows = []
    for tasks, variants in ((1, 5), (2, 5), (3, 5), (5, 5), (5, 10), (10, 5), (10, 10), (20, 20)):
        rng = np.random.default_rng(tasks * 100 + variants)
        options = tuple(
            tuple(
                Option(
                    f"v{v}",
                    (v + 1) / variants,
                    1 + v // 2,
                    batch,
                    0.05 * (v + 1) * batch**0.9,
                    20 * batch**0.1 / (v + 1),
                )
                for v in range(variants)
                for batch in (1, 2, 4, 8)
            )
            for _ in range(tasks)
        )
        weights = Weights(10.0 * tasks, float(rng.uniform(0.2, 0.4)))
        begin_s = process_time()
        optimise(Ipa(options, 20.0, 0.15 * tasks * variants, "multiply", weights))
        rows.append({"tasks": tasks, "variants": variants, "cpu_s": round(process_time() - begin_s, 3)})
    return rows


def read_profiles(path: Path) -> dict[str, list[TaskProfile]]:
    """Read a file of profile points per application: task, variant, accuracy, cpu, batch, latency_s, throughput_rps."""
    applications = {}
    for name, rows in json.loads(path.read_text(encoding="utf-8")).items():
        tasks: dict[str, list[Point]] = {}
        for row in rows:
            point = Point(
                row["variant"], row["accuracy"], row["cpu"], row["batch"], row["latency_s"], row["throughput_rps"]
            )
            tasks.setdefault(row["task"], []).append(point)
        applications[name] = [TaskProfile(task, tuple(points)) for task, points in tasks.items()]
    return applications


def programme_of(inputs: Mapping[str, Any], profiles: Mapping[str, Sequence[TaskProfile]]) -> Ipa:
    """Return the programme of a case by the reference's rules for SLAs, base cores and baselines."""
    if inputs["profile_set"] not in profiles:
        raise InputError(f"no profiles of {inputs['profile_set']!r}; there are {sorted(profiles)}")
    measured = profiles[inputs["profile_set"]]
    known = measured if inputs["only_measured_profiles"] else [fitted(profile) for profile in measured]
    options, total_s = [], 0.0
    for number, (profile, source) in enumerate(zip(known, measured, strict=True)):
        sla_s = task_sla_s(profile, inputs["sla_factor"])
        total_s += sla_s
        counted = len({point.batch for point in source.points})
        cores = base_cores(profile, inputs["threshold_rps"], sla_s, counted)
        percent = profile.accuracies
        accuracies = ranked(percent) if inputs["normalize_accuracy"] else scaled(percent)
        variants = [inputs["active_variant"][number]] if inputs["baseline_mode"] == "scale" else list(percent)
        options.append(
            tuple(
                Option(variant, accuracies[variant], cores[variant], point.batch, point.latency_s, point.throughput_rps)
                for variant in variants
                for point in profile.of(variant, cores[variant])
                if point.batch <= inputs["batching_cap"]
            )
        )
    return Ipa(
        tuple(options),
        inputs["arrival_rate_rps"],
        total_s,
        inputs["accuracy_method"],
        Weights(inputs["alpha"], inputs["beta"], inputs["gamma"]),
        tuple(inputs["initial_replicas"]) if inputs["baseline_mode"] == "switch" else None,
        inputs["scaling_cap"],
    )


def row_of(case: Mapping[str, Any], found: Configuration, coded: Configuration, seconds: float) -> dict[str, Any]:
    """Return a case's row: what was found beside what the reference and the enumerations found."""
    choices = found.choices
    return {
        "name": case["name"],
        "objective": round(found.objective, 9),
        "objective_as_coded": round(coded.objective, 9),
        "reference_objective": case["gurobi"][0]["objective"] if case["gurobi"] else None,
        "enumeration_as_paper": (case["enumeration_as_paper"] or {}).get("objective"),
        "enumeration_as_coded": (case["enumeration_as_coded"] or {}).get("objective"),
        "variants": "+".join(choice.option.variant for choice in choices),
        "batches": "+".join(str(choice.option.batch) for choice in choices),
        "replicas": "+".join(str(choice.replicas) for choice in choices),
        "cores": found.cores,
        "seconds": round(seconds, 4),
    }


if __name__ == "__main__":
    run(app)
