"""What devices draw: idle watts while they are in use, and busy watts in proportion to the work on them.

A device in use draws ``idle_watts``; a slice at work adds (busy - idle) times its part of the device. So a request of
a pipeline costs, beside the idle devices,

    joules = sum over stages s of (busy_g - idle_g) · fraction(share) · L_s / b_s

and a plan draws sum over types of idle_g · U_g + sum over DNNs of rate · joules; `planner.model.served` tells which
pipelines a rate goes to. (Fan, Weber and Barroso, "Power provisioning for a warehouse-sized computer", ISCA 2007:
power is close to linear in the load.)
"""

from collections.abc import Iterable

from planner.model.errors import InputError
from planner.model.plan import Pipeline
from planner.model.problem import Problem
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
