"""HiGHS through highspy's array interface, which takes a model of 45,000 coefficients in 9 ms."""

import ctypes
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from math import isclose, isinf

import highspy
import numpy as np

from planner.planning.programme.backends import Clock, Interrupted, Limits, SolutionReport, Start
from planner.planning.programme.backends.interruption import interruptible
from planner.planning.programme.linear import NO_VALUES, LinearModel, Solution, Status, without_values

log = logging.getLogger(__name__)

# Integers may be off by this much. HiGHS's own 1e-6, times slices of hundreds of requests/s, would show in the
# objective's sixth digit.
INTEGER_TOLERANCE = 1e-9

SAME_OBJECTIVE = 1e-6  # relative or absolute

ROW_WISE, MINIMISE = 2, 1  # highspy's codes
TOLD = 1e-4  # relative: a bound that is better by less is not told

# Seconds that a model takes, where work is counted (`planner.planning.programme.backends.clock`): each, and per
# coefficient; a mixed-integer search also per look at whether to end, which it takes at places that depend on the model
# alone, and per node, more where there are many rows. Measured on models of 10 to 9,000 coefficients, mostly within a
# factor of two. Above some coefficients of integers presolving takes most, and looks at nothing: such a model is not
# begun where that is beyond its limit.
SOLVE_S, LINEAR_COEFFICIENT_S, INTEGER_COEFFICIENT_S = 1e-3, 1.5e-6, 6e-5
PRESOLVED_AT_ONCE, LEAST_S = 5_000, 0.1
LOOK_S, LOOK_ROW_S, NODE_S, NODE_ROW_S = 1e-3, 7e-5, 1e-4, 4e-6


def version() -> str:
    """Return the solver's version."""
    return str(_new().version())


def solve(
    model: LinearModel, limits: Limits, start: Start | None = None, report: SolutionReport | None = None
) -> Solution:
    """Solve a model; a maximum is found as the minimum of the negative.

    With a solution to begin from, HiGHS 1.16 may end with values whose objective is not the one that it states, and
    takes for proven; such a model is solved again from nothing.
    """
    clock = Clock(limits)
    solution = _solved(model, limits, start, report)
    if start is not None and solution.found and isinf(solution.bound) and not clock.over:
        log.info("HiGHS states another objective than that of its solution; it begins anew")
        solution = _solved(model, clock.remaining(), None, report)
    return solution


def _solved(model: LinearModel, limits: Limits, start: Start | None, report: SolutionReport | None) -> Solution:
    highs = _new()
    options = {
        "output_flag": False,
        "mip_rel_gap": limits.gap,
        "mip_abs_gap": 0.0,
        "mip_feasibility_tolerance": INTEGER_TOLERANCE,
        "primal_feasibility_tolerance": INTEGER_TOLERANCE,
    }
    if limits.wall_s is not None:
        options["time_limit"] = limits.wall_s
    for name, value in options.items():
        highs.setOptionValue(name, value)
    _load(highs, model)
    if start is not None:
        highs.setSolution(
            len(start), np.array(list(start), dtype=np.int32), np.array(list(start.values()), dtype=float)
        )
    highs.HandleUserInterrupt = True
    counted = None if limits.work is None else _Counted(highs, model, limits)
    if counted is not None and model.has_integers and counted.too_much:
        return without_values("no solution", maximise=model.maximise)

    def work(tell: Callable[[Solution], None]) -> object:
        if report is not None and model.has_integers:
            _watch(highs, model, tell)
        return highs.solve()

    _, interrupted = interruptible(work, highs.cancelSolve, report or (lambda solution: None))
    if counted is not None:
        Clock(limits).spend(counted.seconds)
    solution = _read(highs, model)
    if interrupted:
        raise Interrupted(solution)
    return solution


