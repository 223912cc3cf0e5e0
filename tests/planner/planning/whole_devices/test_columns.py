"""Column generation: pricing against enumeration, its bound against the relaxation's, its plans against exact ones."""

from dataclasses import replace

import numpy as np
import pytest
from oracles import random_problem, with_larger_cards

from planner.model import InputError, Link, Network, Problem
from planner.planning import make_plan
from planner.planning.pipelines.candidates import Candidate, enumerate_candidates
from planner.planning.pipelines.pricing import pricers
from planner.planning.pipelines.terrain import link_classes
from planner.planning.programme import milp
from planner.planning.programme.backends import Limits
from planner.planning.programme.relaxation import relax
from planner.planning.whole_devices import columns


def cost_of(candidate: Candidate, price: np.ndarray) -> float:
    """What a request/s on a candidate costs."""
    places = zip(candidate.devices, candidate.shares, candidate.slice_rps, strict=True)
    return sum(float(price[device]) / (int(share) * rps) for device, share, rps in places)


def with_links(problem: Problem) -> Problem:
    """The first two types are ten times farther apart than the rest, in one direction."""
    names = [device.name for device in problem.cluster.device_types]
    network = Network(10.0, 20.0, (Link(names[0], names[1], 1.0, 200.0),))
    return replace(problem, cluster=replace(problem.cluster, network=network))


def every_candidate(problem: Problem) -> list[Candidate]:
    return [
        candidate
        for number, dnn in enumerate(problem.dnns)
        for candidate in enumerate_candidates(problem, number, dnn.np_throughput_rps or 0.0)
    ]


