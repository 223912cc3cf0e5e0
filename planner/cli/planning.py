"""Commands that plan: make a plan, explain what limits it, draw the front of what it is weighed against."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planner.cli.app import errors, interrupted_by_signals
from planner.cli.output import Column, JsonOption, output
from planner.cli.plan_tables import show
from planner.cli.search_progress import told
from planner.files import load_plan, load_problem, save, write_csv
from planner.model import InputError, Plan, Problem
from planner.model.energy import watts_known
from planner.model.placing import devices_used
from planner.model.plan import Scheduler as SchedulerName
from planner.model.problem import UNITS

if TYPE_CHECKING:
    from planner.planning import Point


class Scheduler(StrEnum):
    """Schedulers by their names on the command line."""

    PIPELINES = "pipelines"
    NP = "np"
    DART_R = "dart-r"
    PER_TASK = "per-task"
    BETTER = "better"


class Against(StrEnum):
    """What a front weighs throughput against, or (ACCURACY) that cost is weighed against."""

    LATENCY = "latency"
    COST = "cost"
    ENERGY = "energy"
    ACCURACY = "accuracy"


HEADS = {
    Against.LATENCY: "factor on every SLO",
    Against.COST: "cost per hour",
    Against.ENERGY: "watts",
    Against.ACCURACY: "cost per hour",
}
PRICES = {
    Against.LATENCY: "slo_factor",
    Against.COST: "cost_per_hour",
    Against.ENERGY: "watts",
    Against.ACCURACY: "cost_per_hour",
}
LEAST_S = 0.01  # that planning is left of its limit, however long the problem took to read

ProblemFile = Annotated[Path, typer.Argument(help="Problem file (JSON or TOML).")]
SchedulerOption = Annotated[
    Scheduler,
    typer.Option(
        help="pipelines, or a baseline: np, dart-r; for given rates also per-task (a queue and slices for every task "
        "of an application) and better, which plans both ways and takes the better plan."
    ),
]
MethodOption = Annotated[
    str,
    typer.Option(
        help="auto (by size), milp, dynamic, decomposition or columns; for np also closed-form (the ablation's rule)."
    ),
]
BackendOption = Annotated[
    str,
    typer.Option(
        help="highs, gurobi, cbc (which tells none of its plans on the way, only its last), or auto: Gurobi where its "
        "licence admits the model, else HiGHS."
    ),
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
    best_effort: Annotated[
        bool,
        typer.Option(
            "--best-effort",
            help="Serve what can be served and say what cannot, and why; the problem that the plan is for is written "
            "beside it, as <plan>.problem.json.",
        ),
    ] = False,
    pipelines: Annotated[
        int | None, typer.Option(help="1: one pipeline per DNN, however many stages.  [default: any number]")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the plan (JSON) to this file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make the best plan for a problem, check it, and show it with its proven gap.

    Better plans and bounds are told on the way; Ctrl-C (or SIGTERM) ends the search with the best plan so far.
    """
    from planner.planning import BestEffort, make_plan, plan_best_effort, slices_started  # solvers take a moment

    if scheduler in (Scheduler.PER_TASK, Scheduler.BETTER):
        given: dict[str, object] = {"--current": current, "--max-started": max_started, "--pipelines": pipelines}
        given |= {"--best-effort": best_effort or None, "--method": None if method == "auto" else method}
        if named := [name for name, value in given.items() if value is not None]:
            raise InputError(f"{named[0]}: is not for --scheduler {scheduler}; leave it out, or plan pipelines")
        from planner.cli.applications import plan_applications

        plan_applications(problem, scheduler is Scheduler.BETTER, backend, gap, time_limit, out, as_json)
        return
    begin_s = monotonic()
    by: SchedulerName = scheduler.value  # type: ignore[assignment]  # the other two are told above
    asked = load_problem(problem)
    in_use = load_plan(current) if current else None
    if best_effort and in_use:
        raise InputError("--best-effort: plans anew, not from --current; leave out one of the two")
    if time_limit is not None and time_limit > 0:  # reading the problem counts
        time_limit = max(time_limit - (monotonic() - begin_s), LEAST_S)
    options: dict[str, Any] = {"method": method, "backend": backend, "gap": gap, "time_limit_s": time_limit}
    what = f"planning {len(asked.planned.dnns)} DNNs with {scheduler}"
    with interrupted_by_signals(), told(what, asked.options.objective) as options["progress"]:
        if best_effort:
            found = plan_best_effort(asked, by, **options)
        else:
            made = make_plan(asked, by, **options, current=in_use, max_started=max_started, pipelines=pipelines)
            found = BestEffort(asked, made, {})
    beside = out.with_name(f"{out.stem}.problem.json") if out and best_effort else None
    if out:
        save(found.plan, out)
    if beside:
        save(found.problem, beside)
    _say_idle_types(found.problem)
    with output(as_json) as printed:
        show(printed, found.problem, found.plan)
        printed.value("not_served", found.not_served)
        for name, reason in found.not_served.items():
            printed.line(f"not served as asked: {name}: {reason}")
        if in_use:
            printed.value("slices_started", slices_started(in_use, found.plan))
            printed.line(f"slices started anew: {slices_started(in_use, found.plan)}")
        if out:
            printed.line(f"written to {out}" + (f", the problem that it is for to {beside}" if beside else ""))


