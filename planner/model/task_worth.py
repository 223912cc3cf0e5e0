"""What a task plan is worth, and what a configuration of a task takes: recomputed by planners and the check alike.

A *configuration* fixes a variant, a device type, a share 1/k and a batch size b for a task s that rate_s requests/s
reach. Its latency is inference, the transfer of the batch's input (not for the first task; over the slowest link to the
type), and batch building (b - 1) / rate_s; a slice sustains

    h = min(b / inference, 1 / (t_in · k · G), 1 / (t_out · k · G))

with the times t on the wire of what a request brings and hands on, and G devices that share a network card.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from planner.model.accuracy import mean_accuracy
from planner.model.applications import Application
from planner.model.cluster import DeviceType
from planner.model.errors import InputError
from planner.model.objective import plan_cost
from planner.model.problem import Problem
from planner.model.profile import Profile
from planner.model.task_graph import known_accuracy, task_rates, ways
from planner.model.task_plan import TaskFlow, TaskService


@dataclass(frozen=True)
class Configuration:
    """A way to serve a task (by its number): one slice's latency l_c (µs) and throughput h_c (requests/s)."""

    task: int
    variant: str
    device: str
    share: int
    batch: int
    latency_us: float
    slice_rps: float


def configuration(
    problem: Problem, application: Application, task: int, variant: str, device: str, share: int, batch: int
) -> Configuration | None:
    """Return one configuration, None where the device has no latencies, memory or slices for it.

    Raises
    ------
    InputError
        The input of a variant that follows another task has no known size.
    """
    found = [one for one in application.tasks[task].variants if one.name == variant]
    types = {one.name: one for one in problem.cluster.device_types}
    if not found or device not in types or not found[0].has(device, share):
        return None
    (profile,), here = found, types[device]
    if not here.count or share not in here.shares or batch > profile.table(device, share).batches[-1]:
        return None
    if profile.memory_bytes(batch, 0, len(profile.blocks)) > here.slice_memory_bytes(share):
        return None
    latency_us, slice_rps = _costs(problem, application, task, profile, here, share, batch)
    building_us = (batch - 1) / task_rates(application)[task] * 1e6
    return Configuration(task, variant, device, share, batch, latency_us + building_us, slice_rps)


def _costs(
    problem: Problem, application: Application, task: int, variant: Profile, here: DeviceType, share: int, batch: int
) -> tuple[float, float]:
    """Return latency (µs, without building) and throughput of a slice; transfers at their slowest link."""
    cluster = problem.cluster
    inference_us = variant.stage_latency_us(here.name, share, batch, 0, len(variant.blocks))
    others = [each for each in cluster.device_types if each.count]
    before = application.predecessors
    in_us = hop_us = 0.0
    if before[task] is not None:
        size = input_bytes(application, task, variant)
        in_us = max(cluster.network.wire_us(other.name, here.name, size) for other in others)
        hop_us = max(cluster.network.link(other.name, here.name).hop_latency_us for other in others)
    out_us = sum(
        following.fan_out
        * max(
            cluster.network.wire_us(here.name, other.name, input_bytes(application, number, each))
            for each in following.variants
            for other in others
        )
        for number, following in enumerate(application.tasks)
        if before[number] == task
    )
    beside = share * here.devices_per_server
    limits = [batch / inference_us, *(1 / (wire_us * beside) for wire_us in (in_us, out_us) if wire_us)]
    return inference_us + batch * in_us + hop_us, min(limits) * 1e6


def input_bytes(application: Application, task: int, variant: Profile) -> int:
    """Return the size of what a request brings to a task; raises InputError where it is unknown."""
    if variant.input_bytes is None:
        raise InputError(
            f"application {application.name}: the input of {variant.name} (task {application.tasks[task].name}) has no "
            "known size; profile it again, or state input_bytes in its profile"
        )
    return variant.input_bytes


def task_devices(problem: Problem, services: Iterable[TaskService]) -> dict[str, int]:
    """Return the whole devices in use per type: those of every task hold its slices and no others."""
    parts: defaultdict[tuple[str, str, str], Fraction] = defaultdict(Fraction)
    for one in services:
        parts[one.device, one.application, one.task] += Fraction(one.slices, one.share)
    used = dict.fromkeys((device.name for device in problem.cluster.device_types), 0)
    for (device, _, _), part in parts.items():
        used[device] += ceil(part)
    return used


def task_accuracy(application: Application, flows: Iterable[TaskFlow]) -> float:
    """Return the accuracy (percent) over the requests that an application serves by these choices."""
    variants = [{variant.name: variant for variant in task.variants} for task in application.tasks]
    total = 0.0
    for flow in flows:
        choice = [known[name] for known, name in zip(variants, flow.variants, strict=True)]
        total += known_accuracy(application, choice) * flow.rate_rps
    return total / (application.rate_rps or 1.0)


def task_latency_us(application: Application, services: Sequence[TaskService], rule: str) -> float:
    """Return the end-to-end latency (µs) on the longest way through an application, by a rule (*worst*, *mean*)."""
    of_tasks = []
    for task in application.tasks:
        own = [one for one in services if (one.application, one.task) == (application.name, task.name)]
        if rule == "worst":
            of_tasks.append(max((one.latency_us for one in own), default=0.0))
        else:
            served_rps = sum(one.rate_rps for one in own)
            of_tasks.append(sum(one.latency_us * one.rate_rps for one in own) / served_rps if served_rps else 0.0)
    return max(sum(of_tasks[s] for s in way) for way in ways(application))


def task_value(
    problem: Problem, applications: Iterable[Application], devices: Mapping[str, int], accuracy: Mapping[str, float]
) -> float:
    """Return what a plan task by task is worth by the problem's objective."""
    if problem.options.objective == "most_accurate":
        return mean_accuracy({one.name: one.rate_rps or 0.0 for one in applications}, accuracy)
    if problem.options.objective == "least_cost":
        return plan_cost(problem, devices) or 0.0
    return float(sum(devices.values()))
