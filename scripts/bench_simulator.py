#!/usr/bin/env python
"""Measure the simulator: requests per second of CPU time, of both engines.

Over the reference cases where ``--data`` names PPipe's published data, and always on systems that grow: with the
requests, the slices per stage and the pipelines. What is measured is `simulate` alone, records and checks included;
reading and folding arrivals and compiling are not. Each figure is the best of a few runs.
"""

import csv
import platform
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Annotated

import matplotlib.pyplot as plt
import numpy as np
import typer

from planner.cli.app import console, new_app, progress, run
from planner.files import replacing
from planner.files.ppipe import read_plan, read_problem
from simulator.dispatch.system import System
from simulator.engine import build_system, simulate
from simulator.workload import fold, read_maf21

ENGINES = ("replay", "simpy")
POLICIES = {"RESERVATION": "reservation", "SLA_AWARE": "reactive"}
REPEATS = {"replay": 25, "simpy": 3}

app = new_app("Measure the simulator's speed.")
Row = dict[str, object]


@app.command()
def bench(
    data: Annotated[Path | None, typer.Option(help="PPipe's published data, for the reference cases.")] = None,
    every: Annotated[int, typer.Option(help="Take every n-th case.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder for the table and the picture.")] = Path("out/bench"),
) -> None:
    """Measure, print a summary, write bench.csv and bench.png."""
    console.print(f"CPU: {_cpu()}")
    rows = [row for name, sizes in GROWTH.items() for row in growth(name, sizes)]
    if data is not None:
        rows += cases(data, every)
    with replacing(out / "bench.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, ["what", "size", "policy", "engine", "requests", "rps"])
        writer.writeheader()
        writer.writerows(rows)
    summarise(rows)
    figure = draw(rows)
    with replacing(out / "bench.png") as temporary:
        figure.savefig(temporary, dpi=150)
    console.print(f"written to {out / 'bench.csv'} and {out / 'bench.png'}")


def measure(system: System, arrivals_us: np.ndarray, policy: str, engine: str) -> float:
    """Return requests per second of CPU time, the best of a few runs."""
    best_s = float("inf")
    for _ in range(REPEATS[engine]):
        start = time.process_time()
        simulate(system, arrivals_us, policy=policy, engine=engine)  # type: ignore[arg-type]
        best_s = min(best_s, time.process_time() - start)
    return len(arrivals_us) / best_s


def cases(data: Path, every: int) -> list[Row]:
    """Measure the reference cases."""

    @cache
    def system_of(plan: str, index: int) -> System:
        path = next((data / "plans").rglob(plan))
        problem = read_problem(path, data)
        return build_system(problem, read_plan(path, problem), problem.dnns[index].name)

    @cache
    def times_of(trace: str) -> np.ndarray:
        return read_maf21(data / "simulator" / f"{trace}.csv.gz").times_s

    rows: list[Row] = []
    files = sorted((data / "simulator").glob("cases_*.csv"))
    found = [row for path in files for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines())][::every]
    with progress() as bar:
        for case in bar.track(found, description="reference cases"):
            system = system_of(case["plan"], int(case["dnn_id"]))
            arrivals_us = fold(times_of(case["trace"]), float(case["load_rps"]), 30.0)
            policy = POLICIES[case["lb"]]
            for engine in ENGINES:
                rps = measure(system, arrivals_us, policy, engine)
                rows.append(_row("cases", 0, policy, engine, len(arrivals_us), rps))
    return rows


def growing(slices: int = 30, pipelines: int = 1, stages: int = 2, batch: int = 1) -> System:
    """Return like pipelines of like stages: batch 1 takes a slice 1 ms, four slices share a network card."""
    shape = pipelines, stages
    latency_us = np.zeros((*shape, batch + 1), np.int64)
    latency_us[:, :, 1:] = 1000 * np.sqrt(np.arange(1, batch + 1))
    ones = np.ones(shape, np.int64)
    last = np.arange(stages) == stages - 1
    return System(
        dnn="net",
        slo_us=5000 * stages,
        stages=np.full(pipelines, stages),
        batch=np.full(pipelines, batch),
        latency_us=latency_us,
        transfer_us=ones * np.where(np.arange(stages) > 0, 100, 0),
        hop_us=0 * ones,
        later_us=ones * (1100 * (stages - 1 - np.arange(stages))),
        slices=slices * ones,
        card_slices=np.where(last, 1, 4) * ones,
        server_slices=4 * ones,
        share=ones,
        device=0 * ones,
        device_types=("GPU",),
        devices=(float(slices * pipelines * stages),),
        prices_per_hour=(1.0,),
    )