@pytest.mark.parametrize("cards", ["own", "larger"])
@pytest.mark.parametrize("links", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_the_cheapest_pipeline_is_that_of_enumeration(seed: int, links: bool, cards: str) -> None:
    problem = random_problem(seed, stages=3, counts=(9, 9, 9), shares=(1, 2, 3))
    if cards == "larger":
        problem = with_larger_cards(problem, seed)
    if links:
        problem = with_links(problem)
    if seed % 2:  # a slice of half a device then holds some of the stages only
        types = tuple(replace(device, memory_bytes=150) for device in problem.cluster.device_types)
        problem = replace(problem, cluster=replace(problem.cluster, device_types=types))
    candidates = every_candidate(problem)
    rng = np.random.default_rng(seed)
    for _ in range(5):
        price = rng.uniform(0, 1, 3) * rng.integers(0, 2, 3) + 1e-3
        found = pricers(problem, 0)[0].cheapest(price)
        costs = {candidate: cost_of(candidate, price) for candidate in candidates}
        for stages in (1, 2, 3):
            of_stages = [cost for candidate, cost in costs.items() if len(candidate.devices) == stages]
            ours = [cost for cost, candidate in found if len(candidate.devices) == stages]
            assert min(ours, default=None) == pytest.approx(min(of_stages, default=None))
        for cost, candidate in found:  # the slices' throughputs are true, too
            assert cost == pytest.approx(cost_of(candidate, price))


def test_types_are_told_apart_by_their_links_and_where_asked_by_their_servers() -> None:
    problem = random_problem(1, counts=(1, 1, 1))
    assert link_classes(problem.cluster) == [0, 0, 0]
    assert link_classes(with_links(problem).cluster) == [0, 1, 2]
    types = tuple(
        replace(device, devices_per_server=count)
        for device, count in zip(problem.cluster.device_types, (1, 4, 1), strict=True)
    )
    cluster = replace(problem.cluster, device_types=types)
    assert link_classes(cluster) == [0, 0, 0]
    assert link_classes(cluster, by_server=True) == [0, 1, 0]


@pytest.mark.parametrize("links", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_the_bound_is_that_of_the_relaxation_over_all_candidates(seed: int, links: bool) -> None:
    problem = random_problem(seed, dnns=3, stages=3, counts=(20, 30, 25), shares=(1, 2, 3))
    if links:
        problem = with_links(problem)
    generated = columns.generate(problem, [pricers(problem, number) for number in range(3)])
    exact = relax(problem, every_candidate(problem)).bound
    assert generated.bound == pytest.approx(exact, rel=2e-7)
    assert generated.bound >= exact * (1 - 1e-9)
    assert generated.value <= exact * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_plans_lie_between_good_and_the_bound(seed: int) -> None:
    problem = random_problem(seed, dnns=2, stages=2, counts=(2, 2, 2), shares=(1, 2))
    exact = milp.size(problem, every_candidate(problem), "highs", Limits()).value(problem)
    plan = make_plan(problem, method="columns")
    assert plan.method == "columns"
    assert 0.9 * exact <= plan.value <= exact * (1 + 2e-6)
    assert plan.bound >= exact * (1 - 1e-9)


def test_larger_clusters_leave_a_small_gap() -> None:
    problem = random_problem(4, dnns=4, stages=3, counts=(300, 400, 350), shares=(1, 2, 3))
    assert make_plan(problem, method="columns", time_limit_s=6).gap < 0.01


def test_a_time_limit_leaves_a_plan() -> None:
    problem = random_problem(4, dnns=4, stages=3, counts=(60, 80, 70), shares=(1, 2, 3))
    plan = make_plan(problem, method="columns", time_limit_s=0.01)
    assert 0 < plan.value <= plan.bound


def test_progress_is_told_and_an_interrupted_search_keeps_the_best() -> None:
    problem = random_problem(4, dnns=3, stages=2, counts=(60, 80, 70), shares=(1, 2))
    seen: list[float] = []

    def interrupt(value: float, bound: float) -> None:
        seen.append(value)
        assert 0 < value <= bound
        if len(seen) == 2:
            raise KeyboardInterrupt

    plan = make_plan(problem, method="columns", progress=interrupt)
    assert len(seen) == 2
    assert seen == sorted(seen)
    assert plan.value >= seen[-1] * (1 - 1e-9)


def test_auto_takes_columns_where_there_is_too_much_to_list_or_devices_are_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = random_problem(4, dnns=2, stages=2, counts=(3, 3, 3))
    assert make_plan(problem).method == "decomposition"
    monkeypatch.setattr("planner.planning.methods.MANY_PER_DNN", 4)
    assert make_plan(problem).method == "columns"
    monkeypatch.setattr("planner.planning.methods.MANY_PER_DNN", 5)
    monkeypatch.setattr("planner.planning.methods.ENUMERABLE", 0)
    assert make_plan(problem).method == "columns"


def test_what_it_cannot_do_is_refused() -> None:
    problem = random_problem(4, dnns=2, counts=(9, 9, 9))
    cost = replace(problem, options=replace(problem.options, objective="max_weighted_throughput"))
    with pytest.raises(InputError, match="method columns"):
        make_plan(cost, method="columns")
    tight = replace(problem, dnns=(problem.dnns[0], replace(problem.dnns[1], slo_us=10.0)))
    with pytest.raises(InputError, match=problem.dnns[1].name):
        make_plan(tight, method="columns")


def test_devices_are_said_to_be_too_few_only_where_that_is_proven() -> None:
    """Two DNNs that fit one device only, which this method does not prove to be too few, and more DNNs than devices."""
    problem = random_problem(4, dnns=2, counts=(1, 9, 9))
    dnns = tuple(
        replace(dnn, variants=tuple(replace(one, tables=(one.table("g0", 1),)) for one in dnn.variants))
        for dnn in problem.dnns
    )
    scarce = replace(problem, dnns=dnns)
    with pytest.raises(InputError, match="none is proven impossible"):
        make_plan(scarce, method="columns")
    with pytest.raises(InputError, match="are too few for 2 DNNs"):
        make_plan(scarce, method="decomposition")
    with pytest.raises(InputError, match="are too few for 4 DNNs"):
        make_plan(random_problem(3, dnns=4, counts=(1, 1, 1)), method="columns")
