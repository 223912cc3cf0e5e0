"""Dantzig-Wolfe by DNN with the programme itself as pricing: for what is paid slice by slice, memory and energy.

A DNN's rate takes few slices, so that rounding them is much of the cost, of which the relaxation over candidates knows
nothing: it may be 40 % below the best plan, and a solver closes that in minutes, if at all. One DNN alone is a second's
work. Where devices are its own, DNNs meet only in the devices that there are, sum over d of u_{d,g} <= count_g. At
prices lambda_g >= 0 of devices let m_d be the least cost_d + sum over g of lambda_g · u_{d,g} over the plans of DNN d
alone. Then

    sum over d of m_d - sum over g of lambda_g · count_g  <=  the cost of every plan                     (Lagrange)

The plans found are the columns of a master programme, one plan of every DNN within the devices: its prices as a linear
programme ask for the next plans, its integer optimum is a plan. Where neither proves the other, the programme over all
candidates goes on from there with rows that the prices prove,

    priced[d]    cost_d + sum over g of lambda_g · u_{d,g} >= m_d

(Dantzig and Wolfe, "Decomposition principle for linear programs", 1960.)
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from planner.model import Problem
from planner.model.placing import Layouts, Pool
from planner.planning.arrays import Floats
from planner.planning.pipelines.candidates import Candidate
from planner.planning.pipelines.sizing import Report, Sized, Sizing
from planner.planning.programme import milp
from planner.planning.programme.backends import Clock, Limits, TooLarge, TooLate, solve
from planner.planning.programme.linear import LinearModel, Solution
from planner.planning.programme.pools import summed
from planner.planning.programme.relaxation import affordable, relax

log = logging.getLogger(__name__)

AT_ONCE_S = 2.0  # for the programme over all DNNs, which is through with most problems by then
ROUNDS = 60
ROUGH_GAP = 1e-3  # of the programmes of one DNN, until prices settle
MASTER_SECONDS = 1.0
BETTER = 1e-5  # relative: bounds and masters that change by less do not change


@dataclass(frozen=True)
class PlanOfOne:
    """A plan of one DNN: what it costs, how many devices of each type it takes, and its pipelines."""

    dnn: int
    cost: float
    devices: Floats
    pipelines: tuple[Sized, ...]
    layouts: Mapping[Pool, tuple[Layouts, ...]]


def admits(problem: Problem) -> bool:
    """Tell whether a plan's cost is the sum of that of its DNNs, which only devices connect."""
    options = problem.options
    paid_by_slice = options.objective in ("least_memory", "least_energy")
    apart = options.device_sharing == "own" and options.budget_per_hour is None
    return paid_by_slice and apart and len(problem.dnns) > 1


def size(
    problem: Problem, candidates: Sequence[Candidate], backend: str, limits: Limits, report: Report | None = None
) -> Sizing:
    """Return the best sizes of the candidates, to a gap or until the time is up; reports and raises as `milp.size`."""
    clock = Clock(limits)
    try:
        found = milp.size(problem, candidates, backend, clock.within(Limits(limits.gap, AT_ONCE_S)), report=report)
    except TooLate:
        return milp.size(problem, candidates, backend, clock.remaining(), report=report)
    if _proven(problem, found, limits.gap) or clock.over:
        return found
    rounds = Rounds(problem, candidates, backend, clock, found, report)
    with suppress(TooLate):
        rounds.run()
    best = rounds.best
    if _proven(problem, best, limits.gap) or clock.over:
        return best
    log.info("plans by DNN cost %.6g, at least %.6g", best.value(problem), best.bound)
    with suppress(TooLate):
        relaxation = relax(problem, candidates, clock)
        kept = affordable(problem, candidates, relaxation, best.value(problem), best.candidates, clock)
        last = milp.size(problem, kept, backend, clock.remaining(), rounds.add_rows, best, report)
        cheaper = min(last, best, key=lambda sizing: sizing.value(problem))
        best = replace(cheaper, bound=max(last.bound, best.bound))
    return best


def _proven(problem: Problem, sizing: Sizing, gap: float) -> bool:
    value = sizing.value(problem)
    return value - sizing.bound <= gap * abs(value)


