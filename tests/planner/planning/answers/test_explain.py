"""Explanations: the least SLO is feasible and nothing below is; shadow prices are slopes."""

from dataclasses import replace

import pytest
from oracles import every_pipeline, random_problem

from planner.model import InputError, Problem
from planner.planning import explain, make_plan
from planner.planning.methods import all_candidates
from planner.planning.programme.relaxation import relax


def with_slo(problem: Problem, slo_us: float) -> Problem:
    return replace(problem, dnns=(replace(problem.dnns[0], slo_us=slo_us),))


@pytest.mark.parametrize("seed", range(5))
def test_the_least_slo_is_the_least(seed: int) -> None:
    problem = random_problem(seed)
    least = explain(problem).least_slo[0]
    fastest_us = min(piece.latency_us for piece in every_pipeline(problem, problem.dnns[0], any_slo=True))
    assert least.slo_us * 0.8 == pytest.approx(fastest_us)
    parts = least.inference_us + least.transfer_us + least.batch_building_us + least.slack_us
    assert parts == pytest.approx(least.slo_us)
    assert make_plan(with_slo(problem, least.slo_us + 10)).value > 0
    with pytest.raises(InputError, match=f"the least that this cluster can meet is {least.slo_us / 1000:.2f} ms"):
        make_plan(with_slo(problem, least.slo_us - 10))


@pytest.mark.parametrize("seed", range(5))
def test_the_worth_of_a_device_is_the_slope_of_the_bound(seed: int) -> None:
    problem = random_problem(seed, dnns=2, counts=(20, 20))
    found = explain(problem)
    candidates = all_candidates(problem)
    for device in problem.cluster.device_types:
        more = replace(problem, cluster=problem.cluster.with_counts({device.name: device.count + 1}))
        gained = relax(more, candidates).bound - found.bound
        assert found.worth[device.name] >= gained - 1e-6  # concave: the slope is the most that one more can add
        assert gained == pytest.approx(found.worth[device.name], rel=0.2, abs=1e-6)
    assert found.bound >= make_plan(problem).value


def test_rates_are_worth_nothing_beyond_what_is_asked() -> None:
    problem = random_problem(2)
    problem = replace(
        problem,
        dnns=(replace(problem.dnns[0], rate_rps=1.0),),
        options=replace(problem.options, objective="fewest_devices"),
    )
    assert explain(problem).worth == {"g0": 0.0, "g1": 0.0}
