"""Objectives of linear models of a plan: one function each, and a list of them.

All of them see a plan through columns: Y_d, the throughput of DNN d, U_g, the devices of type g in use, and y_c, the
rates of pipelines, with what a request/s of each draws. What they are worth is told in `planner.model.objective`.
"""

from collections.abc import Callable, Mapping, Sequence

from planner.model import Problem
from planner.model.energy import idle_and_busy_watts
from planner.model.objective import needed_rate_rps, price_per_hour
from planner.model.problem import Objective
from planner.planning.programme.linear import LinearModel

Columns = Sequence[int]
Terms = Sequence[tuple[int, float]]


def max_min_throughput(model: LinearModel, problem: Problem, throughput: Columns, _: Columns, __: Terms) -> None:
    """Maximise z subject to w_d · z <= Y_d for every DNN d, rows ``weight[d]``."""
    least = model.add_column("z")
    for dnn, column in zip(problem.dnns, throughput, strict=True):
        model.add_row(f"weight[{dnn.name}]", [(least, dnn.weight), (column, -1.0)], upper=0.0)
    model.set_objective([(least, 1.0)], maximise=True)


def max_weighted_throughput(model: LinearModel, problem: Problem, throughput: Columns, _: Columns, __: Terms) -> None:
    """Maximise the sum of w_d · Y_d."""
    terms = [(column, dnn.weight) for dnn, column in zip(problem.dnns, throughput, strict=True)]
    model.set_objective(terms, maximise=True)


def least_cost(model: LinearModel, problem: Problem, throughput: Columns, used: Columns, _: Terms) -> None:
    """Minimise the sum of price_g · U_g subject to Y_d >= rate_d, rows ``served[d]``."""
    _serve_rates(model, problem, throughput)
    types = zip(problem.cluster.device_types, used, strict=True)
    model.set_objective([(column, price_per_hour(problem, device.name)) for device, column in types], maximise=False)


def fewest_devices(model: LinearModel, problem: Problem, throughput: Columns, used: Columns, _: Terms) -> None:
    """Minimise the sum of U_g subject to Y_d >= rate_d, rows ``served[d]``."""
    _serve_rates(model, problem, throughput)
    model.set_objective([(column, 1.0) for column in used], maximise=False)


def least_energy(model: LinearModel, problem: Problem, throughput: Columns, used: Columns, rates: Terms) -> None:
    """Minimise the sum of idle_g · U_g + sum of joules_c · y_c subject to Y_d >= rate_d, rows ``served[d]``."""
    _serve_rates(model, problem, throughput)
    types = zip(problem.cluster.device_types, used, strict=True)
    idle = [(column, idle_and_busy_watts(problem, device.name)[0]) for device, column in types]
    model.set_objective([*idle, *rates], maximise=False)


def _serve_rates(model: LinearModel, problem: Problem, throughput: Columns) -> None:
    for dnn, column in zip(problem.dnns, throughput, strict=True):
        needed_rps = needed_rate_rps(dnn, problem.options.objective)
        model.add_row(f"served[{dnn.name}]", [(column, 1.0)], lower=needed_rps)


OBJECTIVES: Mapping[Objective, Callable[[LinearModel, Problem, Columns, Columns, Terms], None]] = {
    "max_min_throughput": max_min_throughput,
    "max_weighted_throughput": max_weighted_throughput,
    "least_cost": least_cost,
    "fewest_devices": fewest_devices,
    "least_energy": least_energy,
}


def set_objective(model: LinearModel, problem: Problem, throughput: Columns, used: Columns, rates: Terms = ()) -> None:
    """Give a model the problem's objective, with the columns and rows that it needs."""
    OBJECTIVES[problem.options.objective](model, problem, throughput, used, rates)
