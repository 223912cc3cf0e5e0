"""Every solver answers alike: optima, duals, bounds, limits, and what it says when it cannot."""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from itertools import product
from math import inf
from types import SimpleNamespace
from typing import Any

import gurobipy
import highspy
import numpy as np
import pytest

from planner.model import InputError
from planner.planning.programme.backends import (
    BACKENDS,
    Clock,
    Interrupted,
    Limits,
    Unavailable,
    cbc,
    highs,
    solve,
    version,
)
from planner.planning.programme.linear import LinearModel, Solution, Status


def random_model(seed: int) -> LinearModel:
    """A bounded integer programme of three columns, so that all points can be tried."""
    rng = np.random.default_rng(seed)
    model = LinearModel(maximise=bool(seed % 2))
    for column in range(3):
        model.add_column(f"x{column}", upper=4.0, objective=float(rng.integers(-5, 9)), integer=True)
    for row in range(2):
        terms = [(column, float(rng.integers(-2, 6))) for column in range(3)]
        model.add_row(f"r{row}", terms, lower=-3.0, upper=float(rng.integers(3, 14)))
    model.add_row("sum", [(column, 1.0) for column in range(3)], lower=1.0)
    return model


def best_point(model: LinearModel) -> float | None:
    arrays = model.arrays()
    matrix = np.zeros((len(arrays.row_lower), 3))
    for row in range(len(matrix)):
        part = slice(arrays.start[row], arrays.start[row + 1])
        matrix[row, arrays.columns[part]] = arrays.values[part]
    values = [
        float(arrays.objective @ point)
        for point in map(np.array, product(range(5), repeat=3))
        if (matrix @ point >= arrays.row_lower).all() and (matrix @ point <= arrays.row_upper).all()
    ]
    return (max if model.maximise else min)(values, default=None)


@pytest.mark.parametrize("backend", [*BACKENDS, "auto"])
def test_integer_optima_are_those_of_all_points(backend: str) -> None:
    for seed in range(10):
        model = random_model(seed)
        solution, _ = solve(model, backend)
        assert solution.status == "optimal"
        assert solution.objective == pytest.approx(best_point(model))
        assert solution.bound == pytest.approx(solution.objective)
        assert solution.values @ model.arrays().objective == pytest.approx(solution.objective)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("maximise", [False, True])
def test_duals_are_what_a_unit_more_is_worth(backend: str, maximise: bool) -> None:
    # 3 a + 2 b with a + b <= 4, a <= 3, whichever sign: the optimum 11 gains 2 per unit of the row and 1 per unit of a.
    sign = 1.0 if maximise else -1.0
    model = LinearModel(maximise)
    a = model.add_column("a", upper=3.0, objective=3.0 * sign)
    b = model.add_column("b", objective=2.0 * sign)
    row = model.add_row("both", [(a, 1.0), (b, 1.0)], upper=4.0)
    solution, _ = solve(model, backend)
    assert solution.objective == pytest.approx(11.0 * sign)
    assert solution.row_duals[row] == pytest.approx(2.0 * sign)
    assert solution.column_duals[a] == pytest.approx(1.0 * sign)


@pytest.mark.parametrize("backend", BACKENDS)
def test_models_without_an_optimum(backend: str) -> None:
    infeasible = LinearModel()
    column = infeasible.add_column("a", upper=1.0, integer=True)
    infeasible.add_row("more", [(column, 2.0)], lower=3.0)
    assert solve(infeasible, backend)[0].status == "infeasible"
    unbounded = LinearModel(maximise=True)
    unbounded.add_row("any", [(unbounded.add_column("a", objective=1.0), 1.0)], lower=0.0)
    assert solve(unbounded, backend)[0].status in ("unbounded", "infeasible")  # Gurobi's presolve does not tell which


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_start_of_integer_columns_is_completed(backend: str) -> None:
    model = random_model(3)
    rest = model.add_column("rest", upper=1.0, objective=1.0)
    model.add_row("limit", [(rest, 1.0), (0, -1.0)], upper=0.5)
    optimum = solve(model, backend)[0]
    again, _ = solve(model, backend, start={column: round(optimum.values[column]) for column in range(3)})
    assert again.objective == pytest.approx(optimum.objective)


def market_split(rows: int, columns: int) -> LinearModel:
    """A small programme that takes a long time to prove."""
    rng = np.random.default_rng(7)
    model = LinearModel()
    picked = [model.add_column(f"x{column}", upper=1.0, integer=True) for column in range(columns)]
    for row in range(rows):
        weights = rng.integers(0, 100, columns)
        over = model.add_column(f"over{row}", objective=1.0)
        under = model.add_column(f"under{row}", objective=1.0)
        terms = [(column, float(weight)) for column, weight in zip(picked, weights, strict=True)]
        model.add_row(
            f"r{row}", [*terms, (over, -1.0), (under, 1.0)], lower=weights.sum() // 2, upper=weights.sum() // 2
        )
    return model


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_time_limit_leaves_a_solution_and_a_bound(backend: str) -> None:
    solution, _ = solve(market_split(5, 40), backend, Limits(gap=0.0, time_limit_s=0.5))
    assert solution.status == "feasible"
    assert 0 <= solution.bound < solution.objective < inf