class _Counted:
    """The work on a model so far, in seconds, by which a mixed-integer search ends."""

    def __init__(self, highs: highspy.Highs, model: LinearModel, limits: Limits) -> None:
        rows, coefficients = len(model.row_names), len(model.arrays().values)
        self._begin_s = SOLVE_S + LINEAR_COEFFICIENT_S * coefficients
        if model.has_integers:
            self._begin_s += INTEGER_COEFFICIENT_S * coefficients * max(1.0, coefficients / PRESOLVED_AT_ONCE) ** 3
        self._look_s, self._node_s = LOOK_S + LOOK_ROW_S * rows, NODE_S + NODE_ROW_S * rows
        self._limit_s, self._looks, self.seconds = limits.time_limit_s, 0, self._begin_s
        if model.has_integers:
            highs.cbMipInterrupt += self._look

    @property
    def too_much(self) -> bool:
        """Whether the model is not to be begun."""
        return self._limit_s is not None and self.seconds > max(self._limit_s, LEAST_S)

    def _look(self, event: highspy.highs.HighsCallbackEvent) -> None:
        self._looks += 1
        nodes = max(int(event.data_out.mip_node_count), 0)
        self.seconds = self._begin_s + self._looks * self._look_s + nodes * self._node_s
        if self._limit_s is not None and self.seconds > self._limit_s:
            event.interrupt()


def _new() -> highspy.Highs:
    _spend_banner()
    return highspy.Highs()  # type: ignore[no-untyped-call]


@cache
def _spend_banner() -> None:
    """Make a first object while standard output, which is for results, leads nowhere: HiGHS greets once a process."""
    try:
        sys.stdout.flush()
        kept = os.dup(1)
    except OSError:  # there is no standard output to keep clean
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        highspy.Highs()  # type: ignore[no-untyped-call]
        ctypes.CDLL(None).fflush(None)  # what C has not written yet
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _load(highs: highspy.Highs, model: LinearModel) -> None:
    arrays = model.arrays()
    sign = -1.0 if model.maximise else 1.0
    highs.passModel(
        len(arrays.lower),
        len(arrays.row_lower),
        len(arrays.values),
        ROW_WISE,
        MINIMISE,
        0.0,
        sign * arrays.objective,
        arrays.lower,
        arrays.upper,
        arrays.row_lower,
        arrays.row_upper,
        arrays.start[:-1],
        arrays.columns,
        arrays.values,
        arrays.integer.astype(np.int32),
    )


def _watch(highs: highspy.Highs, model: LinearModel, tell: Callable[[Solution], None]) -> None:
    """Let every better integer solution be told, and every better bound once there is a solution."""
    sign = -1.0 if model.maximise else 1.0
    best: list[Solution] = []

    def found(event: highspy.highs.HighsCallbackEvent) -> None:
        values = np.array(event.data_out.mip_solution)
        objective = sign * event.data_out.objective_function_value
        best[:] = [Solution("feasible", objective, sign * event.data_out.mip_dual_bound, values, NO_VALUES, NO_VALUES)]
        tell(best[0])

    def bounded(event: highspy.highs.HighsCallbackEvent) -> None:
        bound = event.data_out.mip_dual_bound
        if best and bound > sign * best[0].bound + TOLD * abs(bound):
            best[0] = replace(best[0], bound=sign * bound)
            tell(best[0])

    highs.cbMipImprovingSolution += found
    highs.cbMipInterrupt += bounded


def _read(highs: highspy.Highs, model: LinearModel) -> Solution:
    found, info = highs.getModelStatus(), highs.getInfo()
    sign = -1.0 if model.maximise else 1.0
    status: Status
    if found in (highspy.HighsModelStatus.kInfeasible, highspy.HighsModelStatus.kUnboundedOrInfeasible):
        return without_values("infeasible", maximise=model.maximise)
    if found == highspy.HighsModelStatus.kUnbounded:
        return without_values("unbounded", maximise=model.maximise)
    if info.primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
        return without_values("no solution", maximise=model.maximise)
    solution = highs.getSolution()
    values = np.array(solution.col_value)
    status = "optimal" if found == highspy.HighsModelStatus.kOptimal else "feasible"
    objective = sign * info.objective_function_value
    unknown = without_values("no solution", maximise=model.maximise).bound
    if model.has_integers:
        true = float(model.arrays().objective @ values)
        if not isclose(objective, true, rel_tol=SAME_OBJECTIVE, abs_tol=SAME_OBJECTIVE):
            return Solution("feasible", true, unknown, values, NO_VALUES, NO_VALUES)
        return Solution(status, objective, sign * info.mip_dual_bound, values, NO_VALUES, NO_VALUES)
    bound = objective if status == "optimal" else unknown
    duals = sign * np.array(solution.row_dual), sign * np.array(solution.col_dual)
    return Solution(status, objective, bound, values, *duals)
