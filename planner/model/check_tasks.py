"""Check a task plan: every constraint of the problem recomputed from the plan alone, without a solver.

For each application a with tasks s, choices of variants r and services c (a variant on slices, in batches)

    names        applications, tasks, variants, device types and shares are the problem's
    profile      the plan was computed from the problem and its profiles, by their hashes
    flow         sum of f_r = rate_a
    split        what the services of a variant serve is what the choices with it, times the fan-out, hand to them
    service      it can run at its batch, and takes what `planner.model.task_worth.configuration` says
    capacity     y_c <= n_c · h_c
    latency      on the longest way, by the plan's rule, at most SLO - slack
    devices      those of every task hold its slices and no others, and are devices of the cluster
    budget, accuracy, cost, objective, bound, status: as of other plans (`planner.model.check`)
"""

from collections.abc import Iterator
from typing import get_args

from planner.model.applications import Application
from planner.model.digest import digest
from planner.model.objective import MAXIMISED, plan_cost
from planner.model.problem import Problem
from planner.model.task_graph import applications_of, task_rates
from planner.model.task_plan import LatencyRule, TaskPlan
from planner.model.task_worth import configuration, task_accuracy, task_devices, task_latency_us, task_value

TOLERANCE = 1e-6  # relative


def check_tasks(problem: Problem, plan: TaskPlan) -> tuple[str, ...]:
    """Return what a task plan breaks, nothing for a sound one."""
    unknown = tuple(_unknown(problem.relied_on, plan))
    return unknown or (*_other(problem, plan), *_violations(problem.relied_on, plan))


def profile_hashes(problem: Problem) -> dict[str, str]:
    """Return ``"application/task/variant"`` to the digest of its profile, of all that may serve."""
    return {
        f"{one.name}/{task.name}/{variant.name}": digest(variant)
        for one in applications_of(problem)
        for task in one.tasks
        for variant in task.variants
    }


def _unknown(problem: Problem, plan: TaskPlan) -> Iterator[str]:
    """Yield names that the problem does not know, and such as no plan has."""
    if plan.scheduler != "per-task":
        yield f"its scheduler is {plan.scheduler!r}, expected 'per-task'"
    if plan.latency_rule not in get_args(LatencyRule):
        yield f"its latency rule is {plan.latency_rule!r}, expected one of {list(get_args(LatencyRule))}"
    known = {(one.name, task.name) for one in applications_of(problem) for task in one.tasks}
    types = {device.name for device in problem.cluster.device_types}
    for one in plan.services:
        if (one.application, one.task) not in known:
            yield f"there is no task {one.application}/{one.task}"
        elif one.device not in types:
            yield f"{one.application}/{one.task}: there is no device type {one.device!r}"
        elif min(one.batch, one.slices, one.share) < 1:
            yield f"{one.application}/{one.task}: expected numbers from 1 on of batch, slices and share, got {one}"
    tasks = {one.name: one.tasks for one in applications_of(problem)}
    for flow in plan.flows:
        if flow.application not in tasks:
            yield f"there is no application {flow.application}"
            continue
        pairs = zip(tasks[flow.application], flow.variants, strict=False)
        alike = len(flow.variants) == len(tasks[flow.application])
        if not alike or not all(name in [each.name for each in task.variants] for task, name in pairs):
            yield f"application {flow.application}: there is no choice {'+'.join(flow.variants)}"


def _other(problem: Problem, plan: TaskPlan) -> Iterator[str]:
    """Yield how a plan is that of another problem, or of other profiles."""
    if plan.problem_sha256 != digest(problem):
        stated = plan.problem_sha256[:12] or "none"
        yield f"made for another problem (hash {stated}) than this one ({digest(problem)[:12]})"
    hashes = profile_hashes(problem)
    for name in dict.fromkeys((*hashes, *plan.profile_sha256)):
        sha256 = plan.profile_sha256.get(name, "")
        if hashes.get(name) != sha256:
            yield f"{name}: computed from another profile (hash {sha256[:12] or 'none'})"
    if plan.objective != problem.options.objective:
        yield f"its objective is {plan.objective}, the problem's {problem.options.objective}"


