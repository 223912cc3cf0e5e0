"""Servers and cards: a batch stands in front of a server, is served, and goes on over the server's card."""

from math import exp, floor

from simulator.compilation import compiled, compiled_apart
from simulator.engine.core.calendar import END, REACH, arm, disarm
from simulator.engine.core.latest_start import begins, leave_front
from simulator.engine.core.state import CARDS, EXACT, FACTORS, LOG_NORMAL, NOISE, NONE, SEED, SLOWDOWNS, State
from simulator.engine.network import LATEST_START
from simulator.engine.streams import SERVICE, normal, uniform


@compiled
def stand_in_front(S: State, w: int, b: int) -> None:
    """Put a batch behind those in front of a server."""
    server = S.server[w]
    S.batch[b].follow = NONE
    if server.head < 0:
        server.head = b
    else:
        S.batch[server.tail].follow = b
    server.tail = b


@compiled
def begin(S: State, w: int, now: int) -> None:
    """Serve the next batch in front of a server, if the server may."""
    server = S.server[w]
    b = server.head
    if b < 0 or server.serving >= 0 or server.down or server.held:
        return
    batch = S.batch[b]
    q = batch.station
    if S.station[q].rule == LATEST_START:
        if not begins(S, w, b, now):
            return
        leave_front(S, w, b)
    else:
        server.head = batch.follow
    planned = S.latency[0, q, server.kind, batch.size]
    start = max(now, server.until)
    served = service_us(S, w, q, planned)
    server.serving = b
    server.until = start + planned
    server.busy_us += served
    batch.start = start
    arm(S.tree, S.order, w, start + served, END, batch.number)


@compiled
def service_us(S: State, w: int, q: int, planned: int) -> int:
    """Return how long a service really takes.

    The factor of the server's next service is drawn now, as if of the same station: nothing waits for it, so that the
    processor draws it beside what follows. If the next one is of another spread after all, it is drawn again.
    """
    if S.c[NOISE] == EXACT:
        return planned
    server = S.server[w]
    n = server.begun
    server.begun = n + 1
    spread = S.station[q].spread
    if S.c[NOISE] == LOG_NORMAL and spread == 0.0:
        return planned
    factor = server.factor if server.drawn == n and server.spread == spread else draw(S, w, spread, n)
    server.factor = draw(S, w, spread, n + 1)
    server.drawn = n + 1
    server.spread = spread
    return int(max(1, round(planned * factor)))


@compiled_apart
def draw(S: State, w: int, spread: float, n: int) -> float:
    """Return by what a server's service n takes longer than planned."""
    if S.c[NOISE] == FACTORS:
        first = 3 * S.c[SLOWDOWNS]
        return float(S.floats[first + floor(uniform(S.c[SEED], SERVICE, w, n) * (len(S.floats) - first))])
    return exp(spread * normal(S.c[SEED], SERVICE, w, n))


@compiled
def transmit(S: State, b: int, c: int, sender: int, now: int) -> None:
    """Let a batch join the queue of a card of a station; the card serves in this order, so its arrival is known."""
    batch = S.batch[b]
    batch.card = c
    batch.sender = sender
    card = S.card[c]
    begins_us = max(card.free, now)
    wire_us = batch.size * S.station[sender].wire
    if S.c[SLOWDOWNS] > 0:
        factor = 1.0
        for k in range(0, 3 * S.c[SLOWDOWNS], 3):
            if S.floats[k] <= begins_us and begins_us < S.floats[k + 1]:
                factor *= S.floats[k + 2]
        wire_us = round(wire_us * factor)
    card.free = begins_us + wire_us
    batch.there = card.free + S.station[sender].hop
    batch.follow = NONE
    if card.head < 0:
        card.head = b
        card.tail = b
        arm(S.tree, S.order, S.c[CARDS] + c, batch.there, REACH, batch.number)
    elif comes_before(S, card.tail, b):
        S.batch[card.tail].follow = b
        card.tail = b
    else:
        overtake(S, b, c)


@compiled
def comes_before(S: State, a: int, b: int) -> bool:
    """Return whether a card delivers batch a before batch b."""
    first, second = S.batch[a], S.batch[b]
    return bool(first.there < second.there or (first.there == second.there and first.number < second.number))


@compiled_apart
def overtake(S: State, b: int, c: int) -> None:
    """Put a batch among those that a card delivers: hops differ in length, or it came with a lower number."""
    card = S.card[c]
    before, after = NONE, card.head
    while after >= 0 and comes_before(S, after, b):
        before, after = after, S.batch[after].follow
    S.batch[b].follow = after
    if before >= 0:
        S.batch[before].follow = b
    else:
        card.head = b
        arm(S.tree, S.order, S.c[CARDS] + c, S.batch[b].there, REACH, S.batch[b].number)


@compiled
def delivered(S: State, c: int) -> int:
    """Return the batch that a card delivers now, and arm the next one."""
    card = S.card[c]
    b = card.head
    card.head = S.batch[b].follow
    if card.head < 0:
        disarm(S.tree, S.order, S.c[CARDS] + c)
    else:
        arm(S.tree, S.order, S.c[CARDS] + c, S.batch[card.head].there, REACH, S.batch[card.head].number)
    return int(b)
