"""Tensors between processes of one machine: written once into shared memory, read in place.

A *segment* is a piece of shared memory, divided into equal slots. All segments are made, and all slots are given
out and taken back, by one process (the frontend's), so there is nothing to lock. A slot holds what one
stage made for one batch, tensor after tensor. What travels between processes is where a tensor begins; its element
type and shape follow from the model. Nothing is pickled.
"""

import secrets
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np

from planner.model import InputError
from simulator.executor.layouts import SHAPE_BYTES, TensorLayout, aligned, packed

# One try almost always does; the others are for names that another program took.
_NAMES_TRIED = 20
_SHARED_MEMORY = Path("/dev/shm")


def new_name() -> str:
    """Return a name for a segment that is most probably free."""
    return f"poolpipe-{secrets.token_hex(6)}"


class Segment:
    """A segment that this process made, and its free slots.

    Examples
    --------
    >>> layouts = [TensorLayout("x", "float32", (1,), 4, 0)]
    >>> segment = Segment(slots=2, slot_bytes=64)
    >>> first = segment.take()
    >>> write(segment.memory, first, layouts, 3, [np.arange(3, dtype=np.float32)])
    >>> read(segment.memory, first, layouts[0], 3).tolist(), segment.take(), segment.take()
    ([0.0, 1.0, 2.0], 64, None)
    >>> segment.close()
    """

    def __init__(self, slots: int, slot_bytes: int, name: Callable[[], str] = new_name) -> None:
        self.slot_bytes = aligned(max(1, slot_bytes))
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
            "lower --queue, or enlarge it"
        )
    for _ in range(_NAMES_TRIED):
        try:
            return SharedMemory(name(), create=True, size=size)
        except FileExistsError:
            continue
    raise InputError(f"shared memory: {_NAMES_TRIED} names were taken; remove what other runs left there")


def read(memory: SharedMemory, offset: int, layout: TensorLayout, batch: int) -> np.ndarray:
    """Return a tensor in place, without a copy; one whose size depends on the data follows its shape."""
    if layout.room_bytes:
        axes, *sizes = np.ndarray((SHAPE_BYTES // 8,), np.int64, memory.buf, offset).tolist()
        return np.ndarray(sizes[:axes], layout.dtype, memory.buf, offset + SHAPE_BYTES)
    return np.ndarray(layout.batch_shape(batch), layout.dtype, memory.buf, offset)


def read_requests(memory: SharedMemory, offset: int, layout: TensorLayout, batch: int) -> np.ndarray:
    """Return what a batch of requests that lie one after the other has of a tensor.

    In place where the batch is the first axis, a copy where it is another one; where there is none, requests have it
    alike, and it is the first one's.
    """
    if layout.batch_axis is None:
        return read(memory, offset, layout, 1)
    each = np.ndarray((batch, *layout.shape), layout.dtype, memory.buf, offset)
    return np.moveaxis(each, 0, layout.batch_axis).reshape(layout.batch_shape(batch))


def write(
    memory: SharedMemory, offset: int, layouts: Sequence[TensorLayout], batch: int, tensors: Sequence[np.ndarray]
) -> None:
    """Copy the tensors of a batch into a slot, one after the other.

    Raises
    ------
    ValueError
        A tensor is not what its model's shapes promised.
    """
    offsets, _ = packed(layouts, batch)
    for layout, begin, tensor in zip(layouts, offsets, tensors, strict=True):
        if mismatch := layout.mismatch(tensor, batch):
            raise ValueError(mismatch)
        if layout.room_bytes:
            shape = np.ndarray((SHAPE_BYTES // 8,), np.int64, memory.buf, offset + begin)
            shape[: tensor.ndim + 1] = tensor.ndim, *tensor.shape
        read(memory, offset + begin, layout, batch)[...] = tensor
