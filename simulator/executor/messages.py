"""What the frontend and its workers tell each other: one small packet each. Tensors do not travel in them.

A packet is 64-bit numbers, the first of which tells its kind. Work has a *ticket* of its own and names the crates in
which a batch lies (`crates`); whatever else there is to say of it stands in their dockets.
"""

import struct
from functools import cache
from typing import NamedTuple

WORK, READY, DONE, FAILED = range(4)
PACKET_BYTES = 1 << 13  # more than any has
MOST_CRATES = 1000  # that a packet can name


class Work(NamedTuple):
    """To a worker: run a part on what is in some crates, as step ``step`` of their way."""

    ticket: int
    part: int
    step: int
    crates: tuple[int, ...]


class Ready(NamedTuple):
    """From a worker: its sessions are open and warm."""

    worker: int
    pid: int


class Done(NamedTuple):
    """From a worker: a batch goes no further by itself; the docket tells what was done with it."""

    worker: int
    ticket: int


class Failed(NamedTuple):
    """From a worker: it cannot run at all (ticket -1), or not on this batch."""

    worker: int
    ticket: int
    reason: str


def pack(message: Work | Ready | Done | Failed) -> bytes:
    """Return a message as a packet.

    >>> unpack(pack(Work(7, 1, 0, (64, 128))))
    Work(ticket=7, part=1, step=0, crates=(64, 128))
    """
    if isinstance(message, Done):
        return _numbers(3).pack(DONE, *message)
    if isinstance(message, Work):
        ticket, part, step, crates = message
        return _numbers(4 + len(crates)).pack(WORK, ticket, part, step, *crates)
    if isinstance(message, Ready):
        return _numbers(3).pack(READY, *message)
    return _numbers(3).pack(FAILED, message.worker, message.ticket) + message.reason.encode()


def unpack(packet: bytes) -> Work | Ready | Done | Failed:
    """Return the message that was packed."""
    kind = packet[0]
    if kind == FAILED:
        _, worker, ticket = struct.unpack_from("<3q", packet)
        return Failed(worker, ticket, packet[24:].decode())
    _, *numbers = _numbers(len(packet) // 8).unpack(packet)
    if kind == DONE:
        return Done(*numbers)
    if kind == READY:
        return Ready(*numbers)
    ticket, part, step, *crates = numbers
    return Work(ticket, part, step, tuple(crates))


@cache
def _numbers(count: int) -> struct.Struct:
    return struct.Struct(f"<{count}q")
