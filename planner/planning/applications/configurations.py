"""Configurations: the ways in which one slice can serve a task, with what they take and sustain.

A configuration fixes a variant, a device type, a share 1/k and a batch size; `planner.planning.applications.per_task`
says what its latency and its throughput are.
"""

from dataclasses import dataclass

from planner.model import Application, DeviceType, InputError, Problem, Profile
from planner.planning.applications.task_graph import task_rates
from planner.planning.pipelines.terrain import planned_batches


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


def configurations(problem: Problem, one: Application, task: int) -> list[Configuration]:
    """Return the configurations of a task that may be in a best plan: no other is as fast and sustains more.

    Raises
    ------
    InputError
        The input of a variant that follows another task has no known size, or none can be served.
    """
    found: list[Configuration] = []
    for variant in one.tasks[task].variants:
        for device in problem.cluster.device_types:
            for share in device.shares:
                of_slice = (
                    configuration(problem, one, task, variant.name, device.name, share, batch)
                    for batch in planned_batches(variant)
                )
                found += _best([each for each in of_slice if each is not None])
    limit_us = one.slo_us - round(problem.options.slack_fraction * one.slo_us)
    able = [each for each in found if each.latency_us <= limit_us]
    if not able:
        least = min((each.latency_us for each in found), default=None)
        fastest = "no device has its latencies and memory" if least is None else f"{least / 1000:.2f} ms at best"
        raise InputError(
            f"application {one.name}: task {one.tasks[task].name}: no variant can meet the SLO less slack of "
            f"{limit_us / 1000:.2f} ms ({fastest}); raise the SLO, or profile faster variants or more devices"
        )
    return able


def configuration(
    problem: Problem, application: Application, task: int, variant: str, device: str, share: int, batch: int
) -> Configuration | None:
    """Return one configuration, None where the device has no latencies, memory or slices for it."""
    found = [one for one in application.tasks[task].variants if one.name == variant]
    here = problem.cluster.device(device)
    if not found or not here.count or share not in here.shares or not found[0].has(device, share):
        return None
    (profile,) = found
    if batch > profile.table(device, share).batches[-1]:
        return None
    if profile.memory_bytes(batch, 0, len(profile.blocks)) > here.slice_memory_bytes(share):
        return None
    latency_us, slice_rps = _costs(problem, application, task, profile, here, share, batch)
    building_us = (batch - 1) / task_rates(application)[task] * 1e6
    return Configuration(task, variant, device, share, batch, latency_us + building_us, slice_rps)


def _best(of_slice: list[Configuration]) -> list[Configuration]:
    """Keep what no other of the same slice is better than."""
    return [
        one
        for one in of_slice
        if not any(
            (other.latency_us, -other.slice_rps, other.batch) < (one.latency_us, -one.slice_rps, one.batch)
            and other.slice_rps >= one.slice_rps
            for other in of_slice
        )
    ]


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
        size = _input_bytes(application, task, variant)
        in_us = max(cluster.network.wire_us(other.name, here.name, size) for other in others)
        hop_us = max(cluster.network.link(other.name, here.name).hop_latency_us for other in others)
    out_us = sum(
        following.fan_out
        * max(
            cluster.network.wire_us(here.name, other.name, _input_bytes(application, number, each))
            for each in following.variants
            for other in others
        )
        for number, following in enumerate(application.tasks)
        if before[number] == task
    )
    beside = share * here.devices_per_server
    limits = [batch / inference_us, *(1 / (wire_us * beside) for wire_us in (in_us, out_us) if wire_us)]
    return inference_us + batch * in_us + hop_us, min(limits) * 1e6


def _input_bytes(application: Application, task: int, variant: Profile) -> int:
    if variant.input_bytes is None:
        raise InputError(
            f"application {application.name}: the input of {variant.name} (task {application.tasks[task].name}) has no "
            "known size; profile it again, or state input_bytes in its profile"
        )
    return variant.input_bytes
