"""The calendar: a tournament over *sources*, each of which has at most one event ahead.

A source is a server (the end of its service, its fill timeout, or its repair), a card (what it delivers next), a
station's timer, the list of outages, a frontend, a class of requests that follow a route. So no event is ever stale: a
source is armed anew, or disarmed.

    tree[leaves + source] = time << 20 | kind << 16 | source

below 2^42 µs (50 days) and 65,536 sources. Every inner node holds the least of its two children; of two with one time
and kind the one whose ``order`` is less. So ``tree[1]`` is the next event, and the order of events is total. A source
without an event has ``IDLE | source << 20 | source``: no two of these have one time, so that they cost no comparison of
orders.
"""

import numpy as np

from simulator.compilation import compiled, compiled_apart
from simulator.dispatch.system import Ints

TIME_BITS, KIND_BITS = 20, 16
SOURCES = 1 << KIND_BITS
SOURCE_MASK, KIND_MASK = SOURCES - 1, 15
IDLE = 1 << 62
END_OF_TIME_US = (1 << 42) - 1  # no event is later
HORIZON_US = 1 << 41  # the last arrival comes before

# Kinds, in their order at one instant. Of a single class of requests arrivals are no events; they come last.
UNIT, AWAKE, END, REACH, TIMER, FILL, WORK, DISPATCH, ARRIVAL = range(9)


def empty_calendar(sources: int) -> tuple[Ints, Ints]:
    """Return tree and order of a calendar without events."""
    leaves = 1 << max(1, (sources - 1).bit_length())
    tree = np.full(2 * leaves, IDLE, np.int64)
    numbers = np.arange(leaves)
    tree[leaves:] |= numbers << TIME_BITS | numbers
    for node in range(leaves - 1, 0, -1):
        tree[node] = min(tree[2 * node], tree[2 * node + 1])
    return tree, np.zeros(leaves, np.int64)


@compiled
def arm(tree: Ints, order: Ints, source: int, time: int, kind: int, number: int) -> None:
    """Let a source's only event be at ``time``; among those of its kind then it goes by ``number``."""
    order[source] = number
    settle(tree, order, source, (min(time, END_OF_TIME_US) << TIME_BITS) | (kind << KIND_BITS) | source)


@compiled
def disarm(tree: Ints, order: Ints, source: int) -> None:
    """Let a source have no event."""
    idle = IDLE | (source << TIME_BITS) | source
    if tree[len(order) + source] != idle:
        settle(tree, order, source, idle)


@compiled
def kind_armed(tree: Ints, order: Ints, source: int) -> int:
    """Return the kind of a source's event; that of a source without one is UNIT."""
    return int((tree[len(order) + source] >> KIND_BITS) & KIND_MASK)


@compiled
def time_armed(tree: Ints, order: Ints, source: int) -> int:
    """Return when a source's event is; beyond all time for a source without one."""
    return int(tree[len(order) + source] >> TIME_BITS)


@compiled
def settle(tree: Ints, order: Ints, source: int, event: int) -> None:
    """Enter an event, and play it against the others up to the root.

    It does not stop where the winner stays: that would be one branch in each round that cannot be predicted.
    """
    node = len(order) + source
    first = event
    tree[node] = first
    while node > 1:
        other = tree[node ^ 1]
        of_one_kind = (first ^ other) >> KIND_BITS == 0  # and of one time
        first = winner(order, first, other) if of_one_kind else min(first, other)
        node >>= 1
        tree[node] = first


@compiled_apart
def winner(order: Ints, first: int, other: int) -> int:
    """Return which of two events of one time and kind comes first."""
    a, b = order[first & SOURCE_MASK], order[other & SOURCE_MASK]
    if a == b:
        return min(first, other)
    return first if a < b else other
