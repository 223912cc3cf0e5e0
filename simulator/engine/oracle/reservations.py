"""Reservations (PPipe's data plane, ATC'25, section 6): a batch takes slices of a whole pipeline when it is sent.

What a policy decides is not written again here: it is the code of `simulator.dispatch`, which the executor runs, too.
"""

from dataclasses import dataclass, field

import numpy as np

from simulator.dispatch.books import (
    CARD,
    CHOSEN,
    DOWNLINK,
    FREE,
    HEAD,
    MAX_STAGES,
    NEVER,
    NOTES,
    TAIL,
    UPLINK,
    WAKE,
    Books,
    forget,
    open_books,
    refresh,
)
from simulator.dispatch.decisions import LOST
from simulator.dispatch.frontend import advance
from simulator.dispatch.system import Ints
from simulator.engine.network import Frontend
from simulator.engine.oracle.core import DISPATCH, Batch, Clockwork, Server
from simulator.results.records import Records, Visits, outcomes

Places = dict[int, list[tuple["Dispatcher", int, int]]]  # server -> row and column in the books of all that list it


@dataclass(eq=False)
class Sent:
    """What a dispatcher knows of a batch that it sent: first request, pipeline, slices, and visits so far."""

    first: int
    size: int
    pipeline: int
    slices: list[int]
    stage: int = 0
    retried: bool = False
    lost: bool = False
    visits: list[tuple[int, int, int]] = field(default_factory=list)  # [stage] reached, started, ended


