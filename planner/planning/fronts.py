"""Pareto fronts: what throughput costs in latency, in money, and in energy; what accuracy costs in money."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any

from planner.model import InputError, Plan, Problem
from planner.model.objective import price_per_hour
from planner.model.problem import Objective
from planner.planning.api import make_plan
from planner.planning.baselines import with_x0

SLO_FACTORS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.25, 1.5, 2.0)


@dataclass(frozen=True)
class Point:
    """A plan of a front: ``throughput_rps`` is the least throughput / weight, ``price`` what was paid for it.

    The price is the factor on every SLO, the cost per hour, or watts.
    """

    price: float
    throughput_rps: float
    plan: Plan


def latency_front(problem: Problem, factors: Sequence[float] = SLO_FACTORS, **options: Any) -> tuple[Point, ...]:
    """Return the best plans as all SLOs are scaled together.

    Factors at which a DNN cannot be served, and those that gain nothing over a smaller one, are left out.

    Parameters
    ----------
    problem
        Maximises throughput. X0, where it is not given, is computed for every factor.
    factors
        What to multiply every SLO with.
    options
        Passed on to `planner.planning.make_plan`.

    Raises
    ------
    InputError
        No factor admits a plan, or a factor is not a finite number above 0.

    Examples
    --------
    In 12 of 20 ms an L4 serves 2 requests at a time, in 6 ms only one:

    >>> from planner.model import *
    >>> table = LatencyTable("L4", 1, (1, 2), ((6000,), (8000,)), Provenance("measured", "by hand"))
    >>> profile = Profile("toy", (Block(("a",)),), (), (table,))
    >>> problem = Problem(Cluster((DeviceType("L4", 4),), Network(10)), (Dnn("toy", 20_000, (profile,)),))
    >>> [(point.price, round(point.throughput_rps)) for point in latency_front(problem, [0.4, 0.5, 1.0, 2.0])]
    [(0.5, 667), (1.0, 1000)]
    """
    problem = problem.planned
    points: list[Point] = []
    reason = InputError("factors: expected at least one, got none")
    for factor in sorted(factors):
        if not 0 < factor < inf:
            raise InputError(f"factors: expected finite numbers above 0, got {factor:g}")
        scaled = replace(problem, dnns=tuple(replace(dnn, slo_us=dnn.slo_us * factor) for dnn in problem.dnns))
        try:
            plan = make_plan(scaled, **options)
        except InputError as error:
            reason = error
            continue
        point = Point(factor, _throughput_rps(scaled, plan), plan)
        if not points or point.throughput_rps > points[-1].throughput_rps * (1 + 1e-6):
            points.append(point)
    if not points:
        raise reason
    return tuple(points)


def cost_front(problem: Problem, steps: int = 10, **options: Any) -> tuple[Point, ...]:
    """Return the cheapest plans for growing throughputs, the last the largest that the cluster reaches.

    Parameters
    ----------
    problem
        With a price per device type; its own objective does not matter.
    steps
        The throughputs are 1/steps, 2/steps, ... of the largest.
    options
        Passed on to `planner.planning.make_plan`.

    Examples
    --------
    >>> from planner.model import *
    >>> table = LatencyTable("L4", 1, (1,), ((10_000,),), Provenance("measured", "by hand"))
    >>> profile = Profile("toy", (Block(("a",)),), (), (table,))
    >>> cluster = Cluster((DeviceType("L4", 4, price_per_hour=0.5),), Network(10))
    >>> problem = Problem(cluster, (Dnn("toy", 20_000, (profile,)),))
    >>> [(point.price, point.throughput_rps) for point in cost_front(problem, steps=2)]
    [(1.0, 200.0), (2.0, 400.0)]
    """
    return _front_of(problem, "least_cost", steps, **options)


def energy_front(problem: Problem, steps: int = 10, **options: Any) -> tuple[Point, ...]:
    """Return the plans that draw least for growing throughputs, the last the largest that the cluster reaches.

    Parameters
    ----------
    problem
        With idle and busy watts per device type; its own objective does not matter.
    steps, options
        As in `cost_front`.

    Examples
    --------
    >>> from planner.model import *
    >>> table = LatencyTable("L4", 1, (1,), ((10_000,),), Provenance("measured", "by hand"))
    >>> profile = Profile("toy", (Block(("a",)),), (), (table,))
    >>> cluster = Cluster((DeviceType("L4", 4, idle_watts=10, busy_watts=60),), Network(10))
    >>> problem = Problem(cluster, (Dnn("toy", 20_000, (profile,)),))
    >>> [(round(point.price, 3), point.throughput_rps) for point in energy_front(problem, steps=2)]
    [(120.0, 200.0), (240.0, 400.0)]
    """
    return _front_of(problem, "least_energy", steps, **options)


def accuracy_front(problem: Problem, steps: int = 10, **options: Any) -> tuple[Point, ...]:
    """Return the most accurate plans for growing budgets, from the cheapest plan to the most accurate one.

    Parameters
    ----------
    problem
        With a price per device type, a rate per DNN or application and an accuracy per variant; its own objective and
        budget do not matter.
    steps
        The budgets are evenly spaced between what the cheapest plan costs and the price of the whole cluster; those
        that gain nothing over a smaller one are left out. What a plan costs and how accurate it is stand in it
        (``cost_per_hour``, ``value``).
    options
        Passed on to `planner.planning.make_plan`.

    Raises
    ------
    InputError
        The rates cannot be served, or a price, rate or accuracy is missing.

    Examples
    --------
    An L4 serves 200 requests/s of the small variant, or 100 of the large one:

    >>> from planner.model import *
    >>> measured = Provenance("measured", "by hand")
    >>> small, large = (
    ...     Profile(name, (Block((name,)),), (), (LatencyTable("L4", 1, (1,), ((us,),), measured),))
    ...     for name, us in (("small", 5_000), ("large", 10_000))
    ... )
    >>> dnn = Dnn("photos", 50_000, (small, large), rate_rps=200.0, accuracy={"small": 60.0, "large": 80.0})
    >>> cluster = Cluster((DeviceType("L4", 3, price_per_hour=1.0),), Network(10))
    >>> [(point.price, point.plan.value) for point in accuracy_front(Problem(cluster, (dnn,)), steps=4)]
    [(1.0, 60.0), (2.0, 80.0)]
    """
    if steps < 1:
        raise InputError(f"steps: expected at least 1, got {steps}")
    known = with_x0(problem.planned)
    free = replace(known.options, budget_per_hour=None, min_accuracy=None)
    least = make_plan(replace(known, options=replace(free, objective="least_cost")), **options).value
    whole = sum(price_per_hour(known, device.name) * device.count for device in known.cluster.device_types)
    points: list[Point] = []
    for step in range(steps):
        budget = least + (whole - least) * step / max(1, steps - 1)
        limited = replace(free, objective="most_accurate", budget_per_hour=budget * (1 + 1e-9) or None)
        plan = make_plan(replace(known, options=limited), **options)
        if not points or plan.value > points[-1].plan.value * (1 + 1e-6):
            points.append(Point(plan.cost_per_hour or 0.0, _throughput_rps(known, plan), plan))
    return tuple(points)


def _front_of(problem: Problem, objective: Objective, steps: int, **options: Any) -> tuple[Point, ...]:
    """Return the best plans under an objective that serves given rates, at growing rates."""
    if steps < 1:
        raise InputError(f"steps: expected at least 1, got {steps}")
    known = with_x0(problem.planned)
    fastest = replace(known, options=replace(known.options, objective="max_min_throughput"))
    most_rps = make_plan(fastest, **options).value * (1 - 1e-9)
    points: list[Point] = []
    for step in range(1, steps + 1):
        rates = tuple(replace(dnn, rate_rps=dnn.weight * most_rps * step / steps) for dnn in known.dnns)
        cheapest = replace(known, dnns=rates, options=replace(known.options, objective=objective))
        plan = make_plan(cheapest, **options)
        point = Point(plan.value, _throughput_rps(known, plan), plan)
        if points and point.price <= points[-1].price:
            points.pop()
        points.append(point)
    return tuple(points)


def _throughput_rps(problem: Problem, plan: Plan) -> float:
    return min(plan.throughput_rps(dnn.name) / dnn.weight for dnn in problem.dnns)
