"""Deployments against brute force, by hand, and what never may happen."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, product
from math import ceil

import numpy as np
import pytest

from planner.model import InputError
from planner.planning.merging.deployment import DeployedStage, MergeProblem, deploy, device_bytes
from planner.planning.merging.schemes import LayerGroup, MergeModel, Scheme, read_schemes, sharing_of


def random_problem(seed: int) -> MergeProblem:
    rng = np.random.default_rng(seed)
    groups = tuple(LayerGroup(int(rng.integers(10, 90)), float(rng.uniform(1, 3)), number < 2) for number in range(3))
    models = tuple(
        MergeModel(
            f"m{n}", groups, int(rng.integers(1, 3)), float(rng.choice([0.5, 1, 2])), float(rng.uniform(0.2, 0.7))
        )
        for n in range(2)
    )
    devices = tuple(int(size) for size in rng.integers(80, 300, rng.integers(1, 4)))
    schemes = (Scheme((0, 1), 0, int(rng.integers(1, 4))),) if rng.random() < 0.7 else ()
    return MergeProblem(models, devices, sharing_of(models, schemes), all_stages=bool(rng.random() < 0.3))


def ways(model: MergeModel, number: int, devices: int, all_stages: bool) -> Iterator[list[DeployedStage]]:
    """Every division into stages with every choice of devices for each."""
    count = len(model.groups)
    for pieces in range(1, min(model.max_stages, count) + 1):
        for cuts in combinations(range(1, count), pieces - 1):
            bounds = list(zip((0, *cuts), (*cuts, count), strict=True))
            choices = []
            for first, last in bounds:
                part = sum(group.latency for group in model.groups[first:last]) / model.latency
                least = max(1, ceil(model.peak_devices * part - 1e-9))
                choices.append([s for k in range(least, devices + 1) for s in combinations(range(devices), k)])
            for chosen in product(*choices):
                used = [device for places in chosen for device in places]
                empty = model.max_stages - pieces if all_stages else 0
                if len(set(used)) == len(used) and len(used) + empty <= devices:
                    yield [DeployedStage(number, *bound, places) for bound, places in zip(bounds, chosen, strict=True)]


def brute_force(problem: MergeProblem) -> int | None:
    best = None
    devices = len(problem.device_bytes)
    options = [list(ways(model, n, devices, problem.all_stages)) for n, model in enumerate(problem.models)]
    for chosen in product(*options):
        stages = [stage for own in chosen for stage in own]
        load = [0.0] * devices
        for stage in stages:
            model = problem.models[stage.model]
            part = sum(group.latency for group in model.groups[stage.first : stage.last]) / model.latency
            for device in stage.devices:
                load[device] += model.mean_devices * part / len(stage.devices)
        held = device_bytes(problem, stages)
        if max(load) <= 1 + 1e-9 and all(h <= m for h, m in zip(held, problem.device_bytes, strict=True)):
            best = sum(held) if best is None else min(best, sum(held))
    return best


@pytest.mark.parametrize("seed", range(40))
def test_equal_to_brute_force(seed: int) -> None:
    problem = random_problem(seed)
    expected = brute_force(problem)
    if expected is None:
        with pytest.raises(InputError):
            deploy(problem)
        return
    found = deploy(problem)
    assert found.memory_bytes == expected
    assert found.status == "optimal"


@pytest.mark.parametrize("seed", range(10))
def test_sharing_more_or_more_memory_never_costs_memory(seed: int) -> None:
    problem = replace(random_problem(seed), device_bytes=(500, 500, 500), all_stages=False)
    merged = deploy(replace(problem, sharing=sharing_of(problem.models, [Scheme((0, 1), 0, 2)]))).memory_bytes
    apart = deploy(replace(problem, sharing=frozenset())).memory_bytes
    assert merged <= apart
    assert deploy(replace(problem, sharing=frozenset(), device_bytes=(900, 900, 900))).memory_bytes <= apart


def test_shared_groups_count_once_per_device_by_hand() -> None:
    """Stem 100 shared by both, heads of 10 and 20 their own; one device holds 130, two devices 110 + 120."""
    models = tuple(
        MergeModel(name, (LayerGroup(100, 1.0), LayerGroup(head, 1.0, mergeable=False)), 1, 1.0, load)
        for name, head, load in (("a", 10, 0.4), ("b", 20, 0.6))
    )
    schemes = sharing_of(models, [Scheme((0, 1), 0, 1)])
    assert deploy(MergeProblem(models, (200, 200), schemes)).memory_bytes == 130
    busy = tuple(replace(model, mean_devices=0.7) for model in models)
    assert deploy(MergeProblem(busy, (200, 200), schemes)).memory_bytes == 230


def test_schemes_that_meet_join() -> None:
    group = LayerGroup(5, 1.0)
    models = [MergeModel(name, (group, group), 1, 1.0, 0.1) for name in "abc"]
    found = sharing_of(models, [Scheme((0, 1), 0, 2), Scheme((1, 2), 1, 2)])
    assert found == {frozenset({(0, 0), (1, 0)}), frozenset({(0, 1), (1, 1), (2, 1)})}


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        (Scheme((0, 0), 0, 1), "expected at least two different ones, got \\[0, 0\\]"),
        (Scheme((0, 5), 0, 1), "expected numbers below 2, got 5"),
        (Scheme((0, 1), 1, 4), "expected a range within the 2 groups of a, got \\[1, 4\\)"),
        (Scheme((0, 1), 1, 2), "group 1: expected equal groups to merge, got bytes \\{'a': 10, 'b': 20\\}"),
    ],
)
def test_schemes_that_cannot_be(scheme: Scheme, message: str) -> None:
    models = [
        MergeModel(name, (LayerGroup(100, 1.0), LayerGroup(size, 1.0)), 1, 1.0, 0.4)
        for name, size in (("a", 10), ("b", 20))
    ]
    with pytest.raises(InputError, match=message):
        sharing_of(models, [scheme])


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        ((1, 1.0, 0.4, (50,)), "m needs at least 100 bytes on a device, the largest has 50"),
        ((1, 3.0, 0.4, (200, 200)), "m needs 3 replicas at its peak, there are 2 devices"),
        ((1, 1.0, 1.5, (200,)), "need 1.5 devices on the mean, there are 1"),
    ],
)
def test_what_cannot_be_deployed_says_why(problem: tuple[int, float, float, tuple[int, ...]], message: str) -> None:
    stages, peak, mean, devices = problem
    model = MergeModel("m", (LayerGroup(60, 1.0), LayerGroup(40, 1.0)), stages, peak, mean)
    with pytest.raises(InputError, match=message):
        deploy(MergeProblem((model,), devices))


def test_published_schemes_are_read_with_care() -> None:
    assert read_schemes([{"models": [0, 2], "start": 1, "num_layers": 3}]) == (Scheme((0, 2), 1, 4),)
    with pytest.raises(InputError, match=r"schemes\[0\]: start is missing"):
        read_schemes([{"models": [0, 2], "num_layers": 3}])
