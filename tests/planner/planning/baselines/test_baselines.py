"""NP and DART-r by hand, by rule, and as published."""

import itertools
import os
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest
from oracles import MEASURED, brute_force, random_problem

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
)
from planner.model.check import check
from planner.planning import make_plan
from planner.planning.baselines import devices_of, find_x0, size_dart_r, unpartitioned, with_x0
from planner.planning.pipelines.candidates import enumerate_candidates
from planner.planning.programme.backends import Limits, clock
from planner.planning.programme.relaxation import relax

REFERENCE = os.environ.get("POOLPIPE_REFERENCE")
DATA = Path(REFERENCE or "") / "ppipe"

# Published NP plans that give a DNN that does not bind more devices than the objective needs: any number up to all
# spare ones is optimal, the published one is where that solver stopped. Ours has the fewest.
ARBITRARY = {
    ("efficientnet-b8_3rdparty_8xb32-aa-advprop_in1k", "L4-T4"),
    ("efficientnet-b8_3rdparty_8xb32-aa-advprop_in1k", "V100-T4"),
    ("tf_efficientdet_d1", "L4-T4"),
    ("tf_efficientdet_d1", "V100-T4"),
}


def profile(name: str, latency_us: dict[str, tuple[tuple[int, ...], ...]], cut_bytes: tuple[int, ...] = ()) -> Profile:
    """A profile of whole devices; rows are for batches 1, 2, ..."""
    tables = tuple(
        LatencyTable(device, 1, tuple(range(1, len(rows) + 1)), rows, MEASURED) for device, rows in latency_us.items()
    )
    return Profile(name, tuple(Block((f"b{number}",)) for number in range(len(cut_bytes) + 1)), cut_bytes, tables)


def cluster(**counts: int) -> Cluster:
    return Cluster(tuple(DeviceType(name, count, shares=(1, 2)) for name, count in counts.items()), Network(10.0))


def test_x0_is_planned_without_batch_building() -> None:
    # 12 of 20 ms are left. Alone, batch 2 takes 11 ms: 2 devices give 363.6 requests/s, and building it in
    # 1.3 / 363.6 = 3.6 ms makes it too slow afterwards: NP itself has batches of 1 in 8 ms, 250 requests/s.
    problem = Problem(cluster(L4=2), (Dnn("toy", 20_000, (profile("toy", {"L4": ((8000,), (11_000,))}),)),))
    assert with_x0(problem).dnns[0].np_throughput_rps == pytest.approx(4000 / 11)
    plan = make_plan(problem, "np")
    assert plan.pipelines[0].batch == 1
    assert plan.value == pytest.approx(250.0)
    assert plan.bound == pytest.approx(250.0)


def test_x0_takes_the_largest_sum_among_optima() -> None:
    # a binds at 1 device of 100 requests/s; of the two spare devices of type B, only b can make use.
    slow, fast = profile("a", {"A": ((10_000,),)}), profile("b", {"B": ((1000,),)})
    problem = Problem(cluster(A=1, B=3), (Dnn("a", 50_000, (slow,)), Dnn("b", 50_000, (fast,))))
    assert [dnn.np_throughput_rps for dnn in with_x0(problem).dnns] == pytest.approx([100.0, 3000.0])
    assert make_plan(problem, "np").throughput_rps("b") == pytest.approx(1000.0)  # the fewest devices


def test_dnns_that_np_cannot_serve_have_no_x0_and_take_no_devices() -> None:
    # c takes 14 ms whole, 12 are left; halves of it on two devices take 14 ms as well: no plan at all.
    cannot = profile("c", {"A": ((14_000,),)})
    can = profile("a", {"A": ((10_000,),)})
    problem = Problem(cluster(A=3), (Dnn("c", 20_000, (cannot,)), Dnn("a", 20_000, (can,))))
    assert [dnn.np_throughput_rps for dnn in with_x0(problem).dnns] == [0.0, pytest.approx(300.0)]
    with pytest.raises(InputError, match="c: no pipeline of at most 1 stage meets its SLO of 20.00 ms"):
        make_plan(problem, "np")


def test_given_x0_stays() -> None:
    problem = random_problem(0)
    assert with_x0(problem) is problem


