"""Objectives of linear models of a plan: one function each, and a list of them.

All of them see a plan through columns: Y_d, the throughput of DNN d, U_g, the devices of type g in use, and y_c, the
rates of pipelines. What they are worth is told in `planner.model.objective`.

Whatever the objective, a plan may be held to

    budget          sum of price_g · U_g <= budget
    accuracy[d]     sum over c of (a_c - A) · y_c >= 0, a_c the accuracy of candidate c's variant, A the least asked for
    at_rate[d]      sum over c of y_c <= rate_d, where accuracies count: what is served is the rate, no more
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from planner.model import Problem
from planner.model.accuracy import variant_accuracy
from planner.model.energy import idle_and_busy_watts, pipeline_joules
from planner.model.objective import needed_rate_rps, price_per_hour
from planner.model.problem import GIVEN_RATES, Objective
from planner.planning.arrays import Floats
from planner.planning.pipelines.candidates import Candidate, stage_megabytes
from planner.planning.pipelines.sizing import Sized, pipeline_of
from planner.planning.programme.linear import LinearModel

Columns = Sequence[int]


@dataclass(frozen=True)
class PlanColumns:
    """The columns of a plan: ``throughput[d]``, ``used[g]``, ``rates[c]`` of ``candidates[c]``, and ``slices[c][s]``.

    ``asked[d]`` is the part of the rate served of each DNN that was asked for, 1 where it is empty.
    A column of ``slices`` counts groups of them (`Candidate.groups`), and may be a pool's, in several places; there are
    none in a relaxation, whose slices are what rates need.
    """

    throughput: Columns
    used: Columns
    rates: Columns
    candidates: Sequence[Candidate]
    slices: Sequence[Columns] = ()
    asked: Sequence[float] = ()

    def of(self, dnn: int) -> list[tuple[int, Candidate]]:
        """Return the rates of a DNN's candidates."""
        pairs = zip(self.rates, self.candidates, strict=True)
        return [(column, candidate) for column, candidate in pairs if candidate.dnn == dnn]


def max_min_throughput(model: LinearModel, problem: Problem, columns: PlanColumns) -> None:
    """Maximise z subject to w_d · z <= Y_d for every DNN d, rows ``weight[d]``."""
    least = model.add_column("z")
    for dnn, column in zip(problem.dnns, columns.throughput, strict=True):
        model.add_row(f"weight[{dnn.name}]", [(least, dnn.weight), (column, -1.0)], upper=0.0)
    model.set_objective([(least, 1.0)], maximise=True)


def max_weighted_throughput(model: LinearModel, problem: Problem, columns: PlanColumns) -> None:
    """Maximise the sum of w_d · Y_d."""
    terms = [(column, dnn.weight) for dnn, column in zip(problem.dnns, columns.throughput, strict=True)]
    model.set_objective(terms, maximise=True)


def least_cost(model: LinearModel, problem: Problem, columns: PlanColumns) -> None:
    """Minimise the sum of price_g · U_g subject to Y_d >= rate_d, rows ``served[d]``."""
    _serve_rates(model, problem, columns)
    types = zip(problem.cluster.device_types, columns.used, strict=True)
    model.set_objective([(column, price_per_hour(problem, device.name)) for device, column in types], maximise=False)


def fewest_devices(model: LinearModel, problem: Problem, columns: PlanColumns) -> None:
    """Minimise the sum of U_g subject to Y_d >= rate_d, rows ``served[d]``."""
    _serve_rates(model, problem, columns)
    model.set_objective([(column, 1.0) for column in columns.used], maximise=False)


def least_energy(model: LinearModel, problem: Problem, columns: PlanColumns) -> None:
    """Minimise the sum of idle_g · U_g + sum of joules_c · y_c subject to Y_d >= rate_d, rows ``served[d]``."""
    _serve_rates(model, problem, columns)
    types = zip(problem.cluster.device_types, columns.used, strict=True)
    idle = [(column, idle_and_busy_watts(problem, device.name)[0]) for device, column in types]
    costs = rate_costs(problem, columns.candidates)
    if columns.asked:
        costs *= [columns.asked[candidate.dnn] for candidate in columns.candidates]
    work = zip(columns.rates, costs.tolist(), strict=True)
    model.set_objective([*idle, *work], maximise=False)


