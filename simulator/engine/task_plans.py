"""Plans task by task as networks: a central queue and slices per service, requests dealt out as the plan divides them.

Which choice of variants a request takes, and which service of each, is dealt out in order of arrival, in runs as long
as a batch, so that those that come one after the other fill one; over time each gets its share. A batch leaves when it
is full or as old as the plan counts for building it, to the first slice that is idle. One request of a task that hands
on k of them on average becomes the next lower or higher whole number of requests, k on average.

Transfers take the slowest link to where services of the next task are, as in the plan.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import floor, inf

import numpy as np
from numpy.typing import NDArray

from planner.model import Application, InputError, Problem, TaskPlan, TaskService
from planner.model.applications import choice_accuracy
from planner.model.task_graph import applications_of, task_rates
from planner.model.task_worth import input_bytes
from simulator.dispatch.system import Ints
from simulator.engine.network import CENTRAL, IDLE_FIRST, NO_LIMIT_US, Network, Route, Station, Step, servers
from simulator.engine.system import MOST_SLICES

MOST_STEPS = 256  # of one request, copies included


@dataclass(frozen=True)
class TaskClass:
    """Requests of an application that take the same services: one per task, by its number in the plan.

    ``copies[task]`` is how many requests one request of the task before becomes; ``accuracy`` (percent) that of the
    choice of variants, None where it is unknown.
    """

    application: str
    services: tuple[int, ...]
    copies: tuple[int, ...]
    accuracy: float | None


@dataclass(frozen=True, eq=False)
class TaskNetwork:
    """A network whose stations are the services of a plan, its classes, and when the requests of each come."""

    network: Network
    classes: tuple[TaskClass, ...]
    arrivals_us: tuple[Ints, ...]


def network_of_tasks(problem: Problem, plan: TaskPlan, arrivals_us: Mapping[str, Ints]) -> TaskNetwork:
    """Return what serves arrivals of each application, by name.

    Raises
    ------
    InputError
        A first task is handed several requests at once, a request becomes more than `MOST_STEPS`, or there are too many
        slices.
    """
    known = problem.relied_on
    applications = [one for one in applications_of(known) if one.name in arrivals_us]
    classes: list[TaskClass] = []
    arrivals: list[Ints] = []
    for one in applications:
        for made, own_us in _classes_of(one, plan, arrivals_us[one.name]):
            classes.append(made)
            arrivals.append(own_us)
    if (slices := sum(service.slices for service in plan.services)) > MOST_SLICES:
        raise InputError(f"task plan: {slices} slices; expected at most {MOST_SLICES} to simulate")
    cards: list[int] = []
    stations = []
    by_name = {one.name: one for one in applications_of(known)}
    for service in plan.services:
        first = len(cards)
        on_card = service.share * known.cluster.device(service.device).devices_per_server
        cards += [first + number // on_card for number in range(service.slices)]
        numbers = tuple(range(first, len(cards)))
        stations.append(_station(known, plan, by_name[service.application], service, numbers))
    routes = tuple(_route(next(a for a in applications if a.name == one.application), one) for one in classes)
    return TaskNetwork(
        Network(servers([0] * len(cards), cards), tuple(stations), routes), tuple(classes), tuple(arrivals)
    )


def dealt(weights: Sequence[float], runs: Sequence[int], count: int) -> Ints:
    """Return which of several each of ``count`` requests goes to, in runs, so that each gets its share over time.

    The next run is of the one that is furthest behind its share.

    >>> dealt([2.0, 1.0], [2, 1], 6).tolist()
    [0, 0, 1, 0, 0, 1]
    """
    share = np.asarray(weights, np.float64) / sum(weights)
    given = np.zeros(len(share))
    found = np.empty(count, np.int64)
    done = 0
    while done < count:
        chosen = int((share * (done + 1) - given).argmax())
        end = min(count, done + runs[chosen])
        found[done:end] = chosen
        given[chosen] += end - done
        done = end
    return found


def _classes_of(one: Application, plan: TaskPlan, arrivals_us: Ints) -> Iterator[tuple[TaskClass, Ints]]:
    """Yield the classes of an application's requests, and the arrivals of each."""
    if one.tasks[0].fan_out != 1:
        raise InputError(
            f"application {one.name}: task {one.tasks[0].name}: the first task is handed {one.tasks[0].fan_out:g} "
            "requests at once; expected a fan_out of 1, raise the application's rate instead"
        )
    flows = plan.flows_of(one.name)
    _require_some([flow.rate_rps for flow in flows], f"application {one.name}: flows")
    runs = _services_of(one, plan)
    for number, flow in enumerate(flows):
        if len(flow.variants) != len(one.tasks) or not all(runs.get(key) for key in enumerate(flow.variants)):
            raise InputError(
                f"application {one.name}: flow {number}: expected a variant for each of {len(one.tasks)} tasks that "
                f"some service runs, got {', '.join(flow.variants)}; plan again"
            )
    longest = [
        max(plan.services[number].batch for key in enumerate(flow.variants) for number in runs[key]) for flow in flows
    ]
    choice = dealt([flow.rate_rps for flow in flows], longest, len(arrivals_us))
    columns = [choice]
    for s, task in enumerate(one.tasks):
        names = np.array([flow.variants[s] for flow in flows])[choice]
        own = {variant.name: runs[s, variant.name] for variant in task.variants}
        columns.append(_services_taken(names, own, plan, f"application {one.name}: task {task.name}"))
    columns += [_copies(task.fan_out, len(choice)) for task in one.tasks]
    rows, which = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
    tasks = len(one.tasks)
    variants = [{variant.name: variant for variant in task.variants} for task in one.tasks]
    for number, (flow, *row) in enumerate(rows.tolist()):
        profiles = [known[name] for known, name in zip(variants, flows[flow].variants, strict=True)]
        made = TaskClass(one.name, tuple(row[:tasks]), tuple(row[tasks:]), choice_accuracy(one, profiles))
        yield made, arrivals_us[which.ravel() == number]


