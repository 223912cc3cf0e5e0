"""The replay engine for reactive dispatch: queue by queue, because nothing flows back.

What the frontend sends depends on the arrivals alone, what reaches the next queue on what the frontend sent, and so
on. Each queue runs to its end before the next one starts.
"""

import numpy as np
from numpy.typing import NDArray

from simulator.dispatch.books import FREE, HEAD, LATENCY, MAX_STAGES, NEVER, NOTES, WAKE, Books, open_books
from simulator.dispatch.compiled import compiled
from simulator.dispatch.decisions import FINISHED, OPEN
from simulator.dispatch.reactive import join, react
from simulator.dispatch.system import Ints, System
from simulator.engine.play import Shorts, send
from simulator.results.records import Records, Visits

Numbers = NDArray[np.int32]


def replay_stages(system: System, arrivals_us: Ints) -> Records:
    """Simulate reactive dispatch on sorted arrivals (µs)."""
    requests, width = len(arrivals_us), system.max_stages
    books = open_books(system)
    outcome = np.full(requests, OPEN, np.int8)
    visit = np.full((width, requests), -1, np.int32)
    front = np.arange(requests, dtype=np.int32), np.ones(requests, np.int16), arrivals_us
    served = [run_queue(books, 0, *front, arrivals_us, outcome, visit[0], 0)]
    stages = [Visits(*served[0][0])]
    for s in range(1, width):
        before, members = stages[-1], np.concatenate([queue[1] for queue in served])
        served, sent = [], 0
        for p in np.flatnonzero(system.stages > s).tolist():
            row = p * width + s
            order = np.flatnonzero(before.pipeline == p)
            reach_us = np.empty(len(before.size), np.int64)
            send(
                order,
                system.card_slices[p, s - 1],
                system.slices[p, s - 1],
                system.transfer_us[p, s],
                system.hop_us[p, s],
                before.size,
                before.slice,
                before.end_us,
                reach_us,
            )
            joining = in_order(members, before.size, order)
            served.append(
                run_queue(
                    books,
                    row,
                    joining,
                    before.size[order],
                    reach_us[order],
                    arrivals_us,
                    outcome,
                    visit[s],
                    sent,
                )
            )
            sent += len(served[-1][0][0])
        stages.append(Visits(*(np.concatenate([queue[0][column] for queue in served]) for column in range(6))))
    return Records(system, "replay", arrivals_us, outcome, tuple(visit), tuple(stages))


@compiled
def in_order(members: Numbers, size: Shorts, order: Ints) -> Numbers:
    """Return the requests of batches in another order; ``members`` has those of batch 0, then those of batch 1, ..."""
    first = np.empty(len(size), np.int64)
    total = 0
    for k in range(len(size)):
        first[k] = total
        total += size[k]
    taken = np.empty(total, np.int32)
    place = 0
    for k in order:
        for member in range(first[k], first[k] + size[k]):
            taken[place] = members[member]
            place += 1
    return taken[:place]


@compiled
def run_queue(
    books: Books,
    row: int,
    joining: Numbers,
    size: Shorts,
    reach_us: Ints,
    arrivals: Ints,
    outcome: NDArray[np.int8],
    visit: Numbers,
    base: int,
) -> tuple[tuple[Shorts, Shorts, Shorts, Ints, Ints, Ints], Numbers]:
    """Run one queue to its end.

    Parameters
    ----------
    row
        Which queue, as in `simulator.dispatch.reactive`.
    joining, size, reach_us
        The next ``size[k]`` requests of ``joining`` join the queue at ``reach_us[k]``.
    base
        Number of the first batch that is sent.

    Returns
    -------
    columns, members
        Those of Visits for the batches sent, in order, and the requests in them one after the other.
    """
    width = books[NOTES, 0, MAX_STAGES]
    most = len(joining)
    queue, members = np.empty(most, np.int32), np.empty(most, np.int32)
    pipeline, sizes, slices = np.empty(most, np.int16), np.empty(most, np.int16), np.empty(most, np.int16)
    sent_us, start_us, end_us = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most, np.int64)
    sent = placed = joined = k = 0
    while True:
        wake = books[NOTES, row, WAKE]
        if k < len(reach_us) and reach_us[k] < wake:
            now = reach_us[k]
            # Batches that reach a later stage at one instant join its queue before it is worked through.
            while True:
                for _ in range(size[k]):
                    join(books, row, queue, arrivals, joining[joined])
                    joined += 1
                k += 1
                if row == 0 or k == len(reach_us) or reach_us[k] > now:
                    break
        elif wake < NEVER:
            now = wake
        else:
            break
        batch, p, w = react(books, row, queue, arrivals, outcome, now)
        if batch == 0:
            continue
        at_row = p * width if row == 0 else row
        head = books[NOTES, row, HEAD]
        for place in range(head - batch, head):
            members[placed] = queue[place]
            visit[queue[place]] = base + sent
            outcome[queue[place]] = FINISHED  # unless a later stage drops it
            placed += 1
        pipeline[sent], sizes[sent], slices[sent] = p, batch, w
        sent_us[sent], end_us[sent] = now, books[FREE, at_row, w]
        start_us[sent] = end_us[sent] - books[LATENCY, at_row, batch]
        sent += 1
    columns = pipeline[:sent], sizes[:sent], slices[:sent], sent_us[:sent], start_us[:sent], end_us[:sent]
    return columns, members[:placed]
