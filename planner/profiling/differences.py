"""How far tensors are from each other.

Differences are measured twice: the largest one relative to the largest magnitude, and the root mean square relative to
the tensors' own. The second sees what is wrong everywhere a little, the first what is wrong in one place.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Difference(NamedTuple):
    """How far an answer is from another: the largest difference, and the root mean square, both relative."""

    largest: float
    rms: float

    def within(self, other: "Difference") -> bool:
        """Tell whether neither figure is larger than the other's."""
        return self.largest <= other.largest and self.rms <= other.rms

    def times(self, factor: float) -> "Difference":
        """Return so many times both."""
        return Difference(factor * self.largest, factor * self.rms)


NONE = Difference(0.0, 0.0)
ANY = Difference(np.inf, np.inf)


def largest(differences: Sequence[Difference]) -> Difference:
    """Return the largest of both figures; nothing where there is none."""
    return Difference(
        max((each.largest for each in differences), default=0.0), max((each.rms for each in differences), default=0.0)
    )


def scale_of(tensors: Sequence[np.ndarray]) -> Difference:
    """Return the largest magnitude in some tensors, and the largest root mean square of one of them.

    >>> scale_of([np.array([3.0, -4.0]), np.array([1.0, np.nan])])
    Difference(largest=4.0, rms=3.5355339059327378)
    """
    found = [NONE]
    for tensor in tensors:
        size = np.abs(tensor.astype(np.complex128 if np.iscomplexobj(tensor) else np.float64))
        size = size[np.isfinite(size)]
        if size.size:
            found.append(Difference(float(size.max()), float(np.sqrt(np.mean(size**2)))))
    return largest(found)


def difference(got: np.ndarray, expected: np.ndarray, scale: Difference | None = None) -> Difference:
    """Return how far a tensor is from another one of numbers; `ANY` where no number says so.

    It is relative to a ``scale`` (`scale_of`), by default the expected tensor's.

    >>> difference(np.array([1.0, 2.0, np.nan]), np.array([1.0, 4.0, np.nan])).largest
    0.5
    """
    if got.shape != expected.shape or got.dtype != expected.dtype:
        return ANY
    wide = np.complex128 if np.iscomplexobj(got) else np.float64
    mine, theirs = got.astype(wide), expected.astype(wide)
    finite = np.isfinite(theirs)
    if not np.array_equal(np.where(finite, 0, mine), np.where(finite, 0, theirs), equal_nan=True):
        return ANY
    if not np.isfinite(mine[finite]).all():
        return ANY
    gap = np.abs(mine[finite] - theirs[finite])
    if not gap.any():
        return NONE
    scale = scale or scale_of([expected])
    return Difference(float(gap.max() / (scale.largest or 1.0)), float(np.sqrt(np.mean(gap**2)) / (scale.rms or 1.0)))


def equal(got: np.ndarray, expected: np.ndarray) -> bool:
    """Tell whether two tensors are the same, NaN equal to NaN."""
    if got.shape != expected.shape or got.dtype != expected.dtype:
        return False
    return bool(np.array_equal(got, expected, equal_nan=got.dtype.kind in "fc"))
