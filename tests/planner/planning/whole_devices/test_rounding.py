"""Rounding of relaxed plans: sizes and completions by brute force, choices of plans, and plans of many devices."""

from itertools import combinations_with_replacement
from math import ceil, lcm

import numpy as np
import pytest
from oracles import random_problem

from planner.model.check import check
from planner.planning import make_plan
from planner.planning.baselines import with_x0
from planner.planning.pipelines.candidates import enumerate_pipelines
from planner.planning.pipelines.sizes import CandidateTable
from planner.planning.programme.backends import Clock, Limits
from planner.planning.whole_devices.capacity import Capacity
from planner.planning.whole_devices.dantzig_wolfe import Decomposition
from planner.planning.whole_devices.master import choose
from planner.planning.whole_devices.prices import relaxed
from planner.planning.whole_devices.rounding import sizes_between
from planner.planning.whole_devices.supply import Supply


def a_supply(seed: int, counts: tuple[int, ...] = (4, 3, 3)) -> Supply:
    problem = random_problem(seed, stages=2, counts=counts, shares=(1, 2, 3))
    table = CandidateTable.of_pipelines(enumerate_pipelines(problem, 0, 1000.0), problem.dnns[0].weight)
    units = np.array([lcm(*device.shares) for device in problem.cluster.device_types])
    return Supply(table, np.array(counts), units)


@pytest.mark.parametrize("seed", range(4))
def test_sizes_in_a_range_are_those_that_no_slice_can_be_taken_from(seed: int) -> None:
    table = a_supply(seed).table
    for row in range(min(len(table.stages), 20)):
        per_slice = table.value[row, : table.stages[row]].tolist()
        low, high = 2.2 * max(per_slice), 5.7 * max(per_slice)
        expected = {
            tuple(ceil(n * own / other * (1 - 1e-12)) for other in per_slice)
            for own in per_slice
            for n in range(1, 200)
            if low <= n * own <= high
        }
        found = sizes_between(table, row, low, high, np.array([6, 6, 6]))
        assert {tuple(table.sized(row, value).slices) for value in found.value.tolist()} == expected
        for value, use in zip(found.value.tolist(), found.totals.tolist(), strict=True):
            slices = table.sized(row, value).slices
            devices = [0.0] * 3
            for n, kind, share in zip(slices, table.device[row].tolist(), table.share[row].tolist(), strict=False):
                devices[kind] += n / share
            assert use == pytest.approx([6 * one for one in devices])


