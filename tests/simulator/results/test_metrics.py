"""Metrics on a run small enough to work out by hand."""

from math import isnan

import pytest

from simulator.results import metrics
from simulator.results.records import Records


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
