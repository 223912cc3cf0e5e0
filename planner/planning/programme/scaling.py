"""Scaling of models whose numbers are far apart, which solvers' absolute tolerances would misread.

A tolerance of 1e-9 means nothing beside a throughput of 1e10 requests/s, and everything beside a rate of 1e-9: HiGHS
calls the one infeasible and serves nothing of the other. Where a coefficient or a limit lies outside `TRUSTED`, rows
and continuous columns are multiplied so that their numbers come close to 1 (geometric scaling; Curtis and Reid, 1972,
minimise the same spread). Factors are powers of 2, so that nothing is rounded; integer columns stay as they are.
"""

from dataclasses import dataclass, replace
from math import isfinite

import numpy as np

from planner.planning.arrays import Floats
from planner.planning.programme.linear import Arrays, LinearModel, Solution

TRUSTED = 1e-4, 1e5
ROUNDS = 6


@dataclass(frozen=True)
class Scaled:
    """A model as a solver sees it, and the way back.

    The solver's column is the model's over ``columns[j]``, its row the model's times ``rows[i]``, its objective the
    model's times ``objective``.
    """

    model: LinearModel
    columns: Floats
    rows: Floats
    objective: float

    def undo(self, solution: Solution, original: LinearModel) -> Solution:
        """Return the solver's solution in the model's own numbers."""
        bound = solution.bound / self.objective
        if not solution.found:
            return replace(solution, bound=bound)
        values = solution.values * self.columns
        objective = float(original.arrays().objective @ values)
        row_duals, column_duals = solution.row_duals, solution.column_duals
        if len(row_duals):
            row_duals = row_duals * self.rows / self.objective
            column_duals = column_duals / self.columns / self.objective
        return Solution(solution.status, objective, bound, values, row_duals, column_duals)


def far_apart(arrays: Arrays) -> bool:
    """Tell whether some coefficient or limit of a model is one that tolerances cannot be trusted with."""
    for numbers in (arrays.values, arrays.objective, arrays.row_lower, arrays.row_upper):
        sizes = abs(numbers[np.isfinite(numbers) & (numbers != 0)])
        if len(sizes) and (sizes.min() < TRUSTED[0] or sizes.max() > TRUSTED[1]):
            return True
    return False


def scaled(model: LinearModel) -> Scaled:
    """Return a model scaled.

    >>> model = LinearModel()
    >>> rate = model.add_column("rate", objective=1e-9)
    >>> row = model.add_row("served", [(rate, 1.0)], lower=1e10)
    >>> print(scaled(model).model.text())
    minimise
      1.07374 rate
    subject to
      served: 1.16415 <= 1 rate
    bounds
      0 <= rate
    integer
    """
    arrays = model.arrays()
    row = np.repeat(np.arange(len(arrays.row_lower)), np.diff(arrays.start))
    size, column = abs(arrays.values), arrays.columns
    kept = size > 0
    row, column, size = row[kept], column[kept], size[kept]
    limits = np.stack([arrays.row_lower, arrays.row_upper])
    limit_row, limit = np.nonzero(np.isfinite(limits) & (limits != 0))[1], limits[np.isfinite(limits) & (limits != 0)]
    rows, columns = np.ones(len(arrays.row_lower)), np.ones(len(arrays.lower))
    for _ in range(ROUNDS):
        index = np.concatenate([row, limit_row])
        rows = _factors(index, np.concatenate([size * columns[column], abs(limit)]), len(rows))
        columns = np.where(arrays.integer, 1.0, _factors(column, size * rows[row], len(columns)))
    costs = abs(arrays.objective * columns)
    objective = float(1.0 / _power(costs[costs > 0].max(keepdims=True))[0]) if costs.any() else 1.0
    copy = LinearModel(model.maximise)
    for number, name in enumerate(model.column_names):
        factor = float(columns[number])
        copy.add_column(
            name,
            lower=float(arrays.lower[number]) / factor,
            upper=float(arrays.upper[number]) / factor,
            objective=float(arrays.objective[number]) * factor * objective,
            integer=bool(arrays.integer[number]),
        )
    for number, name in enumerate(model.row_names):
        part = slice(arrays.start[number], arrays.start[number + 1])
        own = arrays.columns[part]
        terms = zip(own.tolist(), (arrays.values[part] * columns[own] * rows[number]).tolist(), strict=True)
        lower, upper = float(arrays.row_lower[number]), float(arrays.row_upper[number])
        copy.add_row(
            name,
            terms,
            lower=lower * float(rows[number]) if isfinite(lower) else lower,
            upper=upper * float(rows[number]) if isfinite(upper) else upper,
        )
    return Scaled(copy, columns, rows, objective)


def _factors(index: np.ndarray, size: Floats, count: int) -> Floats:
    """Return per index the power of 2 that centres its sizes around 1."""
    least, most = np.full(count, np.inf), np.zeros(count)
    np.minimum.at(least, index, size)
    np.maximum.at(most, index, size)
    used = most > 0
    centre = np.ones(count)
    centre[used] = np.sqrt(least[used] * most[used])
    return 1.0 / _power(centre)


def _power(numbers: Floats) -> Floats:
    """Return the power of 2 nearest to each number."""
    powers: Floats = np.exp2(np.round(np.log2(numbers)))
    return powers
