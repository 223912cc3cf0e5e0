#!/usr/bin/env python
"""Reproduce PPipe's published results (ATC'25) from a data folder laid out as the published one.

One sub-command per kind of result; each reads the published inputs, computes them anew, and writes a CSV with what was
published beside what was found.
"""

import csv
import glob
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any, TypeVar

import pandas as pd
import typer

from planner.cli.app import console, errors, new_app, progress, run
from planner.files import load_plan, replacing, save, write_text
from planner.files.ppipe import (
    FileName,
    Layers,
    Prepartition,
    list_dnns,
    read_layers,
    read_plan,
    read_prepartition,
    read_problem,
    read_seconds,
)
from planner.model import InputError, Plan, Problem, digest
from planner.model.problem import CardSharing
from planner.planning.api import make_plan
from planner.planning.prepartition import prepartition
from simulator.engine import System, build_system, simulate
from simulator.results.metrics import counted, dropped, late, latencies_us, quantile
from simulator.results.study import FIGURES, card_use, comparison
from simulator.results.style import save_with_numbers
from simulator.sweep import run_sweep, series_of_plan
from simulator.workload import Trace, fold, read_maf21
from simulator.workload.arrivals import TimesS

DURATION_S = 30.0
BLOCKS = 10  # of a DNN whose prepartition was not published
POLICIES = {"RESERVATION": "reservation", "SLA_AWARE": "reactive"}

CLUSTERS = {"L4+P4": "HC1", "L4+T4": "HC2", "V100+P4": "HC3", "V100+T4": "HC4"}  # as the paper names them

Item = TypeVar("Item")

app = new_app("Reproduce PPipe's published results.")

Data = Annotated[Path, typer.Option(help="Folder of the published data (models/, prepartition_mappings/, plans/).")]
Out = Annotated[Path, typer.Option(help="CSV file to write.")]

PLAN_COLUMNS = (
    "plan",
    "scheduler",
    "reference_objective",
    "objective",
    "bound",
    "gap",
    "seconds",
    "reference_seconds",
)
PREPARTITION_COLUMNS = (
    "dnn",
    "layers",
    "blocks",
    "lower",
    "upper",
    "bytes",
    "reference_bytes",
    "reference_feasible",
    "seconds",
)


@app.command("plan")
def plan_command(
    data: Data,
    plans: Annotated[str, typer.Option(help="Published plan files: a glob, or one below DATA/plans.")],
    out: Out,
    method: Annotated[str, typer.Option(help="How to plan pipelines: auto, milp, dynamic or columns.")] = "auto",
    backend: Annotated[str, typer.Option(help="Solver: highs, gurobi, cbc or auto.")] = "highs",
    gap: Annotated[float, typer.Option(help="Relative gap to solve to.")] = 1e-6,
    time_limit: Annotated[float | None, typer.Option(help="Seconds per plan.  [default: none]")] = None,
) -> None:
    """Plan the problems of published plans again, one row per plan file."""
    options = {"method": method, "backend": backend, "gap": gap, "time_limit_s": time_limit}
    paths = _plan_files(plans, data)
    write_rows(out, PLAN_COLUMNS, shown("planning", paths, lambda path: plan_row(path, data, options)))


def plan_row(path: Path, data: Path, options: Mapping[str, Any]) -> dict[str, object]:
    """Plan the problem of a published plan; ``seconds`` are those of planning, files left out."""
    problem = read_problem(path, data)
    published = read_plan(path, problem)
    plan = plan_again(problem, published, path, data, options)
    return {
        "plan": path.name,
        "scheduler": path.stem.rpartition("_")[2],
        "reference_objective": published.value,
        "objective": plan.value,
        "bound": plan.bound,
        "gap": plan.gap,
        "seconds": round(plan.seconds, 4),
        "reference_seconds": read_seconds(path),
    }


def plan_again(problem: Problem, published: Plan, path: Path, data: Path, options: Mapping[str, Any]) -> Plan:
    """Plan as the published scheduler did.

    DART-r starts from the devices of the published NP plan beside it, for NP's optimum is not unique; of NP plans,
    those without the seconds of a solve follow the ablation's closed form.
    """
    if published.scheduler == "pipelines":
        return make_plan(problem, **options)
    own = {**options, "method": "auto"}
    if published.scheduler == "np":
        return make_plan(problem, "np", **(own if read_seconds(path) is not None else {**own, "method": "closed-form"}))
    beside = path.with_name(path.name.replace("_dart-r.json", "_bl.json"))
    np_plan = read_plan(beside, read_problem(beside, data)) if beside.exists() else None
    return make_plan(problem, "dart-r", np_plan=np_plan, **own)


