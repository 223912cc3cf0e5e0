"""Gaussian completion of profiles: closed forms against direct ones, errors, bounds, suggestions, bad input."""

from dataclasses import replace

import numpy as np
import pytest
from published import DEVICES, profiles

from planner.completion.cells import platforms_to_learn
from planner.completion.gaussian import Component, Effects, Posterior, fit_effects, next_measurements, reduced
from planner.completion.paths import Predicted, block_scores, path_scores, plan_scores, sum_sigma
from planner.completion.profiles import predict_profiles
from planner.model import (
    Cluster,
    DeviceType,
    Dnn,
    InputError,
    LatencyBound,
    LatencyTable,
    Network,
    Options,
    Problem,
    Provenance,
)
from planner.model.applications import Application, Task, chained
from planner.model.observed import Observed, Run, runs_of_profile

TRUTH = profiles()
BLANK = tuple(replace(profile, tables=()) for profile in TRUTH)
RUNS = tuple(run for profile in TRUTH for run in runs_of_profile(profile))
MEASURED = Provenance("measured", "by hand")


def some(fraction: float, seed: int = 0, runs: tuple[Run, ...] = RUNS) -> Observed:
    chosen = np.random.default_rng(seed).permutation(len(runs))[: round(fraction * len(runs))]
    return Observed(BLANK, tuple(runs[at] for at in chosen))


def errors(found, truth=TRUTH, skip=()):
    """Relative errors of whole-model latencies that were not measured."""
    result = []
    for ours, true in zip(found, truth, strict=True):
        for table in true.tables:
            for row, batch in zip(table.latency_us, table.batches, strict=True):
                if ours.has(table.device, table.share) and (true.name, table.device, table.share, batch) not in skip:
                    own = ours.table(table.device, table.share)
                    if batch in own.batches:
                        result.append(sum(own.block_latency_us(batch)) / sum(row) - 1)
    return np.array(result)


def toy_effects() -> Effects:
    rng = np.random.default_rng(1)
    components = (
        Component("group", np.repeat(np.arange(4), 5), np.ones((20, 1))),
        Component("slope", np.zeros(20, int), rng.normal(size=(20, 2))),
    )
    return Effects(components, np.array([0.5, 0.2]), 0.01, 1.0)


def test_leaving_out_in_closed_form_is_leaving_out():
    effects, rng = toy_effects(), np.random.default_rng(0)
    rows, y = np.arange(15), rng.normal(1, 1, 15)
    out = np.array([3, 7, 8])
    mean, covariance = Posterior(effects, rows, y).without(out)
    kept = np.delete(rows, out)
    direct = Posterior(effects, kept, y[kept])
    assert mean == pytest.approx(direct.mean(out))
    assert covariance == pytest.approx(direct.covariance(out) + effects.noise * np.eye(3))


def test_the_design_is_the_one_that_brute_force_finds_and_needs_no_measurement():
    effects = toy_effects()
    covariance = effects.covariance(np.arange(20), np.arange(20))
    candidates = [np.array([at]) for at in range(20)]
    first = next_measurements(covariance, candidates, effects.noise, 1)[0]
    left = [np.trace(reduced(covariance, cells, effects.noise)) for cells in candidates]
    assert left[first] == pytest.approx(min(left))
    after = Posterior(effects, np.array([first]), np.array([123.0])).covariance(np.arange(20))
    assert reduced(covariance, candidates[first], effects.noise) == pytest.approx(after)


def test_variances_are_found_again():
    rng = np.random.default_rng(5)
    key = np.repeat(np.arange(60), 6)
    y = 3 + rng.normal(0, 0.7, 60)[key] + rng.normal(0, 0.1, 360)
    one = np.ones((360, 1))
    found = fit_effects([Component("group", key, one), Component("idle", np.arange(360) % 7, one)], np.arange(360), y)
    assert np.sqrt(found.variance[0]) == pytest.approx(0.7, rel=0.25)
    assert np.sqrt(found.noise) == pytest.approx(0.1, rel=0.15)
    assert np.sqrt(found.variance[1]) < 0.05
    assert found.mean == pytest.approx(3, abs=0.3)


