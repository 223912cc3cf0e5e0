"""CBC through PuLP, which brings the solver with it."""

import re
import tempfile
import warnings
from math import isinf
from pathlib import Path

import numpy as np
import pulp

from planner.planning.programme.backends import Limits, Start, Unavailable
from planner.planning.programme.linear import NO_VALUES, LinearModel, Solution, Status, without_values

INTEGER_TOLERANCE = 1e-9  # as for HiGHS


def version() -> str:
    """Return PuLP's version, which fixes that of the CBC in it."""
    return f"PuLP {pulp.__version__}"


def solve(model: LinearModel, limits: Limits, start: Start | None = None) -> Solution:
    """Solve a model; a maximum is found as the minimum of the negative."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PuLP announces what its next version will call differently
        problem, columns = _load(model)
        log = Path(folder, "log")
        solver = pulp.PULP_CBC_CMD(
            msg=False,
            timeLimit=limits.time_limit_s,
            gapRel=limits.gap,
            gapAbs=0.0,
            options=[f"integerTolerance {INTEGER_TOLERANCE}", f"primalTolerance {INTEGER_TOLERANCE}"],
            logPath=str(log),
            warmStart=start is not None,
        )
        solver.tmpDir = folder
        if not solver.available():
            raise Unavailable("backend cbc: PuLP has no CBC for this machine; install one, or use --backend highs")
        for column, value in (start or {}).items():
            columns[column].setInitialValue(value)
        problem.solve(solver)
        return _read(problem, columns, model, log.read_text())


def _load(model: LinearModel) -> tuple[pulp.LpProblem, list[pulp.LpVariable]]:
    arrays = model.arrays()
    sign = -1.0 if model.maximise else 1.0
    problem = pulp.LpProblem("plan", pulp.LpMinimize)
    columns = [
        pulp.LpVariable(
            f"c{number}",
            None if isinf(lower) else lower,
            None if isinf(upper) else upper,
            pulp.LpInteger if integer else pulp.LpContinuous,
        )
        for number, (lower, upper, integer) in enumerate(
            zip(arrays.lower.tolist(), arrays.upper.tolist(), arrays.integer.tolist(), strict=True)
        )
    ]
    problem += pulp.LpAffineExpression((columns[c], sign * value) for c, value in model.objective_terms)
    for row, (lower, upper) in enumerate(zip(arrays.row_lower.tolist(), arrays.row_upper.tolist(), strict=True)):
        part = slice(arrays.start[row], arrays.start[row + 1])
        terms = [
            (columns[c], value) for c, value in zip(arrays.columns[part], arrays.values[part].tolist(), strict=True)
        ]
        expression = pulp.LpAffineExpression(terms)
        if lower == upper:
            problem += expression == upper, f"r{row}"
            continue
        if not isinf(upper):
            problem += expression <= upper, f"r{row}"
        if not isinf(lower):
            problem += expression >= lower, f"r{row}" if isinf(upper) else f"r{row}_lower"
    return problem, columns


def _read(problem: pulp.LpProblem, columns: list[pulp.LpVariable], model: LinearModel, log: str) -> Solution:
    sign = -1.0 if model.maximise else 1.0
    found = problem.sol_status
    if found == pulp.LpSolutionInfeasible:
        return without_values("infeasible", maximise=model.maximise)
    if found == pulp.LpSolutionUnbounded:
        return without_values("unbounded", maximise=model.maximise)
    if found not in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible):
        return without_values("no solution", maximise=model.maximise)
    values = np.array([column.value() or 0.0 for column in columns])
    objective = float(values @ model.arrays().objective)
    status: Status = "optimal" if found == pulp.LpSolutionOptimal else "feasible"
    if model.has_integers:
        stated = re.search(r"^Lower bound:\s+(\S+)", log, re.MULTILINE)  # absent where the tree was searched whole
        bound = sign * float(stated[1]) if stated else objective
        return Solution(status, objective, bound, values, NO_VALUES, NO_VALUES)
    row_duals = np.zeros(len(model.row_names))
    for name, row in problem.constraints.items():
        row_duals[int(name[1:].removesuffix("_lower"))] += sign * row.pi
    column_duals = sign * np.array([column.dj or 0.0 for column in columns])
    return Solution(status, objective, objective, values, row_duals, column_duals)
