"""CoMPI's recursion: by hand, never better than the optimum, what it finds is a deployment, and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest

from planner.model import InputError
from planner.planning.merging.deployment import MergeProblem, deploy, device_bytes
from planner.planning.merging.recursion import deploy_recursively
from planner.planning.merging.schemes import LayerGroup, MergeModel, Scheme, sharing_of
from planner.planning.merging.stages import latency_share, least_replicas

TRUNK, HEAD = LayerGroup(100, 1.0), LayerGroup(10, 1.0, mergeable=False)


def random_problem(seed: int) -> MergeProblem:
    rng = np.random.default_rng(seed)
    groups = tuple(LayerGroup(int(rng.integers(10, 90)), float(rng.uniform(1, 3)), number < 3) for number in range(4))
    limits = sorted(rng.integers(1, 3, 3).tolist())
    models = tuple(
        MergeModel(f"m{n}", groups, limit, float(rng.choice([1, 1, 2])), float(rng.uniform(0.1, 0.6)))
        for n, limit in enumerate(limits)
    )
    scheme = Scheme((0, 1, 2), int(rng.integers(0, 2)), int(rng.integers(2, 5)))
    devices = tuple(rng.integers(150, 600, rng.integers(2, 4)).tolist())
    return MergeProblem(models, devices, sharing_of(models, [scheme] if rng.random() < 0.8 else []), all_stages=True)


@pytest.mark.parametrize("seed", range(12))
def test_never_better_than_the_optimum_and_a_deployment(seed: int) -> None:
    problem = random_problem(seed)
    try:
        found = deploy_recursively(problem)
    except InputError:
        return
    assert found.memory_bytes >= deploy(problem).memory_bytes
    held = device_bytes(problem, found.stages)
    assert sum(held) == found.memory_bytes
    assert all(used <= room for used, room in zip(held, problem.device_bytes, strict=True))
    busy = np.zeros(len(held))
    for number, model in enumerate(problem.models):
        own = [stage for stage in found.stages if stage.model == number]
        assert [stage.first for stage in own] == [0, *(stage.last for stage in own[:-1])]
        assert own[-1].last == len(model.groups)
        places = [device for stage in own for device in stage.devices]
        assert len(set(places)) == len(places)
        assert len(places) + model.max_stages - len(own) <= len(held)
        for stage in own:
            assert len(stage.devices) >= least_replicas(model, (stage.first, stage.last))
            work = model.mean_devices * latency_share(model, (stage.first, stage.last))
            busy[list(stage.devices)] += work / len(stage.devices)
    assert busy.max() <= 1 + 1e-6


def test_two_models_have_the_optimum() -> None:
    """With two models there is one node, whose programme is that of the whole problem."""
    for seed in range(6):
        problem = random_problem(seed)
        two = replace(problem, models=problem.models[:2], sharing=frozenset())
        try:
            expected = deploy(two).memory_bytes
        except InputError:
            with pytest.raises(InputError):
                deploy_recursively(two)
            continue
        assert deploy_recursively(two).memory_bytes == expected


def test_the_shortest_stages_are_as_long_as_can_be_by_hand() -> None:
    """Two stages of three groups, 1, 2 and 3 ms, on devices of their own: 3 + 3 ms, and not 1 + 5."""
    groups = tuple(LayerGroup(10, latency) for latency in (1.0, 2.0, 3.0))
    models = tuple(MergeModel(name, groups, 2, 1.0, 0.2) for name in "ab")
    found = deploy_recursively(MergeProblem(models, (1000, 1000)))
    assert [(stage.model, stage.first, stage.last) for stage in found.stages] == [
        (0, 0, 2), (0, 2, 3), (1, 0, 2), (1, 2, 3),
    ]  # fmt: skip


def test_a_half_is_placed_as_one_model_by_hand() -> None:
    """Three models, loads 0.5 each, on two devices of load 1: b and c together are a model of peak and load 1.

    That needs a device alone, or two with 0.5 each; a needs 0.5 of one. So b + c go to both, beside a, or to the
    other one. What costs least: b + c on one device, 220 bytes, a on the other, 110. The optimum is the same.
    """
    models = tuple(
        MergeModel(name, (TRUNK, HEAD), limit, 1.0, 0.5) for name, limit in zip("abc", (1, 2, 2), strict=True)
    )
    single = tuple(replace(model, max_stages=1) for model in models)
    found = deploy_recursively(MergeProblem(single, (1000, 1000)))
    assert found.memory_bytes == deploy(MergeProblem(single, (1000, 1000))).memory_bytes == 330
    assert deploy_recursively(MergeProblem(single, (1000, 1000)), ties=np.random.default_rng(1)).memory_bytes == 330


@pytest.mark.parametrize(
    ("limits", "scheme", "devices", "message"),
    [
        # stage limits that fall
        ((2, 1, 1), None, (1000, 1000), "expected them by increasing stage limit, got limits [2, 1, 1]"),
        # models 0 and 2 are no node: the tree has 0, 1 | 2 here
        (
            (1, 1, 2),
            (0, 2),
            (1000, 1000),
            "expected one group of the models of a node of CoMPI's tree, (0, 1), (0, 1, 2)",
        ),
        # two stages need two devices each
        ((2, 2, 2), None, (1000,), "a must have 2 stages, there are 1 devices"),
        # three models of 110 bytes where 250 are
        ((1, 1, 1), None, (150, 100), "finds no place for a, b, c beside what it placed before"),
    ],
)
def test_what_it_has_no_words_for(
    limits: tuple[int, ...], scheme: tuple[int, ...] | None, devices: tuple[int, ...], message: str
) -> None:
    models = tuple(MergeModel(name, (TRUNK, HEAD), limit, 1.0, 0.3) for name, limit in zip("abc", limits, strict=True))
    sharing = sharing_of(models, [Scheme(scheme, 0, 1)] if scheme else [])
    with pytest.raises(InputError) as refused:
        deploy_recursively(MergeProblem(models, devices, sharing))
    assert message in str(refused.value)


def test_unlike_architectures_are_refused() -> None:
    models = (MergeModel("a", (TRUNK, HEAD), 1, 1.0, 0.3), MergeModel("b", (TRUNK,), 1, 1.0, 0.3))
    with pytest.raises(InputError, match="expected one architecture"):
        deploy_recursively(MergeProblem(models, (1000,)))
