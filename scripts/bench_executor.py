#!/usr/bin/env python3
"""Hold predictions against measurements on this machine: two one-core slices, a two-stage plan of each model.

Profiles each model's blocks on one core, cuts it where the predicted throughput is best, tries that cut (pipelined over
one batch at a time), then runs the plan under Poisson arrivals at several loads and compares every run with its
simulation. Prints tables; rows go to OUT/comparison.csv, and the cut to OUT/split.csv.
"""

import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import onnx_ir as ir
import pandas as pd
import typer

from planner.cli.app import console, new_app, run
from planner.cli.profile_model import profile_model
from planner.files import save, write_text
from planner.model import Network, Plan, Problem, Profile
from planner.profiling import DeviceAtHand, Effort, build_model
from simulator.executor import Settings, execute
from simulator.executor.compare import compare
from simulator.executor.measure import measure
from simulator.executor.pareto import SplitPoint, WireLink, split_points
from simulator.executor.trials import Trial, plan_of_point, try_point
from simulator.workload import poisson

DEVICE = "core"
BARS = {"throughput": 5.0, "p50 latency": 10.0, "p99 latency": 25.0, "attainment": 2.0}  # percent, and points
app = new_app("Prediction against measurement.")


@app.command()
def main(
    models: Annotated[list[str], typer.Argument(help="Models by name.")] = ["resnet50", "mobilenet_v2"],  # noqa: B006
    loads: Annotated[str, typer.Option(help="Load factors.")] = "0.5,0.8",
    runs: Annotated[int, typer.Option(help="Runs per load, each with a seed of its own.")] = 5,
    seconds: Annotated[float, typer.Option(help="Length of a run, s.")] = 10.0,
    slo_factor: Annotated[float, typer.Option(help="The SLO, in planned latencies.")] = 5.0,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("out/bench_executor"),
) -> None:
    """Profile, cut, run, compare."""
    rows: list[dict[str, Any]] = []
    for name in models:
        console.print(f"{name}: profiling on one core", highlight=False)
        profiled = profile_model(
            build_model(name), name, at_hand=[DeviceAtHand(DEVICE)], batches=(1,), effort=Effort(cap_s=1.0, clock="cpu")
        )
        save(profiled.profile, out / f"{name}.profile.json")
        point = _try_cut(profiled.profile, profiled.model)
        in_place, hop_us = _in_place(profiled.profile, profiled.model, point)
        problem, plan = _problem(point, in_place, hop_us, slo_factor)
        for load in (float(text) for text in loads.split(",")):
            for seed in range(runs):
                rows += _run(name, problem, plan, profiled.model, load, seconds, seed)
            _show([row for row in rows if row["model"] == name and row["load"] == load], name, load)
    write_text(out / "comparison.csv", pd.DataFrame(rows).to_csv(index=False))


def _try_cut(profile: Profile, model: ir.Model) -> SplitPoint:
    """Return the cut with the best predicted throughput, tried."""
    points = split_points(profile, (DEVICE, DEVICE), WireLink(0, 1000))
    best = max((point for point in points if point.cut is not None), key=lambda point: point.predicted.throughput_rps)
    tried = try_point(best, profile, model, Settings(), Trial(seconds=4.0))
    assert tried.measured is not None
    assert tried.sequential is not None
    ratio = tried.measured.throughput_rps / tried.sequential.throughput_rps
    console.print(
        f"{profile.name}: cut {tried.name}, predicted {tried.predicted.throughput_rps:.2f} requests/s, measured "
        f"{tried.measured.throughput_rps:.2f}, {ratio:.2f} times the sequential; load average {os.getloadavg()[0]:.1f}",
        highlight=False,
        soft_wrap=True,
    )
    return tried


