"""The master of the decomposition: one plan per DNN, together on the devices that there are.

Over the known plans P of DNNs d that have the value wanted, with use u_P of resources
(`planner.planning.whole_devices.capacity`: whole devices per type, where DNNs do not share any),

    minimise s  subject to   sum over P of p_{d,P} = 1                          for every DNN d        worth mu_d
                             sum over d and P of u_P · p_{d,P}                  for every resource r   price lambda_r
                                 <= what layouts of (1 + s) · N devices provide
                             p >= 0

(Dantzig and Wolfe, 1960). At these prices the cluster costs 1, and by weak duality, at *any* prices at which it does,

    s  >=  sum over d of c_d(lambda) - 1,     c_d(lambda) the price of the cheapest of all plans of d

so that cheapest plans that together cost more than the cluster prove that the value is out of reach. With p binary and
s = 0 it is the choice of a plan for every DNN.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf

import numpy as np

from planner.planning.arrays import Floats, Integers
from planner.planning.programme.backends import Clock, Limits, TooLate, solve
from planner.planning.programme.linear import LinearModel, Solution, Status
from planner.planning.whole_devices.capacity import Capacity, Terms

MISSING = 10.0  # what all devices once more cost, in times of what they cost
FITS = 1e-9


@dataclass(frozen=True)
class Mixture:
    """The relaxed choice: least overload s, the prices of resources, and each plan's part in it, per DNN."""

    overload: float
    price: Floats
    parts: list[Floats]


def mix(uses: Sequence[Integers] | Sequence[Floats], capacity: Capacity, clock: Clock) -> Mixture:
    """Return the relaxed choice among plans that use ``uses[dnn][plan, resource]``, at least one per DNN.

    Raises TooLate where a clock is over before.

    >>> round(mix([np.array([[3, 0], [0, 2]])], Capacity.of_devices([2, 1]), Clock(Limits())).overload, 6)
    -0.142857
    """
    model = LinearModel()
    overload = model.add_column("overload", lower=-1.0, objective=1.0)
    columns, used = _add_plans(model, uses, integer=False)
    rows = capacity.add_rows(model, used, more=[[(overload, float(count))] for count in capacity.counts])
    solution = _solved(model, clock)
    parts = [solution.values[own] for own in columns]
    return Mixture(solution.objective, capacity.normed(abs(solution.row_duals[rows])), parts)


@dataclass(frozen=True)
class Cheapest:
    """The cheapest devices for a choice of plans: what they cost, as found and at least; prices; a plan per DNN.

    ``chosen`` is None where the choice may be mixed, or none was found.
    """

    cost: float
    bound: float
    price: Floats
    chosen: list[int] | None


def mix_cheapest(uses: Sequence[Integers], capacity: Capacity, device_cost: Floats, clock: Clock) -> Cheapest:
    """Return the mixture of plans on the cheapest devices; where it needs more than there are, its cost is infinite."""
    model = LinearModel()
    _, used = _add_plans(model, uses, integer=False)
    missing = model.add_column("missing")
    in_use = [model.add_column(f"devices[{group}]", upper=float(n)) for group, n in enumerate(capacity.counts)]
    none = capacity.without_devices()
    more = [[(own, 1.0), (missing, float(n))] for own, n in zip(in_use, capacity.counts, strict=True)]
    rows = none.add_rows(model, used, more=more)
    penalty = MISSING * float(device_cost @ capacity.counts)
    model.set_objective([*zip(in_use, device_cost.tolist(), strict=True), (missing, penalty)], maximise=False)
    solution = _solved(model, clock)
    cost = solution.objective if solution.values[missing] <= FITS else inf
    return Cheapest(cost, cost, abs(solution.row_duals[rows]), None)


def choose_cheapest(
    uses: Sequence[Integers], capacity: Capacity, device_cost: Floats, below: float, limits: Limits
) -> tuple[Cheapest, Status]:
    """Return a plan per DNN on the cheapest devices, if one costs no more than ``below``, and the solver's status."""
    model = LinearModel()
    columns, used = _add_plans(model, uses, integer=True)
    in_use = [
        model.add_column(f"devices[{group}]", upper=float(n), integer=True) for group, n in enumerate(capacity.counts)
    ]
    capacity.without_devices().add_rows(model, used, more=[[(own, 1.0)] for own in in_use], integer=True)
    costs = list(zip(in_use, device_cost.tolist(), strict=True))
    model.add_row("cost", costs, upper=below)
    model.set_objective(costs, maximise=False)
    solution, _ = solve(model, "highs", limits)
    none = Cheapest(inf, solution.bound, np.zeros(0), None)
    if not solution.found:
        return none, solution.status
    chosen = [int(solution.values[own].argmax()) for own in columns]
    packed = capacity.packed(sum(own[plan] for own, plan in zip(uses, chosen, strict=True)))
    if packed is None:
        return none, "no solution"
    cost = sum(len(layouts) * own for layouts, own in zip(packed, device_cost.tolist(), strict=True))
    return Cheapest(cost, solution.bound, np.zeros(0), chosen), solution.status


def choose(
    uses: Sequence[Integers], capacity: Capacity, price: Floats, limits: Limits
) -> tuple[list[int] | None, Status]:
    """Return a plan per DNN (a number each) that together fit, if one is found, and the solver's status.

    Any will do; the prices tell the solver what is scarce.
    """
    model = LinearModel()
    columns, used = _add_plans(model, uses, integer=True)
    capacity.add_rows(model, used, integer=True)
    costs = [
        pair for own, use in zip(columns, uses, strict=True) for pair in zip(own, (use @ price).tolist(), strict=True)
    ]
    model.set_objective(costs, maximise=False)
    solution, _ = solve(model, "highs", replace(limits, gap=1.0))
    if not solution.found:
        return None, solution.status
    chosen = [int(solution.values[own].argmax()) for own in columns]
    total = sum(own[plan] for own, plan in zip(uses, chosen, strict=True))
    return (None, "no solution") if capacity.packed(total) is None else (chosen, "feasible")


def _solved(model: LinearModel, clock: Clock) -> Solution:
    """Return the optimum of a model without integers; raises TooLate where a clock is over before."""
    solution, _ = solve(model, "highs", clock.remaining())
    if clock.over and solution.status != "optimal":
        raise TooLate
    return solution


def _add_plans(
    model: LinearModel, uses: Sequence[Integers] | Sequence[Floats], *, integer: bool
) -> tuple[list[list[int]], list[Terms]]:
    """Add a column per plan and rows ``one[d]``; return the columns, and the terms that add up to each use."""
    columns: list[list[int]] = []
    used: list[Terms] = [[] for _ in range(uses[0].shape[1])]
    upper = 1.0 if integer else np.inf
    for dnn, own in enumerate(uses):
        columns.append(
            [model.add_column(f"plan[{dnn},{plan}]", upper=upper, integer=integer) for plan in range(len(own))]
        )
        model.add_row(f"one[{dnn}]", [(column, 1.0) for column in columns[-1]], lower=1.0, upper=1.0)
        for plan, resource in np.argwhere(own).tolist():
            used[resource].append((columns[-1][plan], float(own[plan, resource])))
    return columns, used


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