def explain(problem: ProblemFile, as_json: JsonOption = False) -> None:
    """Tell what limits a problem: the least SLO of every DNN, and what one more device of each type is worth."""
    from planner.planning import explain as find_limits

    asked = load_problem(problem)
    with errors.status("looking for what limits the plan"):
        found = find_limits(asked)
    unit = UNITS[asked.options.objective]
    least_of = {least.dnn: least for least in found.least_slo}
    _say_idle_types(asked)
    with output(as_json) as printed:
        printed.value("least_slo", [asdict(least) for least in found.least_slo])
        printed.value("unreachable", found.unreachable)
        printed.value("bound", found.bound)
        printed.value("worth", found.worth)
        for dnn in asked.planned.dnns:
            if dnn.name in least_of:
                missed = ", which is not met" if dnn.name in found.unreachable else ""
                slo = f"{dnn.name}: SLO {dnn.slo_us / 1000:.2f} ms{missed}"
                printed.line(f"{slo}; the least possible is {least_of[dnn.name]}")
            else:
                printed.line(found.unreachable[dnn.name])
        of = f" of the other {len(asked.planned.dnns) - len(found.unreachable)} DNNs" if found.unreachable else ""
        printed.line(f"no plan{of} is better than {found.bound:.3f} {unit}")
        for device, worth in found.worth.items():
            printed.line(f"one more {device} is worth {worth:+.3f} {unit}")


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
    picture: Annotated[Path | None, typer.Option(help="Draw the front to this file (.png, .svg or .pdf).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what more throughput costs in latency, money or energy, or more accuracy in money: the Pareto front."""
    if picture is not None and picture.suffix not in (".png", ".svg", ".pdf"):
        raise InputError(f"--picture: expected a name that ends in .png, .svg or .pdf, got {str(picture)!r}")
    asked = load_problem(problem)
    with errors.status(f"planning the front against {against}"):
        options = {"backend": backend, "gap": gap, "time_limit_s": time_limit}
        points, tried = _points(asked, against, factors, steps, options)
    price = PRICES[against]
    columns = {
        price: Column(HEADS[against], "{:.6g}".format),
        "throughput_rps": Column("requests/s per weight", "{:.6f}".format),
        "gap": Column("gap", "{:.1e}".format),
    }
    rows = [
        {price: point.price, "throughput_rps": point.throughput_rps, "gap": point.plan.gap}
        | _beside(asked, against, point.plan)
        for point in points
    ]
    columns |= {name: Column(name.replace("_", " "), "{:.6g}".format) for name in rows[0] if name not in columns}
    if out:
        write_csv(out, [tuple(columns), *([column.shown(row[key]) for key, column in columns.items()] for row in rows)])
    if picture:
        from planner.cli.front_picture import draw_front

        of_accuracy = against is Against.ACCURACY
        gain = "accuracy_percent" if of_accuracy else "throughput_rps"
        paid, gained = ([float(row[key]) for row in rows] for key in (price, gain))
        draw_front(paid, gained, (HEADS[against], "accuracy (%)" if of_accuracy else columns[gain].head), picture)
    with output(as_json) as printed:
        printed.table("front", columns, rows)
        printed.value("tried", tried)
        if len(points) < tried:
            by_latency = against is Against.LATENCY
            why = "serve nothing, or no more than a smaller factor" if by_latency else "serve less for no less"
            printed.line(f"{tried - len(points)} of {tried} points are left out: they {why}")


def _points(
    problem: Problem, against: Against, factors: str, steps: int, options: Mapping[str, Any]
) -> tuple[Sequence["Point"], int]:
    """Return the points of a front, and how many plans were tried."""
    from planner.planning import accuracy_front, cost_front, energy_front, latency_front

    if against is Against.LATENCY:
        tried = _numbers(factors)
        return latency_front(problem, tried, **options), len(tried)
    fronts = {Against.COST: cost_front, Against.ENERGY: energy_front, Against.ACCURACY: accuracy_front}
    return fronts[against](problem, steps, **options), steps


def _beside(problem: Problem, against: Against, made: Plan) -> dict[str, float]:
    """Return accuracy where it was asked for, cost beside energy and energy beside cost where both are known."""
    types = problem.cluster.device_types
    if against is Against.ACCURACY:
        return {"accuracy_percent": made.value}
    if against is Against.COST and watts_known(problem, [device.name for device in types]):
        return {"watts": made.watts or 0.0}
    if against is Against.ENERGY and all(device.price_per_hour is not None for device in types):
        used = devices_used(problem, made)
        return {"cost_per_hour": sum((device.price_per_hour or 0.0) * used[device.name] for device in types)}
    return {}


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--factors: expected numbers like 0.5,1,2, got {text!r}") from None


def _say_idle_types(problem: Problem) -> None:
    """Say which devices no profile knows: a misspelt name leaves them idle."""
    known = {device for dnn in problem.planned.dnns for variant in dnn.variants for device in variant.devices}
    for device in problem.cluster.device_types:
        if device.count and device.name not in known:
            errors.print(
                f"note: no profile has latencies for {device.name!r}, so that its {device.count} devices stay idle; "
                f"profiles know {', '.join(map(repr, sorted(known)))}"
            )
