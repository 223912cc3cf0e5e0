"""The frontend queue: from a policy's decisions about its head to batches sent and requests dropped.

The queue is ``arrivals[HEAD:TAIL]``, in deadline order because all requests of a DNN have the same SLO. It is
worked through on every arrival and at the policy's own timer; an arrival cancels the timer, but a timer
due at the instant of an arrival goes first.
"""

import numpy as np
from numpy.typing import NDArray

from simulator.compilation import compiled
from simulator.dispatch.books import (
    AWAITED,
    FACTS,
    FREE,
    HEAD,
    MAX_STAGES,
    MONOTONE,
    NEVER,
    NOTES,
    PIPELINES,
    SENT,
    SINGLES,
    SLO,
    TAIL,
    WAKE,
    WORK,
    Books,
    completion,
    forget,
    refresh,
    reserve,
    walk,
)
from simulator.dispatch.decisions import DROP, HOPELESS, SEND, Decision
from simulator.dispatch.orderly import orderly
from simulator.dispatch.planned_batches import earliest_deadline, least_queued, round_robin
from simulator.dispatch.reservation import least_delayed, reservation
from simulator.dispatch.system import Ints

POLICIES = ("reservation", "orderly", "round-robin", "least-queued", "earliest-deadline")
RESERVATION, ORDERLY, ROUND_ROBIN, LEAST_QUEUED, EARLIEST_DEADLINE = range(5)


@compiled
def decide(policy: int, books: Books, now: int, head: int, queued: int, deadline: int) -> Decision:
    """Return a policy's decision about the head of the queue."""
    if policy == ORDERLY:
        return orderly(books, now, head, queued, deadline)
    if policy == ROUND_ROBIN:
        return round_robin(books, now, head, queued, deadline)
    if policy == LEAST_QUEUED:
        return least_queued(books, now, head, queued, deadline)
    if policy == EARLIEST_DEADLINE:
        return earliest_deadline(books, now, head, queued, deadline)
    return reservation(books, now, head, queued, deadline)


@compiled
def advance(policy: int, books: Books, arrivals: Ints, fate: NDArray[np.int32], now: int) -> tuple[int, int]:
    """Work through the queue until a batch is sent or nothing more can be done now.

    Returns
    -------
    size, pipeline
        A batch that is sent now (call again), or size 0: WAKE is then the time at which to call again if no
        request arrives before.
    """
    head = books[NOTES, 0, HEAD]
    arrived = books[NOTES, 0, TAIL]
    wake = NEVER
    size = pipeline = 0
    while head < arrived:
        deadline = arrivals[head] + books[NOTES, 0, SLO]
        action, pipeline, batch, value = decide(policy, books, now, head, arrived - head, deadline)
        if action == DROP:
            fate[head] = -value
            head += 1
        elif action == SEND:
            reserve(books, pipeline, batch, now)
            for request in range(head, head + batch):
                fate[request] = books[NOTES, 0, SENT]
            books[NOTES, 0, SENT] += 1
            size = batch
            head += batch
            wake = now if head < arrived else NEVER
            break
        else:
            books[NOTES, 0, AWAITED] = batch
            wake = value
            break
    books[NOTES, 0, HEAD] = head
    books[NOTES, 0, WAKE] = wake
    return size, pipeline


