"""The simulator's dispatcher on a real clock.

The same compiled policy works on the same books (`simulator.dispatch`). Two things differ from a simulation with
exact latencies:

- Nothing takes exactly as long as planned, so the books are corrected: when a batch reaches or leaves a slice,
  what that slice still has to do is laid out anew from there, at the pace that the slice has shown.
- A batch that is sent at the last moment that the books allow would be late half of the time, so the policy works with
  deadlines that are a *guard* time earlier than the requests' own.
"""

from collections import OrderedDict
from dataclasses import dataclass, replace

import numpy as np

from simulator.dispatch.books import (
    CARD,
    CHOSEN,
    FREE,
    HEAD,
    NEVER,
    NOTES,
    SENT,
    TAIL,
    WAKE,
    forget,
    open_books,
    refresh,
)
from simulator.dispatch.decisions import LOST
from simulator.dispatch.frontend import POLICIES, advance
from simulator.dispatch.system import Ints, System
from simulator.executor.devices import slices_of
from simulator.executor.fleet import SliceId

PACE_WEIGHT = 0.1  # of the latest batch in a slice's pace


@dataclass(frozen=True)
class Sent:
    """A batch that the policy sends: requests [first, first + size), and a slice per stage."""

    number: int
    pipeline: int
    first: int
    size: int
    slices: tuple[int, ...]


@dataclass
class _Entry:
    """A batch that a slice has to do: when it can begin with it (as far as is known), and how long it takes."""

    ready_us: int
    latency_us: int


