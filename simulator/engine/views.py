"""From what a run leaves behind to records: the tables of a network, and those of one DNN as a view of them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from simulator.compilation import compiled
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
    STEP_BITS,
    VISITS,
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
    token = state.token.reshape(routed, 1 << int(state.c[STEP_BITS]))[:, : state.step.shape[1]]
    labels = labels_of(state, base, base + used)
    return NetworkRecords(
        engine="events",
        arrival_us=state.arrivals[:routed],
        request_class=np.repeat(np.arange(len(state.route), dtype=np.int16), np.diff([*state.route["first"], routed])),
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
        found = tuple(joined_visits([one for one in part if len(one.size)] or part[:1]) for part in parts)
    return Records(system, "events", state.arrivals[from_:to], outcome, (fate,) * system.max_stages, found)


def _appended(state: State, d: int, s: int, batches: Visits, cuts: Visits) -> Visits:
    """Return the batches of a stage and what was cut short, whose times are put where there is room behind them."""
    sent, more, room = len(batches.size), len(cuts.size), int(state.frontend["room"][d])
    begin = int(state.frontend["base"][d]) + s * room
    if not more or sent + more > room or not np.may_share_memory(batches.end_us, state.visits):
        return joined_visits([batches, cuts]) if more else batches
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
    pipeline_of = _pipelines(state, frontends)
    group_of, cuts = _groups(state.station["stage"], pipeline_of, system.max_stages)
    counts = np.zeros(cuts[-1] + 2, np.int64)
    count_groups(labels, times_us[START_US], group_of, counts)
    starts = np.cumsum(counts)
    firsts = [0, *(starts[group + 1] for group in cuts)]
    first_of = np.repeat(firsts[:-1], np.diff([0, *(group + 1 for group in cuts)]))
    named, found_us = np.empty((3, starts[-1]), np.int16), np.empty((3, starts[-1]), np.int64)
    row_of = np.full(used + 1, NONE, np.int32)
    column = state.server["column"].astype(np.int16)
    group_visits(labels, times_us, group_of, pipeline_of, column, starts.copy(), first_of, named, found_us, row_of)
    visit, visits = [], []
    for s, group in enumerate(cuts):
        cut = slice(starts[group], starts[group + 1])
        by_end = np.argsort(found_us[ENDED_US, cut], kind="stable")
        named[:, cut], found_us[:, cut] = named[:, cut][:, by_end], found_us[:, cut][:, by_end]
        visits.append(Visits(*named[:, firsts[s] : firsts[s + 1]], *found_us[:, firsts[s] : firsts[s + 1]]))
        visit.append(row_of[state.queue[s, from_:to]])
    return Records(system, "events", state.arrivals[from_:to], state.outcome[from_:to], tuple(visit), tuple(visits))


def _pipelines(state: State, frontends: Sequence[int]) -> Shorts:
    """Return the pipeline of each station, counted over some frontends; -1 for stations of others."""
    pipeline_of = np.full(len(state.station), NONE, np.int16)
    before = 0
    for d in frontends:
        mine = state.station["frontend"] == d
        stages, count = (int(state.books[d, NOTES, 0, note]) for note in (MAX_STAGES, PIPELINES))
        pipeline_of[mine] = state.station["row"][mine] // stages + before
        before += count
    return pipeline_of


def _groups(stage: Ints, pipeline_of: Shorts, stages: int) -> tuple[Ints, list[int]]:
    """Return ``[is cut, station]``, the groups that visits are put in, and the group of what was cut in each stage."""
    group_of = np.full((2, len(stage)), NONE, np.int64)
    cuts: list[int] = []
    for s in range(stages):
        first = cuts[-1] + 1 if cuts else 0
        here = (stage == s) & (pipeline_of >= 0)
        group_of[0, here] = first + (pipeline_of[here] if s > 0 else 0)
        cuts.append(int(group_of[0].max()) + 1)
        group_of[1, here] = cuts[-1]
    return group_of, cuts


@compiled
def count_groups(labels: Shorts, start_us: Ints, group_of: Ints, counts: Ints) -> None:
    """Count the visits that began in each group, behind its number."""
    for v in range(len(labels)):
        if start_us[v] >= 0:
            group = group_of[int(labels[v, L_SIZE] == 0), labels[v, L_STATION]]
            if group >= 0:
                counts[group + 1] += 1


@compiled
def group_visits(
    labels: Shorts,
    times_us: Ints,
    group_of: Ints,
    pipeline_of: Shorts,
    column: Shorts,
    next_of: Ints,
    first_of: Ints,
    named: Shorts,
    found_us: Ints,
    row_of: NDArray[np.int32],
) -> None:
    """Put the visits that began in the order of their groups.

    Parameters
    ----------
    next_of, first_of
        ``[group]``: where its next visit goes, and where its stage begins.
    named, found_us
        Filled: pipeline, size and slice; when they reached the stage, began and ended.
    row_of
        ``[visit]``, filled: its row in its stage, if it has requests.
    """
    for v in range(len(labels)):
        station, size = labels[v, L_STATION], labels[v, L_SIZE]
        group = group_of[int(size == 0), station]
        if times_us[START_US, v] < 0 or group < 0:
            continue
        k = next_of[group]
        next_of[group] = k + 1
        named[0, k], named[1, k], named[2, k] = pipeline_of[station], size, column[labels[v, L_SERVER]]
        for which in range(LABEL):
            found_us[which, k] = times_us[which, v]
        if size > 0:
            row_of[v] = k - first_of[group]


def joined_visits(parts: Sequence[Visits]) -> Visits:
    """Return visits one after the other."""
    if len(parts) == 1:
        return parts[0]
    names = ("pipeline", "size", "slice", "arrive_us", "start_us", "end_us")
    return Visits(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
