"""Replicas on devices with the fewest bytes, exactly, by depth-first search.

Replicas are placed one by one, largest load first, each on a device begun or on the next one. What a device holds
already costs nothing again. So many copies of a class as there must be in any case are counted from the beginning, and
a copy costs something beyond them only; bytes never fall from one replica to the next, and what has as many as the best
is left. Devices are alike; of equal replicas the later one goes on a later device.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from planner.compilation import compiled
from planner.planning.arrays import Floats, Integers
from planner.planning.merging.stages import ROUNDING

Masks = NDArray[np.uint64]
BITS = 64  # of a word


class Items(NamedTuple):
    """Replicas, in the order in which they are placed; those of one stage follow each other."""

    length: Integers  # [1]
    stage: Integers  # [replica, 3]: model, first and last group
    holds: Masks  # [replica, W]: a bit per shared class
    own: Floats  # [replica]: bytes that it shares with nobody
    load: Floats  # [replica]


class Shelf(NamedTuple):
    """What lies on the devices begun, and how it got there."""

    device: Integers  # [replica]: where it is now
    found: Integers  # [replica]: in the best filling
    begun: Integers  # [replica + 1]: devices in use before it
    cost: Floats  # [replica + 1]: bytes before it, and those that there must be
    before: Masks  # [replica, W]: what its device held before it
    added: Floats  # [replica]: bytes that it added there
    holds: Masks  # [device, W]
    bytes: Floats  # [device]
    load: Floats  # [device]
    copies: Integers  # [class]: on all devices
    needed: Integers  # [class]: copies at least, wherever replicas are


def items_of(most: int, words: int) -> Items:
    """Return room for replicas."""
    whole = np.zeros((most, 3), dtype=np.int64)
    return Items(
        np.zeros(1, dtype=np.int64), whole, np.zeros((most, words), dtype=np.uint64), np.zeros(most), np.zeros(most)
    )


def shelf_of(most: int, words: int, classes: int) -> Shelf:
    """Return room for as many devices as replicas."""
    return Shelf(
        device=np.zeros(most, dtype=np.int64),
        found=np.zeros(most, dtype=np.int64),
        begun=np.zeros(most + 1, dtype=np.int64),
        cost=np.zeros(most + 1),
        before=np.zeros((most, words), dtype=np.uint64),
        added=np.zeros(most),
        holds=np.zeros((most, words), dtype=np.uint64),
        bytes=np.zeros(most),
        load=np.zeros(most),
        copies=np.zeros(classes, dtype=np.int64),
        needed=np.zeros(classes, dtype=np.int64),
    )


@compiled
def fill(
    items: Items, shelf: Shelf, shared: Floats, room: float, devices: int, below: float, least: bool, most_steps: int
) -> tuple[float, int]:
    """Return bytes below a limit on which all replicas fit, infinite where there is no such filling, and the steps.

    Parameters
    ----------
    items
        The replicas. Of a model at most one stage begins at a group.
    shelf
        ``needed`` says how many copies of every class there must be; all else is written.
    shared
        Bytes by class.
    room
        Bytes of a device.
    devices
        How many there are.
    below
        Bytes that are too many.
    least
        Whether the fewest bytes are wanted, not any below the limit. They are in ``shelf.found``.
    most_steps
        After so many it gives up: with one step more, and nothing is said of what was not tried.
    """
    # Arrays are named once and calls are avoided in here, where references to be counted would take most of the time.
    length = items.length[0]
    stage, holds, own, load = items.stage, items.holds, items.own, items.load
    device, begun, cost, before, added = shelf.device, shelf.begun, shelf.cost, shelf.before, shelf.added
    held, held_bytes, held_load = shelf.holds, shelf.bytes, shelf.load
    words = holds.shape[1]
    copies, needed = shelf.copies, shelf.needed
    copies[:] = 0
    begun[0], cost[0] = 0, own[:length].sum() + (needed * shared).sum()
    if cost[0] >= below or load[:length].sum() > devices * (1 + ROUNDING):
        return np.inf, 0
    if length == 0:
        return cost[0], 0
    at, steps, found = 0, 0, np.inf
    device[0] = -1
    while at >= 0 and steps <= most_steps:
        steps += 1
        there = device[at]
        if there >= 0:
            for word in range(words):
                held[there, word] = before[at, word]
                missing = holds[at, word] & ~before[at, word]
                number = BITS * word
                while missing:
                    if missing & np.uint64(1):
                        copies[number] -= 1
                    missing >>= np.uint64(1)
                    number += 1
            held_bytes[there] -= added[at]
            held_load[there] -= load[at]
        elif at > 0 and stage[at, 0] == stage[at - 1, 0] and stage[at, 1] == stage[at - 1, 1]:
            there = device[at - 1]
        placed = False
        while not placed and there + 1 < min(begun[at] + 1, devices):
            there += 1
            if there == begun[at]:
                held_bytes[there] = held_load[there] = 0.0
                for word in range(words):
                    held[there, word] = 0
            if held_load[there] + load[at] > 1 + ROUNDING:
                continue
            runs = False  # a stage of the same model
            for other in range(at):
                runs |= device[other] == there and stage[other, 0] == stage[at, 0]
            if runs:
                continue
            missing_bytes = beyond = 0.0
            for word in range(words):
                missing = holds[at, word] & ~held[there, word]
                number = BITS * word
                while missing:
                    if missing & np.uint64(1):
                        missing_bytes += shared[number]
                        beyond += shared[number] if copies[number] >= needed[number] else 0.0
                    missing >>= np.uint64(1)
                    number += 1
            placed = cost[at] + beyond < min(below, found)
            placed &= held_bytes[there] + own[at] + missing_bytes <= room
        if not placed:
            at -= 1
            continue
        device[at], added[at] = there, own[at] + missing_bytes
        for word in range(words):
            before[at, word] = held[there, word]
            held[there, word] |= holds[at, word]
            missing = holds[at, word] & ~before[at, word]
            number = BITS * word
            while missing:
                if missing & np.uint64(1):
                    copies[number] += 1
                missing >>= np.uint64(1)
                number += 1
        held_bytes[there] += added[at]
        held_load[there] += load[at]
        cost[at + 1] = cost[at] + beyond
        begun[at + 1] = max(begun[at], there + 1)
        at += 1
        if at < length:
            device[at] = -1
            continue
        found = cost[length]
        for place in range(length):
            shelf.found[place] = device[place]
        at -= 1
        if not least:
            break
    return found, steps
