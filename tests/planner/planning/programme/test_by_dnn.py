"""Rounds of plans by DNN, from a bad plan on, against the programme over all DNNs, which brute force checks."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from mixtures import random_mixture

from planner.model import InputError, Problem
from planner.model.problem import Objective
from planner.planning.methods import all_candidates
from planner.planning.pipelines.sizing import Sizing
from planner.planning.programme import by_dnn, milp
from planner.planning.programme.backends import Clock, Limits

OBJECTIVES: tuple[Objective, ...] = ("least_memory", "least_energy")
SEEDS = range(3000, 3040)


def solvable(objective: Objective) -> Iterator[tuple[Problem, float]]:
    """Yield problems of several DNNs with their optima."""
    for seed in SEEDS:
        problem = random_mixture(seed, objective, "own")
        problem = replace(problem, options=replace(problem.options, budget_per_hour=None))
        with suppress(InputError):
            if by_dnn.admits(problem):
                yield problem, milp.size(problem, all_candidates(problem), "highs", Limits(1e-9)).value(problem)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_rounds_find_and_bound_the_optimum(objective: Objective) -> None:
    proven = total = 0
    for problem, expected in solvable(objective):
        candidates = all_candidates(problem)
        begin = milp.size(problem, candidates, "highs", Limits(gap=0.9))
        told: list[Sizing] = []
        rounds = by_dnn.Rounds(problem, candidates, "highs", Clock(Limits(1e-6)), begin, told.append)
        rounds.run()
        value = rounds.best.value(problem)
        assert expected * (1 - 1e-6) <= value <= begin.value(problem) * (1 + 1e-6)
        assert rounds.best.bound <= expected * (1 + 1e-6)
        assert [one.bound for one in told] == sorted(one.bound for one in told)
        last = milp.size(problem, candidates, "highs", Limits(1e-6), rounds.add_rows, rounds.best)
        assert last.value(problem) == pytest.approx(expected, rel=2e-6)
        total, proven = total + 1, proven + (value - rounds.best.bound <= 1e-6 * value)
    assert total >= 5
    assert proven >= 0.6 * total


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_what_is_open_at_once_goes_on_by_dnn(objective: Objective, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = milp.size

    def rough(*args: object, **kwargs: object) -> Sizing:
        """The first programme over all DNNs ends with a plan and a bound of nothing."""
        monkeypatch.setattr(milp, "size", whole)
        found = whole(*args[:3], Limits(gap=0.9))  # type: ignore[arg-type]
        return replace(found, bound=0.0)

    problem, expected = next(solvable(objective))
    monkeypatch.setattr(milp, "size", rough)
    found = by_dnn.size(problem, all_candidates(problem), "highs", Limits(1e-6))
    assert milp.size is whole
    assert np.allclose([found.value(problem), found.bound], expected, rtol=2e-6)
