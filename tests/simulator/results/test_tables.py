"""Records survive being written and read, as CSV and as Parquet."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from planner.model import InputError
from simulator.dispatch.decisions import LOST
from simulator.dispatch.system import System
from simulator.engine import World, simulate
from simulator.engine.world import Failure, FailureRate
from simulator.results import metrics, tables
from simulator.results.records import Records
from simulator.results.tables import read_records, write_records


@pytest.fixture
def system() -> System:
    """Two stages of 2 slices and batch 2 (10 µs, then 15 µs), beside one stage of batch 1 (30 µs)."""
    zeros = np.zeros((2, 2), np.int64)
    return System(
        dnn="net",
        slo_us=60,
        stages=np.array([2, 1]),
        batch=np.array([2, 1]),
        latency_us=np.array([[[0, 8, 10], [0, 12, 15]], [[0, 30, 0], [0, 0, 0]]]),
        transfer_us=np.array([[0, 2], [0, 0]]),
        hop_us=zeros,
        later_us=np.array([[15, 0], [0, 0]]),
        slices=np.array([[2, 2], [1, 0]]),
        card_slices=np.array([[2, 1], [1, 0]]),
        server_slices=np.array([[2, 1], [1, 0]]),
        share=np.array([[1, 1], [1, 0]]),
        device=np.array([[0, 0], [1, -1]]),
        device_types=("A", "B"),
        devices=(4.0, 1.0),
        prices_per_hour=(1.0, 2.0),
    )


@pytest.mark.parametrize("policy", ["reservation", "reactive"])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_round_trip(system: System, policy: str, suffix: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(tables, "PIECE", 7)  # several pieces, the last one shorter
    records = simulate(system, np.arange(0, 300, 3), policy=policy)
    assert {"finished"} < {tables.OUTCOMES[code] for code in records.outcome}  # some are dropped
    assert_round_trip(records, tmp_path / f"run.{suffix}")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_inferences_that_were_cut_short_survive(system: System, suffix: str, tmp_path) -> None:
    """One request is on slice 0 of the first stage from 0 to 8 µs; it fails at 5, and slice 1 serves it from there."""
    world = World(failures=(Failure("slice", 0, 0, 0, 5, 100),))
    records = simulate(replace(system, batch=np.array([1, 1])), np.array([0, 90]), world=world)
    assert records.visits[0].end_us.tolist() == [13, 98, 5]
    assert records.visits[0].size.tolist() == [1, 1, 0]
    assert_round_trip(records, tmp_path / f"run.{suffix}")


def test_whatever_fails_survives(system: System, tmp_path) -> None:
    world = World(seed=4, spread=0.3, failure_rate=FailureRate("slice", 150.0, 40.0))
    records = simulate(system, np.arange(0, 3000, 4), world=world)
    assert LOST in records.outcome
    assert (records.visits[0].size == 0).sum() > 5
    assert_round_trip(records, tmp_path / "run.parquet")


def assert_round_trip(records: Records, path: Path) -> None:
    write_records(records, path)
    found = read_records(path, records.system)
    assert metrics.utilisation(found) == metrics.utilisation(records)
    np.testing.assert_array_equal(found.arrival_us, records.arrival_us)
    np.testing.assert_array_equal(found.outcome, records.outcome)
    for mine, theirs in zip(found.visit, records.visit, strict=True):
        np.testing.assert_array_equal(np.maximum(mine, -1), np.maximum(theirs, -1))
    for mine, theirs in zip(found.visits, records.visits, strict=True):
        for column in ("pipeline", "size", "slice", "arrive_us", "start_us", "end_us"):
            np.testing.assert_array_equal(getattr(mine, column), getattr(theirs, column), column)


def test_other_files_are_refused(system: System, tmp_path) -> None:
    records = simulate(system, np.array([1]))
    with pytest.raises(InputError, match=r"expected a name that ends in \.csv or \.parquet"):
        write_records(records, tmp_path / "run.txt")
    write_records(records, tmp_path / "run.csv")
    other = replace(system, stages=np.array([1, 1]))  # one stage position less
    with pytest.raises(InputError, match="expected the columns"):
        read_records(tmp_path / "run.csv", other)
    with pytest.raises(InputError, match="cannot read records"):
        read_records(tmp_path / "absent.parquet", system)
