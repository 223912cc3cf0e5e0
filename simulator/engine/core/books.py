"""What happens, entered in the books of the frontends: reservations of shared pools, and corrections."""

from simulator.compilation import compiled
from simulator.dispatch.books import (
    CARD,
    DOWNLINK,
    FACTS,
    FREE,
    NONE,
    NOTES,
    UPLINK,
    VERSION,
    WALK_AT,
    refresh_slice,
)
from simulator.engine.core.state import RECEIVES, SENDS, SHARED, State
from simulator.engine.network import REACTIVE


@compiled
def forget_row(S: State, q: int) -> None:
    """Forget what was derived from the reservations of the pipeline that a station is in."""
    books = S.books[S.station[q].frontend]
    books[FACTS, S.station[q].row0, VERSION] += 1
    books[NOTES, 0, WALK_AT] = NONE


@compiled
def enter_free(S: State, q: int, column: int, until: int) -> None:
    """Enter until when a slice is taken, in the books of one station."""
    books = S.books[S.station[q].frontend]
    row = S.station[q].row
    if books[FREE, row, column] != until:
        books[FREE, row, column] = until
        if S.station[q].rule != REACTIVE:  # which looks at nothing else
            refresh_slice(books, row, column)
            forget_row(S, q)


@compiled
def enter_free_everywhere(S: State, w: int, until: int) -> None:
    """Enter until when a slice is taken, in the books of all whose pool it is in."""
    server = S.server[w]
    enter_free(S, server.station, server.column, until)
    if S.c[SHARED]:
        q = S.station[server.station].alike
        while q != server.station:
            enter_free(S, q, server.column, until)
            q = S.station[q].alike


@compiled
def share_reservation(S: State, q: int, column: int) -> None:
    """Enter what a frontend has reserved on a slice of a shared pool in the books of the others."""
    mine, row = S.books[S.station[q].frontend], S.station[q].row
    card = mine[CARD, row, column]
    other = S.station[q].alike
    while other != q:
        books, at = S.books[S.station[other].frontend], S.station[other].row
        links = S.station[other].links & S.station[q].links
        books[FREE, at, column] = mine[FREE, row, column]
        mate = card
        while mine[CARD, row, mate] == card:
            if links & RECEIVES:
                books[DOWNLINK, at, mate] = max(books[DOWNLINK, at, mate], mine[DOWNLINK, row, mate])
            if links & SENDS:
                books[UPLINK, at, mate] = max(books[UPLINK, at, mate], mine[UPLINK, row, mate])
            refresh_slice(books, at, mate)
            mate += 1
        forget_row(S, other)
        other = S.station[other].alike


@compiled
def correct(S: State, w: int, now: int) -> None:
    """Correct until when a slice is taken."""
    if S.station[S.server[w].station].rule == REACTIVE:
        say_free(S, w, now)
    else:
        lay_out(S, w, now)


@compiled
def lay_out(S: State, w: int, now: int) -> None:
    """Correct until when a slice is taken: by what it serves, then by what it was promised, at planned times."""
    server = S.server[w]
    until = max(now, server.until)
    b = server.promised
    while b >= 0:
        if b != server.serving:
            until = max(until, S.batch[b].ready) + S.latency[0, S.batch[b].station, server.kind, S.batch[b].size]
        b = S.batch[b].after
    enter_free_everywhere(S, w, until)


@compiled
def say_free(S: State, w: int, now: int) -> None:
    """Correct until when a slice is taken; an idle one counts from the end of its last work."""
    server = S.server[w]
    until = max(server.until, now) if server.serving >= 0 else server.until
    b = server.head
    while b >= 0:
        batch = S.batch[b]
        until = max(until, batch.reach) + S.latency[0, batch.station, server.kind, batch.size]
        b = batch.follow
    enter_free_everywhere(S, w, until)
