"""Plans with pools of several DNNs: against brute force, by hand, and what check notices."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations_with_replacement, product
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from mutants import missed, still_true
from oracles import Piece, every_pipeline, random_problem

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
from planner.model.placing import locations
from planner.model.problem import Objective
from planner.planning import make_plan
from planner.planning.programme.backends import solve
from planner.planning.programme.linear import LinearModel

MEASURED = Provenance("measured", "by hand")
Slot = tuple[object, ...]  # a stage of its own, or a pool


def random_merged(seed: int, *, merged: int | None = None, **kinds: object) -> Problem:
    """Two DNNs whose first blocks are one copy, measured twice."""
    rng = np.random.default_rng(seed)
    problem = random_problem(seed, dnns=2, **{"counts": (2, 1), "shares": (1,), **kinds})  # type: ignore[arg-type]
    blocks = int(rng.integers(1, 3)) if merged is None else merged
    first, second = (dnn.variants[0] for dnn in problem.dnns)
    tables = []
    for mine, theirs in zip(first.tables, second.tables, strict=True):
        noise = rng.uniform(0.9, 1.1, (len(mine.batches), blocks))
        rows = [
            (*(int(us * factor) + 1 for us, factor in zip(row[:blocks], own, strict=True)), *other[blocks:])
            for row, other, own in zip(mine.latency_us, theirs.latency_us, noise, strict=True)
        ]
        tables.append(replace(theirs, latency_us=tuple(rows)))
    second = replace(
        second,
        blocks=(*first.blocks[:blocks], *second.blocks[blocks:]),
        cut_bytes=(*first.cut_bytes[:blocks], *second.cut_bytes[blocks:]),
        tables=tuple(tables),
    )
    dnns = (problem.dnns[0], replace(problem.dnns[1], variants=(second,)))
    one = Merged(tuple(MergedMember(dnn.name) for dnn in dnns), blocks)
    return replace(problem, dnns=dnns, merged=(one,))


def labelled(problem: Problem, number: int) -> Iterator[tuple[Piece, tuple[Slot, ...]]]:
    """Every pipeline of a DNN with every choice of stages in pools, and the slot of each stage."""
    dnn = problem.dnns[number]
    for piece in every_pipeline(problem, dnn):
        choices = []
        for stage, device in enumerate(piece.devices):
            copies = problem.stage_copies(dnn.name, dnn.variants[0].name, *piece.cuts[stage : stage + 2])
            own = ("own", number, piece, stage)
            pool = ("pool", copies, device, piece.shares[stage], piece.batches[stage])
            choices.append([own] if copies is None else [own, pool])
        yield from ((piece, slots) for slots in product(*choices))


def best_rates(problem: Problem, ways: list[list[tuple[Piece, tuple[Slot, ...]]]], held: Counter[Slot]) -> float | None:
    """The objective of the best rates on given slices of every slot; None where some slice is of no use."""
    model = LinearModel()
    served: list[list[tuple[int, float]]] = [[] for _ in ways]
    loads: dict[Slot, list[tuple[int, float]]] = {slot: [] for slot in held}
    for number, mine in enumerate(ways):
        for piece, slots in mine:
            if all(slot in held for slot in slots):
                column = model.add_column("rate")
                served[number].append((column, 1.0))
                for slot, rps in zip(slots, piece.slice_rps, strict=True):
                    loads[slot].append((column, 1 / rps))
    if not all(loads.values()):
        return None
    for slot, terms in loads.items():
        model.add_row("slot", terms, upper=held[slot])
    least = model.add_column("z", objective=1.0)
    model.maximise = True
    for dnn, terms in zip(problem.dnns, served, strict=True):
        need = dnn.weight if problem.options.objective.startswith("max") else (dnn.rate_rps or 0.0)
        model.add_row("weight", [(least, -need), *terms], lower=0.0)
    solution, _ = solve(model)
    return solution.objective


def costs(problem: Problem, ways: list[list[tuple[Piece, tuple[Slot, ...]]]]) -> list[dict[Slot, float]]:
    """What an objective at given rates counts of every slot, per type of device."""
    found: list[dict[Slot, float]] = [{} for _ in problem.cluster.device_types]
    for dnn, mine in zip(problem.dnns, ways, strict=True):
        for piece, slots in mine:
            for stage, (device, slot) in enumerate(zip(piece.devices, slots, strict=True)):
                held = dnn.variants[0].memory_bytes(piece.batches[stage], *piece.cuts[stage : stage + 2])
                price = problem.cluster.device_types[device].price_per_hour
                found[device][slot] = {"least_memory": held / 1e6, "least_cost": price or 0.0}.get(
                    problem.options.objective, 1.0
                )
    return found


def brute_force(problem: Problem) -> float | None:
    """Every multiset of slots on the devices of every type, and the best rates on it."""
    problem = problem.planned
    ways = [list(labelled(problem, number)) for number in range(len(problem.dnns))]
    kinds = problem.cluster.device_types
    slots: list[set[Slot]] = [set() for _ in kinds]
    for mine in ways:
        for piece, used in mine:
            for device, slot in zip(piece.devices, used, strict=True):
                slots[device].add(slot)
    choices = [
        [chosen for n in range(kind.count + 1) for chosen in combinations_with_replacement(sorted(some, key=repr), n)]
        for kind, some in zip(kinds, slots, strict=True)
    ]
    given = not problem.options.objective.startswith("max")
    counted = costs(problem, ways)
    best: float | None = None
    for chosen in product(*choices):
        worth = -sum(of[slot] for of, some in zip(counted, chosen, strict=True) for slot in some)
        held = Counter(slot for some in chosen for slot in some)
        if (given and best is not None and worth <= best) or not _complete(ways, held):
            continue
        value = best_rates(problem, ways, held)
        if value is None or (given and value < 1 - 1e-9):
            continue
        worth = worth if given else value
        best = worth if best is None else max(best, worth)
    return best if best is None or not given else -best


def _complete(ways: list[list[tuple[Piece, tuple[Slot, ...]]]], held: Counter[Slot]) -> bool:
    """Whether every DNN has a whole pipeline, and every slot is in one."""
    useful: set[Slot] = set()
    for mine in ways:
        whole = [slots for _, slots in mine if all(slot in held for slot in slots)]
        if not whole:
            return False
        useful.update(slot for slots in whole for slot in slots)
    return useful == set(held)


@pytest.mark.parametrize("seed", range(12))
def test_equal_to_brute_force(seed: int) -> None:
    problem = random_merged(seed)
    expected = brute_force(problem)
    if expected is None:
        with pytest.raises(InputError):
            make_plan(problem)
        return
    plan = make_plan(problem)
    assert plan.value == pytest.approx(expected, rel=2e-6)
    assert plan.status == "optimal"


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("objective", ["fewest_devices", "least_cost", "least_memory"])
def test_given_rates_equal_to_brute_force(objective: Objective, seed: int) -> None:
    problem = random_merged(seed)
    dnns = tuple(replace(dnn, rate_rps=(60.0, 150.0)[seed % 2]) for dnn in problem.dnns)
    types = tuple(
        replace(kind, price_per_hour=price)
        for kind, price in zip(problem.cluster.device_types, (2.0, 3.5), strict=True)
    )
    cluster = replace(problem.cluster, device_types=types)
    options = replace(problem.options, objective=objective)
    problem = replace(problem, cluster=cluster, dnns=dnns, options=options)
    expected = brute_force(problem)
    if expected is None:
        with pytest.raises(InputError):
            make_plan(problem)
        return
    plan = make_plan(problem)
    assert plan.value == pytest.approx(expected, rel=2e-6)
    assert plan.status == "optimal"
    assert not check(problem, plan)


@pytest.mark.parametrize("sharing", ["own", "shared"])
@pytest.mark.parametrize("seed", range(2))
def test_merging_never_costs_throughput(seed: int, sharing: Literal["own", "shared"]) -> None:
    """What is planned without sharing is a plan with it; merged blocks are as slow as the slowest measurement."""
    problem = random_merged(seed, counts=(2, 2), shares=(1, 2)).planned
    problem = replace(problem, options=replace(problem.options, device_sharing=sharing))
    apart = make_plan(replace(problem, merged=()))
    assert make_plan(problem).value >= apart.value * (1 - 1e-6)


def three_classifiers(objective: str = "fewest_devices", rate_rps: float = 40.0) -> Problem:
    """Three DNNs of a trunk of 4 ms and a head of 1 ms, that are one block each; 5 devices that hold one of them."""
    dnns = []
    for name in ("cats", "dogs", "birds"):
        table = LatencyTable("Pi", 1, (1,), ((4000, 1000),), MEASURED)
        profile = Profile(name, (Block(("trunk",), 100), Block((f"{name} head",), 50)), (1000,), (table,))
        dnns.append(Dnn(name, 50_000, (profile,), rate_rps=rate_rps))
    cluster = Cluster((DeviceType("Pi", 6, memory_bytes=120),), Network(1.0))
    merged = Merged(tuple(MergedMember(dnn.name) for dnn in dnns))
    return Problem(cluster, tuple(dnns), Options(objective=objective), merged=(merged,))  # type: ignore[arg-type]


def test_one_trunk_feeds_three_heads_by_hand() -> None:
    """Apart: 3 trunks and 3 heads. A trunk's slice serves 250/s, all three ask for 120/s: one trunk, three heads."""
    problem = three_classifiers()
    assert make_plan(replace(problem, merged=())).value == 6
    plan = make_plan(problem)
    assert plan.value == 4
    pools = {pipeline.stages[0].pool for pipeline in plan.pipelines}
    assert pools == {"pool 1"}
    assert all(pipeline.stages[1].pool is None for pipeline in plan.pipelines)
    trunks = {(one.device, one.number, one.slot) for one in locations(problem, plan) if one.stage == 0}
    assert len(trunks) == 1, "one slice, at one place"


