#!/usr/bin/env python
"""Draw the README's pictures from the results of scripts/demo: what was planned, and what happens to it under load.

Everything is computed from the demo's folder and the sample trace; equal results give equal pictures.
"""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from matplotlib.axes import Axes
from PIL import Image

from planner.cli.app import console, new_app, progress, run
from planner.files import load_plan, load_problem, replacing
from planner.model import InputError, Plan, Problem
from planner.planning import make_plan
from simulator.engine import World, build_system, simulate
from simulator.engine.world import Failure
from simulator.results import Records
from simulator.results.plan_drawing import StageKey, plan_drawing
from simulator.results.plots import attainment_heat_map, save_figure, throughput_tradeoff
from simulator.results.recovery import recovery
from simulator.results.run_plots import latency_distribution, timeline
from simulator.workload import assign, fold, read_maf21

ROOT = Path(__file__).parents[1]
TRACE = ROOT / "traces" / "maf-like.maf21.csv.gz"
SLO_MULTIPLES = (0.4, 0.5, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0)
SIZES = (0.2, 0.4, 0.6, 0.8, 1.0, 1.3, 1.6, 2.0)

app = new_app(__doc__)


@app.command()
def draw(
    results: Annotated[Path, typer.Option(help="The demo's results.")] = ROOT / "out" / "demo",
    cluster: Annotated[str, typer.Option(help="Whose plan and run are drawn.")] = "edge",
    planned: Annotated[str, typer.Option(help="Which cluster is planned for other SLOs and prices.")] = "datacentre",
    load: Annotated[float, typer.Option(help="Load factor of the run that is drawn.")] = 0.9,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = ROOT / "scripts" / "images",
) -> None:
    """Draw attainment, a plan, its timeline, latencies and heat map, and what plans trade for throughput."""
    runs = pd.read_csv(_existing(results / "sweep.csv"))
    problem = load_problem(_existing(results / cluster / "problem.json"))
    plan = load_plan(_existing(results / cluster / "pipelines.json"))
    other = load_problem(_existing(results / planned / "problem.json"))
    with replacing(out / "attainment.png") as temporary:
        shutil.copyfile(_existing(results / "attainment.png"), temporary)
    shrink(out / "attainment.png")
    console.print(f"{out / 'attainment.png'}", highlight=False, soft_wrap=True)
    of = f"{cluster} {plan.scheduler}"
    about_runs = run_pictures(problem, plan, runs[runs["cluster"] == cluster], load, of)
    for name, ax in chain(about_runs, tradeoffs(other, f"{planned}: the worst-served DNN")):
        save_figure(ax, out / f"{name}.png")
        shrink(out / f"{name}.png")
        console.print(f"{out / name}.png", highlight=False, soft_wrap=True)


def shrink(path: Path) -> None:
    """Write a picture again with 64 colours, a third of its size; flat drawings lose nothing that is seen."""
    with replacing(path) as temporary, Image.open(path) as picture:
        picture.convert("RGB").quantize(64, Image.Quantize.MAXCOVERAGE).save(temporary, "PNG", optimize=True)


def _existing(path: Path) -> Path:
    if not path.exists():
        raise InputError(f"{path}: no such file; run scripts/demo first, or choose other --results")
    return path


def run_pictures(problem: Problem, plan: Plan, runs: pd.DataFrame, load: float, of: str) -> Iterator[tuple[str, Axes]]:
    """Yield the pictures of a plan and of a run of it with their names; of single DNNs the first."""
    records = run_all(problem, plan, load)
    first = next(iter(records.values()))
    middle_ms = float(first.arrival_us[-1]) / 2000
    yield "plan", plan_drawing(plan, problem, utilisation=pool_utilisation(plan, records))
    yield "timeline", timeline(first, start_ms=middle_ms, end_ms=middle_ms + 2.5 * first.system.slo_us / 1000, of=of)
    yield "latency", latency_distribution(first, of=of)
    yield "heat_map", attainment_heat_map(runs)
    yield "recovery", recovery(failing(plan, problem, first), of=of)[0]


