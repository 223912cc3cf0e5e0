"""Policies that are Python functions of the read-only view."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.model import InputError
from simulator.engine import Drop, Send, System, View, Wait, World, build_system, simulate
from simulator.engine.python_policy import Answer


def earliest_deadline(view: View) -> Answer:
    """Take the pipeline that completes what is queued first, and wait as long as a larger batch is in time."""
    in_time = []
    for pipeline in range(view.pipelines):
        for batch in range(min(view.queued, view.planned_batch(pipeline)), 0, -1):
            if view.completion_us(pipeline, batch) <= view.deadline_us:
                in_time.append((view.completion_us(pipeline, batch), pipeline, batch))
                break
    if not in_time:
        return Drop()
    _, pipeline, batch = min(in_time)
    full = batch < view.queued or batch == view.planned_batch(pipeline)
    if full or view.completion_us(pipeline, batch + 1) > view.deadline_us:
        return Send(pipeline, batch)
    return Wait(view.deadline_us - view.work_us(pipeline, batch + 1) + 1)


@pytest.fixture
def system(one_stage) -> System:
    """Two slices, 10 ms for one request and 15 ms for two, SLO 40 ms."""
    return build_system(*one_stage(), "net")


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), load=st.floats(0.3, 1.5), spread=st.sampled_from([0.0, 0.3]))
def test_a_function_does_what_the_compiled_policy_does(one_stage, seed, load, spread) -> None:
    system = build_system(*one_stage(), "net")
    gaps_us = np.random.default_rng(seed).exponential(7_500 / load, 300)
    arrivals_us = np.cumsum(gaps_us).astype(np.int64)
    world = World(seed=seed, spread=spread)
    mine = simulate(system, arrivals_us, policy=earliest_deadline, world=world)
    compiled = simulate(system, arrivals_us, policy="earliest-deadline", world=world)
    np.testing.assert_array_equal(mine.end_us(), compiled.end_us())
    np.testing.assert_array_equal(mine.outcome, compiled.outcome)
    assert mine.engine == "events"


def test_what_a_policy_sees(system) -> None:
    """Requests at 0 and 4 ms: the first is sent alone on slice 0 until 10 ms, the second sees that."""
    seen = []

    def look(view: View) -> Answer:
        seen.append((view.now_us, view.queued, view.deadline_us, view.deadlines_us.tolist()))
        assert (view.pipelines, view.stages(0), view.planned_batch(0), view.work_us(0, 2)) == (1, 1, 2, 15_000)
        assert view.free_us(0, 0).tolist() == ([0, 0] if view.now_us == 0 else [10_000, 0])
        view.free_us(0, 0)[:] = 99  # a copy: the books stay as they are
        assert view.completion_us(0, 1) == view.now_us + 10_000
        return Send(0, 1)

    run = simulate(system, np.array([0, 4_000]), policy=look)
    assert seen == [(0, 1, 40_000, [40_000]), (4_000, 1, 44_000, [44_000])]
    assert run.visits[0].slice.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Send(1, 1), r"policy bad at 7 µs: expected a pipeline of 0 to 0, got Send\(pipeline=1, batch=1\)"),
        (Send(0, 2), "expected a batch of 1 to 1"),
        (Send(0, 0), "expected a batch of 1 to 1"),
        (Wait(7), "expected a time after 7 µs"),
        (Wait(7.5), "expected a time after 7 µs, in whole µs"),
        (Wait(math.inf), "expected a time after 7 µs, in whole µs"),
        (Send(0.0, 1), "expected a pipeline of 0 to 0"),
        (Send(0, 1.0), "expected a batch of 1 to 1"),
        (None, "expected Send, Drop or Wait, got None"),
    ],
)
def test_an_answer_that_cannot_be_followed_is_said(system, answer, words) -> None:
    def bad(view: View) -> Answer:
        return answer

    with pytest.raises(InputError, match=words):
        simulate(system, np.array([7]), policy=bad)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda view: view.completion_us(9, 1), "there are 1 pipelines, from 0; got 9"),
        (lambda view: view.completion_us(0, 5000), "batches of pipeline 0 have 1 to 2 requests; got 5000"),
        (lambda view: view.work_us(0, -3), "batches of pipeline 0 have 1 to 2 requests; got -3"),
        (lambda view: view.free_us(0, 7), "pipeline 0 has 1 stages, from 0; got 7"),
        (lambda view: view.stages(-1), "there are 1 pipelines, from 0; got -1"),
    ],
)
def test_a_view_shows_nothing_that_is_not_there(system, ask, words) -> None:
    def curious(view: View) -> Answer:
        ask(view)
        return Drop()

    with pytest.raises(InputError, match=words):
        simulate(system, np.array([7]), policy=curious)


def test_a_policy_may_wait_for_requests_alone(system) -> None:
    """Requests at 7 and 9 µs, numbers as NumPy has them: nothing is sent before both are there."""

    def pairs(view: View) -> Answer:
        return Send(np.int64(0), np.int64(2)) if view.queued == 2 else Wait(10**30)

    assert simulate(system, np.array([7, 9]), policy=pairs).end_us().tolist() == [15_009, 15_009]


def test_a_function_is_for_the_events_engine(system) -> None:
    with pytest.raises(InputError, match="needs the events engine, got replay"):
        simulate(system, np.array([7]), policy=earliest_deadline, engine="replay")
