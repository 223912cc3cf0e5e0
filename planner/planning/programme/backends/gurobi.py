"""Gurobi through gurobipy. The licence that pip installs admits 2,000 variables and 2,000 constraints."""

from collections.abc import Callable

import gurobipy
import numpy as np

from planner.planning.programme.backends import Clock, Interrupted, Limits, SolutionReport, Start, TooLarge, Unavailable
from planner.planning.programme.backends.interruption import interruptible
from planner.planning.programme.linear import NO_VALUES, LinearModel, Solution, Status, without_values

INTEGER_TOLERANCE = 1e-9  # as for HiGHS
TOO_LARGE = 10010  # Gurobi's error numbers
NO_LICENCE = 10009


def version() -> str:
    """Return the solver's version."""
    return ".".join(str(part) for part in gurobipy.gurobi.version())


def solve(
    model: LinearModel, limits: Limits, start: Start | None = None, report: SolutionReport | None = None
) -> Solution:
    """Solve a model; raises Unavailable where the licence is missing or does not admit it."""
    try:
        with gurobipy.Env(params={"OutputFlag": 0}) as environment, gurobipy.Model(env=environment) as loaded:
            loaded.Params.MIPGap = limits.gap
            loaded.Params.MIPGapAbs = 0.0
            loaded.Params.IntFeasTol = INTEGER_TOLERANCE
            loaded.Params.FeasibilityTol = INTEGER_TOLERANCE
            loaded.Params.OptimalityTol = INTEGER_TOLERANCE
            if limits.wall_s is not None:
                loaded.Params.TimeLimit = limits.wall_s
            if limits.work is not None and limits.time_limit_s is not None:
                loaded.Params.WorkLimit = limits.time_limit_s
            _load(loaded, model, start)

            def work(tell: Callable[[Solution], None]) -> None:
                loaded.optimize(_watching(model, tell) if report else None)

            _, interrupted = interruptible(work, loaded.terminate, report or (lambda solution: None))
            Clock(limits).spend(loaded.Work)
            solution = _read(loaded, model)
            if interrupted or loaded.Status == gurobipy.GRB.INTERRUPTED:  # Gurobi heeds Ctrl-C by itself, too
                raise Interrupted(solution)
            return solution
    except gurobipy.GurobiError as error:
        if error.errno == TOO_LARGE:
            kind: type[Unavailable] = TooLarge
            size = f"{len(model.column_names)} variables and {len(model.row_names)} constraints"
            reason = f"the licence found does not admit a model of {size} (the free one admits 2,000 of each)"
        elif error.errno == NO_LICENCE:
            kind = Unavailable
            reason = f"no valid licence found ({error})"
        else:
            raise
        raise kind(f"backend gurobi: {reason}; install a full licence, or use --backend highs") from None


def _load(loaded: gurobipy.Model, model: LinearModel, start: Start | None) -> None:
    arrays = model.arrays()
    kinds = np.where(arrays.integer, gurobipy.GRB.INTEGER, gurobipy.GRB.CONTINUOUS)
    columns = loaded.addMVar(len(arrays.lower), arrays.lower, arrays.upper, arrays.objective, kinds).tolist()
    loaded.ModelSense = gurobipy.GRB.MAXIMIZE if model.maximise else gurobipy.GRB.MINIMIZE
    for row, (lower, upper) in enumerate(zip(arrays.row_lower.tolist(), arrays.row_upper.tolist(), strict=True)):
        part = slice(arrays.start[row], arrays.start[row + 1])
        terms = gurobipy.LinExpr(arrays.values[part].tolist(), [columns[column] for column in arrays.columns[part]])
        if lower == upper:
            loaded.addLConstr(terms, gurobipy.GRB.EQUAL, upper)
        elif np.isinf(lower):
            loaded.addLConstr(terms, gurobipy.GRB.LESS_EQUAL, upper)
        elif np.isinf(upper):
            loaded.addLConstr(terms, gurobipy.GRB.GREATER_EQUAL, lower)
        else:
            loaded.addRange(terms, lower, upper)
    for column, value in (start or {}).items():
        columns[column].Start = value


def _watching(model: LinearModel, tell: Callable[[Solution], None]) -> Callable[[gurobipy.Model, int], None]:
    """Return the callback that tells every better integer solution."""

    def called(loaded: gurobipy.Model, where: int) -> None:
        if where == gurobipy.GRB.Callback.MIPSOL:
            values = np.array(loaded.cbGetSolution(loaded.getVars()))[: len(model.column_names)]
            objective, bound = (
                loaded.cbGet(what) for what in (gurobipy.GRB.Callback.MIPSOL_OBJ, gurobipy.GRB.Callback.MIPSOL_OBJBND)
            )
            tell(Solution("feasible", objective, bound, values, NO_VALUES, NO_VALUES))

    return called


def _read(loaded: gurobipy.Model, model: LinearModel) -> Solution:
    found = loaded.Status
    if found in (gurobipy.GRB.INFEASIBLE, gurobipy.GRB.INF_OR_UNBD):
        return without_values("infeasible", maximise=model.maximise)
    if found == gurobipy.GRB.UNBOUNDED:
        return without_values("unbounded", maximise=model.maximise)
    if loaded.SolCount == 0:
        return without_values("no solution", maximise=model.maximise)
    status: Status = "optimal" if found == gurobipy.GRB.OPTIMAL else "feasible"
    count = len(model.column_names)  # ranges add columns of their own behind these
    values = np.array(loaded.getAttr("X")[:count])
    if model.has_integers:
        return Solution(status, loaded.ObjVal, loaded.ObjBound, values, NO_VALUES, NO_VALUES)
    return Solution(
        status,
        loaded.ObjVal,
        loaded.ObjVal,
        values,
        np.array(loaded.getAttr("Pi")),
        np.array(loaded.getAttr("RC")[:count]),
    )
