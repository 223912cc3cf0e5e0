"""Requests that follow a route through stations: a chain, a tree, or a graph whose steps wait for all before them."""

from simulator.dispatch.decisions import FINISHED, LATE, LOST, OPEN
from simulator.dispatch.system import Ints
from simulator.engine.network import CENTRAL, IDLE_FIRST, Route
from simulator.engine.oracle import central, latest_start
from simulator.engine.oracle.core import ARRIVAL, Batch, Clockwork, Server, Token


class Requests:
    """The requests of all routes, numbered class by class in order of arrival."""

    def __init__(self, run: Clockwork, routes: list[Route], arrivals_us: list[Ints]) -> None:
        self.run = run
        self.arrival_us: list[int] = [int(at) for one in arrivals_us for at in one]
        self.route = [route for route, one in zip(routes, arrivals_us, strict=True) for _ in one]
        self.outcome = [OPEN] * len(self.arrival_us)
        self.done_us = [-1] * len(self.arrival_us)
        self.missing: dict[Token, int] = {}  # steps before this one that have not served the request
        self.last_steps = [sum(not step.then for step in route.steps) for route in self.route]
        self.visit: dict[Token, int] = {}
        self.joined_us: dict[Token, int] = {}
        self.cut_before: set[Token] = set()
        stations = range(len(run.stations))
        self.central = {q: central.Queue(self, q) for q in stations if run.stations[q].rule == CENTRAL}
        self.opened: dict[int, list[Batch]] = {q: [] for q in stations}
        for request, route in enumerate(self.route):
            for step in route.steps:
                for after in step.then:
                    self.missing[request, after] = self.missing.get((request, after), 0) + 1
            run.at(self.arrival_us[request], ARRIVAL, request, lambda r=request: self.join((r, 0)))  # type: ignore[misc]

    def is_open(self, token: Token) -> bool:
        """Whether a request has no outcome yet."""
        return self.outcome[token[0]] == OPEN

    def finish(self, request: int, outcome: int) -> None:
        """Decide what became of a request."""
        self.outcome[request], self.done_us[request] = outcome, self.run.now

    def age_us(self, request: int) -> int:
        """Return how long ago a request arrived."""
        return self.run.now - self.arrival_us[request]

    def join(self, token: Token) -> None:
        """Let a request join the station of a step."""
        self.joined_us[token] = self.run.now
        station = self.route[token[0]].steps[token[1]].station
        if station in self.central:
            self.central[station].join(token)
        else:
            latest_start.insert(self, station, token)

    def gone_on(self, batch: Batch) -> None:
        """Send a served batch on, over a card where there is a way to go."""
        station, server = self.run.station(batch), batch.server
        if station.rule == CENTRAL and station.placement == IDLE_FIRST and server.idle:
            self.central[batch.station].look()
        if station.wire_us == station.hop_us == 0:
            self.reached(batch)
        else:
            self.run.send_over_card(batch)

    def reached(self, batch: Batch) -> None:
        """Let the requests of a served batch go on, one by one."""
        for token in batch.tokens:
            if self.is_open(token):
                self.served(token, self.run.station(batch).drop_age_us)

    def served(self, token: Token, drop_age_us: int) -> None:
        """Let one request go on: to the next steps, or out."""
        request, step = token
        then = self.route[request].steps[step].then
        if self.age_us(request) >= drop_age_us:
            return self.finish(request, LATE)
        if not then:
            self.last_steps[request] -= 1
            if self.last_steps[request] == 0:
                self.finish(request, FINISHED)
        for after in then:
            self.missing[request, after] -= 1
            if self.missing[request, after] == 0 and self.is_open(token):
                self.join((request, after))
        return None

    def stranded(self, batch: Batch, *, cut: bool) -> None:
        """Dissolve a batch: its requests join their station again, but a second cut in one step loses them."""
        if not cut or batch.start_us >= self.run.now:
            batch.start_us = -1
        batch.kind = batch.server.kind if batch.kind < 0 else batch.kind
        batch.end_us, batch.size = self.run.now, 0
        tokens, batch.tokens = batch.tokens, []
        for token in tokens:
            self.visit.pop(token, None)
            if not self.is_open(token):
                continue
            if cut and token in self.cut_before:
                self.finish(token[0], LOST)
                continue
            if cut:
                self.cut_before.add(token)
            self.join(token)

    def corrected(self, server: Server) -> None:
        """Nothing is promised to routes."""

    def back(self, server: Server) -> None:
        """Look at the central queues of a server that was repaired."""
        for queue in self.central.values():
            if server in queue.servers:
                queue.look()
