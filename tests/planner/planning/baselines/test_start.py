"""The plan to begin with: against brute force, on every kind of devices and objective, and whatever time is left."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from oracles import random_problem

from planner.model import Problem
from planner.model.check import check
from planner.model.objective import MAXIMISED
from planner.model.problem import GIVEN_RATES, DeviceSharing, Objective
from planner.planning import make_plan
from planner.planning.baselines import first_plan, unpartitioned, with_x0
from planner.planning.baselines.start import Deal, exchanged, one_each
from planner.planning.pipelines import listing
from planner.planning.pipelines.terrain import terrain
from planner.planning.programme import backends
from planner.planning.programme.backends import clock
from planner.planning.programme.block_bound import block_bound


def asked(problem: Problem, objective: Objective, rate_rps: float = 20.0) -> Problem:
    """The problem under another objective, with all that it needs."""
    types = tuple(
        replace(device, idle_watts=10.0 + number, busy_watts=50.0 + number)
        for number, device in enumerate(problem.cluster.device_types)
    )
    rates = rate_rps if objective in GIVEN_RATES else None
    dnns = tuple(replace(dnn, rate_rps=rates) for dnn in problem.dnns)
    options = replace(problem.options, objective=objective)
    return replace(problem, cluster=replace(problem.cluster, device_types=types), dnns=dnns, options=options)


@pytest.mark.parametrize("seed", range(30))
def test_every_dnn_gets_a_device_where_some_choice_of_one_each_fits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    dnns, types = int(rng.integers(1, 5)), int(rng.integers(1, 4))
    rate_rps = rng.uniform(1, 9, (dnns, types)) * rng.integers(0, 2, (dnns, types))
    units = rng.integers(0, 3, types)
    choices = itertools.product(range(types), repeat=dnns)
    possible = any(
        all(rate_rps[dnn, kind] > 0 for dnn, kind in enumerate(choice))
        and (np.bincount(choice, minlength=types) <= units).all()
        for choice in choices
    )
    held = one_each(rate_rps, units)
    assert (held is not None) == possible
    if held is not None:
        assert (held.sum(axis=1) == 1).all()
        assert (held.sum(axis=0) <= units).all()
        assert (rate_rps[held > 0] > 0).all()


@pytest.mark.parametrize("seed", range(20))
def test_exchanges_serve_the_least_more_until_none_of_two_dnns_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    dnns, types = int(rng.integers(2, 5)), int(rng.integers(1, 4))
    rate_rps = rng.uniform(1, 9, (dnns, types)) * rng.integers(0, 2, (dnns, types))
    held = rng.integers(0, 4, (dnns, types)) * (rate_rps > 0)
    deal = Deal(rate_rps, held.sum(axis=0), rng.uniform(0.5, 2, dnns))
    found = exchanged(deal, held)
    assert (found >= 0).all()
    assert (found.sum(axis=0) == held.sum(axis=0)).all()
    assert (found[rate_rps == 0] == 0).all()
    reached = deal.values(found)
    assert reached.min() >= deal.values(held).min() * (1 - 1e-12)
    least = int(reached.argmin())
    for other, got, gave in itertools.product(range(dnns), range(types), (None, *range(types))):
        changed = found.copy()
        for kind, sign in ((got, 1), (gave, -1)):
            if kind is not None:
                changed[least, kind] += sign
                changed[other, kind] -= sign
        if other != least and (changed >= 0).all():
            assert deal.values(changed)[[least, other]].min() <= reached[least] * (1 + 1e-6)


@pytest.mark.parametrize("sharing", ["own", "shared"])
@pytest.mark.parametrize("objective", ["max_min_throughput", "max_weighted_throughput", "least_cost"])
@pytest.mark.parametrize("seed", range(2))
def test_it_fits_and_is_no_better_than_nps_plan_and_the_bound_of_blocks(
    seed: int, objective: Objective, sharing: DeviceSharing
) -> None:
    problem = asked(random_problem(seed, dnns=3, counts=(3, 2, 2), shares=(1, 2)), objective)
    problem = replace(problem, options=replace(problem.options, device_sharing=sharing))
    start = first_plan(problem)
    assert start is not None
    used = start.devices(problem)
    assert all(used.get(number, 0) <= device.count for number, device in enumerate(problem.cluster.device_types))
    best = make_plan(problem, "np")
    sign = 1 if MAXIMISED[objective] else -1
    assert sign * start.value(problem) <= sign * best.value * (1 + sign * 1e-6)
    assert sign * make_plan(problem).value <= sign * block_bound(problem) * (1 + sign * 1e-6)
    if objective == "max_weighted_throughput" and sharing == "own":  # every device goes where it earns most
        assert start.value(problem) == pytest.approx(best.value)


def test_more_dnns_than_devices_begin_on_segments() -> None:
    problem = random_problem(2, dnns=5, counts=(2, 1), shares=(1, 2))
    problem = replace(problem, dnns=tuple(replace(dnn, slo_us=80_000.0) for dnn in problem.dnns))
    assert first_plan(problem) is None
    shared = replace(problem, options=replace(problem.options, device_sharing="shared"))
    start = first_plan(shared)
    assert start is not None
    assert min(start.throughput_rps(number) for number in range(5)) > 0
    assert sum(start.devices(shared).values()) <= 3


def test_a_million_devices_are_dealt_out_at_once() -> None:
    problem = random_problem(3, dnns=3, counts=(1_000_000, 10, 0))
    start = first_plan(problem)
    assert start is not None
    assert start.value(problem) >= 0.999 * make_plan(problem, "np").value


@pytest.mark.parametrize("which", [listing.BEST, listing.ALL])
@pytest.mark.parametrize("seed", range(4))
def test_one_stage_is_listed_as_compiled_code_does(seed: int, which: int) -> None:
    problem = unpartitioned(random_problem(seed, counts=(2, 0, 3), shares=(1, 2)))
    ground = terrain(problem, 0, 0, 300.0)
    ours = listing.listed(ground, which)
    longer = replace(ground, max_stages=2, counts=np.minimum(ground.counts, 1), device=ground.device)
    theirs = listing.listed(longer, which)
    one = theirs.stages == 1
    assert ours.place[:, 0].tolist() == theirs.place[one, 0].tolist()
    assert ours.part[:, 0].tolist() == theirs.part[one, 0].tolist()
    assert ours.slice_rps[:, 0].tolist() == theirs.slice_rps[one, 0].tolist()
    assert ours.latency_us.tolist() == theirs.latency_us[one].tolist()
    assert ours.cuts.tolist() == theirs.cuts[one, :2].tolist()


@pytest.fixture
def past(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every limited time be over from the beginning."""
    monkeypatch.setattr(backends.Clock, "over", property(lambda self: self._limits.time_limit_s is not None))


