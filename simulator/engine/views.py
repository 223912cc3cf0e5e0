"""From what a run leaves behind to records: the tables of a network, and those of one DNN as a view of them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from simulator.dispatch.books import MAX_STAGES, NOTES, PIPELINES, SENT
from simulator.dispatch.decisions import LOST, OPEN
from simulator.dispatch.system import Ints, System
from simulator.engine.core.state import (
    BASE,
    L_KIND,
    L_SERVER,
    L_SIZE,
    L_STATION,
    LABEL,
    NONE,
    REACH_US,
    ROUTED,
    START_US,
    VISITS,
    WIDTH,
    State,
)
from simulator.engine.core.state import END_US as ENDED_US
from simulator.results.records import NetworkRecords, Records, Visits, outcomes

Shorts = NDArray[np.int16]


def labels_of(state: State, first: int, last: int) -> Shorts:
    """Return ``[visit, L_...]`` of visits [first, last)."""
    labels: Shorts = state.visits[LABEL, first:last].view("<i2").reshape(-1, 4)
    return labels


def network_records(state: State) -> NetworkRecords:
    """Return the two tables of the routes of a network."""
    routed, base, used = (int(state.c[scalar]) for scalar in (ROUTED, BASE, VISITS))
    token = state.token.reshape(routed, int(state.c[WIDTH]))
    labels = labels_of(state, base, base + used)
    return NetworkRecords(
        engine="events",
        arrival_us=state.arrivals[:routed],
        request_class=state.request["of_class"],
        outcome=state.outcome[:routed],
        done_us=np.where(state.outcome[:routed] == OPEN, NONE, state.request["done"]),
        visit=token["visit"],
        joined_us=token["joined"],
        station=labels[:, L_STATION],
        server=labels[:, L_SERVER],
        kind=labels[:, L_KIND],
        size=labels[:, L_SIZE],
        reach_us=state.visits[REACH_US, base : base + used],
        start_us=state.visits[START_US, base : base + used],
        end_us=state.visits[ENDED_US, base : base + used],
    )


def reserved_records(state: State, frontends: Sequence[int], system: System) -> Records:
    """Return the records of a DNN whose frontends reserve: several where plans took over from each other.

    ``system`` has the pipelines of all of them, in order (`simulator.engine.world.combined`). The columns are views of
    the run's wherever nothing is to be put together.
    """
    from_, to = (int(state.frontend[name][frontends[0]]) for name in ("from_", "to"))
    fate = state.fate[from_:to]
    outcome = outcomes(fate)
    outcome[state.outcome[from_:to] == LOST] = LOST
    parts: list[list[Visits]] = [[] for _ in range(system.max_stages)]
    first = pipelines = 0
    pipelines_before = np.zeros(len(state.frontend), np.int64)
    for d in frontends:
        last = int(state.books[d, NOTES, 0, SENT])
        for s, visits in enumerate(_batches(state, d, first, last, pipelines, system)):
            parts[s].append(visits)
        first, pipelines_before[d] = last, pipelines
        pipelines += int(state.books[d, NOTES, 0, PIPELINES])
    for s, visits in enumerate(_cut_short(state, frontends, pipelines_before, system)):
        parts[s].append(visits)
    if len(frontends) == 1:
        found = tuple(_appended(state, frontends[0], s, *part) for s, part in enumerate(parts))
    else:
        found = tuple(_together([one for one in part if len(one.size)] or part[:1]) for part in parts)
    return Records(system, "events", state.arrivals[from_:to], outcome, (fate,) * system.max_stages, found)


def _appended(state: State, d: int, s: int, batches: Visits, cuts: Visits) -> Visits:
    """Return the batches of a stage and what was cut short, whose times are put where there is room behind them."""
    sent, more, room = len(batches.size), len(cuts.size), int(state.frontend["room"][d])
    begin = int(state.frontend["base"][d]) + s * room
    if not more or sent + more > room or not np.may_share_memory(batches.end_us, state.visits):
        return _together([batches, cuts]) if more else batches
    times_us = state.visits[:LABEL, begin : begin + sent + more]
    times_us[:, sent:] = cuts.arrive_us, cuts.start_us, cuts.end_us
    labels = [np.concatenate([getattr(one, name) for one in (batches, cuts)]) for name in ("pipeline", "size", "slice")]
    return Visits(*labels, *times_us)


def _batches(state: State, d: int, first: int, last: int, pipelines: int, system: System) -> list[Visits]:
    """Return per stage position of the whole system what batches [first, last) of a frontend did."""
    frontend = state.frontend[d]
    stages, room = int(state.books[d, NOTES, 0, MAX_STAGES]), int(frontend["room"])
    column = np.append(state.server["column"], NONE).astype(np.int16)
    found: list[Visits] = []
    for s in range(system.max_stages):
        begin, end = int(frontend["base"]) + s * room + first, int(frontend["base"]) + s * room + last
        labels = labels_of(state, begin, end)
        if s == 0:
            station = labels[:, L_STATION]
            pipeline = (station - np.int16(frontend["station"])) // np.int16(stages) + np.int16(pipelines)
            size = np.ascontiguousarray(labels[:, L_SIZE])
        everywhere = s < stages and s < int(system.stages.min())
        here = np.zeros(0, np.bool_) if everywhere else system.stages[pipeline] > s
        if everywhere or (s < stages and here.all()):
            slices = column[labels[:, L_SERVER]]
            found.append(Visits(pipeline, size, slices, *state.visits[:LABEL, begin:end]))
            continue
        times_us = np.tile(found[-1].end_us, (3, 1))
        slices = np.full(last - first, NONE, np.int16)
        if s < stages:
            times_us[:, here] = state.visits[:LABEL, begin:end][:, here]
            slices[here] = column[labels[here, L_SERVER]]
        found.append(Visits(pipeline, size, slices, *times_us))
    return found


def _cut_short(state: State, frontends: Sequence[int], pipelines_before: Ints, system: System) -> list[Visits]:
    """Return per stage position what failures cut short, as batches of no requests that were nowhere else."""
    base, used = int(state.c[BASE]), int(state.c[VISITS])
    labels = labels_of(state, base, base + used)
    cut = np.isin(state.station["frontend"][labels[:, L_STATION]], frontends)
    station, server = labels[cut, L_STATION], labels[cut, L_SERVER]
    reach_us, start_us, end_us = state.visits[:LABEL, base : base + used][:, cut]
    place = state.station[station]
    width = state.books[place["frontend"], NOTES, 0, MAX_STAGES]
    pipeline = (pipelines_before[place["frontend"]] + place["row0"] // width).astype(np.int16)
    size = np.zeros(len(station), np.int16)
    found = []
    for s in range(system.max_stages):
        here, later = place["stage"] == s, place["stage"] > s
        slices = np.where(here, state.server["column"][server], NONE).astype(np.int16)
        elsewhere_us = np.where(later, reach_us, end_us)
        times_us = [np.where(here, own, elsewhere_us) for own in (reach_us, start_us, end_us)]
        found.append(Visits(pipeline, size, slices, *times_us))
    return found


def reactive_records(state: State, frontends: Sequence[int], system: System) -> Records:
    """Return the records of a DNN with reactive dispatch, as `reserved_records` does.

    Batches are in order of dispatch, after the first stage by pipeline; then follows what failures cut short, by when.
    """
    from_, to = (int(state.frontend[name][frontends[0]]) for name in ("from_", "to"))
    base, used = int(state.c[BASE]), int(state.c[VISITS])
    labels, times_us = labels_of(state, base, base + used), state.visits[:LABEL, base : base + used]
    station, size = labels[:, L_STATION], labels[:, L_SIZE]
    begun = times_us[START_US] >= 0
    pipeline_of = np.full(len(state.station), NONE, np.int16)
    pipelines = 0
    for d in frontends:
        mine = state.station["frontend"] == d
        stages, count = (int(state.books[d, NOTES, 0, note]) for note in (MAX_STAGES, PIPELINES))
        pipeline_of[mine] = state.station["row"][mine] // stages + pipelines
        pipelines += count
    visit, visits = [], []
    for s in range(system.max_stages):
        here = (pipeline_of[station] >= 0) & (state.station["stage"][station] == s) & begun
        served, cut = np.flatnonzero(here & (size > 0)), np.flatnonzero(here & (size == 0))
        if s > 0:
            served = served[np.argsort(pipeline_of[station[served]], kind="stable")]
        row = np.concatenate([served, cut[np.argsort(times_us[ENDED_US, cut], kind="stable")]])
        number = np.full(used + 1, NONE, np.int32)
        number[served] = np.arange(len(served), dtype=np.int32)
        visit.append(number[state.queue[s, from_:to]])
        slices = state.server["column"][labels[row, L_SERVER]].astype(np.int16)
        visits.append(Visits(pipeline_of[station[row]], size[row], slices, *times_us[:, row]))
    return Records(system, "events", state.arrivals[from_:to], state.outcome[from_:to], tuple(visit), tuple(visits))


def _together(parts: Sequence[Visits]) -> Visits:
    """Return visits one after the other."""
    if len(parts) == 1:
        return parts[0]
    names = ("pipeline", "size", "slice", "arrive_us", "start_us", "end_us")
    return Visits(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
