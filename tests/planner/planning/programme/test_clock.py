"""Clocks of time and of work: what is left, what ends them, and that work ends a search at one place in every run."""

from dataclasses import replace

import numpy as np
import pytest

from planner.planning.programme.backends import Clock, Limits, TooLate, clock, solve
from planner.planning.programme.linear import LinearModel


class Wall:
    """A wall clock that is moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 0.0
        monkeypatch.setattr(clock, "monotonic", lambda: self.now_s)


def test_a_clock_of_time_knows_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    wall = Wall(monkeypatch)
    left = Clock(Limits(1e-3, 10.0))
    left.spend(99.0)
    wall.now_s = 4.0
    assert left.remaining() == Limits(1e-3, 6.0)
    assert left.part(1 / 2).time_limit_s == 3.0
    assert left.at_most(2.0).remaining().time_limit_s == 2.0
    assert left.within(Limits(1e-6, 5.0)) == Limits(1e-6, 3.0)
    assert left.within(Limits(1e-6, 1.0)) == Limits(1e-6, 1.0)
    wall.now_s = 10.0
    assert left.over
    with pytest.raises(TooLate):
        left.expect_time()


def test_a_clock_of_work_knows_no_time_until_the_wall_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    wall = Wall(monkeypatch)
    outer = Clock(Limits(1e-3, 10.0))
    counted = outer.counted(3.0)
    wall.now_s = 9.0
    assert counted.remaining().time_limit_s == 3.0
    assert counted.remaining().wall_s == 1.0
    inner = Clock(counted.part(1 / 2))  # as a search makes its own
    inner.spend(1.0)
    assert counted.remaining().time_limit_s == 2.0
    assert not inner.over
    inner.spend(0.5)
    assert inner.over
    assert not counted.over
    assert not outer.over
    wall.now_s = 10.0
    assert counted.over


def test_work_without_a_limit_ends_with_the_wall_only(monkeypatch: pytest.MonkeyPatch) -> None:
    wall = Wall(monkeypatch)
    counted = Clock(Limits(1e-6, 5.0)).counted(None)
    counted.spend(1e9)
    assert not counted.over
    wall.now_s = 5.0
    assert counted.over
    assert Clock(Limits()).counted(None).remaining().wall_s is None


def hard_model(seed: int) -> LinearModel:
    """A knapsack in several dimensions, which is not proven in a moment."""
    rng = np.random.default_rng(seed)
    model = LinearModel(maximise=True)
    columns = [
        model.add_column(f"c{number}", upper=1.0, objective=float(rng.integers(50, 99)), integer=True)
        for number in range(60)
    ]
    for row in range(8):
        weights = rng.integers(20, 99, len(columns))
        terms = list(zip(columns, weights.astype(float).tolist(), strict=True))
        model.add_row(f"r{row}", terms, upper=float(weights.sum() // 3))
    return model


def test_work_ends_a_search_at_the_same_place_in_every_run() -> None:
    ends = []
    for _ in range(2):
        counted = Clock(Limits(1e-9)).counted(0.3)
        solution, _ = solve(hard_model(1), "highs", counted.remaining())
        ends.append((solution.status, solution.objective, solution.bound, counted.remaining().time_limit_s))
    assert ends[0] == ends[1]
    assert ends[0][0] == "feasible"
    longer, _ = solve(hard_model(1), "highs", Clock(Limits(1e-9)).counted(1.5).remaining())
    assert longer.bound <= ends[0][2]
    assert longer.objective >= ends[0][1]


def test_a_model_that_is_too_much_is_not_begun() -> None:
    counted = Clock(Limits()).counted(0.2)
    model = LinearModel(maximise=True)
    columns = [model.add_column(f"c{number}", upper=1.0, objective=1.0, integer=True) for number in range(4_000)]
    for row in range(3):
        model.add_row(f"r{row}", [(column, 1.0 + row) for column in columns], upper=9.0)
    assert solve(model, "highs", counted.remaining())[0].status == "no solution"
    assert solve(model, "highs", replace(counted.remaining(), work=None))[0].found


@pytest.mark.parametrize("backend", ["gurobi", "cbc"])
def test_other_solvers_count_too(backend: str) -> None:
    pytest.importorskip("gurobipy" if backend == "gurobi" else "pulp")
    counted = Clock(Limits(1e-9)).counted(0.3)
    solution, _ = solve(hard_model(1), backend, counted.remaining())
    assert solution.status in ("feasible", "no solution", "optimal")
    left_s = counted.remaining().time_limit_s
    assert left_s is not None
    assert left_s < 0.3
