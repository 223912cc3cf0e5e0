"""Frontends that reserve: batches take slices in all stages, and the books follow what happens to them."""

from simulator.compilation import compiled, compiled_apart
from simulator.dispatch.books import CHOSEN, FACTS, FREE, HEAD, MAX_STAGES, NEVER, NOTES, SENT, SLO, TAIL, WAKE
from simulator.dispatch.books import STAGES as STAGES_OF
from simulator.dispatch.decisions import LOST
from simulator.dispatch.frontend import advance, next_batch
from simulator.engine.core.books import lay_out, share_reservation
from simulator.engine.core.calendar import DISPATCH, END_OF_TIME_US, arm, disarm
from simulator.engine.core.servers import begin, stand_in_front, transmit
from simulator.engine.core.state import (
    AHEAD,
    BATCHES,
    CORRECTED,
    FRONTENDS,
    HELD,
    NONE,
    SHARED,
    State,
    new_batch,
    record,
    release,
)
from simulator.engine.core.takeovers import hand_over
from simulator.engine.network import REACTS

# -- the frontend


@compiled_apart
def dispatch(S: State, d: int, now: int) -> None:
    """Work through the queue of a frontend, and arm its next event."""
    frontend = S.frontend[d]
    ahead = S.c[AHEAD]
    size, pipeline = frontend.size, frontend.pipeline
    while True:
        if not ahead:
            size, pipeline = advance_apart(S, d, now)
        if size == 0:
            break
        reach_slice(S, place_batch(S, d, size, pipeline, now), now)
        if ahead:
            break
    if not ahead:
        arm_frontend(S, d, now)
        return
    at, size, pipeline = next_batch_apart(S, d)
    frontend.size = size
    frontend.pipeline = pipeline
    if size > 0:
        arm(S.tree, S.order, S.c[FRONTENDS] + d, at, DISPATCH, d)
    else:
        disarm(S.tree, S.order, S.c[FRONTENDS] + d)


@compiled_apart
def advance_apart(S: State, d: int, now: int) -> tuple[int, int]:
    """Work through the queue of a frontend (`simulator.dispatch.frontend.advance`)."""
    frontend = S.frontend[d]
    a, z = frontend.from_, frontend.to
    return advance(frontend.policy, S.books[d], S.arrivals[a:z], S.fate[a:z], now)


@compiled_apart
def next_batch_apart(S: State, d: int) -> tuple[int, int, int]:
    """Run a dispatcher ahead (`simulator.dispatch.frontend.next_batch`)."""
    frontend = S.frontend[d]
    a, z = frontend.from_, frontend.to
    return next_batch(frontend.policy, S.books[d], S.arrivals[a:z], S.fate[a:z])


@compiled
def let_arrive(S: State, d: int, now: int) -> None:
    """Let the request that a frontend wakes up for come, unless it is its timer that goes off."""
    if S.books[d, NOTES, 0, WAKE] > now:
        S.books[d, NOTES, 0, TAIL] += 1


@compiled
def arm_frontend(S: State, d: int, now: int) -> None:
    """Wake a frontend at its timer or at its next request."""
    frontend = S.frontend[d]
    following = frontend.from_ + (frontend.came if frontend.policy == REACTS else S.books[d, NOTES, 0, TAIL])
    at = S.books[d, NOTES, 0, WAKE]
    if frontend.in_charge and following < frontend.to:
        at = min(at, S.arrivals[following])
    if at < END_OF_TIME_US:
        arm(S.tree, S.order, S.c[FRONTENDS] + d, max(at, now), DISPATCH, d)
    else:
        disarm(S.tree, S.order, S.c[FRONTENDS] + d)


@compiled
def place_batch(S: State, d: int, size: int, pipeline: int, now: int) -> int:
    """Enter a batch that a frontend sends: in each stage on the slice that the books chose; returns the first."""
    frontend, books = S.frontend[d], S.books[d]
    row0 = pipeline * books[NOTES, 0, MAX_STAGES]
    k = books[NOTES, 0, SENT] - 1
    first = before = NONE
    for s in range(books[FACTS, row0, STAGES_OF]):
        q = frontend.station + row0 + s
        column = books[CHOSEN, row0, s]
        w = S.lists[S.station[q].first + column]
        b = new_batch(S, q, w, now)
        batch = S.batch[b]
        batch.size = size
        batch.visit = frontend.base + s * frontend.room + k
        batch.first = frontend.from_ + books[NOTES, 0, HEAD] - size
        if s == 0:
            first = b
        else:
            S.batch[before].next_stage = b
        before = b
        if S.c[CORRECTED]:
            promise(S, w, b)
            batch.ready = books[FREE, row0 + s, column] - S.latency[0, q, S.server[w].kind, size]
        if S.c[SHARED]:
            share_reservation(S, q, column)
    S.c[BATCHES] += 1
    return int(first)


@compiled
def reach_slice(S: State, b: int, now: int) -> None:
    """Join the queue of the slice that was reserved; one that is down is waited for if the deadline allows."""
    batch = S.batch[b]
    w = batch.server
    if S.server[w].down and free_us(S, w, now) + following_us(S, b) > deadline_us(S, b):
        retry(S, b, w, now)
        return
    batch.reach = now
    stand_in_front(S, w, b)
    begin(S, w, now)
    if S.c[CORRECTED]:
        lay_out(S, w, now)


