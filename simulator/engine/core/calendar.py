"""The calendar: a tournament over *sources*, each of which has at most one event ahead.

A source is a server (the end of its service, or its fill timeout), a server's repair, a card (what it delivers next), a
station's timer, the list of outages, a frontend. So no event is ever stale: a source is armed anew, or disarmed.

    tree[leaves + source] = time << 20 | kind << 16 | source

below 2^42 µs (50 days) and 65,536 sources. Every inner node holds the least of its two children; of two with one time
and kind the one whose ``order`` is less. So ``tree[1]`` is the next event, and the order of events is total.
"""

import numpy as np

from simulator.dispatch.compiled import compiled
from simulator.dispatch.system import Ints

TIME_BITS, KIND_BITS = 20, 16
SOURCES = 1 << KIND_BITS
SOURCE_MASK, KIND_MASK = SOURCES - 1, 15
IDLE = 1 << 62
END_OF_TIME_US = (1 << 42) - 1  # no event is later
HORIZON_US = 1 << 41  # the last arrival comes before

# Kinds, in their order at one instant; arrivals of requests come after all of them.
UNIT, AWAKE, END, REACH, TIMER, FILL, WORK, DISPATCH = range(8)


def empty_calendar(sources: int) -> tuple[Ints, Ints]:
    """Return tree and order of a calendar without events."""
    leaves = 1 << max(1, (sources - 1).bit_length())
    tree = np.full(2 * leaves, IDLE, np.int64)
    tree[leaves:] |= np.arange(leaves)
    for node in range(leaves - 1, 0, -1):
        tree[node] = min(tree[2 * node], tree[2 * node + 1])
    return tree, np.zeros(leaves, np.int64)


@compiled
def arm(tree: Ints, order: Ints, source: int, time: int, kind: int, number: int) -> None:
    """Let a source's only event be at ``time``; among those of its kind then it goes by ``number``."""
    changed = order[source] != number
    order[source] = number
    time = min(time, END_OF_TIME_US)
    settle(tree, order, source, (time << TIME_BITS) | (kind << KIND_BITS) | source, changed)


@compiled
def disarm(tree: Ints, order: Ints, source: int) -> None:
    """Let a source have no event."""
    if tree[len(order) + source] != IDLE | source:
        settle(tree, order, source, IDLE | source, False)


@compiled
def kind_armed(tree: Ints, order: Ints, source: int) -> int:
    """Return the kind of a source's event; that of a source without one is UNIT."""
    return int((tree[len(order) + source] >> KIND_BITS) & KIND_MASK)


@compiled
def settle(tree: Ints, order: Ints, source: int, event: int, changed: bool) -> None:
    """Enter an event, and play it against the others up to where the winner stays (unless its number has changed)."""
    node = len(order) + source
    tree[node] = event
    node >>= 1
    while node > 0:
        left, right = tree[2 * node], tree[2 * node + 1]
        first = min(left, right)
        if (left ^ right) >> KIND_BITS == 0:  # one time and kind
            first = right if order[right & SOURCE_MASK] < order[left & SOURCE_MASK] else left
        if tree[node] == first and not changed:
            break
        tree[node] = first
        node >>= 1
