"""What devices draw: idle watts while they are in use, and busy watts in proportion to the work on them.

A device in use draws ``idle_watts``; a slice at work adds (busy - idle) times its part of the device. So a request of
a pipeline costs, beside the idle devices,

    joules = sum over stages s of (busy_g - idle_g) · fraction(share) · L_s / b_s

and a plan draws sum over types of idle_g · U_g + sum over DNNs of rate · joules, each DNN's rate going to its pipelines
of the fewest joules first. (Fan, Weber and Barroso, "Power provisioning for a warehouse-sized computer", ISCA 2007:
power is close to linear in the load.)
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from planner.model.errors import InputError
from planner.model.plan import Pipeline
from planner.model.problem import GIVEN_RATES, Dnn, Objective, Problem
from planner.model.segments import Share


def watts_known(problem: Problem, devices: Iterable[str]) -> bool:
    """Tell whether idle and busy watts of all these device types are known."""
    types = [problem.cluster.device(name) for name in devices]
    return all(device.idle_watts is not None and device.busy_watts is not None for device in types)


def idle_and_busy_watts(problem: Problem, device: str) -> tuple[float, float]:
    """Return what a device of a type draws idle and busy; raises InputError where that is unknown."""
    found = problem.cluster.device(device)
    if found.idle_watts is None or found.busy_watts is None:
        missing = "idle_watts" if found.idle_watts is None else "busy_watts"
        raise InputError(
            f"{missing} of {device}: missing; energy needs idle_watts and busy_watts of every device type in use"
        )
    return found.idle_watts, found.busy_watts


def request_joules(problem: Problem, stages: Iterable[tuple[str, Share, float, int]]) -> float:
    """Return what a request adds to the energy of idle devices (J).

    Parameters
    ----------
    stages
        Device type, share, latency of a batch (µs) and batch size of every stage.

    Examples
    --------
    100 W more for 8 ms of half a device, for 2 requests:

    >>> from planner.model import *
    >>> table = LatencyTable("L4", 2, (2,), ((8000,),), Provenance("measured", "by hand"))
    >>> profile = Profile("toy", (Block(("a",)),), (), (table,))
    >>> l4 = DeviceType("L4", 1, shares=(1, 2), idle_watts=30, busy_watts=130)
    >>> problem = Problem(Cluster((l4,), Network(10)), (Dnn("toy", 20_000, (profile,)),))
    >>> round(request_joules(problem, [("L4", 2, 8000, 2)]), 6)
    0.2
    """
    joules = 0.0
    for name, share, latency_us, batch in stages:
        idle, busy = idle_and_busy_watts(problem, name)
        fraction = problem.cluster.device(name).fraction(share)
        joules += (busy - idle) * float(fraction) * latency_us * 1e-6 / batch
    return joules


def pipeline_joules(problem: Problem, pipeline: Pipeline) -> float:
    """Return what a request of a pipeline adds to the energy of idle devices (J)."""
    stages = ((stage.device, stage.share, float(stage.latency_us), stage.batch) for stage in pipeline.stages)
    return request_joules(problem, stages)


def working_watts(rate_rps: float, pipelines: Iterable[tuple[float, float]]) -> float:
    """Return what the work of a DNN at a rate draws, over (joules, throughput) of its pipelines, the cheapest first.

    >>> working_watts(150.0, [(0.5, 100.0), (0.2, 100.0)])
    45.0
    """
    watts = 0.0
    for joules, throughput_rps in sorted(pipelines):
        served = min(rate_rps, throughput_rps)
        watts += joules * served
        rate_rps -= served
    return watts


def planned_rate_rps(dnn: Dnn, throughput_rps: float, objective: Objective) -> float:
    """Return the rate at which a DNN is to be served: its own where rates are given, else all that it can be."""
    given = objective in GIVEN_RATES and dnn.rate_rps is not None
    return min(throughput_rps, dnn.rate_rps or 0.0) if given else throughput_rps


def planned_working_watts(problem: Problem, pipelines: Iterable[Pipeline]) -> float:
    """Return what the work of all DNNs draws at the rates at which they are planned to be served."""
    return sum(watts for watts, _ in _work(problem, pipelines))


def _work(problem: Problem, pipelines: Iterable[Pipeline]) -> Iterator[tuple[float, float]]:
    """Yield watts and requests/s of every DNN."""
    by_dnn: dict[str, list[tuple[float, float]]] = {}
    for pipeline in pipelines:
        by_dnn.setdefault(pipeline.dnn, []).append((pipeline_joules(problem, pipeline), pipeline.throughput_rps))
    for name, found in by_dnn.items():
        most_rps = sum(throughput for _, throughput in found)
        rate_rps = planned_rate_rps(problem.dnn(name), most_rps, problem.options.objective)
        yield working_watts(rate_rps, found), rate_rps


def plan_watts(
    problem: Problem, pipelines: Sequence[Pipeline], devices: Mapping[str, int]
) -> tuple[float, float] | None:
    """Return what a plan draws (W) and the energy of a thousand requests (J); None where watts are unknown.

    Parameters
    ----------
    devices
        Devices in use by type.
    """
    if not watts_known(problem, devices):
        return None
    work = list(_work(problem, pipelines))
    idle = sum(idle_and_busy_watts(problem, name)[0] * count for name, count in devices.items())
    watts, served_rps = idle + sum(watts for watts, _ in work), sum(rate for _, rate in work)
    return watts, watts / served_rps * 1000 if served_rps else 0.0
