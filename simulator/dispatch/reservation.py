"""Reservation dispatch (PPipe, ATC'25: its data plane).

The head of the queue is *examined* once: it stays only if some pipeline can finish a batch near the planned size
within its deadline, because a small batch for its sake would waste capacity. An examined head then waits
for its batch to fill as long as the largest batch that it could still be part of meets its deadline.
"""

from simulator.compilation import compiled
from simulator.dispatch.books import (
    FACTS,
    MAX_STAGES,
    MEMORY,
    MONOTONE,
    NEARLY,
    NOTES,
    PIPELINES,
    PLANNED,
    SLO,
    WORK,
    Books,
    completion,
)
from simulator.dispatch.decisions import DROP, HOPELESS, LATE, SEND, WAIT, Decision


@compiled
def reservation(books: Books, now: int, head: int, queued: int, deadline: int) -> Decision:
    """Decide about the head of the queue by the rules of reservation dispatch."""
    pipeline = least_delayed(books, now, deadline)
    first = pipeline * books[NOTES, 0, MAX_STAGES]
    planned = books[FACTS, first, PLANNED]
    if books[NOTES, 0, MEMORY] == head:
        batch = largest_in_time(books, pipeline, planned, 1, now, deadline)
        if batch == 0:
            return DROP, pipeline, 0, LATE
    else:
        batch = largest_in_time(books, pipeline, planned, books[FACTS, first, NEARLY], now, deadline)
        if batch == 0:
            return DROP, pipeline, 0, HOPELESS
        books[NOTES, 0, MEMORY] = head
    if queued >= batch:
        return SEND, pipeline, batch, now
    if not books[FACTS, first, MONOTONE] and completion(books, pipeline, queued + 1, now) > deadline:
        return DROP, pipeline, 0, LATE
    return WAIT, pipeline, batch, deadline - books[WORK, first, queued + 1] + 1


@compiled
def least_delayed(books: Books, now: int, deadline: int) -> int:
    """Return the pipeline whose planned batch would queue least, the first in plan order on ties.

    A pipeline of single requests that would miss the deadline counts as one SLO worse.
    """
    if books[NOTES, 0, PIPELINES] == 1:
        return 0
    best = 0
    least = -1
    for pipeline in range(books[NOTES, 0, PIPELINES]):
        first = pipeline * books[NOTES, 0, MAX_STAGES]
        planned = books[FACTS, first, PLANNED]
        end = completion(books, pipeline, planned, now)
        delay = end - now - books[WORK, first, planned]
        if planned == 1 and end > deadline:
            delay += books[NOTES, 0, SLO]
        if least < 0 or delay < least:
            best, least = pipeline, delay
    return best


@compiled
def largest_in_time(books: Books, pipeline: int, largest: int, smallest: int, now: int, deadline: int) -> int:
    """Return the largest batch from ``largest`` down to ``smallest`` that would meet the deadline, 0 if none does."""
    first = pipeline * books[NOTES, 0, MAX_STAGES]
    for batch in range(largest, smallest - 1, -1):
        if now + books[WORK, first, batch] <= deadline and completion(books, pipeline, batch, now) <= deadline:
            return batch
    return 0