@compiled
def go_on_as_reserved(S: State, w: int, b: int, now: int) -> int:
    """Correct what follows from the end of a service; returns the batch in the next stage, -1 after the last one."""
    batch = S.batch[b]
    following = batch.next_stage
    if S.c[CORRECTED]:
        lay_out(S, w, now)
        if S.c[HELD]:
            hand_over(S, S.server[w].device, now)
        if following >= 0:
            station = S.station[batch.station]
            S.batch[following].ready = now + batch.size * station.wire + station.hop
            lay_out(S, S.batch[following].server, now)
    release(S, b)
    return int(following)


# -- what slices are promised


@compiled
def promise(S: State, w: int, b: int) -> None:
    """Promise a slice to a batch."""
    server, batch = S.server[w], S.batch[b]
    batch.after = NONE
    batch.before = server.last_promised
    if server.promised < 0:
        server.promised = b
    else:
        S.batch[server.last_promised].after = b
    server.last_promised = b


@compiled
def withdraw(S: State, w: int, b: int) -> None:
    """End a promise."""
    server, batch = S.server[w], S.batch[b]
    if batch.before >= 0:
        S.batch[batch.before].after = batch.after
    else:
        server.promised = batch.after
    if batch.after >= 0:
        S.batch[batch.after].before = batch.before
    else:
        server.last_promised = batch.before


@compiled
def free_us(S: State, w: int, now: int) -> int:
    """Return when a slice would have done all that it was promised, if that were there."""
    server = S.server[w]
    until = max(now, server.until)
    b = server.promised
    while b >= 0:
        if b != server.serving:
            until += S.latency[0, S.batch[b].station, server.kind, S.batch[b].size]
        b = S.batch[b].after
    return int(until)


@compiled
def deadline_us(S: State, b: int) -> int:
    """Return the deadline of the first request of a batch."""
    return int(S.arrivals[S.batch[b].first] + S.books[S.station[S.batch[b].station].frontend, NOTES, 0, SLO])


@compiled
def following_us(S: State, b: int) -> int:
    """Return the planned transfers and inferences of the stages after the one that a batch is in."""
    total = 0
    u = S.batch[b].next_stage
    while u >= 0:
        batch = S.batch[u]
        sender = S.station[batch.station - 1]
        total += batch.size * sender.wire + sender.hop
        total += S.latency[0, batch.station, S.server[batch.server].kind, batch.size]
        u = batch.next_stage
    return int(total)


# -- when slices fail


@compiled_apart
def retry(S: State, b: int, failed: int, now: int) -> None:
    """Move a batch from a slice that is down to the one of its pool that is free first, if that is in time."""
    withdraw(S, failed, b)
    lay_out(S, failed, now)
    batch = S.batch[b]
    q = batch.station
    station = S.station[q]
    again = 0
    if station.stage > 0:
        again = batch.size * S.station[q - 1].wire + S.station[q - 1].hop
    best, best_us = NONE, NEVER
    for k in range(station.first, station.first + station.servers):
        w = S.lists[k]
        if not S.server[w].down:
            at = free_us(S, w, now)
            if at < best_us:
                best, best_us = w, at
    if batch.retried or best < 0:
        lose(S, b, now)
        return
    rest = S.latency[0, q, S.server[best].kind, batch.size] + following_us(S, b)
    if max(best_us, now + again) + rest > deadline_us(S, b):
        lose(S, b, now)
        return
    u = b
    while u >= 0:
        S.batch[u].retried = 1
        u = S.batch[u].next_stage
    batch.server = best
    batch.ready = now + again
    promise(S, best, b)
    lay_out(S, best, now)
    if S.c[HELD]:
        hand_over(S, S.server[failed].device, now)
    if station.stage > 0:
        transmit(S, b, batch.card, batch.sender, now)
        return
    batch.reach = now  # the slice is up
    stand_in_front(S, best, b)
    begin(S, best, now)
    lay_out(S, best, now)


@compiled_apart
def lose(S: State, b: int, now: int) -> None:
    """Give a batch up, and what later stages were promised."""
    batch = S.batch[b]
    for r in range(batch.first, batch.first + batch.size):
        S.outcome[r] = LOST
    device = S.server[batch.server].device
    u = b
    while u >= 0:
        lost = S.batch[u]
        if u != b:
            withdraw(S, lost.server, u)
            lay_out(S, lost.server, now)
            if S.c[HELD]:
                hand_over(S, S.server[lost.server].device, now)
        lost.reach = now
        lost.server = NONE
        record(S, lost.visit, u, now, now)
        following = lost.next_stage
        release(S, u)
        u = following
    if S.c[HELD]:
        hand_over(S, device, now)


# -- policies in Python: `run` returns, Python asks, and these go on


@compiled_apart
def place_answer(S: State, d: int, size: int, pipeline: int, now: int) -> None:
    """Send a batch."""
    reach_slice(S, place_batch(S, d, size, pipeline, now), now)


@compiled_apart
def answered(S: State, d: int, now: int) -> None:
    """Wait for what is next: there is no more to send now."""
    arm_frontend(S, d, now)
