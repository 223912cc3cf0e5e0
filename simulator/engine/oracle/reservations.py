"""Reservations (PPipe's data plane, ATC'25, section 6): a batch takes slices of a whole pipeline when it is sent.

What a policy decides is not written again here: it is the code of `simulator.dispatch`, which the executor runs, too.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from simulator.dispatch.books import CHOSEN, FREE, HEAD, NEVER, NOTES, SENT, TAIL, WAKE
from simulator.dispatch.frontend import advance
from simulator.dispatch.system import Ints, System
from simulator.engine.network import Frontend
from simulator.engine.oracle.core import DISPATCH, Batch, Clockwork, Server
from simulator.engine.oracle.promises import Places, Promises, Sent
from simulator.engine.oracle.records import Interrupted, reserved_records
from simulator.results.records import Records


class Dispatcher(Promises):
    """The frontend of a DNN with its queue and its books; what it shares with those before it are the records."""

    def __init__(
        self,
        run: Clockwork,
        number: int,
        frontend: Frontend,
        stations: list[list[int]],
        arrivals_us: Ints,
        places: Places,
        before: "Dispatcher | None" = None,
    ) -> None:
        super().__init__(run, frontend.system, stations, places)
        self.number, self.policy, self.arrivals_us = number, frontend.policy, arrivals_us
        self.stations, self.before = stations, before
        self.dnn: int = before.dnn if before else number
        self.systems: list[System] = [*(before.systems if before else ()), self.system]
        self.first_pipeline = sum(len(system.stages) for system in self.systems[:-1])
        self.fate: NDArray[np.int32] = before.fate if before else np.full(len(arrivals_us), -1, np.int32)
        self.sent: dict[Batch, Sent] = before.sent if before else {}
        self.interrupted: list[Interrupted] = before.interrupted if before else []
        self.wake_number = 0
        self.promise_ended: Callable[[], None] = lambda: None

    # The queue.

    def arm(self) -> None:
        """Wake at the timer or the next arrival, whichever is first; that makes what was armed before void."""
        self.wake_number += 1
        tail, number = int(self.books[NOTES, 0, TAIL]), self.wake_number
        arrival_us = int(self.arrivals_us[tail]) if tail < len(self.arrivals_us) else NEVER
        at_us = min(int(self.books[NOTES, 0, WAKE]), arrival_us)
        if at_us < NEVER:
            wake = lambda: self.wake() if number == self.wake_number else None  # noqa: E731
            self.run.at(max(at_us, self.run.now), DISPATCH, self.number, wake)

    def take_queue_over(self) -> None:
        """Go on with the queue of the dispatcher before."""
        assert self.before is not None
        self.before.wake_number += 1  # what it armed is void
        self.books[NOTES, 0, [HEAD, TAIL, SENT]] = self.before.books[NOTES, 0, [HEAD, TAIL, SENT]]
        self.work_through()

    def wake(self) -> None:
        """Let a request arrive, unless the timer is due, and work through the queue."""
        if self.books[NOTES, 0, WAKE] > self.run.now:
            assert self.books[NOTES, 0, TAIL] < len(self.arrivals_us)  # compiled code does not look
            self.books[NOTES, 0, TAIL] += 1
        self.work_through()

    def work_through(self) -> None:
        """Send what the policy sends."""
        while True:
            size, pipeline = advance(self.policy, self.books, self.arrivals_us, self.fate, self.run.now)
            if size == 0:
                break
            first = int(self.books[NOTES, 0, HEAD]) - size
            row, stages = pipeline * self.system.max_stages, int(self.system.stages[pipeline])
            sent = Sent(first, size, pipeline, self.first_pipeline, self.books[CHOSEN, row, :stages].tolist())
            tokens = [(request, 0) for request in range(first, first + size)]
            batch = self.run.new_batch(self, self.stations[pipeline][0], self.server(sent, 0), tokens)
            self.sent[batch] = sent
            for s, w in enumerate(sent.slices):
                planned_us = self.latency_us(sent, s)
                expected_us = int(self.books[FREE, row + s, w]) - planned_us
                self.server(sent, s).promised[batch] = expected_us, planned_us
                self.share(row + s, w, self.server(sent, s))
            self.join(batch)
        self.arm()

    def server(self, sent: Sent, stage: int) -> Server:
        """Return the slice that a batch has in a stage."""
        station = self.run.stations[self.stations[sent.pipeline][stage]]
        return self.run.servers[station.servers[sent.slices[stage]]]

    # The way of a batch.

    def join(self, batch: Batch) -> None:
        """Let a batch stand in front of its slice; where that is down it is waited for if the deadline allows."""
        sent, now = self.sent[batch], self.run.now
        server = batch.server = self.server(sent, sent.stage)
        batch.station, batch.reach_us = self.stations[sent.pipeline][sent.stage], now
        if server.down and self.free_us(server) + self.following_us(sent) > self.deadline_us(sent):
            self.retry(batch)
            return
        server.waiting.append(batch)
        self.run.begin(server)
        self.corrected(server)

    def gone_on(self, batch: Batch) -> None:
        """Send a batch over the card to the next stage, where it is now expected."""
        sent = self.sent[batch]
        sent.visits.append((batch.reach_us, batch.start_us, batch.end_us))
        self.promise_ended()
        if sent.stage + 1 < len(sent.slices):
            following = self.server(sent, sent.stage + 1)
            expected_us = self.run.now + self.passage_us(sent, sent.stage + 1)
            following.promised[batch] = expected_us, self.latency_us(sent, sent.stage + 1)
            self.corrected(following)
            self.run.send_over_card(batch)

    def reached(self, batch: Batch) -> None:
        """Let a batch join its slice of the next stage."""
        self.sent[batch].stage += 1
        self.join(batch)

    # Failures.

    def stranded(self, batch: Batch, *, cut: bool) -> None:
        """Retry a batch elsewhere."""
        sent = self.sent[batch]
        if cut and batch.start_us < self.run.now:
            times_us = batch.reach_us, batch.start_us, self.run.now
            pipeline = self.first_pipeline + sent.pipeline
            self.interrupted.append((pipeline, sent.stage, sent.slices[sent.stage], times_us))
        self.retry(batch)

    def retry(self, batch: Batch) -> None:
        """Move a batch to the slice of its pool that is up and free first, if that is in time; else it is lost."""
        sent, now = self.sent[batch], self.run.now
        self.withdraw(batch, self.server(sent, sent.stage))
        station = self.run.stations[self.stations[sent.pipeline][sent.stage]]
        pool = [(w, self.run.servers[server]) for w, server in enumerate(station.servers)]
        choices = [(self.free_us(server), w) for w, server in pool if not server.down]
        ready_us = now + self.passage_us(sent, sent.stage)
        rest_us = self.latency_us(sent, sent.stage) + self.following_us(sent)
        if sent.retried or not choices or max(min(choices)[0], ready_us) + rest_us > self.deadline_us(sent):
            return self.lose(batch)
        sent.retried = True
        sent.slices[sent.stage] = min(choices)[1]
        server = self.server(sent, sent.stage)
        server.promised[batch] = ready_us, self.latency_us(sent, sent.stage)
        self.corrected(server)
        self.promise_ended()
        if sent.stage == 0:
            return self.join(batch)
        sent.stage -= 1
        batch.server, batch.station = self.server(sent, sent.stage), self.stations[sent.pipeline][sent.stage]
        return self.run.send_over_card(batch)

    def lose(self, batch: Batch) -> None:
        """Give a batch up, and what later stages were promised."""
        sent = self.sent[batch]
        sent.lost = True
        sent.visits.append((self.run.now,) * 3)
        for stage in range(sent.stage + 1, len(sent.slices)):
            self.withdraw(batch, self.server(sent, stage))
        self.promise_ended()

    # What is known of it.

    def deadline_us(self, sent: Sent) -> int:
        """Return the deadline of a batch's first request."""
        return int(self.arrivals_us[sent.first]) + self.system.slo_us

    def records(self) -> Records:
        """Return what happened to the DNN."""
        return reserved_records(self.systems, self.arrivals_us, self.fate, list(self.sent.values()), self.interrupted)
