"""From a problem and a plan to the system that is simulated."""

from collections.abc import Sequence
from math import exp, log, nan, sqrt

import numpy as np
from numpy.typing import NDArray

from planner.model import DeviceType, InputError, Pipeline, Plan, Problem, Stage
from planner.model.check_placement import unknown_slices
from planner.model.placing import locations
from planner.model.segments import kind_of
from simulator.dispatch.system import System

__all__ = ["TOLERANCE_US", "System", "build_system"]

# How far a plan's latency may lie from its profile's: published plans round a little.
TOLERANCE_US = 50

MOST_SLICES = 32_767  # of a stage: what records of runs hold


def build_system(problem: Problem, plan: Plan, dnn_name: str) -> System:
    """Return what serves one DNN, in integer µs.

    Latencies at every batch size up to the planned one are the profile's. The SLO is truncated, the transfer
    time per request rounded. In a stage that is not last, the slices of m consecutive devices share a
    network card, m = max(devices per server of this stage's type, of the next one's); in the last
    stage each slice has its own.

    Raises
    ------
    InputError
        The plan has no pipeline for the DNN, does not cover its blocks, names an absent device, has stages of
        different batch sizes or of too many slices, places slices that it has not, or its latencies are more than
        50 µs away from the profile's.
    """
    problem = problem.planned
    dnn = problem.dnn(dnn_name)
    pipelines = plan.of(dnn_name)
    if not pipelines:
        raise InputError(
            f"the plan has no pipeline for {dnn_name}; it serves {sorted({p.dnn for p in plan.pipelines})}"
        )
    for number, pipeline in enumerate(pipelines):
        _check(problem, pipeline, f"pipeline {number} of {dnn_name}")

    latency_us, device, ints = _stages(problem, pipelines)
    kinds = problem.cluster.device_types
    numbers, cores = _places(problem, plan, dnn_name, (*device.shape, int(ints["slices"].max())))
    return System(
        dnn=dnn_name,
        slo_us=int(dnn.slo_us),
        stages=np.array([len(pipeline.stages) for pipeline in pipelines]),
        batch=np.array([pipeline.batch for pipeline in pipelines]),
        latency_us=latency_us,
        device=device,
        device_types=tuple(kind.name for kind in kinds),
        devices=tuple(_devices(kind, pipelines) for kind in kinds),
        prices_per_hour=tuple(_or_nan(kind.price_per_hour) for kind in kinds),
        watts=tuple((_or_nan(kind.idle_watts), _or_nan(kind.busy_watts)) for kind in kinds),
        number=numbers,
        cores=cores,
        spread=stage_spread(problem, pipelines),
        variants=tuple(pipeline.variant for pipeline in pipelines),
        accuracies=tuple(dnn.accuracy.get(pipeline.variant, nan) for pipeline in pipelines),
        **ints,
    )


def _stages(
    problem: Problem, pipelines: Sequence[Pipeline]
) -> tuple[NDArray[np.int64], NDArray[np.int64], dict[str, NDArray[np.int64]]]:
    """Return ``[pipeline, stage, batch]`` latencies, ``[pipeline, stage]`` device types, and all else of stages."""
    shape = len(pipelines), max(len(pipeline.stages) for pipeline in pipelines)
    ints = {
        name: np.zeros(shape, np.int64)
        for name in ("transfer_us", "hop_us", "later_us", "slices", "card_slices", "server_slices", "share")
    }
    device = np.full(shape, -1, np.int64)
    latency_us = np.zeros((*shape, max(pipeline.batch for pipeline in pipelines) + 1), np.int64)
    for p, pipeline in enumerate(pipelines):
        for s, stage in enumerate(pipeline.stages):
            kind = problem.cluster.device(stage.device)
            device[p, s] = problem.cluster.index(stage.device)
            ints["slices"][p, s] = stage.slices
            ints["share"][p, s] = slices_per_device = round(1 / kind.fraction(stage.share))
            after = pipeline.stages[s + 1 :]
            ints["later_us"][p, s] = sum(later.latency_us + int(later.transfer_us) for later in after)
            ints["server_slices"][p, s] = kind.devices_per_server * slices_per_device
            ints["card_slices"][p, s] = _card_slices(problem, pipeline, s)
            latency_us[p, s, 1 : stage.batch + 1] = _latencies_us(problem, pipeline, stage)
            if s > 0:
                ints["transfer_us"][p, s], ints["hop_us"][p, s] = _hop(problem, pipeline, s)
    return latency_us, device, ints


def _devices(kind: DeviceType, pipelines: Sequence[Pipeline]) -> float:
    """Return how many devices of a type pipelines have, parts of devices added up."""
    stages = (stage for pipeline in pipelines for stage in pipeline.stages if stage.device == kind.name)
    return sum(float(stage.slices * kind.fraction(stage.share)) for stage in stages)


def _or_nan(figure: float | None) -> float:
    return nan if figure is None else figure


