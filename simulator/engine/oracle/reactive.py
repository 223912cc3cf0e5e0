"""Reactive dispatch (PPipe, ATC'25, the ablation): a queue in front of every stage, and batches built anew there.

What a queue decides is not written again here: it is `simulator.dispatch.reactive`.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from simulator.dispatch.books import FREE, HEAD, NEVER, NOTES, TAIL, WAKE
from simulator.dispatch.decisions import FINISHED, LOST, OPEN
from simulator.dispatch.reactive import join, react
from simulator.dispatch.system import Ints, System
from simulator.engine.oracle.core import DISPATCH, REACTIVE_TIMER, REACTIVE_WORK, Batch, Clockwork, Token
from simulator.engine.oracle.occupancy import Occupancy, Sharing
from simulator.engine.oracle.records import Cut, Served, reactive_records
from simulator.results.records import Records


class Reacting(Occupancy):
    """The queues of a DNN: of the frontend, in row 0 of the books, and of every later stage, in its row."""

    def __init__(
        self,
        run: Clockwork,
        number: int,
        system: System,
        stations: list[list[int]],
        arrivals_us: Ints,
        sharing: Sharing,
        before: "Reacting | None" = None,
    ) -> None:
        super().__init__(run, system, stations, sharing)
        self.number, self.arrivals_us, self.before = number, arrivals_us, before
        self.dnn: int = before.dnn if before else number
        self.systems: list[System] = [*(before.systems if before else ()), system]
        self.first_pipeline = sum(len(one.stages) for one in self.systems[:-1])
        self.outcome: NDArray[np.int8] = before.outcome if before else np.full(len(arrivals_us), OPEN, np.int8)
        self.batches: list[Served] = before.batches if before else []
        self.cuts: list[Cut] = before.cuts if before else []
        self.successor: Reacting | None = None
        self.queues = {row: np.empty(len(arrivals_us), np.int32) for row in self.rows()}
        self.under_way: set[int] = set()
        self.cut_before: set[Token] = set()
        self.arrived = 0
        self.wake_number = 0
        self.working_us = dict.fromkeys(self.queues, -1)
        self.promise_ended: Callable[[], None] = lambda: None

    def place(self, row: int) -> tuple[int, int]:
        """Return pipeline and stage of a row, pipelines of plans before counted."""
        pipeline, stage = divmod(row, self.system.max_stages)
        return self.first_pipeline + pipeline, stage

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
            self.join(0, self.arrived)
            self.arrived += 1
        self.work(0)

    def join(self, row: int, request: int) -> None:
        """Let a request join a queue, in its place."""
        if self.books[NOTES, row, TAIL] == len(self.queues[row]):
            self.queues[row] = np.append(self.queues[row], self.queues[row])
        join(self.books, row, self.queues[row], self.arrivals_us, request)

    def take_queue_over(self) -> None:
        """Go on with the queue of the frontend before."""
        assert self.before is not None
        self.before.successor = self
        self.before.wake_number += 1  # what it armed is void
        head, tail = self.before.books[NOTES, 0, [HEAD, TAIL]]
        for request in self.before.queues[0][head:tail]:
            self.join(0, int(request))
        self.before.books[NOTES, 0, TAIL] = head
        self.arrived = self.before.arrived
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
            server = self.run.servers[self.run.stations[self.station(to)].servers[w]]
            batch = self.run.new_batch(self, self.station(to), server, tokens)
            self.batches.append((*self.place(to), w, batch))
            if row == 0:
                self.under_way.update(request for request, _ in tokens)
            server.waiting.append(batch)
            self.run.begin(server)
            if self.run.conditions.corrected:
                self.corrected(server)
            else:
                self.enter_everywhere(server, int(self.books[FREE, to, w]))
        self.promise_ended()
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
            self.join(row, request)
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
            self.promise_ended()

    def reached(self, batch: Batch) -> None:
        """Split a batch into its requests, which join the next queue."""
        self.join_all(batch.tokens[0][1] + 1, batch.tokens)

    def stranded(self, batch: Batch, *, cut: bool) -> None:
        """Let the requests of a batch join their queue again, but a second cut in one stage loses them."""
        row, w = batch.tokens[0][1], self.slices[batch.server][1]
        if cut and batch.start_us < self.run.now:
            self.cuts.append((self.run.now, batch.number, *self.place(row), w, batch.reach_us, batch.start_us))
        self.batches[:] = [entry for entry in self.batches if entry[3] is not batch]
        queue = 0 if row % self.system.max_stages == 0 else row
        tokens = [(request, queue) for request, _ in batch.tokens]
        again = [token for token in tokens if not cut or token not in self.cut_before]
        for request, _ in set(tokens) - set(again):
            self.outcome[request] = LOST
        if cut:
            self.cut_before.update(again)
        if queue == 0:
            self.under_way.difference_update(request for request, _ in tokens)
        self.in_charge_of(queue).join_all(queue, again)
        self.promise_ended()

    def in_charge_of(self, queue: int) -> "Reacting":
        """Return whose queue requests join again: that of the first stages may have been taken over."""
        return self.successor.in_charge_of(queue) if queue == 0 and self.successor else self

    # What is known of it.

    def is_at_work_on(self, device: int) -> bool:
        """Whether there is a slice on a device, and requests are under way, wherever."""
        self.under_way = {request for request in self.under_way if self.outcome[request] == OPEN}
        return bool(self.under_way) and any(server.device == device for server in self.slices)

    def records(self) -> Records:
        """Return what happened to the DNN."""
        return reactive_records(self.systems, self.arrivals_us, self.outcome, self.batches, self.cuts)
