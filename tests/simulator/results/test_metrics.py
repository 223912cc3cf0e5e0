"""Metrics on a run small enough to work out by hand."""

from math import isnan

import numpy as np
import pytest

from simulator.dispatch.decisions import FINISHED, HOPELESS
from simulator.dispatch.system import System
from simulator.results import metrics
from simulator.results.records import Records, Visits


@pytest.fixture
def records() -> Records:
    """Two stages (10 µs at batch 1 or 2 on 1/2 of an A, 20 µs on a B), 3 µs per request on the wire; SLO 50.

    Requests 0 and 1 (at 1000 and 1002) make a batch that is sent at 1002, served until 1012, sent until 1018, waits
    until 1030 and ends at 1050: latencies 50 and 48. Request 2 (at 1010) goes alone at 1010, is served from 1012 to
    1022, reaches stage 1 at 1025, waits until 1050 and ends at 1070: latency 60. Request 3 (at 1100) is dropped.
    """
    one = np.array([[1, 1]])
    system = System(
        dnn="net",
        slo_us=50,
        stages=np.array([2]),
        batch=np.array([2]),
        latency_us=np.array([[[0, 10, 10], [0, 20, 20]]]),
        transfer_us=np.array([[0, 3]]),
        hop_us=0 * one,
        later_us=np.array([[20, 0]]),
        slices=one,
        card_slices=one,
        server_slices=one,
        share=np.array([[2, 1]]),
        device=np.array([[0, 1]]),
        device_types=("A", "B", "C"),
        devices=(0.5, 1.0, 0.0),
        prices_per_hour=(2.0, 3.0, float("nan")),
    )
    batch = np.array([0, 0, 1, -2], np.int32)
    labels = np.array([0, 0], np.int16), np.array([2, 1], np.int16), np.array([0, 0], np.int16)
    visits = (
        Visits(*labels, np.array([1002, 1010]), np.array([1002, 1012]), np.array([1012, 1022])),
        Visits(*labels, np.array([1018, 1025]), np.array([1030, 1050]), np.array([1050, 1070])),
    )
    outcome = np.array([FINISHED, FINISHED, FINISHED, HOPELESS], np.int8)
    return Records(system, "hand", np.array([1000, 1002, 1010, 1100]), outcome, (batch, batch), visits)


def test_counts_and_shares(records: Records) -> None:
    assert metrics.latencies_us(records).tolist() == [50, 48, 60]
    assert (metrics.dropped(records), metrics.late(records)) == (1, 1)
    assert metrics.attainment(records) == 0.5
    assert metrics.unserved_shares(records) == {"open": 0.0, "hopeless": 0.25, "late": 0.0, "lost": 0.0}


def test_rates_and_cost(records: Records) -> None:
    """Two requests in time within 100 µs; half an A at 2 and a B at 3 an hour cost 4 an hour."""
    assert metrics.span_s(records) == pytest.approx(1e-4)
    assert metrics.goodput_rps(records) == pytest.approx(20_000)
    assert metrics.cost_per_thousand(records) == pytest.approx(1000 * 4 / 3600 / 20_000)


def test_parts_of_latency(records: Records) -> None:
    parts = {name: values.tolist() for name, values in metrics.latency_parts_us(records).items()}
    assert parts == {"building": [2, 0, 0], "queueing": [12, 12, 27], "transfer": [6, 6, 3], "inference": [30, 30, 30]}


def test_utilisation_weighs_shares(records: Records) -> None:
    """A: two batches of 10 µs on half a device, over 0.5 devices · 100 µs; B: two of 20 µs over 100 µs; C: none."""
    used = metrics.utilisation(records)
    assert used["A"] == pytest.approx((20 / 2) / 50)
    assert used["B"] == pytest.approx(40 / 100)
    assert isnan(used["C"])


def test_batch_sizes(records: Records) -> None:
    assert metrics.batch_sizes(records) == {"planned": 2.0, "met": 1.5}


def test_warm_up_is_left_out(records: Records) -> None:
    assert metrics.counted(records, 1001).tolist() == [False, True, True, True]
    assert metrics.attainment(records, 1001) == pytest.approx(1 / 3)
    summary = metrics.summary(records)
    assert summary["requests"] == 4
    assert summary["latency_p50_us"] == 50.0
    assert summary["queueing_p99_us"] == 12.0  # floor(0.99 · 2) = rank 1 of 12, 12, 27
