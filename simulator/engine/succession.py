"""A run gets more while it goes on: outages, and plans with servers of their own that take a queue over."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from planner.model import InputError
from simulator.dispatch.books import FREE, HEAD, NEVER, NONE, NOTES, SENT, TAIL, WAKE
from simulator.dispatch.system import Ints
from simulator.engine.core.calendar import (
    IDLE,
    KIND_BITS,
    KIND_MASK,
    TIME_BITS,
    UNIT,
    arm,
    disarm,
    empty_calendar,
)
from simulator.engine.core.state import (
    AHEAD,
    BATCH,
    CARDS,
    DEPTH,
    FRONTENDS,
    HELD,
    LAST_OUTAGE,
    LOAD,
    NOISE,
    OUTAGE,
    OUTAGES,
    ROUTES,
    SHARED,
    TIMERS,
    State,
)
from simulator.engine.network import REACTS, Conditions, Network, Outage
from simulator.engine.rows import Rows, outages_of, stacked
from simulator.engine.start import forget_pipeline, load_row, number_sources, start


def with_outages(state: State, outages: Sequence[Outage], now_us: int) -> State:
    """Return a state with more outages to come; of those at one time the earlier ones go first."""
    if not outages:
        return state
    if (first := min(one.at_us for one in outages)) < now_us:
        raise InputError(f"run: an outage at {first} µs; it is {now_us} µs, expected one that is still to come")
    c, lists = state.c, state.lists.tolist()
    to_come = lists[int(c[OUTAGE]) : int(c[LAST_OUTAGE])]
    first, last = outages_of(Conditions(outages=tuple(outages)), lists)
    rows = np.array(to_come + lists[first:last], np.int64).reshape(-1, 4)
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    state = state._replace(lists=np.concatenate([np.array(lists, np.int64), rows.ravel()]))
    c[OUTAGE], c[LAST_OUTAGE] = len(lists), len(state.lists)
    if len(rows):
        arm(state.tree, state.order, int(c[OUTAGES]), int(rows[0, 0]), UNIT, 0)
    return state


def with_successors(state: State, olds: Sequence[int], network: Network, now_us: int) -> State:
    """Return a state in which the frontends of another network have taken the queues of some over.

    Their slices are held until `simulator.engine.core.takeovers.hand_over` lets them go; they are expected to be free
    when the books say of the last slice of plans before on their device, and to load then.
    """
    fresh = start(network, [np.zeros(0, np.int64)] * len(olds), Conditions(corrected=True))
    first = len(state.frontend)
    server, station, lists = behind(state, fresh)
    successor, visits = successors(state, olds, fresh, now_us)
    stages = int(station["stage"].max()) + 1
    reacts = int(successor["policy"][0]) == REACTS
    room = int(successor["room"].sum())

    c = state.c.copy()
    sources = number_sources(
        c,
        len(state.server) + len(server),
        len(state.card) + len(fresh.card),
        len(state.station) + len(station),
        first + len(successor),
        len(state.route),
    )
    tree, order = moved(state, c, empty_calendar(sources))
    c[NOISE] = max(int(c[NOISE]), int(fresh.c[NOISE]))
    c[SHARED] = max(int(c[SHARED]), int(fresh.c[SHARED]))
    c[HELD] += len(server)
    c[AHEAD] = 0
    state.frontend["in_charge"][list(olds)] = 0
    state.frontend["until"][list(olds)] = now_us
    state.frontend["successor"][list(olds)] = range(first, first + len(olds))
    state = state._replace(
        c=c,
        tree=tree,
        order=order,
        server=np.concatenate([state.server, server]),
        station=np.concatenate([state.station, station]),
        card=np.concatenate([state.card, fresh.card]),
        frontend=np.concatenate([state.frontend, successor]),
        lists=np.concatenate([state.lists, lists]),
        latency=padded(state.latency, fresh.latency),
        batch=np.concatenate([state.batch, np.empty(room * stages, BATCH)]),
        books=stacked([*state.books, *fresh.books]),
        queue=more_queues(state, stages, len(station)) if reacts else state.queue,
        visits=np.concatenate([state.visits, np.empty((4, visits - state.visits.shape[1]), np.int64)], axis=1),
    )
    c[DEPTH] = max(int(c[DEPTH]), stages) if reacts else c[DEPTH]
    for d, old in enumerate(olds, first):
        disarm(tree, order, int(c[FRONTENDS]) + old)
        hand_queue_over(state, old, d)
    expect(state, range(first, len(state.frontend)), now_us)
    return state


def behind(state: State, fresh: State) -> tuple[Rows, Rows, Ints]:
    """Return servers, held, and stations of a fresh state and their lists, numbered behind those of another one."""
    server, station = fresh.server.copy(), fresh.station.copy()
    server["station"] += len(state.station)
    server["card"] += len(state.card)
    server["frontend"] += len(state.frontend)
    server["held"] = 1
    station["first"] += len(state.lists)
    station["alike"] += len(state.station)
    station["frontend"][station["frontend"] >= 0] += len(state.frontend)
    return server, station, fresh.lists + len(state.server)


def successors(state: State, olds: Sequence[int], fresh: State, now_us: int) -> tuple[Rows, int]:
    """Return frontends that go on with the requests of others, and how many visits there may be then."""
    successor = fresh.frontend.copy()
    successor["station"] += len(state.station)
    successor["since"] = now_us
    visits, stages = state.visits.shape[1], int(fresh.station["stage"].max()) + 1
    reacts = int(successor["policy"][0]) == REACTS
    for new, old in zip(successor, state.frontend[list(olds)], strict=True):
        for name in ("from_", "to", "came", "room"):
            new[name] = old[name]
        new["base"] = visits
        visits += 0 if reacts else stages * int(old["room"])
    return successor, visits


def moved(state: State, c: NDArray[np.int64], calendar: tuple[Ints, Ints]) -> tuple[Ints, Ints]:
    """Enter the events of a run in a calendar whose sources are numbered as ``c`` says; numbers within a sort stay."""
    tree, order = calendar
    firsts = [CARDS, TIMERS, OUTAGES, FRONTENDS, ROUTES]
    sorts = np.array([0, *state.c[firsts]])
    shift = np.array([0, *c[firsts]]) - sorts
    leaves = len(state.order)
    for source in np.flatnonzero(state.tree[leaves:] < IDLE).tolist():
        event = int(state.tree[leaves + source])
        to = source + int(shift[np.searchsorted(sorts, source, side="right") - 1])
        arm(tree, order, to, event >> TIME_BITS, (event >> KIND_BITS) & KIND_MASK, int(state.order[source]))
    return tree, order


def hand_queue_over(state: State, old: int, new: int) -> None:
    """Let a frontend have the queue of another one, as it is."""
    before, after = state.books[old, NOTES, 0], state.books[new, NOTES, 0]
    if state.frontend["policy"][new] == REACTS:
        from_, to = (int(state.c[DEPTH] + state.frontend["station"][d]) for d in (old, new))
        waiting = state.queue[from_, before[HEAD] : before[TAIL]]
        state.queue[to, : len(waiting)] = waiting
        after[TAIL] = len(waiting)
    else:
        after[[HEAD, TAIL, SENT]] = before[[HEAD, TAIL, SENT]]
    before[TAIL], before[WAKE] = before[HEAD], NEVER


def expect(state: State, news: Sequence[int], now_us: int) -> None:
    """Enter when the slices of new plans may be free: after all of plans before on their device, and loading."""
    load_us = int(state.c[LOAD])
    mine = np.flatnonzero(state.frontend["in_charge"][state.server["frontend"]] == 0)
    station, column = state.server["station"][mine], state.server["column"][mine]
    taken_us = state.books[state.station["frontend"][station], FREE, state.station["row"][station], column]
    device = state.server["device"][mine]
    for q in np.flatnonzero(np.isin(state.station["frontend"], news)).tolist():
        first, count = int(state.station["first"][q]), int(state.station["servers"][q])
        if count == 0:
            continue
        servers = state.lists[first : first + count]
        free_us = [taken_us[device == on].max(initial=now_us) for on in state.server["device"][servers]]
        until_us = np.maximum(now_us, free_us) + load_us
        state.server["until"][servers] = until_us
        load_row(state.books[state.station["frontend"][q]], int(state.station["row"][q]), count, until_us)
        forget_pipeline(state, q)


def padded(first: Ints, second: Ints) -> Ints:
    """Return latencies of stations one after the other, with zeros where one has fewer kinds or batches."""
    shape = np.maximum(first.shape, second.shape)
    parts = [
        np.pad(part, [(0, 0), (0, 0), (0, shape[2] - part.shape[2]), (0, shape[3] - part.shape[3])])
        for part in (first, second)
    ]
    return np.concatenate(parts, axis=1)


def more_queues(state: State, stages: int, stations: int) -> NDArray[np.int32]:
    """Return the queues of reactive dispatch with more stations, and stages if there are more."""
    depth, places = int(state.c[DEPTH]), state.queue.shape[1]
    members = np.full((max(0, stages - depth), places), NONE, np.int32)
    return np.concatenate([state.queue[:depth], members, state.queue[depth:], np.empty((stations, places), np.int32)])
