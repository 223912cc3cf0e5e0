"""A fleet on this machine: a process per slice, batches in shared memory, small packets over sockets.

The first segment holds the requests' inputs: samples in turn, as many again as a batch may need to run over the end, so
that every batch is a run of samples that is there already. The second one holds crates (`crates`), in which batches
travel. Slices of a stage have the inboxes of those of the next one, and pass batches on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, count

import numpy as np

from simulator.executor.crates import Crates, docket_bytes
from simulator.executor.fleet import Down, Equipment, Event, Finished, Refused, SliceId, Tensors, Up
from simulator.executor.layouts import PipelineModels, TensorLayout, aligned, places
from simulator.executor.messages import Failed, Ready, Work
from simulator.executor.transport import Segment, read, read_requests
from simulator.executor.workers import Desk, Places
from simulator.executor.workforce import Died, Workforce


@dataclass(slots=True)
class _Trip:
    """A batch under way: its crate, the first stage of which nothing was reported, the last one that it goes to now.

    ``ticket`` is that of the packet with which it was sent.
    """

    crate: int
    pipeline: int
    size: int
    stage: int
    last: int
    slices: list[SliceId]
    ticket: int = -1


class LocalFleet:
    """Workers on this machine (see `fleet.Fleet`); answers lie where requesters read them once they are written."""

    answers_in_place = True

    def __init__(self, equipment: Equipment) -> None:
        models, batches, inputs = equipment.models, equipment.batches, equipment.inputs
        self._tasks, self._models = equipment.tasks, models
        self._slices = list(self._tasks)
        self._number = {slice_id: number for number, slice_id in enumerate(self._slices)}
        self._trips: dict[int, _Trip] = {}
        self._batch_of: dict[int, int] = {}  # by ticket
        self._tickets = count()
        self._samples = len(next(iter(inputs.values())))
        self._nbytes = [_bytes_after(of, batch) for of, batch in zip(models, batches, strict=True)]
        placed = [places(of, batch) for of, batch in zip(models, batches, strict=True)]
        steps = max(len(of.stages) for of in models)
        self._requests, first = shared_samples(models[0].requests, inputs, self._samples + max(batches) - 1)
        try:
            self._crates = Crates(equipment.in_flight, steps, max(nbytes for _, nbytes in placed))
        except BaseException:
            self._requests.close()
            raise
        self._places = [_in_crate(own, docket_bytes(steps), first) for own, _ in placed]
        self._workforce = Workforce(len(self._slices))

    def take(self, batch: int, pipeline: int, first: int, size: int) -> int:
        """Take a crate; the samples that requests bring are in shared memory since before the run."""
        crate = self._crates.take(pipeline, size, first % self._samples)
        self._trips[batch] = _Trip(crate, pipeline, size, 0, -1, [])
        return self._nbytes[pipeline][0][size]

    def send(self, batch: int, stage: int, slices: Sequence[SliceId]) -> None:
        """Write down the way of a batch, and tell the first of its workers."""
        trip = self._trips[batch]
        trip.stage, trip.last = stage, stage + len(slices) - 1
        trip.slices[stage:] = slices
        self._batch_of.pop(trip.ticket, None)
        trip.ticket = next(self._tickets)
        self._batch_of[trip.ticket] = batch
        tell = trip.last < len(self._models[trip.pipeline].stages) - 1  # else it can wait until the frontend looks
        workers = [self._number[slice_id] for slice_id in slices]
        self._crates.direct(trip.crate, stage, trip.ticket, workers, tell)
        self._workforce.send(workers[0], Work(trip.ticket, 0, stage, (trip.crate,)))

    def poll(self, timeout_s: float) -> list[Event]:
        """Read what workers said, and the dockets that it is about."""
        events: list[Event] = []
        downs: list[Down] = []
        for report in self._workforce.poll(timeout_s):
            slice_id = self._slices[report.worker]
            if isinstance(report, Ready):
                events.append(Up(slice_id))
            elif isinstance(report, Died):
                downs.append(Down(slice_id, report.reason))
            elif (batch := self._batch_of.get(report.ticket)) is not None:
                events += self._progress(batch)
                if isinstance(report, Failed):
                    events.append(Refused(slice_id, batch, report.reason))
        if downs:  # last, so that nothing is heard of a batch after it was taken from a slice
            events += [*self.look(), *downs]
        return events

    def look(self) -> list[Event]:
        """Read the dockets."""
        return [event for batch in self._trips for event in self._progress(batch)]

    def tell_ends(self, wanted: bool) -> None:
        """Let workers know, all at once."""
        self._crates.tell_all(wanted)

    def answers(self, batch: int) -> Tensors:
        """Return views into shared memory."""
        trip = self._trips[batch]
        models, own = self._models[trip.pipeline], self._places[trip.pipeline]
        found = {}
        for layout in models.alive_after(len(models.stages) - 1):
            place = own[layout.name]
            if place >= 0:
                found[layout.name] = read(self._crates.segment.memory, trip.crate + place, layout, trip.size)
            else:
                sample = self._crates.sample(trip.crate)
                offset = -1 - place + sample * layout.request_bytes
                found[layout.name] = read_requests(self._requests.memory, offset, layout, trip.size)
        return found

    def release(self, batch: int) -> None:
        """Give a crate back."""
        trip = self._trips.pop(batch)
        self._batch_of.pop(trip.ticket, None)
        self._crates.give_back(trip.crate)

    def dismiss(self, slice_id: SliceId) -> None:
        """Kill a worker; what is in its inbox is void."""
        self._workforce.kill(self._number[slice_id])
        for trip in self._trips.values():
            if trip.stage <= trip.last and trip.slices[trip.stage] == slice_id:
                self._crates.void(trip.crate, trip.stage)
            for stage in range(trip.stage, trip.last):
                if trip.slices[stage + 1] == slice_id:
                    trip.last = stage
                    self._crates.halt(trip.crate, stage)
                    break
            for stage in range(trip.last):
                if trip.slices[stage] == slice_id:
                    self._pass_on(trip, stage)

    def _pass_on(self, trip: _Trip, stage: int) -> None:
        """Do for a worker what it may not have come to; who gets a packet twice leaves the second one."""
        begun_ns, _, _ = self._crates.times_ns(trip.crate, stage + 1)
        if self._crates.has_ended(trip.crate, stage) and not begun_ns:
            following = self._number[trip.slices[stage + 1]]
            self._workforce.send(following, Work(trip.ticket, 0, stage + 1, (trip.crate,)))

    def restart(self, slice_id: SliceId) -> None:
        """Start a worker without waiting for it."""
        pipeline, stage, _ = slice_id
        task, own = self._tasks[slice_id], self._places[pipeline]
        part = Places(
            tuple(own[layout.name] for layout in task.parts[0].inputs),
            tuple(own[layout.name] for layout in task.parts[0].outputs),
        )
        classes = tuple({0: part} if number == pipeline else {} for number in range(len(self._models)))
        number = self._number[slice_id]
        desk = Desk(number, self._requests.name, self._crates.segment.name, classes)
        following = [self._number[other] for other in self._slices if other[:2] == (pipeline, stage + 1)]
        self._workforce.start(number, task, desk, following)

    def usage(self) -> Mapping[SliceId, tuple[float, int]]:
        """Ask the operating system about every worker."""
        return {self._slices[number]: used for number, used in self._workforce.usage().items()}

    def process_id(self, slice_id: SliceId) -> int | None:
        """Return the number of a worker's process."""
        return self._workforce.process_id(self._number[slice_id])

    def close(self) -> None:
        """Stop all workers and free all memory."""
        self._workforce.close()
        self._crates.close()
        self._requests.close()

    def _progress(self, batch: int) -> list[Finished]:
        """Return what the docket of a batch says that was not reported yet."""
        trip = self._trips.get(batch)
        events = []
        while trip is not None and trip.stage <= trip.last and self._crates.has_ended(trip.crate, trip.stage):
            times_ns = self._crates.times_ns(trip.crate, trip.stage)
            slice_id, handed_on = trip.slices[trip.stage], trip.stage < trip.last
            trip.stage += 1
            nbytes = self._nbytes[trip.pipeline][trip.stage][trip.size]
            events.append(Finished(slice_id, batch, nbytes, *times_ns, handed_on))
        return events


