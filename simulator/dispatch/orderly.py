"""Orderly dispatch: reservation dispatch whose reservations come true.

It differs from reservation dispatch in two places, and sees no more of the future.

- *Slices*. Among the slices that would pass a batch on at the same time it takes the one whose inference ends first,
  not the one with the lowest index. While a network card is busy, all slices behind it pass on at the same
  time, and by the lowest index their batches pile up on one slice while its neighbours idle. A later batch
  on an idle neighbour then is ready sooner and overtakes them at the card, which serves in order of
  readiness, not of reservation; and what was booked to the last µs comes late. Taking the slice that ends first keeps
  readiness in the order of reservation.
- *Pipelines*. It chooses among those that can meet the head's deadline. Reservation dispatch takes the one with the
  least queueing delay even if that one is too slow for this head, and then drops it.
"""

from simulator.compilation import compiled
from simulator.dispatch.books import (
    FACTS,
    FIRST_TO_END,
    MAX_STAGES,
    MEMORY,
    MONOTONE,
    NEARLY,
    NOTES,
    PIPELINES,
    PLANNED,
    SLICE_RULE,
    WORK,
    Books,
    completion,
)
from simulator.dispatch.decisions import DROP, HOPELESS, LATE, SEND, WAIT, Decision
from simulator.dispatch.reservation import largest_in_time


@compiled
def orderly(books: Books, now: int, head: int, queued: int, deadline: int) -> Decision:
    """Decide about the head of the queue by the rules of orderly dispatch."""
    books[NOTES, 0, SLICE_RULE] = FIRST_TO_END
    examined = books[NOTES, 0, MEMORY] == head
    best, size, least = 0, 0, 0
    for pipeline in range(books[NOTES, 0, PIPELINES]):
        first = pipeline * books[NOTES, 0, MAX_STAGES]
        planned = books[FACTS, first, PLANNED]
        batch = largest_in_time(books, pipeline, planned, 1 if examined else books[FACTS, first, NEARLY], now, deadline)
        if batch == 0:
            continue
        delay = completion(books, pipeline, batch, now) - now - books[WORK, first, batch]
        if size == 0 or delay < least:
            best, size, least = pipeline, batch, delay
    if size == 0:
        return DROP, 0, 0, LATE if examined else HOPELESS
    books[NOTES, 0, MEMORY] = head
    if queued >= size:
        return SEND, best, size, now
    first = best * books[NOTES, 0, MAX_STAGES]
    if not books[FACTS, first, MONOTONE] and completion(books, best, queued + 1, now) > deadline:
        return DROP, best, 0, LATE
    return WAIT, best, size, deadline - books[WORK, first, queued + 1] + 1