CASES: dict[str, Callable[[], Problem]] = {
    "two types": lambda: random_problem(1, dnns=3, counts=(3, 3)),
    "three types": lambda: random_problem(2, dnns=3, counts=(3, 3, 3), shares=(1, 2, 3)),
    "many devices": lambda: random_problem(4, dnns=3, counts=(600, 700, 800)),
    "shared devices": lambda: replace(
        random_problem(5, dnns=4, counts=(2, 2)), options=replace(random_problem(5).options, device_sharing="shared")
    ),
    "given rates": lambda: asked(random_problem(6, dnns=3, counts=(3, 3, 3)), "least_cost"),
    "energy": lambda: asked(random_problem(6, dnns=3, counts=(3, 3, 3)), "least_energy"),
    "weighted": lambda: asked(random_problem(7, dnns=3, counts=(3, 3, 3)), "max_weighted_throughput"),
}


ANY = ("auto", "milp")
KNOWN: dict[str, tuple[str, ...]] = {
    "two types": (*ANY, "dynamic", "decomposition", "columns"),
    "three types": (*ANY, "decomposition", "columns"),
    "many devices": (*ANY, "decomposition", "columns"),
    "shared devices": (*ANY, "decomposition"),
    "given rates": (*ANY, "decomposition"),
    "energy": ANY,
    "weighted": ANY,
}


@pytest.mark.parametrize("limit_s", [1e-6, 0.05])
@pytest.mark.parametrize(("case", "method"), [(case, method) for case, known in KNOWN.items() for method in known])
def test_there_is_a_plan_whatever_the_method_when_the_time_is_over(
    case: str, method: str, limit_s: float, past: None
) -> None:
    problem = with_x0(CASES[case]())
    start = first_plan(problem)
    assert start is not None
    plan = make_plan(problem, method=method, time_limit_s=limit_s)
    sign = 1 if MAXIMISED[problem.options.objective] else -1
    assert sign * plan.value >= sign * start.value(problem) - 1e-9
    assert sign * plan.bound >= sign * plan.value
    assert check(problem, plan) == ()


@pytest.mark.parametrize("case", CASES)
def test_x0_and_np_need_no_time_either(case: str, past: None) -> None:
    problem = CASES[case]()
    problem = replace(problem, dnns=tuple(replace(dnn, np_throughput_rps=None) for dnn in problem.dnns))
    whole, pipelines = make_plan(problem, "np", time_limit_s=1e-6), make_plan(problem, time_limit_s=1e-6)
    sign = 1 if MAXIMISED[problem.options.objective] else -1
    if pipelines.np_throughput_rps == whole.np_throughput_rps:  # not always: time ends the search for X0
        assert sign * pipelines.value >= sign * whole.value * (1 - sign * 1e-6)
    assert all(whole.throughput_rps(dnn.name) > 0 for dnn in problem.dnns) or "weighted" in case


def test_too_many_candidates_for_the_time_leave_the_plan_to_begin_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock runs out while the programme is built, not before."""
    problem = random_problem(4, dnns=3, stages=3, counts=(20, 20, 20), shares=(1, 2, 3))
    ticks = itertools.count()
    monkeypatch.setattr(clock, "monotonic", lambda: next(ticks) * 0.01)
    plan = make_plan(problem, method="milp", time_limit_s=1.0)
    start = first_plan(problem)
    assert start is not None
    assert start.value(problem) * (1 - 1e-9) <= plan.value <= plan.bound
