#!/usr/bin/env python3
"""Hold predictions against measurements on this machine: two one-core slices, a two-stage plan of each model.

Profiles each model's blocks on one core, cuts it where the predicted throughput is best, tries that cut (pipelined over
one batch at a time), then runs the plan under Poisson arrivals at several loads, with the frontend at real-time and at
normal priority, and compares every run with its simulation. Load 1 is what the cut serves when it always has work.

Every run begins with a rehearsal: other arrivals at the same load, by which stages are timed and what it costs to hand
batches over and how service times vary is found. Each run is predicted from its own rehearsal, on the very workers that
are then measured (newly opened sessions differ by several percent), with these times as they vary and, to see what that
is worth, with their means alone; and from the rehearsal of the run before it, on other sessions. No prediction rests on
anything that comes after the rehearsal.

A run says nothing about predictions whose workers had their cores for less than 97 % of their busy time: it is set
aside, another seed is run in its place, up to as many again, and figures are shown without such runs and with them.

A run takes about 24 s. Rows go to OUT/comparison.csv; what stands there is not run again, so that the same command goes
on where it stopped or was told to stop (--limit-s). The differences are drawn in OUT/comparison.png.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any, Literal

import numpy as np
import onnx_ir as ir
import pandas as pd
import typer
from rich.table import Table

from planner.cli.app import console, new_app, run
from planner.cli.profile_model import profile_model
from planner.files import load_profile, replacing, save, write_text
from planner.model import InputError, Plan, Problem, Profile
from planner.profiling import DeviceAtHand, Effort, build_model
from planner.profiling.profiler import processor_name
from simulator.engine import build_system
from simulator.executor import Execution, Settings, check_settings, execute
from simulator.executor.compare import compare
from simulator.executor.hand_over import LEAST_BATCHES, HandOver, computed_us, hand_over
from simulator.executor.measure import measure
from simulator.executor.pareto import Served, SplitPoint, WireLink, split_points
from simulator.executor.trials import Trial, plan_of_point, try_point
from simulator.executor.variation import service_factors
from simulator.workload import poisson
from simulator.workload.arrivals import ArrivalsUs

DEVICE = "core"
BARS = {"throughput": 2.0, "p50 latency": 5.0, "p99 latency": 15.0, "attainment": 1.0}  # percent, and points
RATIO_BAR = 1.7
LEAST_CPU_PER_BUSY = 0.97  # of a worker's busy time that it had its core
REHEARSAL_S, PAUSE_S = 8.0, 1.0
REHEARSAL_SEED = 1_000_000  # added to a run's own
app = new_app("Prediction against measurement.")


@dataclass(frozen=True)
class Subject:
    """A model cut in two: how its blocks were timed, and the cut as tried."""

    name: str
    profile: Profile
    model: ir.Model
    point: SplitPoint

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


@dataclass(frozen=True)
class Rehearsed:
    """What a rehearsal tells: how long each stage computes on average, what handing over costs, how times vary."""

    computed_us: tuple[float, ...]
    costs: HandOver
    factors: tuple[float, ...]

    def to_text(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_text(text: str) -> "Rehearsed":
        """Read what `to_text` wrote."""
        found = json.loads(text)
        costs = found["costs"]
        ways, on_slice = (tuple(map(tuple, costs[name])) for name in ("ways_us", "on_slice_us"))
        read = HandOver(ways, on_slice, costs["frontend_us"], costs["batches"])
        return Rehearsed(tuple(found["computed_us"]), read, tuple(found["factors"]))


@app.command()
def main(
    models: Annotated[list[str], typer.Argument(help="Models by name.")] = ["resnet50", "mobilenet_v2"],  # noqa: B006
    loads: Annotated[str, typer.Option(help="Load factors.")] = "0.5,0.8",
    runs: Annotated[int, typer.Option(help="Runs per load and priority, each with a seed of its own.")] = 5,
    seconds: Annotated[float, typer.Option(help="Length of a run, s.")] = 10.0,
    slo_factor: Annotated[float, typer.Option(help="The SLO, in planned latencies.")] = 5.0,
    priority: Annotated[
        Literal["both", "realtime", "normal"],
        typer.Option(help="The frontend's; real-time where the system allows it."),
    ] = "both",
    limit_s: Annotated[float, typer.Option(help="Begin no run after so many seconds; 0 for no limit.")] = 0.0,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("out/bench_executor"),
) -> None:
    """Profile, cut, run, compare."""
    begin_s = perf_counter()
    path = out / "comparison.csv"
    rows: list[dict[str, Any]] = pd.read_csv(path).to_dict("records") if path.exists() else []
    if any('"factors"' not in row["rehearsed"] for row in rows):
        raise InputError(f"{path}: runs foretold from means alone, as before; move it away, or choose another --out")
    asked = {"both": (True, False), "realtime": (True,), "normal": (False,)}[priority]
    left = 0
    for name in models:
        subject = _subject(name, out)
        priorities = [realtime for realtime in asked if not realtime or _permitted(subject)]
        for load, realtime, seed in product(map(float, loads.split(",")), priorities, range(2 * runs)):
            case = {"model": name, "realtime": realtime, "load": load}
            what = case | {"seed": seed}
            if _runs(rows, what) or _runs([row for row in rows if not _aside(row)], case) >= runs:
                continue
            if limit_s and perf_counter() - begin_s > limit_s:
                left += seed < runs
                continue
            arrivals_us = _with_rehearsal(load * subject.served_rps, seconds, seed)
            rows += _run(subject, slo_factor, arrivals_us, what, _rehearsed_before(rows, what))
            write_text(path, pd.DataFrame(rows).to_csv(index=False))
            _say(
                f"{name} at load {load:g}, {_priority(realtime)}: seed {seed} done, workers had their cores for "
                f"{rows[-1]['cpu_per_busy']:.0%} of their busy time{' and it is set aside' if _aside(rows[-1]) else ''}"
            )
    table = pd.DataFrame(rows)
    _show(table)
    counted = table[~table.apply(_aside, axis=1)]
    if not counted.empty:
        _draw(counted, out / "comparison.png")
    _say(f"written to {out}: comparison.csv{', no picture' if counted.empty else ', comparison.png'}")
    if left:
        _say(f"{left} runs are left, or more: the same command goes on with them")


def _aside(row: Mapping[str, Any]) -> bool:
    """Whether a row is of a run that says nothing about predictions: other programs had its workers' cores."""
    return bool(row["cpu_per_busy"] < LEAST_CPU_PER_BUSY)


