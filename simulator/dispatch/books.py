"""The dispatcher's books: until when every slice and every network card is reserved.

A reservation of a batch of b on a pipeline, made at ``now``, walks the stages (DESIGN section 6). For slice
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

from simulator.dispatch.compiled import compiled
from simulator.dispatch.system import System

Books = NDArray[np.int64]

FREE = 0  # [stage, slice]: reserved until
UPLINK = 1  # [stage, slice]: its card's uplink is reserved until
DOWNLINK = 2  # [stage, slice]: its card's downlink is reserved until
READY = 3  # [stage, slice]: a_w at the planned batch
CARD = 4  # [stage, slice]: first slice on its network card
LATENCY = 5  # [stage, batch]: inference time
WORK = 6  # [pipeline, batch]: W
EARLIEST = 7  # [pipeline, batch]: K, or a lower completion seen since the last acceptance; UNKNOWN
CHOSEN = 8  # [pipeline, stage]: slices of the walk that WALK_AT and WALK_BATCH describe
FACTS = 9  # [stage, ...]: what the plan says
NOTES = 10  # [0, ...]: the run so far, and what a policy remembers
FIELDS = 11

# Columns of FACTS; STAGES and MONOTONE are of the pipeline.
SLICES, PADDED, CARD_SLICES, NET, HOP, PLANNED, LATER, STAGES, MONOTONE = range(9)
# Columns of NOTES.
PIPELINES, MAX_STAGES, SLO, HEAD, TAIL, SENT, WAKE, MEMORY, AWAITED, SLICE_RULE, WALK_AT, WALK_BATCH, WALK_PIPELINE = (
    range(13)
)

UNKNOWN = -1

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
    width = -(-max(int(system.slices.max()), system.latency_us.shape[2], stages, 16) // 8) * 8
    books = np.zeros((FIELDS, pipelines * stages, width), np.int64)
    books[EARLIEST] = UNKNOWN
    books[NOTES, 0, [PIPELINES, MAX_STAGES, SLO]] = pipelines, stages, system.slo_us
    books[NOTES, :, [MEMORY, WALK_AT]] = UNKNOWN
    books[NOTES, :, WAKE] = NEVER
    for p in range(pipelines):
        planned, first = int(system.batch[p]), p * stages
        books[WORK, first, : planned + 1] = system.work_us[p, : planned + 1]
        monotone = np.all(np.diff(system.latency_us[p, :, 1 : planned + 1]) >= 0)
        books[FACTS, first, [STAGES, MONOTONE]] = system.stages[p], monotone
        for s in range(int(system.stages[p])):
            row, slices, on_card = first + s, int(system.slices[p, s]), int(system.card_slices[p, s])
            books[LATENCY, row, : system.latency_us.shape[2]] = system.latency_us[p, s]
            books[CARD, row, :slices] = np.arange(slices) // on_card * on_card
            books[FREE, row, slices:] = NEVER
            books[FACTS, row, [SLICES, PADDED, CARD_SLICES, PLANNED]] = slices, -(-slices // 8) * 8, on_card, planned
            books[FACTS, row, [NET, HOP]] = system.transfer_us[p, s], system.hop_us[p, s]
            books[FACTS, row, LATER] = system.later_us[p, s]
            for card in range(0, slices, on_card):
                refresh(books, row, card)
            books[READY, row, slices:] = NEVER
    return books


@compiled
def refresh(books: Books, row: int, card: int) -> None:
    """Recompute what follows from the reservations of the slices of a card (``card`` is the first of them)."""
    batch = books[FACTS, row, PLANNED]
    passage = batch * books[FACTS, row, NET] + books[FACTS, row, HOP]
    latency = books[LATENCY, row, batch]
    for w in range(card, min(card + books[FACTS, row, CARD_SLICES], books[FACTS, row, SLICES])):
        end = max(books[FREE, row, w], books[DOWNLINK, row, w] + passage) + latency
        books[READY, row, w] = max(end, books[UPLINK, row, w])


@compiled
def pass_on(books: Books, row: int, batch: int, ready: int) -> int:
    """Return when a stage passes a batch on whose input is ready at ``ready``, with the slice in the low bits."""
    passage = batch * books[FACTS, row, NET] + books[FACTS, row, HOP]
    latency = books[LATENCY, row, batch]
    soonest = ready + passage + latency
    best = (NEVER << SLICE_BITS) | SLICE_MASK
    if batch == books[FACTS, row, PLANNED]:
        for w in range(books[FACTS, row, PADDED]):
            best = min(best, (max(books[READY, row, w], soonest) << SLICE_BITS) | w)
    else:
        for w in range(books[FACTS, row, PADDED]):
            end = max(books[FREE, row, w], books[DOWNLINK, row, w] + passage) + latency
            best = min(best, (max(max(end, books[UPLINK, row, w]), soonest) << SLICE_BITS) | w)
    return best


@compiled
def first_to_end(books: Books, row: int, batch: int, ready: int, until: int) -> int:
    """Return ``until`` and, of the slices that pass a batch on by then, the one whose inference ends first."""
    passage = batch * books[FACTS, row, NET] + books[FACTS, row, HOP]
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
    earliest = books[EARLIEST, first, batch]
    if earliest == UNKNOWN:
        # At least K: equal to it if the batch would queue, else no later than any completion from now on.
        earliest = walk(books, pipeline, batch, now)
        books[EARLIEST, first, batch] = earliest
    return int(max(now + books[WORK, first, batch], earliest))


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
    planned = books[FACTS, first, PLANNED]
    time = now
    sender = 0
    for s in range(books[FACTS, first, STAGES]):
        row = first + s
        w = books[CHOSEN, first, s]
        again = books[LATENCY, row, planned]
        if s > 0:
            sent = max(time, books[DOWNLINK, row, w]) + batch * books[FACTS, row, NET]
            arrival = planned * books[FACTS, row, NET] + books[FACTS, row, HOP]
            _occupy(books, UPLINK, row - 1, sender, sent, sent)
            _occupy(books, DOWNLINK, row, w, sent, sent + arrival + again)
            time = sent + books[FACTS, row, HOP]
        books[FREE, row, w] = max(books[FREE, row, w], time) + books[LATENCY, row, batch]
        books[READY, row, w] = max(books[READY, row, w], books[FREE, row, w] + again)
        time = max(books[FREE, row, w], books[UPLINK, row, w])
        sender = w
    forget(books, pipeline)


@compiled
def _occupy(books: Books, link: int, row: int, w: int, until: int, ready: int) -> None:
    """Enter until when the card of a slice sends or receives; none of its slices is READY before ``ready``."""
    card = books[CARD, row, w]
    for mate in range(card, min(card + books[FACTS, row, CARD_SLICES], books[FACTS, row, SLICES])):
        books[link, row, mate] = until
        books[READY, row, mate] = max(books[READY, row, mate], ready)


@compiled
def forget(books: Books, pipeline: int) -> None:
    """Forget what was derived from a pipeline's reservations."""
    first = pipeline * books[NOTES, 0, MAX_STAGES]
    for batch in range(books[FACTS, first, PLANNED] + 1):
        books[EARLIEST, first, batch] = UNKNOWN
    books[NOTES, 0, WALK_AT] = UNKNOWN
