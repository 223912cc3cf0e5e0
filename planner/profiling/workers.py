"""Neighbours on the same cores: processes that keep running a block while one of its kind is being timed."""

import multiprocessing
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import onnx_ir as ir

from planner.profiling.runtime import open_session, run_model
from planner.profiling.timing import pinned


class Neighbours:
    """Processes that load the same block and run it while told to; made by `colocated`."""

    def __init__(self, pipes: Sequence[Connection], folder: Path) -> None:
        self._pipes = pipes
        self._folder = folder

    def load(self, model: ir.Model) -> None:
        """Give all neighbours a block to run."""
        if self._pipes:
            path = self._folder / "block.onnx"
            ir.save(model, path, external_data="block.data")
            for pipe in self._pipes:
                pipe.send(str(path))
            for pipe in self._pipes:
                pipe.recv()

    @contextmanager
    def busy(self, feeds: Mapping[str, np.ndarray]) -> Iterator[None]:
        """Keep all neighbours running the block on ``feeds``."""
        for pipe in self._pipes:
            pipe.send(dict(feeds))
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
def colocated(share: int, threads: int, cores: int, provider: str) -> Iterator[Neighbours]:
    """Start ``share`` - 1 neighbours of a timed worker, each with its own threads on the same cores; end them after."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    with tempfile.TemporaryDirectory(prefix="poolpipe-") as folder:
        for _ in range(share - 1):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, threads, cores, provider), daemon=True)
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


def _serve(pipe: Connection, threads: int, cores: int, provider: str) -> None:
    """Run blocks until the pipe closes: a text loads a block, feeds start it, None stops it."""
    session = None
    with pinned(cores):
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
