"""Latest start first: servers shared by stations, whose batches stand in front of them by their latest start.

What stands in front of a server w is planned to start one after the other from when it is free. Its places are
``places[w, front:rear]``, in order. With ``before`` the counted times of all that ever stood before a place, and
``gone`` of those that have begun, place k starts at

    start_k = max(now, until) + before_k - gone,

and a batch that takes ``more`` and is put in front of it makes it and all behind it late unless

    max(now, until) - gone + more <= slack_k = min over j >= k of (line_j - before_j),

``line`` being the discard line of a batch. So a request looks at one place of a server; only where it joins are the
places behind moved, and the slacks before tightened.
"""

from simulator.compilation import compiled
from simulator.dispatch.books import NEVER
from simulator.engine.core.calendar import FILL, arm
from simulator.engine.core.state import NONE, ON, WANTED, State, new_batch, number_batch

NEAR = 16  # places that are looked at together
NOBODY = NONE  # latest start where no batch stands any more: earlier than all


@compiled
def begins(S: State, w: int, b: int, now: int) -> bool:
    """Return whether the first batch in front of an idle server begins; else wait until its fill timeout is over."""
    batch = S.batch[b]
    station = S.station[batch.station]
    if batch.size < station.max_batch and now < batch.reach + station.timeout:
        arm(S.tree, S.order, w, batch.reach + station.timeout, FILL, w)
        return False
    if batch.open:
        close(S, b)
    return True


@compiled
def leave_front(S: State, w: int, b: int) -> None:
    """Take the first batch in front of a server away."""
    server = S.server[w]
    server.gone += S.batch[b].counted
    S.dues[w, server.front] = NOBODY
    server.front += 1
    server.head = S.batch[b].follow


@compiled
def leave_all(S: State, w: int) -> None:
    """Let nothing stand in front of a server."""
    server = S.server[w]
    server.gone = server.before
    for k in range(server.front, server.rear):
        S.dues[w, k] = NOBODY
    server.front = server.rear


@compiled
def close(S: State, b: int) -> None:
    """Let no more requests join a batch."""
    batch = S.batch[b]
    batch.open = 0
    if batch.before >= 0:
        S.batch[batch.before].after = batch.after
    else:
        S.station[batch.station].open = batch.after
    if batch.after >= 0:
        S.batch[batch.after].before = batch.before


@compiled
def open_batch(S: State, b: int) -> None:
    """Let more requests join a batch: put it among the open ones, which stand by latest start, the latest first."""
    batch = S.batch[b]
    station = S.station[batch.station]
    before, after = NONE, station.open
    while after >= 0 and S.batch[after].due >= batch.due:
        before, after = after, S.batch[after].after
    batch.open = 1
    batch.before = before
    batch.after = after
    if before >= 0:
        S.batch[before].after = b
    else:
        station.open = b
    if after >= 0:
        S.batch[after].before = b


@compiled
def batches_to_join(S: State, q: int, due: int) -> tuple[int, int]:
    """Return the open batches that a request tries: the latest by its own latest start + epsilon, and the next one."""
    later, sooner = NONE, S.station[q].open
    latest = due + S.station[q].epsilon
    while sooner >= 0 and S.batch[sooner].due > latest:
        if later < 0 or S.batch[sooner].due < S.batch[later].due:  # of those with one latest start the oldest
            later = sooner
        sooner = S.batch[sooner].after
    return sooner, later


@compiled
def place_for(S: State, w: int, due: int) -> int:
    """Return the place of a new batch in front of a server: behind those whose latest start is not later.

    Those that are later are counted from the end, NEAR at a time by vector instructions, which need not be predicted.
    """
    k, last = S.server[w].rear, NEAR
    while last == NEAR:
        last = 0
        for i in range(NEAR):
            last += S.dues[w, k - NEAR + i] > due
        k -= last
    return int(k)


@compiled
def place_of(S: State, b: int) -> int:
    """Return the place of a batch that stands in front of its server."""
    w = S.batch[b].server
    k = place_for(S, w, S.batch[b].due) - 1
    while S.places[w, k].batch != b:
        k -= 1
    return k


@compiled
def place_to_grow(S: State, b: int, line: int, now: int) -> int:
    """Return the place of a batch if with a request more, of this discard line, it and all behind start by theirs."""
    batch = S.batch[b]
    w = batch.server
    server = S.server[w]
    more = S.latency[1, batch.station, server.kind, batch.size + 1] - batch.counted
    free = max(now, server.until) - server.gone
    k = place_of(S, b)
    if k + 1 < server.rear and free + more > S.places[w, k + 1].slack:
        return NONE
    return int(k) if free + S.places[w, k].before <= min(line, batch.line) else NONE


@compiled
def count(S: State, w: int, b: int, k: int) -> None:
    """Count the time of a batch at its present size, for the places from k on, which are behind it."""
    batch, server = S.batch[b], S.server[w]
    more = S.latency[1, batch.station, server.kind, batch.size] - batch.counted
    batch.counted += more
    server.before += more
    for j in range(k, server.rear):
        S.places[w, j].before += more
        S.places[w, j].slack -= more


