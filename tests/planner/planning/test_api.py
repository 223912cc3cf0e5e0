"""The one call: methods agree, plans pass the check, bad input is told in one line, published plans are reached."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from oracles import MEASURED, brute_force, random_problem

from planner.files.ppipe import read_plan, read_problem
from planner.model import Block, Cluster, DeviceType, Dnn, InputError, LatencyTable, Network, Problem, Profile, digest
from planner.model.check import check
from planner.planning import api, make_plan
from planner.planning.baselines import with_x0

REFERENCE = os.environ.get("POOLPIPE_REFERENCE")
DATA = Path(REFERENCE or "") / "ppipe"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scheduler", ["pipelines", "np", "dart-r"])
def test_plans_pass_the_check_and_say_where_they_come_from(seed: int, scheduler: str) -> None:
    problem = random_problem(seed, dnns=2, counts=(3, 3))
    problem = replace(problem, dnns=tuple(replace(dnn, np_throughput_rps=None) for dnn in problem.dnns))
    plan = make_plan(problem, scheduler)  # type: ignore[arg-type]
    assert check(with_x0(problem), plan) == ()
    assert plan.problem_sha256 == digest(problem)
    assert (plan.scheduler, plan.status, plan.objective) == (scheduler, "optimal", "max_min_throughput")
    assert plan.seconds > 0
    assert "poolpipe" in plan.versions


def test_a_bound_that_the_plan_is_beyond_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One device serves 250 requests/s; a method that says no plan serves more than 200 has proven nothing."""
    table = LatencyTable("L4", 1, (1,), ((4000,),), MEASURED)
    dnn = Dnn("d", 20_000, (Profile("d", (Block(("a",)),), (), (table,)),))
    problem = Problem(Cluster((DeviceType("L4", 1),), Network(10)), (dnn,))
    size = api.size_pipelines
    monkeypatch.setattr(api, "size_pipelines", lambda *args: (replace(size(*args)[0], bound=200.0), "milp"))
    plan = make_plan(problem)
    assert (plan.value, plan.bound, plan.status) == (250.0, pytest.approx(250.0), "optimal")
    monkeypatch.setattr(api, "block_bound", lambda problem: 300.0)
    plan = make_plan(problem)
    assert (plan.value, plan.bound, plan.status) == (250.0, 300.0, "feasible")


@pytest.mark.parametrize("seed", range(4))
def test_methods_agree(seed: int) -> None:
    problem = random_problem(seed + 200, dnns=2, counts=(2, 2))
    by_milp, by_default = make_plan(problem, method="milp"), make_plan(problem)
    assert by_default.method != "milp"
    assert by_milp.value == pytest.approx(by_default.value, rel=2e-6)
    assert by_milp.value == pytest.approx(brute_force(problem), rel=2e-6)
    assert by_milp.versions["highs"]


def test_a_time_limit_gives_a_plan_with_its_gap() -> None:
    problem = random_problem(11, dnns=3, counts=(12, 12), shares=(1, 2, 3))
    plan = make_plan(problem, method="milp", time_limit_s=0.5)
    assert plan.value > 0
    assert plan.bound >= plan.value
    assert plan.status == ("optimal" if plan.gap <= 1e-6 else "feasible")


def problem_of(latency_us: int, slo_us: float = 20_000, count: int = 2, names: tuple[str, ...] = ("toy",)) -> Problem:
    table = LatencyTable("L4", 1, (1,), ((latency_us,),), MEASURED)
    profile = Profile("toy", (Block(("a",), parameter_bytes=1000),), (), (table,))
    return Problem(
        Cluster((DeviceType("L4", count),), Network(10)), tuple(Dnn(name, slo_us, (profile,)) for name in names)
    )