def test_few_runs_complete_profiles():
    observed = some(0.3)
    found = predict_profiles(observed).profiles()
    skip = {run.place[:4] for run in observed.runs}
    assert np.median(np.abs(errors(found, skip=skip))) < 0.06
    for profile in found:
        for table in profile.tables:
            assert table.provenance.kind == "estimated"
            assert "measured" in table.provenance.method
            assert (np.diff(np.array(table.latency_us), axis=0) >= 0).all()  # monotone in batch


def test_measured_numbers_stay_and_bounds_are_not_below_them():
    observed = some(0.4)
    predictions = predict_profiles(observed)
    nominal, bounds = predictions.profiles(), predictions.bounded(0.9)
    by_name = {profile.name: number for number, profile in enumerate(nominal)}
    for run in observed.runs:
        own = nominal[by_name[run.model]].table(run.device, run.share)
        bound = bounds[by_name[run.model]].table(run.device, run.share)
        assert bound.provenance.kind == "bound"
        assert bound.provenance.level == 0.9
        at = own.batches.index(run.batch)
        assert own.measured is not None
        assert own.measured[at] == bound.measured[at] == (True,) * len(run.latency_us)
        assert (np.array(own.latency_us[at]) >= np.array(run.latency_us)).all()
        assert (np.array(bound.latency_us[at]) >= np.array(run.latency_us)).all()


def test_bounds_of_sums_hold_about_as_often_as_they_say():
    """Over worlds: whole-model latencies within their path-wise bound of level 0.8."""
    inside = []
    for seed in range(8):
        truth = profiles(noise=0.05, seed=seed + 10)
        runs = tuple(run for profile in truth for run in runs_of_profile(profile))
        observed = Observed(tuple(replace(p, tables=()) for p in truth), some(0.35, seed, runs).runs)
        found = predict_profiles(observed).bounded(0.8)
        inside.append(errors(found, truth, {run.place[:4] for run in observed.runs}) >= 0)
    assert 0.7 < np.concatenate(inside).mean() <= 1


def test_suggested_runs_teach_more_than_random_ones():
    """A device seen once: five suggested runs against five random ones, over several draws."""
    known = some(0.5, runs=tuple(run for run in RUNS if run.device != "C")).runs
    fresh = [run for run in RUNS if run.device == "C"]
    start = Observed(BLANK, (*known, fresh[0]))
    platforms = platforms_to_learn(start, start.runs, "C", described=False)
    suggestions = predict_profiles(start, batches=platforms).suggest("C", 5)
    assert all(place[1] == "C" for place, _ in suggestions)
    left = [error for _, error in suggestions]
    assert left == sorted(left, reverse=True)

    def error(runs):
        observed = Observed(BLANK, (*start.runs, *runs))
        found = predict_profiles(observed, batches=platforms).profiles()
        only = [replace(p, tables=tuple(t for t in p.tables if t.device == "C")) for p in found]
        return np.mean(np.abs(errors(only, skip={run.place[:4] for run in observed.runs})))

    chosen = error([next(run for run in fresh if run.place[:4] == place) for place, _ in suggestions])
    rng = np.random.default_rng(0)
    random = [error([fresh[1:][at] for at in rng.permutation(len(fresh) - 1)[:5]]) for _ in range(3)]
    assert chosen < np.mean(random)


def test_estimates_are_what_runs_are_held_against():
    """A roofline that is wrong by a constant per device is corrected by one run of each device."""
    estimated = []
    for profile in TRUTH:
        tables = tuple(
            replace(
                table,
                latency_us=tuple(tuple(3 * value for value in row) for row in table.latency_us),
                provenance=Provenance("estimated", "roofline"),
            )
            for table in profile.tables
        )
        estimated.append(replace(profile, tables=tables))
    runs = [next(run for run in RUNS if run.device == device and run.batch == 2) for device in DEVICES]
    found = predict_profiles(Observed(tuple(estimated), tuple(runs)), list(DEVICES)).profiles()
    assert np.median(np.abs(errors(found))) < 0.03


