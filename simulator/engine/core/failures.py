"""Servers that fail and are repaired, and what becomes of the batches that were on them."""

from simulator.compilation import compiled, compiled_apart
from simulator.dispatch.books import NOTES, TAIL
from simulator.dispatch.decisions import LOST, OPEN
from simulator.engine.core.books import correct
from simulator.engine.core.calendar import END_OF_TIME_US, UNIT, arm, disarm, time_armed
from simulator.engine.core.latest_start import close, leave_all
from simulator.engine.core.reactive_queues import back_to_queue
from simulator.engine.core.reservations import dispatch, retry
from simulator.engine.core.routes import decide, is_free, join, request_of, work
from simulator.engine.core.servers import begin
from simulator.engine.core.state import (
    BASE,
    DEPTH,
    LAST_OUTAGE,
    LOAD,
    NONE,
    OUTAGE,
    OUTAGES,
    ROOM,
    VISITS,
    State,
    record_cut,
    release,
)
from simulator.engine.network import CENTRAL, IDLE_FIRST, REACTIVE, RESERVED


@compiled_apart
def has_room(S: State) -> bool:
    """Return whether what may be until the outage after the next fits: visits, and places in reactive queues."""
    requests = len(S.arrivals)
    visits = len(S.token) + S.c[DEPTH] * requests + len(S.server)  # each request in each step once, and cut ones
    if S.c[VISITS] + visits > S.c[ROOM]:
        return False
    for q in range(len(S.station)):
        station = S.station[q]
        if station.rule != REACTIVE or station.row < 0:
            continue
        if S.books[station.frontend, NOTES, station.row, TAIL] + requests > S.queue.shape[1]:
            return False
    return True


@compiled_apart
def next_outage(S: State, now: int) -> None:
    """Stop the servers of the outage that is due, and arm the next one."""
    i = S.c[OUTAGE]
    S.c[OUTAGE] = i + 4
    if i + 4 < S.c[LAST_OUTAGE]:
        arm(S.tree, S.order, S.c[OUTAGES], S.lists[i + 4], UNIT, 0)
    else:
        disarm(S.tree, S.order, S.c[OUTAGES])
    first, last, back = S.lists[i + 1], S.lists[i + 2], now + S.lists[i + 3]
    for k in range(first, last):
        stop(S, S.lists[k], back)
    reserved = False
    for k in range(first, last):
        w = S.lists[k]
        rule = S.station[S.server[w].station].rule
        reserved = reserved or rule == RESERVED
        clear(S, w, rule, now)
        if rule in (RESERVED, REACTIVE):
            correct(S, w, now)
        if S.server[w].back < END_OF_TIME_US:
            arm(S.tree, S.order, w, S.server[w].back, UNIT, 1 + w)  # nothing else is ahead of it now
    if reserved:
        for d in range(len(S.frontend)):
            if S.frontend[d].in_charge and S.frontend[d].policy >= 0:
                dispatch(S, d, now)


@compiled
def stop(S: State, w: int, back: int) -> None:
    """Let a server be down until ``back``, and load then; nothing joins the batches that stand in front of it."""
    server = S.server[w]
    station = S.station[server.station]
    if station.rule == CENTRAL and station.placement == IDLE_FIRST and is_free(S, w):
        station.idle -= 1
    server.down = 1
    server.back = max(server.back, back)
    server.until = max(server.until if server.serving < 0 else 0, back + S.c[LOAD])
    b = server.head
    while b >= 0:
        if S.batch[b].open:
            close(S, b)
        b = S.batch[b].follow


@compiled
def clear(S: State, w: int, rule: int, now: int) -> None:
    """Deal with what a server that has failed was serving, and with what stood in front of it."""
    server = S.server[w]
    b, waiting = server.serving, server.head
    server.serving = NONE
    server.head = NONE
    server.tail = NONE
    leave_all(S, w)
    if b >= 0:  # it would have served on until then
        server.busy_us -= time_armed(S.tree, S.order, w) - max(now, S.batch[b].start)
    disarm(S.tree, S.order, w)
    if b >= 0:
        strand(S, b, w, rule, now, True)
    while waiting >= 0:
        b = waiting
        waiting = S.batch[b].follow
        strand(S, b, w, rule, now, False)


@compiled
def strand(S: State, b: int, w: int, rule: int, now: int, begun: bool) -> None:
    """Deal with a batch on a server that has failed."""
    batch = S.batch[b]
    if rule == RESERVED:
        if begun and batch.start < now:
            record_cut(S, S.c[BASE] + S.c[VISITS], b, begun, now)
            S.c[VISITS] += 1
        retry(S, b, w, now)
    elif rule == REACTIVE:
        back_to_queue(S, b, now, begun)
    else:
        dissolve(S, b, now, begun)


@compiled_apart
def dissolve(S: State, b: int, now: int, begun: bool) -> None:
    """Let the requests of a batch join its station again; a service in one step is cut once only."""
    batch = S.batch[b]
    q, token = batch.station, batch.head
    record_cut(S, S.c[BASE] + batch.visit, b, begun, now)
    release(S, b)
    while token >= 0:
        follow = S.token[token].follow
        r = request_of(S, token)
        if S.outcome[r] == OPEN:
            if begun and S.seldom[token].cut:
                decide(S, r, LOST, now)
            else:
                if begun:
                    S.seldom[token].cut = 1
                join(S, q, token, now)
        token = follow


@compiled_apart
def repair(S: State, w: int, now: int) -> None:
    """Take a server back; it loads first."""
    server = S.server[w]
    server.down = 0
    station = S.station[server.station]
    begin(S, w, now)
    if station.rule == RESERVED or station.rule == REACTIVE:
        correct(S, w, now)
    elif station.rule == CENTRAL:
        if station.placement == IDLE_FIRST and is_free(S, w):
            station.idle += 1
        work(S, server.station, now)
