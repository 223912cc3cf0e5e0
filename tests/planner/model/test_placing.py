"""Placements: what check finds in wrong ones, and on what ground latencies beside neighbours stand."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from planner.model import (
    Block,
    Cluster,
    DeviceType,
    Dnn,
    LatencyTable,
    Network,
    Options,
    Pipeline,
    Placed,
    Plan,
    Problem,
    Profile,
    Provenance,
    Stage,
    digest,
)
from planner.model.check import check
from planner.model.placing import locations, neighbour_grounds, place

A30 = DeviceType("A30", 2, mig="a30-24gb", processes=2, devices_per_server=2)


def toy(sharing: str = "shared") -> tuple[Problem, Plan]:
    """Two DNNs of one block: "a" in two processes on 2g, "b" on a whole 1g, 100 requests/s a slice."""
    measured = Provenance("measured", "by hand")
    dnns, pipelines = [], []
    for name, share, slices in (("a", "2g.12gb/2", 2), ("b", "1g.6gb", 3)):
        table = LatencyTable("A30", share, (1,), ((10_000,),), measured)
        profile = Profile(name, (Block(("n",), parameter_bytes=2**30),), (), (table,))
        dnns.append(Dnn(name, 20_000.0, (profile,), np_throughput_rps=0.0))
        stage = Stage(0, 1, "A30", share, slices, 1, 10_000, 0.0, 100.0 * slices)
        pipelines.append(Pipeline(name, name, 100.0 * slices, 0.0, 8000.0, (stage,)))
    options = Options(device_sharing=sharing, max_stages=1)  # type: ignore[arg-type]
    problem = Problem(Cluster((A30,), Network(10.0)), tuple(dnns), options)
    plan = Plan(
        "pipelines", "max_min_throughput", "optimal", 200.0, 200.0, "milp", "highs", 0.1, digest(problem),
        {f"{dnn.name}/{one.name}": digest(one) for dnn in dnns for one in dnn.variants}, tuple(pipelines),
        placement=place(problem, pipelines), neighbours={"A30": "isolated"} if sharing == "shared" else {},
    )  # fmt: skip
    return problem, plan


def test_slices_lie_side_by_side_and_processes_together() -> None:
    problem, plan = toy()
    assert plan.placement == (Placed(0, 0, 0, 0, 1, (2, 2)), Placed(1, 0, 0, 0, 1, (0, 1)), Placed(1, 0, 2, 1, 1, (0,)))
    assert check(problem, plan) == ()
    assert [(one.number, one.server, one.slot) for one in locations(problem, plan)] == [
        (0, 0, 2), (0, 0, 2), (0, 0, 0), (0, 0, 1), (1, 0, 0)
    ]  # fmt: skip


def test_devices_that_are_not_shared_have_one_dnn() -> None:
    problem, plan = toy("own")
    assert check(problem, plan) == ()
    assert {(one.pipeline, one.number) for one in locations(problem, plan)} == {(0, 0), (1, 1)}
    _, shared = toy()
    found = check(problem, replace(shared, problem_sha256=digest(problem)))
    assert [(one.constraint, one.where) for one in found] == [("placement", "A30[0]")]
    assert "devices are not shared" in str(found[0])


def moved(plan: Plan, number: int, **changes: object) -> Plan:
    placement = list(plan.placement)
    placement[number] = replace(placement[number], **changes)  # type: ignore[arg-type]
    return replace(plan, placement=tuple(placement))


# What is changed in the placement, then the constraint and the place that check names first.
WRONG: list[tuple[Callable[[Plan], Plan], str, str]] = [
    (lambda plan: replace(plan, placement=plan.placement[:-1]), "placement", "pipelines[1].stages[0]"),  # one missing
    (lambda plan: moved(plan, 2, first_slice=1), "placement", "pipelines[1].stages[0]"),  # one twice
    (lambda plan: moved(plan, 2, pipeline=7), "placement", "pipelines[7].stages[0]"),
    (lambda plan: moved(plan, 2, devices=10**12), "placement", "pipelines[1].stages[0]"),
    (lambda plan: moved(plan, 2, device=2), "devices", "A30"),  # there are two
    (lambda plan: moved(plan, 2, device=0), "placement", "A30[0], slot 0"),  # two slices on a 1g
    (lambda plan: moved(plan, 2, device=0, slots=(2,)), "placement", "A30[0], slot 2"),  # beside the processes of "a"
    (lambda plan: moved(plan, 0, slots=(0, 2)), "placement", "A30[0], slot 0"),  # "a" and "b" on one
    (lambda plan: moved(plan, 0, device=1, slots=(1, 1)), "layout", "A30[1]"),  # a 2g begins at 0 or 2
    (lambda plan: moved(plan, 2, slots=(4,)), "layout", "A30[1]"),  # off the device
    (lambda plan: replace(plan, neighbours={}), "neighbours", "neighbours"),
]


@pytest.mark.parametrize(("change", "constraint", "where"), WRONG)
def test_wrong_placements_are_found(change: Callable[[Plan], Plan], constraint: str, where: str) -> None:
    problem, plan = toy()
    found = check(problem, change(plan))
    assert (constraint, where) in [(one.constraint, one.where) for one in found]


def test_memory_counts_for_what_lies_on_a_device() -> None:
    problem, plan = toy()
    small = replace(A30, memory_bytes=4 * 2**30 - 1)  # MIG's segments hold 5.8 GiB each all the same
    found = check(replace(problem, cluster=Cluster((small,), Network(10.0))), plan)
    assert ("memory", "A30[0]") in [(one.constraint, one.where) for one in found]


def test_the_ground_of_latencies_beside_neighbours_is_named() -> None:
    problem, plan = toy()
    assert neighbour_grounds(problem, plan) == {"A30": "isolated"}
    assumed = replace(problem, cluster=Cluster((replace(A30, neighbours="assumed"),), Network(10.0)))
    assert neighbour_grounds(assumed, plan) == {"A30": "assumed"}

    def beside(dnn: Dnn, *names: str) -> Dnn:
        (profile,) = dnn.variants
        return replace(dnn, variants=(replace(profile, tables=(replace(profile.tables[0], beside=names),)),))

    first, second = assumed.dnns
    one = replace(assumed, dnns=(beside(first, "b"), second))
    both = replace(assumed, dnns=(beside(first, "b"), beside(second, "a", "c")))
    assert neighbour_grounds(one, plan) == {"A30": "assumed"}
    assert neighbour_grounds(both, plan) == {"A30": "measured"}


@pytest.mark.parametrize(("shares", "slices"), [((1, 2), (7, 20_000_001)), ((2, 3, 5), (9_000_001, 5, 7_000_003))])
def test_millions_of_devices_are_a_few_runs(shares: tuple[int, ...], slices: tuple[int, ...]) -> None:
    provenance = Provenance("measured", "by hand")
    tables = tuple(LatencyTable("L4", k, (1,), ((9,),), provenance) for k in shares)
    profile = Profile("toy", (Block(("a",)),), (), tables)
    cluster = Cluster((DeviceType("L4", 20_000_000, shares=shares),), Network(10))
    problem = Problem(cluster, (Dnn("toy", 20_000, (profile,)),))
    stages = [Stage(0, 1, "L4", k, count, 1, 9, 0.0, 1.0) for k, count in zip(shares, slices, strict=False)]
    placement = place(problem, [Pipeline("toy", "toy", 1.0, 0.0, 0.0, (stage,)) for stage in stages])
    assert len(placement) < 20
    for number, stage in enumerate(stages):
        mine = [placed for placed in placement if placed.pipeline == number]
        assert [placed.first_slice for placed in mine] == [sum(p.slices for p in mine[:i]) for i in range(len(mine))]
        assert sum(placed.slices for placed in mine) == stage.slices
