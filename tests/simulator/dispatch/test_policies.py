"""What each policy is good for, on systems small enough to see why."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from planner.files.ppipe import read_plan, read_problem
from simulator.dispatch.system import System
from simulator.engine import build_system, simulate
from simulator.results.metrics import attainment, dropped, late
from simulator.workload import fold, read_maf21

REFERENCE = os.environ.get("POOLPIPE_REFERENCE")


def one_stage(slo_us: int, *pipelines: tuple[int, list[int]]) -> System:
    """Pipelines of one stage, each (slices, latency at batch 1, 2, ... in µs)."""
    count, most = len(pipelines), max(len(latency) for _, latency in pipelines)
    latency_us = np.zeros((count, 1, most + 1), np.int64)
    for p, (_, latency) in enumerate(pipelines):
        latency_us[p, 0, 1 : len(latency) + 1] = latency
    slices = np.array([[n] for n, _ in pipelines])
    none = np.zeros((count, 1), np.int64)
    return System(
        dnn="net",
        slo_us=slo_us,
        stages=np.ones(count, np.int64),
        batch=np.array([len(latency) for _, latency in pipelines]),
        latency_us=latency_us,
        transfer_us=none,
        hop_us=none,
        later_us=none,
        slices=slices,
        card_slices=none + 1,
        server_slices=none + 1,
        share=none + 1,
        device=none,
        device_types=("GPU",),
        devices=(float(slices.sum()),),
        prices_per_hour=(1.0,),
    )


def shared_card(slo_us: int) -> System:
    """Two stages of 4 slices, 100 µs and 40 µs; the senders share one card, which takes 30 µs a request."""
    pair = np.array([[1, 1]])
    return System(
        dnn="net",
        slo_us=slo_us,
        stages=np.array([2]),
        batch=np.array([1]),
        latency_us=np.array([[[0, 100], [0, 40]]]),
        transfer_us=np.array([[0, 30]]),
        hop_us=0 * pair,
        later_us=np.array([[40, 0]]),
        slices=4 * pair,
        card_slices=np.array([[4, 1]]),
        server_slices=4 * pair,
        share=pair,
        device=0 * pair,
        device_types=("GPU",),
        devices=(8.0,),
        prices_per_hour=(1.0,),
    )


def poisson_us(mean_us: float, requests: int = 20_000) -> np.ndarray:
    return np.cumsum(np.random.default_rng(5).exponential(mean_us, requests)).astype(np.int64)


def test_round_robin_shares_equally_without_knowing_anything() -> None:
    """Reservation dispatch leaves the second of two idle pipelines idle."""
    system = one_stage(1000, (1, [10]), (1, [10]))
    arrivals_us = np.arange(0, 10_000, 100)
    pipelines = simulate(system, arrivals_us, policy="round-robin").visits[0].pipeline
    assert np.bincount(pipelines).tolist() == [50, 50]
    assert not simulate(system, arrivals_us, policy="reservation").visits[0].pipeline.any()


def test_least_queued_gives_unequal_pools_what_they_can_do() -> None:
    """One slice beside nine: by turns the one slice gets half of the load."""
    system = one_stage(100, (1, [20]), (9, [20]))
    arrivals_us = poisson_us(2.5)  # 80 % of what ten slices do
    by_turns = simulate(system, arrivals_us, policy="round-robin")
    balanced = simulate(system, arrivals_us, policy="least-queued")
    assert attainment(by_turns) < 0.8
    assert attainment(balanced) > 0.99


def test_earliest_deadline_serves_the_straggler() -> None:
    """Batch 2 takes 30 µs, batch 1 takes 10; SLO 34.

    The first two requests keep the slice until 30. For the one of 25 a planned batch would end at 60, after its
    deadline 59, so that reservation dispatch drops it; alone it waits until 59 - 30 + 1 = 30 and ends at 40.
    """
    system = one_stage(34, (1, [10, 30]))
    arrivals_us = np.array([0, 0, 25])
    assert dropped(simulate(system, arrivals_us, policy="reservation"), warm_up_us=0) == 1
    records = simulate(system, arrivals_us, policy="earliest-deadline")
    assert records.end_us().tolist() == [30, 30, 40]


def test_orderly_reservations_come_true() -> None:
    """A busy card: nine transfers in ten of its time; batches that overtake others at the card make those late."""
    system, arrivals_us = shared_card(slo_us=400), poisson_us(33.0)
    reserved = simulate(system, arrivals_us, policy="reservation")
    orderly = simulate(system, arrivals_us, policy="orderly")
    assert late(reserved) > 100
    assert late(orderly) == 0
    assert attainment(orderly) > attainment(reserved)


def test_orderly_finds_the_pipeline_that_is_in_time() -> None:
    """Batches of 2 take 90 µs on the slow pipeline, 50 on the fast one; SLO 100; pairs come at 0, 1, 40 and 60.

    The first goes to the slow one until 90, the next two to the fast one until 51 and 101. For the last the slow one
    would be ready sooner, at 90, but end at 180, after the deadline 160; the fast one ends at 151.
    """
    system = one_stage(100, (1, [80, 90]), (1, [40, 50]))
    arrivals_us = np.array([0, 0, 1, 1, 40, 40, 60, 60])
    assert dropped(simulate(system, arrivals_us, policy="reservation"), warm_up_us=0) == 2
    assert simulate(system, arrivals_us, policy="orderly").end_us().tolist() == [90, 90, 51, 51, 101, 101, 151, 151]


@pytest.mark.skipif(REFERENCE is None, reason="POOLPIPE_REFERENCE is unset")
def test_orderly_is_never_late_where_reservation_is() -> None:
    """The published plans whose requests the reference simulator finishes late most often, at full load."""
    folder = Path(REFERENCE or ".") / "ppipe"
    with (folder / "simulator" / "cases_poisson.csv").open(newline="", encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["late"] and int(row["late"]) > 1000]
    assert len(rows) >= 3
    times_s = read_maf21(folder / "simulator" / "poisson_a.csv.gz").times_s
    for row in rows[::3]:
        path = next((folder / "plans").rglob(row["plan"]))
        problem = read_problem(path, folder)
        system = build_system(problem, read_plan(path, problem), problem.dnns[int(row["dnn_id"])].name)
        arrivals_us = fold(times_s, float(row["load_rps"]), 30.0)
        assert late(simulate(system, arrivals_us, policy="orderly")) == 0
        assert late(simulate(system, arrivals_us, policy="reservation")) == int(row["late"])
