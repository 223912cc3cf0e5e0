"""A worker: one process that runs parts of models on one slice, device or replica.

It is started afresh (spawn), takes its share of the cores, opens its parts' sessions, runs each a few times, and says
that it is ready. Then it serves one packet after the other: it reads what lies in the crates, notes in the docket what
it does, writes its outputs into the crates, and hands the packet on to the worker that the docket names next, or says
that it is done. It ends when its inbox closes, which only those before it and the frontend hold open: so no worker
outlives the frontend, whatever becomes of that.
"""

import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from socket import socket
from typing import Any, NamedTuple

import numpy as np

from simulator.executor.crates import (
    CLASS,
    COMPUTED,
    END,
    HEAD,
    LAST,
    SAMPLE,
    SIZE,
    START,
    STEP,
    TELL,
    TELL_ALL,
    TICKET,
    WORD_BYTES,
    WORKER,
)
from simulator.executor.layouts import StageModel, TensorLayout
from simulator.executor.messages import PACKET_BYTES, Done, Failed, Ready, Work, pack, unpack
from simulator.executor.transport import read, read_requests, words_of, write


@dataclass(frozen=True)
class WorkerTask:
    """What a worker is to be.

    It is ``device_share`` (1/k) of a ``device`` and runs the ``parts``. ``cores`` are the numbers of the cores that it
    may use (none: any), ``threads`` how many its operators use. A batch takes ``slowdown`` times as long as its
    inference does (the rest is slept through, and so leaves the cores to others).
    """

    parts: tuple[StageModel, ...]
    device: str
    device_share: float
    cores: tuple[int, ...]
    threads: int
    provider: str
    warm_batches: tuple[int, ...]
    slowdown: float = 1.0