def test_more_than_a_slice_of_trunk_by_hand() -> None:
    """130/s each are 390/s of trunks of 250/s, and two of them too many for one slice: a pool of two, three heads."""
    plan = make_plan(three_classifiers(rate_rps=130.0))
    assert plan.value == 5
    assert {pipeline.stages[0].slices for pipeline in plan.pipelines} == {2}


def test_files_keep_pools(tmp_path: Path) -> None:
    problem = three_classifiers()
    plan = make_plan(problem)
    save(problem, tmp_path / "problem.json")
    save(plan, tmp_path / "plan.json")
    assert load_problem(tmp_path / "problem.json") == problem
    assert load_plan(tmp_path / "plan.json") == plan
    assert not check(problem, load_plan(tmp_path / "plan.json"))


def test_check_notices_what_is_wrong_with_pools() -> None:
    problem = three_classifiers(rate_rps=130.0)
    plan = make_plan(problem)

    def broken(stage: int, **changes: object) -> str:
        one = plan.pipelines[1]
        stages = list(one.stages)
        stages[stage] = replace(stages[stage], **changes)  # type: ignore[arg-type]
        pipelines = (plan.pipelines[0], replace(one, stages=tuple(stages)), plan.pipelines[2])
        return "; ".join(map(str, check(problem, replace(plan, pipelines=pipelines))))

    assert "expected the same blocks, device, share, slices, batch and latency" in broken(0, slices=3)
    assert "expected merged blocks in a pool, got [1, 2) of dogs" in broken(1, pool="other")
    assert "expected its pipelines to take at most all of it" in broken(0, throughput_rps=400.0)
    twice = replace(plan, placement=(*plan.placement, replace(plan.placement[0], pipeline=1)))
    assert "expected the slices of its pool under pipelines[0].stages[0] alone" in str(check(problem, twice)[0])


