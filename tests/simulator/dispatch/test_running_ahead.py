"""Running ahead to the next batch gives what working through the queue step by step gives."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.dispatch.books import CHOSEN, NEVER, NOTES, TAIL, WAKE, open_books
from simulator.dispatch.frontend import POLICIES, advance, next_batch
from simulator.dispatch.system import System

Sent = list[tuple[int, int, int, list[int]]]


@st.composite
def systems(draw) -> System:
    """Up to three pipelines of up to three stages; half of the systems plan single requests only."""
    pipelines, width = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    most = draw(st.sampled_from([1, 4]))
    numbers = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    shape = pipelines, width
    stages = numbers.integers(1, width + 1, pipelines)
    here = np.arange(width) < stages[:, None]
    batch = numbers.integers(1, most + 1, pipelines)
    latency_us = numbers.integers(1, 60, (*shape, most + 1)) * 10
    latency_us[:, :, 0] = 0
    later = here & (np.arange(width) > 0)
    ones = np.ones(shape, np.int64)
    return System(
        dnn="net",
        slo_us=int(numbers.integers(100, 3000)),
        stages=stages,
        batch=batch,
        latency_us=latency_us * here[:, :, None],
        transfer_us=numbers.integers(0, 30, shape) * later,
        hop_us=numbers.choice([0, 25], shape) * later,
        later_us=0 * ones,
        slices=numbers.integers(1, 20, shape) * here,
        card_slices=np.where(np.arange(width) < stages[:, None] - 1, numbers.integers(1, 5, shape), 1),
        server_slices=ones,
        share=ones,
        device=0 * ones,
        device_types=("GPU",),
        devices=(1.0,),
        prices_per_hour=(1.0,),
    )


def ahead(system: System, arrivals_us: np.ndarray, policy: int) -> tuple[Sent, np.ndarray]:
    """Batches and fates by `next_batch`."""
    books, fate, sent = open_books(system), np.full(len(arrivals_us), -1, np.int32), []
    while (found := next_batch(policy, books, arrivals_us, fate))[1] > 0:
        sent.append((*found, _chosen(system, books, found[2])))
    return sent, fate


def step_by_step(system: System, arrivals_us: np.ndarray, policy: int) -> tuple[Sent, np.ndarray]:
    """Batches and fates by `advance`, at every arrival and every timer."""
    books, fate, sent = open_books(system), np.full(len(arrivals_us), -1, np.int32), []
    notes = books[NOTES, 0]
    while True:
        arrival = int(arrivals_us[notes[TAIL]]) if notes[TAIL] < len(arrivals_us) else NEVER
        now = min(arrival, int(notes[WAKE]))
        if now == NEVER:
            return sent, fate
        if arrival < notes[WAKE]:
            notes[TAIL] += 1
        size, pipeline = advance(policy, books, arrivals_us, fate, now)
        if size > 0:
            sent.append((now, size, pipeline, _chosen(system, books, pipeline)))


def _chosen(system: System, books: np.ndarray, pipeline: int) -> list[int]:
    return books[CHOSEN, pipeline * system.max_stages, : system.stages[pipeline]].tolist()


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=40, deadline=None)
@given(system=systems(), gaps_us=st.lists(st.integers(0, 200), min_size=1, max_size=80))
def test_running_ahead_skips_nothing(policy: str, system: System, gaps_us: list[int]) -> None:
    arrivals_us = np.cumsum(np.array(gaps_us))
    expected, fates = step_by_step(system, arrivals_us, POLICIES.index(policy))
    found, fate = ahead(system, arrivals_us, POLICIES.index(policy))
    assert found == expected
    np.testing.assert_array_equal(fate, fates)