GROWTH: dict[str, tuple[int, ...]] = {
    "requests": (10_000, 100_000, 1_000_000),
    "slices": (10, 30, 100, 300, 1000),
    "pipelines": (1, 2, 4, 8),
    "3 stages x 100 slices": (100,),
}
SYSTEMS: dict[str, Callable[[int], System]] = {
    "requests": lambda _: growing(),
    "slices": lambda size: growing(slices=size),
    "pipelines": lambda size: growing(pipelines=size, batch=2),
    "3 stages x 100 slices": lambda size: growing(slices=size, stages=3),
}


def growth(name: str, sizes: tuple[int, ...]) -> list[Row]:
    """Measure at 90 % load while one thing grows."""
    rows: list[Row] = []
    for size in sizes:
        system = SYSTEMS[name](size)
        requests = size if name == "requests" else 50_000
        capacity_per_us = float((system.slices[:, 0] * system.batch / system.latency_us[:, 0, -1]).sum())
        gaps_us = np.random.default_rng(1).exponential(1 / (0.9 * capacity_per_us), requests)
        arrivals_us = np.cumsum(gaps_us).astype(np.int64)
        for engine in ENGINES:
            if engine == "simpy" and requests > 100_000:
                continue
            simulate(system, arrivals_us[:100], engine=engine)  # type: ignore[arg-type]
            rps = measure(system, arrivals_us, "reservation", engine)
            rows.append(_row(name, size, "reservation", engine, requests, rps))
    return rows


def summarise(rows: list[Row]) -> None:
    """Print the cases' median and worst, and the rest row by row."""
    for policy in POLICIES.values():
        for engine in ENGINES:
            rps = _rps(rows, "cases", engine, policy)
            if len(rps):
                console.print(
                    f"{policy}, {engine}: {len(rps)} cases, median {np.median(rps):,.0f}/s, worst {rps.min():,.0f}/s"
                )
    for row in rows:
        if row["what"] != "cases":
            console.print(f"{row['what']} = {row['size']:,}, {row['engine']}: {row['rps']:,}/s")


def draw(rows: list[Row]) -> plt.Figure:
    """Draw the cases as distributions, and the cost per request over what grows."""
    figure, axes = plt.subplots(1, 4, figsize=(14, 3.6), layout="constrained", sharey=True)
    styles = {"replay": ("tab:blue", "o", "-"), "simpy": ("tab:orange", "s", "--")}
    for engine, (colour, marker, line) in styles.items():
        rps = np.sort(_rps(rows, "cases", engine, "reservation"))
        if len(rps):
            axes[0].plot(np.linspace(0, 100, len(rps)), rps, color=colour, linestyle=line, label=engine)
        for axis, name in zip(axes[1:], ("requests", "slices", "pipelines"), strict=True):
            points = [(row["size"], row["rps"]) for row in rows if row["what"] == name and row["engine"] == engine]
            axis.plot(*zip(*points, strict=True), color=colour, marker=marker, linestyle=line, label=engine)
            axis.set(xscale="log", xlabel={"slices": "slices per stage"}.get(name, name))
            axis.set_xticks(GROWTH[name], [f"{size:,}" for size in GROWTH[name]])
            axis.minorticks_off()
    axes[0].set(xlabel="reference cases (percentile)", ylabel="requests per second of CPU time", yscale="log")
    axes[1].legend()
    for axis in axes:
        axis.grid(alpha=0.3)
    return figure


def _rps(rows: list[Row], what: str, engine: str, policy: str) -> np.ndarray:
    return np.array(
        [row["rps"] for row in rows if (row["what"], row["engine"], row["policy"]) == (what, engine, policy)], float
    )


def _row(what: str, size: int, policy: str, engine: str, requests: int, rps: float) -> Row:
    return {"what": what, "size": size, "policy": policy, "engine": engine, "requests": requests, "rps": round(rps)}


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    run(app)
