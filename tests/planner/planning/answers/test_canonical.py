"""Among equal plans the fewest devices, then the fewest pipelines."""

import pytest
from oracles import MEASURED, best_by_use, random_problem

from planner.model import Block, Cluster, DeviceType, Dnn, LatencyTable, Network, Options, Problem, Profile
from planner.planning.answers.canonical import canonical
from planner.planning.methods import all_candidates
from planner.planning.pipelines.sizing import Sized, Sizing
from planner.planning.programme import milp
from planner.planning.programme.backends import Limits


@pytest.mark.parametrize("seed", range(6))
def test_one_dnn_has_the_fewest_devices_of_all_optima(seed: int) -> None:
    problem = random_problem(seed, counts=(3, 2))
    candidates = all_candidates(problem)
    first = milp.size(problem, candidates, "highs", Limits(gap=0.0))
    plan = canonical(problem, candidates, first, "highs", Limits())
    best = best_by_use(problem, problem.dnns[0])
    value = max(best.values())
    allowed = first.devices(problem)
    within = [
        sum(devices)
        for devices, rps in best.items()
        if rps >= value * (1 - 1e-9) and all(count <= allowed.get(device, 0) for device, count in enumerate(devices))
    ]
    assert plan.value(problem) == pytest.approx(first.value(problem), rel=1e-8)
    assert sum(plan.devices(problem).values()) == min(within)


def test_what_does_not_count_is_left_out() -> None:
    # Four devices of 100 requests/s each for two DNNs with weights 1 and 3: z = 100 with 1 + 3 devices. Of a fifth one
    # nothing is gained, so it stays free; and two pipelines that are the same are one.
    table = LatencyTable("L4", 1, (1,), ((10_000,),), MEASURED)
    profile = Profile("toy", (Block(("a",)),), (), (table,))
    dnns = tuple(Dnn(name, 50_000, (profile,), weight, 0.0) for name, weight in (("a", 1.0), ("b", 3.0)))
    problem = Problem(Cluster((DeviceType("L4", 5),), Network(10)), dnns, Options(max_stages=1))
    candidates = all_candidates(problem)
    a, b = candidates
    wasteful = Sizing((Sized(a, (2,)), Sized(b, (1,)), Sized(b, (2,))), 133.3, "highs")
    plan = canonical(problem, candidates, wasteful, "highs", Limits())
    assert {(sized.candidate.dnn, sized.slices) for sized in plan.pipelines} == {(0, (1,)), (1, (3,))}
    assert (plan.bound, plan.backend) == (133.3, "highs")


def test_fewer_pipelines_at_equal_devices() -> None:
    # Batch 1 and halves of batch 1 serve alike, 100 requests/s a device: one pipeline will do for both.
    tables = (
        LatencyTable("L4", 1, (1,), ((10_000,),), MEASURED),
        LatencyTable("L4", 2, (1,), ((20_000,),), MEASURED),
    )
    profile = Profile("toy", (Block(("a",)),), (), tables)
    problem = Problem(
        Cluster((DeviceType("L4", 2, shares=(1, 2)),), Network(10)),
        (Dnn("toy", 50_000, (profile,), np_throughput_rps=0.0),),
    )
    candidates = all_candidates(problem)
    assert len(candidates) == 2
    both = Sizing((Sized(candidates[0], (1,)), Sized(candidates[1], (2,))), 200.0, "highs")
    plan = canonical(problem, candidates, both, "highs", Limits())
    assert len(plan.pipelines) == 1
    assert plan.value(problem) == pytest.approx(200.0)
