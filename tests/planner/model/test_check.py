"""The checker finds what is broken, and finds nothing in sound plans."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from oracles import random_problem

from planner.files.ppipe import read_plan, read_problem
from planner.model import (
    Block,
    Cluster,
    DeviceType,
    Dnn,
    LatencyTable,
    Link,
    Network,
    Options,
    Pipeline,
    Plan,
    Problem,
    Profile,
    Provenance,
    Stage,
    digest,
)
from planner.model.check import check, slice_rps
from planner.model.placing import devices_used
from planner.planning import make_plan

REFERENCE = os.environ.get("POOLPIPE_REFERENCE")

# Published plans that break a constraint, and by how much. The ablation's NP plans round batch building to whole
# microseconds; one pipeline of the ablation is 1.01e-6 above the capacity of one of its pools (solver tolerance).
ROUNDED_BUILDING_US = 0.5
OVER_CAPACITY = {"tf_efficientdet_d1_L4-T4_25-75_bw-gbps-10_sla-multiplier-5_v4.json": 1.0102e-6}


@pytest.mark.skipif(REFERENCE is None, reason="POOLPIPE_REFERENCE is unset")
def test_published_plans_break_only_what_is_listed() -> None:
    data = Path(REFERENCE or "") / "ppipe"
    paths = sorted((data / "plans").glob("*/*.json"))
    assert len(paths) == 108
    rounded, over = 0, {}
    for path in paths:
        problem = read_problem(path, data)
        for violation in check(problem, read_plan(path, problem)):
            if violation.constraint == "building":
                assert path.parent.name == "ablation"
                assert path.name.endswith("_bl.json")
                assert abs(violation.amount) <= ROUNDED_BUILDING_US
                rounded += 1
            else:
                assert violation.constraint == "capacity"
                over[path.name] = violation.amount
    assert rounded == 19
    assert over == pytest.approx(OVER_CAPACITY, rel=1e-4)


def toy() -> tuple[Problem, Plan]:
    """Three blocks on two L4 and two T4, two servers' cards, one pipeline of two stages, solved by hand.

    Batch of 2. Stage 0 is block 0 on L4 halves: 4 ms, so 500 rps a slice by inference. The cut of 250,000 bytes takes
    250,000 · 8 / 10,000 = 200 µs a request: 1 / (200 µs · 2 shares · 1) = 2,500 rps. Two slices: 1,000 rps.
    Stage 1 is blocks 1 and 2 on whole T4: 3 + 2 ms, so 400 rps. Two slices: 800 rps, which limit the pipeline.
    Latency: 4,000 + 2 · 200 + 5,000 + B + slack with B = 1.3 · 1 / 650 rps = 2,000 µs and slack = 0.4 · 20,000 µs.
    """
    provenance = Provenance("measured", "by hand")
    tables = (
        LatencyTable("L4", 2, (1, 2), ((2500, 900, 900), (4000, 1600, 1600)), provenance),
        LatencyTable("T4", 1, (1, 2), ((2500, 1800, 1200), (4000, 3000, 2000)), provenance),
    )
    blocks = tuple(Block((name,), parameter_bytes=100, activation_bytes=10) for name in "abc")
    profile = Profile("toy", blocks, (250_000, 50_000), tables)
    cluster = Cluster((DeviceType("L4", 2, shares=(1, 2), memory_bytes=240), DeviceType("T4", 2)), Network(10.0))
    problem = Problem(cluster, (Dnn("toy", 20_000.0, (profile,), weight=0.5, np_throughput_rps=650.0),))
    stages = (Stage(0, 1, "L4", 2, 2, 2, 4000, 400.0, 1000.0), Stage(1, 3, "T4", 1, 2, 2, 5000, 0.0, 800.0))
    pipeline = Pipeline("toy", "toy", 800.0, 2000.0, 8000.0, stages)
    plan = Plan("pipelines", "max_min_throughput", "optimal", 1600.0, 1600.0, "milp", "highs", 0.1, "", {}, (pipeline,))
    return problem, with_hashes(problem, plan)


def with_hashes(problem: Problem, plan: Plan) -> Plan:
    profiles = {f"{dnn.name}/{variant.name}": digest(variant) for dnn in problem.dnns for variant in dnn.variants}
    return replace(plan, problem_sha256=digest(problem), profile_sha256=profiles)


def with_pipeline(plan: Plan, **changes: object) -> Plan:
    return replace(plan, pipelines=(replace(plan.pipelines[0], **changes),))  # type: ignore[arg-type]


def with_stage(plan: Plan, position: int, **changes: object) -> Plan:
    stages = list(plan.pipelines[0].stages)
    stages[position] = replace(stages[position], **changes)  # type: ignore[arg-type]
    return with_pipeline(plan, stages=tuple(stages))


def test_a_sound_plan_breaks_nothing() -> None:
    problem, plan = toy()
    assert check(problem, plan) == ()
    assert devices_used(problem, plan) == {"L4": 1, "T4": 2}
    assert slice_rps(problem, problem.dnns[0], plan.pipelines[0], 0) == pytest.approx(500)


def test_cards_are_shared_as_the_problem_says() -> None:
    # Ten T4 in a server: T4 slices receive 1 / (200 µs · 10) = 500 rps, which is no limit, and where as many L4 share a
    # card on the way to them, an L4 half sends 1 / (200 µs · 2 · 10) = 250 rps: the pool of two 500, not 1,000.
    problem, plan = toy()
    l4, t4 = problem.cluster.device_types
    cluster = replace(problem.cluster, device_types=(l4, replace(t4, devices_per_server=10)))
    problem = replace(problem, cluster=cluster)
    plan = with_hashes(problem, plan)
    assert check(problem, plan) == ()
    larger = replace(problem, options=replace(problem.options, card_sharing="larger"))
    assert slice_rps(larger, larger.dnns[0], plan.pipelines[0], 0) == pytest.approx(250)
    broken = check(larger, with_hashes(larger, plan))
    assert [(one.constraint, one.where, one.amount) for one in broken] == [
        ("capacity", "toy.pipelines[0].stages[0]", pytest.approx(1.0)),  # the pool is said to sustain 1,000
        ("capacity", "toy.pipelines[0].stages[0]", pytest.approx(0.6)),  # and the pipeline 800
    ]
    assert next(one.constraint for one in check(larger, plan)) == "problem"


# What is changed, then the constraint, its place and the amount that the checker must report first.
BROKEN: list[tuple[Callable[[Plan], Plan], str, str, float]] = [
    (lambda plan: with_stage(plan, 0, device="A100"), "names", "pipelines[0].stages[0]", 1),
    (lambda plan: with_stage(plan, 0, share=4), "names", "pipelines[0].stages[0]", 1),  # not offered
    (lambda plan: with_stage(plan, 0, batch=3), "names", "pipelines[0].stages[0]", 1),  # not profiled
    (lambda plan: with_pipeline(plan, variant="tiny"), "names", "pipelines[0]", 1),
    (lambda plan: replace(plan, profile_sha256={"toy/toy": "0" * 64}), "profile", "toy/toy", 1),
    (lambda plan: with_stage(plan, 1, first_block=2), "blocks", "toy.pipelines[0].stages[1]", 1),  # a gap
    (lambda plan: with_stage(plan, 1, last_block=2), "blocks", "toy.pipelines[0]", 1),  # the last is missing
    (lambda plan: with_stage(plan, 1, batch=1), "batch", "toy.pipelines[0]", 1),
    (lambda plan: with_stage(plan, 0, latency_us=3900), "inference", "toy.pipelines[0].stages[0]", -100),
    (lambda plan: with_stage(plan, 0, transfer_us=300.0), "transfer", "toy.pipelines[0].stages[0]", -100),
    (lambda plan: with_pipeline(plan, batch_building_us=0.0), "building", "toy.pipelines[0]", -2000),
    (lambda plan: with_pipeline(plan, slack_us=0.0), "slack", "toy.pipelines[0]", -8000),
    (lambda plan: with_stage(plan, 0, throughput_rps=1500.0), "capacity", "toy.pipelines[0].stages[0]", 0.5),
    (lambda plan: with_pipeline(plan, throughput_rps=1000.0), "capacity", "toy.pipelines[0].stages[1]", 0.25),
    (lambda plan: with_stage(plan, 0, slices=5, throughput_rps=2500.0), "devices", "L4", 1),  # 2.5 devices: 3 whole
    (lambda plan: with_stage(plan, 0, slices=3), "capacity", "toy.pipelines[0].stages[0]", 1 / 1.5 - 1),
    (lambda plan: with_stage(plan, 1, throughput_rps=790.0), "capacity", "toy.pipelines[0].stages[1]", 79 / 80 - 1),
    (lambda plan: with_pipeline(plan, throughput_rps=700.0), "capacity", "toy.pipelines[0].stages[1]", -1 / 8),
    (lambda plan: replace(plan, problem_sha256=""), "problem", "problem_sha256", 1),
    (lambda plan: replace(plan, profile_sha256={}), "profile", "toy/toy", 1),
    (lambda plan: replace(plan, profile_sha256=plan.profile_sha256 | {"b/b": ""}), "profile", "b/b", 1),
    (lambda plan: replace(plan, objective="least_cost"), "objective", "objective", 1),
    (lambda plan: replace(plan, scheduler="dart-r"), "scheduler", "method", 1),
    (lambda plan: replace(plan, scheduler="np"), "scheduler", "pipelines[0]", 1),
    (lambda plan: replace(plan, bound=16_000.0), "status", "status", 9 - 1e-6),
    (lambda plan: replace(plan, status="feasible"), "status", "status", -1e-6),
    (lambda plan: replace(plan, np_throughput_rps={"toy": 600.0}), "building", "np_throughput_rps.toy", 1),
    (lambda plan: replace(plan, np_throughput_rps={"other": 600.0}), "building", "np_throughput_rps.other", 1),
    (lambda plan: replace(plan, value=2000.0, bound=2000.0), "objective", "value", 0.25),
    (lambda plan: replace(plan, bound=1200.0), "objective", "bound", 0.25),
]


@pytest.mark.parametrize(("change", "constraint", "where", "amount"), BROKEN)
def test_each_broken_constraint_is_named(
    change: Callable[[Plan], Plan], constraint: str, where: str, amount: float
) -> None:
    problem, plan = toy()
    first = check(problem, change(plan))[0]
    assert (first.constraint, first.where) == (constraint, where)
    assert first.amount == pytest.approx(amount)
    assert first.where in str(first)


def test_a_tighter_problem_is_broken() -> None:
    problem, plan = toy()
    # 19.4 ms are needed: 4 + 0.4 + 5 + 2 and 8 of slack; an SLO of 19 ms with 7.6 ms of slack leaves 0 and is exact.
    tight = replace(problem, dnns=(replace(problem.dnns[0], slo_us=18_000.0),))
    found = {violation.constraint: violation.amount for violation in check(tight, with_hashes(tight, plan))}
    assert found == pytest.approx({"slack": 800, "latency": 4000 + 400 + 5000 + 2000 + 7200 - 18_000})
    one_stage = replace(problem, options=Options(max_stages=1))
    assert [violation.constraint for violation in check(one_stage, with_hashes(one_stage, plan))] == ["stages"]
    # A slice of half an L4 holds 100 + 2 · 10 bytes, which 238 bytes a device do not.
    small = (replace(problem.cluster.device_types[0], memory_bytes=238), problem.cluster.device_types[1])
    less_memory = replace(problem, cluster=replace(problem.cluster, device_types=small))
    assert [(v.constraint, v.amount) for v in check(less_memory, with_hashes(less_memory, plan))] == [
        ("memory", 1.0),
        ("memory", 2.0),
    ]  # slice, device


def test_links_limit_and_delay_transfers() -> None:
    problem, plan = toy()
    # Ten times slower and 50 µs away: 4,050 µs a batch; 1 / (2 ms · 2 shares) = 250 rps a slice.
    network = Network(10.0, links=(Link("L4", "T4", 1.0, 50.0),))
    slow = replace(problem, cluster=replace(problem.cluster, network=network))
    found = [(violation.constraint, violation.amount) for violation in check(slow, with_hashes(slow, plan))]
    card = 800 / 500 - 1  # what the two halves of the L4 send in a second takes its card 1.6 s
    assert dict(found) == pytest.approx(
        {"transfer": 400 - 4050, "latency": 19_400 + 3650 - 20_000, "capacity": card, "cards": card}
    )


def test_stages_of_a_position_fill_a_device_together_and_others_do_not() -> None:
    problem, plan = toy()
    half = replace(plan.pipelines[0].stages[0], slices=1)
    pipeline = replace(plan.pipelines[0], stages=(half, plan.pipelines[0].stages[1]))
    assert devices_used(problem, replace(plan, pipelines=(pipeline, pipeline))) == {"L4": 1, "T4": 4}
    swapped = replace(pipeline, stages=(plan.pipelines[0].stages[1], half))
    assert devices_used(problem, replace(plan, pipelines=(pipeline, swapped))) == {"L4": 2, "T4": 4}


def mutants(plan: Plan, rng: np.random.Generator) -> Iterator[tuple[str, Plan]]:
    """Change one statement of a plan, whichever: numbers by a factor, a little or much, to 0; names; hashes; order."""
    factor = float(rng.choice([0.0, 0.5, 0.9, 0.999, 1.001, 1.1, 2.0, 10.0]))
    number = int(rng.integers(len(plan.pipelines)))
    pipeline = plan.pipelines[number]
    position = int(rng.integers(len(pipeline.stages)))
    stage = pipeline.stages[position]

    def put(changed: Pipeline) -> Plan:
        return replace(plan, pipelines=(*plan.pipelines[:number], changed, *plan.pipelines[number + 1 :]))

    def put_stage(**changes: object) -> Plan:
        made = replace(stage, **changes)  # type: ignore[arg-type]
        return put(replace(pipeline, stages=(*pipeline.stages[:position], made, *pipeline.stages[position + 1 :])))

    for name in ("value", "gap_asked"):
        yield name, replace(plan, **{name: getattr(plan, name) * factor})
    yield "bound", replace(plan, bound=plan.bound * max(factor, 1.1) if factor >= 1 else plan.bound * factor)
    for name in ("throughput_rps", "batch_building_us", "slack_us"):
        yield name, put(replace(pipeline, **{name: getattr(pipeline, name) * factor}))
    for name in ("transfer_us", "throughput_rps"):
        yield f"stage {name}", put_stage(**{name: getattr(stage, name) * factor})
    step = int(rng.choice([-2, -1, 1, 2, 7]))
    for name in ("first_block", "last_block", "share", "slices", "batch", "latency_us"):
        yield f"stage {name}", put_stage(**{name: getattr(stage, name) + step})
    yield "stage device", put_stage(device=rng.choice(["g0", "g1", "g2", "nowhere"]))
    yield "dnn", put(replace(pipeline, dnn=rng.choice([one.dnn for one in plan.pipelines])))
    yield "status", replace(plan, status="feasible" if plan.status == "optimal" else "optimal")
    yield "objective", replace(plan, objective="least_cost")
    yield "scheduler", replace(plan, scheduler="np")
    yield "scheduler", replace(plan, scheduler="dart-r")
    yield "problem hash", replace(plan, problem_sha256=digest(plan))
    yield "profile hash", replace(plan, profile_sha256=dict.fromkeys(plan.profile_sha256, "0" * 64))
    yield "no hashes", replace(plan, profile_sha256={})
    yield "no hash", replace(plan, problem_sha256="")
    yield "a pipeline less", replace(plan, pipelines=plan.pipelines[:number] + plan.pipelines[number + 1 :])
    x0_rps = {name: rps * factor for name, rps in plan.np_throughput_rps.items()}
    yield "X0", replace(plan, np_throughput_rps=x0_rps)


def test_a_thousand_mutants_are_caught() -> None:
    # What stays true in a mutant is no defect: the same plan, and a gap asked for that gives the same status.
    rng = np.random.default_rng(0)
    tried, missed = 0, []
    for seed in (0, 2, 4):  # whose programmes end soon
        problem = random_problem(seed, dnns=3, stages=2, counts=(6, 5, 7), shares=(1, 2))
        plan = make_plan(problem, method="milp")
        assert check(problem, plan) == ()
        for _ in range(17):
            for name, mutant in mutants(plan, rng):
                true = mutant == plan or (name == "gap_asked" and plan.gap <= mutant.gap_asked)
                tried += not true
                if not true and not check(problem, mutant):
                    missed.append((name, seed))
    assert tried > 1000
    assert missed == []
