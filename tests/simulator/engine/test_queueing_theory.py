"""Queueing theory as an oracle: Poisson arrivals at servers of constant speed."""

import subprocess
import sys
from functools import cache
from math import lgamma
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from simulator.dispatch.system import System
from simulator.engine import simulate

SERVICE_US = 1_000
NEVER_LATE_US = 10**12


def servers(count: int) -> System:
    """One stage of slices that serve single requests, and nothing is ever too late."""
    one = np.ones((1, 1), np.int64)
    return System(
        dnn="net",
        slo_us=NEVER_LATE_US,
        stages=np.array([1]),
        batch=np.array([1]),
        latency_us=np.array([[[0, SERVICE_US]]]),
        transfer_us=0 * one,
        hop_us=0 * one,
        later_us=0 * one,
        slices=count * one,
        card_slices=one,
        server_slices=one,
        share=one,
        device=0 * one,
        device_types=("GPU",),
        devices=(float(count),),
        prices_per_hour=(1.0,),
    )


def waits_us(count: int, load: float, seed: int, requests: int = 200_000) -> np.ndarray:
    """Waiting times of the second half of a long run."""
    rng = np.random.default_rng(seed)
    arrivals_us = np.cumsum(rng.exponential(SERVICE_US / (load * count), requests)).astype(np.int64)
    records = simulate(servers(count), arrivals_us)
    return (records.visits[0].start_us - arrivals_us)[requests // 2 :]


@cache
def mdc_wait(count: int, load: float) -> float:
    """Mean wait in M/D/c over the service time.

    Crommelin's formula: W = sum over k >= 1 of e^(-k a) (sum_{n >= kc} (ka)^n / n! - (c/a) sum_{n > kc} (ka)^n / n!),
    with a = c · load. For c = 1 it is load / (2 (1 - load)).
    """
    a = count * load
    total = 0.0
    for k in range(1, 20_000):
        n = np.arange(k * count, k * count + 100 + int(12 * np.sqrt(k * a)))
        poisson = np.exp(n * np.log(k * a) - k * a - np.array([lgamma(x + 1) for x in n]))
        step = poisson.sum() - poisson[1:].sum() / load
        total += step
        if step < 1e-9:
            break
    return float(total)


@pytest.mark.slow
def test_the_event_engine_agrees_with_theory(tmp_path) -> None:
    """M/D/1, M/G/1, M/M/c, E2/M/1, priorities, a Jackson network and bulk service, each at four utilisations."""
    script = Path(__file__).parents[3] / "scripts" / "compare_theory.py"
    command = [sys.executable, str(script), "--runs", "12", "--requests", "60000", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = pd.read_csv(tmp_path / "theory.csv")
    assert len(rows) == 4 * 12
    assert rows["within 99.9 %"].all()


def test_crommelin_is_pollaczek_khinchine_for_one_server() -> None:
    for load in (0.3, 0.6, 0.9):
        assert mdc_wait(1, load) == pytest.approx(load / (2 * (1 - load)), rel=1e-4)


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("load", [0.3, 0.6, 0.9])
def test_mean_wait(count: int, load: float) -> None:
    """Within the 99.9 % confidence interval of twelve independent runs."""
    means = np.array([waits_us(count, load, seed).mean() for seed in range(12)]) / SERVICE_US
    # truncating arrivals to µs moves them by half a µs; Student's t, 11 degrees of freedom
    half_width = 4.437 * means.std(ddof=1) / np.sqrt(len(means)) + 1e-3 * mdc_wait(count, load)
    assert abs(means.mean() - mdc_wait(count, load)) < half_width
