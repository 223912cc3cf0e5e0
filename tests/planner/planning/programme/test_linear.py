"""Models as arrays and as text."""

from math import inf

import numpy as np

from planner.planning.programme.linear import LinearModel, without_values


def test_arrays_hold_rows_one_after_the_other() -> None:
    model = LinearModel()
    columns = [model.add_column(name, upper=upper) for name, upper in (("a", 4.0), ("b", inf), ("c", 1.0))]
    model.add_row("first", [(columns[2], 5.0), (columns[0], -1.0)], lower=1.0, upper=2.0)
    model.add_row("empty", [], upper=0.0)
    model.add_row("last", [(columns[1], 7.0)], lower=3.0)
    arrays = model.arrays()
    assert arrays.start.tolist() == [0, 2, 2, 3]
    assert arrays.columns.tolist() == [2, 0, 1]
    assert arrays.values.tolist() == [5.0, -1.0, 7.0]
    assert arrays.row_lower.tolist() == [1.0, -inf, 3.0]
    assert arrays.upper.tolist() == [4.0, inf, 1.0]


def test_text_names_everything() -> None:
    model = LinearModel()
    one = model.add_column("one", lower=-inf)
    two = model.add_column("two", lower=2, upper=2, integer=True)
    model.set_objective([(two, 3.0)], maximise=False)
    model.add_row("both", [(one, 1.5), (two, -1.0)], lower=0.5, upper=4.0)
    assert model.text().splitlines() == [
        "minimise",
        "  3 two",
        "subject to",
        "  both: 0.5 <= 1.5 one + -1 two <= 4",
        "bounds",
        "  one",
        "  two = 2",
        "integer",
        "  two",
    ]


def test_an_objective_replaces_the_one_before() -> None:
    model = LinearModel()
    columns = [model.add_column(name, objective=1.0) for name in "ab"]
    model.set_objective([(columns[1], 2.0)], maximise=True)
    assert model.objective_terms == [(columns[1], 2.0)]
    assert model.maximise


def test_bounds_of_solutions_that_do_not_exist() -> None:
    assert without_values("infeasible", maximise=True).bound == -inf
    assert without_values("no solution", maximise=True).bound == inf
    assert without_values("no solution", maximise=False).bound == -inf
    assert not without_values("infeasible", maximise=True).found
    assert np.size(without_values("infeasible", maximise=True).values) == 0
