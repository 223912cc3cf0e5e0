"""Metrics on a run small enough to work out by hand."""

from dataclasses import replace
from math import isnan, nan

import numpy as np
import pytest

from simulator.dispatch.decisions import LOST
from simulator.results import metrics
from simulator.results.records import Records


def test_counts_and_shares(records: Records) -> None:
    assert metrics.latencies_us(records).tolist() == [50, 48, 60]
    assert (metrics.dropped(records), metrics.late(records)) == (1, 1)
    assert metrics.attainment(records) == 0.5
    assert metrics.unserved_shares(records) == {"open": 0.0, "hopeless": 0.25, "late": 0.0, "lost": 0.0}


def test_records_say_in_a_line_what_became_of_the_requests(records: Records) -> None:
    """Latencies 50, 48 and 60 µs of four requests, one dropped, one late (SLO 55 µs); percentiles by nearest rank."""
    slo_ms = records.system.slo_us / 1000
    said = f"{records.system.dnn}: 2 of 4 requests within {slo_ms:g} ms, 1 not answered, p50 0.05 ms, p99 0.05 ms"
    assert str(records) == said
    assert metrics.quantile(metrics.latencies_us(records), 0.99) == 50


def test_rates_and_cost(records: Records) -> None:
    """Two requests in time within 100 µs; half an A at 2 and a B at 3 an hour cost 4 an hour."""
    assert metrics.span_s(records) == pytest.approx(1e-4)
    assert metrics.goodput_rps(records) == pytest.approx(20_000)
    assert metrics.cost_per_thousand(records) == pytest.approx(1000 * 4 / 3600 / 20_000)


def test_energy(records: Records) -> None:
    """A is busy 20 % and B 40 % of the time: half an A (10 and 110 W) draws 15 W, a B (20 and 60 W) 36 W."""
    known = replace(records, system=replace(records.system, watts=((10.0, 110.0), (20.0, 60.0), (1.0, 1.0))))
    assert metrics.utilisation(known) == {
        "A": pytest.approx(0.2),
        "B": pytest.approx(0.4),
        "C": pytest.approx(nan, nan_ok=True),
    }
    assert metrics.watts(known) == pytest.approx(51.0)
    assert metrics.joules_per_thousand(known) == pytest.approx(1000 * 51 / 20_000)
    assert isnan(metrics.watts(records))
    assert metrics.summary(known)["watts"] == metrics.watts(known)
    assert "watts" not in metrics.summary(records)


def test_parts_of_latency(records: Records) -> None:
    parts = {name: values.tolist() for name, values in metrics.latency_parts_us(records).items()}
    assert parts == {"building": [2, 0, 0], "queueing": [12, 12, 27], "transfer": [6, 6, 3], "inference": [30, 30, 30]}


def test_distributions_of_latency_and_its_parts(records: Records) -> None:
    """Of three values, p50, p95 and p99 are all rank floor(q · 2) = 1."""
    found = metrics.summary(records)
    assert [found[f"latency_{name}_us"] for name in ("mean", "p50", "p95", "p99")] == [158 / 3, 50, 50, 50]
    assert [found[f"building_{name}_us"] for name in ("mean", "p50", "p95", "p99")] == [2 / 3, 0, 0, 0]
    assert [found[f"queueing_{name}_us"] for name in ("mean", "p50", "p95", "p99")] == [17, 12, 12, 12]
    assert [found[f"transfer_{name}_us"] for name in ("mean", "p50", "p95", "p99")] == [5, 6, 6, 6]
    assert [found[f"inference_{name}_us"] for name in ("mean", "p50", "p95", "p99")] == [30, 30, 30, 30]
    hundred_and_one = np.random.default_rng(1).permutation(101)
    assert metrics.distribution(hundred_and_one) == {"mean": 50.0, "p50": 50.0, "p95": 95.0, "p99": 99.0}


def test_without_finished_requests_there_is_no_latency(records: Records) -> None:
    lost = replace(records, outcome=np.full(4, LOST, np.int8))
    found = metrics.summary(lost)
    assert (found["attainment"], found["dropped"], found["unserved_lost"]) == (0.0, 4, 1.0)
    assert isnan(found["latency_p99_us"])
    assert isnan(found["cost_per_thousand"])


def test_utilisation_weighs_shares(records: Records) -> None:
    """A: two batches of 10 µs on half a device, over 0.5 devices · 100 µs; B: two of 20 µs over 100 µs; C: none."""
    used = metrics.utilisation(records)
    assert used["A"] == pytest.approx((20 / 2) / 50)
    assert used["B"] == pytest.approx(40 / 100)
    assert isnan(used["C"])


def test_batch_sizes(records: Records) -> None:
    assert metrics.batch_sizes(records) == {"planned": 2.0, "met": 1.5}
    assert metrics.batch_sizes(records, 1005) == {"planned": 2.0, "met": 1.0}  # the second batch alone


def test_warm_up_is_left_out(records: Records) -> None:
    assert metrics.counted(records, 1001).tolist() == [False, True, True, True]
    assert metrics.attainment(records, 1001) == pytest.approx(1 / 3)
    summary = metrics.summary(records)
    assert summary["requests"] == 4
    assert summary["latency_p50_us"] == 50.0
    assert summary["queueing_p99_us"] == 12.0  # floor(0.99 · 2) = rank 1 of 12, 12, 27


def test_accuracy_is_that_of_what_served(records: Records) -> None:
    """Each request counts with the accuracy of the pipeline that served it; those that none did do not."""
    pipelines = len(records.system.stages)
    known = replace(records, system=replace(records.system, accuracies=(71.5, *[20.0] * (pipelines - 1))))
    first = records.visits[0].pipeline[records.visit[0][records.finished]] == 0
    expected = np.where(first, 71.5, 20.0).mean()
    assert metrics.accuracy(known) == pytest.approx(expected)
    assert np.isnan(known.accuracy()).tolist() == (~records.finished).tolist()
    assert metrics.summary(known)["accuracy"] == pytest.approx(expected)
    assert isnan(metrics.accuracy(records))
    assert "accuracy" not in metrics.summary(records)
