"""Families deployed by branch and bound, against the exact programme."""

import numpy as np
import pytest

from planner.planning.merging.branch_and_bound import least_memory
from planner.planning.merging.deployment import MergeProblem, deploy, device_bytes, loads_of
from planner.planning.merging.schemes import LayerGroup, MergeModel, Scheme, sharing_of
from planner.planning.merging.stages import least_replicas
from planner.planning.programme.backends import Clock, Limits

ENDLESS = Clock(Limits(0.0))
AT_ONCE = Clock(Limits(0.0, 0.0))


def random_family(seed: int) -> MergeProblem:
    """Return models of one architecture with a head each that share a trunk, and some of them what follows it."""
    rng = np.random.default_rng(seed)
    count, models = int(rng.integers(2, 6)), int(rng.integers(2, 4))
    groups = (
        *(LayerGroup(int(rng.integers(0, 90)), float(rng.uniform(0.5, 3))) for _ in range(count)),
        LayerGroup(int(rng.integers(0, 20)), 0.1, mergeable=False),
    )
    made = tuple(
        MergeModel(
            f"m{number}",
            groups,
            int(rng.integers(1, 4)),
            float(rng.choice([0.5, 1.0, 1.7, 2.4])),
            float(rng.uniform(0.1, 1.0)),
        )
        for number in range(models)
    )
    trunk = int(rng.integers(1, count + 1))
    schemes = [Scheme(tuple(range(models)), 0, trunk)] + [Scheme((0, 1), trunk, count + 1)] * (seed % 2)
    room = int(rng.integers(150, 400)) if seed % 3 == 0 else 10_000
    return MergeProblem(made, (room,) * int(rng.integers(3, 5)), sharing_of(made, schemes))


@pytest.mark.parametrize("seed", range(40))
def test_the_least_memory_is_that_of_the_programme(seed: int) -> None:
    problem = random_family(seed)
    found = least_memory(problem, 1e-9, ENDLESS)
    assert found.finished
    try:
        best = deploy(problem)
    except ValueError:
        assert found.stages is None
        return
    assert found.stages is not None
    assert sum(device_bytes(problem, found.stages)) == best.memory_bytes
    assert found.bound_bytes == pytest.approx(best.memory_bytes, rel=1e-6)
    assert max(loads_of(problem, found.stages)) <= 1 + 1e-6
    assert max(device_bytes(problem, found.stages)) <= problem.device_bytes[0]
    for stage in found.stages:
        assert len(set(stage.devices)) >= least_replicas(problem.models[stage.model], (stage.first, stage.last))


@pytest.mark.parametrize("seed", range(0, 40, 5))
def test_a_gap_leaves_no_more_than_it_says(seed: int) -> None:
    problem = random_family(seed)
    exact, rough = least_memory(problem, 1e-9, ENDLESS), least_memory(problem, 0.2, ENDLESS)
    if exact.stages is None or rough.stages is None:
        assert exact.stages is rough.stages
        return
    least, found = sum(device_bytes(problem, exact.stages)), sum(device_bytes(problem, rough.stages))
    assert rough.bound_bytes <= least * (1 + 1e-9) <= found * (1 + 2e-9)
    assert rough.bound_bytes >= 0.8 * found * (1 - 1e-9)


def test_without_time_there_is_no_bound() -> None:
    problem = random_family(1)
    found = least_memory(problem, 1e-9, AT_ONCE)
    assert not found.finished
    assert found.bound_bytes == 0


def test_more_classes_than_bits_of_a_word() -> None:
    """Two models of 70 shared groups and a head: half of the load on one device each, or all on both, or a cut."""
    groups = (*(LayerGroup(10, 1.0) for _ in range(70)), LayerGroup(5, 1.0, mergeable=False))
    models = tuple(MergeModel(name, groups, 2, 1.0, 0.71) for name in "ab")
    problem = MergeProblem(models, (10_000,) * 3, sharing_of(models, [Scheme((0, 1), 0, 71)]))
    found = least_memory(problem, 1e-9, ENDLESS)
    assert found.stages is not None
    # Cut alike, so that each half of both fits on a device: every group once, and the heads.
    assert sum(device_bytes(problem, found.stages)) == 710


def test_models_that_nobody_asks_for() -> None:
    groups = (LayerGroup(10, 1.0), LayerGroup(5, 1.0))
    problem = MergeProblem((MergeModel("a", groups, 2, 1.0, 0.0),), (100, 100))
    found = least_memory(problem, 1e-9, ENDLESS)
    assert found.stages is not None
    assert sum(device_bytes(problem, found.stages)) == deploy(problem).memory_bytes == 15


def test_any_number_of_stages_takes_no_more_room_than_is_used() -> None:
    groups = tuple(LayerGroup(10, 1.0) for _ in range(52))
    models = tuple(MergeModel(f"m{number}", groups, 52, 1.0, 0.3) for number in range(20))
    problem = MergeProblem(models, (1_000,) * 16, sharing_of(models, [Scheme(tuple(range(20)), 0, 52)]))
    found = least_memory(problem, 0.1, Clock(Limits(0.1, 0.5)))
    assert found.stages is not None
    assert found.bound_bytes <= sum(device_bytes(problem, found.stages))


def test_more_load_than_devices_is_no_search() -> None:
    groups = tuple(LayerGroup(10, 1.0) for _ in range(5))
    models = tuple(MergeModel(f"m{number}", groups, 4, 1.0, 1.0) for number in range(4))
    found = least_memory(MergeProblem(models, (1_000,) * 3), 1e-9, ENDLESS)
    assert found.finished
    assert found.stages is None
