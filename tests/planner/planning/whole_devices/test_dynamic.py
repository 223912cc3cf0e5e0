"""The dynamic programme against brute force, against the mixed-integer programme, and against published plans."""

import os
from dataclasses import replace
from itertools import product
from math import ceil, inf
from pathlib import Path

import numpy as np
import pytest
from oracles import random_problem

from planner.files.ppipe import read_plan, read_problem
from planner.model import InputError, Problem
from planner.planning.answers.canonical import canonical
from planner.planning.pipelines.candidates import Candidate, enumerate_candidates
from planner.planning.pipelines.sizes import Items
from planner.planning.pipelines.sizing import Sizing
from planner.planning.programme import milp
from planner.planning.programme.backends import Clock, Limits
from planner.planning.whole_devices import dynamic, knapsack, labels, tables

REFERENCE = os.environ.get("POOLPIPE_REFERENCE")


def candidates_of(problem: Problem) -> list[Candidate]:
    return [
        candidate
        for index, dnn in enumerate(problem.dnns)
        for candidate in enumerate_candidates(problem, index, dnn.np_throughput_rps or inf)
    ]


def brute_force(problem: Problem, candidates: list[Candidate]) -> float:
    """Try every number of slices of every candidate of a single DNN."""
    counts = [device.count for device in problem.cluster.device_types]
    ranges = [
        range(counts[device] * share + 1)
        for candidate in candidates
        for device, share in zip(candidate.devices, candidate.shares, strict=True)
    ]
    best = 0.0
    for numbers in product(*ranges):
        left = iter(numbers)
        total, use = 0.0, {}
        for candidate in candidates:
            slices = [next(left) for _ in candidate.devices]
            total += min(n * rps for n, rps in zip(slices, candidate.slice_rps, strict=True))
            for position, (device, share, n) in enumerate(
                zip(candidate.devices, candidate.shares, slices, strict=True)
            ):
                use[position, device] = use.get((position, device), 0.0) + n / share
        if total > best and all(
            sum(ceil(round(u, 9)) for (_, kind), u in use.items() if kind == device) <= counts[device]
            for device in range(len(counts))
        ):
            best = total
    return best / problem.dnns[0].weight


def assert_sound(problem: Problem, candidates: list[Candidate], expected: float) -> None:
    sizing = dynamic.size(problem, candidates, "highs", Limits())
    assert sizing.value(problem) == pytest.approx(expected, rel=2e-6)
    assert sizing.bound == pytest.approx(expected, rel=2e-6)
    assert sizing.bound >= expected * (1 - 1e-9)
    for device, used in sizing.devices(problem).items():
        assert used <= problem.cluster.device_types[device].count


@pytest.mark.parametrize("seed", range(12))
def test_it_equals_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    problem = random_problem(seed, counts=(int(rng.integers(1, 3)), int(rng.integers(1, 3))))
    everything = candidates_of(problem)
    chosen = rng.choice(len(everything), size=min(3, len(everything)), replace=False)
    candidates = [everything[number] for number in sorted(chosen)]
    assert_sound(problem, candidates, brute_force(problem, candidates))


