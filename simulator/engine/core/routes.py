"""Requests that follow a route: they join stations, batches are built of them, and they go on or home."""

import numpy as np

from simulator.compilation import compiled, compiled_apart
from simulator.dispatch.books import NEVER
from simulator.dispatch.decisions import FINISHED, HOPELESS, LATE, OPEN
from simulator.engine.core.calendar import TIMER, arm, disarm
from simulator.engine.core.latest_start import insert
from simulator.engine.core.servers import begin, stand_in_front
from simulator.engine.core.state import (
    HOME,
    NONE,
    ON,
    STEP_BITS,
    TIMERS,
    State,
    new_batch,
    number_batch,
    release,
)
from simulator.engine.network import BY_SLACK, IDLE_FIRST, LATEST_START


@compiled
def arrive(S: State, cls: int, now: int) -> None:
    """Let the next request of a class come."""
    r = S.route[cls].next
    S.route[cls].next = r + 1
    request = S.request[r]
    request.of_class = cls
    request.done = NONE
    request.left = S.step[cls, 0].sinks
    first = r << S.c[STEP_BITS]
    for token in range(first, first + S.step.shape[1]):
        S.token[token].joined = NONE
        S.token[token].visit = NONE
    join(S, S.step[cls, 0].station, first, now)


@compiled
def request_of(S: State, token: int) -> int:
    """Return the request of a token."""
    return int(token >> S.c[STEP_BITS])


@compiled
def reach_step(S: State, cls: int, r: int, n: int, now: int) -> None:
    """Reach a step of a route, which waits for all that lead to it."""
    token = (r << S.c[STEP_BITS]) | n
    if S.step[cls, n].before > 1:
        S.seldom[token].came += 1
        if S.seldom[token].came < S.step[cls, n].before:
            return
    if S.outcome[r] == OPEN:
        join(S, S.step[cls, n].station, token, now)


@compiled
def join(S: State, q: int, token: int, now: int) -> None:
    """Join the queue of a station."""
    S.token[token].joined = now
    S.token[token].follow = NONE
    if S.station[q].rule == LATEST_START:
        join_by_latest_start(S, q, token, now)
    else:
        join_queue(S, q, token, token, 1, now)


@compiled
def join_queue(S: State, q: int, first: int, last: int, count: int, now: int) -> None:
    """Put so many tokens, which are linked, into a central queue.

    They are put there together: one by one they would make the same batches, if the queue has a timeout.
    """
    station = S.station[q]
    if station.head < 0:
        station.head = first
    else:
        S.token[station.tail].follow = first
    station.tail = last
    before = station.length
    station.length = before + count
    if before + count >= station.max_batch or station.timeout == 0:
        work(S, q, now)
    elif before == 0:  # behind a head, its timer is set, or the queue is due and waits for a server
        set_timer(S, q, now + station.timeout)


@compiled_apart
def join_by_latest_start(S: State, q: int, token: int, now: int) -> None:
    """Join a batch in front of a server, or leave as hopeless."""
    r = request_of(S, token)
    n = token - (r << S.c[STEP_BITS])
    step = S.step[S.request[r].of_class, n]
    discards = n == 0 and S.station[q].discard != 0
    b, w = insert(S, q, token, S.arrivals[r] + step.latest_start, S.arrivals[r] + step.discard, discards, now)
    if b < 0:
        decide(S, r, HOPELESS, now)
        return
    if w >= 0:
        begin(S, w, now)


@compiled
def decide(S: State, r: int, outcome: int, now: int) -> None:
    """Let a request have its outcome."""
    S.outcome[r] = outcome
    S.request[r].done = now


# -- central queues


@compiled
def set_timer(S: State, q: int, at: int) -> None:
    """Look at a central queue at a time, which is not before that of its last timer.

    A timer that is not needed any more stays in the calendar: most queues fill up before, and when it goes off there is
    often a later one to be set in its place.
    """
    station = S.station[q]
    station.look = at
    if not station.armed:
        station.armed = 1
        arm(S.tree, S.order, S.c[TIMERS] + q, at, TIMER, q)


@compiled_apart
def time_out(S: State, q: int, now: int) -> None:
    """Look at a central queue if that is what its timer was last set for; else set it for that."""
    station = S.station[q]
    look = station.look
    if look > now and look < NEVER:
        arm(S.tree, S.order, S.c[TIMERS] + q, look, TIMER, q)
        return
    station.armed = 0
    if look == now:
        work(S, q, now)
    if not station.armed:
        disarm(S.tree, S.order, S.c[TIMERS] + q)


@compiled
def is_due(S: State, q: int, now: int) -> bool:
    """Return whether a batch should leave a central queue."""
    station = S.station[q]
    if station.length == 0:
        return False
    return bool(station.length >= station.max_batch or now >= S.token[station.head].joined + station.timeout)


@compiled
def take_head(S: State, q: int) -> int:
    """Take the head of a central queue out."""
    station = S.station[q]
    token = station.head
    station.head = S.token[token].follow
    station.length -= 1
    return int(token)


@compiled
def is_void(S: State, q: int, token: int, now: int) -> bool:
    """Return whether a request is not to be served any more; one that is too old has its outcome now."""
    if not S.station[q].voids:
        return False
    r = request_of(S, token)
    if S.outcome[r] != OPEN:
        return True
    if now - S.arrivals[r] < S.station[q].drop_age:
        return False
    decide(S, r, LATE, now)
    return True


