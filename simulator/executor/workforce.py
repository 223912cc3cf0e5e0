"""Worker processes of this machine, by number, and the small packets between them and the frontend.

Each worker has an inbox for packets, into which the frontend and the workers before it write. It outlives its process,
so that nobody needs to be told of another one. All report over one channel.
"""

import multiprocessing
import select
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import NamedTuple

import psutil

from simulator.executor.messages import PACKET_BYTES, Done, Failed, Ready, Work, pack, unpack
from simulator.executor.workers import Desk, WorkerTask, run_worker

STOP_WITHIN_S = 3.0


@dataclass(frozen=True)
class Died:
    """A worker's process is no more."""

    worker: int
    reason: str


Report = Ready | Done | Failed | Died


class _Inbox(NamedTuple):
    """Where packets for a worker are put, and where it takes them out."""

    entry: socket.socket
    exit: socket.socket


class Workforce:
    """Processes of workers 0 to ``count`` - 1; none is there until it is started."""

    def __init__(self, count: int) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._processes: dict[int, BaseProcess] = {}
        self._usage: dict[int, psutil.Process] = {}
        self._inboxes = [_Inbox(*socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)) for _ in range(count)]
        self._reports, self._reporting = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # File -> the worker whose end it tells, None for reports.
        self._listening: dict[int, int | None] = {self._reports.fileno(): None}

    def start(self, worker: int, task: WorkerTask, desk: Desk, others: Sequence[int] = ()) -> None:
        """Start a worker without waiting for it; ``others`` are those to whom it may hand batches on."""
        entries = {other: self._inboxes[other].entry for other in others}
        arguments = self._inboxes[worker].exit, self._reporting, entries, task, desk
        process = self._context.Process(target=run_worker, args=arguments, name=f"poolpipe {worker}", daemon=True)
        with _without_main_module():
            process.start()
        self._processes[worker] = process
        self._listening[process.sentinel] = worker

    def send(self, worker: int, work: Work) -> None:
        """Put a packet into a worker's inbox."""
        self._inboxes[worker].entry.send(pack(work))

    def poll(self, timeout_s: float) -> list[Report]:
        """Return what workers said, and then who died; wait for it at most ``timeout_s``.

        ``select`` because it wakes to the microsecond, where poll and epoll round to ms.
        """
        readable, _, _ = select.select(self._listening, [], [], max(0.0, timeout_s))
        if not readable:
            return []
        said, died = self._read(), []
        for worker in [self._listening[handle] for handle in readable]:
            if worker is not None and worker in self._processes:  # else it said before that it could not start
                died.append(Died(worker, f"its process ended (exit code {self._bury(worker)})"))
        return [*said, *died]

    def kill(self, worker: int) -> None:
        """End a worker at once, if there is one."""
        if worker in self._processes:
            self._processes[worker].kill()
            self._bury(worker)

    def usage(self) -> Mapping[int, tuple[float, int]]:
        """Ask the operating system for the CPU seconds and resident bytes of every worker that is up."""
        found = {}
        for worker, process in self._usage.items():
            with suppress(psutil.Error), process.oneshot():
                times = process.cpu_times()
                found[worker] = times.user + times.system, process.memory_info().rss
        return found

    def process_id(self, worker: int) -> int | None:
        """Return the number of a worker's process."""
        return self._processes[worker].pid if worker in self._processes else None

    def close(self) -> None:
        """Stop all workers: their inboxes close."""
        for inbox in self._inboxes:
            inbox.entry.close()
            inbox.exit.close()
        until_s = time.monotonic() + STOP_WITHIN_S
        for process in self._processes.values():
            process.join(max(0.0, until_s - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
        self._processes.clear()
        self._usage.clear()
        self._reports.close()
        self._reporting.close()

    def _read(self) -> list[Report]:
        """Return what workers said, all that is there."""
        said: list[Report] = []
        while True:
            try:
                packet = self._reports.recv(PACKET_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return said
            message = unpack(packet)
            assert not isinstance(message, Work)
            if isinstance(message, Ready):
                with suppress(psutil.Error):  # it died just now
                    self._usage[message.worker] = psutil.Process(message.pid)
            elif isinstance(message, Failed) and message.ticket < 0:
                self._bury(message.worker)
                said.append(Died(message.worker, message.reason))
                continue
            said.append(message)

    def _bury(self, worker: int) -> int | None:
        """Wait for the end of a worker that is dying, and return its exit code."""
        process = self._processes.pop(worker)
        self._usage.pop(worker, None)
        del self._listening[process.sentinel]
        process.join(0.2)
        if process.is_alive():
            process.kill()
            process.join()
        return process.exitcode


@contextmanager
def _without_main_module() -> Iterator[None]:
    """Keep processes from importing the program that starts them: workers need nothing of it, and start sooner."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
