"""The simpy engine for reactive dispatch: a queue in front of every stage.

Order of events: time, then per stage its queue's timer, the batches that reach it, its queue's dispatcher, the batches
that leave it; among those of one kind the order in which batches were sent.
"""

from typing import Any, cast

import numpy as np
import simpy
from simpy.events import Event, EventPriority

from simulator.dispatch.books import HEAD, NEVER, NOTES, WAKE, open_books
from simulator.dispatch.decisions import FINISHED, OPEN
from simulator.dispatch.reactive import Queue, join_all, next_sent, react
from simulator.dispatch.system import Ints, System
from simulator.engine.events import KIND, Pool
from simulator.results.records import Records, Visits

TIMER, REACH, WORK, LEAVE = range(4)


class Occurrence(Event):
    """Something that is scheduled, and never waited for; `now_us` is when, ``row`` the stage that it is about."""

    __slots__ = ("now_us", "row")

    def __init__(self, row: int) -> None:
        self._ok = True
        self._value = None
        self.row = row
        self.now_us = 0


class StageBatch(Occurrence):
    """A batch in one stage; the next one builds others."""

    __slots__ = ("number", "requests", "size", "slice")

    def __init__(self, row: int, number: int, size: int, slice_index: int, requests: Queue) -> None:
        super().__init__(row)
        self.number = number
        self.size = size
        self.slice = slice_index
        self.requests = requests


class Timer(Occurrence):
    """When a queue of a later stage wants to be worked through again."""

    __slots__ = ()


class StageQueue(Occurrence):
    """The queue in front of a later stage; as an event, its dispatcher at work."""

    __slots__ = ("requests", "works_at_us")

    def __init__(self, row: int, requests: int) -> None:
        super().__init__(row)
        self.requests = np.empty(requests, np.int32)
        self.works_at_us = -1


