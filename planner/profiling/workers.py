"""Processes beside the one that measures: neighbours on the same cores, and one whose memory is watched.

Neighbours keep running a model while another worker of it is being timed. Peak memory is measured in a process of its
own, since no process can forget what it held before.
"""

import multiprocessing
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import onnx_ir as ir

from planner.model import InputError
from planner.profiling.library import onnxruntime
from planner.profiling.runtime import open_session, run_model
from planner.profiling.timing import pinned


class Neighbours:
    """Processes that load a model and run it while told to; made by `colocated`."""

    def __init__(self, pipes: Sequence[Connection], folder: Path) -> None:
        self._pipes = pipes
        self._folder = folder
        self._own_feeds: list[Mapping[str, np.ndarray] | None] = [None] * len(pipes)

    def load(self, *models: ir.Model, feeds: Sequence[Mapping[str, np.ndarray]] = ()) -> None:
        """Give neighbours models to run, in turn; with ``feeds`` each model has its own, whatever `busy` gives."""
        if self._pipes:
            paths = [_save(model, self._folder, f"model{number}") for number, model in enumerate(models)]
            for number, pipe in enumerate(self._pipes):
                self._own_feeds[number] = feeds[number % len(models)] if feeds else None
                pipe.send(str(paths[number % len(models)]))
            for pipe in self._pipes:
                pipe.recv()

    @contextmanager
    def busy(self, feeds: Mapping[str, np.ndarray]) -> Iterator[None]:
        """Keep all neighbours running their models, on ``feeds`` where they have none of their own."""
        for pipe, own in zip(self._pipes, self._own_feeds, strict=True):
            pipe.send(dict(feeds if own is None else own))
        for pipe in self._pipes:
            pipe.recv()  # the first run is over: all are warm
        try:
            yield
        finally:
            for pipe in self._pipes:
                pipe.send(None)
            for pipe in self._pipes:
                pipe.recv()


@contextmanager
def colocated(share: int, threads: int, cores: int, provider: str, first_core: int = 0) -> Iterator[Neighbours]:
    """Start ``share`` - 1 neighbours of a timed worker, each with its own threads on the same cores; end them after.

    With ``first_core`` their cores begin there, beside those of the worker.
    """
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    with tempfile.TemporaryDirectory(prefix="poolpipe-") as folder:
        for _ in range(share - 1):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, threads, cores, provider, first_core), daemon=True)
            process.start()
            theirs.close()
            pipes.append(ours)
            processes.append(process)
        try:
            yield Neighbours(pipes, Path(folder))
        finally:
            for pipe in pipes:
                pipe.close()  # a worker whose pipe ends, ends
            for process in processes:
                process.join(timeout=5)
                process.kill()
                process.join()


def _serve(pipe: Connection, threads: int, cores: int, provider: str, first_core: int) -> None:
    """Run a model until the pipe closes: a text loads one, feeds start it, None stops it."""
    session = None
    with pinned(cores, first_core):
        while True:
            try:
                message = pipe.recv()
                if isinstance(message, str):
                    session = open_session(Path(message), threads=threads, provider=provider)
                else:
                    run_model(session, message)
                    pipe.send("busy")
                    while not pipe.poll():
                        run_model(session, message)
                    pipe.recv()
                pipe.send("done")
            except (EOFError, BrokenPipeError):
                return


def measure_peak_memory(
    model: ir.Model, feeds: Sequence[Mapping[str, np.ndarray]], threads: int, cores: int, provider: str
) -> tuple[int, ...] | None:
    """Return by how many bytes the resident size of a fresh process has grown at most, after each of some runs.

    Loading the model is part of it: weights, what the runtime makes of them, and activations. None where the system
    does not tell the peak (other than Linux).
    """
    if _resident_bytes("VmHWM") is None:
        return None
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with tempfile.TemporaryDirectory(prefix="poolpipe-") as folder:
        path = _save(model, Path(folder))
        process = context.Process(target=_watch_memory, args=(theirs, path, threads, cores, provider), daemon=True)
        process.start()
        theirs.close()
        peaks = []
        try:
            for given in feeds:
                ours.send(dict(given))
                peaks.append(int(ours.recv()))
        except (EOFError, BrokenPipeError):
            raise InputError(
                f"the process that was to measure the memory of {model.graph.name!r} ended; "
                "profile fewer or smaller batches if the machine ran out of memory"
            ) from None
        finally:
            ours.close()
            process.join(timeout=5)
            process.kill()
            process.join()
    return tuple(peaks)


def _watch_memory(pipe: Connection, path: Path, threads: int, cores: int, provider: str) -> None:
    """Answer each feeds with the peak of the resident size so far, over that before the model was loaded."""
    onnxruntime()  # its own size is not the model's

    with pinned(cores):
        try:
            feeds = pipe.recv()
            before = _resident_bytes("VmRSS")
            session = open_session(path, threads=threads, provider=provider)
            while True:
                run_model(session, feeds)
                pipe.send((_resident_bytes("VmHWM") or 0) - (before or 0))
                feeds = pipe.recv()
        except (EOFError, BrokenPipeError):
            return


def _resident_bytes(field: str) -> int | None:
    """Return a field of this process's status, or None where the system has none."""
    try:
        with open("/proc/self/status", encoding="ascii") as lines:
            return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)
    except OSError:
        return None


def _save(model: ir.Model, folder: Path, name: str = "model") -> Path:
    path = folder / f"{name}.onnx"
    ir.save(model, path, external_data=f"{name}.data")
    return path
