"""``planner plan`` for applications that are served task by task, or by the better of both ways."""

from collections.abc import Mapping
from pathlib import Path

from planner.cli.app import interrupted_by_signals
from planner.cli.output import Column, Output, output
from planner.cli.plan_tables import show
from planner.cli.search_progress import told
from planner.files import load_problem, save
from planner.model import Problem, TaskPlan
from planner.model.objective import MAXIMISED
from planner.model.plan import worth_text
from planner.model.problem import UNITS

SERVICE_COLUMNS = {
    "application": Column("application"),
    "task": Column("task"),
    "variant": Column("variant"),
    "pool": Column("pool"),
    "batch": Column("batch"),
    "latency_ms": Column("latency (ms)", "{:.2f}".format),
    "rate_rps": Column("requests/s", "{:.2f}".format),
}
FLOW_COLUMNS = {
    "application": Column("application"),
    "variants": Column("choice of variants"),
    "rate_rps": Column("requests/s", "{:.2f}".format),
}


def plan_applications(
    file: Path, better: bool, backend: str, gap: float, time_limit_s: float | None, out: Path | None, as_json: bool
) -> None:
    """Plan task by task, or ``better``: both ways, of which the better plan is written; end to end of equal ones."""
    from planner.planning import plan_both_ways, plan_per_task
    from planner.planning.programme.backends import Limits

    problem = load_problem(file)
    reasons: Mapping[str, str] = {}
    values: dict[str, float] = {}
    what = "planning task by task" + (" and end to end" if better else "")
    with interrupted_by_signals(), told(what, problem.options.objective) as progress:
        if better:
            both = plan_both_ways(problem, backend=backend, gap=gap, time_limit_s=time_limit_s, progress=progress)
            made, reasons = both.plan, {way: reason for way, reason in both.reasons.items()}
            plans = {"end to end": both.end_to_end, "task by task": both.per_task}
            values = {way: plan.value for way, plan in plans.items() if plan is not None}
        else:
            made = plan_per_task(problem, backend=backend, limits=Limits(gap, time_limit_s))
    if out:
        save(made, out)
    with output(as_json) as printed:
        if isinstance(made, TaskPlan):
            show_task_plan(printed, problem, made)
        else:
            show(printed, problem, made)
        if better:
            unit = UNITS[problem.options.objective]
            printed.value("way", both.way)
            printed.value("ways", values)
            printed.value("bound_of_both_ways", both.bound)
            printed.value("reasons", reasons)
            said = ", ".join(f"{way} {value:.3f}" for way, value in values.items())
            least = "at most" if MAXIMISED[problem.options.objective] else "at least"
            printed.line(f"planned {both.way}: {said} {unit}; {least} {both.bound:.3f} by either way")
            for way, reason in reasons.items():
                printed.line(f"no plan {way}: {reason}")
        if out:
            printed.line(f"written to {out}")


def show_task_plan(printed: Output, problem: Problem, made: TaskPlan) -> None:
    """Print a plan task by task: a row per service, the choices of variants, what it uses, and the proof."""
    services = [
        {
            "application": one.application,
            "task": one.task,
            "variant": one.variant,
            "pool": one.pool_text,
            "batch": one.batch,
            "latency_ms": one.latency_us / 1000,
            "rate_rps": one.rate_rps,
        }
        for one in made.services
    ]
    flows = [
        {"application": flow.application, "variants": " + ".join(flow.variants), "rate_rps": flow.rate_rps}
        for flow in made.flows
    ]
    printed.table("services", SERVICE_COLUMNS, services)
    printed.table("flows", FLOW_COLUMNS, flows)
    for name in ("value", "bound", "gap", "status", "seconds", "backend", "accuracy", "cost_per_hour", "latency_us"):
        printed.value(name, getattr(made, name))
    types = problem.cluster.device_types
    used = ", ".join(f"{made.devices[device.name]} of {device.count} {device.name}" for device in types)
    printed.line(f"devices in use: {used}")
    for name, us in made.latency_us.items():
        accuracy = f", accuracy {made.accuracy[name]:.2f} %" if name in made.accuracy else ""
        printed.line(f"{name}: {us / 1000:.2f} ms on its longest way{accuracy}")
    if made.cost_per_hour is not None:
        printed.line(f"cost per hour: {made.cost_per_hour:g}")
    worth = worth_text(made.objective, made.value, made.bound, made.status)
    printed.line(f"{worth}, {made.seconds:.2f} s on {made.backend}")
