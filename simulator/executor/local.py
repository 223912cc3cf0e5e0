"""A fleet on this machine: a process per slice, tensors in shared memory, small packets over sockets.

The first segment holds the requests' inputs: samples in turn, as many again as a batch may need to run over the end, so
that every batch is a run of samples that is there already. The other segments are the slices' outboxes.
"""

import multiprocessing
import select
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import accumulate
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import NamedTuple

import numpy as np
import psutil

from simulator.executor.fleet import Down, Equipment, Event, Finished, Parcel, Refused, SliceId, Tensors, Up
from simulator.executor.layouts import TensorLayout, aligned, packed
from simulator.executor.messages import PACKET_BYTES, Done, Failed, Ready, Spot, Work, pack, unpack
from simulator.executor.transport import Segment, read, read_requests
from simulator.executor.workers import REQUESTS, run_worker

STOP_WITHIN_S = 3.0


@dataclass
class _Worker:
    """A worker's process and our end of its channel; ``holds`` is the work that it is not through with."""

    process: BaseProcess
    channel: socket.socket
    usage: psutil.Process | None = None
    holds: dict[int, Work] = field(default_factory=dict)


class _Outbox(NamedTuple):
    """Where a slice's outputs go: a segment, and its number in the list that workers get."""

    number: int
    segment: Segment


@dataclass(frozen=True)
class _Form:
    """What batches of one size are like: by name the tensors' layouts and bytes, and where they begin in a slot."""

    size: int
    layouts: Mapping[str, TensorLayout]
    nbytes: Mapping[str, int]
    offsets: tuple[int, ...]


class _Held(NamedTuple):
    """What a parcel of this fleet is: where its tensors begin, by name, and in which slot if it has one of its own."""

    form: _Form
    spots: Mapping[str, Spot]
    slot: int | None


