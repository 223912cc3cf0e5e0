"""Policies that wait for the planned batch as long as their head's deadline lets them, and differ in the pipeline.

What they know grows from one to the next: *round robin* only whose turn it is, *least queued* how much work the first
stages have been given, *earliest deadline* (the head has the earliest) when a batch would complete.
"""

from simulator.compilation import compiled
from simulator.dispatch.books import (
    FACTS,
    FREE,
    MAX_STAGES,
    MEMORY,
    NONE,
    NOTES,
    PIPELINES,
    PLANNED,
    SLICES,
    WORK,
    Books,
    completion,
)
from simulator.dispatch.decisions import DROP, LATE, SEND, WAIT, Decision
from simulator.dispatch.reservation import largest_in_time


@compiled
def round_robin(books: Books, now: int, head: int, queued: int, deadline: int) -> Decision:
    """Take the pipelines in turn."""
    turn = 0 if books[NOTES, 0, MEMORY] == NONE else books[NOTES, 0, MEMORY]
    decision = full_or_last_moment(books, turn, now, queued, deadline)
    if decision[0] == SEND:
        books[NOTES, 0, MEMORY] = (turn + 1) % books[NOTES, 0, PIPELINES]
    return decision


@compiled
def least_queued(books: Books, now: int, head: int, queued: int, deadline: int) -> Decision:
    """Take the pipeline whose first stage has the least reserved work ahead, per slice; the first on ties."""
    best, least, slices = 0, 0, 0
    for pipeline in range(books[NOTES, 0, PIPELINES]):
        first = pipeline * books[NOTES, 0, MAX_STAGES]
        ahead = 0
        for w in range(books[FACTS, first, SLICES]):
            ahead += max(0, books[FREE, first, w] - now)
        if slices == 0 or ahead * slices < least * books[FACTS, first, SLICES]:
            best, least, slices = pipeline, ahead, books[FACTS, first, SLICES]
    return full_or_last_moment(books, best, now, queued, deadline)


@compiled
def full_or_last_moment(books: Books, pipeline: int, now: int, queued: int, deadline: int) -> Decision:
    """Send a full batch, or at the last moment what there is, as if nothing queued; drop a head that is too late."""
    first = pipeline * books[NOTES, 0, MAX_STAGES]
    size = min(queued, books[FACTS, first, PLANNED])
    while size > 0 and now + books[WORK, first, size] > deadline:
        size -= 1
    if size == 0:
        return DROP, pipeline, 0, LATE
    if size < queued or size == books[FACTS, first, PLANNED]:
        return SEND, pipeline, size, now
    last_moment = deadline - books[WORK, first, size + 1] + 1
    if last_moment <= now:
        return SEND, pipeline, size, now
    return WAIT, pipeline, size + 1, last_moment


@compiled
def earliest_deadline(books: Books, now: int, head: int, queued: int, deadline: int) -> Decision:
    """Take the pipeline that completes what is queued first, and wait as long as a larger batch is in time."""
    best, size, end = 0, 0, 0
    for pipeline in range(books[NOTES, 0, PIPELINES]):
        planned = books[FACTS, pipeline * books[NOTES, 0, MAX_STAGES], PLANNED]
        batch = largest_in_time(books, pipeline, min(queued, planned), 1, now, deadline)
        if batch > 0 and (size == 0 or completion(books, pipeline, batch, now) < end):
            best, size, end = pipeline, batch, completion(books, pipeline, batch, now)
    if size == 0:
        return DROP, 0, 0, LATE
    first = best * books[NOTES, 0, MAX_STAGES]
    if size < queued or size == books[FACTS, first, PLANNED]:
        return SEND, best, size, now
    if completion(books, best, size + 1, now) > deadline:
        return SEND, best, size, now
    return WAIT, best, size + 1, deadline - books[WORK, first, size + 1] + 1
