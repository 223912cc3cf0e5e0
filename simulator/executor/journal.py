"""What the frontend writes down during a run, and the records that come of it.

A batch that failed on a slice leaves no visit there: its requests either visit another slice later, or are lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from simulator.dispatch.system import Ints, System
from simulator.executor.fleet import SliceId
from simulator.results.records import Records, Visits, outcomes


@dataclass(slots=True)
class Batch:
    """A batch under way: requests [first, first + size), the slice that each stage's work is meant for.

    ``due_us`` is when it could have been sent: when the request or the timer came that made the policy send it.
    ``visits`` are the stages that it is through with; ``failures`` counts the workers that broke under it;
    ``answered_us`` is when its requesters had their answers, ``lost_us`` when it was given up.
    """

    number: int
    pipeline: int
    first: int
    size: int
    sent_us: int
    deadline_us: int
    slices: list[SliceId]
    due_us: int = 0
    stage: int = 0
    arrived_us: int = 0
    failures: int = 0
    visits: list["Visit"] = field(default_factory=list)
    answered_us: int | None = None
    lost_us: int | None = None

    @property
    def at(self) -> SliceId:
        """The slice that works on it, or will next."""
        return self.slices[self.stage]


class Visit(NamedTuple):
    """A batch served by a slice: when it reached it, was begun, was computed, and had its outputs in place (µs)."""

    slice: SliceId
    batch: int
    size: int
    arrive_us: int
    start_us: int
    computed_us: int
    end_us: int


class Hop(NamedTuple):
    """A batch's way into a stage, or (``stage`` = number of stages) back to the requesters.

    It begins when the sender has computed its outputs (or the batch is due to be sent), and ends when the batch is in
    the receiver's queue (or with the requesters). ``waited_us`` of it went by because an emulated network card
    was busy.
    """

    pipeline: int
    stage: int
    batch: int
    size: int
    nbytes: int
    start_us: int
    end_us: int
    waited_us: int = 0


class Incident(NamedTuple):
    """Something that went wrong and was dealt with: ``what`` happened to a slice, and to how many requests."""

    time_us: int
    slice: SliceId
    what: str
    requests: int = 0


class Usage(NamedTuple):
    """A sample of a worker: CPU seconds used so far, resident bytes."""

    time_us: int
    slice: SliceId
    cpu_s: float
    memory_bytes: int


@dataclass
class Journal:
    """All that happened in a run, in the order in which the frontend noticed it.

    ``in_flight`` are (time in µs, requests in flight from then on), from sending to answering, in order of time.
    """

    batches: list[Batch] = field(default_factory=list)
    hops: list[Hop] = field(default_factory=list)
    incidents: list[Incident] = field(default_factory=list)
    usage: list[Usage] = field(default_factory=list)
    in_flight: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)])

    def count_in_flight(self, time_us: int, change: int) -> None:
        """Note that requests began or ceased to be in flight, now or a while ago."""
        counts, at = self.in_flight, len(self.in_flight)
        while counts[at - 1][0] > time_us:
            at -= 1
            counts[at] = counts[at][0], counts[at][1] + change
        counts.insert(at, (time_us, counts[at - 1][1] + change))

    def visits(self) -> list[Visit]:
        """Return all visits."""
        return [visit for batch in self.batches for visit in batch.visits]


def to_records(
    journal: Journal, system: System, arrivals_us: Ints, fate: NDArray[np.int32], engine: str = "executor"
) -> Records:
    """Return the same table that a simulation makes, and when requesters had their answers."""
    tables = [_stage_table(journal.batches, system, stage, len(arrivals_us)) for stage in range(system.max_stages)]
    visit = [table[0] for table in tables]
    for stage in range(1, len(visit)):
        if np.array_equal(visit[stage], visit[0]):
            visit[stage] = visit[0]  # batches stayed together: one map for all stages
    visits = tuple(table[1] for table in tables)
    answered_us = _answered_us(journal.batches, len(arrivals_us))
    return Records(system, engine, arrivals_us, outcomes(fate), tuple(visit), visits, answered_us)


def _answered_us(batches: Sequence[Batch], requests: int) -> Ints:
    """Return ``[request]`` when its requester had the answer, -1 where there was none."""
    answered_us = np.full(requests, -1, np.int64)
    for batch in batches:
        if batch.answered_us is not None:
            answered_us[batch.first : batch.first + batch.size] = batch.answered_us
    return answered_us


def _stage_table(
    batches: Sequence[Batch], system: System, stage: int, requests: int
) -> tuple[NDArray[np.int32], Visits]:
    """Return which batch each request was in at a stage, and what happened to these batches there."""
    visit = np.full(requests, -1, np.int32)
    rows: list[tuple[int, int, int, int, int, int]] = []
    for batch in batches:
        stages = int(system.stages[batch.pipeline])
        if len(batch.visits) < min(stage + 1, stages):
            continue
        visit[batch.first : batch.first + batch.size] = len(rows)
        if stage < stages:
            own = batch.visits[stage]
            reached_us = batch.sent_us if stage == 0 else own.arrive_us
            rows.append((batch.pipeline, batch.size, own.slice.slice, reached_us, own.start_us, own.end_us))
        else:  # a stage that this pipeline lacks
            end_us = batch.visits[-1].end_us
            rows.append((batch.pipeline, batch.size, -1, end_us, end_us, end_us))
    columns = np.array(rows, np.int64).reshape(-1, 6).T
    small = [column.astype(np.int16) for column in columns[:3]]
    return visit, Visits(small[0], small[1], small[2], columns[3], columns[4], columns[5])
