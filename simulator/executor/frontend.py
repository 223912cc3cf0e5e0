"""The frontend: the loop that brings requests, the policy's decisions and the workers together, on a real clock.

The loop sleeps until a worker has something to say, a request arrives, the policy's timer is due, or a batch comes
out of an emulated link. Slices are reserved for a batch in all stages when it is sent, so workers pass it on by
themselves and answer it where the fleet can do that. Before the policy is asked, and before anything is decided about a
slice, the loop looks how far batches have come; it is told of ends only while it waits for one.

Limits: at most ``in_flight`` batches are under way; while they are, requests stay in the frontend's queue, where the
policy's deadlines apply.
"""

import heapq
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from simulator.dispatch.books import NEVER
from simulator.dispatch.system import System
from simulator.executor.dispatcher import Dispatcher
from simulator.executor.fleet import Down, Event, Finished, Fleet, Refused, SliceId, Up
from simulator.executor.journal import Batch, Hop, Incident, Journal, Usage, Visit
from simulator.executor.links import Links
from simulator.executor.requesters import Requester

HANDED_TO_A_WORKER = 64  # batches, which its inbox surely holds
LOOK_EVERY_US = 250_000  # at Ctrl-C, at workers that hang
LOOK_OFTEN_US = 50_000  # while a slice is down
SAMPLE_EVERY_US = 1_000_000
FAILURES_OF_A_BATCH = 2  # a batch that broke two workers is lost
FAILURES_OF_A_SLICE = 3  # a slice that breaks so often without finishing anything stays down


@dataclass(frozen=True)
class Patience:
    """How long to wait: for one batch on a worker (s, and at least ``times`` the planned time), for the last ones."""

    batch_s: float = 5.0
    times: float = 20.0
    drain_s: float = 10.0


@dataclass(slots=True)
class _Slice:
    """What the frontend knows of a slice: its batches in the order in which they came, those handed over first."""

    up: bool = True
    handed: deque[Batch] = field(default_factory=deque)
    waiting: deque[Batch] = field(default_factory=deque)
    handed_us: int = 0
    failures: int = 0

    @property
    def given_up(self) -> bool:
        return self.failures >= FAILURES_OF_A_SLICE


