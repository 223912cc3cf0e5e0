"""Tensors between processes of one machine: written once into shared memory, read in place.

A *segment* is a piece of shared memory, divided into equal slots. All segments are made, and all slots are given
out and taken back, by one process (the frontend's), so there is nothing to lock. A slot holds what one
stage made for one batch, tensor after tensor. What travels between processes is a tensor's *place*: segment,
offset, element type, shape. Nothing is pickled.
"""

import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import NamedTuple

import numpy as np

from planner.model import InputError
from simulator.executor.layouts import ALIGNMENT

# One try almost always does; the others are for names that another program took.
_NAMES_TRIED = 20
_SHARED_MEMORY = Path("/dev/shm")


class Place(NamedTuple):
    """Where a tensor lies: ``nbytes`` from byte ``offset`` of a segment."""

    segment: str
    offset: int
    nbytes: int
    dtype: str
    shape: tuple[int, ...]


def new_name() -> str:
    """Return a name for a segment that is most probably free."""
    return f"poolpipe-{secrets.token_hex(6)}"


class Segment:
    """A segment that this process made, and its free slots.

    Examples
    --------
    >>> segment = Segment(slots=2, slot_bytes=64)
    >>> first = segment.take()
    >>> places = write(segment.memory, first, 64, {"x": np.arange(3)})
    >>> read(segment.memory, places["x"]).tolist(), segment.take(), segment.take()
    ([0, 1, 2], 64, None)
    >>> segment.close()
    """

    def __init__(self, slots: int, slot_bytes: int, name: Callable[[], str] = new_name) -> None:
        self.slot_bytes = max(ALIGNMENT, -(-slot_bytes // ALIGNMENT) * ALIGNMENT)
        self.memory = _create(slots * self.slot_bytes, name)
        self._free = [slot * self.slot_bytes for slot in reversed(range(slots))]

    @property
    def name(self) -> str:
        """The name by which other processes attach."""
        return self.memory.name

    def take(self) -> int | None:
        """Return the offset of a free slot, None where all are in use."""
        return self._free.pop() if self._free else None

    def give_back(self, offset: int) -> None:
        """Make a slot free again."""
        assert offset not in self._free, "a slot was given back twice"
        self._free.append(offset)

    def close(self) -> None:
        """Free the memory once no process uses it any more."""
        with suppress(BufferError):  # a requester still holds a view; the memory goes with it
            self.memory.close()
        self.memory.unlink()


def _create(size: int, name: Callable[[], str]) -> SharedMemory:
    """Return new shared memory; a name that is taken is not ours, so another one is tried."""
    free = shutil.disk_usage(_SHARED_MEMORY).free if _SHARED_MEMORY.exists() else size
    if size > free:  # it would be given, and end the process when it is written to
        raise InputError(
            f"shared memory: {size / 1e6:.1f} MB needed, {free / 1e6:.1f} MB free in {_SHARED_MEMORY}; "
            "lower --in-flight or --queue, or enlarge it"
        )
    for _ in range(_NAMES_TRIED):
        try:
            return SharedMemory(name(), create=True, size=size)
        except FileExistsError:
            continue
    raise InputError(f"shared memory: {_NAMES_TRIED} names were taken; remove what other runs left there")


class Attached:
    """The segments of other processes that this one has opened, by name."""

    def __init__(self) -> None:
        self._open: dict[str, SharedMemory] = {}

    def __getitem__(self, name: str) -> SharedMemory:
        """Return a segment, opened on first use."""
        if name not in self._open:
            self._open[name] = SharedMemory(name)
        return self._open[name]


def write(memory: SharedMemory, offset: int, capacity: int, tensors: Mapping[str, np.ndarray]) -> dict[str, Place]:
    """Copy tensors into a slot, one after the other, and return their places.

    Raises
    ------
    ValueError
        They do not fit: a tensor is larger than its model's shapes promised.
    """
    places = {}
    end = offset + capacity
    for name, tensor in tensors.items():
        if offset + tensor.nbytes > end:
            raise ValueError(f"tensor {name!r} of shape {list(tensor.shape)} does not fit into its slot")
        place = Place(memory.name, offset, tensor.nbytes, tensor.dtype.name, tensor.shape)
        read(memory, place)[...] = tensor
        places[name] = place
        offset += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
    return places


def write_rows(
    memory: SharedMemory, offset: int, capacity: int, requests: Iterable[Mapping[str, np.ndarray]]
) -> dict[str, Place]:
    """Put the tensors of several requests together as one batch, straight into a slot; returns their places."""
    rows = list(requests)
    places = {}
    end = offset + capacity
    for name, first in rows[0].items():
        shape = (sum(row[name].shape[0] for row in rows), *first.shape[1:])
        nbytes = sum(row[name].nbytes for row in rows)
        place = Place(memory.name, offset, nbytes, first.dtype.name, shape)
        if offset + place.nbytes > end:
            raise ValueError(f"input {name!r} of shape {list(shape)} does not fit into its slot")
        np.concatenate([row[name] for row in rows], out=read(memory, place))
        places[name] = place
        offset += -(-place.nbytes // ALIGNMENT) * ALIGNMENT
    return places


def read(memory: SharedMemory, place: Place) -> np.ndarray:
    """Return a tensor in place, without a copy."""
    return np.ndarray(place.shape, place.dtype, memory.buf, place.offset)
