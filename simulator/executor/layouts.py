"""What stages read and make: the models that workers open, and the sizes of tensors."""

from dataclasses import dataclass
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

    def alive_after(self, stage: int) -> tuple[TensorLayout, ...]:
        """Return what of all that is there when ``stage`` is through (-1: what requests bring) must outlive it."""
        needed = self.needed_after(stage)
        made = [self.requests, *(each.outputs for each in self.stages[: stage + 1])]
        return tuple(layout for layouts in made for layout in layouts if layout.name in needed)


ALIGNMENT = 64  # bytes: a cache line, and enough for any vector instruction


def aligned(nbytes: int) -> int:
    """Return the next multiple of `ALIGNMENT`.

    >>> aligned(1), aligned(64)
    (64, 64)
    """
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def places(models: PipelineModels, batch: int) -> tuple[dict[str, int], int]:
    """Return where the tensors that stages make of a batch begin, and the bytes that they take in all.

    Tensors that are never needed together may take the same place: a stage's outputs take none that a later stage, or
    the stage itself, still reads from.

    >>> x, y, z = (TensorLayout(name, "float32", (1,), 4, 0) for name in "xyz")
    >>> stages = [StageModel(Path(), (a,), (b,)) for a, b in ((x, y), (y, z), (z, x))]
    >>> places(PipelineModels(tuple(stages), (x,), ("x",)), batch=16)
    ({'y': 0, 'z': 64, 'x': 0}, 128)
    """
    placed: dict[str, tuple[int, int]] = {}
    for number, stage in enumerate(models.stages):
        needed = models.needed_after(number) | {layout.name for layout in stage.inputs}
        taken = sorted(span for name, span in placed.items() if name in needed)
        for layout in stage.outputs:
            nbytes, begin = aligned(layout.nbytes(batch)), 0
            for first, end in taken:
                if first - begin >= nbytes:
                    break
                begin = max(begin, end)
            placed[layout.name] = begin, begin + nbytes
            taken = sorted([*taken, placed[layout.name]])
    return {name: begin for name, (begin, _) in placed.items()}, max((end for _, end in placed.values()), default=0)
