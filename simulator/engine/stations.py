"""What moves and what serves in a world where not everything goes to plan: batches, slices, network cards, plans."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from simpy.events import Event

from simulator.dispatch.books import CARD, FREE, MAX_STAGES, NOTES, Books, forget, open_books, refresh
from simulator.dispatch.compiled import compiled
from simulator.dispatch.system import System


class Occurrence(Event):
    """Something that happens at a time (µs), and is never waited for."""

    __slots__ = ("action", "at_us")

    def __init__(self, at_us: int, action: Callable[[], None]) -> None:
        self._ok = True
        self._value = None
        self.at_us = at_us
        self.action = action


@dataclass(eq=False)
class Batch:
    """Requests [first, first + size) on their way, with a slice and times (µs) per stage."""

    number: int
    first: int
    size: int
    epoch: int
    pipeline: int  # of its own system
    slices: list[int]
    stage: int = 0
    retried: bool = False
    times_us: list[list[int]] = field(default_factory=list)  # [stage][reached, started, ended]


@dataclass(frozen=True)
class Interrupted:
    """An inference that a failure cut short: when it was reached, started and stopped."""

    pipeline: int
    stage: int
    slice: int
    times_us: tuple[int, int, int]


@dataclass(eq=False)
class Slice:
    """A slice: what it serves, what waits there, and what it was promised (batch -> expected at)."""

    row: int
    index: int
    device: int
    latency_us: list[int]
    serving: Batch | None = None
    until_us: int = 0  # planned end of what it serves, or end of its repair
    down: bool = False
    back_us: int = 0  # end of its repair, loading aside
    held: bool = False  # waits until an earlier plan has left the devices of its type
    attempt: int = 0  # an end that was scheduled for an earlier attempt is void
    waiting: deque[Batch] = field(default_factory=deque)
    promised: dict[int, int] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)


@dataclass(eq=False)
class Card:
    """A server's network card."""

    busy: bool = False
    waiting: deque[Batch] = field(default_factory=deque)


class Epoch:
    """A system in charge: its books, slices and cards, and the number of its first pipeline in the records."""

    def __init__(self, system: System, base: int) -> None:
        self.system = system
        self.base = base
        self.books: Books = open_books(system)
        self.width = width = system.max_stages
        self.transfer_us: list[list[int]] = system.transfer_us.tolist()
        self.hop_us: list[list[int]] = system.hop_us.tolist()
        self.slices: dict[tuple[int, int], Slice] = {}
        self.cards: dict[tuple[int, int], Card] = {}
        for p, stages in enumerate(system.stages.tolist()):
            for s in range(stages):
                row, latency_us = p * width + s, system.latency_us[p, s].tolist()
                for w in range(int(system.slices[p, s])):
                    self.slices[row, w] = Slice(row, w, int(system.device[p, s]), latency_us)
                    self.cards.setdefault((row, int(self.books[CARD, row, w])), Card())

    def on_type(self, device: int) -> list[Slice]:
        """Return the slices on a type of device."""
        return [slice_ for slice_ in self.slices.values() if slice_.device == device]

    def set_free(self, slice_: Slice, until_us: int) -> None:
        """Correct until when a slice is taken."""
        correct(self.books, slice_.row, slice_.index, until_us)


@compiled
def correct(books: Books, row: int, w: int, until_us: int) -> None:
    """Enter until when a slice is taken, and what follows from that."""
    books[FREE, row, w] = until_us
    refresh(books, row, books[CARD, row, w])
    forget(books, row // books[NOTES, 0, MAX_STAGES])
