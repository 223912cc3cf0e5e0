#!/usr/bin/env python
"""Reproduce ParvaGPU's published deployments (SC'24): the fewest GPUs that serve given rates of several DNNs.

    scripts/reproduce_parvagpu.py --data DIR --out out/parvagpu.csv

DIR holds the published prof_data/, SLO_req_rate.csv, SLO_latency.csv and deployment/. A row per experiment:

    dnns, published_gpus   how many DNNs are served, and on how many GPUs that was published
    gpus, bound, seconds   the same of our plan, what no plan can fall below, and the time to plan
    attainment             requests in time over all when the plan serves Poisson arrivals at the given rates
    multiple, multiple_bound, multiple_seconds
                           the largest multiple of all rates that the published number of GPUs serves
"""

from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Annotated

import numpy as np
import typer

from planner.cli.app import console, errors, new_app, run
from planner.files import write_csv
from planner.files.parvagpu import read_experiments, read_published_gpus
from planner.model import Plan, Problem
from planner.planning import make_plan
from simulator.engine import build_system, simulate
from simulator.results.metrics import counted, dropped, late
from simulator.workload import poisson

MOST_GPUS = 64
COLUMNS = (
    "experiment", "dnns", "published_gpus", "gpus", "bound", "seconds", "attainment", "multiple", "multiple_bound",
    "multiple_seconds",
)  # fmt: skip

app = new_app("Reproduce ParvaGPU's published deployments.")


@app.command()
def reproduce(
    data: Annotated[Path, typer.Option(help="Folder of the published data (prof_data/, deployment/, SLO_*.csv).")],
    out: Annotated[Path, typer.Option(help="CSV file to write.")],
    duration_s: Annotated[float, typer.Option(min=1.0, help="Seconds of arrivals to simulate.")] = 60.0,
    seed: Annotated[int, typer.Option(help="Seed of the arrivals.")] = 1,
    time_limit: Annotated[float, typer.Option(min=0.1, help="Seconds for each largest multiple of the rates.")] = 20.0,
) -> None:
    """Plan every experiment, simulate the plan, and find how much more its published GPUs can serve."""
    rows = []
    for number, problem in enumerate(read_experiments(data, MOST_GPUS), start=1):
        with errors.status(f"experiment {number}"):
            rows.append(_experiment(number, problem, read_published_gpus(data, number), duration_s, seed, time_limit))
        console.print(
            f"experiment {number}: "
            + ", ".join(f"{name} {value}" for name, value in zip(COLUMNS, rows[-1], strict=True)),
            highlight=False,
            soft_wrap=True,
        )
    write_csv(out, [COLUMNS, *rows])


def _experiment(
    number: int, problem: Problem, published: int, duration_s: float, seed: int, time_limit_s: float
) -> list[object]:
    begin_s = perf_counter()
    plan = make_plan(problem)
    seconds = perf_counter() - begin_s
    begin_s = perf_counter()
    most = make_plan(_as_multiple(problem, published), time_limit_s=time_limit_s)
    return [
        number, len(problem.dnns), published, round(plan.value), round(plan.bound), f"{seconds:.3f}",
        f"{_attainment(problem, plan, duration_s, seed):.6f}", f"{most.value:.4f}", f"{most.bound:.4f}",
        f"{perf_counter() - begin_s:.1f}",
    ]  # fmt: skip


def _as_multiple(problem: Problem, gpus: int) -> Problem:
    """Return the problem to serve the largest multiple of all rates on so many GPUs."""
    (device,) = problem.cluster.device_types
    dnns = tuple(replace(dnn, weight=dnn.rate_rps or 1.0) for dnn in problem.dnns)
    options = replace(problem.options, objective="max_min_throughput")
    return replace(problem, cluster=problem.cluster.with_counts({device.name: gpus}), dnns=dnns, options=options)


def _attainment(problem: Problem, plan: Plan, duration_s: float, seed: int) -> float:
    """Return requests in time over all, each DNN's arrivals a Poisson process of its own."""
    streams = np.random.default_rng(seed).spawn(len(problem.dnns))
    requests = in_time = 0
    for dnn, rng in zip(problem.dnns, streams, strict=True):
        records = simulate(build_system(problem, plan, dnn.name), poisson(dnn.rate_rps or 0.0, duration_s, rng))
        total = int(counted(records).sum())
        requests += total
        in_time += total - dropped(records) - late(records)
    return in_time / requests


if __name__ == "__main__":
    run(app)
