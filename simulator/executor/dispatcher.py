"""The simulator's dispatcher on a real clock.

The same compiled policy works on the same books (`simulator.dispatch`). Two things differ from a simulation with
exact latencies:

- Nothing takes exactly as long as planned, so the books are corrected: when a batch reaches or leaves a slice,
  what that slice still has to do is laid out anew from there, at the pace that the slice has shown.
- A batch that is sent at the last moment that the books allow would be late half of the time, so the policy works with
  deadlines that are a *guard* time earlier than the requests' own.
"""

from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from simulator.dispatch.books import (
    CARD,
    CHOSEN,
    NEVER,
    NOTES,
    WAKE,
    open_books,
)
from simulator.dispatch.decisions import LOST
from simulator.dispatch.frontend import POLICIES, advance_anew
from simulator.dispatch.system import Ints, System
from simulator.executor.devices import slices_of
from simulator.executor.fleet import SliceId

PACE_WEIGHT = 0.1  # of the latest batch in a slice's pace


class Sent(NamedTuple):
    """A batch that the policy sends: requests [first, first + size), and a slice per stage."""

    number: int
    pipeline: int
    first: int
    size: int
    slices: tuple[SliceId, ...]


@dataclass(slots=True)
class _Entry:
    """A batch that a slice has to do: when it can begin with it (as far as is known), and how long it takes."""

    ready_us: int
    latency_us: int