def _runs(rows: Sequence[Mapping[str, Any]], what: Mapping[str, Any]) -> int:
    """Return how many runs there are of a kind."""
    return len({row["seed"] for row in rows if all(row[key] == value for key, value in what.items())})


def _priority(realtime: bool) -> str:
    return "frontend at real-time priority" if realtime else "frontend at normal priority"


def _subject(name: str, out: Path) -> Subject:
    """Return a model's profile and cut as an earlier call left them in ``out``, else make them."""
    cut, profile = out / f"{name}.cut.json", out / f"{name}.profile.json"
    if not cut.exists():
        return _prepare(name, out)
    found = json.loads(cut.read_text(encoding="utf-8"))
    served = {key: Served(**found.pop(key)) for key in ("predicted", "measured", "sequential")}
    return Subject(
        name, load_profile(profile), build_model(name), SplitPoint(**found | {"devices": (DEVICE, DEVICE)}, **served)
    )


def _rehearsed_before(rows: Sequence[dict[str, Any]], what: Mapping[str, Any]) -> Rehearsed | None:
    """Return the latest rehearsal of another run of the same model, load and priority."""
    same = [row for row in rows if all(row[key] == what[key] for key in ("model", "realtime", "load"))]
    return Rehearsed.from_text(same[-1]["rehearsed"]) if same else None


def _prepare(name: str, out: Path) -> Subject:
    """Profile a model, and try the cut with the best predicted throughput."""
    _say(f"{name}: profiling on one core of {_machine()}")
    effort = Effort(cap_s=1.0, clock="cpu")
    profiled = profile_model(build_model(name), name, at_hand=[DeviceAtHand(DEVICE)], batches=(1,), effort=effort)
    profile, model = profiled.profile, profiled.model
    save(profile, out / f"{name}.profile.json")
    points = split_points(profile, (DEVICE, DEVICE), WireLink(0, 1000))
    best = max((point for point in points if point.cut is not None), key=lambda point: point.predicted.throughput_rps)
    subject = Subject(name, profile, model, best)
    settings = Settings(realtime=_permitted(subject))
    subject = replace(subject, point=try_point(best, profile, model, settings, Trial(seconds=4.0)))
    write_text(out / f"{name}.cut.json", json.dumps(asdict(subject.point), indent=2) + "\n")
    _say(
        f"{name}: cut {best.name}, predicted {best.predicted.throughput_rps:.2f} requests/s, measured "
        f"{subject.served_rps:.2f}, {subject.pipelined_over_sequential:.2f} times the sequential (bar: at least "
        f"{RATIO_BAR}, at most 2 is possible: more tells of a busy machine)"
    )
    return subject