@pytest.fixture
def heeding_interrupts() -> Iterator[None]:
    """Interrupts as at a terminal: what runs in the background of a script is started with them ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeding_interrupts")
@pytest.mark.parametrize("backend", BACKENDS)
def test_an_interrupt_leaves_a_solution(backend: str) -> None:
    ring = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))  # what Ctrl-C sends
    ring.start()
    with pytest.raises(Interrupted) as stopped:
        solve(market_split(5, 40), backend, Limits(gap=0.0, time_limit_s=20.0))
    assert stopped.value.solution.status == "feasible"
    assert stopped.value.solution.bound < stopped.value.solution.objective < inf


def large_model() -> LinearModel:
    model = LinearModel(maximise=True)
    columns = [model.add_column(f"x{number}", upper=1.0, objective=1.0, integer=True) for number in range(2001)]
    model.add_row("half", [(column, 1.0) for column in columns], upper=1000.5)
    return model


def test_a_licence_that_is_too_small_is_said_in_one_line(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise gurobipy.GurobiError(10010, "Model too large for size-limited license")

    monkeypatch.setattr(gurobipy, "Env", refuse)  # whichever licence this machine has
    with pytest.raises(Unavailable, match="2001 variables and 1 constraints.*--backend highs") as error:
        solve(large_model(), "gurobi")
    assert "\n" not in str(error.value)
    with caplog.at_level(logging.INFO):
        solution, name = solve(large_model(), "auto")
    assert (solution.objective, name) == (1000.0, "highs")
    assert "using highs" in caplog.text


def test_a_missing_licence_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise gurobipy.GurobiError(10009, "No Gurobi license found")

    monkeypatch.setattr(gurobipy, "Env", refuse)
    with pytest.raises(Unavailable, match="no valid licence found.*--backend highs"):
        solve(random_model(0), "gurobi")
    assert solve(random_model(0), "auto")[1] == "highs"


def test_unknown_backends_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"unknown backend 'cplex'; expected one of \['highs', 'gurobi', 'cbc', 'auto'\]"
    ):
        solve(random_model(0), "cplex")


def test_solvers_tell_their_versions() -> None:
    assert all(any(character.isdigit() for character in version(backend)) for backend in BACKENDS)


def test_a_clock_counts_down() -> None:
    assert Clock(Limits()).remaining().time_limit_s is None
    assert Clock(Limits()).within(Limits(1e-3, 2.0)) == Limits(1e-3, 2.0)
    left = Clock(Limits(1e-6, 10.0)).within(Limits(1e-3, 8.0))
    assert left.gap == 1e-3
    assert left.time_limit_s == pytest.approx(5.0, abs=0.1)


@pytest.mark.parametrize(
    ("log", "status", "objective", "bound"),
    [
        ("Lower bound:                    0.5\n", "feasible", 23.0, 0.5),
        ("Lower bound:                    -316.162\nGap:        3.59585e-16\n", "optimal", -316.1616441, -316.1616441),
        ("Lower bound:                    99.99\nGap:         0.0001\n", "feasible", 100.0, 99.99),
        ("Lower bound:                    0.000\nGap:              0.00\n", "optimal", 0.0, 0.0),
        ("Result - Optimal solution found\n", "optimal", 23.0, 23.0),  # searched whole: the objective
        ("23 best solution, best possible 1.5 (0.70 seconds)\n(best possible 2)\n", "feasible", 23.0, 2.0),
        ("", "feasible", 23.0, -inf),  # stopped before it said anything: nothing is proven
    ],
)
def test_bounds_of_cbc_are_what_its_log_proves(log: str, status: Status, objective: float, bound: float) -> None:
    assert cbc._bound(log, status, objective) == pytest.approx(bound, rel=1e-12)


def test_an_objective_that_its_solution_does_not_have_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    # As HiGHS 1.16 ended once, from a solution to begin with: "optimal", at an objective below that of its values.
    model = LinearModel()
    column = model.add_column("a", upper=9.0, objective=1.0, integer=True)
    model.add_row("least", [(column, 2.0)], lower=5.0)
    read, solved = highs._read, []

    class Misled:
        def __init__(self, solver: highspy.Highs) -> None:
            self.solver = solver

        def getInfo(self) -> SimpleNamespace:  # as HiGHS calls it
            status = self.solver.getInfo().primal_solution_status
            return SimpleNamespace(primal_solution_status=status, objective_function_value=2.0, mip_dual_bound=2.0)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.solver, name)

    def misread(solver: highspy.Highs, own: LinearModel) -> Solution:
        solved.append(read(Misled(solver) if not solved else solver, own))
        return solved[-1]

    monkeypatch.setattr(highs, "_read", misread)
    solution = highs.solve(model, Limits(), {column: 4.0})
    assert [(one.status, one.objective) for one in solved] == [("feasible", 3.0), ("optimal", 3.0)]
    assert (solution.status, solution.objective, solution.bound) == ("optimal", 3.0, 3.0)