def _services_of(one: Application, plan: TaskPlan) -> dict[tuple[int, str], list[int]]:
    """Return the services that run each task, by its number, in each of its variants."""
    return {
        (s, variant.name): [
            number
            for number, service in enumerate(plan.services)
            if (service.application, service.task, service.variant) == (one.name, task.name, variant.name)
        ]
        for s, task in enumerate(one.tasks)
        for variant in task.variants
    }


def _services_taken(
    variant: NDArray[np.str_], services: Mapping[str, Sequence[int]], plan: TaskPlan, where: str
) -> Ints:
    """Return ``[request]`` which service of its variant runs a task of it, each as often as its rate says."""
    taken = np.empty(len(variant), np.int64)
    for name, own in services.items():
        there = np.flatnonzero(variant == name)
        if len(there):
            weights = [plan.services[number].rate_rps for number in own]
            _require_some(weights, f"{where}: services of {name}")
            batches = [plan.services[number].batch for number in own]
            taken[there] = np.array(own)[dealt(weights, batches, len(there))]
    return taken


def _copies(fan_out: float, count: int) -> Ints:
    """Return ``[request]`` how many requests a task is handed for it: whole numbers, ``fan_out`` on the mean."""
    least = floor(fan_out)
    more = fan_out - least
    return least + (dealt([1 - more, more], [1, 1], count) if more else np.zeros(count, np.int64))


def _require_some(rates_rps: Sequence[float], where: str) -> None:
    """Refuse requests of which nobody gets a share."""
    if not 0 < sum(rates_rps) < inf:
        raise InputError(f"{where}: rate_rps: expected a sum above 0, got {sum(rates_rps):g}; plan again")


def _route(application: Application, of_class: TaskClass) -> Route:
    """Return the steps of a class: one per task and copy, each before those that follow it."""
    before = application.predecessors
    steps: list[Step] = []

    def add(task: int) -> int:
        number = len(steps)
        if number >= MOST_STEPS:
            raise InputError(
                f"application {application.name}: one request becomes more than {MOST_STEPS}; lower fan_out"
            )
        steps.append(Step(of_class.services[task]))
        then = [
            add(following)
            for following, previous in enumerate(before)
            if previous == task
            for _ in range(of_class.copies[following])
        ]
        steps[number] = Step(of_class.services[task], tuple(then))
        return number

    add(0)
    return Route(application.name, tuple(steps))


def _station(
    problem: Problem, plan: TaskPlan, application: Application, service: TaskService, numbers: tuple[int, ...]
) -> Station:
    task = [one.name for one in application.tasks].index(service.task)
    (profile,) = (one for one in application.tasks[task].variants if one.name == service.variant)
    blocks = len(profile.blocks)
    sizes = range(1, service.batch + 1)
    latency_us = [profile.stage_latency_us(service.device, service.share, size, 0, blocks) for size in sizes]
    wire_us = hop_us = 0.0
    for number, (following, previous) in enumerate(zip(application.tasks, application.predecessors, strict=True)):
        if previous != task:
            continue
        variants = {variant.name: variant for variant in following.variants}
        network, others = problem.cluster.network, plan.of(application.name, following.name)
        wire_us += following.fan_out * max(
            network.wire_us(service.device, other.device, input_bytes(application, number, variants[other.variant]))
            for other in others
        )
        links = [network.link(service.device, other.device) for other in others]
        hop_us = max(hop_us, *(link.hop_latency_us for link in links))
    age_us = application.drop_after_us
    return Station(
        CENTRAL,
        numbers,
        np.array([[0, *latency_us]]),
        max_batch=service.batch,
        timeout_us=round((service.batch - 1) / task_rates(application)[task] * 1e6),
        placement=IDLE_FIRST,
        drop_age_us=NO_LIMIT_US if age_us is None else round(age_us),
        wire_us=round(wire_us),
        hop_us=round(hop_us),
    )
