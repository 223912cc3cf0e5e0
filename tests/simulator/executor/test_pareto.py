from dataclasses import replace
from itertools import product
from math import inf, nan

import numpy as np
import pytest

from planner.model import Block, InputError, LatencyTable, Profile, Provenance
from simulator.executor import Emulation, Settings, execute
from simulator.executor.pareto import Served, WireLink, mark_front, split_points, split_table
from simulator.executor.trials import Trial, plan_of_point, try_point

HAND = Provenance("estimated", "by hand")


def profile_of(rng: np.random.Generator, blocks: int) -> Profile:
    tables = tuple(
        LatencyTable(name, 1, (1, 2), tuple(tuple(rng.integers(1, 10_000, blocks).tolist()) for _ in range(2)), HAND)
        for name in ("A", "B")
    )
    cuts = tuple(rng.integers(1, 1_000_000, blocks - 1).tolist())
    return Profile("random", tuple(Block((f"layer{i}",)) for i in range(blocks)), cuts, tables)


def test_every_cut_and_order_is_there() -> None:
    points = split_points(profile_of(np.random.default_rng(0), 7), ("A", "B"), WireLink(100, 1))
    assert len(points) == 2 + 2 * 6
    assert {(point.devices, point.cut) for point in points if point.cut} == {
        (order, cut) for order, cut in product([("A", "B"), ("B", "A")], range(1, 7))
    }
    same = split_points(profile_of(np.random.default_rng(0), 7), ("A", "A"), WireLink(100, 1))
    assert len(same) == 1 + 6


def test_a_point_by_hand() -> None:
    # A: 4 + 6 ms, B: 1 + 8 ms; 2 requests a batch, 125 kB each at 1 Gbit/s: 2 ms on the wire; a hop takes 0.5 ms.
    tables = tuple(
        LatencyTable(name, 1, (2,), (row,), HAND) for name, row in (("A", (4000, 6000)), ("B", (1000, 8000)))
    )
    profile = Profile("toy", (Block(("a",)), Block(("b",))), (125_000,), tables)
    points = {point.name: point for point in split_points(profile, ("A", "B"), WireLink(500, 1), batch=2)}
    assert points["A"].predicted == Served(10_000, 200)
    assert points["A|1|B"].predicted == Served(14_500, 250)  # 2 requests every 8 ms
    assert points["B|1|A"].predicted.latency_us == 9_500
    assert points["B|1|A"].predicted.throughput_rps == pytest.approx(333.33, abs=0.01)
    assert [name for name, point in points.items() if point.on_front] == ["B", "B|1|A"]


@pytest.mark.parametrize("seed", range(10))
def test_the_front_is_what_no_point_dominates(seed: int) -> None:
    points = split_points(profile_of(np.random.default_rng(seed), 12), ("A", "B"), WireLink(200, 2))
    figures = [(point.predicted.latency_us, -point.predicted.throughput_rps) for point in points]
    for point, own in zip(points, figures, strict=True):
        dominated = any(all(np.less_equal(other, own)) and other != own for other in figures)
        assert point.on_front != dominated


def test_the_table_holds_every_point() -> None:
    points = list(mark_front(split_points(profile_of(np.random.default_rng(1), 5), ("A", "B"), WireLink(0, 1))))
    points[0] = replace(points[0], measured=Served(2_000, 400))
    table = split_table(points)
    assert table["name"].tolist() == [point.name for point in points]
    assert table["predicted_latency_ms"].tolist() == [point.predicted.latency_us / 1000 for point in points]
    assert (table.loc[0, "measured_latency_ms"], table.loc[0, "measured_throughput_rps"]) == (2.0, 400)
    assert table["measured_latency_ms"].isna().sum() == len(points) - 1


@pytest.mark.parametrize(
    ("latency_us", "bandwidth_gbps"), [(-1, 1), (0, 0), (nan, 1), (inf, 1), (0, inf), (3.7e9, 1), (0, 1e-7)]
)
def test_a_link_must_be_one(latency_us: float, bandwidth_gbps: float) -> None:
    with pytest.raises(InputError, match="link: expected"):
        WireLink(latency_us, bandwidth_gbps)


def test_a_point_is_a_plan_that_can_be_run(make_case) -> None:
    profile = make_case().problem.dnns[0].variants[0]
    points = split_points(profile, ("core", "core"), WireLink(0, 1))
    problem, plan = plan_of_point(points[2], profile, None)
    assert [(stage.first_block, stage.last_block) for stage in plan.pipelines[0].stages] == [(0, 2), (2, 4)]
    assert problem.cluster.device("core").count == 2


@pytest.mark.parametrize(("in_flight", "overlap"), [(1, False), (4, True)])
def test_stages_work_at_the_same_time_if_several_batches_are_under_way(
    make_case, in_flight: int, overlap: bool
) -> None:
    case = make_case(batch=1)
    profile = case.problem.dnns[0].variants[0]
    point = split_points(profile, ("core", "core"), WireLink(0, 1))[2]
    problem, plan = plan_of_point(point, profile, None)
    settings = Settings(oversubscribe=True, in_flight=in_flight, emulation=Emulation(slowdown={"core": 100}))
    run = execute(problem, plan, "tiny", case.models, np.zeros(20, np.int64), settings)
    first, second = run.records.visits
    at_once = (first.start_us[:, None] < second.end_us) & (second.start_us < first.end_us[:, None])
    assert at_once.any() == overlap


@pytest.mark.slow
def test_a_point_is_tried_in_both_ways(make_case) -> None:
    case = make_case(batch=1)
    profile = case.problem.dnns[0].variants[0]
    point = split_points(profile, ("core", "core"), WireLink(0, 1))[2]
    trial = Trial(seconds=0.01, min_batches=30)
    tried = try_point(point, profile, case.models["tiny"], Settings(oversubscribe=True), trial)
    assert tried.predicted == point.predicted
    assert tried.measured is not None
    assert tried.sequential is not None
    assert tried.measured.latency_us == tried.sequential.latency_us
    assert min(tried.measured.throughput_rps, tried.sequential.throughput_rps) > 0
