"""Deployments against brute force, by hand, and what never may happen."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from merging_oracle import least_bytes

from planner.model import InputError
from planner.planning.merging.deployment import MergeProblem, deploy, device_bytes
from planner.planning.merging.schemes import LayerGroup, MergeModel, Scheme, Sharing, read_schemes, sharing_of


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


@pytest.mark.parametrize("seed", range(40))
def test_equal_to_brute_force(seed: int) -> None:
    problem = random_problem(seed)
    expected = least_bytes(problem)
    if expected is None:
        with pytest.raises(InputError):
            deploy(problem)
        return
    found = deploy(problem)
    assert found.memory_bytes == expected
    assert found.status == "optimal"


def few_models(rng: np.random.Generator, models: int = 2, groups: int = 3) -> tuple[MergeModel, ...]:
    layers = tuple(
        LayerGroup(int(rng.integers(10, 90)), float(rng.uniform(1, 3)), number < groups - 1) for number in range(groups)
    )
    return tuple(
        MergeModel(
            f"m{n}", layers, int(rng.integers(1, 3)), float(rng.choice([0.5, 1, 2])), float(rng.uniform(0.1, 0.6))
        )
        for n in range(models)
    )


def on_unlike_devices(rng: np.random.Generator) -> MergeProblem:
    """Memories from what holds a group to what holds everything."""
    models = few_models(rng, 3)
    return MergeProblem(models, tuple(rng.integers(60, 500, 3).tolist()), shared(models, rng))


def four_models(rng: np.random.Generator) -> MergeProblem:
    models = few_models(rng, 4, groups=2)
    return MergeProblem(models, (int(rng.integers(150, 400)),) * int(rng.integers(2, 4)), shared(models, rng))


def just_enough(rng: np.random.Generator) -> MergeProblem:
    """Every device has exactly what the best deployment with plenty of memory holds there."""
    models = few_models(rng, 3)
    roomy = MergeProblem(models, (1000,) * 3, shared(models, rng))
    return replace(roomy, device_bytes=tuple(device_bytes(roomy, deploy(roomy).stages)))


def one_byte_less(rng: np.random.Generator) -> MergeProblem:
    """As before, and the fullest device has a byte less."""
    problem = just_enough(rng)
    most = max(problem.device_bytes)
    return replace(problem, device_bytes=tuple(size - (size == most) for size in problem.device_bytes))


def with_empty_groups(rng: np.random.Generator) -> MergeProblem:
    """Groups without weights, as activations and pooling are, at no device's cost; one takes no time, either."""
    models = few_models(rng, 2, groups=4)
    bare = tuple(
        replace(group, parameter_bytes=0 if number in (1, 2) else group.parameter_bytes, latency=(number != 2) * 1.5)
        for number, group in enumerate(models[0].groups)
    )
    models = tuple(replace(model, groups=bare) for model in models)
    return MergeProblem(models, tuple(rng.integers(40, 300, 3).tolist()), shared(models, rng))


def of_equal_models(rng: np.random.Generator) -> MergeProblem:
    """One model several times, all of it merged but the head."""
    one = few_models(rng, 1)[0]
    models = tuple(replace(one, name=f"m{n}") for n in range(3))
    sharing = sharing_of(models, [Scheme((0, 1, 2), 0, 3)])
    return MergeProblem(models, (int(rng.integers(100, 400)),) * 3, sharing, all_stages=bool(rng.random() < 0.3))


def shared(models: tuple[MergeModel, ...], rng: np.random.Generator) -> Sharing:
    """Some of the first groups of some models."""
    some = tuple(sorted(rng.permutation(len(models))[: int(rng.integers(2, len(models) + 1))].tolist()))
    return sharing_of(models, [Scheme(some, 0, int(rng.integers(1, len(models[0].groups))))])


KINDS = [on_unlike_devices, four_models, just_enough, one_byte_less, with_empty_groups, of_equal_models]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_problems_equal_to_brute_force(kind: Callable[[np.random.Generator], MergeProblem], seed: int) -> None:
    problem = kind(np.random.default_rng(seed))
    expected = least_bytes(problem)
    if expected is None:
        with pytest.raises(InputError):
            deploy(problem)
        return
    found = deploy(problem)
    assert found.memory_bytes == expected
    assert found.bound_bytes == pytest.approx(expected, rel=1e-6)
    held = device_bytes(problem, found.stages)
    assert all(used <= room for used, room in zip(held, problem.device_bytes, strict=True))


def test_a_byte_decides_by_hand() -> None:
    """A trunk of 100 and heads of 10: one device of 120 holds both models, one of 119 neither way."""
    group, head = LayerGroup(100, 1.0), LayerGroup(10, 1.0, mergeable=False)
    models = tuple(MergeModel(name, (group, head), 1, 1.0, 0.4) for name in "ab")
    sharing = sharing_of(models, [Scheme((0, 1), 0, 1)])
    assert deploy(MergeProblem(models, (120,), sharing)).memory_bytes == 120
    with pytest.raises(InputError, match="no deployment keeps memory"):
        deploy(MergeProblem(models, (119,), sharing))


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
