"""What slices are promised, and the books that say until when each is taken."""

from dataclasses import dataclass, field

import numpy as np

from simulator.dispatch.books import (
    CARD,
    DOWNLINK,
    FREE,
    MAX_STAGES,
    NOTES,
    UPLINK,
    Books,
    forget,
    open_books,
    refresh,
)
from simulator.dispatch.system import System
from simulator.engine.oracle.core import Batch, Clockwork, Server

Places = dict[int, list[tuple["Promises", int, int]]]  # server -> row and column in the books of all that list it


@dataclass(eq=False)
class Sent:
    """What a dispatcher knows of a batch that it sent: first request, pipeline, slices, and visits so far."""

    first: int
    size: int
    pipeline: int
    first_pipeline: int  # of its plan, in the records
    slices: list[int]
    stage: int = 0
    retried: bool = False
    lost: bool = False
    visits: list[tuple[int, int, int]] = field(default_factory=list)  # [stage] reached, started, ended


class Promises:
    """The slices of a DNN and its books; ``places`` knows those of all DNNs."""

    def __init__(self, run: Clockwork, system: System, stations: list[list[int]], places: Places) -> None:
        self.run, self.system, self.places = run, system, places
        self.books: Books = open_books(system)
        self.slices: list[Server] = []
        for p, row in enumerate(stations):
            for s, station in enumerate(row):
                for w, server in enumerate(run.stations[station].servers):
                    self.slices.append(run.servers[server])
                    places.setdefault(server, []).append((self, p * system.max_stages + s, w))

    def free_us(self, server: Server) -> int:
        """Return when a slice would have done all that it was promised, whenever that comes."""
        waiting_us = sum(
            latency_us for batch, (_, latency_us) in server.promised.items() if batch is not server.serving
        )
        return max(self.run.now, server.until_us) + waiting_us

    def is_at_work_on(self, device: int) -> bool:
        """Whether a slice on a device is promised to a batch."""
        return any(server.promised for server in self.slices if server.device == device)

    def taken_us(self, server: Server) -> int:
        """Return until when the books say that a slice is taken."""
        return next(int(self.books[FREE, row, w]) for one, row, w in self.places[server.number] if one is self)

    def expect(self, until_us: dict[Server, int]) -> None:
        """Enter until when slices are taken at the start."""
        for server, at_us in until_us.items():
            for one, row, w in self.places[server.number]:
                if one is self:
                    self.enter(row, w, at_us)

    def withdraw(self, batch: Batch, server: Server) -> None:
        """Withdraw what a slice was promised."""
        server.promised.pop(batch, None)
        self.corrected(server)

    def corrected(self, server: Server) -> None:
        """Enter until when a slice is taken: by what it serves, then by what it was promised, at planned times."""
        if not self.run.conditions.corrected:
            return
        until_us = max(self.run.now, server.until_us)
        for batch, (expected_us, latency_us) in server.promised.items():
            if batch is not server.serving:
                until_us = max(until_us, expected_us) + latency_us
        for dispatcher, row, w in self.places[server.number]:
            dispatcher.enter(row, w, until_us)

    def enter(self, row: int, w: int, until_us: int) -> None:
        """Enter until when a slice is taken, and what follows from that."""
        self.books[FREE, row, w] = until_us
        refresh(self.books, row, self.books[CARD, row, w])
        forget(self.books, row // self.books[NOTES, 0, MAX_STAGES])

    def share(self, row: int, w: int, server: Server) -> None:
        """Enter what was reserved in all other books that list the slice, its card's mates included."""
        for other, there, column in self.places[server.number]:
            if (other, there) != (self, row):
                card = other.books[CARD, there, column]
                mates = np.flatnonzero(other.books[CARD, there] == card)
                for link in other.links(there):
                    other.books[link, there, mates] = np.maximum(
                        other.books[link, there, mates], self.books[link, row, w]
                    )
                other.enter(there, column, int(self.books[FREE, row, w]))

    def links(self, row: int) -> list[int]:
        """Return which links a stage has: the first one receives nothing, the last one sends nothing."""
        p, s = divmod(row, self.system.max_stages)
        return [DOWNLINK] * (s > 0) + [UPLINK] * (s + 1 < int(self.system.stages[p]))

    # Planned times.

    def passage_us(self, sent: Sent, stage: int) -> int:
        """Return the planned way of a batch to a stage."""
        return int(sent.size * self.system.transfer_us[sent.pipeline, stage] + self.system.hop_us[sent.pipeline, stage])

    def latency_us(self, sent: Sent, stage: int) -> int:
        """Return the planned inference of a batch in a stage."""
        return int(self.system.latency_us[sent.pipeline, stage, sent.size])

    def following_us(self, sent: Sent) -> int:
        """Return the planned transfers and inferences after the stage where a batch is."""
        later = range(sent.stage + 1, len(sent.slices))
        return sum(self.passage_us(sent, stage) + self.latency_us(sent, stage) for stage in later)
