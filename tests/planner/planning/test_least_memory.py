"""The objective least_memory: against brute force, with and without pools of several DNNs, and by hand."""

from collections import Counter
from dataclasses import replace
from itertools import product
from math import ceil
from pathlib import Path
from typing import get_args

import pytest
from oracles import every_pipeline, random_problem, with_detours

from planner.files import load_plan, load_problem, save
from planner.model import (
    Block,
    Cluster,
    DeviceType,
    Dnn,
    InputError,
    LatencyTable,
    Merged,
    MergedMember,
    Network,
    Options,
    Problem,
    Profile,
    Provenance,
)
from planner.model.check import check
from planner.model.memory import planned_memory_bytes
from planner.model.objective import MAXIMISED
from planner.model.problem import Objective
from planner.planning import make_plan

MEASURED = Provenance("measured", "by hand")


def asked(seed: int, rate_rps: float, **kinds: object) -> Problem:
    """Return a small problem of unlike devices, links and memories; each DNN is served at a rate."""
    problem = with_detours(random_problem(seed, **{"counts": (2, 2), "shares": (1,), **kinds}), seed)  # type: ignore[arg-type]
    dnns = tuple(replace(dnn, rate_rps=rate_rps) for dnn in problem.dnns)
    return replace(problem, dnns=dnns, options=replace(problem.options, objective="least_memory"))


def brute_force(problem: Problem) -> float | None:
    """Return the least megabytes of one DNN with at most two pipelines, of every size."""
    (dnn,) = problem.dnns
    types = problem.cluster.device_types
    counts = [device.count for device in types]
    pieces = list(every_pipeline(problem, dnn))
    sized = []
    for piece in pieces:
        profile = dnn.variants[piece.variant]
        runs = zip(piece.batches, piece.cuts, piece.cuts[1:], strict=False)
        held = [profile.memory_bytes(batch, first, last) for batch, first, last in runs]
        for slices in product(*(range(1, counts[device] + 1) for device in piece.devices)):
            rps = min(n * one for n, one in zip(slices, piece.slice_rps, strict=True))
            if any(n > ceil(rps / one - 1e-9) for n, one in zip(slices, piece.slice_rps, strict=True)):
                continue
            on = Counter[tuple[int, int]]()
            for position, (device, n) in enumerate(zip(piece.devices, slices, strict=True)):
                on[position, device] += n
            sized.append((sum(n * one for n, one in zip(slices, held, strict=True)), rps, on))
    best: float | None = None
    nothing: Counter[tuple[int, int]] = Counter()
    for (one, rps, on), (more, faster, also) in product(sized, [(0, 0.0, nothing), *sized]):
        used = Counter[int]()
        for (_, device), n in (on + also).items():
            used[device] += n
        if rps + faster >= (dnn.rate_rps or 0) * (1 - 1e-9) and all(used[g] <= counts[g] for g in used):
            best = one + more if best is None else min(best, one + more)
    return None if best is None else best / 1e6


@pytest.mark.parametrize("seed", range(20))
def test_equal_to_brute_force(seed: int) -> None:
    problem = asked(seed, rate_rps=(80.0, 250.0, 500.0)[seed % 3])
    expected = brute_force(problem)
    if expected is None:
        with pytest.raises(InputError):
            make_plan(problem)
        return
    plan = make_plan(problem)
    assert plan.value == pytest.approx(expected, rel=1e-6)
    assert plan.status == "optimal"
    assert not check(problem, plan)
    assert plan.value == planned_memory_bytes(problem, plan.pipelines) / 1e6


