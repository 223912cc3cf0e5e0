"""From a network, arrivals and conditions to the state that a run begins with."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from planner.model import InputError
from simulator.dispatch.books import CARD as CARD_OF
from simulator.dispatch.books import FREE, Books, forget, refresh
from simulator.dispatch.decisions import OPEN
from simulator.dispatch.system import Ints
from simulator.engine.checking import check_conditions, check_network
from simulator.engine.core.calendar import ARRIVAL, DISPATCH, HORIZON_US, SOURCES, UNIT, arm, empty_calendar
from simulator.engine.core.latest_start import NOBODY
from simulator.engine.core.state import (
    AHEAD,
    BASE,
    BATCH,
    CARD,
    CARDS,
    CORRECTED,
    DEPTH,
    EXACT,
    FACTORS,
    FRONTENDS,
    LAST_OUTAGE,
    LOAD,
    LOG_NORMAL,
    NOISE,
    NONE,
    OUTAGE,
    OUTAGES,
    PLACE,
    REQUEST,
    ROOM,
    ROUTED,
    ROUTES,
    SCALARS,
    SEED,
    SELDOM,
    SHARED,
    SLOWDOWNS,
    STEP_BITS,
    TIMERS,
    TOKEN,
    UNUSED,
    WANTED,
    State,
)
from simulator.engine.network import REACTS, Conditions, Frontend, Network, Route
from simulator.engine.rows import (
    LARGEST_LABEL,
    Rows,
    frontends_of,
    latencies_of,
    onward_of,
    outages_of,
    places_of,
    routes_of,
    servers_of,
    stations_of,
    steps_of,
)


def start(network: Network, arrivals_us: Sequence[Ints], conditions: Conditions) -> State:
    """Return the state before anything has happened.

    Parameters
    ----------
    arrivals_us
        Of each class, sorted.
    """
    check_network(network, len(arrivals_us))
    check_conditions(conditions, len(network.servers))
    starts, arrivals = joined(arrivals_us)
    routes = [one for one in network.classes if isinstance(one, Route)]
    frontends = [one for one in network.classes if isinstance(one, Frontend)]
    requests, routed = len(arrivals), int(starts[len(routes)])
    width = max((len(route.steps) for route in routes), default=1)
    stages = max((f.system.max_stages for f in frontends), default=0)
    depth = stages if any(f.policy == REACTS for f in frontends) else 0

    lists: list[int] = []
    station, books = stations_of(network, frontends, lists)
    step = steps_of(routes, width, lists)
    station["onward"] = onward_of(routes, station)
    outages = outages_of(conditions, lists)
    server = servers_of(network, station, lists, conditions.load_us)
    struck = sum(len(one.servers) for one in conditions.outages)
    frontend, block = frontends_of(network, starts, len(network.stations), struck)
    card = np.zeros(int(network.servers.card.max(initial=-1)) + 1, CARD)
    card["head"] = NONE

    c = scalars_of(conditions, station, frontends)
    c[STEP_BITS], c[ROUTED], c[DEPTH] = (width - 1).bit_length(), routed, depth
    c[OUTAGE], c[LAST_OUTAGE] = outages
    c[WANTED] = places_of(network, step)
    c[BASE], c[ROOM] = block, 2 * (routed * width + depth * requests) + len(lists)
    tree, order = empty_calendar(number_sources(c, len(server), len(card), len(station), len(frontend), len(routes)))
    state = State(
        c=c,
        tree=tree,
        order=order,
        server=server,
        station=station,
        card=card,
        batch=np.empty(routed * width + (requests - routed) * stages + 1, BATCH),
        frontend=frontend,
        route=routes_of(starts[: len(routes) + 1]),
        step=step,
        places=np.zeros((len(server), int(c[WANTED])), PLACE),
        dues=np.full((len(server), int(c[WANTED])), NOBODY),
        token=np.empty(routed << int(c[STEP_BITS]), TOKEN),
        seldom=np.zeros(routed << int(c[STEP_BITS]), SELDOM),
        request=np.empty(routed, REQUEST),
        lists=np.array(lists, np.int64),
        latency=latencies_of(network, frontends),
        floats=np.array([*slowdowns_of(conditions), *conditions.factors], np.float64),
        arrivals=arrivals,
        outcome=np.full(requests, OPEN, np.int8),
        fate=np.full(requests if frontends else 0, NONE, np.int32),
        books=books,
        queue=queues_of(depth, len(station), requests),
        visits=np.empty((4, block + int(c[ROOM])), np.int64),
    )
    arm_sources(state)
    if conditions.load_us:
        load_all(state, conditions.load_us)
    return state


def scalars_of(conditions: Conditions, station: Rows, frontends: Sequence[Frontend]) -> Ints:
    """Return the scalars of a state, those filled in that follow from conditions and stations."""
    c = np.zeros(SCALARS, np.int64)
    c[SEED], c[LOAD], c[CORRECTED], c[UNUSED] = conditions.seed, conditions.load_us, conditions.corrected, NONE
    c[SLOWDOWNS] = len(conditions.slowdowns)
    c[NOISE] = noise_of(station, conditions)
    c[SHARED] = bool((station["alike"] != np.arange(len(station))).any())
    c[AHEAD] = not conditions.corrected and not c[SHARED] and all(f.policy >= 0 for f in frontends)
    return c


def noise_of(station: Rows, conditions: Conditions) -> int:
    """Return how service times vary."""
    if len(conditions.factors):
        return FACTORS
    return LOG_NORMAL if station["spread"].any() else EXACT


def arm_sources(state: State) -> None:
    """Enter in the calendar what happens first: an outage, and what arrives at each frontend and on each route.

    Arrivals of a single route need no calendar.
    """
    c, tree, order = state.c, state.tree, state.order
    if c[OUTAGE] < c[LAST_OUTAGE]:
        arm(tree, order, int(c[OUTAGES]), int(state.lists[c[OUTAGE]]), UNIT, 0)
    for d, frontend in enumerate(state.frontend):
        if frontend["from_"] < frontend["to"]:
            at = 0 if c[AHEAD] else int(state.arrivals[frontend["from_"]])
            arm(tree, order, int(c[FRONTENDS]) + d, at, DISPATCH, d)
    for k, route in enumerate(state.route if len(state.route) > 1 else ()):
        if route["first"] < route["to"]:
            arm(tree, order, int(c[ROUTES]) + k, int(state.arrivals[route["first"]]), ARRIVAL, k)


def joined(arrivals_us: Sequence[Ints]) -> tuple[Ints, Ints]:
    """Return where the requests of each class start and end, and the arrivals of all; raises InputError if too late."""
    latest = max((int(one[-1]) for one in arrivals_us if len(one)), default=0)
    if latest >= HORIZON_US:
        raise InputError(f"arrivals: a request comes at {latest} µs; expected all before {HORIZON_US} µs (25 days)")
    together = np.ascontiguousarray(arrivals_us[0]) if len(arrivals_us) == 1 else np.concatenate(arrivals_us)
    return np.cumsum([0, *map(len, arrivals_us)]), together


def number_sources(c: Ints, servers: int, cards: int, stations: int, frontends: int, routes: int) -> int:
    """Give the sources of events their numbers, and return how many there are."""
    firsts = np.cumsum([servers, cards, stations, 1, frontends, routes])
    c[[CARDS, TIMERS, OUTAGES, FRONTENDS, ROUTES]] = firsts[:-1]
    if (sources := int(firsts[-1])) > SOURCES:
        raise InputError(
            f"network: {servers} servers, {cards} cards and {stations} stations are {sources} sources of events; "
            f"expected at most {SOURCES}"
        )
    if stations > LARGEST_LABEL:
        raise InputError(
            f"network: {stations} stations, stages of pipelines included; expected at most {LARGEST_LABEL}"
        )
    return sources


def slowdowns_of(conditions: Conditions) -> list[float]:
    """Return from, until and factor of each slowdown, one after the other."""
    return [float(value) for one in conditions.slowdowns for value in (one.from_us, one.until_us, one.factor)]


def queues_of(depth: int, stations: int, requests: int) -> NDArray[np.int32]:
    """Return where requests of reactive dispatch were served, and room for a queue per station."""
    if not depth:
        return np.zeros((0, 0), np.int32)
    queue = np.empty((depth + stations, requests), np.int32)
    queue[:depth] = NONE
    return queue


def load_all(state: State, load_us: int) -> None:
    """Enter in the books that nothing can be served before models are loaded."""
    for q in np.flatnonzero(state.station["frontend"] >= 0).tolist():
        station = state.station[q]
        load_row(state.books[station["frontend"]], int(station["row"]), int(station["servers"]), load_us)
        forget_pipeline(state, q)


def load_row(books: Books, row: int, slices: int, until_us: int | Ints) -> None:
    """Enter until when the slices of a row are taken."""
    books[FREE, row, :slices] = until_us
    for card in np.unique(books[CARD_OF, row, :slices]).tolist():
        refresh(books, row, card)


def forget_pipeline(state: State, q: int) -> None:
    """Forget what was derived from the reservations of the pipeline that a station is in."""
    station = state.station[q]
    frontend = state.station["frontend"] == station["frontend"]
    width = int(state.station["stage"][frontend].max()) + 1
    forget(state.books[station["frontend"]], int(station["row0"]) // width)
