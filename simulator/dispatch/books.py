"""The dispatcher's books: until when every slice and every network card is reserved.

A reservation of a batch of b on a pipeline, made at ``now``, walks the stages (PPipe, ATC'25). For slice
w of a stage let

    a_w(b) = max(max(free_w, downlink_w + b·net + hop) + inference(b), uplink_w),

the earliest time at which w could pass a batch of b on, whenever its input is ready; the first stage has no
downlink, the last no uplink. A stage whose input is ready at t passes it on at

    max(t + b·net + hop + inference(b), min over w of a_w(b)),

on the slice that reaches it, the lowest index on ties. So, with W(b) the work of all stages, a pipeline
completes at ``max(now + W(b), K(b))``, where K depends on the books alone, and the queueing delay is
``max(0, K(b) - W(b) - now)``. K is kept per pipeline and batch until the pipeline accepts a batch.

The books are one array ``books[field, row, column]`` (int64, µs), because a compiled function is called
twice as fast with one array as with seven. Row ``pipeline · max_stages + stage`` is a stage; columns are
slices in FREE, UPLINK, DOWNLINK, READY and CARD, batch sizes in LATENCY, WORK and EARLIEST, stages in CHOSEN,
and the names below in FACTS and NOTES. Per-pipeline entries stand in the row of the first stage. Slices
are padded to a multiple of eight that are never free, so that a scan is vectorised and has no remainder.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from simulator.compilation import compiled
from simulator.dispatch.system import Ints, System

Books = NDArray[np.int64]

FREE = 0  # [stage, slice]: reserved until
UPLINK = 1  # [stage, slice]: its card's uplink is reserved until
DOWNLINK = 2  # [stage, slice]: its card's downlink is reserved until
READY = 3  # [stage, slice]: a_w at the planned batch
CARD = 4  # [stage, slice]: first slice on its network card; NONE beyond the last slice
LATENCY = 5  # [stage, batch]: inference time
PASSAGE = 6  # [stage, batch]: the way from the stage before, b·net + hop
WORK = 7  # [pipeline, batch]: W
EARLIEST = 8  # [pipeline, batch]: K, or a lower completion seen since the pipeline's reservations changed
AS_OF = 9  # [pipeline, batch]: the VERSION of the reservations that EARLIEST comes from
CHOSEN = 10  # [pipeline, stage]: slices of the walk that WALK_AT and WALK_BATCH describe
FACTS = 11  # [stage, ...]: what the plan says
NOTES = 12  # [0, ...]: the run so far, and what a policy remembers
FIELDS = 13

# Columns of FACTS; STAGES, MONOTONE and VERSION (how often its reservations have changed) are of the pipeline. NET and
# HOP are of the way to the stage, OUT is NET of the next one (0 after the last).
SLICES, PADDED, NET, HOP, OUT, PLANNED, NEARLY, LATER, STAGES, MONOTONE, VERSION = range(11)
# Columns of NOTES. SINGLES says that all planned batches are 1.
PIPELINES, MAX_STAGES, SLO, SINGLES, HEAD, TAIL, SENT, WAKE, MEMORY, AWAITED, SLICE_RULE = range(11)
WALK_AT, WALK_BATCH, WALK_PIPELINE = range(11, 14)

NONE = -1

# SLICE_RULE: which of the slices that would pass a batch on at the same time a reservation takes.
LOWEST_INDEX, FIRST_TO_END = range(2)

NEVER = 1 << 46  # µs, two years: later than any event, and room for a slice index in the low bits of a packed time
SLICE_BITS = 16
SLICE_MASK = (1 << SLICE_BITS) - 1


def open_books(system: System) -> Books:
    """Return the books of an idle system."""
    return _blank_books(system).copy()


@lru_cache(maxsize=16)
def _blank_books(system: System) -> Books:
    pipelines, stages = system.slices.shape
    # At least one column more than slices, so that each row of CARD ends with NONE.
    width = (max(int(system.slices.max()), system.latency_us.shape[2], stages, 15) // 8 + 1) * 8
    books = np.zeros((FIELDS, pipelines * stages, width), np.int64)
    books[[AS_OF, CARD]] = NONE
    books[NOTES, 0, [PIPELINES, MAX_STAGES, SLO]] = pipelines, stages, system.slo_us
    books[NOTES, 0, SINGLES] = system.batch.max() == 1
    books[NOTES, :, [MEMORY, WALK_AT]] = NONE
    books[NOTES, :, WAKE] = NEVER
    for p in range(pipelines):
        planned, first = int(system.batch[p]), p * stages
        books[WORK, first, : planned + 1] = system.work_us[p, : planned + 1]
        monotone = np.all(np.diff(system.latency_us[p, :, 1 : planned + 1]) >= 0)
        books[FACTS, first, [STAGES, MONOTONE]] = system.stages[p], monotone
        for s in range(int(system.stages[p])):
            row, slices, on_card = first + s, int(system.slices[p, s]), int(system.card_slices[p, s])
            books[LATENCY, row, : system.latency_us.shape[2]] = system.latency_us[p, s]
            books[PASSAGE, row, : planned + 1] = np.arange(planned + 1) * system.transfer_us[p, s] + system.hop_us[p, s]
            books[CARD, row, :slices] = np.arange(slices) // on_card * on_card
            books[FREE, row, slices:] = NEVER
            books[FACTS, row, [SLICES, PADDED, PLANNED]] = slices, -(-slices // 8) * 8, planned
            # round(0.95 · planned), halves up: the smallest batch that does not waste capacity
            books[FACTS, row, NEARLY] = (19 * planned + 10) // 20
            books[FACTS, row, [NET, HOP]] = system.transfer_us[p, s], system.hop_us[p, s]
            books[FACTS, row, OUT] = system.transfer_us[p, s + 1] if s + 1 < system.stages[p] else 0
            books[FACTS, row, LATER] = system.later_us[p, s]
            for card in range(0, slices, on_card):
                refresh(books, row, card)
            books[READY, row, slices:] = NEVER
    return books


@compiled
def refresh(books: Books, row: int, card: int) -> None:
    """Recompute what follows from the reservations of the slices of a card (``card`` is the first of them)."""
    w = card
    while books[CARD, row, w] == card:
        refresh_slice(books, row, w)
        w += 1


@compiled
def refresh_slice(books: Books, row: int, w: int) -> None:
    """Recompute what follows from the reservations of a slice."""
    batch = books[FACTS, row, PLANNED]
    end = max(books[FREE, row, w], books[DOWNLINK, row, w] + books[PASSAGE, row, batch]) + books[LATENCY, row, batch]
    books[READY, row, w] = max(end, books[UPLINK, row, w])


@compiled
def pass_on(books: Books, row: int, batch: int, ready: int) -> int:
    """Return when a stage passes a batch on whose input is ready at ``ready``, with the slice in the low bits."""
    passage = books[PASSAGE, row, batch]
    latency = books[LATENCY, row, batch]
    soonest = ready + passage + latency
    if batch == books[FACTS, row, PLANNED]:
        return earliest(books[READY, row], books[FACTS, row, PADDED], soonest)
    best = (NEVER << SLICE_BITS) | SLICE_MASK
    for w in range(books[FACTS, row, PADDED]):
        end = max(books[FREE, row, w], books[DOWNLINK, row, w] + passage) + latency
        best = min(best, (max(max(end, books[UPLINK, row, w]), soonest) << SLICE_BITS) | w)
    return best


@compiled
def earliest(ready: Ints, padded: int, soonest: int) -> int:
    """Return the earliest time, but not before ``soonest``, with its slice (the lowest on ties) in the low bits."""
    best = (NEVER << SLICE_BITS) | SLICE_MASK
    for w in range(padded):
        best = min(best, (max(ready[w], soonest) << SLICE_BITS) | w)
    return best


@compiled
def first_to_end(books: Books, row: int, batch: int, ready: int, until: int) -> int:
    """Return ``until`` and, of the slices that pass a batch on by then, the one whose inference ends first."""
    passage = books[PASSAGE, row, batch]
    latency = books[LATENCY, row, batch]
    best = (NEVER << SLICE_BITS) | SLICE_MASK
    for w in range(books[FACTS, row, SLICES]):
        end = max(max(books[FREE, row, w], books[DOWNLINK, row, w] + passage), ready + passage) + latency
        if max(end, books[UPLINK, row, w]) <= until:
            best = min(best, (end << SLICE_BITS) | w)
    return (until << SLICE_BITS) | (best & SLICE_MASK)


@compiled
def walk(books: Books, pipeline: int, batch: int, now: int) -> int:
    """Return when a reservation made now would complete, and note the slices it would take."""
    first = pipeline * books[NOTES, 0, MAX_STAGES]
    time = now
    for s in range(books[FACTS, first, STAGES]):
        passed = pass_on(books, first + s, batch, time)
        if books[NOTES, 0, SLICE_RULE] == FIRST_TO_END:
            passed = first_to_end(books, first + s, batch, time, passed >> SLICE_BITS)
        books[CHOSEN, first, s] = passed & SLICE_MASK
        time = passed >> SLICE_BITS
    books[NOTES, 0, WALK_AT] = now
    books[NOTES, 0, WALK_BATCH] = batch
    books[NOTES, 0, WALK_PIPELINE] = pipeline
    return time


@compiled
def completion(books: Books, pipeline: int, batch: int, now: int) -> int:
    """Return when a reservation of ``batch`` on ``pipeline`` made now would complete."""
    first = pipeline * books[NOTES, 0, MAX_STAGES]
    if books[AS_OF, first, batch] != books[FACTS, first, VERSION]:
        # At least K: equal to it if the batch would queue, else no later than any completion from now on.
        books[EARLIEST, first, batch] = walk(books, pipeline, batch, now)
        books[AS_OF, first, batch] = books[FACTS, first, VERSION]
    return int(max(now + books[WORK, first, batch], books[EARLIEST, first, batch]))


@compiled
def reserve(books: Books, pipeline: int, batch: int, now: int) -> None:
    """Enter a batch, and leave the slices that it takes in CHOSEN."""
    first = pipeline * books[NOTES, 0, MAX_STAGES]
    if (
        books[NOTES, 0, WALK_AT] != now
        or books[NOTES, 0, WALK_BATCH] != batch
        or books[NOTES, 0, WALK_PIPELINE] != pipeline
    ):
        walk(books, pipeline, batch, now)
    last = first + books[FACTS, first, STAGES] - 1
    reached = now
    received = 0
    for row in range(first, last + 1):
        # The mask says that the index is not negative, which saves a check at each use.
        w = books[CHOSEN, first, row - first] & SLICE_MASK
        ended = max(books[FREE, row, w], reached) + books[LATENCY, row, batch]
        sent = 0
        if row < last:
            receiver = books[CHOSEN, first, row - first + 1] & SLICE_MASK
            sent = max(max(ended, books[UPLINK, row, w]), books[DOWNLINK, row + 1, receiver])
            sent += batch * books[FACTS, row + 1, NET]
            reached = sent + books[FACTS, row + 1, HOP]
        _occupy(books, row, w, received, ended, sent)
        received = sent
    forget(books, pipeline)


@compiled
def _occupy(books: Books, row: int, w: int, received: int, ended: int, sent: int) -> None:
    """Enter when a slice is free again, and its card has received and sent a batch (0: it does not).

    None of this is ever earlier than what the books say, so that a_w is the latest of what it was and of what each
    entry asks for.
    """
    planned = books[FACTS, row, PLANNED]
    latency = books[LATENCY, row, planned]
    books[FREE, row, w] = ended
    books[READY, row, w] = max(books[READY, row, w], ended + latency)
    if received == 0 and sent == 0:
        return
    linked = max(received + books[PASSAGE, row, planned] + latency, sent)
    card = books[CARD, row, w] & SLICE_MASK
    mate = card
    # As many as CARD says, not as a count says: such a loop is not vectorised, which would cost more for the few.
    while books[CARD, row, mate] == card:
        books[DOWNLINK, row, mate] = max(books[DOWNLINK, row, mate], received)
        books[UPLINK, row, mate] = max(books[UPLINK, row, mate], sent)
        books[READY, row, mate] = max(books[READY, row, mate], linked)
        mate += 1


@compiled
def forget(books: Books, pipeline: int) -> None:
    """Forget what was derived from a pipeline's reservations."""
    first = pipeline * books[NOTES, 0, MAX_STAGES]
    books[FACTS, first, VERSION] += 1
    books[NOTES, 0, WALK_AT] = NONE
