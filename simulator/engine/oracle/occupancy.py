"""Until when slices are taken, in the books of every DNN whose pool they are in."""

from simulator.dispatch.books import CARD, FREE, MAX_STAGES, NOTES, Books, forget, open_books, refresh
from simulator.dispatch.system import System
from simulator.engine.oracle.core import Clockwork, Server

Sharing = dict[Server, list["Occupancy"]]  # whose pools a slice is in


class Occupancy:
    """The slices of a DNN and its books; ``sharing`` knows those of all DNNs."""

    def __init__(self, run: Clockwork, system: System, stations: list[list[int]], sharing: Sharing) -> None:
        self.run, self.system, self.stations, self.sharing = run, system, stations, sharing
        self.books: Books = open_books(system)
        self.slices = {
            run.servers[server]: (row, w)
            for row in self.rows()
            for w, server in enumerate(run.stations[self.station(row)].servers)
        }
        for server in self.slices:
            sharing.setdefault(server, []).append(self)

    def rows(self) -> list[int]:
        """Return the rows of all stages."""
        return [p * self.system.max_stages + s for p, row in enumerate(self.stations) for s in range(len(row))]

    def station(self, row: int) -> int:
        """Return the station of a row."""
        return self.stations[row // self.system.max_stages][row % self.system.max_stages]

    def taken_us(self, server: Server) -> int:
        """Return until when the books say that a slice is taken."""
        return int(self.books[(FREE, *self.slices[server])])

    def expect(self, until_us: dict[Server, int]) -> None:
        """Enter until when slices are taken at the start."""
        for server, at_us in until_us.items():
            self.enter(*self.slices[server], at_us)

    def enter_everywhere(self, server: Server, until_us: int) -> None:
        """Enter until when a slice is taken, in the books of all DNNs whose pool it is in."""
        for one in self.sharing[server]:
            one.enter(*one.slices[server], until_us)

    def enter(self, row: int, w: int, until_us: int) -> None:
        """Enter until when a slice is taken."""
        self.books[FREE, row, w] = until_us
        refresh(self.books, row, self.books[CARD, row, w])
        forget(self.books, row // self.books[NOTES, 0, MAX_STAGES])

    def corrected(self, server: Server) -> None:
        """Enter when a slice will have done all that it serves and has in front of it, as planned."""
        if not self.run.conditions.corrected:
            return
        row, _ = self.slices[server]
        latency_us = self.run.stations[self.station(row)].latency_us[server.kind]
        until_us = max(self.run.now, server.until_us) if server.serving or server.down else server.until_us
        for batch in server.waiting:
            until_us = max(until_us, batch.reach_us) + int(latency_us[len(batch.tokens)])
        self.enter_everywhere(server, until_us)
