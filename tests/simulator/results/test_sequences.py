"""What requests wait for in every stage: adds up to latencies, by hand, from the command line on shared pools."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planner.files import save
from planner.model import (
    Block,
    Cluster,
    DeviceType,
    Dnn,
    LatencyTable,
    Merged,
    MergedMember,
    Network,
    Options,
    Problem,
    Profile,
    Provenance,
)
from planner.planning import make_plan
from simulator.engine import build_system, simulate
from simulator.engine.plans import pools_of
from simulator.results.sequences import sequence_rows, stage_times_us

NAMES = ("cats", "dogs")


def merged_problem() -> Problem:
    """A trunk of 4 ms (6 for two) that two DNNs share, heads of 1 ms, on devices that hold one of them."""
    dnns = []
    for name in NAMES:
        table = LatencyTable("Pi", 1, (1, 2), ((4000, 1000), (6000, 1500)), Provenance("measured", ""))
        profile = Profile(name, (Block(("trunk",), 100), Block((name,), 50)), (1000,), (table,))
        dnns.append(Dnn(name, 60_000.0, (profile,), rate_rps=100.0, np_throughput_rps=200.0))
    cluster = Cluster((DeviceType("Pi", 7, memory_bytes=120),), Network(1.0, hop_latency_us=100))
    merged = (Merged(tuple(MergedMember(name) for name in NAMES)),)
    return Problem(cluster, tuple(dnns), Options(objective="fewest_devices"), merged=merged)


@pytest.mark.parametrize("policy", ["reservation", "reactive", "latest-start"])
@pytest.mark.parametrize("load", [0.5, 1.6])
def test_times_of_all_stages_add_up(policy: str, load: float) -> None:
    problem = merged_problem()
    plan = make_plan(problem)
    systems = [build_system(problem, plan, name) for name in NAMES]
    rng = np.random.default_rng(3)
    arrivals = [np.sort(rng.integers(0, 2_000_000, int(200 * load))) for _ in NAMES]
    pools = pools_of(plan, NAMES)
    assert pools is not None
    for number, records in enumerate(simulate(systems, arrivals, policy=policy, pools=pools)):
        done = records.finished & (records.arrival_us >= 1000)
        latency_us = (records.end_us() - records.arrival_us)[done]
        found = [stage_times_us(records, stage) for stage in range(2)]
        for times in found:
            whole = sum(times[part] for part in ("before", "waiting", "queueing", "inference", "after"))
            assert np.array_equal(whole, latency_us)
            assert all(values.min(initial=0) >= 0 for values in times.values())
        left_us = latency_us - found[0]["after"] + found[0]["transfer"]
        assert np.array_equal(found[1]["before"], left_us)
        assert not found[1]["transfer"].any()
        assert not found[1]["after"].any()
        rows = sequence_rows(records, pools[number])
        assert [row["pools"] for row in rows] == ["pool 1", ""]
        lost = (~records.finished & (records.arrival_us >= 1000)).sum()
        assert sum(row["discarded"] + row["failed"] for row in rows) == lost
        assert all(row["requests"] == done.sum() for row in rows)


def test_one_request_by_hand() -> None:
    """A trunk of 4 ms, 8 + 100 µs on the network, a head of 1 ms; in front of both it waits for a second request."""
    problem = merged_problem()
    plan = make_plan(problem)
    systems = [build_system(problem, plan, name) for name in NAMES]
    arrivals = [np.array([5000]), np.array([9_000_000])]
    records = simulate(systems, arrivals, policy="latest-start", pools=pools_of(plan, NAMES))
    trunk, head = (sequence_rows(records[0])[stage] for stage in range(2))
    assert (trunk["inference_mean_us"], trunk["transfer_mean_us"]) == (4000, 108)
    assert trunk["before_mean_us"] == 0
    assert head["before_mean_us"] == trunk["waiting_mean_us"] + trunk["queueing_mean_us"] + 4000 + 108
    assert head["inference_mean_us"] == 1000


@pytest.mark.parametrize("made", ["gamma", "bursts", "closed-loop"])
@pytest.mark.parametrize("policy", ["latest-start", "reservation"])
def test_generated_arrivals_on_shared_pools(command: Any, tmp_path: Path, made: str, policy: str) -> None:
    problem = merged_problem()
    save(problem, tmp_path / "problem.json")
    save(make_plan(problem), tmp_path / "plan.json")
    how = ("--clients", 60, "--response", 0.03, "--think", 0.6) if made == "closed-loop" else ("--rate", 80)
    trace = tmp_path / "arrivals.txt"
    assert command("simulator", "generate", made, "--out", trace, "--duration", 5, *how).status == 0
    out = tmp_path / "run"
    done = command(
        "simulator", "run", tmp_path / "plan.json", "--trace", trace, "--replay", "verbatim", "--duration", 5,
        "--policy", policy, "--out", out,
    )  # fmt: skip
    assert done.status == 0, done.err
    rows = list(csv.DictReader((out / "sequences.csv").read_text().splitlines()))
    assert [(row["dnn"], row["stage"], row["pools"]) for row in rows] == [
        ("cats", "0", "pool 1"), ("cats", "1", ""), ("dogs", "0", "pool 1"), ("dogs", "1", ""),
    ]  # fmt: skip
    assert all(int(row["requests"]) > 100 for row in rows)
    assert all(float(row["inference_p99_us"]) in (4000, 6000) for row in rows if row["stage"] == "0")