class Places(NamedTuple):
    """Where a part's tensors begin, in the order of its inputs and outputs.

    In the crate, counted from where that begins; a negative place ``-1 - n`` is n in the segment of requests, where
    sample 0 of an input begins.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Desk:
    """What a worker of this machine has before it: its number, names of segments, and ``places[class][part]``."""

    number: int
    requests: str
    crates: str
    places: tuple[Mapping[int, Places], ...]


def run_worker(
    inbox: socket, reports: socket, others: Mapping[int, socket], task: WorkerTask, desk: Desk
) -> None:  # pragma: no cover (another process)
    """Run a worker until its inbox closes (the process's main function); ``others`` are whom it hands batches to."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the frontend, which drains
    try:
        opened: dict[StageModel, Stage] = {}
        for part, model in enumerate(task.parts):
            if model not in opened:  # a merged stage is one, whoever it is for
                opened[model] = open_stage(task, part)
        parts = [opened[model] for model in task.parts]
    except Exception as error:
        with suppress(OSError):
            reports.send(pack(Failed(desk.number, -1, _one_line(error))))
        return
    bench = _Bench(parts, desk)
    with suppress(OSError):
        reports.send(pack(Ready(desk.number, os.getpid())))
        while packet := inbox.recv(PACKET_BYTES):
            message = unpack(packet)
            assert isinstance(message, Work)
            answer = bench.serve(message)
            if isinstance(answer, int):
                others[answer].send(pack(message._replace(part=0, step=message.step + 1)))
            elif answer is not None:
                reports.send(pack(answer))
    os._exit(0)  # without the interpreter's farewell to views into shared memory


class _Bench:
    """Where a worker of this machine works: its parts, and the memory that it shares with others."""

    def __init__(self, parts: Sequence["Stage"], desk: Desk) -> None:
        self._parts, self._desk = parts, desk
        self._requests, self._crates = SharedMemory(desk.requests), SharedMemory(desk.crates)
        self._words = words_of(self._crates)

    def serve(self, work: Work) -> Done | Failed | int | None:
        """Serve a batch; return what to report if anything, or who is to have it next.

        It may be another's by now; and what its docket says is often enough.
        """
        words, number = self._words, self._desk.number
        first = work.crates[0] // WORD_BYTES
        at = first + HEAD + STEP * work.step
        if words[at + TICKET] != work.ticket or words[at + WORKER] != number or words[at + START]:
            return None
        words[at + START] = time.monotonic_ns()
        try:
            outputs = self._parts[work.part](self._read(work))
            words[at + COMPUTED] = time.monotonic_ns()
            self._write(work, outputs)
        except Exception as error:  # whatever is wrong with a batch must not take the others with it
            return Failed(number, work.ticket, _one_line(error))
        words[at + END] = time.monotonic_ns()
        if work.step < words[first + LAST]:
            return words[at + STEP + WORKER]
        return Done(number, work.ticket) if words[first + TELL] or words[TELL_ALL] else None

    def _read(self, work: Work) -> dict[str, np.ndarray]:
        """Return the inputs of a batch: in place where it lies in one crate."""
        layouts = self._parts[work.part].model.inputs
        pieces = [self._inputs(crate, work.part) for crate in work.crates]
        if len(pieces) == 1:
            return dict(zip((layout.name for layout in layouts), pieces[0], strict=True))
        return {
            layout.name: piece[0] if layout.batch_axis is None else np.concatenate(piece, layout.batch_axis)
            for layout, piece in zip(layouts, zip(*pieces, strict=True), strict=True)
        }

    def _inputs(self, crate: int, part: int) -> list[np.ndarray]:
        size, sample, places = self._what(crate, part)
        found = []
        for layout, place in zip(self._parts[part].model.inputs, places.inputs, strict=True):
            if place >= 0:
                found.append(read(self._crates, crate + place, layout, size))
            else:
                offset = -1 - place + sample * layout.request_bytes
                found.append(read_requests(self._requests, offset, layout, size))
        return found

    def _write(self, work: Work, tensors: Sequence[np.ndarray]) -> None:
        """Put the outputs of a batch into its crates, each of which gets what is its requests'."""
        layouts = self._parts[work.part].model.outputs
        sizes = [self._words[crate // WORD_BYTES + SIZE] for crate in work.crates]
        for number, (layout, tensor) in enumerate(zip(layouts, tensors, strict=True)):
            pieces = [tensor] if len(sizes) == 1 else _cut(layout, tensor, sizes)
            for crate, size, piece in zip(work.crates, sizes, pieces, strict=True):
                _, _, places = self._what(crate, work.part)
                write(self._crates, crate + places.outputs[number], layout, size, piece)

    def _what(self, crate: int, part: int) -> tuple[int, int, Places]:
        at = crate // WORD_BYTES
        return self._words[at + SIZE], self._words[at + SAMPLE], self._desk.places[self._words[at + CLASS]][part]


def _cut(layout: TensorLayout, tensor: np.ndarray, sizes: Sequence[int]) -> Sequence[np.ndarray]:
    """Return what each of some groups of requests has of a tensor; one without a batch axis all have whole."""
    if mismatch := layout.mismatch(tensor, sum(sizes)):
        raise ValueError(mismatch)
    if layout.batch_axis is None:
        return [tensor] * len(sizes)
    rows = tensor.shape[layout.batch_axis] // sum(sizes)
    return np.split(tensor, (np.cumsum(sizes[:-1]) * rows).tolist(), layout.batch_axis)


class Stage:
    """A stage's session, called with tensors by name; returns the outputs of ``model``, in order."""

    def __init__(self, session: Any, model: StageModel, task: WorkerTask) -> None:
        self.model = model
        self._session = session
        self._outputs = [layout.name for layout in model.outputs]
        self._slowdown = task.slowdown

    def __call__(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Return the stage's outputs."""
        start_s = time.monotonic()
        outputs: list[np.ndarray] = self._session.run(self._outputs, feeds)
        if self._slowdown > 1:
            time.sleep((self._slowdown - 1) * (time.monotonic() - start_s))
        return outputs


def open_stage(task: WorkerTask, part: int = 0) -> Stage:
    """Return a part ready to run, on its cores, warmed up; raises InputError where onnxruntime cannot run it.

    It warms up on what earlier stages really make (`StageModel.warm_up_file`): a tensor may hold a shape, indices or a
    mask, which not any number is.
    """
    if task.cores:
        os.sched_setaffinity(0, task.cores)
    from planner.profiling.runtime import open_session  # after the affinity is set: its threads inherit it

    model = task.parts[part]
    stage = Stage(open_session(model.path, threads=task.threads, provider=task.provider), model, task)
    for batch in task.warm_batches:
        with np.load(model.warm_up_file(batch)) as arrays:
            feeds = {layout.name: arrays[f"arr_{at}"] for at, layout in enumerate(model.inputs)}
        for _ in range(2):
            stage(feeds)
    return stage


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