class Dispatcher:
    """A policy, its books, and the queue of all requests.

    ``fate[request]`` is the number of its batch, or the negative of its outcome.
    """

    def __init__(self, system: System, arrivals_us: Ints, policy: str, guard_us: int) -> None:
        self._system = system
        self._arrivals_us = arrivals_us
        self._policy = POLICIES.index(policy)
        self._books = open_books(with_guard(system, guard_us))
        self._books[NOTES, 0, WAKE] = NEVER
        self.fate = np.full(len(arrivals_us), -1, np.int32)
        self._entries: dict[SliceId, OrderedDict[int, _Entry]] = {s: OrderedDict() for s in slices_of(system)}
        self._pace = dict.fromkeys(self._entries, 1.0)  # how long batches take, in planned times
        self._down: dict[SliceId, int] = {}  # until when
        # Plain numbers: an element of an array costs ten times as much, and these are read for every batch.
        self._rows = {s: s.pipeline * system.max_stages + s.stage for s in self._entries}
        self._latency_us: list[list[list[int]]] = system.latency_us.tolist()
        self._transfer_us: list[list[int]] = system.transfer_us.tolist()
        self._hop_us: list[list[int]] = system.hop_us.tolist()

    @property
    def slices(self) -> tuple[SliceId, ...]:
        """All slices of the system."""
        return tuple(self._entries)

    @property
    def arrived(self) -> int:
        """How many requests have arrived."""
        return int(self._books[NOTES, 0, TAIL])

    @property
    def queued(self) -> int:
        """How many requests wait in the queue."""
        return self.arrived - int(self._books[NOTES, 0, HEAD])

    @property
    def wake_us(self) -> int:
        """When the policy wants to be asked again even if no request arrives."""
        return int(self._books[NOTES, 0, WAKE])

    @property
    def next_arrival_us(self) -> int:
        """When the next request arrives."""
        arrived = self.arrived
        return int(self._arrivals_us[arrived]) if arrived < len(self._arrivals_us) else NEVER

    def arrive(self, now_us: int) -> None:
        """Let the requests in that have arrived by now."""
        self._books[NOTES, 0, TAIL] = np.searchsorted(self._arrivals_us, now_us, side="right")

    def next_batch(self, now_us: int) -> Sent | None:
        """Ask the policy for a batch to send now."""
        self._lay_out_overdue(now_us)
        size, pipeline = advance(self._policy, self._books, self._arrivals_us, self.fate, now_us)
        if size == 0:
            return None
        stages = int(self._system.stages[pipeline])
        slices = tuple(self._books[CHOSEN, self._rows[SliceId(pipeline, 0, 0)], :stages].tolist())
        number, head = int(self._books[NOTES, 0, SENT]) - 1, int(self._books[NOTES, 0, HEAD])
        ready_us = now_us
        for stage, w in enumerate(slices):
            slice_id = SliceId(pipeline, stage, w)
            ready_us += self._travel_us(slice_id, size)
            self._entries[slice_id][number] = _Entry(ready_us, self.latency_us(slice_id, size))
            self._lay_out(slice_id, now_us)
            ready_us = self.free_us(slice_id)
        return Sent(number, pipeline, head - size, size, slices)

    def deadline_us(self, request: int) -> int:
        """Return by when a request must be answered (without the guard time)."""
        return int(self._arrivals_us[request]) + self._system.slo_us

    def latency_us(self, slice_id: SliceId, size: int) -> int:
        """Return how long a batch is planned to take on a slice."""
        return self._latency_us[slice_id.pipeline][slice_id.stage][size]

    def remaining_us(self, slice_id: SliceId, size: int) -> int:
        """Return how long a batch is planned to take from a slice to the end of its pipeline, without waiting."""
        p = slice_id.pipeline
        stages = range(slice_id.stage, int(self._system.stages[p]))
        inference = sum(self._latency_us[p][s][size] for s in stages)
        return inference + sum(self._travel_us(SliceId(p, s, 0), size) for s in stages[1:])

    def free_us(self, slice_id: SliceId) -> int:
        """Return when a slice is expected to have done all that it has to do."""
        return int(self._books[FREE, self._rows[slice_id], slice_id.slice])

    def reached(self, slice_id: SliceId, batch: int, size: int, now_us: int) -> None:
        """Note that a batch is at a slice now (not necessarily the one that was reserved for it)."""
        entry = self._entries[slice_id].setdefault(batch, _Entry(now_us, self.latency_us(slice_id, size)))
        entry.ready_us = now_us
        self._lay_out(slice_id, now_us)

    def served(self, slice_id: SliceId, batch: int, size: int, start_us: int, end_us: int) -> None:
        """Note that a slice is done with a batch, and how long it took."""
        self._pace[slice_id] += PACE_WEIGHT * (
            (end_us - start_us) / self.latency_us(slice_id, size) - self._pace[slice_id]
        )
        self.left(slice_id, batch, end_us)

    def left(self, slice_id: SliceId, batch: int, now_us: int) -> None:
        """Note that a slice has a batch no more, or that the batch will not come."""
        entries = self._entries[slice_id]
        if entries.pop(batch, None) is not None:
            if entries:
                following = next(iter(entries.values()))
                following.ready_us = max(following.ready_us, now_us)
            self._lay_out(slice_id, now_us)

    def take_out(self, slice_id: SliceId, until_us: int = NEVER) -> None:
        """Forget what a slice had to do, and reserve nothing on it that would begin before ``until_us``."""
        self._down[slice_id] = until_us
        self._entries[slice_id].clear()
        self._lay_out(slice_id, 0)

    def bring_back(self, slice_id: SliceId, now_us: int) -> None:
        """Use a slice again."""
        del self._down[slice_id]
        self._lay_out(slice_id, now_us)

    def lose(self, first: int, size: int) -> None:
        """Note that requests are lost."""
        self.fate[first : first + size] = -LOST

    def _travel_us(self, slice_id: SliceId, size: int) -> int:
        p, s, _ = slice_id
        return size * self._transfer_us[p][s] + self._hop_us[p][s]

    def _lay_out(self, slice_id: SliceId, now_us: int) -> None:
        """Set until when a slice is reserved, from what it has to do and the time now."""
        free_us = self._down.get(slice_id, 0)
        for entry in self._entries[slice_id].values():
            free_us = max(now_us, max(free_us, entry.ready_us) + round(self._pace[slice_id] * entry.latency_us))
        self._set_free(slice_id, max(now_us, free_us))

    def _lay_out_overdue(self, now_us: int) -> None:
        """Move what waits behind a batch that should have ended by now, or for a slice that should be back."""
        for slice_id, entries in self._entries.items():
            if (entries or slice_id in self._down) and self.free_us(slice_id) <= now_us:
                self._lay_out(slice_id, now_us)

    def _set_free(self, slice_id: SliceId, free_us: int) -> None:
        row = self._rows[slice_id]
        self._books[FREE, row, slice_id.slice] = free_us
        refresh(self._books, row, self._books[CARD, row, slice_id.slice])
        forget(self._books, slice_id.pipeline)


def compile_policy(system: System, policy: str) -> None:
    """Have everything compiled that a run will call, which takes seconds the first time."""
    rehearsal = Dispatcher(system, np.zeros(1, np.int64), policy, 0)
    slice_id = rehearsal.slices[0]
    rehearsal.arrive(0)
    rehearsal.next_batch(0)
    rehearsal.take_out(slice_id)
    rehearsal.bring_back(slice_id, 0)


def with_guard(system: System, guard_us: int) -> System:
    """Return the system as a policy sees it whose deadlines are ``guard_us`` early."""
    return replace(system, slo_us=system.slo_us - guard_us)
