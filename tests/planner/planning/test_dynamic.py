"""The dynamic programme against brute force, against the mixed-integer programme, and against published plans."""

import os
from dataclasses import replace
from itertools import product
from math import ceil, inf
from pathlib import Path

import numpy as np
import pytest
from numpy.random import Generator

from planner.files.ppipe import read_plan, read_problem
from planner.model import (
    Block,
    Cluster,
    DeviceType,
    Dnn,
    InputError,
    LatencyTable,
    Network,
    Options,
    Problem,
    Profile,
    Provenance,
)
from planner.planning import dynamic, labels, milp
from planner.planning.backends import Limits
from planner.planning.candidates import Candidate, enumerate_candidates

REFERENCE = os.environ.get("POOLPIPE_REFERENCE")
BLOCKS = 3


def random_profile(rng: Generator, name: str, cluster: Cluster) -> Profile:
    """Three blocks of some milliseconds; a share is slower than a whole device by a random factor around its k."""
    tables = []
    base_us = rng.integers(500, 4000, BLOCKS)
    for device in cluster.device_types:
        speed = rng.uniform(0.5, 2.0, BLOCKS)
        for share in device.shares:
            slowdown = share * rng.uniform(0.6, 1.05) if share > 1 else 1.0
            rows = [np.ceil(base_us * speed * slowdown * (0.3 + 0.7 * b)).astype(int) for b in (1, 2)]
            latency_us = tuple(tuple(row.tolist()) for row in rows)
            tables.append(LatencyTable(device.name, share, (1, 2), latency_us, Provenance("estimated", "random")))
    blocks = tuple(Block((f"{name}{number}",)) for number in range(BLOCKS))
    return Profile(name, blocks, tuple(rng.integers(1000, 200_000, BLOCKS - 1).tolist()), tuple(tables))


def random_problem(rng: Generator, dnns: int, stages: int, counts: tuple[int, ...], shares: tuple[int, ...]) -> Problem:
    types = tuple(
        DeviceType(f"g{number}", count, shares=shares, devices_per_server=int(rng.integers(1, 3)))
        for number, count in enumerate(counts)
    )
    cluster = Cluster(types, Network(10.0))
    return Problem(
        cluster,
        tuple(
            Dnn(
                f"d{number}",
                float(rng.integers(8000, 40_000)),
                (random_profile(rng, f"d{number}", cluster),),
                weight=float(rng.uniform(0.2, 1.0)),
                np_throughput_rps=float(rng.uniform(200, 2000)),
            )
            for number in range(dnns)
        ),
        Options(max_stages=stages, slack_fraction=0.2),
    )


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


def check_sizing(problem: Problem, candidates: list[Candidate], expected: float) -> None:
    sizing = dynamic.size(problem, candidates, "highs", Limits())
    assert sizing.value(problem) == pytest.approx(expected, rel=2e-6)
    assert sizing.bound == pytest.approx(expected, rel=2e-6)
    assert sizing.bound >= expected * (1 - 1e-9)
    for device, used in sizing.devices().items():
        assert used <= problem.cluster.device_types[device].count


@pytest.mark.parametrize("seed", range(12))
def test_it_equals_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, 1, 2, (int(rng.integers(1, 3)), int(rng.integers(1, 3))), (1, 2))
    everything = candidates_of(problem)
    chosen = rng.choice(len(everything), size=min(3, len(everything)), replace=False)
    candidates = [everything[number] for number in sorted(chosen)]
    check_sizing(problem, candidates, brute_force(problem, candidates))


@pytest.mark.parametrize("seed", range(30))
def test_it_equals_the_mixed_integer_programme(seed: int) -> None:
    rng = np.random.default_rng(100 + seed)
    counts = (int(rng.integers(1, 4)), int(rng.integers(1, 5)))
    dnns, stages = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    problem = random_problem(rng, dnns, stages, counts, ((1,), (1, 2), (1, 2, 3, 4), (2, 3))[seed % 4])
    candidates = candidates_of(problem)
    if {candidate.dnn for candidate in candidates} != set(range(dnns)):
        pytest.skip("a DNN cannot be served")
    exact = milp.solve(milp.build(problem, candidates).model, "highs", Limits(gap=1e-9))[0]
    check_sizing(problem, candidates, exact.objective)


def test_one_device_type_is_enough() -> None:
    problem = random_problem(np.random.default_rng(5), 2, 2, (4,), (1, 2, 3))
    candidates = candidates_of(problem)
    exact = milp.solve(milp.build(problem, candidates).model, "highs", Limits(gap=1e-9))[0]
    check_sizing(problem, candidates, exact.objective)


def test_a_search_cut_short_leaves_a_bound_that_the_mixed_integer_programme_closes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed = 0
    for seed in range(100, 106):
        rng = np.random.default_rng(seed)
        problem = random_problem(rng, 2, 2, (2, 3), (1, 2, 3))
        candidates = candidates_of(problem)
        exact = dynamic.size(problem, candidates, "highs", Limits())
        monkeypatch.setattr(dynamic, "LABEL_LIMIT", 1)
        stopped = dynamic.size(problem, candidates, "highs", Limits(time_limit_s=0.0))
        finished = dynamic.size(problem, candidates, "highs", Limits())
        monkeypatch.undo()
        assert stopped.value(problem) <= exact.value(problem) * (1 + 1e-9)
        assert stopped.bound >= exact.value(problem) * (1 - 1e-9)
        assert finished.value(problem) == pytest.approx(exact.value(problem), rel=2e-6)
        assert finished.bound == pytest.approx(exact.value(problem), rel=2e-6)
        closed += stopped.bound > stopped.value(problem) * (1 + 1e-6)
    assert closed  # some of the problems did need the search


def test_one_more_device_never_hurts_and_order_does_not_matter() -> None:
    rng = np.random.default_rng(7)
    problem = random_problem(rng, 2, 2, (2, 3), (1, 2))
    value = dynamic.size(problem, candidates_of(problem), "highs", Limits()).value(problem)
    for device in problem.cluster.device_types:
        larger = replace(problem, cluster=problem.cluster.with_counts({device.name: device.count + 1}))
        assert dynamic.size(larger, candidates_of(larger), "highs", Limits()).value(larger) >= value * (1 - 1e-9)
    turned = replace(problem, dnns=problem.dnns[::-1])
    assert dynamic.size(turned, candidates_of(turned), "highs", Limits()).value(turned) == pytest.approx(value)


def test_other_problems_are_refused() -> None:
    three = random_problem(np.random.default_rng(1), 1, 1, (1, 1, 1), (1,))
    with pytest.raises(InputError, match="at most 2 device types"):
        dynamic.size(three, candidates_of(three), "highs", Limits())


def test_a_dnn_that_nothing_can_serve_is_worth_nothing() -> None:
    problem = random_problem(np.random.default_rng(1), 2, 1, (1, 1), (1,))
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
        items = dynamic.Items(np.arange(3), value, use)
        best = 0.0
        for counts in product(range(10), repeat=3):
            total = np.array(counts) @ use
            whole = -(-total[0::2] // 2).sum(), -(-total[1::2] // 3).sum()
            if whole[0] <= 2 and whole[1] <= 1:
                best = max(best, float(np.array(counts) @ value))
        rest = dynamic.knapsack.fill(items.totals, value, (4, 3))[0]
        space = labels.Space(items, (2, 1), units, rest)
        found = labels.search(space, floor=0.0, enough=inf, label_limit=10_000)
        assert found.value == pytest.approx(best)
        assert found.value == pytest.approx(sum(value[item] for item in found.items))
        assert found.bound == pytest.approx(best)
