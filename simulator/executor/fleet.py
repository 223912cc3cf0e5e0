"""What the frontend needs of the workers of a run, wherever they are: here, or on other machines.

The frontend decides, a fleet does. It never blocks except in ``poll`` and ``close``. Times in its events are
nanoseconds of the frontend's monotonic clock.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

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
    in_flight
        Batches under way at most.
    """

    models: Sequence[PipelineModels]
    batches: Sequence[int]
    tasks: Mapping[SliceId, WorkerTask]
    inputs: Tensors
    in_flight: int


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
    """A slice finished a batch: took it in hand, had computed its outputs, had put them where others find them.

    ``nbytes`` is what goes on from there. ``handed_on`` tells that the worker has passed the batch to the next slice.
    """

    slice: SliceId
    batch: int
    nbytes: int
    start_ns: int
    computed_ns: int
    end_ns: int
    handed_on: bool


@dataclass(frozen=True)
class Refused:
    """A slice could not run a batch, and goes on with others."""

    slice: SliceId
    batch: int
    reason: str


Event = Up | Down | Finished | Refused


class Fleet(Protocol):
    """The workers of a run, one per slice.

    Events of a batch come in the order of its stages; those of slices that pass it on may come late. `Down` comes after
    all else that happened before. ``answers_in_place`` says that requesters have their answers when the last stage has
    written them; else they have them when the frontend has heard of it.
    """

    answers_in_place: bool

    def take(self, batch: int, pipeline: int, first: int, size: int) -> int:
        """Take room for a batch of requests [first, first + size), with their inputs; return the bytes of these."""

    def send(self, batch: int, stage: int, slices: Sequence[SliceId]) -> None:
        """Give a batch to a slice of a stage, the first of ``slices``; the others are those that follow, if it can be.

        If a `Down` of the slice is about to come, nothing else follows.
        """

    def poll(self, timeout_s: float) -> list[Event]:
        """Return what happened; wait for it at most ``timeout_s``."""

    def look(self) -> list[Event]:
        """Return what happened that nobody said: what slices passed on."""

    def tell_ends(self, wanted: bool) -> None:
        """Say whether the ends of batches are to be told at once; else they may be found by looking only."""

    def answers(self, batch: int) -> Tensors:
        """Return the answers of a batch; they are valid until it is released."""

    def release(self, batch: int) -> None:
        """Free the room that a batch takes."""

    def dismiss(self, slice_id: SliceId) -> None:
        """End the worker of a slice, if there is one, at once; what it finished stays, and nothing is passed on to it.

        Batches on their way to it come back to the frontend from the stage that they are in.
        """

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