def _in_place(profile: Profile, model: ir.Model, point: SplitPoint) -> tuple[Profile, float]:
    """Return the profile as the stages show it side by side, and what handing a batch over takes on top (µs).

    Blocks are timed alone, on a machine that does nothing else; here two stages, and the frontend between them, share
    two cores. A stage's time is that from one batch's begin to the next one's, while others wait. What a lone
    batch needs beyond these times is the hand-overs, and the plan's one hop stands for them.
    """
    problem, plan = plan_of_point(point, profile, None)
    requests = np.zeros(max(40, round(6 * point.predicted.throughput_rps)), np.int64)
    settings = Settings(guard_fraction=0.0, in_flight=4)
    visits = execute(problem, plan, profile.name, {profile.name: model}, requests, settings).journal.visits()
    scaled = np.array(profile.table(DEVICE, 1).latency_us, float)
    total_us = 0.0
    for number, stage in enumerate(plan.pipelines[0].stages):
        own = [visit for visit in visits if visit.slice.stage == number][5:]
        cycles_us = [
            after.start_us - visit.start_us for visit, after in pairwise(own) if after.arrive_us < visit.end_us
        ]
        measured_us = median(cycles_us or [visit.end_us - visit.start_us for visit in own])
        total_us += measured_us
        scaled[:, stage.first_block : stage.last_block] *= measured_us / stage.latency_us
        console.print(
            f"{profile.name}: stage {number} takes {measured_us / 1000:.2f} ms a batch beside the other, "
            f"{stage.latency_us / 1000:.2f} ms by its blocks",
            highlight=False,
        )
    latency_us = tuple(tuple(max(1, round(value)) for value in row) for row in scaled.tolist())
    in_place = replace(profile, tables=(replace(profile.table(DEVICE, 1), latency_us=latency_us),))
    assert point.sequential is not None
    return in_place, max(0.0, point.sequential.latency_us - total_us)


def _problem(point: SplitPoint, profile: Profile, hop_us: float, slo_factor: float) -> tuple[Problem, Plan]:
    """Return the cut as a plan with an SLO and with the hand-overs as measured."""
    found = next(each for each in split_points(profile, (DEVICE, DEVICE), WireLink(0, 1000)) if each.name == point.name)
    problem, plan = plan_of_point(found, profile, None)
    network = Network(problem.cluster.network.bandwidth_gbps, hop_us)
    slo_us = slo_factor * (found.predicted.latency_us + hop_us)
    dnn = replace(problem.dnns[0], slo_us=slo_us)
    return replace(problem, cluster=replace(problem.cluster, network=network), dnns=(dnn,)), plan


def _run(
    name: str, problem: Problem, plan: Plan, model: ir.Model, load: float, seconds: float, seed: int
) -> list[dict[str, Any]]:
    """Run once; return a row per quantity."""
    arrivals_us = poisson(load * plan.throughput_rps(name), seconds, np.random.default_rng(seed))
    done = execute(problem, plan, name, {name: model}, arrivals_us, Settings(warmup_s=1.0))
    measurement, comparison = measure(done), compare(done)
    common = {
        "model": name,
        "load": load,
        "seed": seed,
        "requests": len(arrivals_us),
        "cpu_per_busy": min(each.cpu / each.busy for each in measurement.slices),
        "load_average": done.load_average[1],
    }
    return [
        common
        | {"quantity": row.quantity, "unit": row.unit, "predicted": row.predicted, "measured": row.measured}
        | {"difference": row.difference * (1 if row.kind == "points" else 100), "text": row.text}
        for row in comparison.rows
    ]


def _show(rows: list[dict[str, Any]], name: str, load: float) -> None:
    """Print the differences of all runs, and whether every one is within its bar."""
    table = pd.DataFrame(rows)
    workers = table.groupby("seed").cpu_per_busy.first()
    console.print(
        f"{name} at load {load:g}; workers had their cores {workers.min():.0%} of their time", highlight=False
    )
    for quantity, own in table.groupby("quantity", sort=False):
        bar = BARS.get(str(quantity))
        verdict = "" if bar is None else f"  bar {bar:g}: {(own.difference.abs() <= bar).sum()} of {len(own)} within"
        console.print(f"  {quantity}: {', '.join(own.text)}{verdict}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    run(app)
