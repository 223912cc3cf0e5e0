"""Predictors: by hand, on loads that they must get right, and their errors."""

import numpy as np
import pytest

from planner.model import InputError
from simulator.adaptation import (
    PREDICTORS,
    Span,
    ar1,
    blend,
    fit_forecast,
    largest,
    mean,
    oracle,
    reactive,
    smape_percent,
)
from simulator.adaptation.predictors import window_maxima


def steps(*maxima: float) -> np.ndarray:
    """Counts whose ten-second maxima are given: the last second of each ten has it, the others 1."""
    return np.concatenate([[1.0] * 9 + [value] for value in maxima])


def test_rules_by_hand() -> None:
    counts = steps(5, 9, 5, 5, 5, 5, 5, 5, 5, 5, 5, 7)
    assert window_maxima(counts).tolist() == [5, 9, 5, 5, 5, 5, 5, 5, 5, 5, 5, 7]
    assert (reactive(counts), largest(counts), mean(counts)) == (7, 9, pytest.approx(66 / 12))


def test_a_geometric_return_to_the_mean_is_what_ar1_foresees() -> None:
    """Deviations halve every step: the fitted slope is that of the deviations from the window's own mean."""
    maxima = 10 + 8 * 0.5 ** np.arange(12)
    centred = maxima - maxima.mean()
    slope = (centred[:-1] @ centred[1:]) / (centred[:-1] @ centred[:-1])
    expected = maxima.mean() + centred[-1] * slope**2  # below the mean and returning: the later step is the larger
    assert ar1(steps(*maxima)) == pytest.approx(expected)


@pytest.mark.parametrize("name", PREDICTORS)
def test_a_steady_load_is_foreseen_by_every_rule(name: str) -> None:
    counts = np.full(400, 12.0)
    assert PREDICTORS[name](counts) == 12.0
    assert smape_percent(PREDICTORS[name], counts) == 0.0


@pytest.mark.parametrize("name", PREDICTORS)
def test_before_the_window_is_full_the_largest_so_far_holds(name: str) -> None:
    assert PREDICTORS[name](np.array([3.0, 8.0, 2.0])) == 8.0


def test_the_oracle_is_never_wrong() -> None:
    counts = np.random.default_rng(1).poisson(9, 1000).astype(float)
    assert smape_percent(oracle(counts), counts) == 0.0


def wave(seconds: int, seed: int) -> np.ndarray:
    rate = 30 + 20 * np.sin(np.arange(seconds) / 90)
    return np.random.default_rng(seed).poisson(rate).astype(float)


def test_what_is_learned_beats_every_rule_on_a_load_that_it_was_learned_from() -> None:
    forecast = fit_forecast(wave(60_000, 1))
    counts = wave(4000, 2)
    errors = {name: smape_percent(rule, counts) for name, rule in PREDICTORS.items()}
    assert smape_percent(forecast, counts) < min(errors.values())
    blended = blend([*PREDICTORS.values(), forecast])
    assert smape_percent(blended, counts) < 1.2 * min(errors.values())


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_bounds_hold_as_often_as_they_say(level: float) -> None:
    """120 looks: three standard deviations of a binomial share at 0.9 are 8 percent."""
    bound = fit_forecast(wave(60_000, 3), level)
    counts = wave(12_200, 4)
    held = np.mean([bound(counts[:now]) >= counts[now : now + 20].max() for now in range(120, 12_120, 100)])
    assert held == pytest.approx(level, abs=3 * np.sqrt(level * (1 - level) / 120) + 0.02)


def test_what_is_forecast_may_be_the_mean_of_a_later_time() -> None:
    """A load of a known period: the mean of the seconds 8 to 17 from now follows from the last two minutes."""
    load = 30 + 20 * np.sin(np.arange(40_000) / 20)
    forecast = fit_forecast(load, span=Span(8, 18, "mean"))
    for now in (1000, 2003, 3019):
        assert forecast(load[:now]) == pytest.approx(load[now + 8 : now + 18].mean(), rel=0.01)


def test_gaps_in_a_history_are_not_what_is_learned() -> None:
    load = wave(60_000, 6)
    gaps = load.copy()
    for start in range(0, 60_000, 6000):
        gaps[start : start + 120] = 0
    counts = wave(4000, 7)
    assert smape_percent(fit_forecast(gaps), counts) < 1.1 * smape_percent(fit_forecast(load), counts)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fit_forecast(np.ones(500)), "500 s of history give 37 windows; expected at least 125"),
        (lambda: smape_percent(mean, np.ones(139)), "139 s is shorter than the predictor's history"),
        (lambda: window_maxima(np.ones(119)), "119 s of load are shorter than the predictor's history of 120 s"),
        (lambda: fit_forecast(wave(9000, 5), 1.0), "expected a probability between 0 and 1, got 1.0"),
    ],
)
def test_bad_input_is_one_line(make: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()  # type: ignore[operator]
