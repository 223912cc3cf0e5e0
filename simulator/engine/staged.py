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
from simulator.engine.play import Numbers, Shorts, send
from simulator.results.records import Records, Visits


def replay_stages(system: System, arrivals_us: Ints) -> Records:
    """Simulate reactive dispatch on sorted arrivals (µs)."""
    requests, width = len(arrivals_us), system.max_stages
    books = open_books(system)
    outcome = np.full(requests, OPEN, np.int8)
    visit = np.full((width, requests), -1, np.int32)
    queue, members = np.empty((2, requests), np.int32)
    stages: list[Visits] = []
    for s in range(width):
        labels, times_us = np.empty((3, requests), np.int16), np.empty((3, requests), np.int64)
        sent, before, members = 0, members, np.empty(requests, np.int32)
        for p in np.flatnonzero(system.stages > s).tolist() if s else [0]:
            joining = _joining(system, p, s, stages[-1], before) if s else _front(arrivals_us)
            sent = run_queue(
                books, p * width + s, queue, *joining, arrivals_us, outcome, visit[s], members, labels, times_us, sent
            )
        stages.append(Visits(*labels[:, :sent], *times_us[:, :sent]))
    return Records(system, "replay", arrivals_us, outcome, tuple(visit), tuple(stages))


def _front(arrivals_us: Ints) -> tuple[Numbers, Shorts, Ints]:
    """Return what joins the frontend's queue: the requests one by one."""
    return np.arange(len(arrivals_us), dtype=np.int32), np.ones(len(arrivals_us), np.int16), arrivals_us


def _joining(system: System, p: int, s: int, before: Visits, members: Numbers) -> tuple[Numbers, Shorts, Ints]:
    """Return what joins the queue of stage s of pipeline p: requests, and size and time of the batches they come in."""
    order = np.flatnonzero(before.pipeline == p).astype(np.int32)
    first = np.cumsum(before.size, dtype=np.int64) - before.size
    reach_us = send(system, p, s, order, before.size, before.slice, before.end_us)
    size = before.size[order]
    joining = np.empty(int(size.sum()), np.int32)
    in_order(members, first, before.size, order, joining)
    return joining, size, reach_us


@compiled
def in_order(members: Numbers, first: Ints, size: Shorts, order: Numbers, joining: Numbers) -> None:
    """Put the requests of batches in the batches' new order; those of batch k begin at ``members[first[k]]``."""
    place = 0
    for k in order:
        for member in range(first[k], first[k] + size[k]):
            joining[place] = members[member]
            place += 1


@compiled
def run_queue(
    books: Books,
    row: int,
    queue: Numbers,
    joining: Numbers,
    size: Shorts,
    reach_us: Ints,
    arrivals: Ints,
    outcome: NDArray[np.int8],
    visit: Numbers,
    members: Numbers,
    labels: Shorts,
    times_us: Ints,
    sent: int,
) -> int:
    """Run one queue to its end.

    Parameters
    ----------
    row
        Which queue, as in `simulator.dispatch.reactive`.
    queue
        Room for it.
    joining, size, reach_us
        The next ``size[k]`` requests of ``joining`` join the queue at ``reach_us[k]``.
    visit, members, labels, times_us
        Filled for every batch sent: its requests' number of batch, its requests one after the other, its pipeline,
        size and slice, and when it was sent, started and finished.
    sent
        Batches that other queues of this stage position sent.

    Returns
    -------
    sent
        With the batches of this queue.
    """
    joined = k = 0
    placed = labels[1, :sent].sum()
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
            return sent
        batch, p, w = react(books, row, queue, arrivals, outcome, now)
        if batch == 0:
            continue
        at_row = p * books[NOTES, 0, MAX_STAGES] if row == 0 else row
        head = books[NOTES, row, HEAD]
        for place in range(head - batch, head):
            members[placed] = queue[place]
            visit[queue[place]] = sent
            outcome[queue[place]] = FINISHED  # unless a later stage drops it
            placed += 1
        labels[0, sent], labels[1, sent], labels[2, sent] = p, batch, w
        times_us[0, sent], times_us[2, sent] = now, books[FREE, at_row, w]
        times_us[1, sent] = books[FREE, at_row, w] - books[LATENCY, at_row, batch]
        sent += 1
