"""The replay engine: where latencies are deterministic and nothing fails, decide everything, then play it.

The dispatcher's books are never corrected by what happens, so its decisions depend on the arrivals alone:
one pass over the arrivals decides, a second pass over the batches plays what was decided. Where there is one pool that
serves one request at a time, what was booked is what happens, and one pass is enough.
"""

import numpy as np
from numpy.typing import NDArray

from simulator.compilation import compiled
from simulator.dispatch.books import (
    CHOSEN,
    FACTS,
    MAX_STAGES,
    NOTES,
    STAGES,
    Books,
    open_books,
)
from simulator.dispatch.decisions import HOPELESS
from simulator.dispatch.frontend import RESERVATION, next_batch
from simulator.dispatch.system import Ints, System
from simulator.engine.play import play
from simulator.results.records import Records, Visits, outcomes

WORD_SHIFT = 5
WORD_BITS = 1 << WORD_SHIFT

Shorts = NDArray[np.int16]
Numbers = NDArray[np.int32]


def replay(system: System, arrivals_us: Ints, policy: int, truth: System | None = None) -> Records:
    """Simulate a frontend policy on sorted arrivals (µs).

    With a ``truth``, the same pools with other latencies, the dispatcher decides by ``system`` and batches take what
    is true: a plan whose profile was wrong.
    """
    requests, stages = len(arrivals_us), system.max_stages
    fate = np.full(requests, -1, np.int32)
    times_us = np.empty((3, stages, requests), np.int64)
    slices = np.full((stages, requests), -1, np.int16)
    if policy == RESERVATION and truth is None and is_single_pool(system):
        latency_us, number = int(system.latency_us[0, 0, 1]), int(system.slices[0, 0])
        idle = np.array([(1 << min(WORD_BITS, number - k)) - 1 for k in range(0, number, WORD_BITS)], np.int64)
        sent = serve_singly(latency_us, system.slo_us, arrivals_us, fate, times_us[:, 0], slices[0], idle)
        pipeline, size = np.zeros(sent, np.int16), np.ones(sent, np.int16)
        slices, times_us = slices[:, :sent], times_us[:, :, :sent]
    else:
        pipeline, size = np.empty(requests, np.int16), np.empty(requests, np.int16)
        sent = decide_all(policy, open_books(system), arrivals_us, fate, times_us[0, 0], pipeline, size, slices)
        pipeline, size, slices, times_us = pipeline[:sent], size[:sent], slices[:, :sent], times_us[:, :, :sent]
        play(truth or system, pipeline, size, slices, times_us)
    visits = tuple(Visits(pipeline, size, slices[s], *times_us[:, s]) for s in range(stages))
    return Records(system, "replay", arrivals_us, outcomes(fate), (fate,) * stages, visits)


def is_single_pool(system: System) -> bool:
    """Return whether a system is one pool that serves one request at a time, which are there when they arrive."""
    travel_us = system.transfer_us[0, 0] + system.hop_us[0, 0]
    return bool(len(system.stages) == 1 and system.max_stages == 1 and system.batch[0] == 1 and travel_us == 0)


@compiled
def serve_singly(
    latency: int, slo: int, arrivals: Ints, fate: Numbers, times_us: Ints, chosen: Shorts, idle: Ints
) -> int:
    """Run reservation dispatch for a single pool, fill the columns per batch, and return the number of batches.

    A request takes the slice that is free first, the lowest on ties, when it comes, or leaves as hopeless: what
    `next_batch` decides. As all take the same time, slices are free again in the order in which they were taken, so
    that no slice needs to be looked for but the lowest of those that are idle.

    Parameters
    ----------
    idle
        A bit for each slice, WORD_BITS a word, all 1: those that are idle.
    """
    slices = 0
    for k in range(len(idle)):
        slices += count_ones(idle[k])
    sent = freed = 0  # batches; those whose slices are idle again, or were taken at their end
    for request in range(len(arrivals)):
        now = arrivals[request]
        while freed < sent and times_us[2, freed] <= now:
            idle[chosen[freed] >> WORD_SHIFT] |= 1 << (chosen[freed] & (WORD_BITS - 1))
            freed += 1
        waits = sent - freed == slices
        start = times_us[2, freed] if waits else now
        if start + latency > now + slo:
            fate[request] = -HOPELESS
            continue
        if waits:
            w = int(chosen[freed])
            freed += 1
        else:
            k = 0
            while idle[k] == 0:
                k += 1
            w = (k << WORD_SHIFT) + count_ones((idle[k] & -idle[k]) - 1)
            idle[k] &= idle[k] - 1
        fate[request] = sent
        chosen[sent] = w
        times_us[0, sent] = now
        times_us[1, sent] = start
        times_us[2, sent] = start + latency
        sent += 1
    return sent


@compiled
def count_ones(word: int) -> int:
    """Return how many bits are 1; LLVM knows this loop as one instruction."""
    ones = 0
    while word != 0:
        word &= word - 1
        ones += 1
    return ones


@compiled
def decide_all(
    policy: int,
    books: Books,
    arrivals: Ints,
    fate: Numbers,
    sent_us: Ints,
    pipeline_of: Shorts,
    size_of: Shorts,
    slices: Shorts,
) -> int:
    """Run the dispatcher over all arrivals, fill the columns per batch, and return the number of batches."""
    sent = 0
    while True:
        now, size, pipeline = next_batch(policy, books, arrivals, fate)
        if size == 0:
            return sent
        first = pipeline * books[NOTES, 0, MAX_STAGES]
        for s in range(books[FACTS, first, STAGES]):
            slices[s, sent] = books[CHOSEN, first, s]
        sent_us[sent] = now
        pipeline_of[sent] = pipeline
        size_of[sent] = size
        sent += 1
