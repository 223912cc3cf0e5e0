"""The state of a run as flat arrays, which compiled functions change in place.

Times are int64 µs; -1 is "none" wherever a number of something may be missing. Queues are linked lists through the
records that stand in them. A `BATCH` lives from when it is built until its requests have gone on, in a slot that is
then used again; what is to be remembered of it goes to the columns of visits. Numbers are int64 but for requests, of
which there are many: a compiled function is compiled anew for every type of number that it is called with.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator.compilation import compiled

Array = NDArray[Any]

NONE = -1

SERVER = np.dtype(
    [
        ("until", np.int64),  # planned end of what it serves, or when it has loaded
        ("back", np.int64),  # end of its repair
        ("front", np.int64),  # what stands in front of it: `places` [front, rear) (latest start first)
        ("rear", np.int64),
        ("before", np.int64),  # counted times of all that ever stood there,
        ("gone", np.int64),  # and of what has begun
        ("begun", np.int64),  # services begun: the counter of its random stream
        ("drawn", np.int64),  # the service that `factor` is of, which was drawn for `spread`
        ("factor", np.float64),
        ("spread", np.float64),
        ("busy_us", np.int64),  # time served so far, what it serves included
        ("serving", np.int64),  # batch
        ("head", np.int64),  # batches in front of it, linked by `follow`
        ("tail", np.int64),
        ("promised", np.int64),  # batches promised to it, linked by `after` and `before`
        ("last_promised", np.int64),
        ("kind", np.int64),
        ("card", np.int64),
        ("station", np.int64),  # the first that lists it
        ("column", np.int64),  # its number in that station: its column in books
        ("frontend", np.int64),
        ("device", np.int64),
        ("down", np.int64),
        ("off", np.int64),  # ON, OFF, or LOADING: to be on soon
        ("held", np.int64),  # waits until earlier plans have left its device
    ],
    align=True,
)
ON, OFF, LOADING = range(3)

STATION = np.dtype(
    [
        ("timeout", np.int64),
        ("epsilon", np.int64),
        ("drop_age", np.int64),
        ("end_by", np.int64),  # by slack
        ("wire", np.int64),
        ("hop", np.int64),
        ("spread", np.float64),
        ("rule", np.int64),
        ("placement", np.int64),
        ("max_batch", np.int64),
        ("first", np.int64),  # its servers are lists[first : first + servers]
        ("servers", np.int64),
        ("turn", np.int64),
        ("idle", np.int64),  # servers that are up, on and have nothing to do (idle first)
        ("head", np.int64),  # tokens that wait, linked by `follow`
        ("tail", np.int64),
        ("length", np.int64),
        ("open", np.int64),  # batches that may grow, linked by `after` and `before`
        ("frontend", np.int64),
        ("row", np.int64),  # in the books
        ("row0", np.int64),  # of the first stage of its pipeline
        ("stage", np.int64),
        ("alike", np.int64),  # the next station with the same servers, in a ring
        ("links", np.int64),  # RECEIVES and SENDS
        ("discard", np.int64),
        ("onward", np.int64),  # station that all it serves join, one step on; HOME; or EACH goes its own way
        ("voids", np.int64),  # requests in its queue may be void: they are in others as well, or dropped at an age
        ("look", np.int64),  # when its timer is to go off, NEVER if it need not
        ("armed", np.int64),  # a timer is in the calendar, which goes off no later
    ],
    align=True,
)
RECEIVES, SENDS = 1, 2
EACH, HOME = -1, -2

CARD = np.dtype([("free", np.int64), ("head", np.int64), ("tail", np.int64)], align=True)

BATCH = np.dtype(
    [
        ("number", np.int64),  # in order of dispatch: breaks ties
        ("visit", np.int64),  # its row in the records
        ("reach", np.int64),
        ("start", np.int64),
        ("there", np.int64),  # when the card has brought it
        ("due", np.int64),  # latest start
        ("line", np.int64),  # discard line
        ("counted", np.int64),  # the time that insertion counts (latest start first)
        ("ready", np.int64),  # when it is expected (reservations)
        ("first", np.int64),  # its first request (reservations), or the place of that in its queue (reactive)
        ("station", np.int64),
        ("server", np.int64),
        ("size", np.int64),
        ("head", np.int64),  # its tokens, linked by `follow` (routes)
        ("tail", np.int64),
        ("follow", np.int64),
        ("before", np.int64),
        ("after", np.int64),
        ("next_stage", np.int64),  # the batch that it is in the next stage (reservations)
        ("card", np.int64),  # over which it came, from which station
        ("sender", np.int64),
        ("queue", np.int64),  # the station whose queue it came from (reactive)
        ("retried", np.int64),
        ("open", np.int64),
    ],
    align=True,
)

# A place in front of a server (latest start first); the latest starts of the batches there are `dues`.
PLACE = np.dtype(
    [
        ("before", np.int64),  # counted times of all that ever stood before it
        ("slack", np.int64),  # how late it and all behind it may become
        ("line", np.int64),  # discard line of the batch
        ("batch", np.int64),
    ],
    align=True,
)

# A request in a step of its route; token = request << STEP_BITS | step.
TOKEN = np.dtype([("joined", np.int64), ("visit", np.int32), ("follow", np.int32)], align=True)

# What few tokens have: how many of the steps before have served it, where there are several, and whether a failure has
# cut its service in this step before.
SELDOM = np.dtype([("came", np.int16), ("cut", np.int16)], align=True)

# A request of a route.
REQUEST = np.dtype(
    [
        ("done", np.int64),  # when its outcome was decided
        ("of_class", np.int16),
        ("left", np.int16),  # steps without a successor that have not served it
    ],
    align=True,
)

# A class of requests: from ``first`` on, those still to come are [next, to).
ROUTE = np.dtype([("first", np.int64), ("next", np.int64), ("to", np.int64)], align=True)

STEP = np.dtype(
    [
        ("latest_start", np.int64),
        ("discard", np.int64),
        ("station", np.int64),
        ("before", np.int64),  # how many steps lead to it
        ("then", np.int64),  # the steps that follow are lists[then : then + steps]
        ("steps", np.int64),
        ("sinks", np.int64),  # of step 0: how many steps of the route have no successor
    ],
    align=True,
)

FRONTEND = np.dtype(
    [
        ("from_", np.int64),  # its requests are [from_, to)
        ("to", np.int64),
        ("came", np.int64),  # how many have come (reactive: a queue counts those that join again as well)
        ("under_way", np.int64),  # requests sent and not yet decided (reactive)
        ("base", np.int64),  # its batch k is visit base + stage · room + k
        ("room", np.int64),
        ("station", np.int64),  # station of row r of its books: station + r
        ("policy", np.int64),
        ("size", np.int64),  # what it has decided to send next (where it runs ahead)
        ("pipeline", np.int64),
        ("successor", np.int64),  # who has taken its queue over
        ("in_charge", np.int64),
        ("since", np.int64),  # when it took over, and was taken over
        ("until", np.int64),
    ],
    align=True,
)

# Scalars of a run.
(
    NOW,
    SEED,
    LOAD,
    NOISE,
    CORRECTED,
    AHEAD,  # frontends decide ahead of time: nothing but their own reservations changes their books
    SHARED,  # some servers are in the pools of several frontends
    STEP_BITS,  # as many as number the steps of the longest route
    ROUTED,  # requests of routes
    DEPTH,  # stages of reactive pipelines
    SLOTS,  # slots of batches ever used
    UNUSED,  # head of the slots that are free again
    BATCHES,
    VISITS,  # visits of routes and reactive queues, and cut ones, so far
    BASE,  # where these begin
    ROOM,  # how many there may be
    OUTAGE,  # the next one in `lists`, and the end of all
    LAST_OUTAGE,
    SLOWDOWNS,
    WANTED,  # how many places there should be in front of a server
    HELD,  # servers that are held for earlier plans
    CARDS,  # first source of each sort; servers are from 0
    TIMERS,
    OUTAGES,
    FRONTENDS,
    ROUTES,
    SCALARS,
) = range(27)

EXACT, LOG_NORMAL, FACTORS = range(3)  # NOISE

# Rows of `visits`. A label holds station, server, kind and size in 16 bits each, from the lowest.
REACH_US, START_US, END_US, LABEL = range(4)
L_STATION, L_SERVER, L_KIND, L_SIZE = range(4)


class State(NamedTuple):
    """All of a run; `simulator.engine.start` makes it from a network."""

    c: Array  # scalars
    tree: Array  # the calendar, and the order among events of one time and kind
    order: Array
    server: Array
    station: Array
    card: Array
    batch: Array
    frontend: Array
    route: Array
    step: Array  # [class, step]
    places: Array  # [server, place]
    dues: Array  # [server, place]
    token: Array
    seldom: Array  # [token]
    request: Array
    lists: Array  # servers of stations, steps that follow steps, servers of outages, outages (at, first, last, repair)
    latency: Array  # [0, station, kind, batch], and [1, ...]: those that insertion counts
    floats: Array  # slowdowns (from, until, factor), then factors of service times
    arrivals: Array  # [request]
    outcome: Array  # [request]
    fate: Array  # [request] of frontends: number of its batch, or -cause; reactive: queue in which its service was cut
    books: Array  # [frontend, field, row, column]
    queue: Array  # [stage, request]: visit; then [station, place]: request (reactive)
    visits: Array  # [REACH_US ... LABEL, visit]


@compiled
def new_batch(S: State, q: int, w: int, now: int) -> int:
    """Return a batch of a station for a server, without requests."""
    b = S.c[UNUSED]
    if b >= 0:
        S.c[UNUSED] = S.batch[b].follow
    else:
        b = S.c[SLOTS]
        S.c[SLOTS] = b + 1
    batch = S.batch[b]
    batch.number = S.c[BATCHES]
    batch.visit = NONE
    batch.reach = now
    batch.start = NONE
    batch.station = q
    batch.server = w
    batch.size = 0
    batch.head = NONE
    batch.follow = NONE
    batch.next_stage = NONE
    batch.retried = 0
    batch.open = 0
    return int(b)


@compiled
def number_batch(S: State, b: int) -> None:
    """Give a batch of a route or a reactive queue its number and its visit."""
    S.batch[b].visit = S.c[VISITS]
    S.c[VISITS] += 1
    S.c[BATCHES] += 1


@compiled
def release(S: State, b: int) -> None:
    """Let the slot of a batch be used again."""
    S.batch[b].follow = S.c[UNUSED]
    S.c[UNUSED] = b


@compiled
def record(S: State, v: int, b: int, start: int, end: int) -> None:
    """Enter a visit of a batch."""
    batch = S.batch[b]
    w = batch.server
    kind = S.server[w].kind if w >= 0 else 0
    S.visits[REACH_US, v] = batch.reach
    S.visits[START_US, v] = start
    S.visits[END_US, v] = end
    S.visits[LABEL, v] = (batch.size << 48) | (kind << 32) | ((w & 0xFFFF) << 16) | batch.station


@compiled
def record_cut(S: State, v: int, b: int, begun: bool, now: int) -> None:
    """Enter a visit of no requests: a service that a failure has cut short, or that never began."""
    size = S.batch[b].size
    S.batch[b].size = 0
    record(S, v, b, S.batch[b].start if begun and S.batch[b].start < now else NONE, now)
    S.batch[b].size = size