@app.command("simulate")
def simulate_command(
    data: Data,
    plans_dir: Annotated[Path, typer.Option(help="Folder of the published plans, searched with its subfolders.")],
    traces: Annotated[Path, typer.Option(help="Folder of the traces, <trace>.csv or <trace>.csv.gz.")],
    cases: Annotated[Path, typer.Option(help="CSV of what the reference simulator printed, a row per simulation.")],
    out: Out,
    processes: Annotated[int, typer.Option(help="Processes to use.")] = 2,
) -> None:
    """Simulate the cases of the reference simulator again, and write its results and ours, one row per case."""
    with cases.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    if not rows:
        raise InputError(f"{cases}: no rows; expected at least one case")
    plans = [list(group) for _, group in groupby(rows, itemgetter("plan"))]
    columns = [*rows[0], *(f"ours_{name}" for name in COMPARED), "seconds"]
    results: list[dict[str, object]] = []
    with progress() as bar, ProcessPoolExecutor(processes) as pool:
        task = bar.add_task("simulating", total=len(rows))
        for group in pool.map(partial(simulate_cases, data, plans_dir, traces), plans):
            results += group
            bar.advance(task, len(group))
    write_rows(out, columns, results)
    equal = [agrees(row) for row in results]
    console.print(f"{sum(equal)} of {len(equal)} rows equal to the reference's")


COMPARED = ("requests", "dropped", "late", "p50_us", "p99_us")


def agrees(row: Mapping[str, object]) -> bool:
    """Tell whether our results equal the reference's, wherever it has any."""
    return all(not row[name] or int(str(row[name])) == row[f"ours_{name}"] for name in COMPARED)


def simulate_cases(data: Path, plans_dir: Path, traces: Path, rows: list[dict[str, str]]) -> list[dict[str, object]]:
    """Simulate cases of one plan; ``seconds`` are those of the run itself, files and folding left out."""
    results: list[dict[str, object]] = []
    for row in rows:
        system = _system(data, plans_dir, row["plan"], int(row["dnn_id"]))
        arrivals_us = fold(_trace(traces, row["trace"]).times_s, float(row["load_rps"]), DURATION_S)
        start = time.perf_counter()
        records = simulate(system, arrivals_us, policy=POLICIES[row["lb"]])
        seconds = time.perf_counter() - start
        latency_us = latencies_us(records)
        ours = {
            "ours_requests": int(counted(records).sum()),
            "ours_dropped": dropped(records),
            "ours_late": late(records),
            "ours_p50_us": int(quantile(latency_us, 0.5)) if len(latency_us) else None,
            "ours_p99_us": int(quantile(latency_us, 0.99)) if len(latency_us) else None,
        }
        results.append({**row, **ours, "seconds": round(seconds, 6)})
    return results


@cache
def _trace(folder: Path, name: str) -> Trace:
    for path in (folder / f"{name}.csv", folder / f"{name}.csv.gz"):
        if path.exists():
            return read_maf21(path)
    raise InputError(f"{folder}: expected {name}.csv or {name}.csv.gz there; give the folder of the traces")


@cache
def _system(data: Path, folder: Path, name: str, dnn_index: int) -> System:
    found = next(folder.rglob(name), None)
    if found is None:
        raise InputError(f"{folder}: no plan {name} there or below")
    problem = read_problem(found, data)
    return build_system(problem, read_plan(found, problem), problem.dnns[dnn_index].name)


def _plan_files(pattern: str, data: Path) -> list[Path]:
    found = glob.glob(pattern, recursive=True) or glob.glob(str(data / "plans" / pattern), recursive=True)
    if not found:
        raise InputError(f"--plans {pattern}: no such files, neither there nor below {data / 'plans'}")
    return sorted(Path(name) for name in found)


@app.command("prepartition")
def prepartition_command(data: Data, out: Out) -> None:
    """Make the blocks of every DNN again, one row per DNN; bytes are those of a request over all cuts."""
    rows = shown("prepartitioning", list_dnns(data), lambda dnn: prepartition_row(dnn, data))
    write_rows(out, PREPARTITION_COLUMNS, rows)