def shared_samples(layouts: Sequence[TensorLayout], samples: Tensors, count: int) -> tuple[Segment, dict[str, int]]:
    """Return a segment with samples, again and again until there are ``count``, and where each input begins in it."""
    sizes = [aligned(layout.request_bytes * count) for layout in layouts]
    *offsets, end = accumulate(sizes, initial=0)
    segment = Segment(end)
    for layout, offset in zip(layouts, offsets, strict=True):
        own = samples[layout.name]
        turns = np.arange(count) % len(own)
        np.ndarray((count, *layout.shape), layout.dtype, segment.memory.buf, offset)[...] = own[turns]
    return segment, {layout.name: offset for layout, offset in zip(layouts, offsets, strict=True)}


def _in_crate(own: Mapping[str, int], begin: int, requests: Mapping[str, int]) -> dict[str, int]:
    """Return the place of every tensor of a pipeline as workers have it (`workers.Places`)."""
    return {name: -1 - place for name, place in requests.items()} | {name: begin + at for name, at in own.items()}


def _bytes_after(models: PipelineModels, largest: int) -> list[list[int]]:
    """Return ``[stage, size]``, what goes into a stage of a batch, and at last what the answers are."""
    return [
        [sum(layout.nbytes(size) for layout in models.alive_after(stage)) for size in range(largest + 1)]
        for stage in range(-1, len(models.stages))
    ]
