#!/usr/bin/env python
"""Measure the simulator: requests per second of CPU time, of replay and the event engine.

Over a sample of the reference cases where ``--data`` names PPipe's published data, and always on systems that grow:
with the requests, the slices per stage and the pipelines. What is measured is `simulate` alone, records and checks
included; compiling is not, and neither are reading and folding arrivals, whose share is stated. Each figure is the
best of a few runs.
"""

import csv
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import matplotlib.pyplot as plt
import numpy as np
import typer

from planner.cli.app import console, new_app, progress, run
from planner.files import replacing
from planner.files.ppipe import read_plan, read_problem
from planner.model import InputError
from planner.profiling.profiler import processor_name
from simulator.dispatch.system import System
from simulator.engine import build_system, simulate
from simulator.engine.run import EngineName
from simulator.workload import fold, read_maf21

ENGINES: tuple[EngineName, ...] = ("replay", "events")
OF_POLICY: dict[str, tuple[EngineName, ...]] = {"reservation": ENGINES, "reactive": ("events",)}
POLICIES = {"RESERVATION": "reservation", "SLA_AWARE": "reactive"}
REPEATS = {"replay": 25, "events": 5}

app = new_app("Measure the simulator's speed.")
Row = dict[str, Any]
COLUMNS = ("what", "size", "policy", "engine", "requests", "rps")


@app.command()
def bench(
    data: Annotated[Path | None, typer.Option(help="PPipe's published data, for the reference cases.")] = None,
    every: Annotated[int, typer.Option(help="Take every n-th reference case; 1 for all.", min=1)] = 16,
    out: Annotated[Path, typer.Option(help="Folder for the table and the picture.")] = Path("out/bench"),
) -> None:
    """Measure, print a summary, write bench.csv and bench.png."""
    console.print(
        f"machine: {processor_name()}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} before the start"
    )
    warm_up()
    rows = cases(data, every) if data is not None else []
    rows += growth()
    with replacing(out / "bench.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    summarise(rows)
    figure = draw(rows)
    with replacing(out / "bench.png") as temporary:
        figure.savefig(temporary, dpi=150)
    console.print(f"written to {out / 'bench.csv'} and {out / 'bench.png'}")


def warm_up() -> None:
    """Compile, or load what an earlier run has compiled, and say how long that took."""
    start = time.process_time()
    for policy, engines in OF_POLICY.items():
        for engine in engines:
            simulate(growing(batch=2), np.arange(10), policy=policy, engine=engine)
    console.print(f"compiling, or loading from the cache: {time.process_time() - start:.1f} s")


def measure(system: System, arrivals_us: np.ndarray, policy: str, engine: EngineName) -> float:
    """Return requests per second of CPU time, the best of a few runs."""
    best_s = float("inf")
    for _ in range(REPEATS[engine]):
        start = time.process_time()
        simulate(system, arrivals_us, policy=policy, engine=engine)
        best_s = min(best_s, time.process_time() - start)
    return len(arrivals_us) / best_s


def cases(data: Path, every: int) -> list[Row]:
    """Measure every n-th reference case, and state what reading and folding their arrivals costs beside the run."""
    spent_s = dict.fromkeys(("reading", "folding", "simulating"), 0.0)

    @cache
    def system_of(plan: str, index: int) -> System:
        path = next((data / "plans").rglob(plan))
        problem = read_problem(path, data)
        return build_system(problem, read_plan(path, problem), problem.dnns[index].name)

    @cache
    def times_of(trace: str) -> np.ndarray:
        with timed(spent_s, "reading"):
            return read_maf21(data / "simulator" / f"{trace}.csv.gz").times_s

    rows: list[Row] = []
    files = sorted((data / "simulator").glob("cases_*.csv"))
    if not files:
        raise InputError(f"{data}: no simulator/cases_*.csv there; --data expects PPipe's published data")
    found = [row for path in files for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines())]
    sample = found[::every]
    names = ", ".join(path.name for path in files)
    console.print(f"reference cases: {len(sample)} of {len(found)}, one row in {every} of {names}", soft_wrap=True)
    with progress() as bar:
        for case in bar.track(sample, description="reference cases"):
            system, times_s, policy = system_of(case["plan"], int(case["dnn_id"])), times_of(case["trace"]), case["lb"]
            with timed(spent_s, "folding"):
                arrivals_us = fold(times_s, float(case["load_rps"]), 30.0)
            name = f"{case['plan']}, DNN {case['dnn_id']}, {case['trace']} at {case['load_factor']} %"
            engines = OF_POLICY[POLICIES[policy]]
            for engine in engines:
                rps = measure(system, arrivals_us, POLICIES[policy], engine)
                rows.append(_row("cases", name, POLICIES[policy], engine, len(arrivals_us), rps))
                if engine == engines[0]:
                    spent_s["simulating"] += len(arrivals_us) / rps
    whole_s = sum(spent_s.values())
    shares = ", ".join(f"{name} {seconds / whole_s:.0%}" for name, seconds in spent_s.items())
    console.print(f"CPU time of these cases on the faster engine, each trace read once: {whole_s:.2f} s: {shares}")
    return rows