def tradeoffs(problem: Problem, title: str) -> Iterator[tuple[str, Axes]]:
    """Yield throughput over the SLO, and over the cluster's price where prices are known."""
    slo = tradeoff(problem, {multiple: with_slos(problem, multiple) for multiple in SLO_MULTIPLES})
    yield (
        "throughput_over_slo",
        throughput_tradeoff(slo, against="paid", x="SLO, as a multiple of the demo's", title=title),
    )
    if all(device.price_per_hour is not None for device in problem.cluster.device_types):
        sized = [resized(problem, size) for size in SIZES]
        cost = tradeoff(problem, {price_per_hour(one): one for one in sized})
        yield (
            "throughput_over_cost",
            throughput_tradeoff(cost, against="paid", x="cluster's price per hour", title=title),
        )


def run_all(problem: Problem, plan: Plan, load: float) -> dict[str, Records]:
    """Simulate every DNN at a load, on its own functions of the sample trace."""
    names = [dnn.name for dnn in problem.dnns if plan.of(dnn.name)]
    times_s = assign(read_maf21(TRACE), len(names))
    return {
        name: simulate(build_system(problem, plan, name), fold(times, load * plan.throughput_rps(name)))
        for name, times in zip(names, times_s, strict=True)
    }


def failing(plan: Plan, problem: Problem, records: Records) -> Records:
    """Simulate a DNN's arrivals again where a server of its first stage stops for a quarter of the run."""
    last_us = int(records.arrival_us[-1])
    failure = Failure("server", 0, 0, 0, last_us // 4, last_us // 4)
    system = build_system(problem, plan, records.system.dnn)
    return simulate(system, records.arrival_us, world=World(failures=(failure,)))


def pool_utilisation(plan: Plan, records: dict[str, Records]) -> dict[StageKey, float]:
    """Return the share of the run in which the slices of each pool worked."""
    busy: dict[StageKey, float] = {}
    for dnn, run_of in records.items():
        numbers = [number for number, pipeline in enumerate(plan.pipelines) if pipeline.dnn == dnn]
        for position, visits in enumerate(run_of.visits):
            worked_us = np.bincount(visits.pipeline, visits.end_us - visits.start_us, minlength=len(numbers))
            for index, number in enumerate(numbers):
                if position < len(plan.pipelines[number].stages):
                    slices = plan.pipelines[number].stages[position].slices
                    busy[number, position] = float(worked_us[index] / (slices * run_of.arrival_us[-1]))
    return busy


def with_slos(problem: Problem, multiple: float) -> Problem:
    """Return the problem with every SLO so many times as long."""
    return replace(problem, dnns=tuple(replace(dnn, slo_us=dnn.slo_us * multiple) for dnn in problem.dnns))


def resized(problem: Problem, size: float) -> Problem:
    """Return the problem on a cluster with so many times the devices of each type."""
    counts = {device.name: round(device.count * size) for device in problem.cluster.device_types}
    return replace(problem, cluster=problem.cluster.with_counts(counts))


def price_per_hour(problem: Problem) -> float:
    """Return what all devices of the cluster cost per hour."""
    return sum(device.count * (device.price_per_hour or 0.0) for device in problem.cluster.device_types)


def tradeoff(problem: Problem, variants: dict[float, Problem]) -> pd.DataFrame:
    """Plan each variant with both schedulers, for the worst-served DNN's throughput; 0 where nothing meets an SLO."""
    rows = []
    with progress() as bar:
        for paid, variant in bar.track(variants.items(), description="planning"):
            for scheduler in ("pipelines", "np"):
                try:
                    plan = make_plan(variant, scheduler)
                    served = min(plan.throughput_rps(dnn.name) for dnn in problem.dnns)
                except InputError:
                    served = 0.0
                rows.append({"scheduler": scheduler, "paid": paid, "throughput_rps": served})
    return pd.DataFrame(rows)


if __name__ == "__main__":
    run(app)