def test_merged_blocks_are_as_slow_as_the_slowest_measurement() -> None:
    """Batches 1 and 4 of one DNN, 1, 2 and 4 of the other: at 2 the first one's are interpolated to 20."""
    tables = {
        "a": LatencyTable("Pi", 1, (1, 4), ((10, 5), (40, 5)), MEASURED),
        "b": LatencyTable("Pi", 1, (1, 2, 4), ((12, 7), (19, 7), (38, 7)), MEASURED),
    }
    dnns = tuple(
        Dnn(name, 1000, (Profile(name, (Block(("x",), 4), Block((name,), 4)), (8,), (table,)),))
        for name, table in tables.items()
    )
    merged = (Merged((MergedMember("a"), MergedMember("b"))),)
    problem = Problem(Cluster((DeviceType("Pi", 1),), Network(1)), dnns, merged=merged)
    found = [dnn.variants[0].tables[0] for dnn in problem.planned.dnns]
    assert found[0].latency_us == ((12, 5), (20, 5), (40, 5))
    assert found[1].latency_us == ((12, 7), (20, 7), (40, 7))
    assert problem.planned.planned == problem.planned


MEMBERS = MergedMember("cats"), MergedMember("dogs")


@pytest.mark.parametrize(
    ("merged", "message"),
    [
        # a DNN that the problem lacks
        ((Merged((MEMBERS[0], MergedMember("fish"))),), r"merged\[0\]\.members\[1\]: unknown DNN 'fish'"),
        # one member
        ((Merged(MEMBERS[:1]),), r"merged\[0\]: expected two or more different DNNs or variants"),
        # one member twice
        ((Merged((MEMBERS[0], MEMBERS[0])),), r"merged\[0\]: expected two or more different DNNs or variants"),
        # more blocks than there are
        ((Merged(MEMBERS, 3),), r"members\[0\]: expected blocks within the 2 of cats, got \[0, 3\)"),
        # a trunk and a head
        ((Merged((MEMBERS[0], MergedMember("dogs", 1))),), "block 0 of cats and block 1 of dogs are unlike"),
        # the same blocks in two entries
        ((Merged(MEMBERS), Merged((MEMBERS[1], MergedMember("birds")))), "block 0 of dogs is merged twice"),
    ],
)
def test_what_cannot_be_merged_is_refused(merged: tuple[Merged, ...], message: str) -> None:
    problem = three_classifiers()
    with pytest.raises(InputError, match=message):
        replace(problem, merged=merged)


