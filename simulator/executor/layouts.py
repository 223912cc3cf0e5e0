"""What stages read and make: the models that workers open, and the sizes of tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TensorLayout:
    """What one request of a tensor looks like; ``batched`` tells whether it grows with the batch."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    request_bytes: int
    batched: bool

    def nbytes(self, batch: int) -> int:
        """Return the bytes of a batch."""
        return self.request_bytes * (batch if self.batched else 1)


@dataclass(frozen=True)
class StageModel:
    """The part of a model that one stage runs: its file, what it reads, what it makes."""

    path: Path
    inputs: tuple[TensorLayout, ...]
    outputs: tuple[TensorLayout, ...]

    def output_bytes(self, batch: int) -> int:
        """Return the bytes that a batch's outputs take, each tensor at a multiple of `ALIGNMENT`."""
        return packed_bytes(self.outputs, batch)


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


def packed_bytes(layouts: Sequence[TensorLayout], batch: int) -> int:
    """Return the bytes that tensors of a batch take one after the other.

    >>> packed_bytes([TensorLayout("x", "float32", (3,), 12, True)] * 2, batch=10)
    256
    """
    return sum(-(-layout.nbytes(batch) // ALIGNMENT) * ALIGNMENT for layout in layouts)
