"""Reactive dispatch: a queue in front of every stage; `simulator.dispatch.reactive` decides."""

import numpy as np

from simulator.compilation import compiled, compiled_apart
from simulator.dispatch.books import FREE, HEAD, MAX_STAGES, NEVER, NOTES, WAKE
from simulator.dispatch.decisions import FINISHED, LOST
from simulator.dispatch.reactive import join, react
from simulator.engine.core.books import enter_free_everywhere, say_free
from simulator.engine.core.calendar import AWAKE, KIND_BITS, TIME_BITS, WORK, arm, disarm
from simulator.engine.core.reservations import arm_frontend
from simulator.engine.core.servers import begin, stand_in_front
from simulator.engine.core.state import (
    BASE,
    CORRECTED,
    DEPTH,
    FRONTENDS,
    HELD,
    NONE,
    SHARED,
    TIMERS,
    State,
    new_batch,
    number_batch,
    record_cut,
    release,
)
from simulator.engine.core.takeovers import hand_over_all


@compiled
def join_queue(S: State, q: int, r: int) -> None:
    """Put a request into the queue of a station."""
    station = S.station[q]
    join(S.books[station.frontend], station.row, S.queue[S.c[DEPTH] + q], S.arrivals, r)


@compiled_apart
def work_queue(S: State, q: int, now: int) -> None:
    """Work through the queue of a station; that of a frontend's first station serves all first stages."""
    d, row = S.station[q].frontend, S.station[q].row
    books = S.books[d]
    while True:
        head = books[NOTES, row, HEAD]
        size, pipeline, column = react(books, row, S.queue[S.c[DEPTH] + q], S.arrivals, S.outcome, now)
        if row > 0:
            S.frontend[d].under_way -= books[NOTES, row, HEAD] - head - size  # what was dropped
        if size == 0:
            break
        to = q + pipeline * books[NOTES, 0, MAX_STAGES] if row == 0 else q
        w = S.lists[S.station[to].first + column]
        b = new_batch(S, to, w, now)
        number_batch(S, b)
        batch = S.batch[b]
        batch.size = size
        batch.queue = q
        batch.first = books[NOTES, row, HEAD] - size
        for place in range(batch.first, batch.first + size):
            S.queue[S.station[to].stage, S.queue[S.c[DEPTH] + q, place]] = batch.visit
        if row == 0:
            S.frontend[d].under_way += size
        stand_in_front(S, w, b)
        begin(S, w, now)
        if S.c[CORRECTED]:
            say_free(S, w, now)
        elif S.c[SHARED]:
            enter_free_everywhere(S, w, books[FREE, S.station[to].row, column])
    leave_devices(S, d, now)
    wake = books[NOTES, row, WAKE]
    if row == 0:
        arm_frontend(S, d, now)
    elif wake < NEVER:
        arm(S.tree, S.order, S.c[TIMERS] + q, max(wake, now), AWAKE, q)
    else:
        disarm(S.tree, S.order, S.c[TIMERS] + q)


@compiled
def wake_up(S: State, d: int, now: int) -> None:
    """Let the request that a frontend wakes up for join, unless it is its timer that goes off."""
    if S.books[d, NOTES, 0, WAKE] > now:
        frontend = S.frontend[d]
        join_queue(S, frontend.station, frontend.from_ + frontend.came)
        frontend.came += 1


@compiled
def finish_reactively(S: State, b: int, now: int) -> None:
    """Let the requests of a batch that the last stage has served be finished."""
    batch = S.batch[b]
    d = S.station[batch.station].frontend
    for place in range(batch.first, batch.first + batch.size):
        S.outcome[S.queue[S.c[DEPTH] + batch.queue, place]] = FINISHED
    S.frontend[d].under_way -= batch.size
    release(S, b)
    leave_devices(S, d, now)


@compiled
def leave_devices(S: State, d: int, now: int) -> None:
    """Let later plans have the devices of a plan that has no request under way any more."""
    if S.c[HELD] and not S.frontend[d].in_charge and S.frontend[d].under_way == 0:
        hand_over_all(S, now)


@compiled
def reach_queue(S: State, b: int, now: int) -> int:
    """Split a batch into its requests, which join the next stage's queue; it is worked through when all are there.

    Returns the queue if that is now, because nothing else can join it; else -1.
    """
    batch = S.batch[b]
    q = batch.station + 1
    for place in range(batch.first, batch.first + batch.size):
        join_queue(S, q, int(np.int64(S.queue[S.c[DEPTH] + batch.queue, place])))
    release(S, b)
    if S.tree[1] >> KIND_BITS > (now << (TIME_BITS - KIND_BITS)) | WORK:
        return int(q)
    arm(S.tree, S.order, S.c[TIMERS] + q, now, WORK, q)
    return NONE


@compiled_apart
def back_to_queue(S: State, b: int, now: int, begun: bool) -> None:
    """Let the requests of a batch on a slice that failed join the queue again; a service is cut once only.

    Those of the first stages join that of the plan that is now in charge.
    """
    batch = S.batch[b]
    q, d = batch.queue, S.station[batch.queue].frontend
    to, in_charge = q, d
    stage = S.station[batch.station].stage
    if stage == 0:
        while not S.frontend[in_charge].in_charge:
            in_charge = S.frontend[in_charge].successor
        to = S.frontend[in_charge].station
        S.frontend[d].under_way -= batch.size
    for place in range(batch.first, batch.first + batch.size):
        r = int(np.int64(S.queue[S.c[DEPTH] + q, place]))
        S.queue[stage, r] = NONE
        if begun and S.fate[r] == q:
            S.outcome[r] = LOST
            if stage > 0:
                S.frontend[d].under_way -= 1
        else:
            if begun:
                S.fate[r] = q
            join_queue(S, to, r)
    record_cut(S, S.c[BASE] + batch.visit, b, begun, now)
    release(S, b)
    if stage == 0:
        arm(S.tree, S.order, S.c[FRONTENDS] + in_charge, now, WORK, in_charge)
    else:
        arm(S.tree, S.order, S.c[TIMERS] + q, now, WORK, q)
    leave_devices(S, d, now)
