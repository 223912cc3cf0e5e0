"""What the frontend needs of the workers of a run, wherever they are: here, or on other machines.

The frontend decides, a fleet does. It never blocks except in ``poll`` and ``close``. Times in its events are
nanoseconds of the frontend's monotonic clock.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from planner.model import InputError
from simulator.executor.layouts import PipelineModels
from simulator.executor.workers import WorkerTask

READY_WITHIN_S = 120.0  # opening a model of gigabytes takes long, a worker that is stuck takes for ever

Tensors = Mapping[str, np.ndarray]


class SliceId(NamedTuple):
    """A slice: which pipeline, which stage of it, which slice of that stage's pool."""

    pipeline: int
    stage: int
    slice: int

    def __str__(self) -> str:
        """Return a name for messages, such as ``pipeline 0 stage 1 slice 2``."""
        return f"pipeline {self.pipeline} stage {self.stage} slice {self.slice}"


@dataclass(frozen=True, eq=False)
class Equipment:
    """What a fleet is to be made of.

    Attributes
    ----------
    models, batches
        Per pipeline: its stage models, its largest batch.
    tasks
        What the worker of each slice is to be.
    inputs
        What requests bring, ``[sample, ...]`` of every input, a sample being what one request has; request number n
        brings sample n modulo their number.
    queue
        Batches that a worker has made and the next stage has not finished with, at most; a worker whose
        outputs find no room waits.
    """

    models: Sequence[PipelineModels]
    batches: Sequence[int]
    tasks: Mapping[SliceId, WorkerTask]
    inputs: Tensors
    queue: int


class Parcel(NamedTuple):
    """The tensors that one stage (or a requester) made for one batch; ``held`` is the fleet's business."""

    maker: SliceId | None
    bytes_of: Mapping[str, int]
    held: Any


@dataclass(frozen=True)
class Up:
    """A slice is ready for work."""

    slice: SliceId


@dataclass(frozen=True)
class Down:
    """A slice is gone, with everything that it was given and did not finish."""

    slice: SliceId
    reason: str


class Finished(NamedTuple):
    """A slice finished a batch: took it in hand, had computed its outputs, had put them where others find them."""

    slice: SliceId
    batch: int
    parcel: Parcel
    start_ns: int
    computed_ns: int
    end_ns: int


@dataclass(frozen=True)
class Refused:
    """A slice could not run a batch, and goes on with others."""

    slice: SliceId
    batch: int
    reason: str


Event = Up | Down | Finished | Refused


class Fleet(Protocol):
    """The workers of a run, one per slice."""

    def place(self, pipeline: int, first: int, size: int) -> Parcel:
        """Return the inputs of requests [first, first + size), where workers find them."""

    def submit(self, slice_id: SliceId, batch: int, parcels: Mapping[str, Parcel]) -> bool:
        """Give a slice a batch: its stage's inputs, in order.

        False if there is no room for its outputs now, or a `Down` of it is about to come.
        """

    def poll(self, timeout_s: float) -> list[Event]:
        """Return what happened; wait for it at most ``timeout_s``."""

    def fetch(self, parcel: Parcel, names: Sequence[str]) -> Tensors:
        """Return tensors of a parcel; they are valid until it is released."""

    def release(self, parcel: Parcel) -> None:
        """Free the room that a parcel takes."""

    def dismiss(self, slice_id: SliceId) -> None:
        """End the worker of a slice, if there is one, at once; what it made and others still read stays."""

    def restart(self, slice_id: SliceId) -> None:
        """Start a worker for a slice that has none; an `Up` follows when it is ready."""

    def usage(self) -> Mapping[SliceId, tuple[float, int]]:
        """Return CPU seconds used so far and resident bytes of the workers that are up."""

    def close(self) -> None:
        """Stop all workers and free what the run took."""


def start(fleet: Fleet, slices: Sequence[SliceId]) -> None:
    """Start the workers of all slices and wait until they are ready.

    Raises
    ------
    InputError
        One does not start, or not in time; the fleet is then to be closed.
    """
    for slice_id in slices:
        fleet.restart(slice_id)
    missing = set(slices)
    until_s = time.monotonic() + READY_WITHIN_S
    while missing:
        for event in fleet.poll(1.0):
            if isinstance(event, Down | Refused):
                raise InputError(f"{event.slice}: its worker did not start: {event.reason}")
            missing.discard(event.slice)
        if missing and time.monotonic() > until_s:
            raise InputError(
                f"{min(missing)}: its worker was not ready after {READY_WITHIN_S:.0f} s; is the machine busy?"
            )
