"""The main programme against brute force, for every objective and solver."""

from collections.abc import Callable
from dataclasses import replace

import gurobipy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import MEASURED, brute_force, random_problem, with_detours

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
    Segment,
)
from planner.model.problem import Objective
from planner.planning.api import make_plan
from planner.planning.methods import all_candidates
from planner.planning.pipelines.sizing import Sized, Sizing
from planner.planning.programme import milp
from planner.planning.programme.backends import BACKENDS, Limits, highs
from planner.planning.programme.relaxation import relax


def best(problem: Problem, backend: str = "highs") -> float:
    return milp.size(problem, all_candidates(problem), backend, Limits(gap=0.0)).value(problem)


@pytest.mark.parametrize("seed", range(8))
def test_optimum_of_one_dnn(seed: int) -> None:
    problem = random_problem(seed, counts=((2, 2), (3, 1))[seed % 2])
    assert best(problem) == pytest.approx(brute_force(problem), rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_optimum_of_two_dnns_on_three_types(seed: int) -> None:
    problem = random_problem(seed + 20, dnns=2, counts=(2, 1, 1))
    assert best(problem) == pytest.approx(brute_force(problem), rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_optimum_of_three_stages_in_thirds(seed: int) -> None:
    problem = random_problem(seed + 40, stages=3, counts=(2, 2), shares=(1, 3))
    assert best(problem) == pytest.approx(brute_force(problem), rel=1e-9)


@pytest.mark.parametrize("seed", [0, 1, 4])
def test_optimum_with_links_memory_and_missing_shares(seed: int) -> None:
    problem = with_detours(random_problem(seed + 60, counts=(2, 2)), seed)
    assert best(problem) == pytest.approx(brute_force(problem), rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_optimum_of_batches_in_parts(seed: int) -> None:
    problem = random_problem(seed + 120, counts=((2, 2), (3, 1))[seed % 2])
    parts = replace(problem, options=replace(problem.options, stage_batches=True))
    value = best(parts)
    assert value == pytest.approx(brute_force(parts), rel=1e-9)
    assert value >= best(problem) * (1 - 1e-9)
    assert make_plan(parts).value == pytest.approx(value, rel=2e-6)


def test_parts_pay_where_a_stage_is_slow() -> None:
    # 12 ms are left of the SLO. The first device takes 2 ms for its block at batch 1 and at batch 2, the second one
    # 6 ms a request. Whole batches of 2 need 2 + 12 ms, too slow, so that the first one serves 500 requests/s; in two
    # parts they need 2 + 6 ms, and it serves 1000, as do six of the second.
    tables = (
        LatencyTable("first", 1, (1, 2), ((2000, 100_000), (2000, 100_000)), MEASURED),
        LatencyTable("second", 1, (1, 2), ((100_000, 6000), (100_000, 12_000)), MEASURED),
    )
    profile = Profile("toy", (Block(("a",)), Block(("b",))), (0,), tables)
    cluster = Cluster((DeviceType("first", 1), DeviceType("second", 7)), Network(10))
    problem = Problem(cluster, (Dnn("toy", 20_000, (profile,), np_throughput_rps=1e9),))
    assert make_plan(problem).value == pytest.approx(500.0)
    parts = replace(problem, options=replace(problem.options, stage_batches=True))
    plan = make_plan(parts)
    assert plan.value == pytest.approx(1000.0)
    assert [(stage.batch, stage.slices) for stage in plan.pipelines[0].stages] == [(2, 1), (1, 6)]
    with pytest.raises(InputError, match="stage_batches is for method milp, got dynamic"):
        make_plan(parts, method="dynamic")


@pytest.mark.parametrize("objective", ["max_weighted_throughput", "least_cost", "fewest_devices"])
@pytest.mark.parametrize("seed", range(4))
def test_optimum_of_every_objective(objective: Objective, seed: int) -> None:
    problem = random_problem(seed + 80, dnns=2, counts=(2, 2))
    problem = replace(
        problem,
        dnns=tuple(replace(dnn, rate_rps=60.0 + 50 * seed) for dnn in problem.dnns),
        options=replace(problem.options, objective=objective),
    )
    assert best(problem) == pytest.approx(brute_force(problem), rel=1e-9)


@pytest.mark.parametrize("seed", range(2))
def test_solvers_agree(seed: int) -> None:
    problem = random_problem(seed + 100, dnns=2, counts=(2, 2))
    values = [best(problem, backend) for backend in BACKENDS]
    assert values == pytest.approx([values[0]] * len(BACKENDS), rel=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("objective", "value"), [("most_accurate", 70.0), ("least_energy", 20.0), ("least_cost", 2.0)])
def test_a_rate_far_below_a_slice_is_served_as_accurately(objective: Objective, value: float, backend: str) -> None:
    """One request in thirty thousand years keeps its device: 60 % accurate there, 80 % is what *b* counts as much."""
    table = LatencyTable("g", 1, (1,), ((4000,),), MEASURED)
    dnns = tuple(
        Dnn(name, 20_000, (Profile(name, (Block(("a",)),), (), (table,)),), rate_rps=rate_rps, accuracy={name: percent})
        for name, rate_rps, percent in (("a", 1e-12, 60.0), ("b", 1e-12, 80.0))
    )
    device = DeviceType("g", 3, price_per_hour=1, idle_watts=10, busy_watts=20)
    options = Options(objective, min_accuracy=None if objective == "most_accurate" else 50.0)
    plan = make_plan(Problem(Cluster((device,), Network(10)), dnns, options), backend=backend)
    assert (plan.value, plan.status) == (pytest.approx(value), "optimal")


def test_leaving_candidates_out_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_problem(7, dnns=2, counts=(3, 4))
    assert len(all_candidates(problem)) > 40
    whole = best(problem)
    monkeypatch.setattr(milp, "AT_ONCE", 5)
    monkeypatch.setattr(milp, "SHORTLIST", 5)
    assert best(problem) == pytest.approx(whole, rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_what_is_too_large_for_the_time_left_is_cut_and_proves_nothing(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = random_problem(seed, dnns=2, counts=(3, 2, 2))
    candidates = all_candidates(problem)
    exact = milp.size(problem, candidates, "highs", Limits())
    monkeypatch.setattr(milp, "AT_ONCE", 2)
    monkeypatch.setattr(milp, "PER_SECOND", 0)
    found = milp.size(problem, candidates, "highs", Limits(time_limit_s=20.0))
    assert len(set(found.candidates)) < len(candidates)
    assert 0 < found.value(problem) <= exact.value(problem) * (1 + 1e-9)
    assert found.bound == pytest.approx(relax(problem, candidates).bound)


def test_what_is_too_large_for_gurobi_is_left_to_highs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise gurobipy.GurobiError(10010, "Model too large for size-limited license")

    monkeypatch.setattr(gurobipy, "Env", refuse)
    problem = random_problem(1)
    sizing = milp.size(problem, all_candidates(problem), "gurobi", Limits())
    assert sizing.backend == "highs"
    assert sizing.value(problem) == pytest.approx(best(problem))
    assert [record.getMessage().endswith("HiGHS solves this one") for record in caplog.records] == [True]


def test_a_start_stands_on_no_more_devices_than_its_slices_need() -> None:
    """A programme may leave two devices cut for five slices each where there are three; one of them is enough."""
    gpu = DeviceType("gpu", 1, slots=5, segments=(Segment("large", 3), Segment("small", 1)))
    tables = tuple(LatencyTable("gpu", name, (1,), ((4000,),), MEASURED) for name in ("large", "small"))
    dnn = Dnn("d", 20_000, (Profile("d", (Block(("a",)),), (), tables),))
    problem = Problem(Cluster((gpu,), Network(10)), (dnn,))
    candidates = all_candidates(problem)
    formulation = milp.build(problem, candidates)
    small = next(one for one in candidates if one.shares == ("small",))
    ((pool, _),) = formulation.pools.items()
    plan = Sizing((Sized(small, (3,)),), 0.0, "highs", {pool: ({"small": 5}, {"small": 5})})
    start = milp.start_from(formulation, plan)
    assert all(value <= formulation.model.arrays().upper[column] for column, value in start.items())
    assert sum(start[column] for columns in formulation.pools[pool] for column in columns.layouts.values()) == 1


def test_names_can_be_read() -> None:
    problem = random_problem(0)
    text = milp.build(problem, all_candidates(problem)).model.text()
    for name in ("throughput[d0]:", "capacity[d0/0,0]:", "whole[d0,0,g0]:", "devices[g1]:", "weight[d0]:", "used[g0]"):
        assert name in text


@settings(max_examples=8, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), extra=st.sampled_from([0, 1]))
def test_one_more_device_is_never_worse(seed: int, extra: int) -> None:
    problem = random_problem(seed, counts=(2, 2))
    name = problem.cluster.device_types[extra].name
    more = replace(problem, cluster=problem.cluster.with_counts({name: 3}))
    try:
        before = best(problem)
    except InputError:  # a DNN that no pipeline can serve in time
        return
    assert best(more) >= before * (1 - 1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_dnns_does_not_matter(seed: int) -> None:
    problem = random_problem(seed, dnns=3, counts=(3, 3), shares=(1,))
    value = make_plan(problem, method="milp").value
    turned = replace(problem, dnns=problem.dnns[::-1])
    assert make_plan(turned, method="milp").value == pytest.approx(value, rel=2e-6)


def test_an_interrupted_programme_tells_the_best_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_problem(5, dnns=2, counts=(2, 2))
    candidates = all_candidates(problem)
    expected = milp.size(problem, candidates, "highs", Limits())
    relaxed = relax(problem, candidates)
    monkeypatch.setattr(milp, "relax", lambda *_: relaxed)
    for work_done in (True, False):
        seen: list[Sizing] = []

        def interrupted(
            work: Callable[[object], object], *_: object, work_done: bool = work_done
        ) -> tuple[object, bool]:
            return work(lambda solution: None) if work_done else None, True

        monkeypatch.setattr(highs, "interruptible", interrupted)
        with pytest.raises(KeyboardInterrupt):
            milp.size(problem, candidates, "highs", Limits(), report=seen.append)
        assert bool(seen) == work_done
        assert all(one.value(problem) == pytest.approx(expected.value(problem)) for one in seen)