class Frontend:
    """One run: requests that arrive at given times, a policy, a fleet that has been started.

    ``journal`` is what happened; ``stop()`` ends the run early: what is under way is drained. ``restart_us`` is how
    long a worker is expected to take until it is ready.
    """

    def __init__(
        self,
        system: System,
        dispatcher: Dispatcher,
        fleet: Fleet,
        requester: Requester,
        links: Links,
        in_flight: int,
        restart_us: int = 0,
        patience: Patience | None = None,
        tick: Callable[[int], None] | None = None,
    ) -> None:
        self.journal = Journal()
        self._system, self._dispatcher, self._fleet = system, dispatcher, fleet
        self._requester, self._links = requester, links
        self._limit, self._restart_us, self._patience = in_flight, restart_us, patience or Patience()
        self._tick = tick or (lambda now_us: None)
        self._slices = {slice_id: _Slice() for slice_id in dispatcher.slices}
        self._under_way: dict[int, Batch] = {}
        self._on_the_wire: list[tuple[int, int]] = []  # a heap of (time of arrival, batch)
        self._held_back = False
        self._stopped_us: int | None = None
        self._drain_until_us: int | None = None
        self._look_us = self._sample_us = 0  # when to look and sample again
        self._origin_ns = 0

    def run(self) -> None:
        """Serve all requests, from time 0 = now."""
        self._origin_ns = time.monotonic_ns()
        while not self._over():
            now_us = self.now_us()
            self._come_off_the_wire(now_us)
            self._dispatch(now_us)
            if now_us >= self._look_us:
                self._look_after_workers(now_us)
                self._tick(now_us)
            for event in self._fleet.poll(self._timeout_s()):
                self._take(event)
        for batch in list(self._under_way.values()):
            self._lose(batch, "not finished in time after the last arrival")

    def stop(self) -> None:
        """Let no further request in, finish what was sent, leave the rest in the queue."""
        self._stopped_us = self.now_us()

    @property
    def stopped_us(self) -> int | None:
        """When the run was stopped early, None if it was not."""
        return self._stopped_us

    def now_us(self) -> int:
        """Return the time since the run began."""
        return (time.monotonic_ns() - self._origin_ns) // 1000

    def _over(self) -> bool:
        if self._stopped_us is None and (self._dispatcher.next_arrival_us < NEVER or self._dispatcher.queued):
            return False
        if self._drain_until_us is None:
            self._drain_until_us = self.now_us() + round(self._patience.drain_s * 1e6) + self._system.slo_us
            self._fleet.tell_ends(True)
            self._catch_up()
        return not self._under_way or self.now_us() > self._drain_until_us

    def _timeout_s(self) -> float:
        """Return how long nothing will have to be done unless a worker speaks."""
        next_us = self._look_us
        if self._on_the_wire:
            next_us = min(next_us, self._on_the_wire[0][0])
        if self._stopped_us is None and not self._held_back:
            next_us = min(next_us, self._dispatcher.next_arrival_us, self._dispatcher.wake_us)
        return (next_us - self.now_us()) / 1e6

    # Requests become batches.

    def _dispatch(self, now_us: int) -> None:
        """Ask the policy, on arrivals and at its timer, as long as batches may be sent."""
        if self._stopped_us is not None:
            return
        due_us = min(self._dispatcher.next_arrival_us, self._dispatcher.wake_us)
        if due_us > now_us and not self._held_back:
            return
        if self._held_back:  # until now, when there is room again
            due_us = now_us
        self._catch_up()
        self._dispatcher.arrive(now_us)
        while self._has_room():
            sent = self._dispatcher.next_batch(now_us)
            if sent is None:
                return
            deadline_us = self._dispatcher.deadline_us(sent.first + sent.size - 1)
            slices = list(sent.slices)
            batch = Batch(sent.number, sent.pipeline, sent.first, sent.size, now_us, deadline_us, slices, due_us)
            self._send(batch)
            now_us = self.now_us()

    def _has_room(self) -> bool:
        """Return whether a batch may be sent; if not, have the loop woken when one ends."""
        if self._held_back:
            self._held_back = False
            self._fleet.tell_ends(False)
        if len(self._under_way) < self._limit:
            return True
        self._held_back = True
        self._fleet.tell_ends(True)
        self._catch_up()  # with what ended just before
        return len(self._under_way) < self._limit

    def _send(self, batch: Batch) -> None:
        """Bring the requests of a batch to the first stage."""
        self._under_way[batch.number] = batch
        self.journal.batches.append(batch)
        self.journal.count_in_flight(batch.sent_us, batch.size)
        nbytes = self._fleet.take(batch.number, batch.pipeline, batch.first, batch.size)
        now_us = self.now_us()
        self._note_hop(batch, 0, nbytes, batch.due_us, now_us)
        self._reach(batch, now_us)

    # Batches go from slice to slice.

    def _reach(self, batch: Batch, now_us: int) -> None:
        """Let a batch join the queue of the slice that was reserved for it, or of another if that one is down."""
        if not self._slices[batch.at].up:
            self._retry(batch, now_us)
            return
        batch.arrived_us = now_us
        self._dispatcher.reached(batch.at, batch.number, batch.size, now_us)
        self._slices[batch.at].waiting.append(batch)
        self._hand_over(batch.at)

    def _hand_over(self, slice_id: SliceId) -> None:
        """Give a worker its next batches, as many as it may have, and those that follow with them."""
        own = self._slices[slice_id]
        while own.up and own.waiting and len(own.handed) < HANDED_TO_A_WORKER:
            batch = own.waiting.popleft()
            self._fleet.send(batch.number, batch.stage, self._way(batch))
            if not own.handed:
                own.handed_us = self.now_us()
            own.handed.append(batch)

    def _way(self, batch: Batch) -> list[SliceId]:
        """Return the slices that a batch may take by itself from where it is: none that is down or has others waiting.

        An emulated link takes its time here.
        """
        if self._links.emulated is not None:
            return [batch.at]
        way = [batch.at]
        for slice_id in batch.slices[batch.stage + 1 :]:
            own = self._slices[slice_id]
            if not own.up or own.waiting:
                break
            way.append(slice_id)
        return way

    def _catch_up(self) -> None:
        """Learn how far batches have come."""
        for event in self._fleet.look():
            self._take(event)

    def _take(self, event: Event) -> None:
        if isinstance(event, Finished):
            self._finished(event)
        elif isinstance(event, Refused):
            self._refused(event)
        elif isinstance(event, Down):
            self._down(event)
        else:
            self._up(event)

    def _finished(self, event: Finished) -> None:
        """Pass a batch on to its next stage, or its outputs to the requesters."""
        own = self._slices[event.slice]
        origin_ns = self._origin_ns
        start_us, computed_us, end_us = (
            (event.start_ns - origin_ns) // 1000,
            (event.computed_ns - origin_ns) // 1000,
            (event.end_ns - origin_ns) // 1000,
        )
        batch = self._pop_handed(own, event.batch, end_us)
        own.failures = 0
        visit = Visit(event.slice, batch.number, batch.size, batch.arrived_us, start_us, computed_us, end_us)
        self._dispatcher.served(event.slice, batch.number, batch.size, start_us, end_us)
        batch.visits.append(visit)
        if own.waiting:
            self._hand_over(event.slice)
        if batch.stage == len(batch.slices) - 1:
            self._answer(batch, visit, event.nbytes)
            return
        batch.stage += 1
        if event.handed_on:
            self._follow(batch, visit, event.nbytes)
        else:
            self._pass_on(batch, visit, event.nbytes)

    def _follow(self, batch: Batch, visit: Visit, nbytes: int) -> None:
        """Note that a worker has passed a batch on."""
        own = self._slices[batch.at]
        self._note_hop(batch, batch.stage, nbytes, visit.computed_us, visit.end_us)
        batch.arrived_us = visit.end_us
        self._dispatcher.reached(batch.at, batch.number, batch.size, visit.end_us)
        if not own.handed:
            own.handed_us = visit.end_us
        own.handed.append(batch)

    def _pass_on(self, batch: Batch, visit: Visit, nbytes: int) -> None:
        """Bring a batch to its next slice."""
        now_us = self.now_us()
        arrival_us, waited_us = self._links.send(visit.slice, batch.size, now_us)
        self._note_hop(batch, batch.stage, nbytes, visit.computed_us, arrival_us, waited_us)
        if arrival_us <= now_us:
            self._reach(batch, now_us)
        else:
            heapq.heappush(self._on_the_wire, (arrival_us, batch.number))

    def _come_off_the_wire(self, now_us: int) -> None:
        while self._on_the_wire and self._on_the_wire[0][0] <= now_us:
            _, number = heapq.heappop(self._on_the_wire)
            if number in self._under_way:
                self._reach(self._under_way[number], now_us)

    def _answer(self, batch: Batch, visit: Visit, nbytes: int) -> None:
        """Give every requester its rows of the outputs."""
        outputs = self._fleet.answers(batch.number) if self._requester.reads else {}
        self._requester.answer(batch.first, batch.size, outputs)
        answered_us = visit.end_us if self._fleet.answers_in_place else self.now_us()
        self._note_hop(batch, len(batch.slices), nbytes, visit.computed_us, answered_us)
        batch.answered_us = answered_us
        self._end(batch, answered_us)

    def _end(self, batch: Batch, end_us: int) -> None:
        del self._under_way[batch.number]
        self._fleet.release(batch.number)
        self.journal.count_in_flight(end_us, -batch.size)

    def _note_hop(self, batch: Batch, stage: int, nbytes: int, start_us: int, end_us: int, waited_us: int = 0) -> None:
        hop = Hop(batch.pipeline, stage, batch.number, batch.size, nbytes, start_us, end_us, waited_us)
        self.journal.hops.append(hop)

    # Things go wrong.

    def _refused(self, event: Refused) -> None:
        """Try a batch elsewhere that a worker could not run."""
        now_us = self.now_us()
        batch = self._pop_handed(self._slices[event.slice], event.batch, now_us)
        self._dispatcher.left(event.slice, batch.number, now_us)
        self._note(event.slice, f"could not run a batch: {event.reason}", batch.size)
        batch.failures += 1
        self._retry(batch, now_us)
        self._hand_over(event.slice)

    def _down(self, event: Down) -> None:
        """Move the batches of a slice that is gone to others, and start it again."""
        own = self._slices[event.slice]
        own.up = False
        self._fleet.dismiss(event.slice)  # first, so that what it is found to have done is all that it will have done
        self._catch_up()
        own.failures += 1
        stranded = [*own.handed, *own.waiting]
        self._note(event.slice, f"down: {event.reason}", sum(batch.size for batch in stranded))
        self._dispatcher.take_out(event.slice, NEVER if own.given_up else self.now_us() + self._restart_us)
        if own.handed:
            own.handed[0].failures += 1  # the one that it worked on; the others only waited
        own.handed.clear()
        own.waiting.clear()
        if not own.given_up:
            self._fleet.restart(event.slice)
        for batch in stranded:
            self._retry(batch, self.now_us())

    def _up(self, event: Up) -> None:
        """Use a slice again."""
        own = self._slices[event.slice]
        own.up = True
        now_us = self.now_us()
        self._note(event.slice, "up again")
        self._dispatcher.bring_back(event.slice)
        for batch in own.waiting:
            self._dispatcher.reached(event.slice, batch.number, batch.size, now_us)
        self._hand_over(event.slice)

    def _retry(self, batch: Batch, now_us: int) -> None:
        """Find another slice of the same stage for a batch that lost its own, or give it up."""
        if batch.failures >= FAILURES_OF_A_BATCH:
            self._lose(batch, "failed twice")
            return
        self._dispatcher.left(batch.at, batch.number, now_us)
        pool = [slice_id for slice_id in self._slices if slice_id[:2] == batch.at[:2]]
        usable = [slice_id for slice_id in pool if self._slices[slice_id].up]
        if usable:
            best = min(
                usable,
                key=lambda slice_id: (slice_id == batch.at, self._dispatcher.free_us(slice_id, now_us), slice_id),
            )
            end_us = self._dispatcher.free_us(best, now_us) + self._dispatcher.remaining_us(best, batch.size)
            if end_us > batch.deadline_us:
                self._lose(batch, "no slice could finish it before its deadline")
                return
            batch.slices[batch.stage] = best
            self._reach(batch, now_us)
        elif all(self._slices[slice_id].given_up for slice_id in pool):
            self._lose(batch, "no slice of its stage is left")
        else:  # some slice is being started again: wait for it as long as the deadline allows
            waiting_for = next(slice_id for slice_id in pool if not self._slices[slice_id].given_up)
            batch.slices[batch.stage] = waiting_for
            batch.arrived_us = now_us
            self._slices[waiting_for].waiting.append(batch)

    def _lose(self, batch: Batch, why: str) -> None:
        """Report the requests of a batch as lost."""
        self._note(batch.at, f"batch {batch.number} lost: {why}", batch.size)
        self._dispatcher.lose(batch.first, batch.size)
        for slice_id in batch.slices[batch.stage :]:
            self._dispatcher.left(slice_id, batch.number, self.now_us())
        batch.lost_us = self.now_us()
        self._end(batch, batch.lost_us)

    def _look_after_workers(self, now_us: int) -> None:
        """Replace workers that hang, give up batches that waited too long for a slice, sample the usage."""
        self._catch_up()
        for slice_id, own in self._slices.items():
            if own.up and own.handed:
                planned_us = self._dispatcher.latency_us(slice_id, own.handed[0].size)
                if now_us - own.handed_us > max(self._patience.batch_s * 1e6, self._patience.times * planned_us):
                    self._down(Down(slice_id, f"no answer for {(now_us - own.handed_us) / 1e6:.1f} s"))
            elif not own.up:
                for batch in list(own.waiting):
                    if own.given_up or now_us + self._dispatcher.remaining_us(slice_id, batch.size) > batch.deadline_us:
                        own.waiting.remove(batch)
                        self._lose(batch, "its slice did not come back in time")
        if now_us >= self._sample_us:
            self._sample_us = now_us + SAMPLE_EVERY_US
            for slice_id, (cpu_s, memory_bytes) in self._fleet.usage().items():
                self.journal.usage.append(Usage(now_us, slice_id, cpu_s, memory_bytes))
        pause_us = LOOK_EVERY_US if all(own.up or own.given_up for own in self._slices.values()) else LOOK_OFTEN_US
        self._look_us = now_us + min(pause_us, round(self._patience.batch_s * 5e5))

    def _note(self, slice_id: SliceId, what: str, requests: int = 0) -> None:
        self.journal.incidents.append(Incident(self.now_us(), slice_id, what, requests))

    def _pop_handed(self, own: _Slice, number: int, end_us: int) -> Batch:
        batch = own.handed[0]
        if batch.number == number:  # they are served in order
            own.handed.popleft()
        else:
            batch = next(batch for batch in own.handed if batch.number == number)
            own.handed.remove(batch)
        own.handed_us = end_us
        return batch
