"""A fleet on this machine: a process per slice, tensors in shared memory, short messages over pipes."""

import multiprocessing
import select
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import psutil

from planner.model import InputError
from simulator.executor.fleet import Down, Event, Finished, Parcel, Refused, SliceId, Tensors, Up
from simulator.executor.layouts import PipelineModels, packed_bytes
from simulator.executor.messages import Done, Failed, Places, Ready, Work, pack, unpack
from simulator.executor.transport import Segment, read, write_rows
from simulator.executor.workers import WorkerTask, work

READY_WITHIN_S = 120.0  # opening a model of gigabytes takes long, a worker that is stuck takes for ever
STOP_WITHIN_S = 3.0


@dataclass
class _Worker:
    """A worker's process and our end of its pipe; ``slots`` are the output slots of the batches that it holds."""

    task: WorkerTask
    outbox: Segment
    process: BaseProcess
    pipe: Connection
    usage: psutil.Process | None = None
    slots: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Slot:
    """What a parcel of this fleet is: a slot of a segment, and the tensors' places in it."""

    segment: Segment
    offset: int
    places: Places


class LocalFleet:
    """Workers on this machine (see `fleet.Fleet`).

    Parameters
    ----------
    models, batches
        Per pipeline: its stage models, its largest batch.
    tasks
        What the worker of each slice is to be.
    in_flight
        Batches of a pipeline that are under way at most: room for so many is made for their inputs.
    queue
        Batches that a worker has made and the next stage has not finished with, at most; a worker whose
        outputs find no room waits.
    """

    def __init__(
        self,
        models: Sequence[PipelineModels],
        batches: Sequence[int],
        tasks: Mapping[SliceId, WorkerTask],
        *,
        in_flight: int,
        queue: int,
    ) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._tasks = dict(tasks)
        self._workers: dict[SliceId, _Worker] = {}
        self._pipes: dict[int, SliceId] = {}
        self._segments: list[Segment] = []
        try:
            self._inboxes = [
                self._segment(in_flight, packed_bytes(model.requests, batch))
                for model, batch in zip(models, batches, strict=True)
            ]
            self._outboxes = {
                slice_id: self._segment(queue, task.stage.output_bytes(batches[slice_id.pipeline]))
                for slice_id, task in self._tasks.items()
            }
        except BaseException:
            self.close()
            raise

    def start(self) -> None:
        """Start all workers and wait until they are ready."""
        try:
            for slice_id in self._tasks:
                self._start_worker(slice_id)
            self._await_ready()
        except BaseException:
            self.close()
            raise

    def place(self, pipeline: int, requests: Sequence[Tensors]) -> Parcel:
        """Put the inputs of a batch into shared memory; the in-flight limit sees to it that there is room."""
        inbox = self._inboxes[pipeline]
        offset = inbox.take()
        assert offset is not None, "more batches in flight than the limit allows"
        try:
            places = write_rows(inbox.memory, offset, inbox.slot_bytes, requests)
        except BaseException:
            inbox.give_back(offset)
            raise
        return _parcel(None, inbox, offset, places)

    def submit(self, slice_id: SliceId, batch: int, parcels: Mapping[str, Parcel]) -> bool:
        """Send a worker its next batch; False if its outbox is full, or if it was found dead a moment ago."""
        worker = self._workers.get(slice_id)
        offset = worker.outbox.take() if worker is not None else None
        if worker is None or offset is None:
            return False
        inputs = {name: parcel.held.places[name] for name, parcel in parcels.items()}
        worker.slots[batch] = offset
        with suppress(OSError):  # it died just now: poll will tell
            worker.pipe.send_bytes(pack(Work(batch, inputs, worker.outbox.name, offset, worker.outbox.slot_bytes)))
        return True

    def poll(self, timeout_s: float) -> list[Event]:
        """Read what workers said; ``select`` because it wakes to the microsecond, where poll and epoll round to ms."""
        readable, _, _ = select.select(self._pipes, [], [], max(0.0, timeout_s))
        return [self._hear(self._pipes[handle]) for handle in readable]

    def fetch(self, parcel: Parcel, names: Sequence[str]) -> Tensors:
        """Return views into shared memory."""
        slot: _Slot = parcel.held
        return {name: read(slot.segment.memory, slot.places[name]) for name in names}

    def release(self, parcel: Parcel) -> None:
        """Free a parcel's slot."""
        parcel.held.segment.give_back(parcel.held.offset)

    def dismiss(self, slice_id: SliceId) -> None:
        """Kill a worker; its segment, with outputs that others still read, belongs to this process and stays."""
        if slice_id in self._workers:
            self._workers[slice_id].process.kill()
            self._bury(slice_id)

    def restart(self, slice_id: SliceId) -> None:
        """Start a worker without waiting for it."""
        self._start_worker(slice_id)

    def usage(self) -> Mapping[SliceId, tuple[float, int]]:
        """Ask the operating system about every worker."""
        found = {}
        for slice_id, worker in self._workers.items():
            if worker.usage is not None:
                with suppress(psutil.Error):
                    times = worker.usage.cpu_times()
                    found[slice_id] = times.user + times.system, worker.usage.memory_info().rss
        return found

    def process_id(self, slice_id: SliceId) -> int | None:
        """Return the number of a worker's process."""
        return self._workers[slice_id].process.pid if slice_id in self._workers else None

    def close(self) -> None:
        """Stop all workers (their pipes close) and free all segments."""
        for worker in self._workers.values():
            worker.pipe.close()
        until_s = time.monotonic() + STOP_WITHIN_S
        for worker in self._workers.values():
            worker.process.join(max(0.0, until_s - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._workers.clear()
        self._pipes.clear()
        for segment in self._segments:
            segment.close()
        self._segments.clear()

    def _segment(self, slots: int, slot_bytes: int) -> Segment:
        self._segments.append(Segment(slots, slot_bytes))
        return self._segments[-1]

    def _start_worker(self, slice_id: SliceId) -> None:
        ours, theirs = self._context.Pipe()
        task = self._tasks[slice_id]
        process = self._context.Process(target=work, args=(theirs, task), name=f"poolpipe {slice_id}", daemon=True)
        process.start()
        theirs.close()  # so that the worker's end is the only one, and closes when it dies
        self._workers[slice_id] = _Worker(task, self._outboxes[slice_id], process, ours)
        self._pipes[ours.fileno()] = slice_id

    def _await_ready(self) -> None:
        """Wait for every worker's first word."""
        until_s = time.monotonic() + READY_WITHIN_S
        missing = set(self._tasks)
        while missing:
            events = self.poll(until_s - time.monotonic())
            if not events:
                raise InputError(
                    f"{min(missing)}: its worker was not ready after {READY_WITHIN_S:.0f} s; is the machine busy?"
                )
            for event in events:
                if isinstance(event, Down | Refused):
                    raise InputError(f"{event.slice}: its worker did not start: {event.reason}")
                missing.discard(event.slice)

    def _hear(self, slice_id: SliceId) -> Event:
        worker = self._workers[slice_id]
        try:
            message = unpack(worker.pipe.recv_bytes())
        except (EOFError, OSError):
            code = self._bury(slice_id)
            return Down(slice_id, f"its process ended (exit code {code})")
        if isinstance(message, Ready):
            worker.usage = psutil.Process(message.pid)
            return Up(slice_id)
        if isinstance(message, Failed) and message.ticket < 0:
            self._bury(slice_id)
            return Down(slice_id, message.reason)
        offset = worker.slots.pop(message.ticket)
        if isinstance(message, Failed):
            worker.outbox.give_back(offset)
            return Refused(slice_id, message.ticket, message.reason)
        assert isinstance(message, Done)
        parcel = _parcel(slice_id, worker.outbox, offset, message.outputs)
        return Finished(slice_id, message.ticket, parcel, message.start_ns, message.computed_ns, message.end_ns)

    def _bury(self, slice_id: SliceId) -> int | None:
        """Wait for the end of a worker that is dying, take back the slots that it held, and return its exit code."""
        worker = self._workers.pop(slice_id)
        del self._pipes[worker.pipe.fileno()]
        worker.pipe.close()
        worker.process.join(0.2)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        for offset in worker.slots.values():
            worker.outbox.give_back(offset)
        return worker.process.exitcode


def _parcel(maker: SliceId | None, segment: Segment, offset: int, places: Places) -> Parcel:
    sizes = {name: place.nbytes for name, place in places.items()}
    return Parcel(maker, sizes, _Slot(segment, offset, places))