def classifiers(objective: str, rate_rps: float = 40.0, share: bool = True) -> Problem:
    """Three DNNs of a trunk (4 ms; 100 bytes) and a head (1 ms; 50 bytes), 10 and 5 bytes of activations a request."""
    dnns = []
    for name in ("cats", "dogs", "birds"):
        tables = tuple(
            LatencyTable(device, 1, (1, 2), ((4000 * slower, 1000 * slower), (6000 * slower, 1500 * slower)), MEASURED)
            for device, slower in (("Jetson", 1), ("Pi", 3))
        )
        profile = Profile(name, (Block(("trunk",), 100, 10), Block((name,), 50, 5)), (1000,), tables)
        dnns.append(Dnn(name, 80_000, (profile,), rate_rps=rate_rps, np_throughput_rps=200.0))
    types = (
        DeviceType("Jetson", 2, memory_bytes=130, price_per_hour=3.0),
        DeviceType("Pi", 6, memory_bytes=125, price_per_hour=1.0),
    )
    merged = (Merged(tuple(MergedMember(dnn.name) for dnn in dnns)),) if share else ()
    return Problem(Cluster(types, Network(1.0)), tuple(dnns), Options(objective=objective), merged=merged)  # type: ignore[arg-type]


def test_one_trunk_for_three_by_hand() -> None:
    """40/s each fit on one trunk of the Jetson's 250/s, at batch 1: 110 bytes, and three heads of 55; apart 3 · 165.

    Batches of two would hold 120 and 60.
    """
    plan = make_plan(classifiers("least_memory"))
    assert plan.value * 1e6 == pytest.approx(110 + 3 * 55)
    assert {stage.batch for pipeline in plan.pipelines for stage in pipeline.stages} == {1}
    assert not check(classifiers("least_memory"), plan)
    apart = make_plan(classifiers("least_memory", share=False))
    assert apart.value * 1e6 == pytest.approx(3 * (110 + 55))


@pytest.mark.parametrize("rate_rps", [40.0, 90.0, 110.0])
@pytest.mark.parametrize("objective", ["least_memory", "fewest_devices", "least_cost"])
def test_merging_never_costs_more(objective: str, rate_rps: float) -> None:
    """On devices of two types, whatever is counted; nothing is planned with less memory than the least."""
    plan = make_plan(classifiers(objective, rate_rps))
    assert not check(classifiers(objective, rate_rps), plan)
    least = make_plan(classifiers("least_memory", rate_rps))
    assert least.value <= planned_memory_bytes(classifiers(objective, rate_rps), plan.pipelines) / 1e6 + 1e-12
    try:
        apart = make_plan(classifiers(objective, rate_rps, share=False))
    except InputError:
        return
    assert plan.value <= apart.value * (1 + 1e-9)


@pytest.mark.parametrize("objective", get_args(Objective))
def test_every_objective_from_a_problem_file(objective: Objective, tmp_path: Path) -> None:
    """Plans with pools are no worse than those without, whatever is asked for; both from files."""
    found = {}
    for share in (True, False):
        problem = classifiers(objective, 60.0, share)
        types = tuple(replace(kind, idle_watts=2.0, busy_watts=9.0) for kind in problem.cluster.device_types)
        dnns = tuple(replace(dnn, accuracy={dnn.name: 90.0}) for dnn in problem.dnns)
        save(
            replace(problem, cluster=replace(problem.cluster, device_types=types), dnns=dnns), tmp_path / "problem.json"
        )
        read = load_problem(tmp_path / "problem.json")
        plan = make_plan(read)
        save(plan, tmp_path / "plan.json")
        assert not check(read, load_plan(tmp_path / "plan.json"))
        found[share] = plan.value
    better, rounding = (max if MAXIMISED[objective] else min), 1 + 1e-6 * (-1 if MAXIMISED[objective] else 1)
    assert better(found[True], found[False] * rounding) == found[True]


def test_a_rate_is_needed() -> None:
    problem = classifiers("least_memory")
    dnns = tuple(replace(dnn, rate_rps=None) for dnn in problem.dnns)
    with pytest.raises(InputError, match="rate_rps of cats: missing; the objective least_memory needs it"):
        make_plan(replace(problem, dnns=dnns))
