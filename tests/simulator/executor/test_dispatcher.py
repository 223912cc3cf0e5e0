"""The dispatcher against the simulator: the same decisions where everything takes what was planned."""

import heapq

import numpy as np
import pytest

from simulator.dispatch.decisions import LOST
from simulator.engine import System, build_system, simulate
from simulator.executor.dispatcher import Dispatcher, with_guard
from simulator.executor.fleet import SliceId


@pytest.fixture
def system(make_case) -> System:
    case = make_case(slices=(2, 3), batch=4, slo_us=50_000, latency_us=8_000)
    return build_system(case.problem, case.plan, case.dnn)


def drive(dispatcher: Dispatcher, arrivals_us: np.ndarray) -> list[tuple[int, int, tuple[int, ...], int]]:
    """Run a dispatcher as the frontend does, with workers that take exactly the planned time."""
    sent = []
    events: list[tuple[int, int, int, int, SliceId]] = []  # time, kind (left 0, reached 1), batch, size, slice
    free_us: dict[SliceId, int] = {}
    routes: dict[int, tuple[SliceId, ...]] = {}
    while True:
        now_us = min(dispatcher.wake_us, dispatcher.next_arrival_us)
        while events and events[0][0] <= now_us:
            time_us, kind, batch, size, at = heapq.heappop(events)
            if kind == 0:
                dispatcher.served(at, batch, size, time_us - dispatcher.latency_us(at, size), time_us)
                if at.stage + 1 < len(routes[batch]):
                    heapq.heappush(events, (time_us, 1, batch, size, routes[batch][at.stage + 1]))
            else:
                dispatcher.reached(at, batch, size, time_us)
                free_us[at] = max(time_us, free_us.get(at, 0)) + dispatcher.latency_us(at, size)
                heapq.heappush(events, (free_us[at], 0, batch, size, at))
        if now_us >= 1 << 46:
            return sent
        dispatcher.arrive(now_us)
        while (batch := dispatcher.next_batch(now_us)) is not None:
            sent.append((now_us, batch.size, tuple(at.slice for at in batch.slices), batch.first))
            routes[batch.number] = batch.slices
            heapq.heappush(events, (now_us, 1, batch.number, batch.size, batch.slices[0]))


@pytest.mark.parametrize("gap_us", [700, 1_500, 6_000])
@pytest.mark.parametrize("guard_us", [0, 7_000])
def test_decisions_are_the_simulators_where_nothing_deviates(system: System, gap_us: int, guard_us: int) -> None:
    rng = np.random.default_rng(gap_us)
    arrivals_us = np.cumsum(rng.exponential(gap_us, 400)).astype(np.int64)
    dispatcher = Dispatcher(system, arrivals_us, "reservation", guard_us)
    sent = drive(dispatcher, arrivals_us)
    simulated = simulate(with_guard(system, guard_us), arrivals_us)
    first = simulated.visits[0]
    assert [now_us for now_us, *_ in sent] == first.arrive_us.tolist()
    assert [size for _, size, *_ in sent] == first.size.tolist()
    assert [slices[0] for _, _, slices, _ in sent] == first.slice.tolist()
    assert [slices[1] for _, _, slices, _ in sent] == simulated.visits[1].slice.tolist()
    assert (dispatcher.fate >= 0).tolist() == simulated.finished.tolist()


def test_a_slice_that_is_taken_out_gets_nothing_until_it_is_back(system: System) -> None:
    arrivals_us = np.zeros(400, np.int64)
    dispatcher = Dispatcher(system, arrivals_us, "reservation", 0)
    dispatcher.arrive(0)
    dispatcher.take_out(SliceId(0, 1, 1))
    used = set()
    while (batch := dispatcher.next_batch(0)) is not None:
        used.add(batch.slices[1].slice)
    assert used == {0, 2}
    fresh = Dispatcher(system, arrivals_us, "reservation", 0)
    fresh.arrive(0)
    fresh.take_out(SliceId(0, 1, 1))
    fresh.bring_back(SliceId(0, 1, 1))
    assert 1 in {batch.slices[1].slice for batch in iter(lambda: fresh.next_batch(0), None)}


def test_a_late_batch_moves_what_waits_behind_it(system: System) -> None:
    dispatcher = Dispatcher(system, np.zeros(100, np.int64), "reservation", 0)
    dispatcher.arrive(0)
    batches = [dispatcher.next_batch(0) for _ in range(4)]
    at = SliceId(0, 0, 0)
    own = [batch for batch in batches if batch is not None and batch.slices[0] == at]
    planned_us = dispatcher.latency_us(at, 4)
    assert dispatcher.free_us(at, 0) == len(own) * planned_us
    dispatcher.left(at, own[0].number, 3 * planned_us)  # it took three times as long
    assert dispatcher.free_us(at, 3 * planned_us) == (3 + len(own) - 1) * planned_us


def test_a_slow_slice_is_reserved_for_longer_from_then_on(system: System) -> None:
    dispatcher = Dispatcher(system, np.zeros(100, np.int64), "reservation", 0)
    at = SliceId(0, 0, 0)
    planned_us = dispatcher.latency_us(at, 4)
    for number in range(60):
        dispatcher.reached(at, number, 4, number * 2 * planned_us)
        dispatcher.served(at, number, 4, number * 2 * planned_us, (number + 1) * 2 * planned_us)
    dispatcher.reached(at, 99, 4, 120 * planned_us)
    assert dispatcher.free_us(at, 120 * planned_us) == pytest.approx(122 * planned_us, rel=1e-3)


def test_lost_requests_have_a_fate(system: System) -> None:
    dispatcher = Dispatcher(system, np.zeros(10, np.int64), "reservation", 0)
    dispatcher.lose(2, 3)
    assert (dispatcher.fate == -LOST).tolist() == [False, False, True, True, True] + [False] * 5
