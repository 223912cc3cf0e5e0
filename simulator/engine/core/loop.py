"""The loop: take the next event, let it happen, until nothing is left, a time is reached, or Python is asked."""

from simulator.compilation import compiled, compiled_apart
from simulator.dispatch.books import NEVER
from simulator.engine.core.books import say_free
from simulator.engine.core.calendar import (
    ARRIVAL,
    AWAKE,
    DISPATCH,
    END,
    END_OF_TIME_US,
    FILL,
    IDLE,
    KIND_BITS,
    KIND_MASK,
    REACH,
    SOURCE_MASK,
    TIME_BITS,
    TIMER,
    WORK,
    arm,
    disarm,
    kind_armed,
)
from simulator.engine.core.failures import has_room, next_outage, repair
from simulator.engine.core.latest_start import NEAR
from simulator.engine.core.reactive_queues import finish_reactively, reach_queue, wake_up, work_queue
from simulator.engine.core.reservations import dispatch, go_on_as_reserved, let_arrive, reach_slice, withdraw
from simulator.engine.core.routes import arrive, go_on, look_for_work, time_out
from simulator.engine.core.servers import begin, delivered, transmit
from simulator.engine.core.state import (
    AHEAD,
    BASE,
    CARDS,
    CORRECTED,
    FRONTENDS,
    NONE,
    NOW,
    OUTAGE,
    OUTAGES,
    ROUTES,
    SENDS,
    TIMERS,
    WANTED,
    State,
    record,
)
from simulator.engine.network import ASKED, CENTRAL, LATEST_START, REACTIVE, REACTS, RESERVED

DONE, PAUSED, ASKS, FULL, CROWDED, ENDLESS = range(6)


@compiled_apart
def run(S: State, until: int) -> tuple[int, int]:
    """Let everything happen that happens before ``until``.

    Returns
    -------
    code, frontend
        DONE: nothing is left. PAUSED: something is, from ``until`` on. ASKS: a frontend whose policy is in Python is to
        answer at NOW. FULL: there must be more room before the outage at hand. CROWDED: there must be WANTED
        places in front of servers. ENDLESS: the run has come to the end of the calendar.
    """
    alone = len(S.route) == 1  # its arrivals need no calendar
    arrival = next_arrival(S, 0) if alone else NEVER
    code, d = DONE, NONE
    while True:
        if S.c[WANTED] > S.places.shape[1]:
            code = CROWDED
            break
        top = S.tree[1]
        now = top >> TIME_BITS
        if arrival < now:
            if arrival >= until:
                code = PAUSED
                break
            arrive(S, 0, arrival)
            arrival = next_arrival(S, 0)
            continue
        if top >= IDLE:
            break
        if now >= until:
            code = PAUSED
            break
        if now == END_OF_TIME_US and not is_needless(S, top):
            code = ENDLESS
            break
        source = top & SOURCE_MASK
        kind = (top >> KIND_BITS) & KIND_MASK
        arrived = queue = NONE
        if kind == END:
            arrived = end(S, source, now)
        elif kind == REACH:
            arrived = delivered(S, source - S.c[CARDS])
        elif kind == DISPATCH:
            d = source - S.c[FRONTENDS]
            policy = S.frontend[d].policy
            if policy == ASKED:
                code = ASKS
                S.c[NOW] = now
                break
            if policy == REACTS:
                wake_up(S, d, now)
                queue = S.frontend[d].station
            else:
                if not S.c[AHEAD]:
                    let_arrive(S, d, now)
                dispatch(S, d, now)
        elif kind in (WORK, AWAKE):
            queue = queue_of(S, source)
        elif kind == ARRIVAL:
            arrive_mixed(S, source - S.c[ROUTES], now)
        elif kind == TIMER:
            time_out(S, source - S.c[TIMERS], now)
        elif kind == FILL:
            disarm(S.tree, S.order, source)
            begin(S, source, now)
        elif source == S.c[OUTAGES]:
            if not has_room(S):
                code = FULL
                break
            S.c[WANTED] = max(S.c[WANTED], places_for_outage(S))
            if S.c[WANTED] > S.places.shape[1]:
                code = CROWDED
                break
            next_outage(S, now)
        else:
            disarm(S.tree, S.order, source)
            repair(S, source, now)
        if arrived >= 0:
            queue = reach(S, arrived, now)
        if queue >= 0:
            work_queue(S, queue, now)
    return code, d


