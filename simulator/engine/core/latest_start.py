"""Latest start first: servers shared by stations, whose batches stand in front of them by their latest start.

What stands in front of a server is planned to start one after the other from when it is free. The sum of these times
is kept (``ahead_us``), so that an insertion looks only at the batches behind its place: those that come last are
looked at first, and what is left of the sum is when the inserted batch would start.
"""

from simulator.dispatch.books import NEVER
from simulator.dispatch.compiled import compiled
from simulator.engine.core.calendar import FILL, arm
from simulator.engine.core.state import NONE, ON, State, new_batch, number_batch


@compiled
def count(S: State, w: int, b: int) -> None:
    """Enter the time that a batch in front of a server is counted with."""
    batch = S.batch[b]
    batch.counted = S.latency[1, batch.station, S.server[w].kind, batch.size]
    S.server[w].ahead_us += batch.counted


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
    server.ahead_us -= S.batch[b].counted
    server.head = S.batch[b].follow
    if server.head >= 0:
        S.batch[server.head].ahead = NONE
    else:
        server.tail = NONE


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
    """Let more requests join a batch."""
    batch = S.batch[b]
    station = S.station[batch.station]
    batch.open = 1
    batch.before = NONE
    batch.after = station.open
    if station.open >= 0:
        S.batch[station.open].before = b
    station.open = b


@compiled
def is_tied_but_older(S: State, a: int, b: int) -> bool:
    """Return whether of two batches with one latest start a has the lower number."""
    return bool(S.batch[a].due == S.batch[b].due and S.batch[a].number < S.batch[b].number)


@compiled
def batches_to_join(S: State, q: int, due: int) -> tuple[int, int]:
    """Return the open batches that a request tries: the latest by its own latest start + epsilon, and the next one."""
    sooner, later = NONE, NONE
    latest = due + S.station[q].epsilon
    b = S.station[q].open
    while b >= 0:
        if S.batch[b].due > latest:
            if later < 0 or S.batch[b].due < S.batch[later].due or is_tied_but_older(S, b, later):
                later = b
        elif sooner < 0 or S.batch[b].due > S.batch[sooner].due or is_tied_but_older(S, b, sooner):
            sooner = b
        b = S.batch[b].after
    return sooner, later


@compiled
def may_grow(S: State, b: int, line: int, now: int) -> bool:
    """Return whether with a request more, of this discard line, a batch and all behind it still start by theirs."""
    batch = S.batch[b]
    w = batch.server
    server = S.server[w]
    more = S.latency[1, batch.station, server.kind, batch.size + 1] - batch.counted
    start = max(now, server.until) + server.ahead_us
    u = server.tail
    while u != b:
        start -= S.batch[u].counted
        if start + more > S.batch[u].line:
            return False
        u = S.batch[u].ahead
    start -= batch.counted
    return bool(start <= min(line, batch.line))


@compiled
def grow(S: State, b: int, token: int, line: int) -> bool:
    """Let a request join a batch; returns whether that filled it."""
    batch = S.batch[b]
    w = batch.server
    S.server[w].ahead_us -= batch.counted
    S.token[batch.tail].follow = token
    batch.tail = token
    batch.size += 1
    batch.line = min(batch.line, line)
    count(S, w, b)
    if batch.size < S.station[batch.station].max_batch:
        return False
    close(S, b)
    return True


@compiled
def place(S: State, q: int, due: int, line: int, keep: bool, now: int) -> int:
    """Return the server for a new batch of one request, -1 if there is none; ``keep`` it even where none is in time."""
    station = S.station[q]
    chosen, first_end = NONE, NEVER
    late, late_end = NONE, NEVER
    for k in range(station.first, station.first + station.servers):
        w = S.lists[k]
        server = S.server[w]
        if server.down or server.off != ON:
            continue
        own = S.latency[1, q, server.kind, 1]
        free = max(now, server.until)
        if chosen >= 0 and free + own >= first_end:
            continue  # it cannot end there sooner
        start = free + server.ahead_us
        in_time = True
        u = server.tail
        while u >= 0 and S.batch[u].due > due and (in_time or keep):
            start -= S.batch[u].counted
            in_time = in_time and start + own <= S.batch[u].line
            u = S.batch[u].ahead
        if in_time and start <= line:
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
    server = S.server[w]
    due = S.batch[b].due
    ahead, follow = server.tail, NONE
    while ahead >= 0 and S.batch[ahead].due > due:
        ahead, follow = S.batch[ahead].ahead, ahead
    S.batch[b].ahead = ahead
    S.batch[b].follow = follow
    if ahead >= 0:
        S.batch[ahead].follow = b
    else:
        server.head = b
    if follow >= 0:
        S.batch[follow].ahead = b
    else:
        server.tail = b
    count(S, w, b)


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
    joins = NONE
    if sooner >= 0 and may_grow(S, sooner, line, now):
        joins = sooner
    elif later >= 0 and may_grow(S, later, line, now):
        joins = later
    if joins >= 0:
        return joins, S.batch[joins].server if grow(S, joins, token, line) else NONE
    w = place(S, q, due, line, not discards, now)
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