@compiled
def advance_anew(
    policy: int,
    books: Books,
    arrivals: Ints,
    fate: NDArray[np.int32],
    now: int,
    arrived: int,
    changed: Ints,
    count: int,
) -> tuple[int, int, int, int]:
    """Enter what has changed since the last call into the books, and `advance`.

    One call, since each costs a frontend on a real clock as much as the work in it.

    Parameters
    ----------
    arrived
        How many requests have arrived.
    changed
        ``[4 · i : 4 · i + 4]`` for each of ``count`` slices: its row in the books, its number, the first slice of its
        card, and until when it is reserved.

    Returns
    -------
    size, pipeline, wake, head
        As `advance`; when to call again, and the first request that waits still.
    """
    books[NOTES, 0, TAIL] = arrived
    for i in range(count):
        row = changed[4 * i]
        books[FREE, row, changed[4 * i + 1]] = changed[4 * i + 3]
        refresh(books, row, changed[4 * i + 2])
        forget(books, row // books[NOTES, 0, MAX_STAGES])
    size, pipeline = advance(policy, books, arrivals, fate, now)
    return size, pipeline, books[NOTES, 0, WAKE], books[NOTES, 0, HEAD]


@compiled
def next_batch(policy: int, books: Books, arrivals: Ints, fate: NDArray[np.int32]) -> tuple[int, int, int]:
    """Run the dispatcher ahead to the next batch that it sends.

    That is exact as long as nothing but its own reservations changes the books.

    Parameters
    ----------
    arrivals
        All of them, in order (µs).
    fate
        ``[request]``; filled with the number of its batch, or the negative cause of its drop.

    Returns
    -------
    now, size, pipeline
        Its slices are in CHOSEN; size 0 when all requests are dealt with.
    """
    if policy == RESERVATION and books[NOTES, 0, SINGLES]:
        return next_single(books, arrivals, fate)
    while True:
        arrived = books[NOTES, 0, TAIL]
        wake = books[NOTES, 0, WAKE]
        if arrived < len(arrivals) and arrivals[arrived] < wake:
            now = arrivals[arrived]
            books[NOTES, 0, TAIL] = arrived + 1
        elif wake < NEVER:
            now = wake
        else:
            return NEVER, 0, 0
        size, pipeline = advance(policy, books, arrivals, fate, now)
        if size > 0:
            return now, size, pipeline
        if policy == RESERVATION and books[NOTES, 0, WAKE] < NEVER:
            skip_waiting(books, arrivals)


@compiled
def next_single(books: Books, arrivals: Ints, fate: NDArray[np.int32]) -> tuple[int, int, int]:
    """Run reservation dispatch ahead where all planned batches are 1: nothing waits.

    Every request is the head of the queue when it comes, and is sent or dropped at once. That is what `reservation`
    decides, without the work of a queue.
    """
    slo = books[NOTES, 0, SLO]
    alone = books[NOTES, 0, PIPELINES] == 1
    for request in range(books[NOTES, 0, TAIL], len(arrivals)):
        now = arrivals[request]
        pipeline = 0
        if alone:  # nothing to compare with, so that nothing is to be remembered
            end = walk(books, 0, 1, now)
        else:
            pipeline = least_delayed(books, now, now + slo)
            end = completion(books, pipeline, 1, now)
        if end <= now + slo:
            reserve(books, pipeline, 1, now)
            fate[request] = books[NOTES, 0, SENT]
            books[NOTES, 0, SENT] += 1
            books[NOTES, 0, TAIL] = request + 1
            return now, 1, pipeline
        fate[request] = -HOPELESS
    books[NOTES, 0, TAIL] = len(arrivals)
    return NEVER, 0, 0


@compiled
def skip_waiting(books: Books, arrivals: Ints) -> None:
    """Let all but the last of the requests that complete a batch arrive, if nothing can happen before.

    With one pipeline, whose latencies grow with the batch, the batch that reservation dispatch waits for can only
    shrink, and it does not if it still meets the head's deadline when the request that completes it comes.
    """
    head, batch = books[NOTES, 0, HEAD], books[NOTES, 0, AWAITED]
    completing = head + batch - 1
    if (
        books[NOTES, 0, PIPELINES] == 1
        and books[FACTS, 0, MONOTONE]
        and completing < len(arrivals)
        and arrivals[completing] + books[WORK, 0, batch] <= arrivals[head] + books[NOTES, 0, SLO]
    ):
        books[NOTES, 0, TAIL] = completing
