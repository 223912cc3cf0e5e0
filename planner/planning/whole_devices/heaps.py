"""A heap of labels by their keys, and a hash table of them by their residues, for compiled searches."""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from planner.compilation import compiled
from planner.planning.arrays import Floats, Integers

searched = partial(compiled, error_model="numpy")


@searched
def push(heap: NDArray[np.int32], key: Floats, size: int, label: int) -> int:
    """Add a label to a heap of so many, and return how many there are then."""
    heap[size] = label
    at = size
    while at > 0:
        above = (at - 1) >> 1
        if key[heap[above]] <= key[heap[at]]:
            break
        heap[above], heap[at] = heap[at], heap[above]
        at = above
    return size + 1


@searched
def pop(heap: NDArray[np.int32], key: Floats, size: int) -> int:
    """Move the least to the end of the heap, behind ``size - 1`` others."""
    top = heap[0]
    size -= 1
    heap[0] = heap[size]
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and key[heap[child + 1]] < key[heap[child]]:
            child += 1
        if key[heap[at]] <= key[heap[child]]:
            break
        heap[at], heap[child] = heap[child], heap[at]
        at = child
    heap[size] = top
    return size


@searched
def slot_of(
    table: NDArray[np.int32],
    residue: NDArray[np.int16],
    wanted: NDArray[np.int16],
    whole: NDArray[np.int32],
    taken: Integers,
    apart: NDArray[np.bool_],
) -> int:
    """Return the place of a label's residues, or a free one, in an open hash table of labels.

    Labels whose devices ``whole[label, type]`` of types ``apart`` are not as many as ``taken[type]`` are others.
    """
    mask = len(table) - 1
    mixed = 0
    for pool in range(len(wanted)):
        mixed = (mixed * 1000003 + wanted[pool]) & 0x7FFFFFFFFFFF
    for kind in range(len(taken)):
        if apart[kind]:
            mixed = (mixed * 1000003 + taken[kind]) & 0x7FFFFFFFFFFF
    at = (mixed ^ (mixed >> 23)) & mask
    while table[at] >= 0:
        known = table[at]
        same = True
        for pool in range(len(wanted)):
            if residue[known, pool] != wanted[pool]:
                same = False
                break
        for kind in range(len(taken)):
            if apart[kind] and whole[known, kind] != taken[kind]:
                same = False
                break
        if same:
            break
        at = (at + 1) & mask
    return at


@searched
def hash_table(labels: int) -> NDArray[np.int32]:
    """Return an empty table with room for so many labels."""
    size = 1
    while size < 2 * labels:
        size *= 2
    return np.full(size, -1, np.int32)
