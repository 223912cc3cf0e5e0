#!/usr/bin/env python3
"""Hold predictions against measurements on this machine: two one-core slices, a two-stage plan of each model.

Profiles each model's blocks on one core, cuts it where the predicted throughput is best, tries that cut (pipelined over
one batch at a time), then runs the plan under Poisson arrivals at several loads and compares every run with its
simulation. Load 1 is what the cut serves when it always has work. Every run begins with a rehearsal: other arrivals at
the same load, by which the workers that will be measured are timed, for newly opened sessions differ by several
percent. The prediction rests on these times, and on nothing that comes after them. Two models, two loads and five runs
of 10 s each take about eight minutes on a machine that does nothing else.

Rows go to OUT/comparison.csv, the differences are drawn in OUT/comparison.png.
"""

import os
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx_ir as ir
import pandas as pd
import typer
from rich.table import Table

from planner.cli.app import console, new_app, run
from planner.cli.profile_model import profile_model
from planner.files import replacing, save, write_text
from planner.model import InputError, Network, Plan, Problem, Profile
from planner.profiling import DeviceAtHand, Effort, build_model
from planner.profiling.profiler import processor_name
from simulator.engine import build_system
from simulator.executor import Execution, Settings, check_settings, execute
from simulator.executor.compare import compare
from simulator.executor.measure import measure
from simulator.executor.pareto import SplitPoint, WireLink, split_points
from simulator.executor.trials import Trial, plan_of_point, try_point
from simulator.workload import poisson
from simulator.workload.arrivals import ArrivalsUs

DEVICE = "core"
BARS = {"throughput": 5.0, "p50 latency": 10.0, "p99 latency": 25.0, "attainment": 2.0}  # percent, and points
RATIO_BAR = 1.7
REHEARSAL_S, PAUSE_S = 8.0, 1.0
REHEARSAL_SEED = 1_000_000  # added to a run's own
app = new_app("Prediction against measurement.")


@dataclass(frozen=True)
class Subject:
    """A model cut in two: how its blocks were timed, the cut as tried, and how to run it."""

    name: str
    profile: Profile
    model: ir.Model
    point: SplitPoint
    settings: Settings

    @property
    def served_rps(self) -> float:
        """What the cut serves when it always has work, as measured: load 1."""
        assert self.point.measured is not None
        return self.point.measured.throughput_rps

    @property
    def pipelined_over_sequential(self) -> float:
        """How many times as much the cut serves as with one batch under way at a time; two is the limit."""
        assert self.point.sequential is not None
        return self.served_rps / self.point.sequential.throughput_rps


@app.command()
def main(
    models: Annotated[list[str], typer.Argument(help="Models by name.")] = ["resnet50", "mobilenet_v2"],  # noqa: B006
    loads: Annotated[str, typer.Option(help="Load factors.")] = "0.5,0.8",
    runs: Annotated[int, typer.Option(help="Runs per load, each with a seed of its own.")] = 5,
    seconds: Annotated[float, typer.Option(help="Length of a run, s.")] = 10.0,
    slo_factor: Annotated[float, typer.Option(help="The SLO, in planned latencies.")] = 5.0,
    realtime: Annotated[
        bool, typer.Option(help="Frontend at real-time priority; where the system allows it unless --no-realtime.")
    ] = True,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("out/bench_executor"),
) -> None:
    """Profile, cut, run, compare."""
    settings = Settings(warmup_s=REHEARSAL_S + PAUSE_S, realtime=realtime)
    rows: list[dict[str, Any]] = []
    for name in models:
        subject = _prepare(name, settings, out)
        for load in (float(text) for text in loads.split(",")):
            for seed in range(runs):
                arrivals_us = _with_rehearsal(load * subject.served_rps, seconds, seed)
                rows += _run(subject, slo_factor, arrivals_us, {"load": load, "seed": seed})
                _say(f"{name} at load {load:g}: run {seed + 1} of {runs} done")
            write_text(out / "comparison.csv", pd.DataFrame(rows).to_csv(index=False))
    table = pd.DataFrame(rows)
    _show(table)
    _draw(table, out / "comparison.png")
    _say(f"written to {out}: comparison.csv, comparison.png")


