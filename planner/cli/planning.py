"""Commands that plan: make a plan, explain what limits it."""

from collections import Counter
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from planner.cli.app import console, errors
from planner.files import load_plan, load_problem, save, write_csv
from planner.model import InputError, Pipeline, Plan, Problem
from planner.model.energy import watts_known
from planner.model.objective import MAXIMISED
from planner.model.placing import devices_used, locations
from planner.model.segments import kind_of, share_text

UNITS = {
    "max_min_throughput": "requests/s per weight",
    "max_weighted_throughput": "weighted requests/s",
    "least_cost": "per hour",
    "fewest_devices": "devices",
    "least_energy": "W",
    "most_accurate": "% accurate",
}


class Scheduler(StrEnum):
    """Schedulers by their names on the command line."""

    PIPELINES = "pipelines"
    NP = "np"
    DART_R = "dart-r"


class Against(StrEnum):
    """What a front weighs throughput against, or (ACCURACY) that cost is weighed against."""

    LATENCY = "latency"
    COST = "cost"
    ENERGY = "energy"
    ACCURACY = "accuracy"


PRICES = {
    Against.LATENCY: "slo_factor",
    Against.COST: "cost_per_hour",
    Against.ENERGY: "watts",
    Against.ACCURACY: "cost_per_hour",
}
SHOWN_DEVICES = 40  # so many devices are listed with what lies on them; a plan's file has them all

