"""Plans with pools of several DNNs, run: the engine and the oracle, reservation and latest start."""

from dataclasses import replace

import numpy as np
import pytest

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
    Plan,
    Problem,
    Profile,
    Provenance,
)
from planner.planning import make_plan
from simulator.dispatch.decisions import LOST
from simulator.engine import System, build_system, simulate
from simulator.engine.latest_start import Rules, simulate_latest_start, spread_over
from simulator.engine.plans import pools_of
from simulator.engine.world import Failure, FailureRate, Switch, World
from simulator.results.records import Records

NAMES = ("cats", "dogs", "birds")


def merged_problem(rate_rps: float = 100.0) -> Problem:
    """A trunk of 4 ms (6 for two) that three DNNs share, on devices that hold a trunk or a head."""
    dnns = []
    for number, name in enumerate(NAMES):
        head_us = 1000 + 500 * number
        table = LatencyTable("Pi", 1, (1, 2), ((4000, head_us), (6000, head_us * 3 // 2)), Provenance("measured", ""))
        profile = Profile(name, (Block(("trunk",), 100), Block((name,), 50)), (1000,), (table,))
        dnns.append(Dnn(name, 60_000.0 + 10_000 * number, (profile,), rate_rps=rate_rps, np_throughput_rps=200.0))
    cluster = Cluster((DeviceType("Pi", 7, memory_bytes=120),), Network(1.0, hop_latency_us=100))
    merged = Merged(tuple(MergedMember(name) for name in NAMES))
    return Problem(cluster, tuple(dnns), Options(objective="fewest_devices"), merged=(merged,))


@pytest.fixture(scope="module")
def problem() -> Problem:
    return merged_problem()


@pytest.fixture(scope="module")
def plan(problem: Problem) -> Plan:
    return make_plan(problem)


def run(problem: Problem, plan: Plan, seed: int, load: float, seconds: float = 2.0, **how: object) -> list[Records]:
    rng = np.random.default_rng(seed)
    systems = [build_system(problem, plan, name) for name in NAMES]
    arrivals = [np.sort(rng.integers(0, int(seconds * 1e6), max(1, int(100 * load * seconds)))) for _ in NAMES]
    return simulate(systems, arrivals, pools=pools_of(plan, NAMES), **how)  # type: ignore[call-overload, no-any-return]


def assert_equal(one: Records, other: Records) -> None:
    assert one.outcome.tolist() == other.outcome.tolist()
    assert one.end_us().tolist() == other.end_us().tolist()


@pytest.mark.parametrize("policy", ["latest-start", "reservation", "orderly", "reactive"])
@pytest.mark.parametrize("seed", range(3))
def test_engine_equals_oracle(problem: Problem, plan: Plan, seed: int, policy: str) -> None:
    load = (0.5, 0.9, 1.5)[seed]
    for one, other in zip(
        run(problem, plan, seed, load, policy=policy, engine="events"),
        run(problem, plan, seed, load, policy=policy, engine="simpy"),
        strict=True,
    ):
        assert_equal(one, other)


@pytest.mark.parametrize("policy", ["latest-start", "reservation", "reactive"])
def test_in_a_world_too(problem: Problem, plan: Plan, policy: str) -> None:
    world = World(seed=3, spread=0.2, load_us=5000)
    found = [run(problem, plan, 1, 0.9, policy=policy, engine=e, world=[world] * 3) for e in ("events", "simpy")]
    for one, other in zip(*found, strict=True):
        assert_equal(one, other)


def test_a_batch_mixes_dnns_by_hand() -> None:
    """Three requests of three DNNs come at 0, 1 and 2 ms to one trunk that takes 4 ms for one and 6 for two.

    The first opens a batch, which waits; the second fills it at 1 ms: both leave the trunk at 7 ms. Cats' head takes
    1 ms and cats end at 8 ms, but that the batch of one waits for a second request, up to its timeout, like dogs'.
    """
    problem = merged_problem()
    plan = make_plan(problem)
    assert {pipeline.batch for pipeline in plan.pipelines} == {2}
    systems = [build_system(problem, plan, name) for name in NAMES]
    found = simulate_latest_start(
        systems, [np.array([0]), np.array([1000]), np.array([2000])], pools_of(plan, NAMES), rules=Rules(timeout_us=500)
    )
    cats, dogs, birds = found
    hop_us = 100 + 8  # 1000 bytes at 1 Gbit/s
    assert cats.visits[0].end_us.tolist() == [4500]  # alone: 500 µs are over before dogs come at 1 ms
    assert cats.end_us().tolist() == [4500 + hop_us + 500 + 1000]
    assert dogs.visits[0].start_us.tolist() == birds.visits[0].start_us.tolist() == [4500]  # together, when it is free
    assert dogs.visits[0].end_us.tolist() == birds.visits[0].end_us.tolist() == [10_500]
    assert dogs.visits[0].size.tolist() == [1], "a DNN sees its own requests of a batch"


def test_shared_pools_serve_what_is_planned(problem: Problem, plan: Plan) -> None:
    for policy in ("latest-start", "reservation"):
        for records in run(problem, plan, 0, 0.8, seconds=20.0, policy=policy):
            in_time = records.finished & (records.end_us() - records.arrival_us <= records.system.slo_us)
            assert in_time.mean() > 0.98, (policy, records.system.dnn)


def test_latest_start_answers_sooner_where_requests_are_few(problem: Problem, plan: Plan) -> None:
    """At a tenth of the load reservation waits for batches of one DNN until their deadline, latest start does not."""
    mean_us = {}
    for policy in ("latest-start", "reservation"):
        found = run(problem, plan, 5, 0.1, seconds=20.0, policy=policy)
        ended = [records.end_us()[records.finished] - records.arrival_us[records.finished] for records in found]
        mean_us[policy] = np.concatenate(ended).mean()
    assert mean_us["latest-start"] < 0.9 * mean_us["reservation"]


def test_arrivals_go_to_pipelines_in_proportion(problem: Problem, plan: Plan) -> None:
    system = build_system(problem, plan, "cats")
    double = replace(
        system,
        stages=np.repeat(system.stages, 2),
        batch=np.repeat(system.batch, 2),
        latency_us=np.repeat(system.latency_us, 2, axis=0),
        slices=np.array([[1, 1], [3, 3]]),
    )
    chosen = spread_over(double, 1000)
    assert abs((chosen == 1).sum() - 750) <= 2
    assert np.abs(np.cumsum(chosen == 1) - 0.75 * np.arange(1, 1001)).max() < 4, "evenly from the first on"


def test_one_request_and_an_empty_pipeline(problem: Problem, plan: Plan) -> None:
    assert all(records.finished.all() for records in run(problem, plan, 0, 0.001, policy="latest-start"))


@pytest.mark.parametrize("seed", range(4))
def test_failures_latest_start_first(problem: Problem, plan: Plan, seed: int) -> None:
    """Slices, devices and servers that fail: engine and oracle agree, and what was cut short is in the records."""
    rate = FailureRate(("slice", "device", "server")[seed % 3], 4e5, 5e4)  # type: ignore[arg-type]
    world = [World(seed=seed, spread=0.1, load_us=2000, failure_rate=rate)] * 3
    found = [run(problem, plan, seed, 0.9, policy="latest-start", engine=e, world=world) for e in ("events", "simpy")]
    for one, other in zip(*found, strict=True):
        assert_equal(one, other)
    cut = [visits.size == 0 for records in found[0] for visits in records.visits]
    assert sum(map(np.sum, cut)) > 0
    assert any((records.outcome == LOST).any() or not records.finished.all() for records in found[0])


def test_a_failed_slice_sends_requests_back_latest_start_first() -> None:
    """Two slices of 100 µs; the one that serves the first request stops at 40 µs, and the other serves it from 40."""
    one, zero = np.ones((1, 1), np.int64), np.zeros((1, 1), np.int64)
    system = System(
        "net", 1000, one[0], one[0], np.array([[[0, 100]]]), zero, zero, zero, 2 * one, one, one, one, zero, ("GPU",),
        (2.0,), (1.0,),
    )  # fmt: skip
    world = World(failures=(Failure("slice", 0, 0, 0, 40, 500),))
    found = simulate(system, np.array([0, 300]), policy="latest-start", world=world)
    assert found.visits[0].start_us.tolist() == [40, 300, 0]
    assert found.visits[0].end_us.tolist() == [140, 400, 40]
    assert found.visits[0].slice.tolist() == [1, 1, 0]
    assert found.visits[0].size.tolist() == [1, 1, 0]


def test_routes_are_not_taken_over(problem: Problem, plan: Plan) -> None:
    system = build_system(problem, plan, "cats")
    world = World(switches=(Switch(5, system),))
    with pytest.raises(InputError, match="latest-start: a request stands in front of a slice from when it comes"):
        simulate(system, np.array([0]), policy="latest-start", world=world)
    with pytest.raises(InputError, match="needs the events engine"):
        run(problem, plan, 0, 0.5, policy="latest-start", engine="replay")


@pytest.mark.parametrize("policy", ["reservation", "orderly", "reactive"])
@pytest.mark.parametrize("seed", range(3))
def test_plans_with_pools_take_over_from_each_other(problem: Problem, plan: Plan, seed: int, policy: str) -> None:
    """From shared pools to shared pools, with failures: engine and oracle agree, and both plans serve."""
    pools = pools_of(plan, NAMES)
    assert pools is not None
    systems = [build_system(problem, plan, name) for name in NAMES]
    rate = FailureRate("device", 1e6, 1e5) if seed else None
    worlds = [
        World(seed=seed, spread=0.2, load_us=3000, failure_rate=rate, switches=(Switch(700_000 + seed, system, own),))
        for system, own in zip(systems, pools, strict=True)
    ]
    found = [run(problem, plan, seed, 0.9, policy=policy, engine=e, world=worlds) for e in ("events", "simpy")]
    for one, other in zip(*found, strict=True):
        assert_equal(one, other)
        pipelines = len(one.system.stages) // 2
        assert 0 < (one.visits[0].pipeline < pipelines).sum() < len(one.visits[0].pipeline)


def test_dnns_that_share_pools_switch_together(problem: Problem, plan: Plan) -> None:
    systems = [build_system(problem, plan, name) for name in NAMES]
    worlds = [World(switches=(Switch(5 + number, system),)) for number, system in enumerate(systems)]
    with pytest.raises(InputError, match="plans take over for all of them at once; expected switches"):
        run(problem, plan, 0, 0.5, world=worlds)


@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_a_pool_of_three_dnns_waits_as_theory_says(spread: float) -> None:
    """Poisson arrivals of three DNNs with unlike SLOs at one slice, single requests: M/D/1, or M/G/1 by its moments.

    The order of service changes no mean: Pollaczek and Khinchine's W = λ E[S²] / (2 (1 - ρ)), with S log-normal of
    median 1 ms, E[S] = exp(σ²/2) and E[S²] = exp(2 σ²).
    """
    one, zero = np.ones((1, 1), np.int64), np.zeros((1, 1), np.int64)
    systems = [
        System(
            name, 10**9 + 10**6 * number, one[0], one[0], np.array([[[0, 1000]]]), zero, zero, zero, one, one, one, one,
            zero, ("GPU",), (1.0,), (1.0,),
        )
        for number, name in enumerate(NAMES)
    ]  # fmt: skip
    mean_us, second = 1000 * np.exp(spread**2 / 2), 1000**2 * np.exp(2 * spread**2)
    rate = 0.7 / mean_us  # of all three together, per µs
    rng = np.random.default_rng(7)
    arrivals = [np.cumsum(rng.exponential(3 / rate, 120_000)).astype(np.int64) for _ in NAMES]
    world = [World(seed=1, spread=spread)] * 3
    found = simulate(systems, arrivals, policy="latest-start", pools=[{(0, 0): "trunk"}] * 3, world=world)
    waits = np.concatenate([records.visits[0].start_us - records.arrival_us for records in found])
    assert waits.mean() == pytest.approx(rate * second / (2 * 0.3), rel=0.03)