@pytest.mark.parametrize("seed", range(18))
def test_it_equals_the_mixed_integer_programme(seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    counts = (int(rng.integers(1, 4)), int(rng.integers(1, 5)))
    dnns, stages = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    shares = ((1,), (1, 2), (1, 2, 3, 4), (2, 3))[seed % 4]
    problem = random_problem(seed, dnns=dnns, stages=stages, counts=counts, shares=shares)
    candidates = candidates_of(problem)
    if {candidate.dnn for candidate in candidates} != set(range(dnns)):
        pytest.skip("a DNN cannot be served")
    exact = milp.solve(milp.build(problem, candidates).model, "highs", Limits(gap=1e-9))[0]
    assert_sound(problem, candidates, exact.objective)


def test_one_device_type_is_enough() -> None:
    problem = random_problem(5, dnns=2, counts=(4,), shares=(1, 2, 3))
    candidates = candidates_of(problem)
    exact = milp.solve(milp.build(problem, candidates).model, "highs", Limits(gap=1e-9))[0]
    assert_sound(problem, candidates, exact.objective)


def test_a_search_cut_short_leaves_a_bound_that_the_mixed_integer_programme_closes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed = 0
    for seed in range(100, 106):
        problem = random_problem(seed, dnns=2, counts=(2, 3), shares=(1, 2, 3))
        candidates = candidates_of(problem)
        exact = dynamic.size(problem, candidates, "highs", Limits())
        monkeypatch.setattr(dynamic, "LABEL_LIMIT", 1)
        seen: list[Sizing] = []
        finished = dynamic.size(problem, candidates, "highs", Limits(), seen.append)
        stopped = seen[-1]
        monkeypatch.undo()
        assert stopped.value(problem) <= exact.value(problem) * (1 + 1e-9)
        assert stopped.bound >= exact.value(problem) * (1 - 1e-9)
        assert finished.value(problem) == pytest.approx(exact.value(problem), rel=2e-6)
        assert finished.bound == pytest.approx(exact.value(problem), rel=2e-6)
        closed += stopped.bound > stopped.value(problem) * (1 + 1e-6)
    assert closed  # some of the problems did need the search


def test_one_more_device_never_hurts_and_order_does_not_matter() -> None:
    problem = random_problem(7, dnns=2, counts=(2, 3))
    value = dynamic.size(problem, candidates_of(problem), "highs", Limits()).value(problem)
    for device in problem.cluster.device_types:
        larger = replace(problem, cluster=problem.cluster.with_counts({device.name: device.count + 1}))
        assert dynamic.size(larger, candidates_of(larger), "highs", Limits()).value(larger) >= value * (1 - 1e-9)
    turned = replace(problem, dnns=problem.dnns[::-1])
    assert dynamic.size(turned, candidates_of(turned), "highs", Limits()).value(turned) == pytest.approx(value)


@pytest.mark.parametrize("seed", range(60, 72))
def test_narrowing_keeps_an_optimal_plan(seed: int) -> None:
    problem = random_problem(seed, dnns=1 + seed % 2, stages=2, counts=(2, 3), shares=(1, 2))
    candidates = candidates_of(problem)
    if {candidate.dnn for candidate in candidates} != set(range(len(problem.dnns))):
        pytest.skip("a DNN cannot be served")
    incumbent, kept = tables.narrowed(problem, candidates, Clock(Limits()))
    exact = milp.solve(milp.build(problem, candidates).model, "highs", Limits(gap=1e-9))[0].objective
    narrow = milp.solve(milp.build(problem, kept).model, "highs", Limits(gap=1e-9))[0].objective
    assert set(kept) <= set(candidates)
    assert incumbent.value(problem) <= exact * (1 + 1e-9)
    assert narrow == pytest.approx(exact, rel=1e-8)


@pytest.mark.parametrize("seed", range(40, 52))
def test_the_plan_takes_no_more_devices_and_pipelines_than_programmes_find(seed: int) -> None:
    problem = random_problem(seed, dnns=2, counts=(3, 4))
    candidates = candidates_of(problem)
    if {candidate.dnn for candidate in candidates} != {0, 1}:
        pytest.skip("a DNN cannot be served")
    found = dynamic.size(problem, candidates, "highs", Limits())
    other = canonical(problem, candidates, milp.size(problem, candidates, "highs", Limits()), "highs", Limits())
    devices = sum(found.devices(problem).values())
    assert devices <= sum(other.devices(problem).values())
    if found.devices(problem) == other.devices(problem):
        assert len(found.pipelines) <= len(other.pipelines)


def test_other_problems_are_refused() -> None:
    three = random_problem(1, stages=1, counts=(1, 1, 1), shares=(1,))
    with pytest.raises(InputError, match="at most 2 device types"):
        dynamic.size(three, candidates_of(three), "highs", Limits())


def test_a_dnn_that_nothing_can_serve_is_worth_nothing() -> None:
    problem = random_problem(1, dnns=2, stages=1, counts=(1, 1), shares=(1,))
    only_first = [candidate for candidate in candidates_of(problem) if candidate.dnn == 0]
    sizing = dynamic.size(problem, only_first, "highs", Limits())
    assert (sizing.pipelines, sizing.bound) == ((), 0.0)


@pytest.mark.skipif(REFERENCE is None, reason="POOLPIPE_REFERENCE is unset")
@pytest.mark.parametrize("folder", ["ablation", "maf19"])
def test_published_problems_are_solved_to_proven_optimality(folder: str) -> None:
    data = Path(REFERENCE or "") / "ppipe"
    least = {"ablation": 0.99999, "maf19": 0.999999}[folder]
    better = []
    for path in sorted((data / "plans" / folder).glob("*_v4.json")):
        problem = read_problem(path, data)
        published = read_plan(path, problem)
        sizing = dynamic.size(problem, candidates_of(problem), "highs", Limits())
        value = sizing.value(problem)
        assert value >= least * published.value
        assert value <= sizing.bound <= value * (1 + 1e-6)
        if value > published.value * (1 + 1e-5):
            better.append(round(value, 2))
    assert better == {"ablation": [4919.21, 2160.31], "maf19": [2125.62, 1758.09, 2108.39]}[folder]


def test_labels_find_the_same_as_trying_everything() -> None:
    """Random items of two positions on two types in halves and thirds, against every multiset."""
    rng = np.random.default_rng(3)
    units = np.array([2, 3])
    for _ in range(20):
        use = rng.integers(0, 3, (3, 4))
        use[:, 0] += use.sum(axis=1) == 0
        value = rng.uniform(1, 2, 3) * use.sum(axis=1)
        items = Items(np.arange(3), value, use)
        best = 0.0
        for counts in product(range(10), repeat=3):
            total = np.array(counts) @ use
            whole = -(-total[0::2] // 2).sum(), -(-total[1::2] // 3).sum()
            if whole[0] <= 2 and whole[1] <= 1:
                best = max(best, float(np.array(counts) @ value))
        rest = knapsack.fill(items.totals, value, (4, 3))[0]
        space = labels.Space(items, (2, 1), units, rest)
        found = labels.search(space, floor=0.0, enough=inf, label_limit=10_000)
        assert found.value == pytest.approx(best)
        assert found.value == pytest.approx(sum(value[item] for item in found.items))
        assert found.bound == pytest.approx(best)
