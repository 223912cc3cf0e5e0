"""The configurations of a task (`planner.model.task_worth`) that may be in a best plan."""

from planner.model import Application, InputError, Problem
from planner.model.task_worth import Configuration, configuration
from planner.planning.pipelines.terrain import planned_batches


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
