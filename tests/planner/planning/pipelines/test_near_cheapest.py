"""Pipelines that cost little more than the cheapest: all of them, by the list of all candidates."""

from dataclasses import replace
from math import lcm

import numpy as np
import pytest
from oracles import random_problem

from planner.model import Link, Network
from planner.planning.pipelines.candidates import Pipelines, enumerate_pipelines
from planner.planning.pipelines.near_cheapest import near_cheapest
from planner.planning.pipelines.pricing import pricers
from planner.planning.pipelines.sizes import CandidateTable, cheap_items
from planner.planning.whole_devices.supply import Supply

COUNTS = np.array([9, 7, 8])


def names(pipelines: Pipelines) -> list[tuple[object, ...]]:
    return [(one.variant, one.cuts, one.devices, one.shares, one.batches) for one in pipelines]


def rows_that_lose_little(table: CandidateTable, price: np.ndarray, budget: float) -> np.ndarray:
    """Candidates of which some size loses no more than a budget."""
    value_price = float((table.device_use(3) @ price).min()) * (1 - 1e-12)
    return np.unique(cheap_items(table, COUNTS, np.array([6, 6, 6]), price, value_price, budget).row)


@pytest.mark.parametrize("links", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_none_that_loses_little_is_left_out(seed: int, links: bool) -> None:
    problem = random_problem(seed, stages=3, counts=tuple(COUNTS.tolist()), shares=(1, 2, 3))
    if links:
        kinds = [device.name for device in problem.cluster.device_types]
        network = Network(10.0, 20.0, (Link(kinds[0], kinds[1], 1.0, 200.0),))
        problem = replace(problem, cluster=replace(problem.cluster, network=network))
    every = enumerate_pipelines(problem, 0, problem.dnns[0].np_throughput_rps or 0.0)
    x0_rps = problem.dnns[0].np_throughput_rps or 0.0
    possible = set(names(enumerate_pipelines(problem, 0, x0_rps, pareto=False)))
    table = CandidateTable.of_pipelines(every, 1.0)
    rng = np.random.default_rng(seed)
    shorter = 0
    for budget in (0.0, 0.05, 0.2, 0.6):
        price = rng.uniform(0.05, 1.0, 3)
        found = near_cheapest(pricers(problem, 0), price, budget)
        listed = set(names(found))
        assert listed <= possible
        wanted = every.take(rows_that_lose_little(table, price, budget))
        assert set(names(wanted)) <= listed
        cheapest = CandidateTable.of_pipelines(found, 1.0).device_use(3) @ price
        assert cheapest.min() == pytest.approx((table.device_use(3) @ price).min())
        shorter += len(found) < len(every)
    assert shorter  # something is left out


@pytest.mark.parametrize("seed", range(3))
def test_a_supply_that_lists_as_prices_ask_has_the_items_of_one_that_has_all(seed: int) -> None:
    problem = random_problem(seed, stages=2, counts=tuple(COUNTS.tolist()), shares=(1, 2))
    every = enumerate_pipelines(problem, 0, problem.dnns[0].np_throughput_rps or 0.0)
    units = np.array([lcm(*device.shares) for device in problem.cluster.device_types])
    asked = pricers(problem, 0)
    price, other = np.array([0.5, 0.7, 0.3]), np.array([0.2, 0.9, 0.6])
    first = CandidateTable.of_pipelines(near_cheapest(asked, price, 0.0), 1.0)
    listing = Supply(first, COUNTS, units, lambda prices, budget: near_cheapest(asked, prices, budget))
    having = Supply(CandidateTable.of_pipelines(every, 1.0), COUNTS, units)
    for one in (price, other):
        for supply in (listing, having):
            supply.extend(one, 0.4, 1e9)
        assert listing.value_price(one) == pytest.approx(having.value_price(one))
        target = float(having.items.value.max() * 1.5)
        found = [supply.price(one, target, label_limit=50_000) for supply in (listing, having)]
        assert found[0].bound == pytest.approx(found[1].bound)
    assert len(listing.table.stages) <= len(every)
    assert not listing.extend(other, 0.3, 1e9)  # was listed before, with a larger budget


def test_pipelines_of_two_lists_are_put_together_once() -> None:
    problem = random_problem(1, stages=2, counts=(3, 3, 3), shares=(1, 2))
    every = enumerate_pipelines(problem, 0, problem.dnns[0].np_throughput_rps or 0.0)
    some, more = every.take(np.arange(0, len(every), 2)), every.take(np.arange(len(every) // 2))
    both = some.and_those_of(more)
    assert names(both)[: len(some)] == names(some)
    assert sorted(names(both), key=str) == sorted(set(names(some)) | set(names(more)), key=str)
