"""The main programme against brute force, for every objective and solver."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import brute_force, random_problem, with_detours

from planner.model import InputError, Problem
from planner.model.problem import Objective
from planner.planning import milp
from planner.planning.api import all_candidates, make_plan
from planner.planning.backends import BACKENDS, Limits


def best(problem: Problem, backend: str = "highs") -> float:
    return milp.size(problem, all_candidates(problem), backend, Limits(gap=0.0)).value(problem)


@pytest.mark.parametrize("seed", range(8))
def test_optimum_of_one_dnn(seed: int) -> None:
    problem = random_problem(seed, counts=((2, 2), (3, 1))[seed % 2])
    assert best(problem) == pytest.approx(brute_force(problem), rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_optimum_of_two_dnns_on_three_types(seed: int) -> None:
    problem = random_problem(seed + 20, dnns=2, counts=(2, 1, 1))
    assert best(problem) == pytest.approx(brute_force(problem), rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_optimum_of_three_stages_in_thirds(seed: int) -> None:
    problem = random_problem(seed + 40, stages=3, counts=(2, 2), shares=(1, 3))
    assert best(problem) == pytest.approx(brute_force(problem), rel=1e-9)


@pytest.mark.parametrize("seed", [0, 1, 4])
def test_optimum_with_links_memory_and_missing_shares(seed: int) -> None:
    problem = with_detours(random_problem(seed + 60, counts=(2, 2)), seed)
    assert best(problem) == pytest.approx(brute_force(problem), rel=1e-9)


@pytest.mark.parametrize("objective", ["max_weighted_throughput", "least_cost", "fewest_devices"])
@pytest.mark.parametrize("seed", range(4))
def test_optimum_of_every_objective(objective: Objective, seed: int) -> None:
    problem = random_problem(seed + 80, dnns=2, counts=(2, 2))
    problem = replace(
        problem,
        dnns=tuple(replace(dnn, rate_rps=60.0 + 50 * seed) for dnn in problem.dnns),
        options=replace(problem.options, objective=objective),
    )
    expected = brute_force(problem)
    if expected is None:
        with pytest.raises(InputError, match="rates asked for"):
            best(problem)
    else:
        assert best(problem) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", range(2))
def test_solvers_agree(seed: int) -> None:
    problem = random_problem(seed + 100, dnns=2, counts=(2, 2))
    values = [best(problem, backend) for backend in BACKENDS]
    assert values == pytest.approx([values[0]] * len(BACKENDS), rel=1e-9)


def test_leaving_candidates_out_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_problem(7, dnns=2, counts=(3, 4))
    assert len(all_candidates(problem)) > 40
    whole = best(problem)
    monkeypatch.setattr(milp, "AT_ONCE", 5)
    monkeypatch.setattr(milp, "SHORTLIST", 5)
    assert best(problem) == pytest.approx(whole, rel=1e-9)


def test_names_can_be_read() -> None:
    problem = random_problem(0)
    text = milp.build(problem, all_candidates(problem)).model.text()
    for name in ("throughput[d0]:", "capacity[d0/0,0]:", "whole[d0,0,g0]:", "devices[g1]:", "weight[d0]:", "used[g0]"):
        assert name in text


@settings(max_examples=8, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), extra=st.sampled_from([0, 1]))
def test_one_more_device_is_never_worse(seed: int, extra: int) -> None:
    problem = random_problem(seed, counts=(2, 2))
    name = problem.cluster.device_types[extra].name
    more = replace(problem, cluster=problem.cluster.with_counts({name: 3}))
    try:
        before = best(problem)
    except InputError:  # a DNN that no pipeline can serve in time
        return
    assert best(more) >= before * (1 - 1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_dnns_does_not_matter(seed: int) -> None:
    problem = random_problem(seed, dnns=3, counts=(3, 3), shares=(1,))
    value = make_plan(problem, method="milp").value
    turned = replace(problem, dnns=problem.dnns[::-1])
    assert make_plan(turned, method="milp").value == pytest.approx(value, rel=2e-6)