class LocalFleet:
    """Workers on this machine (see `fleet.Fleet`)."""

    def __init__(self, equipment: Equipment) -> None:
        models, batches, inputs = equipment.models, equipment.batches, equipment.inputs
        self._context = multiprocessing.get_context("spawn")
        self._tasks = equipment.tasks
        self._workers: dict[SliceId, _Worker] = {}
        self._channels: dict[int, SliceId] = {}
        self._segments: list[Segment] = []
        self._requests = [_forms(model.requests, batch) for model, batch in zip(models, batches, strict=True)]
        self._made = {
            slice_id: _forms(task.stage.outputs, batches[slice_id.pipeline]) for slice_id, task in self._tasks.items()
        }
        self._samples = len(next(iter(inputs.values())))
        # Parcels say where tensors lie, and there are only so many places: each is made once.
        self._brought: dict[tuple[int, int, int], Parcel] = {}  # by pipeline, size, first sample
        self._filled: dict[tuple[SliceId, int, int], Parcel] = {}  # by slice, size, slot
        try:
            self._first = self._share(models[0].requests, inputs, self._samples + max(batches) - 1)
            self._outboxes = {
                slice_id: self._outbox(equipment.queue, packed(task.stage.outputs, batches[slice_id.pipeline])[1])
                for slice_id, task in self._tasks.items()
            }
        except BaseException:
            self.close()
            raise

    def place(self, pipeline: int, first: int, size: int) -> Parcel:
        """Return the samples that requests bring; they are in shared memory since before the run."""
        row = first % self._samples
        parcel = self._brought.get((pipeline, size, row))
        if parcel is None:
            form = self._requests[pipeline][size]
            spots = {
                name: Spot(REQUESTS, self._first[name] + row * layout.request_bytes)
                for name, layout in form.layouts.items()
            }
            parcel = self._brought[pipeline, size, row] = Parcel(None, form.nbytes, _Held(form, spots, None))
        return parcel

    def submit(self, slice_id: SliceId, batch: int, parcels: Mapping[str, Parcel]) -> bool:
        """Send a worker its next batch; False if its outbox is full, or if it was found dead a moment ago."""
        worker, outbox = self._workers.get(slice_id), self._outboxes[slice_id]
        offset = outbox.segment.take() if worker is not None else None
        if worker is None or offset is None:
            return False
        inputs = tuple([parcel.held.spots[name] for name, parcel in parcels.items()])
        size = next(iter(parcels.values())).held.form.size
        work = worker.holds[batch] = Work(batch, size, Spot(outbox.number, offset), inputs)
        with suppress(OSError):  # it died just now: poll will tell
            worker.channel.send(pack(work))
        return True

    def poll(self, timeout_s: float) -> list[Event]:
        """Read what workers said; ``select`` because it wakes to the microsecond, where poll and epoll round to ms."""
        readable, _, _ = select.select(self._channels, [], [], max(0.0, timeout_s))
        return [self._hear(self._channels[handle]) for handle in readable]

    def fetch(self, parcel: Parcel, names: Sequence[str]) -> Tensors:
        """Return views into shared memory."""
        held: _Held = parcel.held
        return {name: self._view(held.spots[name], held.form.layouts[name], held.form.size) for name in names}

    def release(self, parcel: Parcel) -> None:
        """Free a parcel's slot."""
        if parcel.maker is not None:
            self._outboxes[parcel.maker].segment.give_back(parcel.held.slot)

    def dismiss(self, slice_id: SliceId) -> None:
        """Kill a worker; its segment, with outputs that others still read, belongs to this process and stays."""
        if slice_id in self._workers:
            self._workers[slice_id].process.kill()
            self._bury(slice_id)

    def restart(self, slice_id: SliceId) -> None:
        """Start a worker without waiting for it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        arguments = theirs, self._tasks[slice_id], [segment.name for segment in self._segments]
        process = self._context.Process(target=run_worker, args=arguments, name=f"poolpipe {slice_id}", daemon=True)
        with _without_main_module():
            process.start()
        theirs.close()  # so that the worker's end is the only one, and closes when it dies
        self._workers[slice_id] = _Worker(process, ours)
        self._channels[ours.fileno()] = slice_id

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
        """Stop all workers (their channels close) and free all segments."""
        for worker in self._workers.values():
            worker.channel.close()
        until_s = time.monotonic() + STOP_WITHIN_S
        for worker in self._workers.values():
            worker.process.join(max(0.0, until_s - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._workers.clear()
        self._channels.clear()
        for segment in self._segments:
            segment.close()
        self._segments.clear()

    def _share(self, layouts: Sequence[TensorLayout], samples: Tensors, count: int) -> dict[str, int]:
        """Put samples into a segment, again and again until there are ``count``; return where each input begins."""
        sizes = [aligned(layout.request_bytes * count) for layout in layouts]
        *offsets, end = accumulate(sizes, initial=0)
        memory = self._segment(1, end).memory
        turns = np.arange(count) % self._samples
        for layout, offset in zip(layouts, offsets, strict=True):
            own = samples[layout.name]
            np.ndarray((count, *layout.shape), layout.dtype, memory.buf, offset)[...] = own[turns]
        return {layout.name: offset for layout, offset in zip(layouts, offsets, strict=True)}

    def _outbox(self, slots: int, slot_bytes: int) -> _Outbox:
        return _Outbox(len(self._segments), self._segment(slots, slot_bytes))

    def _segment(self, slots: int, slot_bytes: int) -> Segment:
        self._segments.append(Segment(slots, slot_bytes))
        return self._segments[-1]

    def _view(self, spot: Spot, layout: TensorLayout, size: int) -> np.ndarray:
        take = read_requests if spot.segment == REQUESTS else read
        return take(self._segments[spot.segment].memory, spot.offset, layout, size)

    def _hear(self, slice_id: SliceId) -> Event:
        worker = self._workers[slice_id]
        try:
            packet = worker.channel.recv(PACKET_BYTES)
        except OSError:
            packet = b""
        if not packet:
            code = self._bury(slice_id)
            return Down(slice_id, f"its process ended (exit code {code})")
        message = unpack(packet)
        if isinstance(message, Done):
            return self._finished(slice_id, worker.holds.pop(message.ticket), message)
        if isinstance(message, Ready):
            worker.usage = psutil.Process(message.pid)
            return Up(slice_id)
        assert isinstance(message, Failed)
        if message.ticket < 0:
            self._bury(slice_id)
            return Down(slice_id, message.reason)
        self._outboxes[slice_id].segment.give_back(worker.holds.pop(message.ticket).outputs.offset)
        return Refused(slice_id, message.ticket, message.reason)

    def _finished(self, slice_id: SliceId, work: Work, done: Done) -> Finished:
        """Return the event with the outputs: they lie one after the other in the slot."""
        segment, slot = work.outputs
        parcel = self._filled.get((slice_id, work.size, slot))
        if parcel is None:
            form = self._made[slice_id][work.size]
            spots = {
                name: Spot(segment, slot + offset) for name, offset in zip(form.layouts, form.offsets, strict=True)
            }
            parcel = self._filled[slice_id, work.size, slot] = Parcel(slice_id, form.nbytes, _Held(form, spots, slot))
        return Finished(slice_id, done.ticket, parcel, done.start_ns, done.computed_ns, done.end_ns)

    def _bury(self, slice_id: SliceId) -> int | None:
        """Wait for the end of a worker that is dying, take back the slots that it held, and return its exit code."""
        worker = self._workers.pop(slice_id)
        del self._channels[worker.channel.fileno()]
        worker.channel.close()
        worker.process.join(0.2)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        for work in worker.holds.values():
            self._outboxes[slice_id].segment.give_back(work.outputs.offset)
        return worker.process.exitcode


@contextmanager
def _without_main_module() -> Iterator[None]:
    """Keep processes from importing the program that starts them: workers need nothing of it, and start sooner."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _forms(layouts: Sequence[TensorLayout], largest: int) -> tuple[_Form, ...]:
    """Return the forms of batches of all sizes from 0 up, made once because they are looked up for every batch."""
    by_name = {layout.name: layout for layout in layouts}
    return tuple(
        _Form(size, by_name, {layout.name: layout.nbytes(size) for layout in layouts}, packed(layouts, size)[0])
        for size in range(largest + 1)
    )
