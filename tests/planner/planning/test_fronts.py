"""Fronts: every point is the best of its kind, and none is dominated."""

from dataclasses import replace
from itertools import pairwise
from math import inf, nan

import pytest
from oracles import brute_force, random_problem

from planner.model import InputError
from planner.planning import cost_front, energy_front, latency_front, make_plan


@pytest.mark.parametrize("seed", range(3))
def test_points_against_latency_are_the_optima(seed: int) -> None:
    problem = random_problem(seed)
    points = latency_front(problem, [0.2, 0.7, 1.0, 1.5])
    assert all(one.price < two.price and one.throughput_rps < two.throughput_rps for one, two in pairwise(points))
    for factor in (0.7, 1.0, 1.5):
        scaled = replace(problem, dnns=(replace(problem.dnns[0], slo_us=problem.dnns[0].slo_us * factor),))
        try:
            expected = make_plan(scaled).value
        except InputError:
            continue
        reached = max(point.throughput_rps for point in points if point.price <= factor)
        assert reached == pytest.approx(expected, rel=2e-6)


@pytest.mark.parametrize("seed", range(3))
def test_points_against_cost_are_the_cheapest(seed: int) -> None:
    problem = random_problem(seed, counts=(2, 2))
    points = cost_front(problem, steps=4)
    assert points[-1].throughput_rps == pytest.approx(make_plan(problem).value, rel=2e-6)
    assert all(one.price < two.price and one.throughput_rps < two.throughput_rps for one, two in pairwise(points))
    for point in points:
        dnn = replace(problem.dnns[0], rate_rps=point.throughput_rps * problem.dnns[0].weight * (1 - 1e-9))
        cheapest = replace(problem, dnns=(dnn,), options=replace(problem.options, objective="least_cost"))
        assert point.price == pytest.approx(brute_force(cheapest))


@pytest.mark.parametrize("seed", range(3))
def test_points_against_energy_draw_least(seed: int) -> None:
    problem = random_problem(seed, counts=(2, 2))
    first, second = problem.cluster.device_types
    types = replace(first, idle_watts=30.0, busy_watts=80.0), replace(second, idle_watts=10.0, busy_watts=100.0)
    problem = replace(problem, cluster=replace(problem.cluster, device_types=types))
    points = energy_front(problem, steps=4)
    assert points[-1].throughput_rps == pytest.approx(make_plan(problem).value, rel=2e-6)
    assert all(one.price < two.price and one.throughput_rps < two.throughput_rps for one, two in pairwise(points))
    for point in points:
        assert point.price == pytest.approx(point.plan.watts)
        # No plan that serves as much on fewer devices, or for less money, draws less.
        dnn = replace(problem.dnns[0], rate_rps=point.throughput_rps * problem.dnns[0].weight * (1 - 1e-9))
        for objective in ("fewest_devices", "least_cost"):
            other = make_plan(replace(problem, dnns=(dnn,), options=replace(problem.options, objective=objective)))
            assert other.watts is not None
            assert other.watts >= point.price * (1 - 1e-6)


def test_bad_input() -> None:
    problem = random_problem(0)
    with pytest.raises(InputError, match="factors: expected finite numbers above 0, got -1"):
        latency_front(problem, [-1.0])
    for factor in (inf, nan):
        with pytest.raises(InputError, match=f"factors: expected finite numbers above 0, got {factor}"):
            latency_front(problem, [1.0, factor])
    with pytest.raises(InputError, match="at least one, got none"):
        latency_front(problem, [])
    with pytest.raises(InputError, match="meets its SLO"):
        latency_front(problem, [0.01])
    with pytest.raises(InputError, match="steps: expected at least 1, got 0"):
        cost_front(problem, 0)
