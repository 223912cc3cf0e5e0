"""Deployments made better a few models at a time: they stay deployments; all models at once reach the optimum."""

from dataclasses import replace

import numpy as np
import pytest

from planner.model import InputError
from planner.planning.merging.deployment import Deployment, MergeProblem, deploy, device_bytes, loads_of
from planner.planning.merging.neighbourhoods import deploy_anew, improve
from planner.planning.merging.schemes import LayerGroup, MergeModel, Scheme, sharing_of
from planner.planning.merging.stages import least_replicas
from planner.planning.programme.backends import Clock, Limits

LIMITS = Limits(1e-6, 20.0)


def random_problem(seed: int) -> MergeProblem:
    rng = np.random.default_rng(seed)
    groups = tuple(LayerGroup(int(rng.integers(10, 90)), float(rng.uniform(1, 3)), number < 3) for number in range(4))
    models = tuple(
        MergeModel(f"m{n}", groups, int(rng.integers(1, 3)), 1.0, float(rng.uniform(0.2, 0.6))) for n in range(4)
    )
    schemes = (Scheme((0, 1, 2), 0, int(rng.integers(1, 4))), Scheme((2, 3), 0, 1))
    return MergeProblem(models, tuple(rng.integers(350, 700, 4).tolist()), sharing_of(models, schemes))


def apart(problem: MergeProblem) -> Deployment | None:
    """A deployment of the problem that was planned as if nothing were shared."""
    try:
        return deploy(replace(problem, sharing=frozenset()))
    except InputError:
        return None


def keeps_all_limits(problem: MergeProblem, found: Deployment) -> bool:
    held, busy = device_bytes(problem, found.stages), loads_of(problem, found.stages)
    for number, model in enumerate(problem.models):
        own = [stage for stage in found.stages if stage.model == number]
        places = [device for stage in own for device in stage.devices]
        assert [stage.first for stage in own] == [0, *(stage.last for stage in own[:-1])]
        assert own[-1].last == len(model.groups)
        assert len(own) <= model.max_stages
        assert len(set(places)) == len(places)
        assert all(len(stage.devices) >= least_replicas(model, (stage.first, stage.last)) for stage in own)
    fits = all(used <= room for used, room in zip(held, problem.device_bytes, strict=True))
    return fits and max(busy) <= 1 + 1e-6


@pytest.mark.parametrize("seed", range(8))
def test_all_models_at_once_reach_the_optimum(seed: int) -> None:
    problem = random_problem(seed)
    begin = apart(problem)
    if begin is None:
        return
    everywhere = {number: set(range(len(model.groups) + 1)) for number, model in enumerate(problem.models)}
    stages = deploy_anew(problem, begin.stages, everywhere, range(4), LIMITS)
    assert stages is not None
    found = replace(begin, stages=stages)
    assert keeps_all_limits(problem, found)
    assert sum(device_bytes(problem, stages)) == deploy(problem).memory_bytes


@pytest.mark.parametrize("seed", range(8))
def test_a_few_models_at_a_time_never_need_more(seed: int) -> None:
    problem = random_problem(seed)
    begin = apart(problem)
    if begin is None:
        return
    before = sum(device_bytes(problem, begin.stages))
    stages = deploy_anew(problem, begin.stages, {0: {0, 2, 4}, 1: {0, 2, 4}}, range(4), LIMITS)
    assert stages is not None
    assert keeps_all_limits(problem, replace(begin, stages=stages))
    assert sum(device_bytes(problem, stages)) <= before
    others = [stage for stage in begin.stages if stage.model > 1]
    assert [stage for stage in stages if stage.model > 1] == others, "others stay where they are"
    best = deploy(problem).memory_bytes
    better = improve(problem, begin.stages, best, Clock(Limits(1e-6, 1.0)), seed)
    assert keeps_all_limits(problem, replace(begin, stages=better))
    assert best <= sum(device_bytes(problem, better)) <= before


def test_two_trunks_become_one_by_hand() -> None:
    """A trunk of 100 bytes on either device and heads of 10: model b moves to a's device, 220 bytes become 120."""
    models = tuple(
        MergeModel(name, (LayerGroup(100, 1.0), LayerGroup(10, 1.0, mergeable=False)), 1, 1.0, 0.4) for name in "ab"
    )
    problem = MergeProblem(models, (200, 200), sharing_of(models, [Scheme((0, 1), 0, 1)]))
    begin = deploy(replace(problem, device_bytes=(110, 110), sharing=frozenset())).stages
    assert sum(device_bytes(problem, begin)) == 220
    stages = deploy_anew(problem, begin, {1: {0, 2}}, (0, 1), LIMITS)
    assert stages is not None
    assert sum(device_bytes(problem, stages)) == 120