@compiled
def choose_server(S: State, q: int, now: int) -> int:
    """Return the server that the next batch of a central queue goes to, -1 if there is none now."""
    station = S.station[q]
    if station.placement == IDLE_FIRST:
        if station.idle > 0:
            for k in range(station.first, station.first + station.servers):
                w = S.lists[k]
                if is_free(S, w):
                    return int(w)
        return NONE
    if station.placement == BY_SLACK:
        return choose_by_slack(S, q, now)
    for _ in range(station.servers):
        w = S.lists[station.first + station.turn]
        station.turn += 1
        if station.turn >= station.servers:
            station.turn = 0
        if not S.server[w].down and S.server[w].off == ON:
            return int(w)
    return NONE


@compiled_apart
def choose_by_slack(S: State, q: int, now: int) -> int:
    """Return the server of the most accurate kind that serves a central queue's head in time, or the soonest."""
    station = S.station[q]
    line = S.arrivals[request_of(S, station.head)] + station.end_by
    size = min(station.length, station.max_batch)
    chosen, best_kind, best_end = NONE, NONE, 0
    for k in range(station.first, station.first + station.servers):
        w = int(S.lists[k])
        server = S.server[w]
        if server.down or server.off != ON:
            continue
        end = max(now, server.until) + S.latency[0, q, server.kind, size]
        b = server.head
        while b >= 0:
            end += S.latency[0, q, server.kind, S.batch[b].size]
            b = S.batch[b].follow
        kind = server.kind if end <= line else NONE
        if chosen < 0 or kind > best_kind or (kind == best_kind and end < best_end):
            chosen, best_kind, best_end = w, kind, end
    return int(chosen)


@compiled
def is_free(S: State, w: int) -> bool:
    """Return whether a server is up, on, and has nothing to do."""
    server = S.server[w]
    return bool(server.serving < 0 and server.head < 0 and not server.down and server.off == ON)


@compiled_apart
def work(S: State, q: int, now: int) -> None:
    """Send the batches that are due from a central queue."""
    station = S.station[q]
    while is_due(S, q, now):
        while station.length > 0 and is_void(S, q, station.head, now):
            take_head(S, q)
        if not is_due(S, q, now):
            break
        w = choose_server(S, q, now)
        if w < 0:
            break
        b = new_batch(S, q, w, now)
        number_batch(S, b)
        fill(S, q, b, now)
        if station.placement == IDLE_FIRST:
            station.idle -= 1
        stand_in_front(S, w, b)
        begin(S, w, now)
    if station.length == 0:
        station.head = NONE
    if station.length > 0 and not is_due(S, q, now):
        set_timer(S, q, S.token[station.head].joined + station.timeout)
    else:
        station.look = NEVER


@compiled
def fill(S: State, q: int, b: int, now: int) -> None:
    """Move requests from a central queue to a batch until it is full."""
    station, batch = S.station[q], S.batch[b]
    token, last, left, size = station.head, NONE, station.length, 0
    if not station.voids:
        size = min(left, station.max_batch)
        left -= size
        batch.head = token
        for _ in range(size):
            last, token = token, S.token[token].follow
    while left > 0 and size < station.max_batch:
        left -= 1
        follow = S.token[token].follow
        if size == 0:
            batch.head = token
            last, size = token, 1
        elif not is_void(S, q, token, now):
            S.token[last].follow = token
            last, size = token, size + 1
        token = follow
    S.token[last].follow = NONE
    batch.tail = last
    batch.size = size
    station.head = token
    station.length = left


# -- going on


@compiled
def look_for_work(S: State, w: int, q: int, now: int) -> None:
    """Let a server that has nothing in front of it take the next batch of its queue (idle first)."""
    station = S.station[q]
    if station.rule != LATEST_START and station.placement == IDLE_FIRST and is_free(S, w):
        station.idle += 1
        if is_due(S, q, now):
            work(S, q, now)


@compiled_apart
def go_on(S: State, b: int, now: int) -> None:
    """Let the requests of a batch go on to what follows, or home."""
    batch = S.batch[b]
    q, visit, token, size = batch.station, batch.visit, batch.head, batch.size
    onward = S.station[q].onward
    release(S, b)
    if onward >= 0:
        go_on_together(S, onward, token, size, visit, now)
        return
    while token >= 0:
        follow = S.token[token].follow
        S.token[token].visit = visit
        if onward == HOME:
            decide(S, request_of(S, token), FINISHED, now)
        elif not is_void(S, q, token, now):
            r = request_of(S, token)
            go_on_alone(S, r, token - (r << S.c[STEP_BITS]), now)
        token = follow


@compiled
def go_on_together(S: State, q: int, token: int, size: int, visit: int, now: int) -> None:
    """Let all requests of a batch join the central queue of the next step, for which there is one place to go."""
    first = last = token + 1
    while token >= 0:
        last = token + 1
        follow = S.token[token].follow
        S.token[token].visit = visit
        S.token[last].joined = now
        S.token[last].follow = follow + 1
        token = follow
    S.token[last].follow = NONE
    join_queue(S, q, first, last, size, now)


@compiled
def go_on_alone(S: State, r: int, n: int, now: int) -> None:
    """Let a request go on to the steps that follow; after all that have none it is finished."""
    cls = int(np.int64(S.request[r].of_class))
    step = S.step[cls, n]
    if step.steps == 0:
        S.request[r].left -= 1
        if S.request[r].left == 0:
            decide(S, r, FINISHED, now)
    for k in range(step.then, step.then + step.steps):
        reach_step(S, cls, r, S.lists[k], now)