@compiled
def next_arrival(S: State, k: int) -> int:
    """Return when the next request of a class comes."""
    route = S.route[k]
    return int(S.arrivals[route.next]) if route.next < route.to else NEVER


@compiled_apart
def arrive_mixed(S: State, k: int, now: int) -> None:
    """Let the next request of one of several classes come."""
    arrive(S, k, now)
    at = next_arrival(S, k)
    if at < NEVER:
        arm(S.tree, S.order, S.c[ROUTES] + k, at, ARRIVAL, k)
    else:
        disarm(S.tree, S.order, S.c[ROUTES] + k)


@compiled
def is_needless(S: State, event: int) -> bool:
    """Return whether an event is a timer that is not needed any more."""
    if (event >> KIND_BITS) & KIND_MASK != TIMER:
        return False
    return bool(S.station[(event & SOURCE_MASK) - S.c[TIMERS]].look == NEVER)


@compiled
def queue_of(S: State, source: int) -> int:
    """Return the station whose reactive queue a source is about."""
    if source >= S.c[FRONTENDS]:
        return int(S.frontend[source - S.c[FRONTENDS]].station)
    return int(source - S.c[TIMERS])


@compiled_apart
def places_for_outage(S: State) -> int:
    """Return how many places a server may need when the requests on those that the outage stops join others again."""
    longest = 0
    for w in range(len(S.server)):
        longest = max(longest, S.server[w].rear - S.server[w].front)
    if longest == 0:
        return 0
    i = S.c[OUTAGE]
    for k in range(S.lists[i + 1], S.lists[i + 2]):
        server = S.server[S.lists[k]]
        if server.serving >= 0:
            longest += S.batch[server.serving].size
        b = server.head
        while b >= 0:
            longest += S.batch[b].size
            b = S.batch[b].follow
    return int(NEAR + longest)


@compiled
def end(S: State, w: int, now: int) -> int:
    """End a service: the server begins the next one, the batch goes on; returns it if it is there already, or -1."""
    server = S.server[w]
    b = server.serving
    batch = S.batch[b]
    q = batch.station
    rule = S.station[q].rule
    server.serving = NONE
    server.until = now
    record(S, batch.visit if rule == RESERVED else S.c[BASE] + batch.visit, b, batch.start, now)
    if rule == RESERVED and S.c[CORRECTED]:
        withdraw(S, w, b)
    begin(S, w, now)
    sent = b
    if rule == RESERVED:
        sent = go_on_as_reserved(S, w, b, now)
    elif rule == REACTIVE:
        if S.c[CORRECTED]:
            say_free(S, w, now)
        if not S.station[q].links & SENDS:
            finish_reactively(S, b, now)
            sent = NONE
    else:
        look_for_work(S, w, q, now)
    if server.serving < 0 and kind_armed(S.tree, S.order, w) == END:
        disarm(S.tree, S.order, w)
    if sent < 0:
        return NONE
    if rule in (CENTRAL, LATEST_START) and S.station[q].wire == 0 and S.station[q].hop == 0:
        return int(b)
    transmit(S, sent, server.card, q, now)
    return NONE


@compiled
def reach(S: State, b: int, now: int) -> int:
    """Let a batch reach what follows; returns the reactive queue that is to be worked through now, or -1."""
    rule = S.station[S.batch[b].station].rule
    if rule == REACTIVE:
        return reach_queue(S, b, now)
    if rule == RESERVED:
        reach_slice(S, b, now)
    else:
        go_on(S, b, now)
    return NONE
