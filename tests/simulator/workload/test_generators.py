"""Generators: rates and burstiness against closed forms; the MAF-like one against the published statistics."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from planner.model import InputError
from simulator.workload import (
    bursts,
    closed_loop,
    clustered,
    diurnal,
    gamma,
    index_of_dispersion,
    maf_like,
    markov_modulated,
    poisson,
    trace_statistics,
)
from simulator.workload.mimic import _renewal

REFERENCE = os.environ.get("POOLPIPE_REFERENCE")

GENERATORS = {
    "poisson": (lambda rng: poisson(50.0, 400.0, rng), 50.0),
    "gamma": (lambda rng: gamma(50.0, 400.0, rng, cv=3.0), 50.0),
    # 10/s for 2 s on average, then 90/s for 2 s on average
    "markov_modulated": (lambda rng: markov_modulated([10.0, 90.0], [2.0, 2.0], 400.0, rng), 50.0),
    "clustered": (lambda rng: clustered(50.0, 400.0, rng, size=10.0, spread_s=0.05), 50.0),
    "bursts": (lambda rng: bursts(50.0, 400.0, rng, size=10.0, gap_s=0.002), 50.0),
    "diurnal": (lambda rng: diurnal(50.0, 400.0, rng, amplitude=0.8, period_s=100.0), 50.0),
    # 50 clients, each once in 0.2 + 0.8 s
    "closed_loop": (lambda rng: closed_loop(50, 400.0, rng, response_s=0.2, think_s=0.8), 50.0),
}


@pytest.mark.parametrize("name", GENERATORS)
def test_rate_order_range_and_seed(name):
    generate, rate_rps = GENERATORS[name]
    arrivals_us = generate(np.random.default_rng(11))
    assert arrivals_us.dtype == np.int64
    assert (np.diff(arrivals_us) >= 0).all()
    assert arrivals_us[0] >= 0
    assert arrivals_us[-1] < 400_000_000
    assert len(arrivals_us) == pytest.approx(rate_rps * 400, rel=0.08)
    assert generate(np.random.default_rng(11)).tolist() == arrivals_us.tolist()
    assert generate(np.random.default_rng(12)).tolist() != arrivals_us.tolist()


def test_burstiness_is_what_theory_says():
    rng = np.random.default_rng(5)
    length_s = 4000.0
    times_s = {
        "poisson": poisson(50.0, length_s, rng) / 1e6,
        "gamma": gamma(50.0, length_s, rng, cv=3.0) / 1e6,
        "clustered": clustered(50.0, length_s, rng, size=10.0, spread_s=0.001) / 1e6,
        "bursts": bursts(50.0, length_s, rng, size=10.0, gap_s=0.0001) / 1e6,
    }
    gaps = np.diff(times_s["gamma"])
    assert gaps.std() / gaps.mean() == pytest.approx(3.0, rel=0.03)
    # A renewal process tends to cv²; a Poisson process of batches has E[size²] / E[size] = 2 · 10 - 1 (geometric).
    for name, expected in {"poisson": 1.0, "gamma": 9.0, "clustered": 19.0, "bursts": 19.0}.items():
        assert index_of_dispersion(times_s[name], 5.0) == pytest.approx(expected, rel=0.15), name


def test_markov_modulated_and_diurnal_vary_slowly():
    rng = np.random.default_rng(3)
    modulated = markov_modulated([0.0, 100.0], [5.0, 5.0], 2000.0, rng) / 1e6
    seconds = np.bincount(modulated.astype(int), minlength=2000)
    assert 0.35 < (seconds == 0).mean() < 0.65  # half the time is silent
    swing = diurnal(100.0, 1000.0, rng, amplitude=1.0, period_s=1000.0) / 1e6
    assert (swing < 500).sum() / (swing >= 500).sum() == pytest.approx((1 + 2 / np.pi) / (1 - 2 / np.pi), rel=0.05)


def test_closed_loop_never_exceeds_its_clients():
    arrivals_us = closed_loop(7, 60.0, np.random.default_rng(1), response_s=0.5, think_s=0.01)
    assert (arrivals_us[7:] - arrivals_us[:-7] >= 500_000 - 1).all()  # truncation to µs


@pytest.mark.parametrize(
    "call",
    [
        lambda rng: poisson(0.0, 1.0, rng),
        lambda rng: poisson(float("nan"), 1.0, rng),
        lambda rng: poisson(1.0, -1.0, rng),
        lambda rng: gamma(1.0, 1.0, rng, cv=0.0),
        lambda rng: markov_modulated([1.0], [1.0], 1.0, rng),
        lambda rng: markov_modulated([1.0, -1.0], [1.0, 1.0], 1.0, rng),
        lambda rng: clustered(1.0, 1.0, rng, size=0.5, spread_s=1.0),
        lambda rng: bursts(1.0, 1.0, rng, size=2.0, gap_s=0.0),
        lambda rng: diurnal(1.0, 1.0, rng, amplitude=1.5),
        lambda rng: closed_loop(0, 1.0, rng, response_s=1.0, think_s=1.0),
        lambda rng: maf_like(10, rng),
    ],
)
def test_absurd_arguments_are_refused(call):
    with pytest.raises(InputError):
        call(np.random.default_rng(1))


def test_maf_like_is_reproducible_and_fills_its_time():
    trace, again = (maf_like(20_000, np.random.default_rng(4)) for _ in range(2))
    assert trace.times_s.tolist() == again.times_s.tolist()
    assert len(trace.functions) == 77
    assert trace_statistics(trace).rate_rps == pytest.approx(1.64, rel=0.02)


@pytest.mark.slow
@pytest.mark.skipif(REFERENCE is None, reason="POOLPIPE_REFERENCE is unset")
def test_maf_like_has_the_skew_and_the_burstiness_of_maf21():
    """Against the statistics of every application of MAF'21; dispersions against a trace rebuilt from them.

    The published file has no index of dispersion. The rebuilt trace gives each application its own published
    number of requests, first and last time, and mean-to-median ratio of gaps, log-normal as in the generator;
    what is tested is that drawing these from a few quantiles loses nothing.
    """
    with (Path(REFERENCE) / "traces/maf21_stats/per_app_stats.csv").open() as file:
        apps = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    requests = np.sort([app["requests"] for app in apps])[::-1]
    rng = np.random.default_rng(1)
    rebuilt_s = np.sort(
        np.concatenate(
            [
                app["start_s"]
                + _renewal(
                    int(app["requests"]), app["ia_mean_s"] / max(app["ia_median_s"], 1e-3), app["duration_s"], rng
                )
                for app in apps
            ]
        )
    )
    made = [maf_like(int(requests.sum()), np.random.default_rng(seed)) for seed in range(3)]
    for trace in made:
        ours = np.sort(np.bincount(trace.function))[::-1]
        assert len(trace) == pytest.approx(requests.sum(), rel=1e-4)
        assert ours[0] / len(trace) == pytest.approx(requests[0] / requests.sum(), abs=0.03)  # 27 %
        assert ours[:5].sum() / len(trace) == pytest.approx(requests[:5].sum() / requests.sum(), abs=0.04)  # 72 %
        assert np.median(ours) == pytest.approx(np.median(requests), rel=0.15)
        for window_s in (1.0, 60.0):
            theirs = index_of_dispersion(rebuilt_s, window_s)
            assert 0.6 * theirs < index_of_dispersion(trace.times_s, window_s) < 1.6 * theirs


TOO_MANY = {
    "poisson": lambda rng: poisson(1e9, 1e6, rng),
    "gamma": lambda rng: gamma(1e12, 1e5, rng, cv=4.0),
    "markov": lambda rng: markov_modulated([1.0, 1e12], [1.0, 1.0], 1e5, rng),
    "clustered": lambda rng: clustered(1e12, 1e5, rng, size=1e9, spread_s=0.1),
    "bursts": lambda rng: bursts(1e12, 1e5, rng, size=1e9, gap_s=0.001),
    "diurnal": lambda rng: diurnal(1e12, 1e5, rng, amplitude=0.5),
    "closed_loop": lambda rng: closed_loop(10**9, 1e5, rng, response_s=0.1, think_s=0.9),
}


@pytest.mark.parametrize("kind", TOO_MANY)
def test_memory_is_estimated_before_it_is_taken(kind: str) -> None:
    with pytest.raises(InputError, match="arrivals would take about .* GB of memory; generate fewer"):
        TOO_MANY[kind](np.random.default_rng(1))


def test_memory_of_stays_is_estimated_too() -> None:
    with pytest.raises(InputError, match=r"1e\+14 stays in states would take about .* GB of memory"):
        markov_modulated([1.0, 1.0], [1e-9, 1e-9], 1e5, np.random.default_rng(1))
