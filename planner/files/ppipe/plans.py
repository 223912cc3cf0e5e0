"""Published plan files: the problem that one was computed for, the plan itself, and our plans in the same form.

A file is a list with one entry per DNN. Its ``config`` holds that DNN's inputs, among them the slack in µs
(``hist_adjustment``) and X0 (``est_xput``); device counts and weights stand in the file's name. ``mps`` is the share k
less one, ``num_gpu`` slices / k; seconds and gap of the solve stand on the first DNN (``dart-r``: on each).
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import fsum
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from planner.files.atomic import write_text
from planner.files.documents import explain
from planner.files.ppipe.naming import FileName
from planner.files.ppipe.profiles import read_profile
from planner.files.ppipe.text import read_text
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
    Stage,
    digest,
)
from planner.model.plan import Scheduler

# What a baseline may use whatever its config says: (stages, largest k of a share 1/k).
BASELINE_LIMITS: dict[Scheduler, tuple[int, int]] = {"np": (1, 1), "dart-r": (2, 1)}


@dataclass(frozen=True)
class _Config:
    dnn_name: str
    gpu_name_arr: list[str]
    sla: float
    num_mps_levels: list[int]
    max_num_parts: int
    transmit_time_us_arr: list[float]
    est_xput: float
    batch_build_factor: float
    hist_adjustment: int
    num_gpu_per_server_arr: list[int]
    bw_gbps: float
    bs_same: bool = True
    hist_adjustment_w_scheduling: int = 0
    force_sum_gpu_integer_per_partition: bool = True
    runtime_fmt: int = 1


@dataclass(frozen=True)
class _Partition:
    dnn: str
    layers: tuple[int, int]
    gpu: str
    mps: int
    bs: int
    num_gpu: float
    lat_infer: float
    lat_trans: float
    num_gpu_per_server: int | None = None
    xput: float | None = None


@dataclass(frozen=True)
class _Pipeline:
    xput: float
    partitions: list[_Partition]
    est_xput: float
    est_batch_build_lat: float
    batch_build_factor: float
    hist_adjustment: int
    hist_adjustment_w_scheduling: int = 0


@dataclass(frozen=True)
class _Dnn:
    xput: float
    config: _Config
    sla: float
    pipelines: list[_Pipeline]
    mipgap: float | None = None
    runtime: float | None = None


_FILE = TypeAdapter(tuple[_Dnn, ...])


def read_problem(path: Path, data: Path) -> Problem:
    """Return the problem that a published plan solves, with the profiles in a data folder.

    Raises
    ------
    InputError
        The plan or a profile cannot be used, or they do not belong together.
    """
    published = _read(path)
    name = _name(path, published)
    config = published[0].config
    stages, levels = BASELINE_LIMITS.get(name.scheduler, (max(dnn.config.max_num_parts for dnn in published), 10**6))
    cluster = Cluster(
        tuple(
            DeviceType(
                name=device,
                count=name.counts[index],
                shares=tuple(range(1, min(levels, config.num_mps_levels[index]) + 1)),
                devices_per_server=config.num_gpu_per_server_arr[index],
            )
            for index, device in enumerate(config.gpu_name_arr)
        ),
        Network(config.bw_gbps),
    )
    options = Options(
        max_stages=stages,
        slack_fraction=_slack_fraction(path, published),
        batch_building_factor=config.batch_build_factor,
    )
    dnns = tuple(
        Dnn(
            name=dnn.config.dnn_name,
            slo_us=dnn.sla,
            variants=(read_profile(data, dnn.config.dnn_name, name.device_types),),
            weight=weight,
            np_throughput_rps=dnn.config.est_xput,
        )
        for dnn, weight in zip(published, name.weights, strict=True)
    )
    problem = Problem(cluster, dnns, options)
    _check_transfers(path, published, problem)
    return problem


def read_plan(path: Path, problem: Problem) -> Plan:
    """Return a published plan of a problem (`read_problem` reads it from the same file).

    ``value`` is the published objective and ``bound`` follows from the published gap, 0 where there is none.

    Raises
    ------
    InputError
        The plan cannot be used, or is of other DNNs.
    """
    published = _read(path)
    name = _name(path, published)
    if name.dnns != tuple(dnn.name for dnn in problem.dnns):
        raise InputError(f"{path}: a plan of {list(name.dnns)}, the problem has {[dnn.name for dnn in problem.dnns]}")
    value = min(entry.xput / weight for entry, weight in zip(published, name.weights, strict=True))
    return Plan(
        scheduler=name.scheduler,
        objective="max_min_throughput",
        status="feasible" if (published[0].mipgap or 0.0) > 1e-6 else "optimal",
        value=value,
        bound=value * (1 + (published[0].mipgap or 0.0)),
        method="published",
        backend="gurobi",
        seconds=read_seconds(path) or 0.0,
        problem_sha256=digest(problem),
        profile_sha256={
            f"{dnn.name}/{variant.name}": digest(variant) for dnn in problem.dnns for variant in dnn.variants
        },
        pipelines=tuple(_pipeline(problem, entry, found) for entry in published for found in entry.pipelines),
    )


def read_seconds(path: Path) -> float | None:
    """Return how long the published solve ran, None where the file does not say; raises InputError."""
    seconds = [dnn.runtime for dnn in _read(path) if dnn.runtime is not None]
    return fsum(seconds) if seconds else None


def write_plan(problem: Problem, plan: Plan, folder: Path, slo_multiplier: float = 5.0) -> Path:
    """Write a plan as a published file into a folder, and return its path.

    Parameters
    ----------
    slo_multiplier
        What the SLOs are as a multiple of the whole model's latency on an L4; it is only part of the file name.

    Raises
    ------
    InputError
        The folder cannot be written, or the published form has no place for what the problem holds.
    """
    _check_expressible(problem)
    name = FileName(
        dnns=tuple(dnn.name for dnn in problem.dnns),
        weights=tuple(dnn.weight for dnn in problem.dnns),
        device_types=tuple(device.name for device in problem.cluster.device_types),
        counts=tuple(device.count for device in problem.cluster.device_types),
        bandwidth_gbps=problem.cluster.network.bandwidth_gbps,
        slo_multiplier=slo_multiplier,
        scheduler=plan.scheduler,
    )
    entries = [_entry(problem, plan, dnn, first=index == 0) for index, dnn in enumerate(problem.dnns)]
    path = folder / str(name)
    write_text(path, json.dumps([_without_none(asdict(entry)) for entry in entries], indent=2) + "\n")
    return path


def _read(path: Path) -> tuple[_Dnn, ...]:
    try:
        published = _FILE.validate_json(read_text(path))
    except ValidationError as error:
        raise InputError(f"{path}: {explain(error)}") from None
    if not published:
        raise InputError(f"{path}: expected a list with an entry per DNN, got an empty one")
    for entry in published:
        for key in ("gpu_name_arr", "num_mps_levels", "num_gpu_per_server_arr", "bw_gbps", "batch_build_factor"):
            if getattr(entry.config, key) != getattr(published[0].config, key):
                raise InputError(f"{path}: config.{key} of {entry.config.dnn_name} differs from that of the first DNN")
    return published


def _name(path: Path, published: Sequence[_Dnn]) -> FileName:
    name = FileName.parse(path.name, tuple(dnn.config.dnn_name for dnn in published))
    if list(name.device_types) != published[0].config.gpu_name_arr:
        raise InputError(
            f"{path}: its name has the device types {list(name.device_types)}, "
            f"its config {published[0].config.gpu_name_arr}; they must be equal"
        )
    return name


def _slack_fraction(path: Path, published: Sequence[_Dnn]) -> float:
    """Return the roundest fraction f with round(f · SLO) = the published slack for every DNN."""
    for digits in range(1, 10):
        fraction = round(published[0].config.hist_adjustment / published[0].sla, digits)
        if all(round(fraction * dnn.sla) == dnn.config.hist_adjustment for dnn in published):
            return fraction
    got = {dnn.config.dnn_name: dnn.config.hist_adjustment for dnn in published}
    raise InputError(f"{path}: hist_adjustment: expected the same fraction of every DNN's sla, got {got} µs")


def _check_transfers(path: Path, published: Sequence[_Dnn], problem: Problem) -> None:
    """Refuse profiles whose cuts are not those that the plan was computed from."""
    for entry, dnn in zip(published, problem.dnns, strict=True):
        ours = _transfer_us(problem, dnn)
        theirs = entry.config.transmit_time_us_arr
        if len(ours) != len(theirs) or any(abs(a - b) > 1e-6 * b for a, b in zip(ours, theirs, strict=True)):
            raise InputError(
                f"{path}: config.transmit_time_us_arr of {dnn.name}: expected {ours} from the prepartition's cuts, "
                f"got {theirs}; the plan was made for other blocks"
            )


def _transfer_us(problem: Problem, dnn: Dnn) -> list[float]:
    first = problem.cluster.device_types[0].name
    return [problem.cluster.network.wire_us(first, first, size) for size in dnn.variants[0].cut_bytes]


def _pipeline(problem: Problem, entry: _Dnn, found: _Pipeline) -> Pipeline:
    return Pipeline(
        dnn=entry.config.dnn_name,
        variant=entry.config.dnn_name,
        throughput_rps=found.xput,
        batch_building_us=found.est_batch_build_lat,
        slack_us=float(found.hist_adjustment),
        stages=tuple(_stage(problem, entry, part) for part in found.partitions),
    )


def _stage(problem: Problem, entry: _Dnn, part: _Partition) -> Stage:
    share = part.mps + 1
    slices = round(part.num_gpu * share)
    rps = part.xput
    if rps is None:  # the ablation's NP: a single stage, which only inference limits
        rps = slices * part.bs / part.lat_infer * 1e6
    return Stage(
        first_block=part.layers[0],
        last_block=part.layers[1],
        device=problem.cluster.device(part.gpu).name,
        share=share,
        slices=slices,
        batch=part.bs,
        latency_us=round(part.lat_infer),
        transfer_us=part.lat_trans,
        throughput_rps=rps,
    )


def _check_expressible(problem: Problem) -> None:
    """Refuse what the published form has no place for."""
    for dnn in problem.dnns:
        if [variant.name for variant in dnn.variants] != [dnn.name]:
            raise InputError(
                f"{dnn.name}: PPipe's form knows one variant of the DNN's name; write a native plan instead"
            )
    if problem.cluster.network.links or problem.cluster.network.hop_latency_us:
        raise InputError("network: PPipe's form knows one bandwidth and no hop latency; write a native plan instead")
    if problem.options.device_sharing == "shared":
        raise InputError("device_sharing: PPipe's form knows devices of one DNN only; write a native plan instead")
    for device in problem.cluster.device_types:
        if device.names:
            raise InputError(
                f"segments of {device.name}: PPipe's form knows shares 1/k only; write a native plan instead"
            )
        if device.shares != tuple(range(1, len(device.shares) + 1)):
            raise InputError(f"shares of {device.name}: PPipe's form knows 1 to k only; write a native plan instead")


def _entry(problem: Problem, plan: Plan, dnn: Dnn, *, first: bool) -> _Dnn:
    devices = problem.cluster.device_types
    config = _Config(
        dnn_name=dnn.name,
        gpu_name_arr=[device.name for device in devices],
        sla=dnn.slo_us,
        num_mps_levels=[len(device.shares) for device in devices],
        max_num_parts=problem.options.max_stages,
        transmit_time_us_arr=_transfer_us(problem, dnn),
        est_xput=_x0_rps(problem, plan, dnn),
        batch_build_factor=problem.options.batch_building_factor,
        hist_adjustment=problem.slack_us(dnn),
        num_gpu_per_server_arr=[device.devices_per_server for device in devices],
        bw_gbps=problem.cluster.network.bandwidth_gbps,
    )
    return _Dnn(
        xput=plan.throughput_rps(dnn.name),
        config=config,
        sla=dnn.slo_us,
        pipelines=[_published_pipeline(problem, config, pipeline) for pipeline in plan.of(dnn.name)],
        mipgap=plan.gap if first else None,
        runtime=plan.seconds if first else None,
    )


def _x0_rps(problem: Problem, plan: Plan, dnn: Dnn) -> float:
    """Return X0, from a pipeline's batch building where the problem left it to the planner; 0 if only batches of 1."""
    if dnn.np_throughput_rps is not None:
        return dnn.np_throughput_rps
    factor = problem.options.batch_building_factor
    return next(
        (factor * (p.batch - 1) / p.batch_building_us * 1e6 for p in plan.of(dnn.name) if p.batch_building_us > 0), 0.0
    )


def _published_pipeline(problem: Problem, config: _Config, pipeline: Pipeline) -> _Pipeline:
    return _Pipeline(
        xput=pipeline.throughput_rps,
        partitions=[
            _Partition(
                dnn=pipeline.dnn,
                layers=(stage.first_block, stage.last_block),
                gpu=stage.device,
                mps=int(stage.share) - 1,
                bs=stage.batch,
                num_gpu=stage.slices / int(stage.share),
                lat_infer=float(stage.latency_us),
                lat_trans=stage.transfer_us,
                num_gpu_per_server=problem.cluster.device(stage.device).devices_per_server,
                xput=stage.throughput_rps,
            )
            for stage in pipeline.stages
        ],
        est_xput=config.est_xput,
        est_batch_build_lat=pipeline.batch_building_us,
        batch_build_factor=config.batch_build_factor,
        hist_adjustment=config.hist_adjustment,
    )


def _without_none(value: Any) -> Any:
    """Leave out what is not known, as published files do."""
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in value]
    return value
