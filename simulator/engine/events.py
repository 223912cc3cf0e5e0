"""The simpy engine: one callback per device event, no process and no event per request.

A batch is itself the event that is scheduled: when it is sent, when it leaves a stage, when it reaches the
next one. Slices and network cards serve first come, first served, so that a server is one number, the
time at which it is free, and the end of what arrives is known and scheduled at once.

Order of events: time, then kind (a batch is sent, leaves stage 0, reaches stage 1, leaves stage 1, ...), then
number of the batch in order of dispatch. So batches that reach a slice or a card at the same instant are
served in order of their dispatch, whatever was scheduled first.
"""

from typing import Any, cast

import numpy as np
import simpy
from simpy.events import Event, EventPriority

from simulator.dispatch.books import CHOSEN, open_books
from simulator.dispatch.frontend import next_batch
from simulator.dispatch.system import Ints, System
from simulator.results.records import Records, Visits, outcomes

# Events of one instant go in the order kind · KIND + number of the batch.
KIND = 1 << 32


class Batch(Event):
    """A batch on its way through a pipeline."""

    __slots__ = ("now_us", "number", "pools", "size", "slices", "stage")

    def __init__(self, number: int, size: int, pools: "list[Pool]", slices: list[int], now_us: int) -> None:
        # An event that is scheduled here and never waited for needs none of what Event's own constructor makes.
        self._ok = True
        self._value = None
        self.number = number
        self.size = size
        self.pools = pools
        self.slices = slices
        self.stage = 0
        self.now_us = now_us


class Pool:
    """The slices that serve one stage, and their servers' network cards."""

    __slots__ = ("card_slices", "cards_free_us", "free_us", "hop_us", "latency_us", "transfer_us")

    def __init__(self, system: System, pipeline: int, stage: int) -> None:
        self.free_us = [0] * int(system.slices[pipeline, stage])
        self.latency_us = system.latency_us[pipeline, stage].tolist()
        self.card_slices = int(system.card_slices[pipeline, stage])
        self.cards_free_us = [0] * (len(self.free_us) // self.card_slices + 1)
        last = stage == system.stages[pipeline] - 1
        self.transfer_us = 0 if last else int(system.transfer_us[pipeline, stage + 1])
        self.hop_us = 0 if last else int(system.hop_us[pipeline, stage + 1])


class Run:
    """One run of a frontend policy."""

    def __init__(self, system: System, arrivals_us: Ints, policy: int) -> None:
        requests, width = len(arrivals_us), system.max_stages
        self.env = simpy.Environment()
        self.system, self.arrivals_us, self.policy = system, arrivals_us, policy
        self.pools = [[Pool(system, p, s) for s in range(system.stages[p])] for p in range(len(system.stages))]
        self.books = open_books(system)
        self.sent = 0
        self.now_us = 0

        # Columns of the records; views of numpy arrays take single numbers twice as fast as the arrays do.
        self.fate = np.full(requests, -1, np.int32)
        self.pipeline, self.size = np.empty(requests, np.int16), np.empty(requests, np.int16)
        self.slices = np.full((width, requests), -1, np.int16)
        self.times_us = np.empty((3, width, requests), np.int64)
        self.arrive_us, self.start_us, self.end_us = (
            [memoryview(column) for column in columns] for columns in self.times_us
        )
        self.chosen = memoryview(self.books[CHOSEN])

        # Lists that are given back to a batch whenever it is scheduled again.
        self.on_send: list[Any] = [self._send]
        self.on_leave: list[Any] = [self._leave]
        self.on_reach: list[Any] = [self._reach]

    def records(self) -> Records:
        """Run to the end."""
        self._schedule_next()
        self.env.run()
        width, sent = self.system.max_stages, self.sent
        size, pipeline = self.size[:sent], self.pipeline[:sent]
        for s in range(1, width):
            absent = self.system.stages[pipeline] <= s
            self.times_us[:, s, :sent][:, absent] = self.times_us[2, s - 1, :sent][absent]
        visits = tuple(Visits(pipeline, size, self.slices[s, :sent], *self.times_us[:, s, :sent]) for s in range(width))
        return Records(self.system, "simpy", self.arrivals_us, outcomes(self.fate), (self.fate,) * width, visits)

    def _schedule_next(self) -> None:
        """Let the dispatcher run ahead to its next batch; its books are never corrected, so it may."""
        now, size, pipeline = next_batch(self.policy, self.books, self.arrivals_us, self.fate)
        if size == 0:
            return
        number, pools = self.sent, self.pools[pipeline]
        first = pipeline * self.system.max_stages
        batch = Batch(number, size, pools, [self.chosen[first, s] for s in range(len(pools))], now)
        self.pipeline[number], self.size[number] = pipeline, size
        self.slices[: len(pools), number] = batch.slices
        self.sent = number + 1
        self._schedule(batch, self.on_send, number, self.now_us, now)

    def _send(self, batch: Batch) -> None:
        self.now_us = batch.now_us
        self._reach(batch)
        self._schedule_next()

    def _reach(self, batch: Batch) -> None:
        """Join the queue of the slice: a batch has reached a stage."""
        s, k = batch.stage, batch.number
        pool, w = batch.pools[s], batch.slices[s]
        now = batch.now_us
        start = max(pool.free_us[w], now)
        end = start + pool.latency_us[batch.size]
        pool.free_us[w] = end
        self.arrive_us[s][k] = now
        self.start_us[s][k] = start
        self.end_us[s][k] = end
        if s + 1 < len(batch.pools):  # what leaves the last stage changes nothing any more
            self._schedule(batch, self.on_leave, (2 * s + 1) * KIND + k, now, end)

    def _leave(self, batch: Batch) -> None:
        """Join the queue of the network card: a stage has finished a batch."""
        pool = batch.pools[batch.stage]
        s = batch.stage + 1
        now = batch.now_us
        card = batch.slices[s - 1] // pool.card_slices
        end = max(pool.cards_free_us[card], now) + batch.size * pool.transfer_us
        pool.cards_free_us[card] = end
        batch.stage = s
        self._schedule(batch, self.on_reach, 2 * s * KIND + batch.number, now, end + pool.hop_us)

    def _schedule(self, batch: Batch, callbacks: list[Any], order: int, now_us: int, at_us: int) -> None:
        batch.callbacks = callbacks
        batch.now_us = at_us
        self.env.schedule(batch, cast(EventPriority, order), at_us - now_us)
