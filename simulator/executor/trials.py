"""Ways to serve a model tried out on this machine: as a pipeline, and with one batch under way at a time.

All requests of a trial are there from the start, and no deadline is near, so that the limit on batches in flight
alone decides: 1 makes the stages take turns (a batch's time is then the latency), several keep all of them busy.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
import onnx_ir as ir

from planner.model import (
    Cluster,
    DeviceType,
    Dnn,
    InputError,
    Network,
    Options,
    Pipeline,
    Plan,
    Problem,
    Profile,
    Stage,
)
from simulator.executor.devices import Emulation
from simulator.executor.execution import Execution, Settings, execute
from simulator.executor.pareto import HOUR_US, Served, SplitPoint, WireLink

PIPELINED = 4  # batches in flight: one on each stage, and one waiting for each
LONGEST_S = 1_800  # half of the deadline
SHM_GBPS = 1000.0  # without an emulated link the plan's network figures are not used


@dataclass(frozen=True)
class Trial:
    """How long to try: about ``seconds`` for each of the two runs, but at least ``min_batches`` batches."""

    seconds: float = 2.0
    min_batches: int = 20
    warm_batches: int = 4

    def __post_init__(self) -> None:
        """Refuse a trial of no length, or one so long that the deadline comes near."""
        if not 0 < self.seconds <= LONGEST_S:
            raise InputError(f"seconds: expected more than 0 s and at most {LONGEST_S} s, got {self.seconds:g}")


def try_point(
    point: SplitPoint, profile: Profile, model: ir.Model, settings: Settings, trial: Trial, link: WireLink | None = None
) -> SplitPoint:
    """Return a point with what this machine measured; ``link`` is emulated if it is given."""
    problem, plan = plan_of_point(point, profile, link)
    models = {profile.name: model}
    emulation = Emulation(
        {name: count for name, count in settings.emulation.cores.items() if name in point.devices},
        {name: factor for name, factor in settings.emulation.slowdown.items() if name in point.devices},
        network=link is not None,
    )
    settings = replace(settings, guard_fraction=0.0, emulation=emulation)
    served: dict[int, Served] = {}
    expected_us = point.predicted.latency_us
    for in_flight in (1, PIPELINED):
        if in_flight > 1:
            expected_us = point.batch / point.predicted.throughput_rps * 1e6
        batches = trial.warm_batches + max(trial.min_batches, round(trial.seconds * 1e6 / expected_us))
        arrivals_us = np.zeros(batches * point.batch, np.int64)
        run = execute(problem, plan, profile.name, models, arrivals_us, replace(settings, in_flight=in_flight))
        served[in_flight] = _served(run, trial)
    return replace(
        point,
        measured=Served(served[1].latency_us, served[PIPELINED].throughput_rps),
        sequential=served[1],
    )


def plan_of_point(point: SplitPoint, profile: Profile, link: WireLink | None) -> tuple[Problem, Plan]:
    """Return a point as a plan of one pipeline, one slice per stage, and a deadline that is far away."""
    network = Network(SHM_GBPS) if link is None else Network(link.bandwidth_gbps, link.hop_latency_us)
    counts: Mapping[str, int] = {name: point.devices.count(name) for name in point.devices}
    cluster = Cluster(tuple(DeviceType(name, count, "cpu") for name, count in counts.items()), network)
    problem = Problem(cluster, (Dnn(profile.name, HOUR_US, (profile,)),), Options(slack_fraction=0.0))
    bounds = [0, len(profile.blocks)] if point.cut is None else [0, point.cut, len(profile.blocks)]
    stages = []
    for device, first, last in zip(point.devices, bounds[:-1], bounds[1:], strict=True):
        latency_us = profile.stage_latency_us(device, 1, point.batch, first, last)
        wire_us = 0.0
        if last < len(profile.blocks):
            wire_us = network.wire_us(device, point.devices[-1], point.batch * profile.cut_bytes[last - 1])
        stages.append(
            Stage(first, last, device, 1, 1, point.batch, latency_us, wire_us, point.batch / latency_us * 1e6)
        )
    throughput_rps = point.predicted.throughput_rps
    pipeline = Pipeline(profile.name, profile.name, throughput_rps, 0.0, 0.0, tuple(stages))
    plan = Plan(
        "pipelines",
        "max_min_throughput",
        "feasible",
        throughput_rps,
        throughput_rps,
        "given",
        "none",
        0.0,
        "",
        {},
        (pipeline,),
    )
    return problem, plan


def _served(run: Execution, trial: Trial) -> Served:
    """Return median latency and throughput without the first batches."""
    batches = [batch for batch in run.journal.batches if batch.answered_us is not None]
    counted = batches[trial.warm_batches :]
    if not counted:
        what = run.journal.incidents[0].what if run.journal.incidents else "they took too long"
        raise InputError(f"trial of {run.system.dnn}: only {len(batches)} batches were answered ({what})")
    latencies_us = [batch.answered_us - batch.sent_us for batch in counted if batch.answered_us is not None]
    first_us, last_us = batches[trial.warm_batches - 1].answered_us, counted[-1].answered_us
    assert first_us is not None
    assert last_us is not None
    requests = sum(batch.size for batch in counted)
    return Served(float(median(latencies_us)), requests / (last_us - first_us) * 1e6)