@contextmanager
def timed(spent_s: dict[str, float], name: str) -> Iterator[None]:
    """Add the CPU time of a block to what was spent."""
    start = time.process_time()
    yield
    spent_s[name] += time.process_time() - start


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


def growth() -> list[Row]:
    """Measure at 90 % load while one thing grows."""
    rows: list[Row] = []
    points = [(name, size) for name, sizes in GROWTH.items() for size in sizes]
    with progress() as bar:
        for name, size in bar.track(points, description="growing systems"):
            system = SYSTEMS[name](size)
            requests = size if name == "requests" else 50_000
            capacity_per_us = float((system.slices[:, 0] * system.batch / system.latency_us[:, 0, -1]).sum())
            gaps_us = np.random.default_rng(1).exponential(1 / (0.9 * capacity_per_us), requests)
            arrivals_us = np.cumsum(gaps_us).astype(np.int64)
            for engine in ENGINES:
                if engine == "replay" or requests <= 1_000_000:
                    rps = measure(system, arrivals_us, "reservation", engine)
                    rows.append(_row(name, size, "reservation", engine, requests, rps))
    return rows


def summarise(rows: list[Row]) -> None:
    """Print the cases' median and worst, and the rest row by row."""
    for policy, engines in OF_POLICY.items():
        for engine in engines:
            measured = _rows(rows, "cases", engine, policy)
            if measured:
                worst = min(measured, key=lambda row: row["rps"])
                median = np.median([row["rps"] for row in measured])
                console.print(f"{policy}, {engine}: {len(measured)} cases, median {median:,.0f}/s")
                where = f"{worst['size']} ({worst['requests']:,} requests)"
                console.print(f"    worst {worst['rps']:,}/s: {where}", soft_wrap=True)
    for row in rows:
        if row["what"] != "cases":
            console.print(f"{row['what']} = {row['size']:,}, {row['engine']}: {row['rps']:,}/s")


def draw(rows: list[Row]) -> plt.Figure:
    """Draw the cases as distributions, and the cost per request over what grows."""
    figure, axes = plt.subplots(1, 4, figsize=(14, 3.6), layout="constrained", sharey=True)
    styles = {"replay": ("tab:blue", "o", "-"), "events": ("tab:orange", "s", "--")}
    for engine, (colour, marker, line) in styles.items():
        rps = sorted(row["rps"] for row in _rows(rows, "cases", engine, "reservation"))
        if rps:
            axes[0].plot(np.linspace(0, 100, len(rps)), rps, color=colour, linestyle=line, label=engine)
        for axis, name in zip(axes[1:], ("requests", "slices", "pipelines"), strict=True):
            points = [(row["size"], row["rps"]) for row in rows if row["what"] == name and row["engine"] == engine]
            axis.plot(*zip(*points, strict=True), color=colour, marker=marker, linestyle=line, label=engine)
            axis.set(xscale="log", xlabel={"slices": "slices per stage"}.get(name, name))
            axis.set_xticks(
                GROWTH[name], [f"{size:,}" if size < 10_000 else f"{size // 1000:,}k" for size in GROWTH[name]]
            )
            axis.minorticks_off()
    axes[0].set(xlabel="reference cases (percentile)", ylabel="requests per second of CPU time", yscale="log")
    axes[1].legend()
    for axis in axes:
        axis.grid(alpha=0.3)
    return figure


def _rows(rows: list[Row], what: str, engine: str, policy: str) -> list[Row]:
    return [row for row in rows if (row["what"], row["engine"], row["policy"]) == (what, engine, policy)]


def _row(what: str, size: object, policy: str, engine: str, requests: int, rps: float) -> Row:
    return {"what": what, "size": size, "policy": policy, "engine": engine, "requests": requests, "rps": round(rps)}


if __name__ == "__main__":
    run(app)
