"""A heap of labels by their keys, for compiled searches."""

from functools import partial

from planner.compilation import compiled
from planner.planning.arrays import Floats, Integers

searched = partial(compiled, error_model="numpy")


@searched
def push(heap: Integers, key: Floats, size: int, label: int) -> int:
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
def pop(heap: Integers, key: Floats, size: int) -> int:
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