@pytest.mark.parametrize("seed", range(5))
def test_x0_of_the_relaxation_is_just_above_the_exact_one(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = without_x0(random_problem(seed, dnns=3, counts=(20, 30, 25)))
    exact = least_x0(with_x0(problem))
    monkeypatch.setattr("planner.planning.baselines.x0.EXACT_CANDIDATES", 3)
    assert least_x0(with_x0(problem)) == pytest.approx(exact, rel=2e-6)  # by the decomposition
    monkeypatch.setattr("planner.planning.baselines.x0.RELAXED_PER_DNN", 0)
    relaxed = least_x0(with_x0(problem))
    assert exact * (1 + 1e-6) < relaxed < exact * 1.02
    # Fractions of devices for everybody: the optimum of the relaxation over NP's candidates.
    whole = unpartitioned(problem)
    candidates = [candidate for number in range(3) for candidate in enumerate_candidates(whole, number, inf)]
    assert relaxed == pytest.approx(relax(whole, candidates).bound, rel=1e-7)


def test_x0_of_the_relaxation_takes_the_largest_sum_too(monkeypatch: pytest.MonkeyPatch) -> None:
    slow, fast = profile("a", {"A": ((10_000,),)}), profile("b", {"B": ((1000,),)})
    problem = Problem(cluster(A=1, B=3), (Dnn("a", 40_000, (slow,)), Dnn("b", 40_000, (fast,))))
    monkeypatch.setattr("planner.planning.baselines.x0.EXACT_CANDIDATES_OF_TWO", 0)
    monkeypatch.setattr("planner.planning.baselines.x0.RELAXED_PER_DNN", 0)
    assert [dnn.np_throughput_rps for dnn in with_x0(problem).dnns] == pytest.approx([100.0, 3000.0])


def test_large_np_plans_come_from_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = without_x0(random_problem(1, dnns=3, counts=(20, 30, 25)))
    exact = make_plan(problem, "np", method="milp")
    decomposed, by_columns = make_plan(problem, "np"), make_plan(problem, "np", method="columns")
    assert (decomposed.method, by_columns.method) == ("decomposition", "columns")
    assert decomposed.value == pytest.approx(exact.value, rel=1e-4)
    assert 0.98 * exact.value <= by_columns.value <= exact.value * (1 + 2e-6)
    for plan in (decomposed, by_columns):
        assert all(len(pipeline.stages) == 1 for pipeline in plan.pipelines)
        assert plan.bound >= exact.value * (1 - 1e-9)
    monkeypatch.setattr("planner.planning.methods.MANY_PER_DNN", 20)
    assert make_plan(problem, "np").method == "columns"


@pytest.mark.slow
def test_a_large_problem_is_planned_without_x0() -> None:
    problem = without_x0(random_problem(0, dnns=30, counts=(900, 700, 1000, 600, 800, 1000)))
    plan = make_plan(problem, time_limit_s=15)
    assert plan.method == "columns"
    assert plan.gap < 0.02
    assert check(with_x0(problem), plan) == ()


def without_x0(problem: Problem) -> Problem:
    """The problem with X0 to be planned, and with SLOs that NP meets."""
    dnns = (replace(dnn, slo_us=dnn.slo_us + 20_000, np_throughput_rps=None) for dnn in problem.dnns)
    return replace(problem, dnns=tuple(dnns))


def least_x0(problem: Problem) -> float:
    return min((dnn.np_throughput_rps or 0.0) / dnn.weight for dnn in problem.dnns)


@pytest.mark.parametrize("seed", range(4))
def test_np_is_the_optimum_of_whole_devices_in_one_stage(seed: int) -> None:
    problem = random_problem(seed, dnns=2, counts=(3, 3))
    assert make_plan(problem, "np").value == pytest.approx(brute_force(unpartitioned(problem)), rel=1e-9)


def test_closed_form_takes_the_largest_batch() -> None:
    # Batch 1 would give 250 requests/s a device, batch 2 gives 200: the published rule takes 2. X0 is 600 by the same
    # rule, and 10 ms + 1.3 / 600 = 12.2 ms of the 12.6 ms that slack leaves are enough.
    problem = Problem(cluster(L4=3), (Dnn("toy", 21_000, (profile("toy", {"L4": ((4000,), (10_000,))}),)),))
    plan = make_plan(problem, "np", method="closed-form")
    assert plan.value == plan.bound == pytest.approx(600.0)
    assert plan.pipelines[0].batch_building_us == pytest.approx(1.3e6 / 600)
    assert make_plan(problem, "np").value == pytest.approx(750.0)
    two = replace(problem, dnns=(*problem.dnns, replace(problem.dnns[0], name="other")))
    with pytest.raises(InputError, match="plans one DNN, got 2"):
        make_plan(two, "np", method="closed-form")


def test_dart_r_replicates_a_pair_and_adds_the_excess() -> None:
    # Two blocks. A: 2 and 8 ms, B: 8 and 2 ms. One A and one B in two stages: 500 requests/s, alone 100 each.
    # NP gave it 2 A; 1 A and 3 B are spare: 3 pairs on 3 A and 3 B.
    both = profile("toy", {"A": ((2000, 8000),), "B": ((8000, 2000),)}, (1000,))
    problem = Problem(cluster(A=3, B=3), (Dnn("toy", 50_000, (both,), np_throughput_rps=0.0),))
    three = size_dart_r(problem, {"toy": {"A": 2}})
    assert three.value(problem) == pytest.approx(1500.0)
    more = replace(problem, cluster=cluster(A=3, B=5))
    sizing = size_dart_r(more, {"toy": {"A": 2}})
    assert sizing.throughput_rps(0) == pytest.approx(1500.0 + 2 * 100.0)
    assert sizing.devices(problem) == {0: 3, 1: 5}


def test_dart_r_keeps_devices_apart_where_a_pair_gains_nothing() -> None:
    alone = profile("toy", {"A": ((1000, 1000),), "B": ((9000, 9000),)}, (1000,))
    problem = Problem(cluster(A=2, B=1), (Dnn("toy", 80_000, (alone,), np_throughput_rps=0.0),))
    sizing = size_dart_r(problem, {})
    assert sizing.throughput_rps(0) == pytest.approx(2 * 500.0 + 1e6 / 18_000)


def test_dart_r_shares_what_np_left_equally() -> None:
    one = profile("toy", {"A": ((10_000,),)})
    problem = Problem(cluster(A=8), tuple(Dnn(name, 80_000, (one,), np_throughput_rps=0.0) for name in ("a", "b", "c")))
    sizing = size_dart_r(problem, {"a": {"A": 1}, "b": {"A": 2}})  # 5 are left: 1 more for each
    assert [sizing.throughput_rps(number) for number in range(3)] == pytest.approx([200.0, 300.0, 100.0])


def test_dart_r_pairs_the_fastest_with_the_slowest() -> None:
    # One of each of four types; alone A to D serve 1000, 100, 500, 250. Pairs: A with B, C with D. In every pair two
    # stages are worth more than the two devices alone only for C with D, whose blocks suit them.
    rows = {
        "A": ((500, 500),),
        "B": ((5000, 5000),),
        "C": ((200, 1800),),
        "D": ((3800, 200),),
    }
    problem = Problem(
        cluster(A=1, B=1, C=1, D=1), (Dnn("toy", 80_000, (profile("toy", rows, (10,)),), np_throughput_rps=0.0),)
    )
    sizing = size_dart_r(problem, {})
    assert sorted(sized.candidate.devices for sized in sizing.pipelines) == [(0,), (1,), (2, 3)]
    assert sizing.throughput_rps(0) == pytest.approx(1000.0 + 100.0 + 5000.0)


def test_dart_r_has_no_other_objective() -> None:
    problem = random_problem(0)
    problem = replace(
        problem,
        dnns=(replace(problem.dnns[0], rate_rps=1.0),),
        options=replace(problem.options, objective="fewest_devices"),
    )
    with pytest.raises(InputError, match="dart-r maximises throughput and knows no fewest_devices"):
        make_plan(problem, "dart-r")


def test_dart_r_without_an_np_plan_makes_one() -> None:
    problem = random_problem(3, dnns=2, counts=(4, 3))
    given = make_plan(problem, "dart-r", np_plan=make_plan(problem, "np"))
    assert make_plan(problem, "dart-r").pipelines == given.pipelines
    assert given.bound == given.value


def test_np_is_among_the_plans_of_pipelines() -> None:
    problem = replace(random_problem(5), options=Options(max_stages=2, slack_fraction=0.2))
    known = with_x0(problem)
    assert enumerate_candidates(unpartitioned(known), 0, 100.0)
    assert make_plan(problem, method="milp").value >= make_plan(problem, "np").value * (1 - 1e-9)


@pytest.mark.skipif(REFERENCE is None, reason="POOLPIPE_REFERENCE is unset")
@pytest.mark.parametrize(("folder", "method"), [("maf19", "auto"), ("ablation", "closed-form")])
def test_published_np_plans(folder: str, method: str) -> None:
    paths = sorted((DATA / "plans" / folder).glob("*_bl.json"))
    assert len(paths) == {"maf19": 24, "ablation": 18}[folder]
    arbitrary = set()
    for path in paths:
        problem = read_problem(path, DATA)
        published, plan = read_plan(path, problem), make_plan(problem, "np", method=method)
        assert plan.value == pytest.approx(published.value, rel=1e-6)
        assert plan.bound == pytest.approx(plan.value, rel=1e-6)
        for dnn in problem.dnns:
            theirs, ours = published.throughput_rps(dnn.name), plan.throughput_rps(dnn.name)
            if ours != pytest.approx(theirs, rel=1e-6):
                assert plan.value * (1 - 1e-9) <= ours / dnn.weight < theirs / dnn.weight
                arbitrary.add((dnn.name, "-".join(device.name for device in problem.cluster.device_types)))
    assert arbitrary == (ARBITRARY if folder == "maf19" else set())


@pytest.mark.skipif(REFERENCE is None, reason="POOLPIPE_REFERENCE is unset")
def test_published_dart_r_plans() -> None:
    paths = sorted((DATA / "plans" / "maf19").glob("*_dart-r.json"))
    assert len(paths) == 24
    for path in paths:
        beside = path.with_name(path.name.replace("_dart-r", "_bl"))
        problem, np_problem = read_problem(path, DATA), read_problem(beside, DATA)
        published = read_plan(path, problem)
        plan = make_plan(problem, "dart-r", np_plan=read_plan(beside, np_problem))
        assert devices_of(plan)
        for dnn in problem.dnns:
            assert plan.throughput_rps(dnn.name) == pytest.approx(published.throughput_rps(dnn.name), rel=1e-6)


def test_x0_of_few_candidates_on_many_devices_is_that_of_the_relaxation() -> None:
    """On six types the programme over 18 candidates and thousands of devices does not end."""
    base = random_problem(4, dnns=3, stages=1, counts=(400, 300, 500, 350, 450, 380), shares=(1,))
    problem = replace(base, dnns=tuple(replace(dnn, np_throughput_rps=None) for dnn in base.dnns))
    unlimited = replace(base, dnns=tuple(replace(dnn, np_throughput_rps=inf) for dnn in base.dnns))
    candidates = [one for number in range(3) for one in enumerate_candidates(unpartitioned(unlimited), number, inf)]
    bound = relax(unpartitioned(unlimited), candidates).bound
    found = with_x0(problem)
    assert min((dnn.np_throughput_rps or 0.0) / dnn.weight for dnn in found.dnns) == pytest.approx(bound, rel=1e-6)


@pytest.mark.parametrize("limit_s", [0.5, 3.0, None])
def test_x0_is_the_same_however_slow_the_machine_is(limit_s: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at the clock takes from nothing to so much time that two thirds of the limit pass."""
    problem = without_x0(random_problem(8, dnns=6, counts=(30, 40, 25, 20)))
    monkeypatch.setattr("planner.planning.baselines.x0.EXACT_CANDIDATES", 3)  # by the decomposition
    found = []
    for look_s in (0.0, 1e-5, 1e-4):
        ticks = itertools.count()
        monkeypatch.setattr(clock, "monotonic", lambda look_s=look_s, ticks=ticks: look_s * next(ticks))
        found.append(find_x0(problem, limits=Limits(1e-6, limit_s)))
    assert [one.timed for one in found] == [False] * 3
    assert found[0].problem == found[1].problem == found[2].problem


def test_x0_says_where_time_ended_its_search(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = without_x0(random_problem(8, dnns=6, counts=(30, 40, 25, 20)))
    ticks = itertools.count()
    monkeypatch.setattr(clock, "monotonic", lambda: 0.5 * next(ticks))
    assert find_x0(problem, limits=Limits(1e-6, 3.0)).timed
    monkeypatch.undo()
    assert make_plan(problem, time_limit_s=1e-4).x0_timed
    assert not make_plan(problem, time_limit_s=20).x0_timed
    assert not make_plan(with_x0(problem), time_limit_s=1e-4).x0_timed  # it was given