def least_memory(model: LinearModel, problem: Problem, columns: PlanColumns) -> None:
    """Minimise the sum of megabytes_{c,s} · n_{c,s} subject to Y_d >= rate_d, rows ``served[d]``; pools count once."""
    _serve_rates(model, problem, columns)
    if not columns.slices:
        rates = zip(columns.rates, rate_costs(problem, columns.candidates).tolist(), strict=True)
        model.set_objective(rates, maximise=False)
        return
    held: dict[int, float] = {}
    for candidate, own in zip(columns.candidates, columns.slices, strict=True):
        megabytes = stage_megabytes(problem, candidate)
        held.update(zip(own, (n * one for n, one in zip(candidate.groups, megabytes, strict=True)), strict=True))
    model.set_objective(held.items(), maximise=False)


def most_accurate(model: LinearModel, problem: Problem, columns: PlanColumns) -> None:
    """Maximise the sum of a_c · y_c over the sum of rates, subject to Y_d >= rate_d, rows ``served[d]``."""
    _serve_rates(model, problem, columns)
    asked = columns.asked or (1.0,) * len(problem.dnns)
    rates_rps = (needed_rate_rps(dnn, "most_accurate") for dnn in problem.dnns)
    total_rps = sum(part * rate_rps for part, rate_rps in zip(asked, rates_rps, strict=True))
    accuracies = zip(columns.rates, columns.candidates, rate_accuracies(problem, columns.candidates), strict=True)
    terms = ((column, accuracy * asked[one.dnn] / total_rps) for column, one, accuracy in accuracies)
    model.set_objective(terms, maximise=True)


def _serve_rates(model: LinearModel, problem: Problem, columns: PlanColumns) -> None:
    for dnn, column in zip(problem.dnns, columns.throughput, strict=True):
        needed_rps = needed_rate_rps(dnn, problem.options.objective)
        model.add_row(f"served[{dnn.name}]", [(column, 1.0)], lower=needed_rps)


def _add_budget(model: LinearModel, problem: Problem, columns: PlanColumns) -> None:
    if problem.options.budget_per_hour is not None:
        types = zip(problem.cluster.device_types, columns.used, strict=True)
        terms = [(column, price_per_hour(problem, device.name)) for device, column in types if device.count]
        model.add_row("budget", terms, upper=problem.options.budget_per_hour)


def _add_accuracy(model: LinearModel, problem: Problem, columns: PlanColumns) -> None:
    if not problem.options.limits_accuracy:
        return
    least = problem.options.min_accuracy
    for number, dnn in enumerate(problem.dnns):
        rates = columns.of(number)
        if problem.options.objective in GIVEN_RATES:
            rate_rps = needed_rate_rps(dnn, problem.options.objective)
            model.add_row(f"at_rate[{dnn.name}]", [(column, 1.0) for column, _ in rates], upper=rate_rps)
        if least is not None:
            terms = [(column, variant_accuracy(dnn, dnn.variants[one.variant].name) - least) for column, one in rates]
            model.add_row(f"accuracy[{dnn.name}]", terms, lower=0.0)


def rate_costs(problem: Problem, candidates: Sequence[Candidate]) -> Floats:
    """Return what a request/s of each candidate costs beside devices: watts or megabytes, if these are the objective.

    Megabytes are those of as many slices as it needs, fractions allowed.
    """
    costs = np.zeros(len(candidates))
    for number, candidate in enumerate(candidates):
        if problem.options.objective == "least_energy":
            costs[number] = pipeline_joules(problem, pipeline_of(problem, Sized(candidate, candidate.groups)))
        elif problem.options.objective == "least_memory":
            megabytes = stage_megabytes(problem, candidate)
            costs[number] = sum(one / rps for one, rps in zip(megabytes, candidate.slice_rps, strict=True))
    return costs


def rate_accuracies(problem: Problem, candidates: Sequence[Candidate]) -> list[float]:
    """Return the accuracy of each candidate's variant (percent)."""
    dnns = ((problem.dnns[candidate.dnn], candidate) for candidate in candidates)
    return [variant_accuracy(dnn, dnn.variants[candidate.variant].name) for dnn, candidate in dnns]


OBJECTIVES: Mapping[Objective, Callable[[LinearModel, Problem, PlanColumns], None]] = {
    "max_min_throughput": max_min_throughput,
    "max_weighted_throughput": max_weighted_throughput,
    "least_cost": least_cost,
    "fewest_devices": fewest_devices,
    "least_energy": least_energy,
    "least_memory": least_memory,
    "most_accurate": most_accurate,
}


def set_objective(model: LinearModel, problem: Problem, columns: PlanColumns) -> None:
    """Give a model the problem's objective and its limits of money and accuracy, with the rows that they need."""
    OBJECTIVES[problem.options.objective](model, problem, columns)
    _add_budget(model, problem, columns)
    _add_accuracy(model, problem, columns)