@compiled
def tighten(S: State, w: int, k: int) -> None:
    """Work out the slack of a place, and of those before it as far as it changes theirs."""
    server = S.server[w]
    slack = NEVER if k + 1 == server.rear else S.places[w, k + 1].slack
    while k >= server.front:
        place = S.places[w, k]
        slack = min(slack, place.line - place.before)
        if place.slack == slack:
            break
        place.slack = slack
        k -= 1


@compiled
def grow(S: State, b: int, k: int, token: int, line: int) -> bool:
    """Let a request join the batch in a place; returns whether that filled it."""
    batch = S.batch[b]
    w = batch.server
    S.token[batch.tail].follow = token
    batch.tail = token
    batch.size += 1
    batch.line = min(batch.line, line)
    S.places[w, k].line = batch.line
    count(S, w, b, k + 1)
    tighten(S, w, k)
    if batch.size < S.station[batch.station].max_batch:
        return False
    close(S, b)
    return True


@compiled
def choose_server(S: State, q: int, due: int, line: int, keep: bool, now: int) -> int:
    """Return the server for a new batch of one request, -1 if there is none; ``keep`` it even where none is in time."""
    station = S.station[q]
    chosen, first_end = NONE, NEVER
    late, late_end = NONE, NEVER
    for i in range(station.first, station.first + station.servers):
        w = S.lists[i]
        server = S.server[w]
        if server.down or server.off != ON:
            continue
        own = S.latency[1, q, server.kind, 1]
        free = max(now, server.until)
        if chosen >= 0 and free + own >= first_end:
            continue  # it cannot end there sooner
        k = place_for(S, w, due)
        last = k == server.rear
        start = free - server.gone + (server.before if last else S.places[w, k].before)
        if start <= line and (last or free - server.gone + own <= S.places[w, k].slack):
            if start + own < first_end:
                chosen, first_end = w, start + own
        elif start + own < late_end:
            late, late_end = w, start + own
    if chosen >= 0 or not keep:
        return int(chosen)
    return int(late)


@compiled
def stand_by_latest_start(S: State, w: int, b: int) -> None:
    """Put a batch in front of a server, behind those whose latest start is not later."""
    server, batch = S.server[w], S.batch[b]
    if server.rear == S.places.shape[1]:
        move_up(S, w)
    k = place_for(S, w, batch.due)
    place = S.places[w, k]
    before = place.before if k < server.rear else server.before
    more = S.latency[1, batch.station, server.kind, batch.size]
    for j in range(server.rear, k, -1):
        S.places[w, j] = S.places[w, j - 1]
        S.places[w, j].before += more
        S.places[w, j].slack -= more
        S.dues[w, j] = S.dues[w, j - 1]
    server.rear += 1
    server.before += more
    batch.counted = more
    place.batch, place.line, place.before, place.slack = b, batch.line, before, NEVER
    S.dues[w, k] = batch.due
    tighten(S, w, k)
    batch.follow = S.places[w, k + 1].batch if k + 1 < server.rear else NONE
    if k > server.front:
        S.batch[S.places[w, k - 1].batch].follow = b
    else:
        server.head = b
    if 2 * (server.rear - server.front) > S.places.shape[1] - NEAR:
        S.c[WANTED] = max(S.c[WANTED], 2 * S.places.shape[1])


@compiled
def move_up(S: State, w: int) -> None:
    """Move the places in front of a server to where there is room behind them."""
    server = S.server[w]
    back = server.front - NEAR
    for k in range(NEAR, server.rear - back):
        S.places[w, k] = S.places[w, k + back]
        S.dues[w, k] = S.dues[w, k + back]
    for k in range(server.rear - back, server.rear):
        S.dues[w, k] = NOBODY
    server.rear -= back
    server.front = NEAR


@compiled
def insert(S: State, q: int, token: int, due: int, line: int, discards: bool, now: int) -> tuple[int, int]:
    """Let a request join a station.

    Returns
    -------
    batch, server
        What it joined, and the server that may begin now, -1 if nothing there has changed in a way that lets it begin;
        batch -1 if the request is hopeless.
    """
    sooner, later = batches_to_join(S, q, due)
    for b in (sooner, later):
        if b >= 0:
            k = place_to_grow(S, b, line, now)
            if k >= 0:
                return b, S.batch[b].server if grow(S, b, k, token, line) else NONE
    w = choose_server(S, q, due, line, not discards, now)
    if w < 0:
        return NONE, NONE
    b = new_batch(S, q, w, now)
    number_batch(S, b)
    batch = S.batch[b]
    batch.head = token
    batch.tail = token
    batch.size = 1
    batch.due = due
    batch.line = line
    if S.station[q].max_batch > 1:
        open_batch(S, b)
    stand_by_latest_start(S, w, b)
    return b, w