def _prepare(name: str, settings: Settings, out: Path) -> Subject:
    """Profile a model, and try the cut with the best predicted throughput."""
    _say(f"{name}: profiling on one core of {_machine()}")
    effort = Effort(cap_s=1.0, clock="cpu")
    profiled = profile_model(build_model(name), name, at_hand=[DeviceAtHand(DEVICE)], batches=(1,), effort=effort)
    profile, model = profiled.profile, profiled.model
    save(profile, out / f"{name}.profile.json")
    points = split_points(profile, (DEVICE, DEVICE), WireLink(0, 1000))
    best = max((point for point in points if point.cut is not None), key=lambda point: point.predicted.throughput_rps)
    settings = _permitted(settings, best, profile)
    tried = try_point(best, profile, model, settings, Trial(seconds=4.0))
    subject = Subject(name, profile, model, tried, settings)
    _say(
        f"{name}: cut {tried.name}, predicted {tried.predicted.throughput_rps:.2f} requests/s, measured "
        f"{subject.served_rps:.2f}, {subject.pipelined_over_sequential:.2f} times the sequential (bar: at least "
        f"{RATIO_BAR}, at most 2 is possible: more tells of a busy machine)"
    )
    return subject


def _permitted(settings: Settings, point: SplitPoint, profile: Profile) -> Settings:
    """Return the settings, without real-time priority where the system does not allow it."""
    problem, plan = plan_of_point(point, profile, None)
    try:
        check_settings(settings, build_system(problem, plan, profile.name))
    except InputError as error:
        if not settings.realtime:
            raise
        _say(f"note: {error}")
        return _permitted(replace(settings, realtime=False), point, profile)
    _say(f"{profile.name}: the frontend runs at {'real-time' if settings.realtime else 'normal'} priority")
    return settings


def _with_rehearsal(rate_rps: float, seconds: float, seed: int) -> ArrivalsUs:
    """Return the arrivals of a rehearsal, and those of a run after a pause."""
    rehearsal_us = poisson(rate_rps, REHEARSAL_S, np.random.default_rng(REHEARSAL_SEED + seed))
    run_us = poisson(rate_rps, seconds, np.random.default_rng(seed))
    return np.concatenate([rehearsal_us, run_us + round((REHEARSAL_S + PAUSE_S) * 1e6)])


def _plan(point: SplitPoint, profile: Profile, slo_us: float, hop_us: float = 0.0) -> tuple[Problem, Plan]:
    """Return a cut as a plan with an SLO, its only hop taking so long."""
    problem, plan = plan_of_point(point, profile, None)
    network = Network(problem.cluster.network.bandwidth_gbps, hop_us)
    dnn = replace(problem.dnns[0], slo_us=slo_us)
    return replace(problem, cluster=replace(problem.cluster, network=network), dnns=(dnn,)), plan


def _as_rehearsed(done: Execution, profile: Profile, plan: Plan) -> tuple[Profile, float]:
    """Return the profile as a run's rehearsal shows it, and what handing a batch over takes in all (µs).

    Blocks are timed alone, on a machine that does nothing else; here two stages, and the frontend between them, share
    two cores. A batch occupies a slice from when it is there and the one before is done until it is done; its
    hand-overs are the rest of its way, to the first stage, between stages and back, and the plan's one hop stands for
    them. How long batches wait for each other is left to the simulation.
    """
    until_us = REHEARSAL_S * 1e6
    scaled = np.array(profile.table(DEVICE, 1).latency_us, float)
    for number, stage in enumerate(plan.pipelines[0].stages):
        own = [visit for visit in done.journal.visits() if visit.slice.stage == number and visit.end_us < until_us]
        occupied_us = _trimmed_mean([now.end_us - max(now.arrive_us, before.end_us) for before, now in pairwise(own)])
        scaled[:, stage.first_block : stage.last_block] *= occupied_us / stage.latency_us
    latency_us = tuple(tuple(max(1, round(value)) for value in row) for row in scaled.tolist())
    hops = [hop for hop in done.journal.hops if hop.end_us < until_us]
    ways = range(len(plan.pipelines[0].stages) + 1)
    hop_us = sum(_trimmed_mean([hop.end_us - hop.start_us for hop in hops if hop.stage == way]) for way in ways)
    return replace(profile, tables=(replace(profile.table(DEVICE, 1), latency_us=latency_us),)), hop_us


def _trimmed_mean(times_us: list[int]) -> float:
    """Return the mean without the 2 % at either end: waits follow means, but other programs make rare long times."""
    ordered = np.sort(times_us)
    cut = len(ordered) // 50
    return float(ordered[cut : len(ordered) - cut].mean())


