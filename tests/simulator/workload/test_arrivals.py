import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.model import InputError
from simulator.workload import fold, from_seconds, merge, scale, shift, thin, window


def fold_literally(times_s, rate_rps, duration_s):
    """The rule of `fold` word for word, over the whole trace."""
    times_s = np.sort(times_s)
    n, span_s = len(times_s), times_s[-1] - times_s[0]
    folded = np.sort(np.mod(times_s, span_s / (rate_rps / ((n - 1) / span_s))))
    gaps_us = [int(gap * 1e6) for gap in np.diff(folded)]
    arrivals_us, i = [0], 1
    while (later := arrivals_us[-1] + gaps_us[i % len(gaps_us)]) < int(duration_s * 1e6):
        arrivals_us.append(later)
        i += 1
    return arrivals_us


@given(
    seed=st.integers(0, 2**32 - 1),
    number=st.integers(3, 400),
    offset_s=st.sampled_from([0.0, 0.3, 1000.0]),
    rate_rps=st.floats(0.5, 200),
    duration_s=st.floats(0.1, 5),
)
def test_fold_is_the_rule_word_for_word(seed, number, offset_s, rate_rps, duration_s):
    rng = np.random.default_rng(seed)
    times_s = offset_s + np.cumsum(rng.exponential(0.1, number) * rng.choice([0.01, 1, 5], number))
    assert fold(times_s, rate_rps, duration_s).tolist() == fold_literally(times_s, rate_rps, duration_s)


@pytest.mark.parametrize(
    "times_s",
    [
        [1.0, -0.1],  # before the beginning
        [float("nan")],
        [1e12],  # no seconds: another unit
        [[1.0]],  # two axes
    ],
)
def test_seconds_that_are_no_arrivals_are_refused(times_s):
    with pytest.raises(InputError, match="expected one row of seconds, from 0 to 4e"):
        from_seconds(times_s)


def test_fold_offers_the_rate_asked_for():
    times_s = np.cumsum(np.random.default_rng(1).exponential(1.0, 50_000))
    for rate_rps in (100, 1000):
        assert len(fold(times_s, rate_rps, 30.0)) == pytest.approx(30 * rate_rps, rel=0.06)


@pytest.mark.parametrize(
    ("times_s", "rate_rps", "duration_s", "words"),
    [
        ([], 1.0, 30.0, "0 arrivals"),
        ([1.0], 1.0, 30.0, "1 arrivals"),
        ([1.0, 1.0], 1.0, 30.0, "at least two times"),
        ([0.0, 1.0], 0.0, 30.0, "rate: expected a number above 0"),
        ([0.0, 1.0], -5.0, 30.0, "rate"),
        ([0.0, 1.0], float("nan"), 30.0, "rate"),
        ([0.0, 1.0], 1.0, 0.0, "duration"),
        ([0.0, 1e-3, 2e-3, 3e-3], 1e8, 30.0, "less than 1 µs"),
    ],
)
def test_fold_refuses_what_it_cannot_fold(times_s, rate_rps, duration_s, words):
    with pytest.raises(InputError, match=words):
        fold(np.array(times_s), rate_rps, duration_s)


arrivals = st.lists(st.integers(0, 10**9), max_size=50).map(lambda times: np.array(sorted(times), dtype=np.int64))


@given(arrivals, arrivals, st.integers(0, 10**9), st.floats(0.1, 10))
def test_transformations_keep_arrivals_sorted_integers(first_us, second_us, by_us, factor):
    for made in (merge(first_us, second_us), shift(first_us, by_us), scale(first_us, factor)):
        assert made.dtype == np.int64
        assert (np.diff(made) >= 0).all()
    assert len(merge(first_us, second_us)) == len(first_us) + len(second_us)
    assert shift(shift(first_us, by_us), -by_us).tolist() == first_us.tolist()


@given(arrivals, st.integers(1, 10**9))
def test_windows_partition_the_arrivals(arrivals_us, middle_us):
    before, after = window(arrivals_us, 0, middle_us), window(arrivals_us, middle_us, 2 * 10**9)
    assert merge(before, shift(after, middle_us)).tolist() == arrivals_us.tolist()


def test_thin_keeps_the_share_asked_for_and_the_seed_decides():
    arrivals_us = np.arange(100_000)
    kept = [thin(arrivals_us, 0.3, np.random.default_rng(7)) for _ in range(2)]
    assert len(kept[0]) == pytest.approx(30_000, rel=0.02)
    assert kept[0].tolist() == kept[1].tolist()
    assert thin(arrivals_us, 1.0, np.random.default_rng(7)).tolist() == arrivals_us.tolist()


@pytest.mark.parametrize(
    "call",
    [
        lambda us: scale(us, 0.0),
        lambda us: thin(us, 0.0, np.random.default_rng(1)),
        lambda us: thin(us, 1.5, np.random.default_rng(1)),
        lambda us: shift(us, -2),
        lambda us: window(us, 5, 5),
        lambda us: window(us, -1, 5),
    ],
)
def test_transformations_refuse_absurd_arguments(call):
    with pytest.raises(InputError):
        call(np.array([1, 2, 3], dtype=np.int64))