# Each case: a problem, options, and what the one line of the error must say.
BAD = {
    "an SLO that no device meets": (
        problem_of(15_000),
        {},
        r"toy: no pipeline of at most 2 stages meets its SLO of 20.00 ms; the least that this cluster can meet is "
        r"25.00 ms = inference 15.00 ms \+ slack 10.00 ms, on L4 blocks 0-0 at batch 1; raise the SLO",
    ),
    "no latencies for any device": (
        replace(problem_of(1000), cluster=Cluster((DeviceType("T4", 2),), Network(10))),
        {},
        r"toy has no latencies for any device of the cluster \(T4\); profile or estimate them",
    ),
    "no memory": (
        replace(problem_of(1000), cluster=Cluster((DeviceType("L4", 2, memory_bytes=999),), Network(10))),
        {},
        "toy does not fit the memory of L4 at any share",
    ),
    "too few devices": (
        problem_of(1000, count=1, names=("a", "b")),
        {},
        "gets no devices: 1 L4 are too few for 2 DNNs",
    ),
    "an unknown scheduler": (problem_of(1000), {"scheduler": "ppipe"}, "unknown scheduler 'ppipe'; expected one of"),
    "an unknown method": (problem_of(1000), {"method": "magic"}, "scheduler pipelines has no method 'magic'"),
    "a method of another scheduler": (
        problem_of(1000),
        {"scheduler": "np", "method": "dynamic"},
        "scheduler np has no method 'dynamic'",
    ),
    "an unknown backend": (problem_of(1000), {"backend": "scip"}, "unknown backend 'scip'; expected one of"),
    "a gap below 0": (problem_of(1000), {"gap": -0.1}, r"gap: expected a number in \[0, 1\), got -0.1"),
    "no time": (problem_of(1000), {"time_limit_s": 0.0}, "time limit: expected more than 0 s, got 0.0"),
    "no rates": (
        replace(problem_of(1000), options=replace(problem_of(1000).options, objective="fewest_devices")),
        {},
        "rate_rps of toy: missing; the objective fewest_devices needs it for every DNN",
    ),
    "no prices": (
        replace(
            problem_of(1000),
            dnns=(replace(problem_of(1000).dnns[0], rate_rps=5.0),),
            options=replace(problem_of(1000).options, objective="least_cost"),
        ),
        {},
        "price_per_hour of L4: missing; least_cost, budgets and fronts against cost need it",
    ),
    "rates beyond the cluster": (
        replace(
            problem_of(1000),
            dnns=(replace(problem_of(1000).dnns[0], rate_rps=4000.0),),
            options=replace(problem_of(1000).options, objective="fewest_devices"),
        ),
        {},
        "the cluster can serve at most 50.0% of the rates asked for; add devices",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told_in_one_line(case: str) -> None:
    problem, options, message = BAD[case]
    with pytest.raises(InputError, match=message) as error:
        make_plan(problem, **options)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


@pytest.mark.skipif(REFERENCE is None, reason="POOLPIPE_REFERENCE is unset")
def test_published_maf19_plans_are_reached() -> None:
    paths = sorted((DATA / "plans" / "maf19").glob("*_v4.json"))
    assert len(paths) == 24
    better = 0
    for path in paths:
        problem = read_problem(path, DATA)
        published, plan = read_plan(path, problem), make_plan(problem)
        assert plan.value >= published.value * 0.999999
        assert plan.bound >= published.value * 0.999999
        assert plan.gap <= 1e-6
        better += plan.value > published.value * 1.0001
    assert better == 3


@pytest.mark.slow
@pytest.mark.skipif(REFERENCE is None, reason="POOLPIPE_REFERENCE is unset")
def test_published_maf19_plans_are_reached_by_the_programme() -> None:
    paths = sorted((DATA / "plans" / "maf19").glob("*_v4.json"))[::4]
    assert len(paths) == 6
    for path in paths:
        problem = read_problem(path, DATA)
        plan, other = make_plan(problem, method="milp", time_limit_s=20), make_plan(problem)
        assert plan.value >= read_plan(path, problem).value * 0.999999
        assert plan.bound >= other.value * (1 - 1e-9)
        assert other.bound >= plan.value * (1 - 1e-9)