def prepartition_row(dnn: str, data: Path) -> dict[str, object]:
    """Make a DNN's blocks, of as many as the published prepartition was to have, or as usual where there is none."""
    layers = read_layers(data, dnn)
    is_published = (data / "prepartition_mappings" / dnn).is_dir()
    published = read_prepartition(data, dnn) if is_published else None
    begin_s = perf_counter()
    wanted = published.blocks_wanted if published else BLOCKS
    blocks = prepartition(list(layers.latency_us.values()), layers.cut_bytes, wanted)
    return {
        "dnn": dnn,
        "layers": len(layers.names),
        "blocks": len(blocks.starts),
        "lower": blocks.lower,
        "upper": blocks.upper,
        "bytes": blocks.cut_bytes,
        "reference_bytes": sum(published.cut_bytes) if published else None,
        "reference_feasible": keeps_its_bounds(published, layers) if published else None,
        "seconds": round(perf_counter() - begin_s, 4),
    }


def keeps_its_bounds(published: Prepartition, layers: Layers) -> bool:
    """Tell whether a published prepartition has all its blocks, and each within its bounds on every device type."""
    if len(published.blocks) != published.blocks_wanted:
        return False
    low, high = published.lower / published.blocks_wanted, published.upper / published.blocks_wanted
    block_of = {layer: number for number, block in enumerate(published.blocks) for layer in block}
    for latency_us in layers.latency_us.values():
        block_us = [0.0] * len(published.blocks)
        for layer, value in zip(layers.names, latency_us, strict=True):
            block_us[block_of[layer]] += value
        if min(block_us) < low * sum(latency_us) or max(block_us) > high * sum(latency_us):
            return False
    return True


def shown(
    description: str, items: Iterable[Item], work: Callable[[Item], dict[str, object]]
) -> Iterator[dict[str, object]]:
    """Yield the row of each item under a progress bar."""
    with progress() as bar:
        for item in bar.track(list(items), description=description):
            yield work(item)


