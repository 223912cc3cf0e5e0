"""CBC through PuLP: version 3 brings the solver with it, version 4 takes it from cbcbox or the path."""

import contextlib
import re
import signal
import tempfile
import warnings
from math import inf, isclose, isinf
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import psutil
import pulp

from planner.planning.programme.backends import Clock, Interrupted, Limits, SolutionReport, Start, Unavailable
from planner.planning.programme.backends.interruption import interruptible
from planner.planning.programme.linear import NO_VALUES, LinearModel, Solution, Status, without_values

INTEGER_TOLERANCE = 1e-9  # as for HiGHS


def version() -> str:
    """Return PuLP's version, which fixes that of the CBC in it (version 4 brings none)."""
    return f"PuLP {pulp.__version__}"


def solve(
    model: LinearModel, limits: Limits, start: Start | None = None, report: SolutionReport | None = None
) -> Solution:
    """Solve a model; a maximum is found as the minimum of the negative. CBC's solutions on its way are not told."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PuLP announces what its next version will call differently
        problem, columns = _load(model)
        log = Path(folder, "log")
        solver = getattr(pulp, "PULP_CBC_CMD", pulp.COIN_CMD)(
            msg=False,
            timeLimit=min((one for one in (limits.wall_s, limits.time_limit_s) if one is not None), default=None),
            gapRel=limits.gap,
            gapAbs=0.0,
            options=[f"{kind}Tolerance {INTEGER_TOLERANCE}" for kind in ("integer", "primal", "dual")],
            logPath=str(log),
            warmStart=start is not None,
        )
        solver.tmpDir = folder
        if not solver.available():
            raise Unavailable(
                f"backend cbc: PuLP {pulp.__version__} finds no CBC on this machine; install one "
                "(pip install 'poolpipe[cbc]'), or use --backend highs"
            )
        for column, value in (start or {}).items():
            columns[column].setInitialValue(value)
        begin_s = perf_counter()
        solved, interrupted = interruptible(lambda tell: problem.solve(solver), _end_children)
        Clock(limits).spend(perf_counter() - begin_s)  # CBC counts no work
        solution = _read(
            problem, _outcome(problem, solved), columns, model, log.read_text(encoding="utf-8", errors="replace")
        )
        if interrupted:
            raise Interrupted(solution)
        return solution


def _end_children() -> None:
    """Ask CBC, which runs in a process of its own, to end; at a terminal Ctrl-C has reached it already."""
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "cbc" in child.name():
                child.send_signal(signal.SIGINT)


def _load(model: LinearModel) -> tuple[pulp.LpProblem, list[pulp.LpVariable]]:
    arrays = model.arrays()
    sign = -1.0 if model.maximise else 1.0
    problem = pulp.LpProblem("plan", pulp.LpMinimize)
    columns = [
        problem.add_variable(
            f"c{number}",
            None if isinf(lower) else lower,
            None if isinf(upper) else upper,
            pulp.LpInteger if integer else pulp.LpContinuous,
        )
        for number, (lower, upper, integer) in enumerate(
            zip(arrays.lower.tolist(), arrays.upper.tolist(), arrays.integer.tolist(), strict=True)
        )
    ]
    expression_of = getattr(pulp.LpAffineExpression, "from_list", pulp.LpAffineExpression)  # PuLP 4, else 3
    problem += expression_of([(columns[c], sign * value) for c, value in model.objective_terms])
    for row, (lower, upper) in enumerate(zip(arrays.row_lower.tolist(), arrays.row_upper.tolist(), strict=True)):
        part = slice(arrays.start[row], arrays.start[row + 1])
        terms = [
            (columns[c], value) for c, value in zip(arrays.columns[part], arrays.values[part].tolist(), strict=True)
        ]
        expression = expression_of(terms)
        if lower == upper:
            problem += expression == upper, f"r{row}"
            continue
        if not isinf(upper):
            problem += expression <= upper, f"r{row}"
        if not isinf(lower):
            problem += expression >= lower, f"r{row}" if isinf(upper) else f"r{row}_lower"
    return problem, columns


def _outcome(problem: pulp.LpProblem, solved: Any) -> Status:
    """Return what came of a solve, from the integers of PuLP 3 or the statistics of PuLP 4."""
    if isinstance(solved, int):
        outcomes: dict[int, Status] = {
            pulp.LpSolutionOptimal: "optimal",
            pulp.LpSolutionIntegerFeasible: "feasible",
            pulp.LpSolutionUnbounded: "unbounded",
        }
        if solved == pulp.LpStatusInfeasible:  # also where only the integers are, of which sol_status knows nothing
            return "infeasible"
        return outcomes.get(problem.sol_status, "no solution")
    if solved.has_solution:
        return "optimal" if solved.status.name in ("Optimal", "GapLimit") else "feasible"
    ends: dict[str, Status] = {"Infeasible": "infeasible", "Unbounded": "unbounded"}
    return ends.get(solved.status.name, "no solution")


def _read(
    problem: pulp.LpProblem, status: Status, columns: list[pulp.LpVariable], model: LinearModel, log: str
) -> Solution:
    sign = -1.0 if model.maximise else 1.0
    if status not in ("optimal", "feasible"):
        return without_values(status, maximise=model.maximise)
    values = np.array([column.value() or 0.0 for column in columns])
    objective = float(values @ model.arrays().objective)
    if model.has_integers:
        return Solution(status, objective, sign * _bound(log, status, sign * objective), values, NO_VALUES, NO_VALUES)
    row_duals = np.zeros(len(model.row_names))
    rows = problem.constraints() if callable(problem.constraints) else problem.constraints.values()  # PuLP 4, else 3
    for row in rows:
        row_duals[int(row.name[1:].removesuffix("_lower"))] += sign * row.pi
    column_duals = sign * np.array([column.dj or 0.0 for column in columns])
    return Solution(status, objective, objective, values, row_duals, column_duals)


def _bound(log: str, status: Status, objective: float) -> float:
    """Return the bound of a minimum that a log states; a solution that was not proven must not count as one.

    It is stated to six digits, which a small gap is lost in; the gap itself is stated beside it.
    """
    stated = re.search(r"^Lower bound:\s+(\S+)(?:\s+Gap:\s+(\S+))?", log, re.MULTILINE)
    if stated:  # absent where the tree was searched whole
        bound = float(stated[1])
        by_gap = objective - float(stated[2] or inf) * abs(objective)
        return by_gap if isclose(by_gap, bound, rel_tol=5e-6) else bound
    if status == "optimal":
        return objective
    on_the_way: list[str] = re.findall(r"best possible (\S+?)[,)\s]", log)
    return float(on_the_way[-1]) if on_the_way else -inf