ProblemFile = Annotated[Path, typer.Argument(help="Problem file (JSON or TOML).")]
SchedulerOption = Annotated[Scheduler, typer.Option(help="pipelines, or a baseline: np, dart-r.")]
MethodOption = Annotated[
    str, typer.Option(help="auto (by size), milp, dynamic or columns; for np also closed-form (the ablation's rule).")
]
BackendOption = Annotated[
    str, typer.Option(help="highs, gurobi, cbc, or auto: Gurobi where its licence admits the model, else HiGHS.")
]
GapOption = Annotated[float, typer.Option(help="Relative gap at which to stop.")]
TimeLimitOption = Annotated[
    float | None, typer.Option(help="Seconds after which the best plan so far is taken. [default: none]")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command()(plan)
    app.command()(explain)
    app.command()(front)


def plan(
    problem: ProblemFile,
    scheduler: SchedulerOption = Scheduler.PIPELINES,
    method: MethodOption = "auto",
    backend: BackendOption = "highs",
    gap: GapOption = 1e-6,
    time_limit: TimeLimitOption = None,
    current: Annotated[Path | None, typer.Option(help="The plan in use; needs --max-started.")] = None,
    max_started: Annotated[int | None, typer.Option(help="Slices that may be started anew, from --current.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the plan (JSON) to this file.")] = None,
) -> None:
    """Make the best plan for a problem, check it, and show it with its proven gap."""
    from planner.planning import make_plan, slices_started  # solvers take a moment to import

    asked = load_problem(problem)
    in_use = load_plan(current) if current else None
    with errors.status(f"planning {len(asked.planned.dnns)} DNNs with {scheduler}"):
        made = make_plan(
            asked,
            scheduler.value,
            method=method,
            backend=backend,
            gap=gap,
            time_limit_s=time_limit,
            current=in_use,
            max_started=max_started,
        )
    show(asked, made)
    if in_use:
        console.print(f"slices started anew: {slices_started(in_use, made)}", highlight=False)
    if out:
        save(made, out)
        console.print(f"written to {out}", highlight=False, soft_wrap=True)


def explain(problem: ProblemFile) -> None:
    """Tell what limits a problem: the least SLO of every DNN, and what one more device of each type is worth."""
    from planner.planning import explain as find_limits

    asked = load_problem(problem)
    with errors.status("looking for what limits the plan"):
        found = find_limits(asked)
    for dnn, least in zip(asked.planned.dnns, found.least_slo, strict=True):
        console.print(
            f"{dnn.name}: SLO {dnn.slo_us / 1000:.2f} ms; the least possible is {least}",
            highlight=False,
            soft_wrap=True,
        )
    unit = UNITS[asked.options.objective]
    console.print(f"no plan is better than {found.bound:.3f} {unit}", highlight=False, soft_wrap=True)
    for device, worth in found.worth.items():
        console.print(f"one more {device} is worth {worth:+.3f} {unit}", highlight=False, soft_wrap=True)


def front(
    problem: ProblemFile,
    against: Annotated[
        Against, typer.Option(help="Throughput against latency (all SLOs), cost or energy; or cost against accuracy.")
    ],
    factors: Annotated[
        str, typer.Option(help="Against latency: what to multiply every SLO with.")
    ] = "0.5,0.6,0.7,0.8,0.9,1,1.25,1.5,2",
    steps: Annotated[int, typer.Option(min=1, help="Else: throughputs up to the largest, or budgets.")] = 10,
    backend: BackendOption = "highs",
    gap: GapOption = 1e-6,
    time_limit: TimeLimitOption = None,
    out: Annotated[Path | None, typer.Option(help="Write the front (CSV) to this file.")] = None,
) -> None:
    """Show what more throughput costs in latency, money or energy, or more accuracy in money: the Pareto front."""
    from planner.planning import accuracy_front, cost_front, energy_front, latency_front

    asked = load_problem(problem)
    with errors.status(f"planning the front against {against}"):
        options = {"backend": backend, "gap": gap, "time_limit_s": time_limit}
        if against is Against.LATENCY:
            points = latency_front(asked, _numbers(factors), **options)
        else:
            fronts = {Against.COST: cost_front, Against.ENERGY: energy_front, Against.ACCURACY: accuracy_front}
            points = fronts[against](asked, steps, **options)
    price = PRICES[against]
    beside = [_beside(asked, against, point.plan) for point in points]
    rows = [
        (f"{point.price:.6g}", f"{point.throughput_rps:.6f}", f"{point.plan.gap:.1e}", *other.values())
        for point, other in zip(points, beside, strict=True)
    ]
    table = Table(price, "requests/s per weight", "gap", *beside[0], box=None, header_style="bold")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    if out:
        write_csv(out, [(price, "throughput_rps", "gap", *beside[0]), *rows])


def _beside(problem: Problem, against: Against, made: Plan) -> dict[str, str]:
    """Return accuracy where it was asked for, cost beside energy and energy beside cost where both are known."""
    types = problem.cluster.device_types
    if against is Against.ACCURACY:
        return {"accuracy_percent": f"{made.value:.6g}"}
    if against is Against.COST and watts_known(problem, [device.name for device in types]):
        return {"watts": f"{made.watts or 0.0:.6g}"}
    if against is Against.ENERGY and all(device.price_per_hour is not None for device in types):
        used = devices_used(problem, made)
        return {"cost_per_hour": f"{sum((device.price_per_hour or 0.0) * used[device.name] for device in types):.6g}"}
    return {}


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--factors: expected numbers like 0.5,1,2, got {text!r}") from None


def show(problem: Problem, made: Plan) -> None:
    """Print a plan: a row per pipeline, what it uses, and the proof."""
    table = Table("DNN", "SLO (ms)", "pipeline", "batch", "latency (ms)", "requests/s", box=None, header_style="bold")
    for dnn in problem.planned.dnns:
        for number, pipeline in enumerate(made.of(dnn.name)):
            table.add_row(
                dnn.name if number == 0 else "",
                f"{dnn.slo_us / 1000:.2f}" if number == 0 else "",
                f"{pipeline.variant}: " * (len(dnn.variants) > 1) + _stages(pipeline),
                str(pipeline.batch),
                f"{pipeline.latency_us / 1000:.2f}",
                f"{pipeline.throughput_rps:.2f}",
            )
    console.print(table)
    for line in (_devices(problem, made), *_tenants(problem, made), *_neighbours(made), *_watts(made), *_worth(made)):
        console.print(line, highlight=False, soft_wrap=True)
    bound = "at most" if MAXIMISED[problem.options.objective] else "at least"
    console.print(
        f"objective {made.value:.3f} {UNITS[problem.options.objective]}, {bound} {made.bound:.3f} possible "
        f"(gap {made.gap:.1e}, {made.status}), {made.seconds:.2f} s with {made.method}"
        + (f" on {made.backend}" if made.backend != "none" else ""),
        highlight=False,
        soft_wrap=True,
    )


def _stages(pipeline: Pipeline) -> str:
    """Write stages as ``8 × L4 [0-5] → 24 × T4 1/2 [6-9]``: slices, device, share, blocks, and batch if it differs."""
    return " → ".join(
        f"{stage.slices} × {stage.place} "
        f"[{stage.first_block}-{stage.last_block - 1}]"
        f"{f' in parts of {stage.batch}' if stage.batch != pipeline.batch else ''}"
        for stage in pipeline.stages
    )


def _worth(made: Plan) -> Iterator[str]:
    """Yield what the plan costs and how accurate it serves each DNN, where these are known."""
    if made.accuracy:
        yield "accuracy: " + ", ".join(f"{name} {percent:.2f} %" for name, percent in made.accuracy.items())
    if made.cost_per_hour is not None:
        yield f"cost per hour: {made.cost_per_hour:g}"


def _devices(problem: Problem, made: Plan) -> str:
    used = devices_used(problem, made)
    parts = (f"{used[device.name]} of {device.count} {device.name}" for device in problem.cluster.device_types)
    return "devices in use: " + ", ".join(parts)


def _tenants(problem: Problem, made: Plan) -> Iterator[str]:
    """Yield a line per device of a plan whose DNNs share devices: its segments, and what runs on them."""
    if problem.options.device_sharing == "own" or devices_used(problem, made).total() > SHOWN_DEVICES:
        return
    held: dict[tuple[str, int, int], Counter[tuple[int, str, str]]] = {}
    for one in locations(problem, made):
        pipeline = made.pipelines[one.pipeline]
        stage = pipeline.stages[one.stage]
        blocks = f" [{stage.first_block}-{stage.last_block - 1}]" if len(pipeline.stages) > 1 else ""
        segment = one.slot, share_text(kind_of(stage.share)), f"{pipeline.dnn}{blocks}"
        held.setdefault((one.device, one.server, one.number), Counter())[segment] += 1
    for (device, server, number), segments in sorted(held.items()):
        parts = (
            f"{name} {kind} at {slot}{f' in {count} processes' if count > 1 else ''}"
            for (slot, kind, name), count in sorted(segments.items())
        )
        yield f"  {device} {number} (server {server}): {', '.join(parts)}"


def _neighbours(made: Plan) -> Iterator[str]:
    words = {
        "isolated": "its segments are isolated",
        "measured": "latencies were measured beside such neighbours",
        "assumed": "latencies assume that neighbours matter no more than in the profiles",
    }
    for device, ground in made.neighbours.items():
        yield f"unlike stages share devices of {device}: {words[ground]}"


def _watts(made: Plan) -> Iterator[str]:
    if made.watts is not None:
        yield f"draws {made.watts:.1f} W, {made.joules_per_thousand or 0.0:.1f} J per thousand requests"
