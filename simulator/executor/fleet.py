"""What the frontend needs of the workers of a run, wherever they are: here, or on other machines.

The frontend decides, a fleet does. It never blocks except in ``start`` and ``poll``. Times in its events are
nanoseconds of the frontend's monotonic clock.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

Tensors = Mapping[str, np.ndarray]


class SliceId(NamedTuple):
    """A slice: which pipeline, which stage of it, which slice of that stage's pool."""

    pipeline: int
    stage: int
    slice: int

    def __str__(self) -> str:
        """Return a name for messages, such as ``pipeline 0 stage 1 slice 2``."""
        return f"pipeline {self.pipeline} stage {self.stage} slice {self.slice}"


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

    def start(self) -> None:
        """Start all workers and wait until they are ready; raises InputError, with none left behind, if one is not."""

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
