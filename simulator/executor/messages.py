"""What the frontend and its workers tell each other: one small packet each. Tensors do not travel in them.

A packet is 64-bit numbers, the first of which tells its kind. Both sides know the tensors of a stage, so all that
needs to be said of one is where it begins. Times are nanoseconds of the sender's monotonic clock, which
processes of one machine share.
"""

import struct
from functools import cache
from itertools import chain
from typing import NamedTuple

WORK, READY, DONE, FAILED = range(4)
PACKET_BYTES = 1 << 13  # more than any has


class Spot(NamedTuple):
    """Where a tensor begins: a segment (its number in the list that workers get), and the byte in it."""

    segment: int
    offset: int


class Work(NamedTuple):
    """To a worker: run your stage on ``size`` requests; the outputs go one after the other to ``outputs``.

    ``inputs`` are in the order of the stage's inputs.
    """

    ticket: int
    size: int
    outputs: Spot
    inputs: tuple[Spot, ...]


class Ready(NamedTuple):
    """From a worker: its session is open and warm."""

    pid: int


class Done(NamedTuple):
    """From a worker: the outputs are in their places.

    It took the work in hand at ``start_ns``, had the results at ``computed_ns``, and had written them at ``end_ns``.
    """

    ticket: int
    start_ns: int
    computed_ns: int
    end_ns: int


class Failed(NamedTuple):
    """From a worker: it cannot run its stage at all (ticket -1), or not on this batch."""

    ticket: int
    reason: str


def pack(message: Work | Ready | Done | Failed) -> bytes:
    """Return a message as a packet.

    >>> unpack(pack(Work(7, 4, Spot(2, 64), (Spot(0, 0), Spot(1, 128)))))
    Work(ticket=7, size=4, outputs=Spot(segment=2, offset=64), inputs=(Spot(segment=0, offset=0), \
Spot(segment=1, offset=128)))
    """
    if isinstance(message, Done):
        return _numbers(5).pack(DONE, *message)
    if isinstance(message, Work):
        spots = chain(message.outputs, *message.inputs)
        return _numbers(5 + 2 * len(message.inputs)).pack(WORK, message.ticket, message.size, *spots)
    if isinstance(message, Ready):
        return struct.pack("<2q", READY, message.pid)
    return struct.pack("<2q", FAILED, message.ticket) + message.reason.encode()


def unpack(packet: bytes) -> Work | Ready | Done | Failed:
    """Return the message that was packed."""
    kind = packet[0]
    if kind == FAILED:
        return Failed(struct.unpack_from("<q", packet, 8)[0], packet[16:].decode())
    _, *numbers = _numbers(len(packet) // 8).unpack(packet)
    if kind == DONE:
        return Done(*numbers)
    if kind == READY:
        return Ready(*numbers)
    spots = tuple(map(Spot, numbers[2::2], numbers[3::2]))
    return Work(numbers[0], numbers[1], spots[0], spots[1:])


@cache
def _numbers(count: int) -> struct.Struct:
    return struct.Struct(f"<{count}q")
