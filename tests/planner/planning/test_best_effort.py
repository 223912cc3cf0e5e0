"""What can be served is served, as many DNNs as the devices are enough for, and all others are told what they need."""

from dataclasses import replace
from itertools import combinations

import pytest

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
from planner.model.check import check
from planner.planning import make_plan, plan_best_effort
from planner.planning.baselines import with_x0

HOW = Provenance("measured", "by hand")


def dnn(name: str, latencies_us: dict[str, int], slo_us: float = 100_000, **more) -> Dnn:
    tables = tuple(LatencyTable(device, 1, (1,), ((us,),), HOW) for device, us in latencies_us.items())
    return Dnn(name, slo_us, (Profile(name, (Block(("n",)),), (), tables),), **more)


def problem_of(counts: dict[str, int], *dnns: Dnn, **options) -> Problem:
    types = tuple(DeviceType(name, count) for name, count in counts.items())
    return Problem(Cluster(types, Network(10)), dnns, Options(**options))


def test_every_culprit_is_told_with_what_it_needs():
    # "quick" meets no SLO (10 ms of 12 are left by the slack, 20 are needed); one A and one B serve two of the others.
    # "b" runs on A or B, "a" and "c" on A alone: either of these and "b" on B.
    problem = problem_of(
        {"A": 1, "B": 1},
        dnn("quick", {"A": 20_000}, slo_us=20_000),
        dnn("a", {"A": 10_000}),
        dnn("b", {"A": 10_000, "B": 40_000}),
        dnn("c", {"A": 20_000}, weight=2.0),
    )
    found = plan_best_effort(problem)
    assert [one.name for one in found.problem.dnns] == ["b", "c"]  # c weighs more than a
    assert check(with_x0(found.problem), found.plan, given=found.problem) == ()
    assert sorted(found.not_served) == ["a", "quick"]
    assert "the least that this cluster can meet is 33.33 ms" in found.not_served["quick"]
    assert found.not_served["a"] == (
        "devices are too few: its SLO of 100.00 ms needs at least 1 A (100 requests/s), and 1 A + 1 B serve 2 of 3 "
        "DNNs; add as many, or plan fewer DNNs"
    )


def test_sets_of_devices_hold_no_other_set():
    # On A alone 40 ms, on B alone 55 of the 60 that slack leaves; cut in two, a pipeline takes both, or two B.
    blocks = Block(("n",)), Block(("m",))
    tables = LatencyTable("A", 1, (1,), ((20_000, 20_000),), HOW), LatencyTable("B", 1, (1,), ((35_000, 20_000),), HOW)
    profile = Profile("net", blocks, (1000,), tables)
    problem = problem_of({"A": 1, "B": 1}, *(Dnn(name, 100_000, (profile,)) for name in ("a", "b", "c")))
    found = plan_best_effort(problem)
    assert len(found.problem.dnns) == 2
    (reason,) = found.not_served.values()
    assert "needs at least 1 A (25 requests/s), or 1 B (18.18 requests/s)" in reason


def test_as_many_as_possible_are_served():
    # Whoever earns most would take all: m0 serves ten times what others do on any device. Brute force over subsets.
    names = [f"m{number}" for number in range(5)]
    on = {"m0": "AB", "m1": "A", "m2": "AC", "m3": "C", "m4": "B"}
    dnns = [dnn(name, {device: 2_000 if name == "m0" else 20_000 for device in on[name]}) for name in names]
    problem = problem_of({"A": 1, "B": 1, "C": 1}, *dnns)
    most = max(len(some) for k in range(1, 6) for some in combinations(dnns, k) if _plans(problem, some))
    found = plan_best_effort(problem)
    assert len(found.problem.dnns) == most == 3
    assert set(found.not_served) == set(names) - {one.name for one in found.problem.dnns}


def _plans(problem: Problem, some: tuple[Dnn, ...]) -> bool:
    try:
        make_plan(replace(problem, dnns=some))
    except InputError:
        return False
    return True


def test_rates_that_are_too_much_are_served_in_part():
    # 100 requests/s on each of two A; 150 and 300 are asked for: no common share is above 1/3 of 300, or 2/3 of 150.
    dnns = dnn("a", {"A": 10_000}, rate_rps=150.0), dnn("b", {"A": 10_000}, rate_rps=300.0)
    found = plan_best_effort(problem_of({"A": 2}, *dnns, objective="fewest_devices"))
    assert found.problem.options.objective == "max_min_throughput"
    assert found.not_served["a"].startswith("100 of the 150 requests/s asked for (")
    assert found.not_served["b"].startswith("100 of the 300 requests/s asked for (")


def test_rates_and_devices_that_are_too_few():
    dnns = [dnn(name, {"A": 10_000}, rate_rps=50.0) for name in ("a", "b", "c")]
    found = plan_best_effort(problem_of({"A": 2}, *dnns, objective="fewest_devices"))
    assert len(found.problem.dnns) == 2
    (left_out,) = (name for name in "abc" if name not in {one.name for one in found.problem.dnns})
    assert "its SLO of 100.00 ms at the 50 requests/s asked for needs at least 1 A" in found.not_served[left_out]


def test_dnns_that_share_devices_need_parts_of_them():
    # Halves of one A: two of three DNNs.
    tables = (LatencyTable("A", 2, (1,), ((10_000,),), HOW),)
    dnns = tuple(Dnn(name, 100_000, (Profile(name, (Block(("n",)),), (), tables),)) for name in ("a", "b", "c"))
    cluster = Cluster((DeviceType("A", 1, shares=(1, 2)),), Network(10))
    found = plan_best_effort(Problem(cluster, dnns, Options(device_sharing="shared")))
    assert len(found.problem.dnns) == 2
    assert "needs at least 1/2 A (100 requests/s)" in next(iter(found.not_served.values()))


@pytest.mark.parametrize("scheduler", ["np", "dart-r"])
def test_baselines_serve_what_they_can(scheduler):
    problem = problem_of({"A": 1}, dnn("a", {"A": 10_000}), dnn("b", {"A": 10_000}))
    found = plan_best_effort(problem, scheduler)
    assert (len(found.problem.dnns), len(found.not_served)) == (1, 1)


def test_nothing_is_left_out_of_a_problem_that_can_be_planned():
    problem = problem_of({"A": 2}, dnn("a", {"A": 10_000}), dnn("b", {"A": 10_000}))
    found = plan_best_effort(problem)
    assert (found.plan.value, dict(found.not_served)) == (make_plan(problem).value, {})


def test_nothing_that_can_be_served_is_an_error_with_all_reasons():
    problem = problem_of({"A": 1}, dnn("a", {"A": 90_000}), dnn("b", {"A": 80_000}))
    with pytest.raises(InputError, match=r"no DNN can be served: a: no pipeline .* b: no pipeline"):
        plan_best_effort(problem)
