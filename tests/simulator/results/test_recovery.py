"""What failures did over time: counts by hand."""

import numpy as np
import pytest

from simulator.dispatch.decisions import LOST
from simulator.engine import World, build_system, simulate
from simulator.engine.world import Failure
from simulator.results.recovery import failures, over_time, recovery


@pytest.fixture
def failing(one_stage):
    """Two slices of 10 ms; they stop at 45 and 46 ms for 30 ms; requests come every 10 ms from 0 to 190."""
    system = build_system(*one_stage(slo_us=15_000), "net")
    world = World(failures=(Failure("slice", 0, 0, 0, 45_000, 30_000), Failure("slice", 0, 0, 1, 46_000, 30_000)))
    return simulate(system, np.arange(0, 200_000, 10_000), world=world, policy="earliest-deadline")


def test_failures_are_told_with_what_they_cost(failing):
    rows = failures(failing)
    assert rows["at_s"].tolist() == [0.045, 0.046]  # the one that was cut first began again on the other slice
    assert rows["services"].tolist() == [1, 1]
    assert rows["lost"].sum() == (failing.outcome == LOST).sum() > 0
    cut = failing.visits[0].size == 0
    vain_us = (failing.visits[0].end_us - failing.visits[0].start_us)[cut].sum()
    assert rows["served_in_vain_ms"].sum() == pytest.approx(vain_us / 1e3)


def test_who_was_lost_when_is_not_claimed_where_records_do_not_tell(one_stage):
    """One slice: what it serves at 5 ms is cut, begins again when it is repaired, and is cut and lost at 12 ms."""
    system = build_system(*one_stage(slo_us=90_000), "net")
    failing = tuple(Failure("slice", 0, 0, w, at_us, 1_000) for at_us in (5_000, 12_000) for w in (0, 1))
    records = simulate(system, np.array([0, 1]), world=World(failures=failing), policy="reactive")
    assert (records.outcome == LOST).sum() == 2
    assert failures(records)["lost"].isna().all()


def test_rates_attainment_and_queue_over_time(failing):
    rows = over_time(failing, bins=4)
    assert (rows["arrived_rps"] * (rows["until_s"] - rows["from_s"])).sum() == pytest.approx(20)
    assert (rows["finished_rps"] * (rows["until_s"] - rows["from_s"])).sum() <= failing.finished.sum()
    assert rows["attainment"].iloc[3] > rows["attainment"].iloc[1]
    assert (rows["queued"] >= 0).all()


def test_the_picture_marks_failures(failing):
    rate, attainment, queue = recovery(failing, bins=10)
    assert [line.get_label() for line in rate.get_lines()][:2] == ["arrived", "finished"]
    assert attainment.get_lines()[1].get_xdata()[0] == pytest.approx(0.045)
    assert queue.get_ylabel() == "queued"
