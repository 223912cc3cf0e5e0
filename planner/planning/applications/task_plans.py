"""The plan that services and choices of variants make, with everything that it is worth computed from them."""

from planner.model import Problem, TaskFlow, TaskPlan, TaskService, digest
from planner.model.check_tasks import profile_hashes
from planner.model.objective import plan_cost
from planner.model.plan import relative_gap
from planner.model.task_graph import applications_of
from planner.model.task_plan import LatencyRule
from planner.model.task_worth import task_accuracy, task_devices, task_latency_us, task_value
from planner.planning.programme.backends import versions


def plan_of(
    problem: Problem,
    services: tuple[TaskService, ...],
    flows: tuple[TaskFlow, ...],
    latency: LatencyRule,
    bound: float,
    backend: str,
    gap: float,
) -> TaskPlan:
    """Return the plan of some services and flows, whose bound and gap asked for are given."""
    applications = applications_of(problem)
    devices = task_devices(problem, services)
    accuracy = {
        one.name: task_accuracy(one, [flow for flow in flows if flow.application == one.name])
        for one in applications
        if one.has_accuracy
    }
    value = task_value(problem, applications, devices, accuracy)
    return TaskPlan(
        objective=problem.options.objective,
        status="optimal" if relative_gap(value, bound) <= gap else "feasible",
        value=value,
        bound=bound,
        latency_rule=latency,
        services=services,
        flows=flows,
        latency_us={one.name: task_latency_us(one, services, latency) for one in applications},
        accuracy=accuracy,
        devices=devices,
        cost_per_hour=plan_cost(problem, devices),
        backend=backend,
        seconds=0.0,
        gap_asked=gap,
        problem_sha256=digest(problem),
        profile_sha256=profile_hashes(problem),
        versions=versions(backend),
    )