def predicted(latency, sigma, measured, device="A"):
    block = np.full(len(latency), sigma)
    return Predicted("net", device, np.array(latency), sigma, block, np.array(measured))


def test_scores_by_hand():
    one = predicted([10.0, 10.0], 0.1, [10.0 * np.exp(0.2), 10.0 * np.exp(0.2)])
    other = predicted([20.0, 20.0], 0.2, [20.0, 20.0], "B")
    scores = path_scores([one, other])
    assert scores[0] == pytest.approx(2.0)  # alone: 0.2 / 0.1
    # one, then other: 10 exp(0.1 q) + 20 exp(0.2 q) = 10 exp(0.2) + 20
    between = scores[1]
    assert 10 * np.exp(0.1 * between) + 20 * np.exp(0.2 * between) == pytest.approx(10 * np.exp(0.2) + 20)
    assert scores[2] == pytest.approx(0.0, abs=1e-9)
    assert sorted(block_scores([one, other])) == pytest.approx([0, 0, 2, 2])
    places = {("net", "A", 1, 1): one, ("net", "B", 1, 1): other}
    assert plan_scores([("net", "A", 1, 1, 0, 1), ("net", "B", 1, 1, 1, 2)], places) == pytest.approx(2.0)
    assert plan_scores([("net", "C", 1, 1, 0, 2)], places) == -np.inf
    assert sum_sigma(np.array([3.0, 1.0]), np.full((2, 2), 0.04)) == pytest.approx(0.2)  # fully correlated


def run_of(latency_us, **changes):
    return replace(Run("net0", "A", 1, 1, latency_us, MEASURED), **changes)


SIX = (10.0,) * 6


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Observed(BLANK, (run_of(SIX, model="other"),)), r"runs\[0\]: unknown model 'other'"),
        (lambda: Observed(BLANK, (run_of(SIX, beside=("other",)),)), "unknown model 'other'"),
        (lambda: Observed(BLANK, (run_of((1.0,)),)), "expected 6 numbers, one per block of net0, got 1"),
        (lambda: Observed(BLANK, (run_of((None,) * 6),)), "no block was timed"),
        (lambda: Observed((BLANK[0], BLANK[0])), "names must differ"),
        (
            lambda: Observed(BLANK, (run_of(SIX), run_of((15.0, *SIX[1:])))).merged(),
            "block 0: two timings disagree, 10 and 15 µs",
        ),
        (lambda: predict_profiles(Observed(BLANK)), "no run was made alone"),
        (lambda: predict_profiles(some(0.2), ["Z"]), "device 'Z': has neither a measurement nor an estimate"),
        (
            lambda: platforms_to_learn(some(0.2), some(0.2).runs, "Z", described=False),
            "device 'Z': has neither a measurement nor an estimate",
        ),
        (lambda: predict_profiles(some(0.2)).suggest("Z", 3), "device 'Z': nothing observed"),
        (lambda: predict_profiles(some(0.1)).bounded(0.95), "level 0.95 of observed runs: needs 19 .* got 9"),
        (  # runs of which a block was not timed calibrate no sums
            lambda: predict_profiles(
                Observed(BLANK, (*some(0.3).runs[:5], *(run_of((*SIX[1:], None), batch=b) for b in range(11, 40))))
            ).bounded(0.9),
            "level 0.9 of observed runs, every block timed: needs 9 to calibrate on, got 5; measure 4 more",
        ),
    ],
)
def test_bad_input_is_one_clear_line(make, text):
    with pytest.raises(InputError, match=text) as refused:
        make()
    assert "\n" not in str(refused.value)