def _run(subject: Subject, slo_factor: float, arrivals_us: ArrivalsUs, what: dict[str, Any]) -> list[dict[str, Any]]:
    """Run once, and predict the part after the rehearsal; return a row per quantity."""
    slo_us = slo_factor * subject.point.predicted.latency_us
    problem, plan = _plan(subject.point, subject.profile, slo_us)
    done = execute(problem, plan, subject.name, {subject.name: subject.model}, arrivals_us, subject.settings)
    timed, hop_us = _as_rehearsed(done, subject.profile, plan)
    points = split_points(timed, (DEVICE, DEVICE), WireLink(0, 1000))
    point = next(each for each in points if each.name == subject.point.name)
    system = build_system(*_plan(point, timed, slo_us, hop_us), subject.name)
    measurement, comparison = measure(done), compare(replace(done, system=system))
    common = {
        "machine": _machine(),
        "realtime": subject.settings.realtime,
        "model": subject.name,
        **what,
        "pipelined_over_sequential": subject.pipelined_over_sequential,
        "stages_ms": " ".join(f"{stage_us / 1000:.2f}" for stage_us in system.latency_us[0, :, 1]),
        "hand_overs_ms": hop_us / 1000,
        "requests": len(arrivals_us),
        "frontend_us_per_batch": done.frontend_us_per_batch,
        "cpu_per_busy": min(each.cpu / each.busy for each in measurement.slices),
        "load_average": done.load_average[1],
    }
    return [
        common
        | {"quantity": row.quantity, "unit": row.unit, "predicted": row.predicted, "measured": row.measured}
        | {"difference": row.difference * (1 if row.kind == "points" else 100), "text": row.text}
        for row in comparison.rows
    ]


def _show(rows: pd.DataFrame) -> None:
    """Print the differences of all runs, how many are within their bar, and whether the median over runs is."""
    for (name, load), own in rows.groupby(["model", "load"], sort=False):
        _say(
            f"\n{name} at load {load:g}: the frontend took {own.frontend_us_per_batch.median():.0f} µs of CPU time a "
            f"batch, workers had their cores for {own.cpu_per_busy.min():.0%} of their busy time"
        )
        table = Table("", "predicted", "measured", "differences", "bar", "within", "median", box=None, pad_edge=False)
        for quantity, each in own.groupby("quantity", sort=False):
            bar = BARS.get(str(quantity))
            within = 0 if bar is None else int((each.difference.abs() <= bar).sum())
            table.add_row(
                str(quantity),
                *(f"{each[column].median():.4g}" for column in ("predicted", "measured")),
                ", ".join(each.text),
                "" if bar is None else f"{bar:g}",
                "" if bar is None else f"{within} of {len(each)}",
                "" if bar is None else "pass" if abs(each.difference.median()) <= bar else "FAIL",
            )
        console.print(table)


def _draw(rows: pd.DataFrame, path: Path) -> None:
    """Draw the differences of all runs against their bars."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(BARS), figsize=(11, 3.4), layout="constrained")
    cases = list(dict.fromkeys(zip(rows.model, rows.load, strict=True)))
    for ax, (quantity, bar) in zip(axes, BARS.items(), strict=True):
        ax.axhspan(-bar, bar, color="#009e73", alpha=0.15, linewidth=0, label="bar")
        ax.axhline(0, color="0.4", linewidth=0.8)
        for place, (name, load) in enumerate(cases):
            own = rows[(rows.model == name) & (rows.load == load) & (rows.quantity == quantity)]
            offsets = np.linspace(-0.15, 0.15, len(own)) if len(own) > 1 else np.zeros(1)
            ax.plot(place + offsets, own.difference, "o", color="#0072b2", markersize=4, alpha=0.8)
        ax.set_xticks(
            range(len(cases)), [f"{name} {load:g}" for name, load in cases], fontsize=7, rotation=30, ha="right"
        )
        ax.set_xlim(-0.5, len(cases) - 0.5)
        ax.set_ylim(*(side * max(1.3 * bar, 1.1 * np.abs(ax.get_ylim()).max()) for side in (-1, 1)))
        ax.set(title=quantity, ylabel="points" if quantity == "attainment" else "% of predicted")
        ax.grid(axis="y", alpha=0.3)
    figure.suptitle("Measured less predicted (shaded: the bar)")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)
    plt.close(figure)


def _machine() -> str:
    """Return what this machine is, and how busy."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{processor_name()}, {cores} cores, load average {os.getloadavg()[0]:.1f}"


def _say(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    run(app)
