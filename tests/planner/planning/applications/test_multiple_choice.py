"""The multiple-choice knapsack whose accuracies multiply, against enumeration and a solver's programme."""

from itertools import product

import numpy as np
import pytest

from planner.planning.applications import multiple_choice
from planner.planning.applications.multiple_choice import best_choice
from planner.planning.arrays import Floats
from planner.planning.programme.backends import Limits, solve
from planner.planning.programme.linear import LinearModel

Arrays = list[Floats]


def instance(seed: int, tasks: int, options: int, correlated: bool = True) -> tuple[Arrays, Arrays, Arrays, float]:
    """Return logarithms, costs, times and a limit; correlated ones make accuracy dear and slow, as it is."""
    rng = np.random.default_rng(seed)
    logs, costs, times = [], [], []
    for _ in range(tasks):
        logs.append(np.log(rng.uniform(0.3, 1.0, options)))
        costs.append(rng.integers(1, 30, options) + 1e-6 * rng.integers(1, 9, options))
        times.append(rng.uniform(0.1, 1.0, options))
        if correlated:
            for arrays in (logs, costs, times):
                arrays[-1].sort()
    least = sum(float(time.min()) for time in times)
    most = sum(float(time.max()) for time in times)
    return logs, costs, times, float(least + rng.uniform(0.1, 0.9) * (most - least))


def value(logs: Arrays, costs: Arrays, worth: float, chosen: list[int]) -> float:
    accuracy = np.prod([np.exp(log[n]) for log, n in zip(logs, chosen, strict=True)])
    return float(worth * accuracy - sum(cost[n] for cost, n in zip(costs, chosen, strict=True)))


def taken(times: Arrays, chosen: list[int]) -> float:
    return float(sum(time[n] for time, n in zip(times, chosen, strict=True)))


@pytest.mark.parametrize("few", [0, 10**6])
@pytest.mark.parametrize("correlated", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_equal_to_enumeration(seed: int, correlated: bool, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With bounds over pieces (few = 0) and by labels alone, at worths from nothing to all."""
    monkeypatch.setattr(multiple_choice, "FEW", few)
    logs, costs, times, limit = instance(seed, tasks=2 + seed % 4, options=4, correlated=correlated)
    choices = [list(one) for one in product(range(4), repeat=len(logs)) if taken(times, list(one)) <= limit]
    for worth in (0.0, 1.0, 50.0, 1e4):
        expected = max(value(logs, costs, worth, one) for one in choices)
        found = best_choice(logs, costs, times, worth, limit)
        assert found is not None
        assert taken(times, found) <= limit * (1 + 1e-9)
        assert value(logs, costs, worth, found) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("tasks", [10, 25])
@pytest.mark.parametrize("seed", range(3))
def test_costs_alone_equal_a_programme(seed: int, tasks: int) -> None:
    _, costs, times, limit = instance(seed, tasks, options=12, correlated=False)
    times = [-np.sort(-time) for time in times]
    costs = [np.sort(cost) for cost in costs]  # quick ones are dear
    model = LinearModel()
    columns = [[model.add_column(f"{s}/{o}", upper=1, integer=True) for o in range(12)] for s in range(tasks)]
    for number, own in enumerate(columns):
        model.add_row(f"one[{number}]", [(column, 1.0) for column in own], lower=1, upper=1)
    pairs = [(column, t) for own, time in zip(columns, times, strict=True) for column, t in zip(own, time, strict=True)]
    model.add_row("time", [(column, float(t)) for column, t in pairs], upper=limit)
    terms = [(column, c) for own, cost in zip(columns, costs, strict=True) for column, c in zip(own, cost, strict=True)]
    model.set_objective([(column, float(c)) for column, c in terms], maximise=False)
    solution, _ = solve(model, "highs", Limits(gap=0.0))
    found = best_choice(costs, costs, times, 0.0, limit)
    assert found is not None
    assert -value(costs, costs, 0.0, found) == pytest.approx(solution.objective, rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_a_longer_chain_equals_the_best_of_its_halves(seed: int) -> None:
    """Eight tasks of five options: every pair of labels of two halves, without a bound."""
    logs, costs, times, limit = instance(seed, tasks=8, options=5)
    halves = []
    for part in (slice(0, 4), slice(4, 8)):
        grids = [
            np.array(list(product(*(array[s] for s in range(part.start, part.stop))))) for array in (logs, costs, times)
        ]
        halves.append([grid.sum(axis=1) for grid in grids])
    (log_1, cost_1, time_1), (log_2, cost_2, time_2) = halves
    for worth in (20.0, 300.0, 5000.0):
        values = worth * np.exp(np.add.outer(log_1, log_2)) - np.add.outer(cost_1, cost_2)
        expected = values[np.add.outer(time_1, time_2) <= limit].max()
        found = best_choice(logs, costs, times, worth, limit)
        assert found is not None
        assert value(logs, costs, worth, found) == pytest.approx(expected, rel=1e-11)


def test_no_choice_keeps_the_limit_and_one_that_is_exact_does() -> None:
    times = [np.array([0.1, 0.2]), np.array([0.2, 0.3])]
    logs = [np.log([0.5, 0.9])] * 2
    costs = [np.array([1.0, 2.0])] * 2
    assert best_choice(logs, costs, times, 100.0, 0.29) is None
    assert best_choice(logs, costs, times, 100.0, 0.1 + 0.2) == [0, 0]
    assert best_choice(logs, costs, times, 100.0, 0.5) == [1, 1]