def _places(
    problem: Problem, plan: Plan, dnn_name: str, shape: tuple[int, int, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the number of every slice's device, and its first core and how many it has; -1 where there is no slice."""
    if shape[-1] > MOST_SLICES:
        raise InputError(
            f"{dnn_name}: stages of up to {shape[-1]} slices; expected at most {MOST_SLICES} a stage, which records of "
            "runs hold: simulate a smaller cluster at a smaller rate"
        )
    for unknown in unknown_slices(plan):
        raise InputError(f"{unknown.where}: {unknown.constraint}: {unknown.text}; plan again")
    number, cores = np.full(shape, -1), np.zeros((*shape, 2), np.int64)
    rows = {p: row for row, p in enumerate(i for i, one in enumerate(plan.pipelines) if one.dnn == dnn_name)}
    for one in locations(problem, plan):
        if one.pipeline not in rows:
            continue
        at = rows[one.pipeline], one.stage, one.slice
        number[at] = one.number
        device = problem.cluster.device(one.device)
        share = plan.pipelines[one.pipeline].stages[one.stage].share
        if device.cores is not None and isinstance(share, str):
            cores[at] = one.slot, device.division(kind_of(share)).widths[kind_of(share)]
    return number, cores


def stage_spread(problem: Problem, pipelines: Sequence[Pipeline]) -> NDArray[np.float64]:
    """Return ``[pipeline, stage]`` spreads of service times at the planned batch, from the profile's.

    Blocks vary independently: with latencies l_i and spreads s_i the stage's is
    ``sqrt(log(1 + sum(l_i² · (exp(s_i²) - 1)) / sum(l_i)²))``; 0 where the profile was not measured.
    """
    spread = np.zeros((len(pipelines), max(len(pipeline.stages) for pipeline in pipelines)))
    for p, pipeline in enumerate(pipelines):
        profile = problem.dnn(pipeline.dnn).variant(pipeline.variant)
        for s, stage in enumerate(pipeline.stages):
            table = profile.table(stage.device, stage.share)
            if table.spread is None:
                continue
            blocks = slice(stage.first_block, stage.last_block)
            latency_us = table.block_latency_us(stage.batch)[blocks]
            nearest = next(i for i, batch in enumerate(table.batches) if batch >= stage.batch)
            variance = sum(
                mean**2 * (exp(sigma**2) - 1)
                for mean, sigma in zip(latency_us, table.spread[nearest][blocks], strict=True)
            )
            spread[p, s] = sqrt(log(1 + variance / sum(latency_us) ** 2))
    return spread


def _latencies_us(problem: Problem, pipeline: Pipeline, stage: Stage) -> list[int]:
    """Return a stage's inference time at batch 1, 2, ... up to the planned one."""
    profile = problem.dnn(pipeline.dnn).variant(pipeline.variant)
    return [
        profile.stage_latency_us(stage.device, stage.share, batch, stage.first_block, stage.last_block)
        for batch in range(1, stage.batch + 1)
    ]


def _card_slices(problem: Problem, pipeline: Pipeline, s: int) -> int:
    """Return how many consecutive slices of stage ``s`` share a network card."""
    if s == len(pipeline.stages) - 1:
        return 1
    per_server = [problem.cluster.device(stage.device).devices_per_server for stage in pipeline.stages[s : s + 2]]
    fraction = problem.cluster.device(pipeline.stages[s].device).fraction(pipeline.stages[s].share)
    return round(max(per_server) / fraction)


def _hop(problem: Problem, pipeline: Pipeline, s: int) -> tuple[int, int]:
    """Return wire time per request and latency (µs) of the hop into stage ``s``."""
    sender, receiver = pipeline.stages[s - 1 : s + 1]
    size_bytes = problem.dnn(pipeline.dnn).variant(pipeline.variant).cut_bytes[receiver.first_block - 1]
    network = problem.cluster.network
    return (
        round(network.wire_us(sender.device, receiver.device, size_bytes)),
        round(network.link(sender.device, receiver.device).hop_latency_us),
    )


def _check(problem: Problem, pipeline: Pipeline, where: str) -> None:
    """Refuse a pipeline that the problem does not allow."""
    profile = problem.dnn(pipeline.dnn).variant(pipeline.variant)
    covered = [0, *(stage.last_block for stage in pipeline.stages)]
    if [stage.first_block for stage in pipeline.stages] != covered[:-1] or covered[-1] != len(profile.blocks):
        ranges = [(stage.first_block, stage.last_block) for stage in pipeline.stages]
        raise InputError(f"{where}: stages cover {ranges}; expected all {len(profile.blocks)} blocks once, in order")
    if len({stage.batch for stage in pipeline.stages}) > 1:
        got = [stage.batch for stage in pipeline.stages]
        raise InputError(
            f"{where}: expected one batch size for all stages, got {got}; plan without stage_batches to simulate it"
        )
    for number, stage in enumerate(pipeline.stages):
        problem.cluster.device(stage.device)
        expected_us = profile.stage_latency_us(
            stage.device, stage.share, stage.batch, stage.first_block, stage.last_block
        )
        if abs(stage.latency_us - expected_us) > TOLERANCE_US:
            raise InputError(
                f"{where}, stage {number}: latency {stage.latency_us} µs, the profile says {expected_us} µs "
                f"({stage.place}, batch {stage.batch}); was the plan made for another profile?"
            )
