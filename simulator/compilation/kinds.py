"""Kinds of arguments: what machine code depends on. All whole numbers are of one kind."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any
from weakref import ref

import numpy as np

INT, BOOL, FLOAT = "int", "bool", "float"


@dataclass(frozen=True, eq=False)
class ArrayKind:
    """Arrays of one dtype and number of dimensions, in C order without gaps or not; there is one object a kind.

    What writes to an array cannot be compiled for one that may not be written.
    """

    dtype: np.dtype[Any]
    dimensions: int
    contiguous: bool
    writable: bool

    def __str__(self) -> str:
        """Describe it so that another process understands the same."""
        return f"{self.dtype.descr} {self.dtype.itemsize} {self.dimensions} {self.contiguous} {self.writable}"


@dataclass(frozen=True, eq=False)
class TupleKind:
    """Named tuples of arrays; there is one object a kind."""

    of: type[Any]
    arrays: tuple[ArrayKind, ...]

    def __str__(self) -> str:
        """Describe it so that another process understands the same."""
        return f"{self.of.__module__}.{self.of.__qualname__} {[*map(str, self.arrays)]}"


Kind = str | ArrayKind | TupleKind

array_kind = cache(ArrayKind)
tuple_kind = cache(TupleKind)


def kind_of_array(array: np.ndarray) -> ArrayKind:
    """Return the kind of an array."""
    flags = array.flags
    return array_kind(array.dtype, array.ndim, flags.c_contiguous, flags.writeable)


class LastTuple:
    """The kind of the named tuple that was looked at last, remembered as long as its arrays live.

    A run calls with the same state again and again, and to look at its arrays takes longer than a short call.
    """

    def __init__(self) -> None:
        self._arrays: tuple[int, ...] = ()
        self._kind: TupleKind | None = None
        self._watch: list[ref[np.ndarray]] = []

    def kind(self, arrays: Sequence[np.ndarray]) -> TupleKind:
        """Return the kind of a named tuple of arrays."""
        numbers = tuple(map(id, arrays))
        if self._kind is None or numbers != self._arrays:
            self._watch = [ref(array, self._forget) for array in arrays]
            self._kind = tuple_kind(type(arrays), tuple(map(kind_of_array, arrays)))
            self._arrays = numbers
        return self._kind

    def _forget(self, _: "ref[np.ndarray]") -> None:
        self._kind = None
