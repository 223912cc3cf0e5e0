"""What stages read and make: the models that workers open, and the sizes of tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np

SHAPE_BYTES = 64  # before a tensor whose size depends on the data: how many axes it has, and their sizes


@dataclass(frozen=True)
class TensorLayout:
    """What one request of a tensor looks like.

    ``batch_axis`` is the axis along which it grows with the batch, None where its size is always the same. Of a tensor
    whose size depends on the data ``shape`` is one that was met, and ``room_bytes`` what is set aside for it.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    request_bytes: int
    batch_axis: int | None
    room_bytes: int = 0

    def nbytes(self, batch: int) -> int:
        """Return the bytes of a batch."""
        if self.room_bytes:
            return SHAPE_BYTES + self.room_bytes
        return self.request_bytes * (1 if self.batch_axis is None else batch)

    def batch_shape(self, batch: int) -> tuple[int, ...]:
        """Return the shape of a batch.

        >>> TensorLayout("x", "float32", (1, 3), 12, 0).batch_shape(4)
        (4, 3)
        >>> TensorLayout("state", "float32", (2, 1, 3), 24, 1).batch_shape(4)
        (2, 4, 3)
        """
        axis = self.batch_axis
        if axis is None:
            return self.shape
        return (*self.shape[:axis], self.shape[axis] * batch, *self.shape[axis + 1 :])

    def mismatch(self, tensor: np.ndarray, batch: int) -> str:
        """Return how a tensor differs from what the model promised, an empty text where it does not."""
        got = f"tensor {self.name!r} is {tensor.dtype.name} {list(tensor.shape)}, "
        if self.room_bytes:
            fits = tensor.dtype == self.dtype and tensor.ndim < SHAPE_BYTES // 8 and tensor.nbytes <= self.room_bytes
            return "" if fits else got + f"of which {self.room_bytes} bytes were set aside as {self.dtype}"
        shape = self.batch_shape(batch)
        if tensor.shape == shape and tensor.dtype == self.dtype:
            return ""
        return got + f"its model promised {self.dtype} {list(shape)}"


@dataclass(frozen=True)
class StageModel:
    """The part of a model that one stage runs: its file, what it reads, what it makes."""

    path: Path
    inputs: tuple[TensorLayout, ...]
    outputs: tuple[TensorLayout, ...]

    def warm_up_file(self, batch: int) -> Path:
        """Return where inputs of a batch lie with which workers warm up: arrays in the order of ``inputs`` (.npz)."""
        return self.path.with_name(f"{self.path.stem}.batch{batch}.npz")


@dataclass(frozen=True)
class PipelineModels:
    """The stage models of one pipeline, in order; ``requests`` is what a request brings, ``answers`` what it gets."""

    stages: tuple[StageModel, ...]
    requests: tuple[TensorLayout, ...]
    answers: tuple[str, ...]

    def needed_after(self, stage: int) -> frozenset[str]:
        """Return the tensors that must outlive ``stage``: what later stages read, and the answers."""
        read = {layout.name for later in self.stages[stage + 1 :] for layout in later.inputs}
        return frozenset(read | set(self.answers))


ALIGNMENT = 64  # bytes: a cache line, and enough for any vector instruction


def aligned(nbytes: int) -> int:
    """Return the next multiple of `ALIGNMENT`.

    >>> aligned(1), aligned(64)
    (64, 64)
    """
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def packed(layouts: Sequence[TensorLayout], batch: int) -> tuple[tuple[int, ...], int]:
    """Return where the tensors of a batch begin that lie one after the other, and the bytes that they take.

    >>> packed([TensorLayout("x", "float32", (3,), 12, 0)] * 2, batch=10)
    ((0, 128), 256)
    """
    *offsets, end = accumulate((aligned(layout.nbytes(batch)) for layout in layouts), initial=0)
    return tuple(offsets), end
