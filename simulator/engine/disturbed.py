"""The simpy engine in a world where not everything goes to plan (`simulator.engine.world`).

The dispatcher still works with planned times, but its books are corrected: whenever a batch reaches or leaves a slice,
or a slice fails, what that slice still has to do is laid out anew from there, each batch at its planned time
after the one before, and where the next stage expects it is moved as well.

A plan takes over one type of device after the other: its slices of a type load their models when all slices of that
type have drained, that is, have done what they were promised under the earlier plans. Slices of other types go on
meanwhile. Which device holds which slice is not modelled, so a type is the least that can drain.

Order of events: time, then kind (switches, failures and repairs; ends of inference; ends of transfers; arrivals at
stages; the dispatcher), then the number of the batch in order of dispatch, whatever was scheduled first. A batch that
is interrupted is recorded as far as it came, as a batch of no requests, so that the records hold all that slices did.
"""

from collections.abc import Callable
from functools import partial
from math import exp, prod
from typing import Any, cast

import numpy as np
import simpy
from numpy.typing import NDArray
from simpy.events import EventPriority

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
    Books,
)
from simulator.dispatch.decisions import LOST
from simulator.dispatch.system import Ints, System
from simulator.engine.stations import Batch, Card, Epoch, Interrupted, Occurrence, Slice
from simulator.engine.world import (
    Failure,
    World,
    combined,
    drawn_failures,
    require_in_charge,
    require_same_service,
    slices_of,
)
from simulator.results.records import Records, Visits, outcomes

Advance = Callable[[Books, Ints, NDArray[np.int32], int], tuple[int, int]]

UNIT, END, CARD_END, REACH, DISPATCH = range(5)
KIND = 1 << 32  # events of one instant go in the order kind · KIND + number of the batch


