"""The replay engine: where latencies are deterministic and nothing fails, decide everything, then play it.

The dispatcher's books are never corrected by what happens, so its decisions depend on the arrivals alone:
one pass over the arrivals decides, a second pass over the batches plays what was decided.
"""

import numpy as np
from numpy.typing import NDArray

from simulator.dispatch.books import CHOSEN, FACTS, MAX_STAGES, NOTES, STAGES, Books, open_books
from simulator.dispatch.compiled import compiled
from simulator.dispatch.frontend import next_batch
from simulator.dispatch.system import Ints, System
from simulator.engine.play import play
from simulator.results.records import Records, Visits, outcomes


def replay(system: System, arrivals_us: Ints, policy: int, truth: System | None = None) -> Records:
    """Simulate a frontend policy on sorted arrivals (µs).

    With a ``truth``, the same pools with other latencies, the dispatcher decides by ``system`` and batches take what
    is true: a plan whose profile was wrong.
    """
    requests, stages = len(arrivals_us), system.max_stages
    fate = np.full(requests, -1, np.int32)
    times_us = np.empty((3, stages, requests), np.int64)
    pipeline, size = np.empty(requests, np.int16), np.empty(requests, np.int16)
    slices = np.full((stages, requests), -1, np.int16)
    sent = decide_all(policy, open_books(system), arrivals_us, fate, times_us[0, 0], pipeline, size, slices)
    pipeline, size, slices, times_us = pipeline[:sent], size[:sent], slices[:, :sent], times_us[:, :, :sent]
    play(truth or system, pipeline, size, slices, times_us)
    visits = tuple(Visits(pipeline, size, slices[s], *times_us[:, s]) for s in range(stages))
    return Records(system, "replay", arrivals_us, outcomes(fate), (fate,) * stages, visits)


@compiled
def decide_all(
    policy: int,
    books: Books,
    arrivals: Ints,
    fate: NDArray[np.int32],
    sent_us: Ints,
    pipeline_of: NDArray[np.int16],
    size_of: NDArray[np.int16],
    slices: NDArray[np.int16],
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
