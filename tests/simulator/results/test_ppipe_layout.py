"""Runs in PPipe's layout, read as its scripts do: by column names, with pandas."""

import json

import numpy as np
import pandas as pd
import pytest

from simulator.dispatch.decisions import HOPELESS, LATE, LOST
from simulator.engine import World, build_system, simulate
from simulator.engine.world import FailureRate
from simulator.results import metrics, ppipe_layout, summary
from simulator.results.ppipe_layout import COLUMNS, LOG_COLUMNS, log_rows, queue_lengths, write_run
from simulator.results.records import Records


def test_the_logs_of_a_run_by_hand(records: Records, tmp_path) -> None:
    """Requests 0 and 1 are batch 0, request 2 is batch 1; behind the hop they are batches 2 and 3, on worker 1."""
    write_run(records, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0-0.csv", "master.csv"]
    master = pd.read_csv(tmp_path / "master.csv")
    assert master.columns.tolist() == list(COLUMNS)
    assert master["arrivalTime"].tolist() == master["timeArriveLb"].tolist() == [1000, 1002, 1010, 1100]
    assert master["deadline"].tolist() == [1050, 1052, 1060, 1150]
    assert master["discarded"].tolist() == [False, False, False, True]
    assert master["discarded"].dtype == np.bool_
    assert master["dropCause"].tolist() == [-1, -1, -1, 0]
    assert master["pipelineId"].tolist() == [0, 0, 0, -1]
    assert master["queueLen"].tolist() == [0, 1, 0, 0]
    served = master.dropna()
    assert served[["batchId", "workerId", "bs"]].to_numpy().tolist() == [[0, 0, 2], [0, 0, 2], [1, 0, 1]]
    assert served["timeStartInference"].tolist() == [1002, 1002, 1012]
    hop = pd.read_csv(tmp_path / "0-0.csv")
    assert hop["requestId"].tolist() == [0, 1, 2]
    assert hop[["batchId", "workerId", "pipelineId"]].to_numpy().tolist() == [[2, 1, 0], [2, 1, 0], [3, 1, 0]]
    assert hop["timeArriveDelayer"].tolist() == [1012, 1012, 1022]
    assert hop["timeArriveWorker"].tolist() == hop["timeArriveLb"].tolist() == [1018, 1018, 1025]
    assert hop["timeStartInference"].tolist() == [1030, 1030, 1050]
    assert hop["timeComplete"].tolist() == [1050, 1050, 1070]


ROUGH = World(seed=3, spread=0.2, failure_rate=FailureRate("slice", 4e5, 5e4))


@pytest.mark.parametrize(("policy", "world"), [("reservation", None), ("reactive", None), ("reservation", ROUGH)])
def test_what_its_scripts_compute_is_what_our_metrics_say(two_stages, policy, world, tmp_path, monkeypatch) -> None:
    """Drops over all logs, late ones in the last, and busy time per worker and batch, weighted by share."""
    monkeypatch.setattr(ppipe_layout, "PIECE", 7)
    system = build_system(*two_stages, "first")
    arrivals_us = np.cumsum(np.random.default_rng(1).exponential(2_500, 2_000)).astype(np.int64)
    records = simulate(system, arrivals_us, policy=policy, world=world)
    write_run(records, tmp_path)
    logs = [pd.read_csv(tmp_path / name) for name in ("master.csv", "0-0.csv")]
    assert len(logs[0]) == len(records)
    assert sum(log["discarded"].sum() for log in logs) == metrics.dropped(records, 0) > 0
    last = logs[-1][logs[-1]["pipelineId"] == 0]
    assert (last["timeComplete"] > last["deadline"]).sum() == metrics.late(records, 0)
    waits_us = logs[0]["timeArriveWorker"] - logs[0]["timeArriveLb"]
    finished = waits_us[records.finished]
    assert finished.mean() == pytest.approx(metrics.latency_parts_us(records, 0)["building"].mean())
    if world is None:  # its scripts know nothing of inferences that a failure cut short
        for log, name, share in zip(logs, ("GPU", "CPU"), (2, 1), strict=True):
            batches = log.groupby(["workerId", "batchId"]).first()
            inside = batches["timeComplete"].clip(upper=arrivals_us[-1]) - batches["timeStartInference"]
            busy_us = inside.clip(lower=0).sum() / share
            workers = log["workerId"].nunique()
            assert workers == 4
            used = metrics.utilisation(records, 0)[name]
            assert busy_us / (workers / share) / arrivals_us[-1] == pytest.approx(used)
    else:
        assert (logs[0]["dropCause"] == 2).sum() + (logs[1]["dropCause"] == 2).sum() == (records.outcome == LOST).sum()


def test_the_queue_at_every_arrival(one_stage) -> None:
    """One slice, batch 2, 15 ms: sent at 1 ms (2 requests), so the third waits at 2 ms alone, the fourth sees it."""
    system = build_system(*one_stage(slices=1), "net")
    assert queue_lengths(simulate(system, np.array([0, 1_000, 2_000, 3_000]))).tolist() == [0, 1, 0, 1]


def test_nothing_sent_is_written_too(one_stage, tmp_path) -> None:
    records = simulate(build_system(*one_stage(slo_us=5_000), "net"), np.array([0, 9]))
    assert set(records.outcome) <= {HOPELESS, LATE}
    write_run(records, tmp_path)
    assert pd.read_csv(tmp_path / "master.csv")["discarded"].all()


def test_the_log_of_a_sweep(two_stages) -> None:
    problem, plan = two_stages
    system = build_system(problem, plan, "second")
    records = simulate(system, np.arange(0, 10_000_000, 5_000))
    filled = {f"devices_{name}": n for name, n in zip(system.device_types, system.devices, strict=True)}
    row = {"plan": "p.json", "scheduler": "pipelines", "dnn": "second", "policy": "reservation", "load_factor": 0.8}
    stopped = {"requests": 10, "dropped": 5, "late": 0, "stopped": True, "policy": "reactive"}
    rows = log_rows(
        [row | filled | summary(records), row | stopped], {"p.json": two_stages}, {"p.json": {"second": 250.9}}
    )
    assert all(list(found) == list(LOG_COLUMNS) for found in rows)
    first, second = rows
    # As its plot.py compares them: texts of lists, and JSON per device type.
    assert (first["gpu_models"], first["gpu_counts"], first["bw"]) == ("['GPU', 'CPU']", "[4, 4]", "10")
    assert (first["lf"], first["xput"], first["scheduler"], first["dnn_id"]) == ("80", 250, "v4", 1)
    assert json.loads(first["gpu2count"]) == {"GPU": 2.0, "CPU": 0.0}
    assert json.loads(first["gpu2gpuutil"])["GPU"] == pytest.approx(0.8, abs=0.01)  # 200 · 8 ms on two devices
    assert first["plan_slack"] == 60_000 - 8_000
    assert (first["perc_dropped"], first["perc_violate_sla"]) == (0.0, 0.0)
    assert (second["perc_dropped"], second["scheduler"]) == (0.5, "nexus")
