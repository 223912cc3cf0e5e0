"""Latencies beside others: pairs that never ran together, told from what each did beside others."""

from dataclasses import replace

import numpy as np
import pytest

from planner.completion.profiles import predict_profiles
from planner.completion.slowdowns import predict_beside
from planner.model import Block, InputError, Profile, Provenance
from planner.model.observed import Observed, Run

MEASURED = Provenance("measured", "made up")
MODELS = tuple(Profile(f"net{n}", tuple(Block((f"layer{b}",)) for b in range(4)), (8,) * 3, ()) for n in range(6))
rng = np.random.default_rng(0)
ALONE_US = rng.lognormal(7, 0.6, (6, 4))
SUFFERS, PRESSES = rng.uniform(0.1, 0.4, (6, 4)), rng.uniform(0.0, 0.5, 6)


def latency_us(model: int, beside: tuple[int, ...] = (), noise: float = 0.0, seed: int = 0) -> tuple[float, ...]:
    """Blocks are slowed down, by each model beside, by what they suffer and by what that presses."""
    log = np.log(ALONE_US[model]) + sum(SUFFERS[model] + PRESSES[other] for other in beside)
    drawn = np.random.default_rng([seed, model, *beside]).normal(0, noise, 4)
    return tuple(float(value) for value in np.exp(log + drawn))


def run(model: int, beside: tuple[int, ...] = (), **more: float) -> Run:
    names = tuple(f"net{other}" for other in beside)
    return Run(f"net{model}", "core", 1, 1, latency_us(model, beside, **more), MEASURED, beside=names)


SOLO = tuple(run(model) for model in range(6))
PAIRS = [(model, other) for model in range(6) for other in range(6) if model != other]


def observed(pairs, **more):
    return Observed(MODELS, (*SOLO, *(run(model, (other,), **more) for model, other in pairs)))


def errors(seen: Observed, pairs) -> np.ndarray:
    alone, found = predict_profiles(seen), []
    for model, other in pairs:
        slowdowns = predict_beside(alone, seen, (f"net{other}",))
        predicted = slowdowns.predicted((f"net{model}", "core", 1, 1)).latency_us
        found.append(predicted / np.array(latency_us(model, (other,))) - 1)
    return np.abs(np.array(found))


def test_pairs_that_never_ran_together_are_told_from_others():
    known = [PAIRS[at] for at in np.random.default_rng(1).permutation(len(PAIRS))[:15]]
    left = [pair for pair in PAIRS if pair not in known]
    found = errors(observed(known), left)
    ignored = [np.abs(np.array(latency_us(m)) / np.array(latency_us(m, (k,))) - 1) for m, k in left]
    assert np.median(found) < 0.03
    assert np.median(found) < 0.15 * np.median(ignored)


def test_two_neighbours_press_as_both_do():
    seen = observed(PAIRS)
    slowdowns = predict_beside(predict_profiles(seen), seen, ("net1", "net2"))
    predicted = slowdowns.predicted(("net0", "core", 1, 1)).latency_us
    assert predicted == pytest.approx(latency_us(0, (1, 2)), rel=0.03)


def test_profiles_name_what_is_beside_hold_what_was_measured_and_are_bounded():
    seen = observed(PAIRS, noise=0.02)
    slowdowns = predict_beside(predict_profiles(seen), seen, ("net3",))
    nominal, bounds = slowdowns.profiles(), slowdowns.profiles(0.9)
    for model, (profile, bound) in enumerate(zip(nominal, bounds, strict=True)):
        (table,), (upper,) = profile.tables, bound.tables
        assert table.beside == ("net3",)
        assert (table.provenance.kind, upper.provenance.kind, upper.provenance.level) == ("estimated", "bound", 0.9)
        assert (np.array(upper.latency_us) >= np.array(table.latency_us)).all()
        if model != 3:
            assert table.latency_us[0] == pytest.approx(latency_us(model, (3,), noise=0.02), abs=1)


def test_bounds_hold_about_as_often_as_they_say():
    inside = []
    for seed in range(3):
        known = [PAIRS[at] for at in np.random.default_rng(seed).permutation(len(PAIRS))[:20]]
        seen = observed(known, noise=0.05, seed=seed)
        alone = predict_profiles(seen)
        for model, other in set(PAIRS) - set(known):
            slowdowns = predict_beside(alone, seen, (f"net{other}",))
            predicted = slowdowns.predicted((f"net{model}", "core", 1, 1))
            bound_us = predicted.latency_us.sum() * np.exp(slowdowns.margin(0.8) * predicted.sigma)
            inside.append(sum(latency_us(model, (other,), noise=0.05, seed=seed)) <= bound_us)
    assert np.mean(inside) > 0.65


@pytest.mark.parametrize(
    ("seen", "beside", "text"),
    [
        (observed(PAIRS), ("other",), "beside 'other': the observations do not know it"),
        (Observed(MODELS, SOLO), ("net1",), "no run beside another model whose model was timed alone"),
        (
            Observed(MODELS, (*SOLO, replace(run(0, (1,)), device="other"))),
            ("net1",),
            "no run beside another model whose model was timed alone",
        ),
    ],
)
def test_bad_input_is_one_clear_line(seen, beside, text):
    with pytest.raises(InputError, match=text) as refused:
        predict_beside(predict_profiles(seen), seen, beside)
    assert "\n" not in str(refused.value)


def test_a_level_that_too_few_runs_beside_others_support_is_refused():
    seen = observed(PAIRS[:5])
    with pytest.raises(InputError, match="level 0.9 of runs beside others: needs 9 to calibrate on, got 5"):
        predict_beside(predict_profiles(seen), seen, ("net1",)).profiles(0.9)
