"""A network as rows of the state: stations, servers, frontends, routes and their steps, outages, and lists beside them.

Stations are numbered anew: those of the network keep their numbers, and for every frontend one more follows for each
row of its books, in order, so that a stage of a pipeline and the next one are neighbours.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from planner.model import InputError
from simulator.dispatch.books import CARD as CARD_OF
from simulator.dispatch.books import NEVER, Books, open_books
from simulator.dispatch.system import Ints
from simulator.engine.core.calendar import HORIZON_US
from simulator.engine.core.latest_start import NEAR
from simulator.engine.core.state import (
    EACH,
    FRONTEND,
    HOME,
    NONE,
    OFF,
    ON,
    RECEIVES,
    ROUTE,
    SENDS,
    SERVER,
    STATION,
    STEP,
)
from simulator.engine.network import (
    CENTRAL,
    IDLE_FIRST,
    LATEST_START,
    NO_LIMIT_US,
    REACTIVE,
    REACTS,
    RESERVED,
    Conditions,
    Frontend,
    Network,
    Route,
)

Rows = NDArray[np.void]

LARGEST_LABEL = (1 << 15) - 1  # records hold numbers of stations and sizes of batches in 16 bits


def stations_of(network: Network, frontends: Sequence[Frontend], lists: list[int]) -> tuple[Rows, Books]:
    """Return stations, whose servers are added to the lists, and the books of all frontends."""
    rows = sum(f.system.slices.size for f in frontends)
    station = np.zeros(len(network.stations) + rows, STATION)
    for name in ("head", "tail", "open", "onward", "frontend", "row"):
        station[name] = NONE
    station["alike"], station["look"] = np.arange(len(station)), NEVER
    for q, one in enumerate(network.stations):
        station["first"][q], station["servers"][q] = len(lists), len(one.servers)
        lists += one.servers
        for name, value in (
            ("rule", one.rule),
            ("placement", one.placement),
            ("max_batch", one.max_batch),
            ("timeout", one.timeout_us),
            ("epsilon", one.epsilon_us),
            ("drop_age", one.drop_age_us),
            ("voids", one.drop_age_us < NO_LIMIT_US),
            ("end_by", one.end_by_us),
            ("discard", one.discard),
            ("wire", one.wire_us),
            ("hop", one.hop_us),
            ("spread", one.spread),
        ):
            station[name][q] = value
        if one.placement == IDLE_FIRST:
            station["idle"][q] = int(network.servers.on[list(one.servers)].sum())
    if any(len(step.then) > 1 for one in network.classes if isinstance(one, Route) for step in one.steps):
        station["voids"] = 1
    add_rows_of_books(network, frontends, station)
    return station, stacked([open_books(f.system) for f in frontends])


def add_rows_of_books(network: Network, frontends: Sequence[Frontend], station: Rows) -> None:
    """Make every row of books a station: as the one of the network that its stage has."""
    at = len(network.stations)
    alike: dict[tuple[int, ...], list[int]] = {}
    for d, f in enumerate(frontends):
        pipelines, stages = f.system.slices.shape
        for p in range(pipelines):
            for s in range(stages):
                q = at + p * stages + s
                if s < f.system.stages[p]:
                    station[q] = station[f.stations[p][s]]
                    last = s == f.system.stages[p] - 1
                    station["links"][q] = RECEIVES * (s > 0) + SENDS * (not last)
                    alike.setdefault(network.stations[f.stations[p][s]].servers, []).append(q)
                station["frontend"][q], station["row"][q] = d, p * stages + s
                station["row0"][q], station["stage"][q], station["alike"][q] = p * stages, s, q
                station["rule"][q] = REACTIVE if f.policy == REACTS else RESERVED
        at += pipelines * stages
    for ring in alike.values():
        station["alike"][ring] = np.roll(ring, -1)


def stacked(each: Sequence[Books]) -> Books:
    """Return the books of all frontends in one array."""
    if not each:
        return np.zeros((0, 0, 0, 0), np.int64)
    if len(each) == 1:
        return each[0][None]
    together = np.zeros((len(each), *np.max([books.shape for books in each], axis=0)), np.int64)
    together[:, CARD_OF] = NONE
    for d, books in enumerate(each):
        together[d, :, : books.shape[1], : books.shape[2]] = books
    return together


def servers_of(network: Network, station: Rows, lists: Sequence[int], load_us: int) -> Rows:
    """Return servers, each at home in the first station that lists it (of a frontend, if one does)."""
    server = np.zeros(len(network.servers), SERVER)
    for name in ("serving", "head", "tail", "promised", "last_promised", "station", "frontend", "drawn"):
        server[name] = NONE
    server["kind"], server["card"], server["device"] = (
        network.servers.kind,
        network.servers.card,
        network.servers.device,
    )
    server["off"] = np.where(network.servers.on, ON, OFF)
    server["until"] = load_us
    server["front"] = server["rear"] = NEAR
    for q in [*range(len(network.stations), len(station)), *range(len(network.stations))]:
        first, count = int(station["first"][q]), int(station["servers"][q])
        mine = np.array(lists[first : first + count], np.int64)
        new = server["station"][mine] < 0
        server["station"][mine[new]] = q
        server["frontend"][mine[new]] = station["frontend"][q]
        server["column"][mine[new]] = np.arange(count)[new]
    return server


def frontends_of(network: Network, starts: Ints, first_station: int, cuts: int) -> tuple[Rows, int]:
    """Return frontends, and how many visits they may record: a batch per request, and what may be cut short."""
    numbered = [(k, one) for k, one in enumerate(network.classes) if isinstance(one, Frontend)]
    frontend = np.zeros(len(numbered), FRONTEND)
    frontend["successor"], frontend["in_charge"] = NONE, 1
    frontend["since"], frontend["until"] = NONE, NEVER
    block, station = 0, first_station
    for d, (k, one) in enumerate(numbered):
        first, last = int(starts[k]), int(starts[k + 1])
        frontend["from_"][d], frontend["to"][d], frontend["room"][d] = first, last, last - first + cuts
        frontend["base"][d], frontend["station"][d], frontend["policy"][d] = block, station, one.policy
        station += one.system.slices.size
        if one.policy != REACTS:
            block += one.system.max_stages * (last - first + cuts)
    return frontend, block


def routes_of(starts: Ints) -> Rows:
    """Return the classes of requests that follow routes."""
    route = np.empty(len(starts) - 1, ROUTE)
    route["first"], route["next"], route["to"] = starts[:-1], starts[:-1], starts[1:]
    return route


def steps_of(routes: Sequence[Route], width: int, lists: list[int]) -> Rows:
    """Return the steps of all routes; what follows each is added to the lists."""
    step = np.zeros((len(routes), width), STEP)
    for k, route in enumerate(routes):
        step["before"][k, 0] = 1
        step["sinks"][k, 0] = sum(not one.then for one in route.steps)
        for n, one in enumerate(route.steps):
            step["station"][k, n], step["then"][k, n], step["steps"][k, n] = one.station, len(lists), len(one.then)
            step["latest_start"][k, n], step["discard"][k, n] = one.latest_start_us, one.discard_us
            lists += one.then
            for m in one.then:
                step["before"][k, m] += 1
    return step


def onward_of(routes: Sequence[Route], station: Rows) -> Ints:
    """Return ``[station]``: where all that it serves goes on to, HOME, or EACH by itself.

    The central queue that requests join together must be the one of the step with the next number, must not send each
    as it comes, and pass over none.
    """
    onward = np.full(len(station), EACH)
    ways: dict[int, set[int]] = {}
    for route in routes:
        for n, step in enumerate(route.steps):
            way = route.steps[n + 1].station if step.then == (n + 1,) else EACH if step.then else HOME
            ways.setdefault(step.station, set()).add(way)
    for q, found in ways.items():
        way = found.pop()
        joins = way >= 0 and (station["rule"][way] != CENTRAL or station["timeout"][way] == 0 or station["voids"][way])
        if not found and not joins and not station["voids"][q]:
            onward[q] = way
    return onward


def places_of(network: Network, step: Rows) -> int:
    """Return how many places there are in front of servers: twice as many as one end of a service may need.

    NEAR more are before the first one, which are looked at beside it.
    """
    if not any(one.rule == LATEST_START for one in network.stations):
        return 0
    return NEAR + 2 * max(16, max(one.max_batch for one in network.stations) * int(step["steps"].max()))


def outages_of(conditions: Conditions, lists: list[int]) -> tuple[int, int]:
    """Add outages and their servers to the lists, and return where outages start and end.

    What comes after all that may happen is left out.
    """
    outages = [one for one in conditions.outages if one.at_us < HORIZON_US]
    rows: list[int] = []
    for one in outages:
        rows += [one.at_us, len(lists), len(lists) + len(one.servers), one.repair_us]
        lists += one.servers
    first = len(lists)
    lists += rows
    return first, len(lists)


def latencies_of(network: Network, frontends: Sequence[Frontend]) -> Ints:
    """Return ``[0, station, kind, batch]`` latencies, and at 1 those that insertion counts."""
    stations = list(network.stations)
    for f in frontends:
        for row in f.stations:
            absent = f.system.max_stages - len(row)
            stations += [network.stations[q] for q in (*row, *row[:1] * absent)]
    kinds, batches = np.max([one.latency_us.shape for one in stations], axis=0, initial=1)
    if batches > LARGEST_LABEL:
        raise InputError(f"network: batches of up to {batches - 1} requests; expected at most {LARGEST_LABEL - 1}")
    latency = np.zeros((2, len(stations), kinds, batches), np.int64)
    for q, one in enumerate(stations):
        for which, table in enumerate((one.latency_us, one.latency_us if one.counted_us is None else one.counted_us)):
            latency[which, q, : table.shape[0], : table.shape[1]] = table
    return latency
