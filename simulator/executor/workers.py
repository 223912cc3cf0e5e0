"""A worker: one process that runs one stage on one slice.

It is started afresh (spawn), takes its share of the cores, opens its stage's session, runs it a few times, and
says that it is ready. Then it answers one message after the other. It ends when its channel closes, so it never
outlives the frontend, whatever becomes of that.
"""

import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.shared_memory import SharedMemory
from socket import socket
from typing import Any

import numpy as np

from simulator.executor.layouts import StageModel
from simulator.executor.messages import PACKET_BYTES, Done, Failed, Ready, Work, pack, unpack
from simulator.executor.transport import read, read_requests, write

REQUESTS = 0  # the number of the segment in which requests lie


@dataclass(frozen=True)
class WorkerTask:
    """What a worker is to be.

    It is ``device_share`` (1/k) of a ``device``. ``cores`` are the numbers of the cores that it may use (none: any),
    ``threads`` how many its operators use. A batch takes ``slowdown`` times as long as its inference does (the rest is
    slept through, and so leaves the cores to others).
    """

    stage: StageModel
    device: str
    device_share: float
    cores: tuple[int, ...]
    threads: int
    provider: str
    warm_batches: tuple[int, ...]
    slowdown: float = 1.0


def run_worker(channel: socket, task: WorkerTask, segments: Sequence[str]) -> None:
    """Run a worker until its channel closes (the process's main function); ``segments`` are what messages number."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the frontend, which drains
    try:
        stage = open_stage(task)
    except Exception as error:
        with suppress(OSError):
            channel.send(pack(Failed(-1, _one_line(error))))
        return
    memories = [SharedMemory(name) for name in segments]
    with suppress(OSError):
        channel.send(pack(Ready(os.getpid())))
        while packet := channel.recv(PACKET_BYTES):
            message = unpack(packet)
            assert isinstance(message, Work)
            channel.send(pack(_answer(message, stage, memories)))
    os._exit(0)  # without the interpreter's farewell to views into shared memory


def _answer(message: Work, stage: "Stage", memories: Sequence[SharedMemory]) -> Done | Failed:
    start_ns = time.monotonic_ns()
    try:
        feeds = {
            layout.name: (read_requests if spot.segment == REQUESTS else read)(
                memories[spot.segment], spot.offset, layout, message.size
            )
            for layout, spot in zip(stage.model.inputs, message.inputs, strict=True)
        }
        outputs = stage(feeds)
        computed_ns = time.monotonic_ns()
        into = message.outputs
        write(memories[into.segment], into.offset, stage.model.outputs, message.size, outputs)
    except Exception as error:  # whatever is wrong with a batch must not take the others with it
        return Failed(message.ticket, _one_line(error))
    return Done(message.ticket, start_ns, computed_ns, time.monotonic_ns())


class Stage:
    """A stage's session, called with tensors by name; returns the outputs of ``model``, in order."""

    def __init__(self, session: Any, task: WorkerTask) -> None:
        self.model = task.stage
        self._session = session
        self._outputs = [layout.name for layout in task.stage.outputs]
        self._slowdown = task.slowdown

    def __call__(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Return the stage's outputs."""
        start_s = time.monotonic()
        outputs: list[np.ndarray] = self._session.run(self._outputs, feeds)
        if self._slowdown > 1:
            time.sleep((self._slowdown - 1) * (time.monotonic() - start_s))
        return outputs


def open_stage(task: WorkerTask) -> Stage:
    """Return a stage ready to run, on its cores, warmed up; raises InputError where onnxruntime cannot run it.

    It warms up on what earlier stages really make (`StageModel.warm_up_file`): a tensor may hold a shape, indices or a
    mask, which not any number is.
    """
    if task.cores:
        os.sched_setaffinity(0, task.cores)
    from planner.profiling.runtime import open_session  # after the affinity is set: its threads inherit it

    stage = Stage(open_session(task.stage.path, threads=task.threads, provider=task.provider), task)
    for batch in task.warm_batches:
        with np.load(task.stage.warm_up_file(batch)) as arrays:
            feeds = {layout.name: arrays[f"arr_{at}"] for at, layout in enumerate(task.stage.inputs)}
        for _ in range(2):
            stage(feeds)
    return stage


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
