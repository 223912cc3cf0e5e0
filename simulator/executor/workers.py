"""A worker: one process that runs one stage on one slice.

It is started afresh (spawn), takes its share of the cores, opens its stage's session, runs it a few times, and
says that it is ready. Then it answers one message after the other. It ends when its pipe closes, so it never
outlives the frontend, whatever becomes of that.
"""

import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from simulator.executor.layouts import StageModel, TensorLayout
from simulator.executor.messages import Done, Failed, Ready, Work, pack, unpack
from simulator.executor.transport import Attached, read, write


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


def work(pipe: Connection, task: WorkerTask) -> None:
    """Run a worker until its pipe closes (the process's main function)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the frontend, which drains
    try:
        run = open_stage(task)
    except Exception as error:
        with suppress(OSError):
            pipe.send_bytes(pack(Failed(-1, _one_line(error))))
        return
    attached = Attached()
    with suppress(EOFError, OSError):
        pipe.send_bytes(pack(Ready(os.getpid())))
        while True:
            pipe.send_bytes(pack(_answer(unpack(pipe.recv_bytes()), run, attached)))
    os._exit(0)  # without the interpreter's farewell to views into shared memory


def _answer(message: Work, run: "Stage", attached: Attached) -> Done | Failed:
    start_ns = time.monotonic_ns()
    try:
        feeds = {name: read(attached[place.segment], place) for name, place in message.inputs.items()}
        outputs = run(feeds)
        computed_ns = time.monotonic_ns()
        places = write(attached[message.segment], message.offset, message.capacity, outputs)
    except Exception as error:  # whatever is wrong with a batch must not take the others with it
        return Failed(message.ticket, _one_line(error))
    return Done(message.ticket, places, start_ns, computed_ns, time.monotonic_ns())


class Stage:
    """A stage's session, called with tensors by name."""

    def __init__(self, session: Any, task: WorkerTask) -> None:
        self._session = session
        self._outputs = [layout.name for layout in task.stage.outputs]
        self._slowdown = task.slowdown

    def __call__(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the stage's outputs."""
        start_s = time.monotonic()
        outputs = self._session.run(self._outputs, feeds)
        if self._slowdown > 1:
            time.sleep((self._slowdown - 1) * (time.monotonic() - start_s))
        return dict(zip(self._outputs, outputs, strict=True))


def open_stage(task: WorkerTask) -> Stage:
    """Return a stage ready to run, on its cores, warmed up; raises InputError where onnxruntime cannot run it."""
    if task.cores:
        os.sched_setaffinity(0, task.cores)
    from planner.profiling.runtime import open_session  # after the affinity is set: its threads inherit it

    stage = Stage(open_session(task.stage.path, threads=task.threads, provider=task.provider), task)
    for batch in task.warm_batches:
        for _ in range(2):
            stage(_ones(task.stage.inputs, batch))
    return stage


def _ones(layouts: Sequence[TensorLayout], batch: int) -> dict[str, np.ndarray]:
    """Return inputs of the right form for a warm-up."""
    return {
        layout.name: np.ones(
            (layout.shape[0] * batch, *layout.shape[1:]) if layout.batched else layout.shape, layout.dtype
        )
        for layout in layouts
    }


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