class Rounds:
    """Rounds of prices, plans of every DNN at these, and the master programme over the plans so far."""

    def __init__(
        self, problem: Problem, candidates: Sequence[Candidate], backend: str, clock: Clock, begin: Sizing,
        report: Report | None,
    ) -> None:  # fmt: skip
        self.best = begin
        self._problem, self._backend, self._clock, self._report = problem, backend, clock, report
        self._alone = [problem.with_dnns((dnn,)) for dnn in problem.dnns]
        own: list[list[Candidate]] = [[] for _ in problem.dnns]
        for candidate in candidates:
            own[candidate.dnn].append(replace(candidate, dnn=0))
        self._programmes = [milp.build(one, mine, clock) for one, mine in zip(self._alone, own, strict=True)]
        self._costs = [dict(programme.model.objective_terms) for programme in self._programmes]
        self._counts = np.array([device.count for device in problem.cluster.device_types], dtype=np.float64)
        self._plans: list[PlanOfOne] = []
        for dnn in range(len(problem.dnns)):
            mine = tuple(replace(one, candidate=replace(one.candidate, dnn=0)) for one in _of(begin, dnn))
            self._add(dnn, replace(begin, pipelines=mine))
        self._prices: Floats = relax(problem, candidates, clock).device_price
        self._least: Floats = np.zeros(len(problem.dnns))  # m_d at these prices
        self._bound = -np.inf  # that they prove

    def run(self) -> None:
        """Run rounds until the best plan is proven, or the master's own prices bring no plan that it lacks.

        As long as they bring any, prices are between the master's and those of the best bound.
        """
        gap, last_gap, prices, part = ROUGH_GAP, self._clock.remaining().gap, self._prices, 0.5
        for _ in range(ROUNDS):
            new = self._price(prices, max(gap, last_gap))
            asked, relaxed = self._asked_prices()
            if new:
                self._choose()
            settled = relaxed - self._bound <= BETTER * abs(relaxed) or (not new and part == 1.0)
            if _proven(self._problem, self.best, last_gap) or (settled and gap <= last_gap):
                return
            gap = last_gap if settled else gap
            part = 0.5 if new else 1.0
            prices = self._prices + part * (asked - self._prices)

    def _price(self, prices: Floats, gap: float) -> bool:
        """Find the cheapest plan of every DNN at some prices, and what they prove; tell whether any plan is new."""
        least, new = np.zeros(len(self._programmes)), False
        for dnn, (programme, cost) in enumerate(zip(self._programmes, self._costs, strict=True)):
            self._clock.expect_time()
            priced = dict(cost)
            for column, price in zip(programme.used, prices.tolist(), strict=True):
                priced[column] = priced.get(column, 0.0) + price
            programme.model.set_objective(priced.items(), maximise=False)
            solution, name = self._solved(programme.model, Limits(gap, self._clock.remaining().time_limit_s))
            least[dnn] = solution.bound
            if solution.found:
                new |= self._add(dnn, milp.extract(programme, solution, 0.0, name))
        bound = float(least.sum() - prices @ self._counts)
        if bound > self._bound:
            self._prices, self._least, self._bound = prices, least, bound
            if bound > self.best.bound:
                self._tell(replace(self.best, bound=bound))
        return new

    def _solved(self, model: LinearModel, limits: Limits) -> tuple[Solution, str]:
        try:
            return solve(model, self._backend, limits)
        except TooLarge:
            return solve(model, "highs", limits)

    def _add(self, dnn: int, found: Sizing) -> bool:
        """Keep a plan of one DNN, unless it is known."""
        alone = self._alone[dnn]
        found = found.merged()
        devices = found.devices(alone)
        use = np.array([devices.get(index, 0) for index in range(len(self._counts))], dtype=np.float64)
        plan = PlanOfOne(dnn, found.value(alone), use, found.pipelines, found.layouts)
        if any(one.dnn == dnn and one.cost <= plan.cost and (one.devices <= use).all() for one in self._plans):
            return False
        self._plans.append(plan)
        return True

    def _master(self, *, integer: bool) -> tuple[LinearModel, list[int]]:
        """Return the master programme: one plan of every DNN within the devices; and the rows of devices."""
        model = LinearModel()
        columns = [model.add_column(f"plan[{n}]", objective=p.cost, integer=integer) for n, p in enumerate(self._plans)]
        for number, dnn in enumerate(self._problem.dnns):
            terms = [(column, 1.0) for column, plan in zip(columns, self._plans, strict=True) if plan.dnn == number]
            model.add_row(f"one[{dnn.name}]", terms, lower=1.0, upper=1.0)
        rows = []
        for index, device in enumerate(self._problem.cluster.device_types):
            uses = ((column, plan.devices[index]) for column, plan in zip(columns, self._plans, strict=True))
            terms = [(column, float(use)) for column, use in uses if use]
            rows.append(model.add_row(f"devices[{device.name}]", terms, upper=float(device.count)))
        return model, rows

    def _asked_prices(self) -> tuple[Floats, float]:
        """Return the prices of devices that the plans so far ask for, and what they cost together in parts."""
        model, rows = self._master(integer=False)
        solution, _ = solve(model, "highs")
        return abs(solution.row_duals[rows]), solution.objective

    def _choose(self) -> None:
        """Choose among the plans so far."""
        model, _ = self._master(integer=True)
        solution, name = solve(model, "highs", self._clock.within(Limits(1e-9, MASTER_SECONDS)))
        if not solution.found:
            return
        chosen = [plan for plan, value in zip(self._plans, solution.values, strict=True) if value > 0.5]
        pipelines = (replace(one, candidate=replace(one.candidate, dnn=p.dnn)) for p in chosen for one in p.pipelines)
        layouts = {pool: held for plan in chosen for pool, held in plan.layouts.items()}
        found = Sizing(tuple(pipelines), self.best.bound, name, layouts)
        if found.value(self._problem) < self.best.value(self._problem):
            self._tell(found)

    def _tell(self, better: Sizing) -> None:
        self.best = better
        if self._report is not None:
            self._report(better)

    def add_rows(self, programme: milp.Formulation) -> None:
        """Add the rows ``priced[d]`` that the best prices prove to a programme over all DNNs."""
        model, objective = programme.model, dict(programme.model.objective_terms)
        for number, dnn in enumerate(self._problem.dnns):
            terms: list[tuple[int, float]] = []
            for candidate, rate, slices in zip(programme.candidates, programme.rate, programme.slices, strict=True):
                if candidate.dnn == number:
                    terms += ((column, objective.get(column, 0.0)) for column in (rate, *slices))
            for (device, name, _), columns in programme.pools.items():
                index = self._problem.cluster.index(device)
                price = self._prices[index] + objective.get(programme.used[index], 0.0)
                if name == dnn.name:
                    terms += ((column, price * devices) for one in columns for column, devices in one.devices)
            priced = [(column, value) for column, value in summed(terms) if value]
            model.add_row(f"priced[{dnn.name}]", priced, lower=self._least[number] - BETTER * abs(self._least[number]))


def _of(sizing: Sizing, dnn: int) -> list[Sized]:
    return [one for one in sizing.pipelines if one.candidate.dnn == dnn]
