"""Targets are decided as brute force says, also where plans are too many to list and DNNs' plans are branched on."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from oracles import brute_force, random_problem

from planner.model import Problem
from planner.model.check import check
from planner.planning import make_plan
from planner.planning.baselines.x0 import with_x0
from planner.planning.pipelines.candidates import enumerate_pipelines
from planner.planning.pipelines.sizes import CandidateTable
from planner.planning.programme.backends import Clock, Limits
from planner.planning.whole_devices.capacity import Capacity
from planner.planning.whole_devices.deciding import Deciding, Decision, Proofs
from planner.planning.whole_devices.plan_search import Listed, PlanSearch
from planner.planning.whole_devices.supply import Supply

COUNTS = 2, 1, 2


def a_search(problem: Problem) -> Deciding:
    counts, units = np.array(COUNTS), np.array([2, 2, 2])
    tables = [
        CandidateTable.of_pipelines(enumerate_pipelines(problem, number, dnn.np_throughput_rps or 0.0), dnn.weight)
        for number, dnn in enumerate(problem.dnns)
    ]
    supplies = [Supply(table, counts, units) for table in tables]
    capacity = Capacity.of_devices(COUNTS)
    price = capacity.normed(np.ones(3))
    for supply in supplies:
        supply.extend(price, 1.0, 1e9)
    return Deciding(supplies, capacity, price, 1e9, 1e-9, Clock(Limits()))


@pytest.fixture
def branches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let only the plans of a DNN that has fewest be known; return how many DNNs were left in every branch."""
    left: list[int] = []
    usual, branch = PlanSearch.near_cheapest, Deciding._branch

    def of_one(self: PlanSearch, *arguments: Any) -> Iterator[Listed]:
        for listed in usual(self, *arguments):
            if len(listed.plans) == 1 or not all(listed.complete) or not all(map(len, listed.plans)):
                yield listed
                continue
            known = int(np.argmin([len(own) for own in listed.plans]))
            numbers = range(len(listed.plans))
            plans = [own if number == known else own[:0] for number, own in zip(numbers, listed.plans, strict=True)]
            yield Listed(plans, [number == known for number in numbers])

    def counted(self: Deciding, *arguments: Any) -> Decision:
        left.append(len(self.supplies) - 1)
        return branch(self, *arguments)

    monkeypatch.setattr(Deciding, "near_cheapest", of_one)
    monkeypatch.setattr(Deciding, "_branch", counted)
    return left


def test_targets_are_decided_as_brute_force_says(branches: list[int]) -> None:
    answers = {True: 0, False: 0, None: 0}
    for seed in range(8):
        problem = with_x0(random_problem(seed, dnns=2 + seed % 2, stages=2, counts=COUNTS, shares=(1, 2)))
        best = brute_force(problem)
        if not best:
            continue
        for part, reached in ((0.7, True), (1 - 1e-7, True), (1 + 1e-6, False), (1.05, False)):
            search = a_search(problem)
            price = search.settle(best * part, 0.1).price
            answer = search.decide(best * part, price, 1.0)
            answers[answer.reached] += 1
            assert answer.reached in (reached, None)
            if answer.reached:
                chosen = [supply.use[plan] for supply, plan in zip(search.supplies, answer.plans, strict=True)]
                assert (sum(chosen) <= np.array(COUNTS)).all()
                values = [supply.value[plan] for supply, plan in zip(search.supplies, answer.plans, strict=True)]
                assert min(values) >= best * part * (1 - 1e-9)
    assert min(answers[True], answers[False]) > 10
    assert answers[None] == 0
    assert min(branches.count(1), branches.count(2)) > 3


@pytest.mark.parametrize("seed", range(6))
def test_plans_with_branches_are_those_of_brute_force(seed: int, branches: list[int]) -> None:
    problem = random_problem(seed, dnns=2, stages=2, counts=COUNTS, shares=(1, 2))
    best = brute_force(problem)
    if not best:
        pytest.skip("a DNN cannot be served")
    plan = make_plan(problem, method="decomposition")
    assert plan.value <= best * (1 + 1e-9)
    assert plan.bound >= best * (1 - 1e-9)
    assert check(problem, plan) == ()


def test_proofs_hold_for_fewer_devices_and_more_dnns() -> None:
    search = a_search(with_x0(random_problem(1, dnns=3, stages=2, counts=COUNTS, shares=(1, 2))))
    one, two, three = search.supplies
    proofs = Proofs(too_few=[({id(one), id(two)}, np.array([2, 0, 1]))])
    proofs.costs.append((np.array([1.0, 0.0, 2.0]), {id(two): 1.5, id(three): 1.0}))
    assert proofs.forbid([one, two, three], np.array([1, 0, 1]))
    assert not proofs.forbid([one, two], np.array([2, 1, 1]))
    assert not proofs.forbid([one, three], np.array([0, 0, 0]))
    assert proofs.forbid([two, three], np.array([0, 9, 1]))
    assert not proofs.forbid([two, three], np.array([1, 0, 1]))
