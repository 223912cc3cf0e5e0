"""Tensors between processes of one machine: written once into shared memory, read in place.

A *segment* is a piece of shared memory that one process (the frontend's) has made, and others attach to by its name.
What travels between processes is where a tensor begins; its element type and shape follow from the model. Nothing is
pickled.
"""

import os
import secrets
import shutil
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np

from planner.model import InputError
from simulator.executor.layouts import SHAPE_BYTES, TensorLayout

# One try almost always does; the others are for names that another program took.
_NAMES_TRIED = 20
_SHARED_MEMORY = Path("/dev/shm")


def new_name() -> str:
    """Return a name for a segment that is most probably free."""
    return f"poolpipe-{secrets.token_hex(6)}"


class Segment:
    """Shared memory that this process made.

    Examples
    --------
    >>> layout = TensorLayout("x", "float32", (1,), 4, 0)
    >>> segment = Segment(64)
    >>> write(segment.memory, 0, layout, 3, np.arange(3, dtype=np.float32))
    >>> read(segment.memory, 0, layout, 3).tolist()
    [0.0, 1.0, 2.0]
    >>> segment.close()
    """

    def __init__(self, nbytes: int, name: Callable[[], str] = new_name) -> None:
        self.memory = _create(max(1, nbytes), name)

    @property
    def name(self) -> str:
        """The name by which other processes attach."""
        return self.memory.name

    def close(self) -> None:
        """Free the memory once no process uses it any more."""
        with suppress(BufferError):  # a requester still holds a view; the memory goes with it
            self.memory.close()
        self.memory.unlink()


def free_bytes() -> int | None:
    """Return how much shared memory can still be had, None where that is not known."""
    return shutil.disk_usage(_SHARED_MEMORY).free if _SHARED_MEMORY.exists() else None


def _create(size: int, name: Callable[[], str]) -> SharedMemory:
    """Return new shared memory; a name that is taken is not ours, so another one is tried."""
    free = free_bytes()
    if free is not None and size > free:  # it would be given, and end the process when it is written to
        raise InputError(
            f"shared memory: {size / 1e6:.1f} MB needed, {free / 1e6:.1f} MB free in {_SHARED_MEMORY}; "
            "let fewer batches be under way (--in-flight), or enlarge it"
        )
    for _ in range(_NAMES_TRIED):
        try:
            memory = SharedMemory(name(), create=True, size=size)
        except FileExistsError:
            continue
        _reserve(memory, size)
        return memory
    raise InputError(f"shared memory: {_NAMES_TRIED} names were taken; remove what other runs left there")


def words_of(memory: SharedMemory) -> memoryview:
    """Return shared memory as whole numbers of 64 bits."""
    assert memory.buf is not None, "it is closed"
    return memory.buf[: len(memory.buf) // 8 * 8].cast("q")


def _reserve(memory: SharedMemory, size: int) -> None:
    """Take the memory now: where others fill it up later, writing to what was only promised would end a process."""
    path = _SHARED_MEMORY / memory.name
    if not path.exists():
        return
    try:
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        memory.close()
        memory.unlink()
        raise InputError(
            f"shared memory: {size / 1e6:.1f} MB cannot be had in {_SHARED_MEMORY} ({error.strerror}); lower "
            "--in-flight, or enlarge it"
        ) from None


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


def write(memory: SharedMemory, offset: int, layout: TensorLayout, batch: int, tensor: np.ndarray) -> None:
    """Copy a tensor of a batch to its place.

    Raises
    ------
    ValueError
        It is not what its model's shapes promised.
    """
    if mismatch := layout.mismatch(tensor, batch):
        raise ValueError(mismatch)
    if layout.room_bytes:
        shape = np.ndarray((SHAPE_BYTES // 8,), np.int64, memory.buf, offset)
        shape[: tensor.ndim + 1] = tensor.ndim, *tensor.shape
    read(memory, offset, layout, batch)[...] = tensor