@pytest.mark.parametrize("seed", range(6))
def test_a_plan_is_completed_as_cheaply_as_by_brute_force(seed: int) -> None:
    supply, price, budget = a_supply(seed), np.array([0.5, 0.7, 0.3]), 3.0
    supply.extend(price, budget, np.inf)
    supply.items = supply.items.take(np.argsort(-supply.items.value, kind="stable")[:12])
    supply = rebuilt(supply)
    begun = supply.items.take(np.array([3]))
    target = float(begun.value.sum() + 0.9 * supply.items.value.max())
    units, expected = np.resize(supply.units, supply.items.use.shape[1]), np.inf
    for size in (1, 2, 3):
        for chosen in combinations_with_replacement(range(12), size):
            if begun.value.sum() + supply.items.value[list(chosen)].sum() >= target:
                whole = -(-(begun.use.sum(axis=0) + supply.items.use[list(chosen)].sum(axis=0)) // units)
                expected = min(expected, float(whole.reshape(-1, 3).sum(axis=0) @ price))
    assert supply.complete(begun, price, target, budget=budget, label_limit=50_000)
    plan = int(supply.usable(target)[0])
    assert float(supply.use[plan] @ price) <= expected + 0.01 * budget + 1e-9
    assert sum(one.throughput_rps for one in supply.pipelines(plan)) >= target * supply.table.weight * (1 - 1e-9)


def rebuilt(supply: Supply) -> Supply:
    """The same supply with its derived arrays those of the items that it has now."""
    fresh = Supply(supply.table, supply.limit, supply.units)
    fresh.keep_items(supply.items)
    return fresh


def test_a_plan_that_is_whole_is_kept_as_it_is() -> None:
    supply, price = a_supply(1), np.array([0.5, 0.7, 0.3])
    supply.extend(price, 3.0, np.inf)
    begun = supply.items.take(np.array([0]))
    assert supply.complete(begun, price, float(begun.value[0]), budget=1.0, label_limit=10)
    assert supply.value.tolist() == begun.value.tolist()


def test_a_choice_of_plans_fits_or_there_is_none() -> None:
    uses = [np.array([[3, 0], [0, 2]]), np.array([[2, 0], [0, 2], [1, 1]])]
    assert choose(uses, Capacity.of_devices([4, 1]), np.ones(2), Limits()) == ([0, 2], "feasible")
    assert choose(uses, Capacity.of_devices([2, 1]), np.ones(2), Limits()) == (None, "infeasible")


@pytest.mark.parametrize("seed", range(4))
def test_a_choice_is_found_that_fits_just_so(seed: int) -> None:
    """Plans drawn at random, and as many devices as some choice of them takes: no other choice may have an excess."""
    rng = np.random.default_rng(seed)
    uses = [rng.integers(0, 9, (12, 3)) for _ in range(8)]
    counts = sum(own[int(rng.integers(12))] for own in uses)
    picked, _ = choose(uses, Capacity.of_devices(counts), np.array([0.2, 1.0, 0.5]), Limits())
    assert picked is not None
    assert (sum(own[plan] for own, plan in zip(uses, picked, strict=True)) <= counts).all()


@pytest.mark.parametrize("seed", range(4))
def test_value_and_bound_are_close_soon(seed: int) -> None:
    """Before prices are good: within what another method proves, and a few of some hundred devices apart."""
    problem = random_problem(seed, dnns=6, stages=2, counts=(60, 40, 50), shares=(1, 2))
    found = make_plan(problem, method="columns", gap=1e-4, time_limit_s=1)
    known = with_x0(problem)
    tables = [
        CandidateTable.of_pipelines(enumerate_pipelines(known, number, dnn.np_throughput_rps or 0.0), dnn.weight)
        for number, dnn in enumerate(known.dnns)
    ]
    counts, units = np.array([60, 40, 50]), np.array([2, 2, 2])
    supplies, capacity, clock = (
        [Supply(table, counts, units) for table in tables],
        Capacity.of_devices(counts),
        Clock(Limits()),
    )
    search = Decomposition(supplies, capacity, *relaxed(tables, capacity, clock), 1e-6, clock)
    search.raise_first()
    assert search.value <= found.bound * (1 + 1e-9)
    assert search.bound >= found.value * (1 - 1e-9)
    assert search.bound - search.value < 0.03 * search.bound


@pytest.mark.parametrize("seed", range(3))
def test_many_devices_are_used_to_within_a_fraction_of_a_percent(seed: int) -> None:
    problem = random_problem(seed, dnns=3, stages=2, counts=(700, 400, 900), shares=(1, 2, 3))
    plan = make_plan(problem, method="columns", gap=2e-3, time_limit_s=6)
    assert plan.gap <= 2e-3
    assert not check(problem, plan)


@pytest.mark.parametrize("seed", [5, 7])  # where the programme is quick: others take it ten seconds
def test_plans_on_whole_devices_only_are_rounded_too(seed: int) -> None:
    problem = random_problem(seed, dnns=3, stages=3, counts=(5, 4, 6), shares=(1,))
    plan = make_plan(problem, method="columns")
    exact = make_plan(problem, method="milp", gap=1e-6)
    assert check(problem, plan) == ()
    assert plan.value <= exact.value * (1 + 1e-6)
    assert plan.bound >= exact.value * (1 - 1e-6)