class Dispatcher:
    """A policy, its books, and the queue of all requests.

    ``fate[request]`` is the number of its batch, or the negative of its outcome. ``arrived`` is how many requests
    have arrived, ``queued`` how many of them wait in the queue; ``wake_us`` is when the policy wants to be asked again
    even if no request arrives.

    What slices still have to do changes with every event, but matters only when the policy is asked: it is entered into
    the books then.
    """

    def __init__(self, system: System, arrivals_us: Ints, policy: str, guard_us: int) -> None:
        self._system = system
        self._arrivals_us = arrivals_us
        self._policy = POLICIES.index(policy)
        self._books = open_books(with_guard(system, guard_us))
        self._books[NOTES, 0, WAKE] = NEVER
        self.fate = np.full(len(arrivals_us), -1, np.int32)
        self.arrived, self.queued, self.wake_us = 0, 0, NEVER
        self._entries: dict[SliceId, dict[int, _Entry]] = {slice_id: {} for slice_id in slices_of(system)}
        self._pace = dict.fromkeys(self._entries, 1.0)  # how long batches take, in planned times
        self._down: dict[SliceId, int] = {}  # until when
        self._free_us = dict.fromkeys(self._entries, 0)
        self._changed: set[SliceId] = set()  # since their reservations were entered into the books
        self._entered = np.zeros(4 * len(self._entries), np.int64)  # what `advance_anew` is told of them
        self._entering = self._entered.data
        self._sent = 0
        # Plain numbers: an element of an array costs ten times as much, and these are read for every batch.
        self._times_us: list[int] = [*arrivals_us.tolist(), NEVER]
        self._rows = {s: s.pipeline * system.max_stages + s.stage for s in self._entries}
        self._cards = {s: int(self._books[CARD, row, s.slice]) for s, row in self._rows.items()}
        self._stages: list[int] = system.stages.tolist()
        self._first_rows = range(0, len(system.stages) * system.max_stages, system.max_stages)
        self._latency_us: list[list[list[int]]] = system.latency_us.tolist()
        self._transfer_us: list[list[int]] = system.transfer_us.tolist()
        self._hop_us: list[list[int]] = system.hop_us.tolist()

    @property
    def slices(self) -> tuple[SliceId, ...]:
        """All slices of the system."""
        return tuple(self._entries)

    @property
    def next_arrival_us(self) -> int:
        """When the next request arrives."""
        return self._times_us[self.arrived]

    def arrive(self, now_us: int) -> None:
        """Let the requests in that have arrived by now."""
        arrived = bisect_right(self._times_us, now_us, self.arrived)
        self.queued += arrived - self.arrived
        self.arrived = arrived

    def next_batch(self, now_us: int) -> Sent | None:
        """Ask the policy for a batch to send now."""
        if not self.queued:
            return None
        count = self._lay_out_changed(now_us)
        size, pipeline, self.wake_us, head = advance_anew(
            self._policy, self._books, self._arrivals_us, self.fate, now_us, self.arrived, self._entered, count
        )
        self.queued = self.arrived - head
        if size == 0:
            return None
        chosen = self._books[CHOSEN, self._first_rows[pipeline], : self._stages[pipeline]].tolist()
        slices = tuple([SliceId(pipeline, stage, w) for stage, w in enumerate(chosen)])
        number, self._sent = self._sent, self._sent + 1
        ready_us = now_us
        for slice_id in slices:
            ready_us += self._travel_us(slice_id, size)
            latency_us = self.latency_us(slice_id, size)
            self._entries[slice_id][number] = _Entry(ready_us, latency_us)
            ready_us = max(ready_us, self._free_us[slice_id]) + round(self._pace[slice_id] * latency_us)
            self._changed.add(slice_id)
        return Sent(number, pipeline, head - size, size, slices)

    def deadline_us(self, request: int) -> int:
        """Return by when a request must be answered (without the guard time)."""
        return self._times_us[request] + self._system.slo_us

    def latency_us(self, slice_id: SliceId, size: int) -> int:
        """Return how long a batch is planned to take on a slice."""
        return self._latency_us[slice_id.pipeline][slice_id.stage][size]

    def remaining_us(self, slice_id: SliceId, size: int) -> int:
        """Return how long a batch is planned to take from a slice to the end of its pipeline, without waiting."""
        p = slice_id.pipeline
        stages = range(slice_id.stage, self._stages[p])
        inference = sum(self._latency_us[p][s][size] for s in stages)
        return inference + sum(self._travel_us(SliceId(p, s, 0), size) for s in stages[1:])

    def free_us(self, slice_id: SliceId, now_us: int) -> int:
        """Return when a slice is expected to have done all that it has to do."""
        return self._lay_out(slice_id, now_us)

    def reached(self, slice_id: SliceId, batch: int, size: int, now_us: int) -> None:
        """Note that a batch is at a slice now (not necessarily the one that was reserved for it)."""
        entries = self._entries[slice_id]
        if batch in entries:
            entries[batch].ready_us = now_us
        else:
            entries[batch] = _Entry(now_us, self.latency_us(slice_id, size))
        self._changed.add(slice_id)

    def served(self, slice_id: SliceId, batch: int, size: int, start_us: int, end_us: int) -> None:
        """Note that a slice is done with a batch, and how long it took."""
        pace = self._pace[slice_id]
        self._pace[slice_id] = pace + PACE_WEIGHT * ((end_us - start_us) / self.latency_us(slice_id, size) - pace)
        self.left(slice_id, batch, end_us)

    def left(self, slice_id: SliceId, batch: int, now_us: int) -> None:
        """Note that a slice has a batch no more, or that the batch will not come."""
        entries = self._entries[slice_id]
        if entries.pop(batch, None) is not None:
            if entries:
                following = next(iter(entries.values()))
                following.ready_us = max(following.ready_us, now_us)
            self._changed.add(slice_id)

    def take_out(self, slice_id: SliceId, until_us: int = NEVER) -> None:
        """Forget what a slice had to do, and reserve nothing on it that would begin before ``until_us``."""
        self._down[slice_id] = until_us
        self._entries[slice_id].clear()
        self._changed.add(slice_id)

    def bring_back(self, slice_id: SliceId) -> None:
        """Use a slice again."""
        del self._down[slice_id]
        self._changed.add(slice_id)

    def lose(self, first: int, size: int) -> None:
        """Note that requests are lost."""
        self.fate[first : first + size] = -LOST

    def _travel_us(self, slice_id: SliceId, size: int) -> int:
        p, s, _ = slice_id
        return size * self._transfer_us[p][s] + self._hop_us[p][s]

    def _lay_out(self, slice_id: SliceId, now_us: int) -> int:
        """Return until when a slice is reserved, from what it has to do and the time now."""
        free_us = self._down.get(slice_id, 0)
        pace = self._pace[slice_id]
        for entry in self._entries[slice_id].values():
            if free_us < entry.ready_us:
                free_us = entry.ready_us
            free_us += round(pace * entry.latency_us)
            if free_us < now_us:  # it should have ended by now
                free_us = now_us
        return max(now_us, free_us)

    def _lay_out_changed(self, now_us: int) -> int:
        """Lay out what has changed, and what is overdue: a batch that should have ended by now; return how many."""
        changed = self._changed
        for slice_id, entries in self._entries.items():
            if (entries or slice_id in self._down) and self._free_us[slice_id] <= now_us:
                changed.add(slice_id)
        entering, at = self._entering, 0
        for slice_id in changed:
            free_us = self._free_us[slice_id] = self._lay_out(slice_id, now_us)
            entering[at], entering[at + 1] = self._rows[slice_id], slice_id.slice
            entering[at + 2], entering[at + 3] = self._cards[slice_id], free_us
            at += 4
        changed.clear()
        return at // 4


def compile_policy(system: System, policy: str) -> None:
    """Have everything compiled that a run will call, which takes seconds the first time."""
    rehearsal = Dispatcher(system, np.zeros(1, np.int64), policy, 0)
    slice_id = rehearsal.slices[0]
    rehearsal.arrive(0)
    rehearsal.next_batch(0)
    rehearsal.take_out(slice_id)
    rehearsal.next_batch(0)


def with_guard(system: System, guard_us: int) -> System:
    """Return the system as a policy sees it whose deadlines are ``guard_us`` early."""
    return replace(system, slo_us=system.slo_us - guard_us)
