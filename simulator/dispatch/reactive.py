"""Reactive dispatch: a queue in front of every stage, and no reservations (PPipe, ATC'25: the ablation's policy).

Each queue sends to the slice that completes its queued work earliest. What a batch may take there is
what the head's deadline leaves after the planned time of the later stages, as if nobody queued in them.

The books are those of reservation dispatch with other queues: row 0 of NOTES holds the frontend's, which
serves the first stages of all pipelines, row ``pipeline · max_stages + stage`` that in front of a later stage.
In a queue requests stand in the order of their deadlines, of equal ones the first to join first. A batch that
reaches a later stage is split into its requests, which join together; so do batches that reach it at one instant.
"""

import numpy as np
from numpy.typing import NDArray

from simulator.compilation import compiled
from simulator.dispatch.books import (
    FACTS,
    FREE,
    HEAD,
    LATENCY,
    LATER,
    MAX_STAGES,
    MEMORY,
    NEARLY,
    NEVER,
    NOTES,
    OUT,
    PADDED,
    PIPELINES,
    PLANNED,
    SLICE_BITS,
    SLICE_MASK,
    SLO,
    TAIL,
    WAKE,
    Books,
)
from simulator.dispatch.decisions import HOPELESS, LATE
from simulator.dispatch.system import Ints

Queue = NDArray[np.int32]


@compiled
def join(books: Books, row: int, queue: Queue, arrivals: Ints, request: int) -> None:
    """Put a request into a queue, in its place."""
    place = books[NOTES, row, TAIL]
    while place > books[NOTES, row, HEAD] and arrivals[queue[place - 1]] > arrivals[request]:
        queue[place] = queue[place - 1]
        place -= 1
    queue[place] = request
    books[NOTES, row, TAIL] += 1


@compiled
def react(
    books: Books, row: int, queue: Queue, arrivals: Ints, outcome: NDArray[np.int8], now: int
) -> tuple[int, int, int]:
    """Work through a queue until a batch is sent or nothing more can be done now.

    Returns
    -------
    size, pipeline, slice
        A batch of the ``size`` requests before HEAD that is sent now (call again), or size 0: WAKE is then the time
        at which to call again if nothing joins the queue before.
    """
    books[NOTES, row, WAKE] = NEVER
    if books[NOTES, row, HEAD] == books[NOTES, row, TAIL]:
        return 0, 0, 0
    at, w = first_free(books, row)
    at_row = at * books[NOTES, 0, MAX_STAGES] if row == 0 else row
    start = max(books[FREE, at_row, w], now)
    while books[NOTES, row, HEAD] < books[NOTES, row, TAIL]:
        head = books[NOTES, row, HEAD]
        request = queue[head]
        due = arrivals[request] + books[NOTES, 0, SLO] - books[FACTS, at_row, LATER]
        batch = largest_before(books, at_row, due - start)
        waited = books[NOTES, row, MEMORY] == request
        if batch == 0 or (batch < books[FACTS, at_row, NEARLY] and not waited):
            outcome[request] = LATE if waited else HOPELESS
            books[NOTES, row, HEAD] += 1
            continue
        queued = books[NOTES, row, TAIL] - head
        if queued < batch:
            books[NOTES, row, MEMORY] = request
            books[NOTES, row, WAKE] = due - books[LATENCY, at_row, queued + 1] + 1
            return 0, 0, 0
        books[FREE, at_row, w] = start + books[LATENCY, at_row, batch]
        books[NOTES, row, HEAD] += batch
        books[NOTES, row, WAKE] = now
        return batch, at, w
    return 0, 0, 0


@compiled
def first_free(books: Books, row: int) -> tuple[int, int]:
    """Return pipeline and slice that complete their queued work earliest, the first in plan order on ties."""
    width = books[NOTES, 0, MAX_STAGES]
    if row > 0:
        return row // width, soonest(books, row) & SLICE_MASK
    best = (NEVER << SLICE_BITS) | SLICE_MASK
    pipeline = 0
    for p in range(books[NOTES, 0, PIPELINES]):
        found = soonest(books, p * width)
        if found >> SLICE_BITS < best >> SLICE_BITS:
            best, pipeline = found, p
    return pipeline, best & SLICE_MASK


@compiled
def soonest(books: Books, row: int) -> int:
    """Return when the first slice of a pool is free, with the slice in the low bits."""
    best = (NEVER << SLICE_BITS) | SLICE_MASK
    for w in range(books[FACTS, row, PADDED]):
        best = min(best, (books[FREE, row, w] << SLICE_BITS) | w)
    return best


@compiled
def largest_before(books: Books, row: int, allowed: int) -> int:
    """Return the largest batch such that it and every smaller one is served and sent on within ``allowed`` µs."""
    out = books[FACTS, row, OUT]  # the hop to the next stage costs its transfer only
    batch = 0
    while batch < books[FACTS, row, PLANNED] and books[LATENCY, row, batch + 1] + (batch + 1) * out <= allowed:
        batch += 1
    return batch