def test_what_is_too_long_to_list_is_planned_without_pools_or_refused() -> None:
    """Forty blocks in up to eight stages on eight devices: 10^15 pipelines."""
    devices = tuple(DeviceType(f"g{number}", 1, memory_bytes=400) for number in range(8))
    tables = tuple(LatencyTable(device.name, 1, (1,), ((100,) * 40,), MEASURED) for device in devices)
    profiles = [Profile(name, (Block(("l",), 10),) * 40, (0,) * 39, tables) for name in ("a", "b")]
    dnns = tuple(Dnn(profile.name, 100_000, (profile,)) for profile in profiles)
    merged = (Merged((MergedMember("a"), MergedMember("b")), 20),)
    problem = Problem(Cluster(devices, Network(1)), dnns, Options(max_stages=8), merged=merged)
    plan = make_plan(problem)  # whole models, one device each
    assert not check(problem, plan)
    assert (plan.method, plan.value) == ("start", pytest.approx(1000.0))
    small = replace(problem, cluster=Cluster(tuple(replace(one, memory_bytes=200) for one in devices), Network(1)))
    with pytest.raises(InputError, match=r"merged blocks: up to .* pipelines are too many to list; allow fewer stages"):
        make_plan(small)


def test_methods_that_know_no_pools_refuse() -> None:
    with pytest.raises(InputError, match="merged blocks are for method milp"):
        make_plan(three_classifiers(), method="decomposition")
    with pytest.raises(InputError, match="leave stage_batches out"):
        replace(three_classifiers(), options=Options(stage_batches=True))


def test_baselines_and_parts_of_a_problem_know_no_pools() -> None:
    problem = three_classifiers()
    roomy = replace(problem.cluster.device_types[0], memory_bytes=1000)
    problem = replace(problem, cluster=replace(problem.cluster, device_types=(roomy,)))
    assert make_plan(problem, "np").value == 3, "three whole models"
    assert problem.with_dnns(problem.dnns[1:]).merged == (Merged((MEMBERS[1], MergedMember("birds"))),)
    assert problem.with_dnns(problem.dnns[:1]).merged == ()


def test_plans_with_pools_are_checked_in_everything_that_they_say() -> None:
    plans = [(problem, make_plan(problem)) for problem in map(random_merged, (3, 6))]
    assert any(stage.pool for _, plan in plans for one in plan.pipelines for stage in one.stages)
    tried, passed = missed(plans, check, still_true)
    assert tried > 300
    assert passed == []