def write_rows(out: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Write a CSV in one step; what is None is left empty."""
    with replacing(out) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        count = 0
        for row in rows:
            writer.writerow(row)
            count += 1
    console.print(f"{count} rows written to {out}")


@app.command("all")
def all_command(
    data: Data,
    traces: Annotated[Path, typer.Option(help="Folder of the arrival traces, each <name>.csv or <name>.csv.gz.")],
    out: Annotated[
        Path, typer.Option(help="Folder for plans, runs, figures and the summary; finished parts are kept.")
    ],
    jobs: Annotated[int, typer.Option(help="Processes. [default: all cores]", min=0)] = 0,
    gap: Annotated[float, typer.Option(help="Relative gap to plan to.")] = 1e-6,
    time_limit: Annotated[float, typer.Option(help="Seconds per plan.")] = 120.0,
    card_sharing: Annotated[
        CardSharing, typer.Option(help="How plans count network cards: own as published, larger as is simulated.")
    ] = "own",
    arrivals: Annotated[
        str, typer.Option(help="What kind of arrivals the traces hold; said in every comparison.")
    ] = "synthetic",
) -> None:
    """Run the whole study: blocks, plans, simulations at twenty loads, figures, and ours beside the published."""
    processes = jobs or os.cpu_count() or 1
    if not (out / "prepartition.csv").exists():
        prepartition_command(data, out / "prepartition.csv")
    options = {"method": "auto", "backend": "highs", "gap": gap, "time_limit_s": time_limit}
    plans = plan_study(data, out / "plans", options, processes, card_sharing)
    times_s = {path.name.removesuffix(".gz").removesuffix(".csv"): read_maf21(path).times_s for path in _traces(traces)}
    rows = simulate_study(plans, times_s, out / "sweep", processes)
    with replacing(out / "runs.csv") as temporary:
        rows.to_csv(temporary, index=False)
    for trace, part in rows.groupby("trace"):
        for name, draw in FIGURES.items():
            save_with_numbers(*draw(part), out / "figures" / f"{name}-{trace}")
    text = comparison(rows, arrivals)
    write_text(out / "summary.txt", text)
    console.print(text, highlight=False, soft_wrap=True)
    console.print(f"plans, runs.csv, figures and summary.txt are in {out}")


@dataclass(frozen=True)
class StudyPlan:
    """A plan of ours in place of a published one: of which study, and between which device types."""

    study: str
    name: FileName
    problem: Problem
    plan: Plan

    @property
    def label(self) -> str:
        """What it is called in the results."""
        return f"{self.study}/{self.name}"

    @property
    def policies(self) -> tuple[str, ...]:
        """Under which it is simulated: the published one, and the one that pipelines are compared under."""
        if self.plan.scheduler != "pipelines":
            return ("reservation",)
        return ("reservation", "reactive" if self.study == "ablation" else "orderly")

    @property
    def columns(self) -> list[dict[str, object]]:
        """What `simulator.results.study` wants to know of the runs of each DNN."""
        common = {
            "plan": self.label,
            "study": self.study,
            "cluster": CLUSTERS["+".join(self.name.device_types)],
            "group": ", ".join(self.name.dnns),
            **dict(zip(("high", "low"), self.name.device_types, strict=True)),
            **dict(zip(("high_count", "low_count"), self.name.counts, strict=True)),
        }
        return [{**common, "dnn": dnn.name, **self._promise(dnn.name)} for dnn in self.problem.dnns]

    def _promise(self, dnn: str) -> dict[str, float]:
        rps = [pipeline.throughput_rps for pipeline in self.plan.of(dnn)]
        return {
            "planned_rps": sum(rps),
            "card_use": card_use(build_system(self.problem, self.plan, dnn), rps) if rps else 0.0,
        }


def plan_study(
    data: Path, out: Path, options: Mapping[str, Any], processes: int, card_sharing: CardSharing
) -> list[StudyPlan]:
    """Plan every published problem again; plans of the same problems that lie in ``out`` already are read."""
    files = sorted((data / "plans").glob("*/*.json"))
    if not files:
        raise InputError(f"{data / 'plans'}: no published plans there; expected maf19/*.json and ablation/*.json")
    work = partial(plan_file, data=data, out=out, options=options, card_sharing=card_sharing)
    with progress() as bar, ProcessPoolExecutor(processes) as pool:
        return list(bar.track(pool.map(work, files), total=len(files), description="planning"))


def plan_file(path: Path, data: Path, out: Path, options: Mapping[str, Any], card_sharing: CardSharing) -> StudyPlan:
    """Return our plan of a published plan's problem: as it lies in ``out`` under the same name, else made and kept."""
    problem = read_problem(path, data)
    problem = replace(problem, options=replace(problem.options, card_sharing=card_sharing))
    ours = out / path.parent.name / path.name
    plan = load_plan(ours) if ours.exists() else None
    if plan is None or plan.problem_sha256 != digest(problem):
        plan = plan_again(problem, read_plan(path, problem), path, data, options)
        save(plan, ours)
    name = FileName.parse(path.name, tuple(dnn.name for dnn in problem.dnns))
    return StudyPlan(path.parent.name, name, problem, plan)


def simulate_study(
    plans: Sequence[StudyPlan], times_s: Mapping[str, TimesS], folder: Path, processes: int
) -> pd.DataFrame:
    """Simulate every plan at twenty loads of every trace, pipelines under a second policy, too."""
    refer: dict[str, dict[str, tuple[str, Plan]]] = {}
    for one in plans:
        if one.plan.scheduler == "pipelines":
            refer[_problem_name(one)] = {dnn.name: (one.label, one.plan) for dnn in one.problem.dnns}
    for one in plans:
        if _problem_name(one) not in refer:
            raise InputError(
                f"{one.label}: no {_problem_name(one)} beside it, whose throughput is load 1; add that plan"
            )
    series = [
        each
        for one in plans
        for each in series_of_plan(
            one.label,
            one.problem,
            one.plan,
            {dnn: list(times_s) for dnn in one.name.dnns},
            references=refer[_problem_name(one)],
            policies=one.policies,
        )
    ]
    with progress() as bar:
        task = bar.add_task("simulating, series", total=len(series))
        result = run_sweep(
            series,
            times_s,
            folder=folder,
            processes=processes,
            progress=lambda done, _: bar.update(task, completed=done),
        )
    for failure in result.failures:
        errors.print(f"failed: {failure.series.plan}, {failure.series.dnn}: {failure.error}")
    columns = pd.DataFrame([row for one in plans for row in one.columns])
    return pd.DataFrame(result.rows).merge(columns, on=["plan", "dnn"], validate="many_to_one")


def _problem_name(one: StudyPlan) -> str:
    return f"{one.study}/{replace(one.name, scheduler='pipelines')}"


def _traces(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.glob("*.csv*") if not path.name.startswith("cases"))
    if not found:
        raise InputError(f"{folder}: no traces there; expected MAF'21 files, <name>.csv or <name>.csv.gz")
    return found


if __name__ == "__main__":
    run(app)
