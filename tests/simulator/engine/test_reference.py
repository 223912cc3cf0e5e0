"""The reference simulator's own results, on a sample of its cases; scripts/reproduce_ppipe.py simulates all of them."""

import csv
import os
from functools import cache
from pathlib import Path

import pytest

from planner.files.ppipe import read_plan, read_problem
from simulator.engine import System, build_system, simulate
from simulator.results.metrics import counted, dropped, late, latencies_us, quantile
from simulator.workload import fold, read_maf21
from simulator.workload.arrivals import ArrivalsUs

REFERENCE = os.environ.get("POOLPIPE_REFERENCE")
FOLDER = Path(REFERENCE or ".") / "ppipe"
POLICIES = {"RESERVATION": "reservation", "SLA_AWARE": "reactive"}
# Every 25th case: 45 of 1,104, from all files, methods, DNNs and both kinds of arrivals.
CASES = [
    row
    for path in sorted((FOLDER / "simulator").glob("cases_*.csv"))
    for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines())
][::25]

pytestmark = pytest.mark.skipif(REFERENCE is None, reason="POOLPIPE_REFERENCE is unset")


@cache
def system_of(plan: str, dnn_index: int) -> System:
    path = next((FOLDER / "plans").rglob(plan))
    problem = read_problem(path, FOLDER)
    return build_system(problem, read_plan(path, problem), problem.dnns[dnn_index].name)


@cache
def arrivals_of(trace: str, rate: str) -> ArrivalsUs:
    return fold(times_of(trace), float(rate), 30.0)


@cache
def times_of(trace: str):
    return read_maf21(FOLDER / "simulator" / f"{trace}.csv.gz").times_s


@pytest.mark.parametrize("engine", ["auto", "events"])
def test_equal_to_the_reference(engine: str) -> None:
    assert len(CASES) >= 40
    for row in CASES:
        system = system_of(row["plan"], int(row["dnn_id"]))
        records = simulate(
            system, arrivals_of(row["trace"], row["load_rps"]), policy=POLICIES[row["lb"]], engine=engine
        )
        latency_us = latencies_us(records)
        ours = {
            "requests": int(counted(records).sum()),
            "dropped": dropped(records),
            "late": late(records),
            "p50_us": quantile(latency_us, 0.5),
            "p99_us": quantile(latency_us, 0.99),
        }
        for name, value in ours.items():
            if row[name]:  # empty where the reference prints nothing
                assert value == int(row[name]), (name, row)
