"""Deployments of many models against the exact programme, which small cases allow."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from planner.model import InputError
from planner.planning.merging.deployment import MergeProblem, deploy, device_bytes
from planner.planning.merging.large import deploy_large
from planner.planning.merging.packing import pack
from planner.planning.merging.schemes import LayerGroup, MergeModel, Scheme, sharing_of
from planner.planning.merging.stages import Replicated, dual_feasible, latency_share, least_replicas
from planner.planning.programme.backends import Limits, TooLate


def random_problem(seed: int) -> MergeProblem:
    rng = np.random.default_rng(seed)
    groups = tuple(LayerGroup(int(rng.integers(10, 90)), float(rng.uniform(1, 3)), number < 3) for number in range(4))
    models = tuple(
        MergeModel(
            f"m{n}", groups, int(rng.integers(1, 4)), float(rng.choice([0.5, 1, 2])), float(rng.uniform(0.2, 0.7))
        )
        for n in range(3)
    )
    schemes = (Scheme((0, 1), 0, int(rng.integers(1, 5))), Scheme((1, 2), 0, 2))[: int(rng.integers(0, 3))]
    devices = tuple(rng.integers(200, 600, rng.integers(3, 5)).tolist())
    return MergeProblem(models, devices, sharing_of(models, schemes))


@pytest.mark.parametrize("seed", range(12))
def test_bounds_hold_and_deployments_are_what_they_say(seed: int) -> None:
    problem = random_problem(seed)
    best = deploy(problem).memory_bytes
    found = deploy_large(problem, limits=Limits(1e-6, 1.0))
    assert found.bound_bytes <= best * (1 + 1e-6)
    assert best <= found.memory_bytes
    held = device_bytes(problem, found.stages)
    assert sum(held) == found.memory_bytes
    assert all(used <= room for used, room in zip(held, problem.device_bytes, strict=True))
    busy: defaultdict[int, float] = defaultdict(float)
    for number, model in enumerate(problem.models):
        own = [stage for stage in found.stages if stage.model == number]
        places = [device for stage in own for device in stage.devices]
        assert len(set(places)) == len(places)
        assert [stage.first for stage in own] == [0, *(stage.last for stage in own[:-1])]
        assert own[-1].last == len(model.groups)
        assert len(own) <= model.max_stages
        for stage in own:
            assert len(stage.devices) >= least_replicas(model, (stage.first, stage.last))
            share = latency_share(model, (stage.first, stage.last))
            for device in stage.devices:
                busy[device] += model.mean_devices * share / len(stage.devices)
    assert max(busy.values()) <= 1 + 1e-6


@pytest.mark.parametrize("seed", range(8))
def test_families_on_few_devices(seed: int) -> None:
    """Two families of two models each, deployed alone and put together, where that may not fit at once."""
    rng = np.random.default_rng(100 + seed)
    models: list[MergeModel] = []
    for name in "ab":
        groups = tuple(LayerGroup(int(rng.integers(10, 90)), float(rng.uniform(1, 3))) for _ in range(3))
        models += [
            MergeModel(f"{name}{n}", groups, int(rng.integers(1, 3)), 1.0, float(rng.uniform(0.3, 0.9))) for n in "12"
        ]
    shared = sharing_of(
        models, [Scheme((0, 1), 0, int(rng.integers(1, 4))), Scheme((2, 3), 0, int(rng.integers(1, 4)))]
    )
    problem = MergeProblem(tuple(models), tuple(rng.integers(150, 500, 3).tolist()), shared)
    try:
        best = deploy(problem).memory_bytes
    except InputError:
        with pytest.raises(InputError, match="no deployment|needs at least"):
            deploy_large(problem, limits=Limits(0.01, 1.5))
        return
    try:
        found = deploy_large(problem, limits=Limits(0.01, 1.5))
    except TooLate:
        return
    assert found.bound_bytes <= best * (1 + 1e-6)
    assert best <= found.memory_bytes
    assert sum(device_bytes(problem, found.stages)) == found.memory_bytes
    assert found.status == "feasible" or found.memory_bytes <= best * 1.011


def test_a_replica_more_saves_a_copy_by_hand() -> None:
    """Three loads of 0.6 are 1.8 devices, but no two fit on one: 3 · 100 + 3 · 10 bytes with a replica each.

    With two replicas of one, 0.6 + 0.3 twice, there are two trunks and four heads: 2 · 100 + 4 · 10 bytes.
    """
    group, head = LayerGroup(100, 1.0), LayerGroup(10, 1.0, mergeable=False)
    models = tuple(MergeModel(name, (group, head), 1, 1.0, 0.6) for name in "abc")
    problem = MergeProblem(models, (1000,) * 3, sharing_of(models, [Scheme((0, 1, 2), 0, 2)]))
    assert deploy_large(problem).memory_bytes == deploy(problem).memory_bytes == 240
    apart = [Replicated(number, (0, 2), 1) for number in range(3)]
    packed = pack(problem, apart, enough_bytes=330)
    assert packed is not None
    assert sum(device_bytes(problem, packed)) == 330


def test_functions_of_the_bound_are_dual_feasible() -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        loads = rng.dirichlet(np.ones(rng.integers(1, 8)))
        for threshold in (0.0, 0.2, 0.3, 0.4, 0.5):
            assert sum(dual_feasible(load, threshold) for load in loads) <= 1 + 1e-9


def test_what_does_not_fit_is_refused() -> None:
    model = MergeModel("a", (LayerGroup(100, 1.0),), 1, 1.0, 0.5)
    with pytest.raises(InputError, match="a needs at least 100 bytes on a device, the largest has 50"):
        deploy_large(MergeProblem((model,), (50,)))
    with pytest.raises(InputError, match="all_stages: deploying many models"):
        deploy_large(MergeProblem((model,), (500,), all_stages=True))
    two = (model, replace(model, name="b"))
    with pytest.raises(InputError, match="no deployment keeps memory"):
        deploy_large(MergeProblem(two, (100, 60)))