def _permitted(subject: Subject) -> bool:
    """Whether the system allows real-time priority."""
    problem, plan = plan_of_point(subject.point, subject.profile, None)
    try:
        check_settings(Settings(realtime=True), build_system(problem, plan, subject.name))
    except InputError as error:
        _say(f"note: {error}")
        return False
    return True


def _with_rehearsal(rate_rps: float, seconds: float, seed: int) -> ArrivalsUs:
    """Return the arrivals of a rehearsal, and those of a run after a pause."""
    rehearsal_us = poisson(rate_rps, REHEARSAL_S, np.random.default_rng(REHEARSAL_SEED + seed))
    run_us = poisson(rate_rps, seconds, np.random.default_rng(seed))
    return np.concatenate([rehearsal_us, run_us + round((REHEARSAL_S + PAUSE_S) * 1e6)])


def _plan(point: SplitPoint, profile: Profile, slo_us: float) -> tuple[Problem, Plan]:
    """Return a cut as a plan with an SLO."""
    problem, plan = plan_of_point(point, profile, None)
    return replace(problem, dnns=(replace(problem.dnns[0], slo_us=slo_us),)), plan


def _rehearsed(done: Execution) -> Rehearsed:
    """Return what the rehearsal of a run tells.

    Blocks are timed alone, on a machine that does nothing else; here two stages, and the frontend between them, share
    two cores. How long batches wait for each other is left to the simulation.
    """
    until_us = round(REHEARSAL_S * 1e6)
    costs = hand_over(done, until_us)
    if costs is None:
        raise InputError(f"fewer than {LEAST_BATCHES} batches in {REHEARSAL_S:g} s of rehearsal: choose a larger load")
    batches = [batch for batch in done.journal.batches if (batch.answered_us or until_us) < until_us]
    computed = tuple(computed_us(batches, stage) for stage in range(len(costs.on_slice_us[0])))
    return Rehearsed(computed, costs, service_factors(done, until_us))


def _timed(profile: Profile, plan: Plan, rehearsed: Rehearsed) -> Profile:
    """Return the profile with each stage's blocks scaled to what the stage computes."""
    scaled = np.array(profile.table(DEVICE, 1).latency_us, float)
    for stage, stage_us in zip(plan.pipelines[0].stages, rehearsed.computed_us, strict=True):
        scaled[:, stage.first_block : stage.last_block] *= stage_us / stage.latency_us
    latency_us = tuple(tuple(max(1, round(value)) for value in row) for row in scaled.tolist())
    return replace(profile, tables=(replace(profile.table(DEVICE, 1), latency_us=latency_us),))


def _run(
    subject: Subject, slo_factor: float, arrivals_us: ArrivalsUs, what: dict[str, Any], before: Rehearsed | None
) -> list[dict[str, Any]]:
    """Run once, and predict the part after the rehearsal from it and from an earlier one; a row per quantity."""
    slo_us = slo_factor * subject.point.predicted.latency_us
    problem, plan = _plan(subject.point, subject.profile, slo_us)
    settings = Settings(warmup_s=REHEARSAL_S + PAUSE_S, realtime=what["realtime"])
    done = execute(problem, plan, subject.name, {subject.name: subject.model}, arrivals_us, settings)
    measurement, own = measure(done), _rehearsed(done)
    rows = []
    alone = replace(own, factors=())
    for sessions, rehearsed in (("own", own), ("own, means alone", alone), ("other", before)):
        if rehearsed is None:
            continue
        timed = _timed(subject.profile, plan, rehearsed)
        point = next(
            p for p in split_points(timed, (DEVICE, DEVICE), WireLink(0, 1000)) if p.name == subject.point.name
        )
        system = build_system(*_plan(point, timed, slo_us), subject.name)
        comparison = compare(replace(done, system=system), rehearsed.costs, factors=rehearsed.factors)
        common = {
            "machine": _machine(),
            **what,
            "sessions": sessions,
            "pipelined_over_sequential": subject.pipelined_over_sequential,
            "stages_ms": " ".join(f"{stage_us / 1000:.2f}" for stage_us in rehearsed.computed_us),
            "hand_overs_ms": rehearsed.costs.per_batch_us(0) / 1000,
            "requests": len(arrivals_us),
            "frontend_us_per_batch": done.frontend_us_per_batch,
            "frontend_batches_per_s": own.costs.largest_rate,
            "cpu_per_busy": min(each.cpu / each.busy for each in measurement.slices),
            "load_average": done.load_average[1],
            "rehearsed": own.to_text(),
        }
        rows += [
            common
            | {"quantity": row.quantity, "unit": row.unit, "predicted": row.predicted, "measured": row.measured}
            | {"difference": row.difference * (1 if row.kind == "points" else 100), "text": row.text}
            for row in comparison.rows
        ]
    return rows


