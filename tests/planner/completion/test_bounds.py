"""Scales, margins, and the whole method: bounds hold as often as they say, and no label leaks."""

from dataclasses import replace
from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_tables import made_up

from planner.completion import fit, rows_needed, split
from planner.completion.configurations import Method
from planner.completion.conformal import best_head, finite_margin, margin, margins_by_group, rank
from planner.completion.metrics import coverage, excess, tightness, worst_coverage
from planner.completion.network import Architecture
from planner.completion.parameters import Schedule
from planner.completion.scales import EVEN, fit_scales
from planner.completion.training import Recipe
from planner.model import InputError

QUICK = Method(
    Recipe(Architecture(rank=8, hidden=16, learned_inputs=1), Schedule(150, 1e-2), batch_alone=256, batch_beside=256),
    members=3,
    scaled=True,
)


def test_the_margin_is_the_exact_order_statistic():
    scores = np.random.default_rng(0).permutation(np.arange(1, 20.0))
    assert margin(scores, 0.05) == 19  # k = ceil(20 · 0.95) = 19
    assert margin(scores[:18], 0.05) == inf  # k = ceil(19 · 0.95) = 19 > 18
    assert margin(scores, 0.5) == 10


@given(st.floats(0.001, 0.5), st.integers(1, 2000))
def test_enough_rows_are_exactly_enough(miss, rows):
    needed = rows_needed(miss)
    assert rank(needed, miss) <= needed
    assert (rank(rows, miss) <= rows) == (rows >= needed)


def test_margins_cover_new_scores_as_often_as_they_say():
    """Mean coverage over many calibrations is k / (n + 1), by exchangeability, whatever the distribution."""
    rng = np.random.default_rng(3)
    draws = rng.standard_cauchy((4000, 60))
    inside = [(draw[59] <= margin(draw[:59], 0.1)) for draw in draws]
    assert np.mean(inside) == pytest.approx(54 / 60, abs=3 * np.sqrt(0.09 / 4000))


def test_groups_calibrate_themselves_where_they_can():
    scores = np.concatenate([np.zeros(50), np.ones(50), np.full(5, 9.0)])
    groups = np.repeat([0, 1, 2], [50, 50, 5])
    found = margins_by_group(scores, groups, np.array([0, 1, 2, 3]), 0.1)
    assert found.tolist() == [0.0, 1.0, 1.0, 1.0]  # 2 has too few and 3 none: the pooled 0.9 quantile


@pytest.mark.parametrize(
    ("level", "rows", "text"),
    [
        (0.99, 50, "needs 99 to calibrate on, got 50; measure 49 more, or ask for at most 0.98"),
        (0.95, 0, "needs 19 to calibrate"),
        (1.0, 500, "expected a number between 0 and 1"),
        (0.0, 500, "expected a number between 0 and 1"),
    ],
)
def test_a_level_that_too_few_rows_support_is_refused(level, rows, text):
    with pytest.raises(InputError, match=text):
        finite_margin(np.arange(float(rows)), level, "latency")


def test_the_level_that_a_message_offers_is_supported():
    assert finite_margin(np.arange(50.0), 0.98, "latency") == 49


def test_the_head_with_the_tightest_bound_is_chosen():
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.01, 1, 400)
    measured = scale * rng.normal(size=400)
    flat, fitting = np.zeros(400), 1.6 * scale
    assert best_head([flat, fitting], measured, 0.05) == 1


def test_scales_find_where_errors_are_large():
    seen = made_up(40, 18, beside=1)
    size = np.where(seen.platform % 3 == 0, 0.3, 0.03) * np.where(seen.level == 1, 2, 1)
    residual = size * np.random.default_rng(0).normal(size=len(seen))
    found = fit_scales(seen, residual).scale(seen, np.full(len(seen), 0.05), EVEN)
    assert np.corrcoef(np.log(found), np.log(size))[0, 1] > 0.9


def test_metrics_by_hand():
    measured, bound = np.log([1.0, 2.0, 4.0]), np.log([2.0, 2.0, 2.0])
    assert tightness(measured, bound) == pytest.approx((0.5 + 0 + 1) / 3)
    assert excess(measured, bound) == pytest.approx(1 / 3)
    assert coverage(measured, bound) == pytest.approx(2 / 3)
    assert worst_coverage(measured, bound, np.array([0, 1, 1]), least=2) == 0.5
    assert np.isnan(worst_coverage(measured, bound, np.array([0, 1, 2]), least=2))


def test_bounds_cover_and_are_tighter_than_equal_margins():
    """Noise differs twentyfold between devices: scaled bounds are tighter, and both hold."""
    world = made_up(60, 30, noise=0.0, beside=1)
    noisy = np.random.default_rng(9).normal(size=len(world)) * np.where(world.factor("device") % 2, 0.4, 0.02)
    world = replace(world, log_time=world.log_time + noisy)
    parts = split(world, 0.8, np.random.default_rng(0))
    learn, calibrate, test = (world.take(rows) for rows in (parts.train, parts.calibrate, parts.test))
    scaled = fit(learn, calibrate, QUICK)
    flat = replace(scaled, scales=None)
    found = {}
    for name, fitted in (("scaled", scaled), ("flat", flat)):
        bound = fitted.bound(test, 0.1)
        assert coverage(test.log_time, bound) == pytest.approx(0.9, abs=0.06)
        found[name] = tightness(test.log_time, bound)
    assert found["scaled"] < 0.95 * found["flat"]
    by_device = scaled.bound(test, 0.1, group="device")
    assert coverage(test.log_time, by_device) == pytest.approx(0.9, abs=0.06)


def test_no_label_that_judges_or_calibrates_reaches_the_model():
    world = made_up(20, 12, beside=1)
    parts = split(world, 0.5, np.random.default_rng(0))
    learn, calibrate, test = (world.take(rows) for rows in (parts.train, parts.calibrate, parts.test))
    hidden = replace(world, log_time=np.full(len(world), np.nan))
    hidden.log_time[parts.train] = world.log_time[parts.train]
    quick = replace(QUICK, recipe=replace(QUICK.recipe, schedule=Schedule(10, 1e-2)))
    seen = fit(learn, calibrate, quick)
    blind = fit(hidden.take(parts.train), hidden.take(parts.calibrate), quick)
    assert (seen.predict(test) == blind.predict(hidden.take(parts.test))).all()
    shown = replace(blind, calibration=calibrate)  # bounds need the calibration rows' labels, but not those that judge
    assert (seen.bound(test, 0.1) == shown.bound(hidden.take(parts.test), 0.1)).all()


def test_too_few_calibration_rows_give_no_finite_bound():
    world = made_up(10, 6)
    fitted = fit(world.take(np.arange(40)), world.take(np.arange(40, 50)), QUICK)
    assert np.isinf(fitted.bound(world.take(np.arange(50, 60)), 0.05)).all()
