"""Plans that serve applications task by task, and the check of every constraint without a solver."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from planner.model import Application, Problem
from planner.model.accuracy import mean_accuracy
from planner.model.objective import plan_cost
from planner.planning.applications.configurations import configuration
from planner.planning.applications.task_graph import applications_of, known_accuracy, task_rates, ways

TOLERANCE = 1e-6  # relative


@dataclass(frozen=True)
class Service:
    """Slices that serve a task: a variant on shares 1/``share`` of a device type, in batches of ``batch``.

    ``rate_rps`` of the task's requests come here, a slice sustains ``slice_rps``, and a request takes ``latency_us``
    (transfer, batch building and inference).
    """

    application: str
    task: str
    variant: str
    device: str
    share: int
    batch: int
    slices: int
    rate_rps: float
    slice_rps: float
    latency_us: float


Flows = Mapping[str, tuple[tuple[tuple[str, ...], float], ...]]


@dataclass(frozen=True)
class TaskPlan:
    """What serves every task, and what that is worth.

    Attributes
    ----------
    flows
        Per application: choices of variants, one per task, with the requests/s that take them.
    latency_rule, latency_us
        *worst* or *mean*, and the end-to-end latency of every application by it, on its longest way.
    accuracy
        Of every application whose variants have one (percent).
    devices
        Whole devices in use per type.
    objective, bound
        What the plan is worth by the problem's objective, and what no plan can be better than.
    """

    services: tuple[Service, ...]
    flows: Flows
    latency_rule: str
    latency_us: Mapping[str, float]
    accuracy: Mapping[str, float]
    devices: Mapping[str, int]
    cost_per_hour: float | None
    objective: float
    bound: float
    seconds: float = 0.0

    def of(self, application: str, task: str) -> list[Service]:
        """Return what serves a task."""
        return [one for one in self.services if (one.application, one.task) == (application, task)]


def plan_of(problem: Problem, services: tuple[Service, ...], flows: Flows, latency_rule: str, bound: float) -> TaskPlan:
    """Return the plan that services and flows make, with everything that it is worth computed from them."""
    applications = applications_of(problem)
    devices = devices_used(problem, services)
    accuracy = {one.name: served_accuracy(one, flows) for one in applications if one.has_accuracy}
    return TaskPlan(
        services,
        flows,
        latency_rule,
        {one.name: latency_us(one, services, latency_rule) for one in applications},
        accuracy,
        devices,
        plan_cost(problem, devices),
        _worth(problem, applications, devices, accuracy),
        bound,
    )


def _worth(
    problem: Problem, applications: tuple[Application, ...], devices: Mapping[str, int], accuracy: Mapping[str, float]
) -> float:
    if problem.options.objective == "most_accurate":
        return mean_accuracy({one.name: one.rate_rps or 0.0 for one in applications}, accuracy)
    if problem.options.objective == "least_cost":
        return plan_cost(problem, devices) or 0.0
    return float(sum(devices.values()))


def devices_used(problem: Problem, services: tuple[Service, ...]) -> dict[str, int]:
    """Return the whole devices in use per type: those of every task hold its slices and no others."""
    parts: defaultdict[tuple[str, str, str], Fraction] = defaultdict(Fraction)
    for one in services:
        parts[one.device, one.application, one.task] += Fraction(one.slices, one.share)
    used = dict.fromkeys((device.name for device in problem.cluster.device_types), 0)
    for (device, _, _), part in parts.items():
        used[device] += ceil(part)
    return used


def served_accuracy(application: Application, flows: Flows) -> float:
    """Return the accuracy (percent) over the requests that an application serves."""
    variants = [{variant.name: variant for variant in task.variants} for task in application.tasks]
    total = 0.0
    for names, rate_rps in flows[application.name]:
        choice = [known[name] for known, name in zip(variants, names, strict=True)]
        total += known_accuracy(application, choice) * rate_rps
    return total / (application.rate_rps or 1.0)


def latency_us(application: Application, services: tuple[Service, ...], rule: str) -> float:
    """Return the end-to-end latency (µs) on the longest way through an application, by a rule."""
    of_tasks = []
    for task in application.tasks:
        own = [one for one in services if (one.application, one.task) == (application.name, task.name)]
        if rule == "worst":
            of_tasks.append(max((one.latency_us for one in own), default=0.0))
        else:
            of_tasks.append(sum(one.latency_us * one.rate_rps for one in own) / sum(one.rate_rps for one in own))
    return max(sum(of_tasks[s] for s in way) for way in ways(application))


def check(problem: Problem, plan: TaskPlan) -> tuple[str, ...]:
    """Recompute every constraint of a plan; return what is broken, nothing for a plan that holds."""
    return tuple(_violations(problem, plan))


def _violations(problem: Problem, plan: TaskPlan) -> Iterator[str]:
    applications = applications_of(problem)
    known = {(one.name, task.name) for one in applications for task in one.tasks}
    for service in plan.services:
        if (service.application, service.task) not in known:
            yield f"there is no task {service.application}/{service.task}"
            return
    for application in applications:
        yield from _of_application(problem, plan, application)
    devices = devices_used(problem, plan.services)
    for device in problem.cluster.device_types:
        if devices[device.name] > device.count:
            yield f"{devices[device.name]} {device.name} are used, there are {device.count}"
    if devices != dict(plan.devices):
        yield f"devices in use are {devices}, stated are {dict(plan.devices)}"
    cost = plan_cost(problem, devices)
    if cost != plan.cost_per_hour:
        yield f"the cost per hour is {cost}, stated is {plan.cost_per_hour}"
    budget = problem.options.budget_per_hour
    if budget is not None and (cost is None or cost > budget * (1 + TOLERANCE)):
        yield f"the cost per hour is {cost}, above the budget of {budget:g}"
    worth = _worth(problem, applications, devices, plan.accuracy)
    if abs(worth - plan.objective) > TOLERANCE * max(1.0, abs(worth)):
        yield f"the objective is {worth:g}, stated is {plan.objective:g}"


def _of_application(problem: Problem, plan: TaskPlan, application: Application) -> Iterator[str]:
    where = f"application {application.name}"
    rate_rps = application.rate_rps or 0.0
    flows = plan.flows.get(application.name, ())
    if abs(sum(rps for _, rps in flows) - rate_rps) > TOLERANCE * rate_rps:
        yield f"{where}: {sum(rps for _, rps in flows):g} of {rate_rps:g} requests/s are served"
    for number, (task, reaching_rps) in enumerate(zip(application.tasks, task_rates(application), strict=True)):
        own = plan.of(application.name, task.name)
        for variant in task.variants:
            needed = sum(rps for names, rps in flows if names[number] == variant.name) * reaching_rps / rate_rps
            given = sum(one.rate_rps for one in own if one.variant == variant.name)
            if abs(needed - given) > TOLERANCE * reaching_rps:
                yield f"{where}: {task.name}/{variant.name} is to serve {needed:g} requests/s, its services {given:g}"
        for one in own:
            service = f"{where}: {task.name}/{one.variant} on {one.device} 1/{one.share}"
            expected = configuration(problem, application, number, one.variant, one.device, one.share, one.batch)
            if expected is None:
                yield f"{service} cannot run at batch {one.batch}"
                continue
            if one.rate_rps > one.slices * expected.slice_rps * (1 + TOLERANCE):
                yield f"{service}: {one.slices} slices cannot sustain {one.rate_rps:g} requests/s"
            if abs(one.latency_us - expected.latency_us) > TOLERANCE * expected.latency_us:
                yield f"{service} takes {expected.latency_us:g} us, stated is {one.latency_us:g}"
    found_us = latency_us(application, plan.services, plan.latency_rule)
    limit_us = application.slo_us - round(problem.options.slack_fraction * application.slo_us)
    if found_us > limit_us * (1 + TOLERANCE):
        yield f"{where}: takes {found_us:g} us, the SLO less slack is {limit_us:g}"
    if abs(found_us - plan.latency_us.get(application.name, 0.0)) > TOLERANCE * found_us:
        yield f"{where}: takes {found_us:g} us, stated is {plan.latency_us.get(application.name)}"
    if application.name in plan.accuracy:
        found = served_accuracy(application, plan.flows)
        if abs(found - plan.accuracy[application.name]) > TOLERANCE * max(1.0, found):
            yield f"{where}: accuracy is {found:g}, stated is {plan.accuracy[application.name]:g}"
        least = problem.options.min_accuracy
        if least is not None and found < least * (1 - TOLERANCE):
            yield f"{where}: accuracy is {found:g}, the least allowed {least:g}"
