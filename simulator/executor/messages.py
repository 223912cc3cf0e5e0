"""What the frontend and its workers tell each other: short JSON texts over a pipe. Tensors do not travel in them.

Times are nanoseconds of the sender's monotonic clock, which processes of one machine share.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from simulator.executor.transport import Place

Places = Mapping[str, Place]


@dataclass(frozen=True)
class Work:
    """To a worker: run your stage on these tensors, put the outputs into the slot at ``offset`` of ``segment``."""

    ticket: int
    inputs: Places
    segment: str
    offset: int
    capacity: int


@dataclass(frozen=True)
class Ready:
    """From a worker: its session is open and warm."""

    pid: int


@dataclass(frozen=True)
class Done:
    """From a worker: the outputs are in their places.

    It took the work in hand at ``start_ns``, had the results at ``computed_ns``, and had written them at ``end_ns``.
    """

    ticket: int
    outputs: Places
    start_ns: int
    computed_ns: int
    end_ns: int


@dataclass(frozen=True)
class Failed:
    """From a worker: it cannot run its stage at all (ticket -1), or not on this batch."""

    ticket: int
    reason: str


Message = Work | Ready | Done | Failed
_KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in (Work, Ready, Done, Failed)}


def pack(message: Message) -> bytes:
    """Return a message as bytes.

    >>> unpack(pack(Done(3, {"x": Place("s", 0, 24, "float32", (2, 3))}, 1, 2, 3))).outputs["x"].shape
    (2, 3)
    """
    return json.dumps([type(message).__name__, vars(message)], separators=(",", ":")).encode()


def unpack(text: bytes) -> Any:
    """Return the message that was packed."""
    kind, fields = json.loads(text)
    for name in ("inputs", "outputs"):
        if name in fields:
            fields[name] = {key: _place(*place) for key, place in fields[name].items()}
    return _KINDS[kind](**fields)


def _place(segment: str, offset: int, nbytes: int, dtype: str, shape: list[int]) -> Place:
    return Place(segment, offset, nbytes, dtype, tuple(shape))
