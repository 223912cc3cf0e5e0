"""Runs in which not everything goes to plan."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.model import InputError
from simulator.dispatch.decisions import FINISHED, LOST, OPEN
from simulator.dispatch.system import System
from simulator.engine import World, simulate
from simulator.engine.world import Degradation, Failure, FailureRate, Switch
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


def test_service_times_vary_as_asked_and_reproducibly() -> None:
    system, arrivals_us = chain(10**9, (3, [1000])), poisson_us(500, 4000)
    run = simulate(system, arrivals_us, world=World(seed=1, spread=0.2))
    assert_same(run, simulate(system, arrivals_us, world=World(seed=1, spread=0.2)))
    assert (run.end_us() != simulate(system, arrivals_us, world=World(seed=2, spread=0.2)).end_us()).any()
    logs = np.log((run.visits[0].end_us - run.visits[0].start_us) / 1000)
    assert logs.std() == pytest.approx(0.2, rel=0.05)  # 4,000 draws: standard error 1.1 %
    assert np.median(logs) == pytest.approx(0.0, abs=0.02)
    drawn = simulate(system, arrivals_us, world=World(factors=np.array([0.5, 2.0]))).visits[0]
    assert set((drawn.end_us - drawn.start_us).tolist()) == {500, 2000}


def test_corrected_books_know_that_a_batch_ended_early() -> None:
    """One slice, 100 µs planned, 50 in truth; SLO 120. By the plan the request of 60 would end at 200 > 180."""
    system, arrivals_us = chain(120, (1, [100])), np.array([0, 60])
    assert simulate(system, arrivals_us).outcome.tolist()[0] == FINISHED
    assert simulate(system, arrivals_us).outcome.tolist()[1] != FINISHED
    run = simulate(system, arrivals_us, world=World(factors=np.array([0.5])))
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
        ({"world": World(), "engine": "replay"}, "a world needs the simpy engine"),
        ({"world": World(), "policy": "reactive"}, "a world needs the simpy engine"),
        ({"world": World(failures=(Failure("slice", 0, 0, 9, 0, 1),))}, "stage 0 of pipeline 0 has no slice 9"),
    ],
)
def test_bad_worlds_are_one_line(options, message) -> None:
    with pytest.raises(InputError, match=message):
        simulate(chain(100, (1, [10])), np.array([0]), **options)


def test_worlds_that_cannot_be_are_refused() -> None:
    for bad in ({"spread": -1.0}, {"factors": np.array([0.0])}, {"replan": lambda *_: None}):
        with pytest.raises(InputError, match="world"):
            World(**bad)
    assert replace(World(), seed=3).seed == 3
