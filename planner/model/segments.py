"""Segments: the parts of a device that stages run on, and which of them fit on one device at once.

A *share* says what a slice runs on, and is the key of its latency table:

    k              1/k of a device (an integer): NVIDIA MPS, or k workers on one CPU
    "NAME"         a named kind of segment: a MIG profile ("3g.40gb"), some cores of a CPU ("4 cores")
    "NAME/p"       one of p processes (MPS) of one stage inside such a segment, which together take the whole segment

Named kinds lie on the *slots* of a device: a segment of ``width`` w takes w slots in a row, from one of ``starts`` on
(from anywhere, where there are none). NVIDIA's MIG is that: a GPU has 8 memory slices (an A30 4), a profile takes some
of them from given places on (``nvidia-smi mig -lgipp``), which implies its rule of 7 compute slices. So are the cores
of a CPU. Segments of 1/k lie anywhere on lcm(k) slots. A device is divided one way or the other, never both at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import lcm
from typing import Annotated

from annotated_types import Ge, Le, MinLen

from planner.model.errors import InputError
from planner.model.record import record

MOST_SHARES = 1000  # of one device
MOST_SLOTS, MOST_CORES = 1000, 10_000  # of one device

Share = Annotated[int, Ge(1), Le(MOST_SHARES)] | Annotated[str, MinLen(1)]
Kind = int | str  # a share without its processes
Starts = tuple[int, ...] | range  # first slots, rising


@record
class Segment:
    """A named kind of segment: ``width`` slots of a device, from one of ``starts`` on (from anywhere, where empty).

    ``memory_bytes`` is its own; where None it is that part of the device's memory which ``width`` is of its slots.
    """

    name: Annotated[str, MinLen(1)]
    width: Annotated[int, Ge(1)]
    starts: tuple[Annotated[int, Ge(0)], ...] = ()
    memory_bytes: Annotated[int, Ge(1)] | None = None

    def __post_init__(self) -> None:
        """Refuse names that read like a number of processes, and places out of order."""
        if "/" in self.name:
            raise InputError(f"segments: expected a name without '/', got {self.name!r}")
        if list(self.starts) != sorted(set(self.starts)):
            raise InputError(f"starts of segment {self.name}: expected increasing numbers, got {list(self.starts)}")


@dataclass(frozen=True)
class Division:
    """One way to divide a device: how many slots it has, and the kinds of segments that lie on them."""

    slots: int
    widths: Mapping[Kind, int]
    starts: Mapping[Kind, Starts]

    def allows(self, kind: Kind, start: int) -> bool:
        """Tell whether a segment may begin at a slot of an empty device."""
        return kind in self.widths and start in self.starts[kind]


def division(slots: int, segments: tuple[Segment, ...]) -> Division:
    """Return the division into named segments; raises InputError for segments that do not fit a device."""
    widths: dict[Kind, int] = {}
    starts: dict[Kind, Starts] = {}
    for segment in segments:
        possible = range(slots - segment.width + 1)
        if not possible or not all(start in possible for start in segment.starts):
            raise InputError(
                f"segment {segment.name}: expected {segment.width} slots, from {list(segment.starts) or 'any'} on, "
                f"to lie on a device of {slots}"
            )
        widths[segment.name], starts[segment.name] = segment.width, segment.starts or possible
    if len(widths) < len(segments):
        raise InputError(f"segments: names must differ, got {[segment.name for segment in segments]}")
    return Division(slots, widths, starts)


def equal_shares(shares: tuple[int, ...]) -> Division:
    """Return the division into segments of 1/k.

    >>> equal_shares((1, 2, 3)).widths
    {1: 6, 2: 3, 3: 2}
    """
    slots = lcm(*shares)
    widths: dict[Kind, int] = {k: slots // k for k in shares}
    return Division(slots, widths, {kind: range(slots - width + 1) for kind, width in widths.items()})


def processes(share: Share) -> int:
    """Return how many processes of one stage run in the segment of a slice.

    >>> processes(2), processes("3g.40gb"), processes("3g.40gb/4")
    (1, 1, 4)
    """
    return 1 if isinstance(share, int) else int(share.partition("/")[2] or 1)


def kind_of(share: Share) -> Kind:
    """Return the kind of the segment that a slice lies on.

    >>> kind_of(2), kind_of("3g.40gb/4")
    (2, '3g.40gb')
    """
    return share if isinstance(share, int) else share.partition("/")[0]


def share_text(share: Share) -> str:
    """Write a share for people.

    >>> share_text(2), share_text("3g.40gb/4")
    ('1/2', '3g.40gb/4')
    """
    return f"1/{share}" if isinstance(share, int) else share


def on_device(device: str, share: Share) -> str:
    """Write a share of a device for people; a whole device by its name alone.

    >>> on_device("L4", 1), on_device("L4", 2), on_device("A100", "3g.40gb")
    ('L4', 'L4 1/2', 'A100 3g.40gb')
    """
    return device if share == 1 else f"{device} {share_text(share)}"


def core_segments(cores: int) -> tuple[Segment, ...]:
    """Return the segments of a CPU of so many cores: all, half of them, and so on, and one core.

    >>> [segment.name for segment in core_segments(12)]
    ['1 core', '3 cores', '6 cores', '12 cores']
    """
    counts = {1, cores}
    while cores % 2 == 0:
        cores //= 2
        counts.add(cores)
    return tuple(Segment(f"{count} core{'s' if count > 1 else ''}", count) for count in sorted(counts))


# NVIDIA's Multi-Instance GPU User Guide, "Supported MIG Profiles": fractions of memory, numbers of instances and
# possible placements. Memory (GiB) is a multiple of that of a slice, as `nvidia-smi mig -lgip` prints it for 1g,
# rounded down. Held against printed listings of the A30 (1g 5.81) and the H100 (1g 9.75, 2g 19.62, 3g 39.50, 7g 79.25),
# where the multiples are a little less. No second listing of the A100s and the H200 was found; none is measured here.
_SEVEN = {1: (0, 1, 2, 3, 4, 5, 6), 2: (0, 2, 4), 3: (0, 4), 4: (0,), 7: (0,)}
_WIDTHS = {1: 1, 2: 2, 3: 4, 4: 4, 7: 8}


def _seven(memories: Mapping[int, int], double: int, slice_gib: float) -> tuple[int, tuple[Segment, ...]]:
    """Return the profiles of a GPU with 7 compute and 8 memory slices; ``double`` names 1g with two memory slices."""
    names = {f"{compute}g.{memories[compute]}gb": (_WIDTHS[compute], _SEVEN[compute]) for compute in _SEVEN}
    names[f"1g.{double}gb"] = 2, (0, 2, 4, 6)
    return 8, _profiles(names, slice_gib)


def _profiles(names: Mapping[str, tuple[int, tuple[int, ...]]], slice_gib: float) -> tuple[Segment, ...]:
    return tuple(
        Segment(name, width, starts, int(width * slice_gib * 2**30)) for name, (width, starts) in names.items()
    )


MIG: Mapping[str, tuple[int, tuple[Segment, ...]]] = {
    "a30-24gb": (
        4,
        _profiles({"1g.6gb": (1, (0, 1, 2, 3)), "2g.12gb": (2, (0, 2)), "4g.24gb": (4, (0,))}, 5.8),
    ),
    "a100-40gb": _seven({1: 5, 2: 10, 3: 20, 4: 20, 7: 40}, 10, 4.75),
    "a100-80gb": _seven({1: 10, 2: 20, 3: 40, 4: 40, 7: 80}, 20, 9.5),
    "h100-80gb": _seven({1: 10, 2: 20, 3: 40, 4: 40, 7: 80}, 20, 9.75),
    "h200-141gb": _seven({1: 18, 2: 35, 3: 71, 4: 71, 7: 141}, 35, 16.0),
}
