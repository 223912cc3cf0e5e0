"""The master of the decomposition: one plan per DNN, together on the devices that there are.

Over the known plans P of DNNs d that have the value wanted, with use u_P in whole devices per type,

    minimise s  subject to   sum over P of p_{d,P} = 1                          for every DNN d      worth mu_d
                             sum over d and P of u_P · p_{d,P} <= (1 + s) · N   for every type g     price lambda_g
                             p >= 0

(Dantzig and Wolfe, 1960). The prices add up to lambda · N = 1, and by weak duality, for *any* prices of that sum,

    s  >=  sum over d of c_d(lambda) - 1,     c_d(lambda) the price of the cheapest of all plans of d

so that cheapest plans that together cost more than the cluster prove that the value is out of reach. With p binary and
s = 0 it is the choice of a plan for every DNN.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner.planning.arrays import Floats, Integers
from planner.planning.programme.backends import Limits, solve
from planner.planning.programme.linear import LinearModel, Status


@dataclass(frozen=True)
class Mixture:
    """The relaxed choice: least overload s, and the prices of devices."""

    overload: float
    price: Floats


def mix(uses: Sequence[Integers], counts: Integers) -> Mixture:
    """Return the relaxed choice among plans that use ``uses[dnn][plan, type]`` devices, at least one per DNN.

    >>> round(mix([np.array([[3, 0], [0, 2]])], np.array([2, 1])).overload, 6)
    -0.142857
    """
    model = LinearModel()
    overload = model.add_column("overload", lower=-1.0, objective=1.0)
    _add_plans(model, uses, counts, [(overload, -float(count)) for count in counts], integer=False)
    solution, _ = solve(model, "highs")
    price = abs(solution.row_duals[len(uses) :])
    return Mixture(solution.objective, price / (price @ counts))


def choose(
    uses: Sequence[Integers], counts: Integers, price: Floats, time_limit_s: float
) -> tuple[list[int] | None, Status]:
    """Return a plan per DNN (a number each) that together fit, if one is found, and the solver's status.

    Any will do; the prices tell the solver where devices are scarce.
    """
    model = LinearModel()
    columns = _add_plans(model, uses, counts, [], integer=True)
    costs = [
        pair for own, use in zip(columns, uses, strict=True) for pair in zip(own, (use @ price).tolist(), strict=True)
    ]
    model.set_objective(costs, maximise=False)
    solution, _ = solve(model, "highs", Limits(gap=1.0, time_limit_s=time_limit_s))
    if not solution.found:
        return None, solution.status
    chosen = [int(solution.values[own].argmax()) for own in columns]
    total = sum(own[plan] for own, plan in zip(uses, chosen, strict=True))
    return (chosen, "feasible") if (total <= counts).all() else (None, "no solution")


def least_excess(uses: Sequence[Integers], counts: Integers, price: Floats, time_limit_s: float) -> list[int] | None:
    """Return a plan per DNN whose devices exceed those that there are by the least price."""
    model = LinearModel()
    excess = [model.add_column(f"excess[{kind}]") for kind in range(len(counts))]
    columns = _add_plans(model, uses, counts, [(column, -1.0) for column in excess], integer=True)
    model.set_objective([(column, float(cost)) for column, cost in zip(excess, price, strict=True)], maximise=False)
    solution, _ = solve(model, "highs", Limits(gap=1e-3, time_limit_s=time_limit_s))
    return [int(solution.values[own].argmax()) for own in columns] if solution.found else None


def _add_plans(
    model: LinearModel,
    uses: Sequence[Integers],
    counts: Integers,
    slack: Sequence[tuple[int, float]],
    *,
    integer: bool,
) -> list[list[int]]:
    """Add a column per plan, rows ``one[d]`` and ``devices[g]``; a term of ``slack`` goes to the row of its type."""
    columns: list[list[int]] = []
    terms: list[list[tuple[int, float]]] = [[slack[kind]] if slack else [] for kind in range(len(counts))]
    upper = 1.0 if integer else np.inf
    for dnn, own in enumerate(uses):
        columns.append(
            [model.add_column(f"plan[{dnn},{plan}]", upper=upper, integer=integer) for plan in range(len(own))]
        )
        model.add_row(f"one[{dnn}]", [(column, 1.0) for column in columns[-1]], lower=1.0, upper=1.0)
        for plan, kind in np.argwhere(own).tolist():
            terms[kind].append((columns[-1][plan], float(own[plan, kind])))
    for kind, count in enumerate(counts.tolist()):
        model.add_row(f"devices[{kind}]", terms[kind], upper=float(count))
    return columns


def least_vectors(use: Integers) -> Integers:
    """Return the rows that no other row is pointwise at most.

    >>> least_vectors(np.array([[2, 1], [1, 2], [2, 2]]))
    array([0, 1])
    """
    order = np.argsort(use.sum(axis=1), kind="stable")
    kept: list[int] = []
    for row in order.tolist():
        if not kept or not (use[kept] <= use[row]).all(axis=1).any():
            kept.append(row)
    return np.array(kept, dtype=np.int64)
