"""Runs in the layout of PPipe's own simulator, so that its scripts read them.

Per run a folder with ``master.csv``, the frontend's log, a row per request, and for every pipeline i and hop j
``i-j.csv``, the log of what lies between its stages j and j + 1, a row per request that came so far. `COLUMNS` are
theirs, read by name (scripts/parse_cluster_sim.py there); times are µs, and empty where there was no batch. Per sweep
``logs.csv``, a row per run under `LOG_COLUMNS` (read by scripts/plot.py there).

Where theirs leaves room, or we differ:

- ``dropCause`` is 0 for a request that was dropped when first looked at (theirs: some queueing delay in µs), 1 after it
  waited, 2 where it was lost to a failure, -1 else;
- ``pipelineId`` stands in ``i-j.csv`` too (theirs: -1, so that its scripts find nothing late behind a hop);
- ``queueLen`` is of the frontend's queue, 0 behind a hop, and takes a request that is dropped after it waited to be
  gone when the one before it went; ``timeArriveLb`` behind a hop is when the batch was sent on from there;
- ``logs.csv`` is made of our metrics (`simulator.results.metrics`): their columns of strings per stage, of the longest
  queue and of batch sizes met per pipeline are empty. It tells plans, DNNs, loads, and reactive from other dispatch
  apart, but has no columns for traces, seeds, worlds and other policies, so that a sweep for it is over one of each.
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from planner.files.atomic import replacing
from planner.model import Plan, Problem
from simulator.dispatch.decisions import HOPELESS, LATE, LOST, OUTCOMES
from simulator.dispatch.system import System
from simulator.results.records import Records

PIECE = 250_000
COLUMNS = {
    **dict.fromkeys(("requestId", "arrivalTime", "streamId", "deadline"), pa.int64()),
    "discarded": pa.bool_(),
    **dict.fromkeys(("timeArriveDelayer", "timeArriveLb", "pipelineId", "queueLen", "dropCause"), pa.int64()),
    **dict.fromkeys(
        ("batchId", "workerId", "timeArriveWorker", "timeStartInference", "timeComplete", "bs"), pa.int64()
    ),
}
LOG_COLUMNS = (
    *("dnn", "dnn_group_id", "dnn_id", "slo", "gpu_models", "gpu_counts", "bw", "xput", "lf", "scheduler"),
    *("num_streams_planned", "num_streams", "perc_dropped", "perc_violate_sla"),
    *("lat_batch_build_mean", "lat_batch_build_p99", "lat_queue_total_mean", "lat_queue_total_p99"),
    *("lat_queue_mean_str", "lat_queue_p99_str", "max_queue_len", "plan_slack", "bs_planned_arr", "bs_actual_arr"),
    *("drop_cause_perc_arr", "est_batch_build_lat", "gpu2gpuutil", "gpu2count"),
)
CAUSE_OF_OUTCOME = np.array([{HOPELESS: 0, LATE: 1, LOST: 2}.get(code, -1) for code in range(len(OUTCOMES))])
STREAM_RPS = 30  # PPipe counts throughput in video streams of so many frames per second
SCHEDULERS = {"np": "bl", "dart-r": "dart-r", "pipelines": "v4"}

Ints = NDArray[np.int64]


def write_run(records: Records, folder: Path) -> None:
    """Write ``master.csv`` and ``i-j.csv`` of a run; raises InputError where the folder cannot be written."""
    requests = np.arange(len(records))
    _write(folder / "master.csv", records, 0, requests)
    for stage in range(1, records.system.max_stages):
        before = records.visits[stage - 1]
        row = records.visit[stage - 1]
        there = np.flatnonzero((row >= 0) & (before.slice[row] >= 0))
        pipeline = before.pipeline[row[there]]
        for p in np.flatnonzero(records.system.stages > stage).tolist():
            _write(folder / f"{p}-{stage - 1}.csv", records, stage, there[pipeline == p])


def log_rows(
    rows: Sequence[Mapping[str, Any]],
    plans: Mapping[str, tuple[Problem, Plan]],
    full_rps: Mapping[str, Mapping[str, float]],
) -> list[dict[str, Any]]:
    """Return the rows of ``logs.csv`` from those of a sweep.

    Parameters
    ----------
    rows
        `simulator.results.summary` of every run, with its plan, scheduler, policy, DNN, load factor and devices.
    plans
        Name -> problem and plan.
    full_rps
        Plan -> DNN -> what load factor 1 means (requests/s).
    """
    groups = list(dict.fromkeys(tuple(dnn.name for dnn in problem.planned.dnns) for problem, _ in plans.values()))
    found = []
    for row in rows:
        problem, plan = plans[row["plan"]]
        names = [dnn.name for dnn in problem.planned.dnns]
        kinds = problem.cluster.device_types
        utilisation = {kind.name: row.get(f"utilisation_{kind.name}") or 0.0 for kind in kinds}
        devices = {kind.name: row.get(f"devices_{kind.name}") or 0.0 for kind in kinds}
        found.append(
            dict.fromkeys(LOG_COLUMNS)
            | {
                "dnn": row["dnn"],
                "dnn_group_id": groups.index(tuple(names)),
                "dnn_id": names.index(row["dnn"]),
                "slo": problem.dnn(row["dnn"]).slo_us,
                "gpu_models": str([kind.name for kind in kinds]),
                "gpu_counts": str([kind.count for kind in kinds]),
                "bw": f"{problem.cluster.network.bandwidth_gbps:g}",
                "xput": int(full_rps[row["plan"]][row["dnn"]]),
                "lf": f"{100 * row['load_factor']:.10g}",
                "scheduler": "nexus" if row["policy"] == "reactive" else SCHEDULERS[row["scheduler"]],
                "num_streams_planned": plan.throughput_rps(row["dnn"]) / STREAM_RPS,
                "num_streams": 1,
                "perc_dropped": row["dropped"] / row["requests"] if row["requests"] else 1.0,
                "perc_violate_sla": row["late"] / row["requests"] if row["requests"] else 1.0,
                "lat_batch_build_mean": row.get("building_mean_us"),
                "lat_batch_build_p99": row.get("building_p99_us"),
                "lat_queue_total_mean": row.get("queueing_mean_us"),
                "lat_queue_total_p99": row.get("queueing_p99_us"),
                "drop_cause_perc_arr": str(_cause_shares(row)),
                "gpu2gpuutil": json.dumps({name: 0.0 if np.isnan(x) else x for name, x in utilisation.items()}),
                "gpu2count": json.dumps(devices),
            }
            | _planned(problem, plan, row["dnn"])
        )
    return found


def _planned(problem: Problem, plan: Plan, dnn: str) -> dict[str, Any]:
    """Return what the plan says: slack and batch building, averaged over pipelines by throughput, and batch sizes."""
    pipelines = plan.of(dnn)
    weights = [pipeline.throughput_rps / (plan.throughput_rps(dnn) or 1) for pipeline in pipelines]
    slo_us = problem.dnn(dnn).slo_us
    slack_us = [slo_us - pipeline.inference_us - pipeline.transfer_us for pipeline in pipelines]
    return {
        "plan_slack": sum(w * slack for w, slack in zip(weights, slack_us, strict=True)),
        "est_batch_build_lat": sum(w * one.batch_building_us for w, one in zip(weights, pipelines, strict=True)),
        "bs_planned_arr": str([pipeline.batch for pipeline in pipelines]),
    }


def _cause_shares(row: Mapping[str, Any]) -> list[float]:
    """Return the share of each cause among the requests dropped."""
    shares = [float(row.get(f"unserved_{cause}", 0.0)) for cause in ("hopeless", "late", "lost")]
    return [share / sum(shares) if sum(shares) else 0.0 for share in shares]


def _write(path: Path, records: Records, stage: int, requests: Ints) -> None:
    schema = pa.schema(COLUMNS)
    queue = queue_lengths(records) if stage == 0 else np.zeros(len(records), np.int64)
    with replacing(path) as temporary, temporary.open("wb") as file, pa.csv.CSVWriter(file, schema) as text:
        for begin in range(0, len(requests), PIECE):
            chosen = requests[begin : begin + PIECE]
            columns = _columns(records, stage, chosen) | {"queueLen": queue[chosen]}
            text.write_table(pa.table(columns, schema))


def _columns(records: Records, stage: int, requests: Ints) -> dict[str, Any]:
    """Return the columns of some rows of one log, the length of the queue aside."""
    system, visits = records.system, records.visits[stage]
    of_requests = partial(records.of_requests, stage, requests=requests)
    batch = records.visit[stage][requests]
    served = (batch >= 0) & (of_requests(visits.slice) >= 0)
    if stage == 0:
        pipeline = np.where(batch >= 0, of_requests(visits.pipeline), -1)
    else:
        pipeline = records.of_requests(stage - 1, records.visits[stage - 1].pipeline, requests)
    of_batch = {
        "batchId": batch + sum(len(earlier.size) for earlier in records.visits[:stage]),
        "workerId": _first_workers(system)[pipeline, stage] + of_requests(visits.slice),
        "timeArriveWorker": of_requests(visits.arrive_us),
        "timeStartInference": of_requests(visits.start_us),
        "timeComplete": of_requests(visits.end_us),
        "bs": of_requests(visits.size),
    }
    arrival_us = records.arrival_us[requests]
    left_us = np.zeros(len(requests), np.int64)  # the stage before
    if stage > 0:
        left_us = records.visits[stage - 1].end_us[records.visit[stage - 1][requests]]
    return {
        "requestId": requests,
        "arrivalTime": arrival_us,
        "streamId": np.zeros(len(requests), np.int64),
        "deadline": arrival_us + system.slo_us,
        "discarded": ~served,
        "timeArriveDelayer": left_us,
        "timeArriveLb": arrival_us if stage == 0 else np.where(served, of_batch["timeArriveWorker"], left_us),
        "pipelineId": pipeline.astype(np.int64),
        "dropCause": np.where(served, -1, CAUSE_OF_OUTCOME[records.outcome[requests]]),
        **{name: pa.array(values.astype(np.int64), mask=~served) for name, values in of_batch.items()},
    }


def _first_workers(system: System) -> Ints:
    """Return ``[pipeline, stage]``, the number of the pool's first slice; all slices are numbered in plan order."""
    first: Ints = (np.cumsum(system.slices) - system.slices.ravel()).reshape(system.slices.shape)
    return first


def queue_lengths(records: Records) -> Ints:
    """Return ``[request]``, how many requests were in the frontend's queue when it arrived.

    The queue is in order of arrival, so a request leaves it when it is sent, or, if it is dropped when first looked at,
    when the one before it has left.
    """
    left_us = np.maximum.accumulate(np.maximum(records.sent_us(0), records.arrival_us))
    here = np.arange(len(records))
    return here - np.minimum(np.searchsorted(left_us, records.arrival_us, side="left"), here)
