"""The rate that is asked for is the rate that is offered, or is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.model import InputError
from simulator.workload import fold, offer
from simulator.workload.offering import own_rate_rps

# 100,000 requests at 50 a second on average, in bursts.
TIMES_S = 1.7e9 + np.cumsum(np.random.default_rng(1).gamma(0.25, 0.08, 100_000))


@pytest.mark.parametrize("rate_rps", [2.86, 25.0, 49.0])
def test_lower_rates_are_reached_by_thinning_and_scaling_and_refused_by_folding(rate_rps):
    for how in ("thin", "scale"):
        arrivals_us = offer(TIMES_S, rate_rps, 1000.0, how=how)
        assert len(arrivals_us) / 1000 == pytest.approx(rate_rps, rel=0.15), how
    with pytest.raises(InputError, match=r"folding cannot thin it to .*; use --replay thin .* or scale"):
        offer(TIMES_S, rate_rps)


@pytest.mark.parametrize("rate_rps", [200.0, 50_000.0, 1e6])
def test_higher_rates_are_reached_by_scaling_and_refused_by_thinning(rate_rps):
    # In the time that the whole trace then takes, the rate is met exactly.
    duration_s = (len(TIMES_S) - 1) / rate_rps
    assert len(offer(TIMES_S, rate_rps, duration_s, how="scale")) == pytest.approx(len(TIMES_S), rel=1e-4)
    with pytest.raises(InputError, match="thinning cannot reach .*; use --replay fold or scale"):
        offer(TIMES_S, rate_rps, how="thin")


def test_folding_is_the_published_rule_and_refuses_what_truncation_would_change():
    times_s = TIMES_S - TIMES_S[0]
    assert offer(times_s, 500.0).tolist() == fold(times_s, 500.0).tolist()
    with pytest.raises(InputError, match="over 5 % more; use --replay scale"):
        offer(times_s, 1e6)


def test_verbatim_is_the_trace_from_its_first_arrival_on():
    assert offer(np.array([9.0, 9.5, 40.0]), None, 10.0, how="verbatim").tolist() == [0, 500_000]
    with pytest.raises(InputError, match="verbatim has the trace's own rate"):
        offer(TIMES_S, 5.0, how="verbatim")
    with pytest.raises(InputError, match="every other way needs one"):
        offer(TIMES_S, None)


@given(seed=st.integers(0, 99), low=st.floats(0.01, 1.0), high=st.floats(0.01, 1.0))
def test_what_a_lower_rate_keeps_a_higher_one_keeps_too(seed, low, high):
    times_s = TIMES_S[:500]
    low, high = sorted((low * own_rate_rps(times_s) * 0.99 + 0.5, high * own_rate_rps(times_s) * 0.99 + 0.5))
    if high > own_rate_rps(times_s):
        return
    kept = [set(offer(times_s, rate, 5.0, how="thin", seed=seed).tolist()) for rate in (low, high)]
    assert kept[0] <= kept[1]


@given(
    times=st.lists(st.floats(0, 1e4), min_size=2, max_size=60).map(sorted).filter(lambda t: t[-1] - t[0] > 1e-3),
    rate_rps=st.floats(0.5, 1000),
    duration_s=st.floats(0.01, 60),
)
def test_scaled_arrivals_are_sorted_end_in_time_and_repeat(times, rate_rps, duration_s):
    arrivals_us = offer(np.array(times), rate_rps, duration_s, how="scale")
    assert arrivals_us[0] == 0
    assert (np.diff(arrivals_us) >= 0).all()
    assert arrivals_us[-1] < duration_s * 1e6
    whole = int(duration_s * rate_rps) // len(times) * len(times)
    assert len(arrivals_us) >= whole - 1


def test_requests_for_which_memory_lacks_are_refused_before_any_is_made():
    with pytest.raises(InputError, match="would take about .* GB of memory; offer a lower rate or a shorter time"):
        offer(TIMES_S, 1e6, 1e9, how="scale")