def _violations(problem: Problem, plan: TaskPlan) -> Iterator[str]:
    applications = applications_of(problem)
    timed = {one.name for one in applications}
    rated = {one.name for one in applications if one.has_accuracy}
    for what, stated, known in (("latency", plan.latency_us, timed), ("accuracy", plan.accuracy, rated)):
        if unknown := sorted(set(stated) - known):
            yield f"{what} is stated of {unknown}, which have none"
    for application in applications:
        yield from _of_application(problem, plan, application)
    devices = task_devices(problem, plan.services)
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
    value = task_value(problem, applications, devices, plan.accuracy)
    if not abs(value - plan.value) <= TOLERANCE * max(1.0, abs(value)):
        yield f"the objective is {value:g}, stated is {plan.value:g}"
    beyond = plan.value - plan.bound if MAXIMISED[problem.options.objective] else plan.bound - plan.value
    if not beyond <= TOLERANCE * max(1.0, abs(plan.value)):
        yield f"the objective of {plan.value:g} is better than the bound of {plan.bound:g}"
    if (plan.status == "optimal") != (plan.gap <= plan.gap_asked):
        yield f"its status is {plan.status} with a gap of {plan.gap:.2g}, {plan.gap_asked:.2g} was asked for"


def _of_application(problem: Problem, plan: TaskPlan, application: Application) -> Iterator[str]:
    where = f"application {application.name}"
    if application.rate_rps is None:
        yield f"{where}: has no rate, which plans task by task serve"
        return
    rate_rps = application.rate_rps
    flows = plan.flows_of(application.name)
    if any(flow.rate_rps < 0 for flow in flows):
        yield f"{where}: a choice of variants takes fewer than 0 requests/s"
    served_rps = sum(flow.rate_rps for flow in flows)
    if not abs(served_rps - rate_rps) <= TOLERANCE * rate_rps:
        yield f"{where}: {served_rps:g} of {rate_rps:g} requests/s are served"
    for number, (task, reaching_rps) in enumerate(zip(application.tasks, task_rates(application), strict=True)):
        own = plan.of(application.name, task.name)
        for variant in task.variants:
            of_variant = sum(flow.rate_rps for flow in flows if flow.variants[number] == variant.name)
            needed = of_variant * reaching_rps / rate_rps
            given = sum(one.rate_rps for one in own if one.variant == variant.name)
            if not abs(needed - given) <= TOLERANCE * reaching_rps:
                yield f"{where}: {task.name}/{variant.name} is to serve {needed:g} requests/s, its services {given:g}"
        for one in own:
            if one.rate_rps < 0:
                yield f"{where}: {task.name}/{one.variant} is to serve {one.rate_rps:g} requests/s"
            service = f"{where}: {task.name}/{one.variant} on {one.device} 1/{one.share}"
            expected = configuration(problem, application, number, one.variant, one.device, one.share, one.batch)
            if expected is None:
                yield f"{service} cannot run at batch {one.batch}"
                continue
            if not one.rate_rps <= one.slices * expected.slice_rps * (1 + TOLERANCE):
                yield f"{service}: {one.slices} slices cannot sustain {one.rate_rps:g} requests/s"
            if not abs(one.slice_rps - expected.slice_rps) <= TOLERANCE * expected.slice_rps:
                yield f"{service}: a slice sustains {expected.slice_rps:g} requests/s, stated is {one.slice_rps:g}"
            if not abs(one.latency_us - expected.latency_us) <= TOLERANCE * expected.latency_us:
                yield f"{service} takes {expected.latency_us:g} us, stated is {one.latency_us:g}"
    found_us = task_latency_us(application, plan.services, plan.latency_rule)
    limit_us = application.slo_us - round(problem.options.slack_fraction * application.slo_us)
    if not found_us <= limit_us * (1 + TOLERANCE):
        yield f"{where}: takes {found_us:g} us, the SLO less slack is {limit_us:g}"
    if not abs(found_us - plan.latency_us.get(application.name, 0.0)) <= TOLERANCE * found_us:
        yield f"{where}: takes {found_us:g} us, stated is {plan.latency_us.get(application.name)}"
    if not application.has_accuracy:
        return
    found = task_accuracy(application, flows)
    if not abs(found - plan.accuracy.get(application.name, -1.0)) <= TOLERANCE * max(1.0, found):
        yield f"{where}: accuracy is {found:g}, stated is {plan.accuracy.get(application.name)}"
    least = problem.options.min_accuracy
    if least is not None and found < least * (1 - TOLERANCE):
        yield f"{where}: accuracy is {found:g}, the least allowed {least:g}"