def _show(rows: pd.DataFrame) -> None:
    """Print the differences of the runs that count, how many are within their bar, and whether the median is.

    The last column is the median over all runs, those that were set aside included.
    """
    for (name, load, realtime, sessions), every in rows.groupby(["model", "load", "realtime", "sessions"], sort=False):
        own = every[every.cpu_per_busy >= LEAST_CPU_PER_BUSY]
        aside, of = every.seed.nunique() - own.seed.nunique(), every.seed.nunique()
        _say(f"\n{name} at load {load:g}, {_priority(realtime)}, foretold from {sessions} sessions")
        if aside:
            _say(
                f"{aside} of {of} runs set aside: their workers had their cores for less than {LEAST_CPU_PER_BUSY:.0%} "
                f"of their busy time (down to {every.cpu_per_busy.min():.0%})"
            )
        own = every if own.empty else own
        _say(
            f"hand-overs of "
            f"{own.hand_overs_ms.median():.2f} ms; the frontend took {own.frontend_us_per_batch.median():.0f} µs of "
            f"CPU time a batch (at most {own.frontend_batches_per_s.median():.0f} batches/s), workers had their cores "
            f"for {own.cpu_per_busy.min():.0%} of their busy time"
        )
        table = Table(
            "", "predicted", "measured", "differences", "bar", "within", "median", "with all", box=None, pad_edge=False
        )
        for quantity, each in own.groupby("quantity", sort=False):
            bar = BARS.get(str(quantity))
            of_all = every[every.quantity == quantity].difference.median()
            within = 0 if bar is None else int((each.difference.abs() <= bar).sum())
            table.add_row(
                str(quantity),
                *(f"{each[column].median():.4g}" for column in ("predicted", "measured")),
                ", ".join(each.text),
                "" if bar is None else f"{bar:g}",
                "" if bar is None else f"{within} of {len(each)}",
                "" if bar is None else "pass" if abs(each.difference.median()) <= bar else "FAIL",
                f"{of_all:+.1f}",
            )
        console.print(table)


def _draw(rows: pd.DataFrame, path: Path) -> None:
    """Draw the differences of runs against their bars."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(BARS), figsize=(11, 3.4), layout="constrained")
    rows = rows[rows.sessions == "own"]
    cases = list(dict.fromkeys(zip(rows.model, rows.load, rows.realtime, strict=True)))
    for ax, (quantity, bar) in zip(axes, BARS.items(), strict=True):
        ax.axhspan(-bar, bar, color="#009e73", alpha=0.15, linewidth=0, label="bar")
        ax.axhline(0, color="0.4", linewidth=0.8)
        for place, (name, load, realtime) in enumerate(cases):
            same = (rows.model == name) & (rows.load == load) & (rows.realtime == realtime)
            own = rows[same & (rows.quantity == quantity)]
            offsets = np.linspace(-0.15, 0.15, len(own)) if len(own) > 1 else np.zeros(1)
            ax.plot(place + offsets, own.difference, "o", color="#0072b2", markersize=4, alpha=0.8)
        ax.set_xticks(
            range(len(cases)),
            [f"{name} {load:g}{' rt' if realtime else ''}" for name, load, realtime in cases],
            fontsize=7,
            rotation=30,
            ha="right",
        )
        ax.set_xlim(-0.5, len(cases) - 0.5)
        ax.set_ylim(*(side * max(1.3 * bar, 1.1 * np.abs(ax.get_ylim()).max()) for side in (-1, 1)))
        ax.set(title=quantity, ylabel="points" if quantity == "attainment" else "% of predicted")
        ax.grid(axis="y", alpha=0.3)
    figure.suptitle(
        "Measured less predicted from the run's own rehearsal (shaded: the bar; rt: frontend at real-time priority)"
    )
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