def test_which_numbers_were_measured_is_kept_between_batch_sizes_too():
    observed = Observed(BLANK, (run_of(SIX, batch=2), run_of(SIX, batch=4), run_of((*SIX[1:], None), batch=8)))
    table = predict_profiles(observed).profiles()[0].table("A", 1)
    assert table.batches == (2, 4, 8)
    for batch in (1, 2, 3, 4):
        assert table.measured_blocks(batch) == (True,) * 6
    for batch in (5, 8):
        assert table.measured_blocks(batch) == (True,) * 5 + (False,)
    other = replace(table, measured=None)
    assert not any(other.measured_blocks(2))
    assert all(replace(other, provenance=MEASURED).measured_blocks(2))
    with pytest.raises(InputError, match="measured: expected rows of equal length"):
        replace(table, measured=((True,),) * 3)


def test_chains_tell_which_numbers_were_measured():
    known, unknown = ((True, False),), None
    tables = [
        LatencyTable("A", 1, (1,), ((5, 6),), Provenance("estimated", "by hand"), measured=each)
        for each in (known, unknown)
    ]
    first, second = (
        replace(BLANK[0], blocks=BLANK[0].blocks[:2], cut_bytes=(8,), tables=(table,), input_bytes=8)
        for table in tables
    )
    assert chained("both", (first, second), "chain").tables[0].measured == ((True, False, False, False),)
    assert chained("both", (second, second), "chain").tables[0].measured is None  # digests stay what they were


def test_groups_of_cells_are_told_as_one_by_one():
    effects, rng = toy_effects(), np.random.default_rng(2)
    posterior = Posterior(effects, np.arange(12), rng.normal(1, 1, 12))
    groups = [np.array([13]), np.array([3, 14, 15]), np.arange(16, 20)]
    for group, (mean, covariance) in zip(groups, posterior.of_groups(groups), strict=True):
        assert mean == pytest.approx(posterior.mean(group))
        assert covariance == pytest.approx(posterior.covariance(group))


def test_three_timings_must_agree_two_by_two():
    """9 and 12 µs are within what 10.4 µs allows, but not of each other."""
    runs = tuple(run_of((value, *SIX[1:])) for value in (10.4, 9.0, 12.0))
    Observed(BLANK, runs[:2]).merged()
    Observed(BLANK, (runs[0], runs[2])).merged()
    with pytest.raises(InputError, match="block 0: two timings disagree, 9 and 12 µs"):
        Observed(BLANK, runs).merged()


def test_timings_that_agree_are_merged():
    spread = (0.1,) * 6
    twice = Observed(BLANK, (run_of(SIX, spread=spread), run_of((12.1, *SIX[1:]), spread=spread)))
    (merged,) = twice.merged()
    assert merged.latency_us[0] == pytest.approx(11.0)


def test_plans_rely_on_bounds_where_numbers_are_estimated():
    table = LatencyTable("A", 1, (1,), ((10,) * 6,), Provenance("estimated", "roofline"))
    bound = replace(table, latency_us=((15,) * 6,), provenance=Provenance("bound", "by hand", level=0.95))
    measured = replace(table, device="B", provenance=MEASURED)
    profile = replace(TRUTH[0], tables=(table, measured), bounds=(bound,))
    view = profile.bounded(0.95)
    assert [one.latency_us[0][0] for one in view.tables] == [15, 10]
    with pytest.raises(InputError, match=r"no bound of level 0.9 for A 1/1.*has levels \[0.95\]"):
        profile.bounded(0.9)


def test_problems_and_applications_are_planned_with_bounds():
    table = LatencyTable("A", 1, (1,), ((10,) * 6,), Provenance("estimated", "roofline"))
    bound = replace(table, latency_us=((15,) * 6,), provenance=Provenance("bound", "by hand", level=0.95))
    profile = replace(TRUTH[0], tables=(table,), bounds=(bound,), input_bytes=8)
    cluster = Cluster((DeviceType("A", 1),), Network(10))
    chain = Application("chain", 1e6, (Task("one", (profile,)), Task("two", (profile,))))
    problem = Problem(cluster, (Dnn("net", 1e6, (profile,)),), Options(latency=LatencyBound(0.95)), (chain,))
    for dnn in problem.planned.dnns:
        assert {value for row in dnn.variants[0].tables[0].latency_us for value in row} == {15}
    assert problem.planned.planned is problem.planned