class StagedRun:
    """One run of reactive dispatch."""

    def __init__(self, system: System, arrivals_us: Ints) -> None:
        requests, self.width = len(arrivals_us), system.max_stages
        self.env = simpy.Environment()
        self.system, self.arrivals_us = system, arrivals_us
        self.books = open_books(system)
        self.notes = memoryview(self.books[NOTES])
        self.outcome = np.full(requests, OPEN, np.int8)
        self.front: Queue = np.empty(requests, np.int32)
        self.now_us = 0
        self.pools, self.queues = {}, {}
        for p in range(len(system.stages)):
            for s in range(system.stages[p]):
                row = p * self.width + s
                self.pools[row] = Pool(system, p, s)
                if s > 0:
                    self.queues[row] = StageQueue(row, requests)
        # Per stage position, in the order of sending: labels, times and requests of batches.
        self.labels: list[list[tuple[int, int, int]]] = [[] for _ in range(self.width)]
        self.times_us: list[list[tuple[int, int, int]]] = [[] for _ in range(self.width)]
        self.members: list[list[Queue]] = [[] for _ in range(self.width)]
        # Lists that are given back to an event whenever it is scheduled again.
        self.on_send: list[Any] = [self._send]
        self.on_leave: list[Any] = [self._leave]
        self.on_reach: list[Any] = [self._reach]
        self.on_work: list[Any] = [self._work]
        self.on_timer: list[Any] = [self._time_out]

    def records(self) -> Records:
        """Run to the end."""
        self._schedule_next()
        self.env.run()
        visit = np.full((self.width, len(self.arrivals_us)), -1, np.int32)
        stages = [self._visits(s, visit[s]) for s in range(self.width)]
        return Records(self.system, "simpy", self.arrivals_us, self.outcome, tuple(visit), tuple(stages))

    def _visits(self, s: int, visit: Queue) -> Visits:
        """Return the columns of a stage position, after the first by pipeline, and fill its map of requests."""
        labels = np.array(self.labels[s], np.int16).reshape(-1, 3)
        times_us = np.array(self.times_us[s], np.int64).reshape(-1, 3)
        order = np.argsort(labels[:, 0], kind="stable") if s > 0 else np.arange(len(labels))
        number = np.empty(len(order), np.int32)
        number[order] = np.arange(len(order))
        if len(order):
            visit[np.concatenate(self.members[s])] = np.repeat(number, labels[:, 1])
        return Visits(*labels[order].T, *times_us[order].T)

    def _schedule_next(self) -> None:
        """Let the frontend run ahead to its next batch."""
        now, size, pipeline, w = next_sent(self.books, self.front, self.arrivals_us, self.outcome)
        if size > 0:
            batch = self._batch(
                pipeline * self.width, size, w, self.front[self.notes[0, HEAD] - size : self.notes[0, HEAD]]
            )
            self._schedule(batch, self.on_send, TIMER, 0, batch.number, now)

    def _batch(self, row: int, size: int, w: int, requests: Queue) -> StageBatch:
        labels = self.labels[row % self.width]
        batch = StageBatch(row, len(labels), size, w, requests)
        labels.append((row // self.width, size, w))
        self.members[row % self.width].append(requests)
        return batch

    def _send(self, batch: StageBatch) -> None:
        self.now_us = batch.now_us
        self._enter(batch)
        self._schedule_next()

    def _enter(self, batch: StageBatch) -> None:
        """Join the queue of a slice; the last one finishes its requests whatever else happens."""
        pool, s = self.pools[batch.row], batch.row % self.width
        start = max(pool.free_us[batch.slice], self.now_us)
        end = start + pool.latency_us[batch.size]
        pool.free_us[batch.slice] = end
        self.times_us[s].append((self.now_us, start, end))
        if batch.row + 1 in self.queues:
            self._schedule(batch, self.on_leave, LEAVE, s, batch.number, end)
        else:
            self.outcome[batch.requests] = FINISHED

    def _leave(self, batch: StageBatch) -> None:
        """Join the queue of the network card."""
        self.now_us = batch.now_us
        pool, s = self.pools[batch.row], batch.row % self.width
        card = batch.slice // pool.card_slices
        end = max(pool.cards_free_us[card], self.now_us) + batch.size * pool.transfer_us
        pool.cards_free_us[card] = end
        self._schedule(batch, self.on_reach, REACH, s + 1, batch.number, end + pool.hop_us)

    def _reach(self, batch: StageBatch) -> None:
        """Join the next stage's queue, which is worked through when all that reach it now have joined."""
        self.now_us = batch.now_us
        queue = self.queues[batch.row + 1]
        join_all(self.books, queue.row, queue.requests, self.arrivals_us, batch.requests)
        if queue.works_at_us != self.now_us:
            queue.works_at_us = self.now_us
            self._schedule(queue, self.on_work, WORK, queue.row % self.width, queue.row, self.now_us)

    def _work(self, queue: StageQueue) -> None:
        """Send what can be sent, and set the timer."""
        self.now_us = queue.now_us
        self._work_through(queue)

    def _work_through(self, queue: StageQueue) -> None:
        row = queue.row
        while True:
            size, _, w = react(self.books, row, queue.requests, self.arrivals_us, self.outcome, self.now_us)
            if size == 0:
                break
            head = self.notes[row, HEAD]
            self._enter(self._batch(row, size, w, queue.requests[head - size : head]))
        wake = self.notes[row, WAKE]
        if wake < NEVER:
            timer = Timer(row)
            self._schedule(timer, self.on_timer, TIMER, row % self.width, row, wake)

    def _time_out(self, timer: Timer) -> None:
        """Work through a queue whose timer is due, unless it was worked through since the timer was set."""
        self.now_us = timer.now_us
        if self.notes[timer.row, WAKE] == timer.now_us:
            self._work_through(self.queues[timer.row])

    def _schedule(self, event: Occurrence, callbacks: list[Any], kind: int, stage: int, order: int, at_us: int) -> None:
        event.callbacks = callbacks
        event.now_us = at_us
        self.env.schedule(event, cast(EventPriority, (4 * stage + kind) * KIND + order), at_us - self.now_us)