class DisturbedRun:
    """One run of a frontend policy in a world; ``advance`` takes the policy's next step."""

    def __init__(self, system: System, arrivals_us: Ints, advance: Advance, world: World) -> None:
        self.env = simpy.Environment()
        self.now = 0  # µs
        self.on_time: list[Any] = [self._happen]  # given to every event
        self.arrivals_us, self.advance, self.world = arrivals_us, advance, world
        world.check(system)
        self.service_rng, self.failure_rng = world.generators()
        self.fate = np.full(len(arrivals_us), -1, np.int32)
        self.batches: list[Batch] = []
        self.interrupted: list[Interrupted] = []
        self.epochs = [Epoch(system, 0)]
        self.lost: dict[int, Batch] = {}
        self.wake_number = 0
        self.observed = 0
        self.switched_us: list[int] = []
        self.handing_over: set[int] = set()  # types of devices on which a plan waits for an earlier one
        self.factors = np.array(world.factors)
        if world.load_us:
            self._load(self.epochs[0], world.load_us)
        for switch in world.switches:  # first: a plan may fail at the instant at which it takes over
            self._at(switch.at_us, UNIT, partial(self._switch, switch.system))
        for failure in world.failures:
            self._at(failure.at_us, UNIT, partial(self._fail, failure))
        self._draw_failures()
        if world.replan is not None:
            self._at(world.replan_every_us, UNIT, self._replan)

    @property
    def epoch(self) -> Epoch:
        """The system in charge."""
        return self.epochs[-1]

    def records(self) -> Records:
        """Run to the end."""
        self._arm()
        self.env.run()
        system = combined([epoch.system for epoch in self.epochs])
        outcome = outcomes(self.fate)
        for batch in self.lost.values():
            outcome[batch.first : batch.first + batch.size] = LOST
        width = system.max_stages
        visits = tuple(self._visits(s) for s in range(width))
        return Records(system, "simpy", self.arrivals_us, outcome, (self.fate,) * width, visits)

    # -- dispatching

    def _arm(self) -> None:
        """Schedule the dispatcher's next wake-up, which makes any earlier one void."""
        self.wake_number += 1
        notes = self.epoch.books[NOTES, 0]
        tail = int(notes[TAIL])
        arrival = int(self.arrivals_us[tail]) if tail < len(self.arrivals_us) else NEVER
        at_us = min(int(notes[WAKE]), arrival)
        if at_us < NEVER:
            self._at(max(at_us, self.now), DISPATCH, partial(self._wake, self.wake_number))

    def _wake(self, number: int) -> None:
        if number != self.wake_number:
            return
        notes = self.epoch.books[NOTES, 0]
        if notes[WAKE] > self.now:
            notes[TAIL] += 1  # an arrival; a timer due at the same instant goes first
        self._dispatch()

    def _dispatch(self) -> None:
        """Work through the queue, and send what the policy sends."""
        epoch = self.epoch
        while True:
            size, pipeline = self.advance(epoch.books, self.arrivals_us, self.fate, self.now)
            if size == 0:
                break
            row, stages = pipeline * epoch.width, int(epoch.system.stages[pipeline])
            chosen = epoch.books[CHOSEN, row, :stages].tolist()
            first = int(epoch.books[NOTES, 0, HEAD]) - size
            batch = Batch(len(self.batches), first, size, len(self.epochs) - 1, pipeline, chosen)
            self.fate[first : first + size] = batch.number
            self.batches.append(batch)
            for s, w in enumerate(chosen):
                slice_ = epoch.slices[row + s, w]
                planned_end = int(epoch.books[FREE, row + s, w])
                self._promise(slice_, batch, planned_end - slice_.latency_us[size])
            self._reach(batch)
        self._arm()

    # -- the way of a batch

    def _slice(self, batch: Batch, stage: int) -> Slice:
        epoch = self.epochs[batch.epoch]
        return epoch.slices[batch.pipeline * epoch.width + stage, batch.slices[stage]]

    def _reach(self, batch: Batch) -> None:
        """Join the queue of a slice; one that is down is waited for if the deadline allows."""
        slice_ = self._slice(batch, batch.stage)
        if slice_.down and self._free_us(slice_) + self._following_us(batch) > self._deadline_us(batch):
            self._retry(batch, slice_)
            return
        del batch.times_us[batch.stage :]
        batch.times_us.append([self.now, 0, 0])
        slice_.waiting.append(batch)
        if slice_.serving is None:
            self._begin(slice_)
        self._lay_out(batch.epoch, slice_)

    def _begin(self, slice_: Slice) -> None:
        """Serve the next batch of a slice's queue; not before the slice has loaded its model."""
        if not slice_.waiting or slice_.down or slice_.held:
            return
        batch = slice_.waiting.popleft()
        planned_us = slice_.latency_us[batch.size]
        start_us = max(self.now, slice_.until_us)
        slice_.serving, slice_.until_us = batch, start_us + planned_us
        slice_.attempt += 1
        batch.times_us[batch.stage][1] = start_us
        end_us = start_us + self._service_us(batch, planned_us)
        self._at(end_us, END, partial(self._end, slice_, slice_.attempt), batch.number)

    def _service_us(self, batch: Batch, planned_us: int) -> int:
        """Return how long an inference really takes."""
        world = self.world
        if len(self.factors):
            return max(1, round(planned_us * float(self.service_rng.choice(self.factors))))
        if isinstance(world.spread, str):
            measured = self.epochs[batch.epoch].system.spread
            spread = 0.0 if measured is None else float(measured[batch.pipeline, batch.stage])
        else:
            spread = world.spread
        if not spread:
            return planned_us
        return max(1, round(planned_us * exp(spread * self.service_rng.standard_normal())))

    def _end(self, slice_: Slice, attempt: int) -> None:
        """Send a batch that is served on, and begin with the next one."""
        if attempt != slice_.attempt or slice_.serving is None:
            return  # the slice failed meanwhile
        batch, slice_.serving = slice_.serving, None
        slice_.until_us = self.now
        batch.times_us[batch.stage][2] = self.now
        self._keep(slice_, batch)
        self._begin(slice_)
        self._lay_out(batch.epoch, slice_)
        self._hand_over(slice_.device)
        if batch.stage + 1 < len(batch.slices):
            following = self._slice(batch, batch.stage + 1)
            following.promised[batch.number] = self.now + self._passage_us(batch)
            self._lay_out(batch.epoch, following)
            self._transmit(batch)

    def _passage_us(self, batch: Batch) -> int:
        epoch, p, s = self.epochs[batch.epoch], batch.pipeline, batch.stage + 1
        return batch.size * epoch.transfer_us[p][s] + epoch.hop_us[p][s]

    def _card(self, batch: Batch) -> Card:
        epoch = self.epochs[batch.epoch]
        row = batch.pipeline * epoch.width + batch.stage
        return epoch.cards[row, int(epoch.books[CARD, row, batch.slices[batch.stage]])]

    def _transmit(self, batch: Batch) -> None:
        """Join the queue of the network card."""
        card = self._card(batch)
        card.waiting.append(batch)
        if not card.busy:
            self._begin_transfer(card)

    def _begin_transfer(self, card: Card) -> None:
        card.busy = bool(card.waiting)
        if card.waiting:
            batch = card.waiting.popleft()
            hop_us = self.epochs[batch.epoch].hop_us[batch.pipeline][batch.stage + 1]
            slower = prod(d.factor for d in self.world.degradations if d.from_us <= self.now < d.until_us)
            wire_us = round((self._passage_us(batch) - hop_us) * slower)
            self._at(self.now + wire_us, CARD_END, partial(self._end_transfer, card, batch, hop_us), batch.number)

    def _end_transfer(self, card: Card, batch: Batch, hop_us: int) -> None:
        self._begin_transfer(card)
        batch.stage += 1
        self._at(self.now + hop_us, REACH, partial(self._reach, batch), batch.number)

    # -- the books

    def _promise(self, slice_: Slice, batch: Batch, ready_us: int) -> None:
        slice_.promised[batch.number] = ready_us
        slice_.sizes[batch.number] = batch.size

    def _keep(self, slice_: Slice, batch: Batch) -> None:
        del slice_.promised[batch.number], slice_.sizes[batch.number]

    def _lay_out(self, epoch: int, slice_: Slice) -> None:
        """Correct until when a slice is taken: by what it serves, then by what it was promised, at planned times."""
        if epoch != len(self.epochs) - 1:
            return
        until_us = max(self.now, slice_.until_us)
        serving = slice_.serving.number if slice_.serving is not None else -1
        for number, ready_us in slice_.promised.items():
            if number != serving:
                until_us = max(until_us, ready_us) + slice_.latency_us[slice_.sizes[number]]
        self.epochs[epoch].set_free(slice_, until_us)

    # -- failures

    def _draw_failures(self) -> None:
        """Schedule what fails at a rate while the plan in charge is used."""
        rate, plan = self.world.failure_rate, len(self.epochs) - 1
        if rate is not None:
            until_us = int(self.arrivals_us[-1])
            for failure in drawn_failures(self.epoch.system, rate, plan, self.now, until_us, self.failure_rng):
                self._at(failure.at_us, UNIT, partial(self._fail, failure))

    def _fail(self, failure: Failure) -> None:
        """Stop a unit of a plan; what was on its slices is retried once or lost."""
        require_in_charge(failure, self.switched_us)
        epoch = self.epochs[failure.plan]
        row = failure.pipeline * epoch.width + failure.stage
        slices = [epoch.slices[row, w] for w in slices_of(epoch.system, failure)]
        back_us = self.now + failure.repair_us
        for slice_ in slices:
            slice_.down = True
            slice_.back_us = max(slice_.back_us, back_us)
            slice_.until_us = max(slice_.until_us if slice_.serving is None else 0, back_us + self.world.load_us)
        for slice_ in slices:
            slice_.attempt += 1
            stranded = [*slice_.waiting]
            slice_.waiting.clear()
            if (batch := slice_.serving) is not None:
                slice_.serving = None
                reached_us, started_us, _ = batch.times_us[batch.stage]
                if started_us < self.now:
                    times_us = reached_us, started_us, self.now
                    pipeline = epoch.base + batch.pipeline
                    self.interrupted.append(Interrupted(pipeline, batch.stage, slice_.index, times_us))
                stranded.insert(0, batch)
            for batch in stranded:
                self._retry(batch, slice_)
            self._lay_out(failure.plan, slice_)
            self._at(back_us, UNIT, partial(self._repair, failure.plan, slice_))
        self._dispatch()

    def _repair(self, plan: int, slice_: Slice) -> None:
        """Take a slice back, unless it failed again and longer meanwhile; it loads its model first."""
        if slice_.back_us <= self.now:
            slice_.down = False
            self._lay_out(plan, slice_)
            self._begin(slice_)

    def _retry(self, batch: Batch, failed: Slice) -> None:
        """Move a batch from a slice that is down to the one of its pool that is free first, if that is in time."""
        self._keep(failed, batch)
        self._lay_out(batch.epoch, failed)
        epoch, s = self.epochs[batch.epoch], batch.stage
        pool = [slice_ for (row, _), slice_ in epoch.slices.items() if row == failed.row and not slice_.down]
        p = batch.pipeline
        again_us = int(batch.size * epoch.system.transfer_us[p, s] + epoch.system.hop_us[p, s])
        rest_us = int(epoch.system.latency_us[p, s, batch.size]) + self._following_us(batch)
        free_us = {slice_: self._free_us(slice_) for slice_ in pool}
        best = min(pool, key=lambda slice_: (free_us[slice_], slice_.index), default=None)
        if (
            batch.retried
            or best is None
            or max(free_us[best], self.now + again_us) + rest_us > self._deadline_us(batch)
        ):
            self._lose(batch)
            return
        batch.retried = True
        batch.slices[s] = best.index
        self._promise(best, batch, self.now + again_us)
        self._lay_out(batch.epoch, best)
        if s == 0:
            self._reach(batch)
        else:
            batch.stage -= 1
            self._transmit(batch)

    def _deadline_us(self, batch: Batch) -> int:
        return int(self.arrivals_us[batch.first]) + self.epochs[batch.epoch].system.slo_us

    def _following_us(self, batch: Batch) -> int:
        """Return the planned transfers and inferences of the stages after the one where a batch is."""
        system, p, after = self.epochs[batch.epoch].system, batch.pipeline, batch.stage + 1
        travel_us = batch.size * system.transfer_us[p, after:] + system.hop_us[p, after:]
        return int(system.latency_us[p, after:, batch.size].sum() + travel_us.sum())

    def _free_us(self, slice_: Slice) -> int:
        """Return when a slice would have done all that it was promised."""
        until_us = max(self.now, slice_.until_us)
        return until_us + sum(
            slice_.latency_us[size]
            for number, size in slice_.sizes.items()
            if slice_.serving is None or number != slice_.serving.number
        )

    def _lose(self, batch: Batch) -> None:
        """Give a batch up, and what later stages were promised."""
        self.lost[batch.number] = batch
        del batch.times_us[batch.stage :]
        batch.times_us.append([self.now, self.now, self.now])
        for s in range(batch.stage + 1, len(batch.slices)):
            following = self._slice(batch, s)
            self._keep(following, batch)
            self._lay_out(batch.epoch, following)
            self._hand_over(following.device)
        self._hand_over(self._slice(batch, batch.stage).device)

    # -- plans that take over

    def _load(self, epoch: Epoch, until_us: int) -> None:
        for slice_ in epoch.slices.values():
            slice_.until_us = until_us
            epoch.set_free(slice_, until_us)

    def _switch(self, system: System) -> None:
        """Put another system in charge; its slices begin when those of the old ones on their type have drained."""
        require_same_service(self.epochs[0].system, system)
        old, new = self.epoch, Epoch(system, self.epoch.base + len(self.epoch.system.stages))
        for note in (HEAD, TAIL, SENT):
            new.books[NOTES, 0, note] = old.books[NOTES, 0, note]
        self.epochs.append(new)
        self.switched_us.append(self.now)
        for slice_ in new.slices.values():
            earlier = [int(old.books[FREE, one.row, one.index]) for one in old.on_type(slice_.device)]
            slice_.held = True
            slice_.until_us = max([self.now, *earlier]) + self.world.load_us
            new.set_free(slice_, slice_.until_us)
            self.handing_over.add(slice_.device)
        for device in sorted(self.handing_over):
            self._hand_over(device)
        self._draw_failures()
        self._dispatch()

    def _hand_over(self, device: int) -> None:
        """Let slices on a type of device load their models, if those of all earlier plans on it have drained."""
        if device not in self.handing_over:
            return
        for number, epoch in enumerate(self.epochs):
            slices = epoch.on_type(device)
            for slice_ in slices:
                if slice_.held:
                    slice_.held = False
                    slice_.until_us = max(self.now, slice_.back_us if slice_.down else 0) + self.world.load_us
                    self._begin(slice_)
                    self._lay_out(number, slice_)
            if epoch is not self.epoch and any(slice_.promised for slice_ in slices):
                return
        self.handing_over.remove(device)

    def _replan(self) -> None:
        """Tell the callback what was observed, and let the system that it returns take over."""
        every_us, replan = self.world.replan_every_us, self.world.replan
        assert replan is not None
        arrived = int(np.searchsorted(self.arrivals_us, self.now, side="right"))
        rate_rps = (arrived - self.observed) * 1e6 / every_us
        self.observed = arrived
        if (system := replan(self.now / 1e6, rate_rps)) is not None:
            self._switch(system)
        if self.now + every_us <= self.arrivals_us[-1]:
            self._at(self.now + every_us, UNIT, self._replan)

    # -- bookkeeping

    def _at(self, at_us: int, kind: int, action: Callable[[], None], number: int = 0) -> None:
        event = Occurrence(at_us, action)
        event.callbacks = self.on_time
        self.env.schedule(event, cast(EventPriority, kind * KIND + number), at_us - self.now)

    def _happen(self, event: Occurrence) -> None:
        self.now = event.at_us
        event.action()

    def _visits(self, s: int) -> Visits:
        """Return the columns of a stage position: the batches sent, then those that failures cut short."""
        columns = np.full((len(self.batches) + len(self.interrupted), 6), -1, np.int64)
        for k, batch in enumerate(self.batches):
            there = s < len(batch.times_us)
            given_up = batch.number in self.lost and s >= len(batch.times_us) - 1
            columns[k, 0], columns[k, 1] = self.epochs[batch.epoch].base + batch.pipeline, batch.size
            columns[k, 2] = batch.slices[s] if there and not given_up else -1
            columns[k, 3:] = batch.times_us[s] if there else batch.times_us[-1][2]
        for k, cut in enumerate(self.interrupted, len(self.batches)):
            columns[k, 0], columns[k, 1] = cut.pipeline, 0
            columns[k, 2] = cut.slice if s == cut.stage else -1
            columns[k, 3:] = cut.times_us if s == cut.stage else cut.times_us[0 if s < cut.stage else 2]
        labels = columns[:, :3].astype(np.int16)
        return Visits(*labels.T.copy(), *columns[:, 3:].T.copy())
