"""Runs in which not everything goes to plan."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.model import Block, InputError
from simulator.dispatch.decisions import FINISHED, LOST, OPEN
from simulator.dispatch.system import System
from simulator.engine import World, build_system, simulate
from simulator.engine.system import stage_spread
from simulator.engine.world import Degradation, Failure, FailureRate, Switch, drawn_failures, units_of
from simulator.results.metrics import attainment, late
from simulator.results.records import Records


def chain(slo_us: int, *stages: tuple[int, list[int]], transfer_us: int = 0, pipelines: int = 1) -> System:
    """Like pipelines of stages, each (slices, latency at batch 1, 2, ... in µs); every slice has its own card."""
    most = max(len(latency) for _, latency in stages)
    shape = pipelines, len(stages)
    latency_us = np.zeros((*shape, most + 1), np.int64)
    for s, (_, latency) in enumerate(stages):
        latency_us[:, s, 1 : len(latency) + 1] = latency
    ones = np.ones(shape, np.int64)
    slices = ones * np.array([n for n, _ in stages])
    return System(
        dnn="net",
        slo_us=slo_us,
        stages=np.full(pipelines, len(stages)),
        batch=np.full(pipelines, most),
        latency_us=latency_us,
        transfer_us=ones * transfer_us * (np.arange(len(stages)) > 0),
        hop_us=0 * ones,
        later_us=0 * ones,
        slices=slices,
        card_slices=ones,
        server_slices=2 * ones,
        share=ones,
        device=0 * ones,
        device_types=("GPU",),
        devices=(float(slices.sum()),),
        prices_per_hour=(1.0,),
    )


def poisson_us(mean_us: float, requests: int, seed: int = 3) -> np.ndarray:
    return np.cumsum(np.random.default_rng(seed).exponential(mean_us, requests)).astype(np.int64)


def assert_same(left: Records, right: Records) -> None:
    np.testing.assert_array_equal(left.outcome, right.outcome)
    np.testing.assert_array_equal(left.end_us(), right.end_us())
    for mine, theirs in zip(left.visits, right.visits, strict=True):
        for column in ("pipeline", "size", "slice", "arrive_us", "start_us", "end_us"):
            np.testing.assert_array_equal(getattr(mine, column), getattr(theirs, column), column)


@settings(max_examples=40, deadline=None)
@given(
    slices=st.integers(1, 4),
    latency=st.lists(st.integers(5, 60), min_size=1, max_size=4).map(sorted),
    pipelines=st.integers(1, 3),
    slo_us=st.integers(40, 400),
    seed=st.integers(0, 99),
)
def test_an_undisturbed_world_changes_nothing(slices, latency, pipelines, slo_us, seed) -> None:
    system = chain(slo_us, (slices, latency), pipelines=pipelines)
    arrivals_us = poisson_us(latency[-1] / slices / len(latency), 150, seed)
    assert_same(simulate(system, arrivals_us, world=World()), simulate(system, arrivals_us))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), spread=st.sampled_from([0.0, 0.3]))
def test_batches_of_one_instant_are_served_in_the_order_of_their_dispatch(seed, spread) -> None:
    """Times are multiples of 10 µs where nothing varies, so that batches often reach a slice or a card together."""
    system = chain(900, (4, [60, 90, 100]), (2, [20, 30, 40]), (3, [60, 70, 80]), transfer_us=10)
    system = replace(system, card_slices=np.array([[4, 2, 1]]))
    arrivals_us = poisson_us(13, 300, seed) // 10 * 10
    run = simulate(system, arrivals_us, world=World(seed=seed, spread=spread))
    for stage, visits in enumerate(run.visits):
        number = np.arange(len(visits.size))
        for w in range(4):
            queue = np.flatnonzero(visits.slice == w)
            queue = queue[np.lexsort((number[queue], visits.arrive_us[queue]))]
            assert (np.diff(visits.start_us[queue]) >= 0).all()
        if stage < 2:
            per_card = int(system.card_slices[0, stage])
            for card in range(0, 4, per_card):
                queue = np.flatnonzero(visits.slice // per_card * per_card == card)
                queue = queue[np.lexsort((number[queue], visits.end_us[queue]))]
                assert (np.diff(run.visits[stage + 1].arrive_us[queue]) >= 0).all()


def test_service_times_vary_as_asked_and_reproducibly() -> None:
    system, arrivals_us = chain(10**9, (3, [1000])), poisson_us(500, 4000)
    run = simulate(system, arrivals_us, world=World(seed=1, spread=0.2))
    assert_same(run, simulate(system, arrivals_us, world=World(seed=1, spread=0.2)))
    assert (run.end_us() != simulate(system, arrivals_us, world=World(seed=2, spread=0.2)).end_us()).any()
    logs = np.log((run.visits[0].end_us - run.visits[0].start_us) / 1000)
    assert logs.std() == pytest.approx(0.2, rel=0.05)  # 4,000 draws: standard error 1.1 %
    assert np.median(logs) == pytest.approx(0.0, abs=0.02)
    drawn = simulate(system, arrivals_us, world=World(factors=(0.5, 2.0))).visits[0]
    assert set((drawn.end_us - drawn.start_us).tolist()) == {500, 2000}


def test_corrected_books_know_that_a_batch_ended_early() -> None:
    """One slice, 100 µs planned, 50 in truth; SLO 120. By the plan the request of 60 would end at 200 > 180."""
    system, arrivals_us = chain(120, (1, [100])), np.array([0, 60])
    assert simulate(system, arrivals_us).outcome.tolist()[0] == FINISHED
    assert simulate(system, arrivals_us).outcome.tolist()[1] != FINISHED
    run = simulate(system, arrivals_us, world=World(factors=(0.5,)))
    assert run.end_us().tolist() == [50, 110]


def test_a_batch_on_a_failing_slice_is_retried_once() -> None:
    """Two slices of 100 µs, SLO 300. Slice 0 fails at 40 with request 0 on it, which begins again on slice 1."""
    system = chain(300, (2, [100]))
    world = World(failures=(Failure("slice", 0, 0, 0, at_us=40, repair_us=1000),))
    run = simulate(system, np.array([0]), world=world)
    assert run.end_us().tolist() == [140]
    assert run.visits[0].slice.tolist() == [1, 0]  # the batch, then what the failure cut short
    assert run.visits[0].size.tolist() == [1, 0]
    assert run.visits[0].end_us.tolist() == [140, 40]


def test_without_time_for_a_retry_it_is_lost_and_recorded() -> None:
    system = chain(120, (2, [100]))
    world = World(failures=(Failure("slice", 0, 0, 0, at_us=40, repair_us=1000),))
    run = simulate(system, np.array([0, 1]), world=world)
    assert run.outcome.tolist() == [LOST, FINISHED]
    both = World(failures=(Failure("server", 0, 0, 0, at_us=40, repair_us=1000),))  # two slices in a server
    assert simulate(system, np.array([0, 1]), world=both).outcome.tolist() == [LOST, LOST]


def test_a_slice_serves_again_after_its_repair_and_loading() -> None:
    """Down from 10 to 60, loaded again at 90 (at first at 30): the request of 20 is served at 90."""
    system = chain(1000, (1, [100]))
    world = World(load_us=30, failures=(Failure("device", 0, 0, 0, at_us=10, repair_us=50),))
    assert simulate(system, np.array([20]), world=world).visits[0].start_us.tolist() == [90]
    assert simulate(system, np.array([20]), world=World(load_us=30)).visits[0].start_us.tolist() == [30]


def test_a_slower_network_takes_longer() -> None:
    system = chain(1000, (1, [10]), (1, [10]), transfer_us=20)
    assert simulate(system, np.array([0]), world=World()).end_us().tolist() == [40]
    slow = World(degradations=(Degradation(0, 100, 3.0),))
    assert simulate(system, np.array([0, 200]), world=slow).end_us().tolist() == [80, 240]


def test_a_plan_takes_over_when_the_old_one_has_drained() -> None:
    """The switch at 250 finds the slice busy until 300; loading takes 50; so the new, faster plan begins at 350."""
    old, new = chain(1000, (1, [100])), chain(1000, (1, [40]))
    run = simulate(old, np.array([200, 260, 300]), world=World(load_us=50, switches=(Switch(250, new),)))
    assert run.visits[0].pipeline.tolist() == [0, 1, 1]
    assert run.end_us().tolist() == [300, 390, 430]


def test_slices_of_a_server_share_its_card_and_hops_take_time() -> None:
    """Both leave stage 0 at 10; the card sends one until 30 and the other until 50; 5 µs later they are there."""
    system = chain(1000, (2, [10]), (2, [10]), transfer_us=20)
    system = replace(system, card_slices=np.array([[2, 1]]), hop_us=np.array([[0, 5]]))
    run = simulate(system, np.array([0, 0]), world=World())
    assert run.visits[1].arrive_us.tolist() == [35, 55]
    assert run.end_us().tolist() == [45, 65]
    degraded = simulate(system, np.array([0, 0]), world=World(degradations=(Degradation(20, 40, 2.0),)))
    assert degraded.end_us().tolist() == [
        45,
        85,
    ]  # the transfer that begins at 30 takes twice as long, the hop does not


def on_types(system: System, devices: list[int]) -> System:
    """Return a system whose stages are on these types of devices."""
    types = tuple(f"type {number}" for number in range(2))
    count = tuple(float(system.slices[0][np.array(devices) == number].sum()) for number in range(2))
    return replace(system, device=np.array([devices]), device_types=types, devices=count, prices_per_hour=(1.0, 1.0))


def test_only_the_types_of_devices_that_are_still_at_work_drain() -> None:
    """At 250 the old plan serves on type 0 until 300. The new one has 40 µs there, after 30 µs on the idle type 1.

    Its request of 260 waits until type 1 has loaded (300), is there until 330, and at 350 type 0 has loaded.
    """
    old = on_types(chain(1000, (1, [100])), [0])
    new = on_types(chain(1000, (1, [30]), (1, [40])), [1, 0])
    run = simulate(old, np.array([200, 260]), world=World(load_us=50, switches=(Switch(250, new),)))
    assert [visits.start_us.tolist() for visits in run.visits] == [[200, 300], [300, 350]]
    assert run.end_us().tolist() == [300, 390]


def test_a_plan_takes_over_when_the_old_one_has_really_drained() -> None:
    """Service takes twice as long as planned: the old slice works until 400, not 300; then 50 to load, 80 to serve."""
    old, new = chain(1000, (1, [100])), chain(1000, (1, [40]))
    world = World(load_us=50, factors=(2.0,), switches=(Switch(250, new),))
    assert simulate(old, np.array([200, 260]), world=world).end_us().tolist() == [400, 530]


def test_a_later_plan_fails_too() -> None:
    """The new plan has two slices; the second one fails at 320 with the request of 310 on it, which is retried."""
    old, new = chain(1000, (1, [100])), chain(1000, (2, [100]))
    world = World(switches=(Switch(250, new),), failures=(Failure("slice", 0, 0, 1, 320, 1000, plan=1),))
    run = simulate(old, np.array([100, 300, 310]), world=world)
    assert run.end_us().tolist() == [200, 400, 500]
    assert run.visits[0].pipeline.tolist() == [0, 1, 1, 1]  # the last one is what the failure cut short
    assert run.visits[0].slice.tolist() == [0, 0, 0, 1]
    rate = World(switches=(Switch(250, new),), failure_rate=FailureRate("slice", 300.0, 100.0))
    cut = [simulate(old, np.arange(0, 5000, 90), world=replace(rate, seed=seed)).visits[0] for seed in range(3)]
    assert all((visits.pipeline[visits.size == 0] == 1).any() for visits in cut)


def test_a_plan_can_fail_at_the_instant_at_which_it_takes_over() -> None:
    """Its slice 0 stops at 250 as it takes over; the requests of 260 and 270 are served by slice 1, in turn."""
    old, new = chain(1000, (1, [100])), chain(1000, (2, [100]))
    world = World(switches=(Switch(250, new),), failures=(Failure("slice", 0, 0, 0, 250, 1000, plan=1),))
    run = simulate(old, np.array([100, 260, 270]), world=world)
    assert run.end_us().tolist() == [200, 360, 460]
    assert run.visits[0].slice.tolist() == [0, 1, 1]


def test_a_failed_slice_of_a_plan_that_waits_is_repaired() -> None:
    """The new plan waits for the old slice until 300; its own fails at 260, is repaired at 270, loads until 350."""
    old, new = chain(1000, (1, [100])), chain(1000, (1, [40]))
    failure = Failure("slice", 0, 0, 0, 260, 10, plan=1)
    world = World(load_us=50, switches=(Switch(250, new),), failures=(failure,))
    assert simulate(old, np.array([200, 280]), world=world).end_us().tolist() == [300, 390]


def test_failures_up_to_a_time_do_not_depend_on_the_length_of_the_run() -> None:
    system = chain(600, (4, [60, 90]), (3, [50, 70]))
    rate = FailureRate("slice", 2000.0, 300.0)
    short, long = (drawn_failures(system, rate, 0, 0, until, np.random.default_rng(1)) for until in (5_000, 50_000))
    assert short
    assert sorted(short, key=str) == sorted((one for one in long if one.at_us < 5_000), key=str)


def test_stages_vary_as_their_profile_measured(one_stage) -> None:
    """One block of 15 ms at batch 2 that varies by 0.3: so does the stage. Two of 10 ms vary less, as they average."""
    problem, plan = one_stage()
    (table,) = problem.dnns[0].variants[0].tables
    measured = replace(table, spread=((0.1,), (0.3,)))
    profile = replace(problem.dnns[0].variants[0], tables=(measured,))
    system = build_system(replace(problem, dnns=(replace(problem.dnns[0], variants=(profile,)),)), plan, "net")
    assert system.spread == pytest.approx(np.array([[0.3]]))
    halves = replace(table, latency_us=((9, 9), (10, 10)), spread=((0.1, 0.1), (0.3, 0.3)))
    two = replace(profile, blocks=(*profile.blocks, Block(("more",))), cut_bytes=(8,), tables=(halves,))
    (pipeline,) = plan.pipelines
    pipeline = replace(pipeline, stages=(replace(pipeline.stages[0], last_block=2, latency_us=20),))
    again = replace(problem, dnns=(replace(problem.dnns[0], variants=(two,)),))
    variance = (np.exp(0.3**2) - 1) / 2
    assert stage_spread(again, [pipeline]) == pytest.approx(np.array([[np.sqrt(np.log(1 + variance))]]))
    run = simulate(replace(system, slo_us=10**9), poisson_us(7_500, 4000), world=World(spread="profile"))
    full = run.visits[0].size == 2
    logs = np.log((run.visits[0].end_us - run.visits[0].start_us)[full] / 15_000)
    assert logs.std() == pytest.approx(0.3, rel=0.1)


def test_replanning_sees_observed_rates() -> None:
    old, new = chain(1000, (1, [100])), chain(1000, (4, [100]))
    seen = []

    def replan(time_s: float, rate_rps: float) -> System | None:
        seen.append((time_s, rate_rps))
        return new if len(seen) == 2 else None

    arrivals_us = np.concatenate([np.arange(0, 5_000, 500), np.arange(5_000, 20_000, 50)])
    run = simulate(old, arrivals_us, world=World(replan=replan, replan_every_us=5_000))
    assert seen[0] == (0.005, 2200.0)  # 11 requests from 0 to 5 ms, both included
    assert seen[1] == (0.010, 20_000.0)
    assert set(run.visits[0].pipeline.tolist()) == {0, 1}


def test_orderly_dispatch_with_varying_service_times_loses_little() -> None:
    """Correcting the books keeps late requests rare at 60 % load, where without spread none is late."""
    system, arrivals_us = chain(400, (4, [100]), (4, [60]), transfer_us=5), poisson_us(42, 5000)
    assert late(simulate(system, arrivals_us)) == 0
    assert attainment(simulate(system, arrivals_us, world=World(spread=0.05))) > 0.97


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6), unit=st.sampled_from(["slice", "device", "server"]), spread=st.sampled_from([0.0, 0.3])
)
def test_nothing_disappears(seed, unit, spread) -> None:
    """Whatever fails: every request has an outcome, and no slice serves two batches at once."""
    system = chain(600, (4, [60, 90]), (3, [50, 70]), transfer_us=10, pipelines=2)
    world = World(seed=seed, spread=spread, load_us=40, failure_rate=FailureRate(unit, 2000.0, 300.0))
    run = simulate(system, poisson_us(12, 400, seed), world=world)
    assert not (run.outcome == OPEN).any()
    for visits in run.visits:
        for p in range(2):
            for w in range(4):
                here = (visits.pipeline == p) & (visits.slice == w)
                order = np.lexsort((visits.end_us[here], visits.start_us[here]))
                assert (visits.start_us[here][order][1:] >= visits.end_us[here][order][:-1]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"world": World(), "engine": "replay"}, "a world needs the events engine"),
        ({"world": World(failures=(Failure("slice", 0, 0, 9, 0, 1),))}, "stage 0 of pipeline 0 has no slice 9"),
        ({"world": World(failures=(Failure("slice", 0, 0, 0, 5, 1, plan=1),))}, "plan 1 has not taken over at 5 µs"),
        (
            {"world": World(switches=(Switch(9, chain(200, (1, [10]))),))},
            "a plan that takes over has another slo_us: expected 100, got 200",
        ),
    ],
)
def test_bad_worlds_are_one_line(options, message) -> None:
    with pytest.raises(InputError, match=message):
        simulate(chain(100, (1, [10])), np.array([0]), **options)


def test_worlds_that_cannot_be_are_refused() -> None:
    now, later = (Switch(at_us, chain(100, (1, [10]))) for at_us in (5, 9))
    for bad in (
        {"spread": -1.0},
        {"spread": float("nan")},
        {"factors": (0.0,)},
        {"factors": (1.0,), "spread": 0.1},
        {"load_us": -1},
        {"replan": lambda *_: None},
        {"degradations": (Degradation(9, 9, 2.0),)},
        {"switches": (later, now)},
    ):
        with pytest.raises(InputError, match="world"):
            World(**bad)
    assert replace(World(), seed=3).seed == 3


def test_only_the_devices_that_are_still_at_work_drain_where_plans_say_which_they_are() -> None:
    """Two devices; the old plan is busy on number 0 until 300. The new one has slices on 1, free at once, and on 0."""
    place = np.array([[[0]]])
    old = replace(chain(1000, (1, [100])), number=place)
    new = replace(chain(1000, (2, [40])), number=np.array([[[1, 0]]]))
    world = World(load_us=20, switches=(Switch(250, new),))
    run = simulate(old, np.array([200, 255, 256]), world=world)
    assert run.visits[0].start_us.tolist() == [200, 270, 310]  # 250 and 20 to load, then its next; number 0 from 320
    assert run.visits[0].slice.tolist() == [0, 0, 0]
    by_type = simulate(replace(old, number=None), np.array([200, 255, 256]), world=world)
    assert by_type.visits[0].start_us.tolist() == [200, 320, 320]


def on_device(system: System, number: int) -> System:
    """Return a system with one stage whose slices are all on one device."""
    return replace(system, number=np.full((1, 1, int(system.slices.max())), number))


def test_a_device_that_fails_takes_all_that_the_plans_place_on_it() -> None:
    """Device 0 has the one slice of two DNNs, which work from 0 on and are lost at 50. Device 1 goes on until 100."""
    first, second = (on_device(chain(1000, (1, [100])), 0) for _ in range(2))
    other = on_device(chain(1000, (1, [100])), 1)
    failing = World(failures=(Failure("device", 0, 0, 0, 50, 30),))
    runs = simulate([first, second, other], [np.array([0])] * 3, world=[failing, World(), World()])
    assert [int(run.end_us()[0]) for run in runs] == [50, 50, 100]
    servers = World(failures=(Failure("server", 0, 0, 0, 50, 30),))  # of two devices: 0 and 1
    runs = simulate([first, second, other], [np.array([0])] * 3, world=[servers, World(), World()])
    assert [int(run.end_us()[0]) for run in runs] == [50, 50, 50]
    slices = World(failures=(Failure("slice", 0, 0, 0, 50, 30),))
    runs = simulate([first, second], [np.array([0])] * 2, world=[slices, World()])
    assert [int(run.end_us()[0]) for run in runs] == [50, 100]


def test_a_device_that_dnns_share_fails_as_often_as_one() -> None:
    """Both DNNs have a slice on device 0: what is drawn for it strikes both, and is not drawn twice."""
    system, rate = on_device(chain(10**6, (1, [100])), 0), FailureRate("device", 3_000.0, 300.0)
    arrivals_us = np.arange(0, 90_000, 300)
    alone = simulate(system, arrivals_us, world=World(failure_rate=rate))
    both = simulate([system] * 2, [arrivals_us] * 2, world=[World(failure_rate=rate)] * 2)
    assert (alone.visits[0].size == 0).sum() > 3
    for run in both:
        assert_same(alone, run)


def test_units_are_what_the_plan_says() -> None:
    """Three slices on devices 4, 2, 2: device 0 of the pool is number 2, with slices 1 and 2; both are in server 1."""
    system = replace(chain(100, (3, [10])), number=np.array([[[4, 2, 2]]]))
    assert units_of(system, "slice", 0, 0) == [(0,), (1,), (2,)]
    assert units_of(system, "device", 0, 0) == [(1, 2), (0,)]
    assert units_of(system, "server", 0, 0) == [(1, 2), (0,)]
    assert units_of(replace(system, number=None), "server", 0, 0) == [(0, 1), (2,)]
    assert units_of(system, "device", 0, 1) == []
    with pytest.raises(InputError, match="stage 0 of pipeline 0 has no device 2; it has 3 slices on 2 of them"):
        simulate(system, np.array([0]), world=World(failures=(Failure("device", 0, 0, 2, 5, 1),)))


def test_a_plan_waits_for_other_dnns_on_its_devices() -> None:
    """At 150 both DNNs get new plans. The first's is where the second's old one works until 400; then 20 to load."""
    first, second = on_device(chain(1000, (1, [100])), 0), on_device(chain(1000, (1, [300])), 1)
    worlds = [
        World(load_us=20, switches=(Switch(150, on_device(old, number)),)) for old, number in ((first, 1), (second, 0))
    ]
    for engine in ("events", "simpy"):
        runs = simulate([first, second], [np.array([100, 160]), np.array([100, 160])], world=worlds, engine=engine)
        assert runs[0].end_us().tolist() == [200, 520]  # 400, 20 to load, 100
        assert runs[1].end_us().tolist() == [400, 520]  # 200, 20 to load, 300


@pytest.mark.parametrize("engine", ["events", "simpy"])
def test_requests_come_back_to_reactive_queues_as_often_as_slices_fail(engine) -> None:
    """All 300 wait in front of two slices, which fail in turn: far more places in the queue than there are requests."""
    system = chain(10**6, (2, [100]))
    failures = tuple(Failure("slice", 0, 0, k % 2, 250 + 500 * k, 300) for k in range(40))
    run = simulate(system, np.zeros(300, np.int64), policy="reactive", world=World(failures=failures), engine=engine)
    assert (run.outcome == FINISHED).sum() + (run.outcome == LOST).sum() == 300
    assert (run.visits[0].size == 0).sum() > 20
    assert run.end_us().max() < 40_000