class Dispatcher:
    """The frontend of a DNN with its queue and its books."""

    def __init__(self, run: Clockwork, number: int, frontend: Frontend, arrivals_us: Ints, places: Places) -> None:
        self.run, self.number, self.system, self.policy = run, number, frontend.system, frontend.policy
        self.arrivals_us = arrivals_us
        self.books: Books = open_books(self.system)
        self.fate = np.full(len(arrivals_us), -1, np.int32)
        self.sent: dict[Batch, Sent] = {}
        self.interrupted: list[tuple[int, int, int, tuple[int, int, int]]] = []
        self.stations = frontend.stations
        self.places, self.slices = places, list[Server]()
        self.wake_number = 0
        for p, row in enumerate(self.stations):
            for s, station in enumerate(row):
                for w, server in enumerate(run.network.stations[station].servers):
                    self.slices.append(run.servers[server])
                    places.setdefault(server, []).append((self, p * self.system.max_stages + s, w))
                    if run.conditions.load_us:
                        self.enter(p * self.system.max_stages + s, w, run.conditions.load_us)
        self.arm()

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

    def wake(self) -> None:
        """Let a request arrive, unless the timer is due, and work through the queue."""
        if self.books[NOTES, 0, WAKE] > self.run.now:
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
            sent = Sent(first, size, pipeline, self.books[CHOSEN, row, :stages].tolist())
            tokens = [(request, 0) for request in range(first, first + size)]
            batch = self.run.new_batch(self, self.stations[pipeline][0], self.server(sent, 0), tokens)
            self.sent[batch] = sent
            self.fate[first : first + size] = len(self.sent) - 1
            for s, w in enumerate(sent.slices):
                planned_us = self.latency_us(sent, s)
                expected_us = int(self.books[FREE, row + s, w]) - planned_us
                self.server(sent, s).promised[batch] = expected_us, planned_us
                self.share(row + s, w, self.server(sent, s))
            self.join(batch)
        self.arm()

    def server(self, sent: Sent, stage: int) -> Server:
        """Return the slice that a batch has in a stage."""
        station = self.run.network.stations[self.stations[sent.pipeline][stage]]
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
            self.interrupted.append((sent.pipeline, sent.stage, sent.slices[sent.stage], times_us))
        self.retry(batch)

    def retry(self, batch: Batch) -> None:
        """Move a batch to the slice of its pool that is up and free first, if that is in time; else it is lost."""
        sent, now = self.sent[batch], self.run.now
        self.withdraw(batch, self.server(sent, sent.stage))
        station = self.run.network.stations[self.stations[sent.pipeline][sent.stage]]
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

    # Times.

    def passage_us(self, sent: Sent, stage: int) -> int:
        """Return the planned way of a batch to a stage."""
        return int(sent.size * self.system.transfer_us[sent.pipeline, stage] + self.system.hop_us[sent.pipeline, stage])

    def latency_us(self, sent: Sent, stage: int) -> int:
        """Return the planned inference of a batch in a stage."""
        return int(self.system.latency_us[sent.pipeline, stage, sent.size])

    def following_us(self, sent: Sent) -> int:
        """Return the planned transfers and inferences after the stage where a batch is."""
        later = range(sent.stage + 1, len(sent.slices))
        return sum(self.passage_us(sent, stage) + self.latency_us(sent, stage) for stage in later)

    def deadline_us(self, sent: Sent) -> int:
        """Return the deadline of a batch's first request."""
        return int(self.arrivals_us[sent.first]) + self.system.slo_us

    def free_us(self, server: Server) -> int:
        """Return when a slice would have done all that it was promised, whenever that comes."""
        waiting_us = sum(
            latency_us for batch, (_, latency_us) in server.promised.items() if batch is not server.serving
        )
        return max(self.run.now, server.until_us) + waiting_us

    # The books.

    def withdraw(self, batch: Batch, server: Server) -> None:
        """Withdraw what a slice was promised."""
        server.promised.pop(batch, None)
        self.corrected(server)

    def corrected(self, server: Server) -> None:
        """Enter until when a slice is taken: by what it serves, then by what it was promised, at planned times."""
        if not self.run.conditions.corrected:
            return
        until_us = max(self.run.now, server.until_us)
        for batch, (expected_us, latency_us) in server.promised.items():
            if batch is not server.serving:
                until_us = max(until_us, expected_us) + latency_us
        for dispatcher, row, w in self.places[server.number]:
            dispatcher.enter(row, w, until_us)

    def enter(self, row: int, w: int, until_us: int) -> None:
        """Enter until when a slice is taken, and what follows from that."""
        self.books[FREE, row, w] = until_us
        refresh(self.books, row, self.books[CARD, row, w])
        forget(self.books, row // self.books[NOTES, 0, MAX_STAGES])

    def share(self, row: int, w: int, server: Server) -> None:
        """Enter what was reserved in all other books that list the slice, its card's mates included."""
        for other, there, column in self.places[server.number]:
            if (other, there) != (self, row):
                card = other.books[CARD, there, column]
                mates = np.flatnonzero(other.books[CARD, there] == card)
                for link in other.links(there):
                    other.books[link, there, mates] = np.maximum(
                        other.books[link, there, mates], self.books[link, row, w]
                    )
                other.enter(there, column, int(self.books[FREE, row, w]))

    def links(self, row: int) -> list[int]:
        """Return which links a stage has: the first one receives nothing, the last one sends nothing."""
        p, s = divmod(row, self.system.max_stages)
        return [DOWNLINK] * (s > 0) + [UPLINK] * (s + 1 < int(self.system.stages[p]))

    # Records.

    def records(self) -> Records:
        """Return what happened, a row of visits per batch and stage, then the services that were cut short."""
        outcome = outcomes(self.fate)
        for sent in self.sent.values():
            if sent.lost:
                outcome[sent.first : sent.first + sent.size] = LOST
        width = self.system.max_stages
        visits = tuple(self._visits(s) for s in range(width))
        return Records(self.system, "simpy", self.arrivals_us, outcome, (self.fate,) * width, visits)

    def _visits(self, s: int) -> Visits:
        rows = []
        for sent in self.sent.values():
            there = s < len(sent.visits) and not (sent.lost and s >= len(sent.visits) - 1)
            times_us = sent.visits[s] if s < len(sent.visits) else (sent.visits[-1][2],) * 3
            rows.append((sent.pipeline, sent.size, sent.slices[s] if there else -1, *times_us))
        for pipeline, stage, w, times_us in self.interrupted:
            other_us = (times_us[0 if s < stage else 2],) * 3
            rows.append((pipeline, 0, w if s == stage else -1, *(times_us if s == stage else other_us)))
        columns = np.array(rows, np.int64).reshape(-1, 6)
        return Visits(*columns[:, :3].T.astype(np.int16), *columns[:, 3:].T)
