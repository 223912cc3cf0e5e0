"""Reactive dispatch (PPipe, ATC'25, the ablation): a queue in front of every stage, and batches built anew there.

What a queue decides is not written again here: it is `simulator.dispatch.reactive`.
"""

import numpy as np

from simulator.dispatch.books import (
    CARD,
    FREE,
    HEAD,
    MAX_STAGES,
    NEVER,
    NOTES,
    WAKE,
    Books,
    forget,
    open_books,
    refresh,
)
from simulator.dispatch.decisions import FINISHED, LOST, OPEN
from simulator.dispatch.reactive import join, react
from simulator.dispatch.system import Ints
from simulator.engine.network import Frontend
from simulator.engine.oracle.core import DISPATCH, REACTIVE_TIMER, REACTIVE_WORK, Batch, Clockwork, Server, Token
from simulator.results.records import Records, Visits

# When a batch was stopped, its number, its pipeline, stage and slice, and when that was reached and began.
Cut = tuple[int, int, int, int, int, int, int]


class Reacting:
    """The queues of a DNN: of the frontend, in row 0 of the books, and of every later stage, in its row."""

    def __init__(self, run: Clockwork, number: int, frontend: Frontend, arrivals_us: Ints) -> None:
        self.run, self.number, self.system, self.stations = run, number, frontend.system, frontend.stations
        self.arrivals_us = arrivals_us
        self.books: Books = open_books(self.system)
        self.outcome = np.full(len(arrivals_us), OPEN, np.int8)
        rejoins = 2 if run.conditions.outages else 1
        self.queues = {row: np.empty(rejoins * len(arrivals_us), np.int32) for row in self.rows()}
        self.slices = {
            run.servers[server]: (row, w)
            for row in self.rows()
            for w, server in enumerate(run.network.stations[self.station(row)].servers)
        }
        self.batches: list[tuple[int, int, Batch]] = []  # row, slice
        self.cut_before: set[Token] = set()
        self.cuts: list[Cut] = []
        self.arrived = 0
        self.wake_number = 0
        self.working_us = dict.fromkeys(self.queues, -1)
        if run.conditions.load_us:
            for server in self.slices:
                self.corrected(server)
        self.arm()

    def rows(self) -> list[int]:
        """Return the rows of all stages."""
        return [p * self.system.max_stages + s for p, row in enumerate(self.stations) for s in range(len(row))]

    def station(self, row: int) -> int:
        """Return the station of a row."""
        return self.stations[row // self.system.max_stages][row % self.system.max_stages]

    # Queues.

    def arm(self) -> None:
        """Wake the frontend's queue at its timer or the next arrival, whichever is first."""
        self.wake_number += 1
        number = self.wake_number
        arrival_us = int(self.arrivals_us[self.arrived]) if self.arrived < len(self.arrivals_us) else NEVER
        at_us = min(int(self.books[NOTES, 0, WAKE]), arrival_us)
        if at_us < NEVER:
            wake = lambda: self.wake() if number == self.wake_number else None  # noqa: E731
            self.run.at(max(at_us, self.run.now), DISPATCH, self.number, wake)

    def wake(self) -> None:
        """Let a request arrive, unless the timer is due, and work through the frontend's queue."""
        if self.books[NOTES, 0, WAKE] > self.run.now:
            join(self.books, 0, self.queues[0], self.arrivals_us, self.arrived)
            self.arrived += 1
        self.work(0)

    def work(self, row: int) -> None:
        """Send what can be sent from a queue, and set its timer."""
        queue = self.queues[row]
        while True:
            size, pipeline, w = react(self.books, row, queue, self.arrivals_us, self.outcome, self.run.now)
            if size == 0:
                break
            to = pipeline * self.system.max_stages if row == 0 else row
            head = int(self.books[NOTES, row, HEAD])
            tokens = [(int(request), to) for request in queue[head - size : head]]
            server = self.run.servers[self.run.network.stations[self.station(to)].servers[w]]
            batch = self.run.new_batch(self, self.station(to), server, tokens)
            self.batches.append((to, w, batch))
            server.waiting.append(batch)
            self.run.begin(server)
            self.corrected(server)
        if row == 0:
            self.arm()
        elif (at_us := int(self.books[NOTES, row, WAKE])) < NEVER:
            self.run.at(max(at_us, self.run.now), REACTIVE_TIMER, self.station(row), lambda: self.time_out(row, at_us))

    def work_through(self) -> None:
        """Do nothing more after a failure: queues that requests joined again are worked through as any other."""

    def time_out(self, row: int, at_us: int) -> None:
        """Work through a queue whose timer is due, unless it was worked through since the timer was set."""
        if self.books[NOTES, row, WAKE] == at_us:
            self.work(row)

    def join_all(self, row: int, tokens: list[Token]) -> None:
        """Let requests join a queue, which is worked through when all that join it at this instant have."""
        for request, _ in tokens:
            join(self.books, row, self.queues[row], self.arrivals_us, request)
        if self.working_us[row] != self.run.now:
            self.working_us[row] = self.run.now
            number = self.station(row) if row else self.number
            self.run.at(self.run.now, REACTIVE_WORK, number, lambda: self.work(row))

    # The way of a batch.

    def gone_on(self, batch: Batch) -> None:
        """Send a batch over the card, or finish its requests."""
        row = batch.tokens[0][1]
        if row + 1 in self.queues and (row + 1) % self.system.max_stages:
            self.run.send_over_card(batch)
        else:
            self.outcome[[request for request, _ in batch.tokens]] = FINISHED

    def reached(self, batch: Batch) -> None:
        """Split a batch into its requests, which join the next queue."""
        self.join_all(batch.tokens[0][1] + 1, batch.tokens)

    def stranded(self, batch: Batch, *, cut: bool) -> None:
        """Let the requests of a batch join their queue again, but a second cut in one stage loses them."""
        row, w = batch.tokens[0][1], self.slices[batch.server][1]
        if cut and batch.start_us < self.run.now:
            stage = row // self.system.max_stages, row % self.system.max_stages
            self.cuts.append((self.run.now, batch.number, *stage, w, batch.reach_us, batch.start_us))
        self.batches = [entry for entry in self.batches if entry[2] is not batch]
        queue = 0 if row % self.system.max_stages == 0 else row
        tokens = [(request, queue) for request, _ in batch.tokens]
        again = [token for token in tokens if not cut or token not in self.cut_before]
        for request, _ in set(tokens) - set(again):
            self.outcome[request] = LOST
        if cut:
            self.cut_before.update(again)
        self.join_all(queue, again)

    def corrected(self, server: Server) -> None:
        """Enter when a slice will have done all that it serves and has in front of it, as planned."""
        if not self.run.conditions.corrected:
            return
        row, w = self.slices[server]
        latency_us = self.run.network.stations[self.station(row)].latency_us[server.kind]
        until_us = max(self.run.now, server.until_us) if server.serving or server.down else server.until_us
        until_us += sum(int(latency_us[len(batch.tokens)]) for batch in server.waiting)
        self.books[FREE, row, w] = until_us
        refresh(self.books, row, self.books[CARD, row, w])
        forget(self.books, row // self.books[NOTES, 0, MAX_STAGES])

    # Records.

    def records(self) -> Records:
        """Return what happened: per stage position its batches, after the first by pipeline."""
        width = self.system.max_stages
        visit = np.full((width, len(self.arrivals_us)), -1, np.int32)
        visits = tuple(self._visits(s, visit[s]) for s in range(width))
        return Records(self.system, "simpy", self.arrivals_us, self.outcome, tuple(visit), visits)

    def _visits(self, s: int, visit: np.ndarray) -> Visits:
        width = self.system.max_stages
        mine = [(row // width, w, batch) for row, w, batch in self.batches if row % width == s]
        mine.sort(key=lambda entry: entry[0] if s > 0 else 0)
        for number, (_, _, batch) in enumerate(mine):
            visit[[request for request, _ in batch.tokens]] = number
        rows = [(p, b.size, w, b.reach_us, b.start_us, b.end_us) for p, w, b in mine]
        for end_us, _, p, stage, w, reach_us, start_us in sorted(self.cuts):
            rows += [(p, 0, w, reach_us, start_us, end_us)] * (stage == s)
        columns = np.array(rows, np.int64).reshape(-1, 6)
        return Visits(*columns[:, :3].T.astype(np.int16), *columns[:, 3:].T)
