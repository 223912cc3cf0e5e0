"""Central queue: first come, first served, a batch leaves when it is full or its head has waited long enough."""

from typing import TYPE_CHECKING

from simulator.dispatch.decisions import LATE
from simulator.engine.network import BY_SLACK, IDLE_FIRST
from simulator.engine.oracle.core import TIMER, Server, Token

if TYPE_CHECKING:
    from simulator.engine.oracle.routes import Requests


class Queue:
    """The queue of one station."""

    def __init__(self, requests: "Requests", number: int) -> None:
        self.requests, self.run, self.number = requests, requests.run, number
        self.station = self.run.stations[number]
        self.servers = [self.run.servers[w] for w in self.station.servers]
        self.max_batch = self.station.max_batch
        self.tokens: list[Token] = []
        self.next = 0  # round robin: the place of the server whose turn it is
        self.timer_us = -1

    def join(self, token: Token) -> None:
        """Let a request join at the end."""
        self.tokens.append(token)
        if len(self.tokens) >= self.max_batch or self.station.timeout_us == 0:
            self.look()
        elif self.timer_us < 0:
            self.set_timer()

    def is_due(self) -> bool:
        """Whether a batch may leave: there is a full one, or the head has waited its time."""
        if not self.tokens:
            return False
        waited_us = self.run.now - self.requests.joined_us[self.tokens[0]]
        return len(self.tokens) >= self.max_batch or waited_us >= self.station.timeout_us

    def look(self) -> None:
        """Send batches as long as the queue is due and there is a server."""
        while self.is_due():
            self.tokens = self.tokens[self.void_at_head() :]
            if not self.is_due():
                break
            server = self.choose()
            if server is None:
                break
            batch = self.run.new_batch(self.requests, self.number, server, self.take())
            self.requests.visit.update((token, batch.number) for token in batch.tokens)
            server.waiting.append(batch)
            self.run.begin(server)
        self.set_timer()

    def void_at_head(self) -> int:
        """Return how many requests leave the head without service; those that are too old are LATE now."""
        for place, token in enumerate(self.tokens):
            if self.keep(token):
                return place
        return len(self.tokens)

    def keep(self, token: Token) -> bool:
        """Whether a request is still to be served."""
        if self.requests.is_open(token) and self.requests.age_us(token[0]) >= self.station.drop_age_us:
            self.requests.finish(token[0], LATE)
        return self.requests.is_open(token)

    def take(self) -> list[Token]:
        """Take the requests of a batch from the head, passing over those that are not to be served."""
        taken: list[Token] = []
        while self.tokens and len(taken) < self.max_batch:
            token = self.tokens.pop(0)
            if self.keep(token):
                taken.append(token)
        return taken

    def choose(self) -> Server | None:
        """Return the server of the next batch, None where there is none."""
        if self.station.placement == IDLE_FIRST:
            return next((server for server in self.servers if server.idle), None)
        if self.station.placement == BY_SLACK:
            able = [server for server in self.servers if server.on and not server.down]
            return min(able, key=self.by_slack, default=None)
        count = len(self.servers)
        for place in range(self.next, self.next + count):
            server = self.servers[place % count]
            if server.on and not server.down:
                self.next = (place + 1) % count
                return server
        return None

    def by_slack(self, server: Server) -> tuple[int, int]:
        """Return what the next batch prefers of a server: the most accurate kind in time, then an early end."""
        size = min(len(self.tokens), self.max_batch)
        sizes = [size, *(len(batch.tokens) for batch in server.waiting)]
        takes_us = sum(int(self.station.latency_us[server.kind, each]) for each in sizes)
        end_us = max(self.run.now, server.until_us) + takes_us
        in_time = self.requests.age_us(self.tokens[0][0]) + end_us - self.run.now <= self.station.end_by_us
        return -server.kind if in_time else 1, end_us

    def set_timer(self) -> None:
        """Set the timer for the head, unless the queue is due and waits for a server."""
        if not self.tokens or self.is_due():
            self.timer_us = -1
            return
        at_us = self.requests.joined_us[self.tokens[0]] + self.station.timeout_us
        if at_us != self.timer_us:
            self.timer_us = at_us
            self.run.at(at_us, TIMER, self.number, lambda: self.look() if self.timer_us == at_us else None)
