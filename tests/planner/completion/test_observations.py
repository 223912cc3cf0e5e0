"""Observations: what is refused, and how rows are split."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_tables import made_up

from planner.completion.observations import Axis, observe, split, standardised
from planner.model import InputError

W, P = Axis(("a", "b"), np.zeros((2, 0))), Axis(("x",), np.zeros((1, 0)))


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (("a", "x", 0.0, ()), "observation 0: runtime: expected a number above 0, got 0.0"),
        (("a", "x", -3.0, ()), "expected a number above 0, got -3.0"),
        (("a", "x", float("nan"), ()), "expected a number above 0, got nan"),
        (("c", "x", 1.0, ()), "unknown workload 'c'"),
        (("a", "z", 1.0, ()), "unknown platform 'z'"),
        (("a", "x", 1.0, ("d",)), "unknown workload 'd'"),
    ],
)
def test_what_cannot_be_an_observation_is_refused(row, text):
    with pytest.raises(InputError, match=text) as refused:
        observe(W, P, [row])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Axis(("a", "a"), np.zeros((2, 0))), "got 'a' twice"),
        (lambda: Axis(("a",), np.zeros((2, 1))), "expected a row for each of 1 names, got 2"),
        (lambda: Axis(("a",), np.array([[np.nan]])), "features of 'a': column 0: expected a number, got nan"),
        (lambda: Axis(("a",), np.zeros((1, 0)), {"device": np.zeros(3, int)}), "device: expected a row for each"),
        (lambda: made_up().factor("share"), "no factor 'share'"),
        (lambda: split(made_up(), 1.0, np.random.default_rng(0)), "between 0 and 1, got 1.0"),
    ],
)
def test_axes_and_splits_that_cannot_be_are_refused(make, text):
    with pytest.raises(InputError, match=text):
        make()


@given(st.floats(0.05, 0.95), st.integers(0, 99))
def test_splits_are_disjoint_complete_and_proportional_at_every_level(fraction, seed):
    seen = made_up(12, 10, beside=2)
    parts = split(seen, fraction, np.random.default_rng(seed))
    everything = np.concatenate([parts.train, parts.calibrate, parts.test])
    assert sorted(everything) == list(range(len(seen)))
    for level in range(3):
        rows = (seen.level == level).sum()
        assert (seen.level[parts.train] == level).sum() == pytest.approx(0.8 * fraction * rows, abs=1)
        assert (seen.level[parts.calibrate] == level).sum() == pytest.approx(0.2 * fraction * rows, abs=2)


def test_features_are_standardised_and_constants_dropped():
    found = standardised(np.array([[1.0, 7.0], [3.0, 7.0]]))
    assert found.tolist() == [[-1.0], [1.0]]
