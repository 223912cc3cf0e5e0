"""What every rule stands on: the order of events, batches, servers and cards."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import exp, floor
from typing import Protocol, cast

import simpy
from simpy.events import Event, EventPriority

from simulator.engine.network import LATEST_START, Conditions, Network, Station
from simulator.engine.streams import SERVICE, normal, uniform

# What happens at one instant goes by kind, then by number.
CHANGE, FAILURE, REPAIR, REACTIVE_TIMER, END, REACH, TIMER, FILL, REACTIVE_WORK, DISPATCH, ARRIVAL = range(11)
KIND = 1 << 40

Token = tuple[int, int]  # a request and a step of its route


class Owner(Protocol):
    """Who sends batches, and knows what they do next."""

    def gone_on(self, batch: "Batch") -> None:
        """Go on: the batch has ended, and its server has begun the next one."""

    def reached(self, batch: "Batch") -> None:
        """Go on: the batch has come over a card."""

    def stranded(self, batch: "Batch", *, cut: bool) -> None:
        """Deal with a batch on a server that stopped; its service was cut short, or had not begun."""

    def corrected(self, server: "Server") -> None:
        """Note that what a server does, or has in front of it, has changed."""


@dataclass(eq=False)
class Batch:
    """Requests that are served together by a server."""

    owner: Owner
    number: int
    station: int
    server: "Server"
    tokens: list[Token]
    reach_us: int
    size: int = 0
    kind: int = -1
    start_us: int = -1
    end_us: int = -1
    opened: bool = False  # latest start first: whether requests may still join
    latest_start_us: int = 0
    line_us: int = 0


@dataclass(eq=False)
class Server:
    """What serves one batch at a time; ``waiting`` stand in front of it."""

    number: int
    kind: int
    card: int
    device: int
    on: bool
    until_us: int
    waiting: list[Batch] = field(default_factory=list)
    serving: Batch | None = None
    loading: bool = False  # for a new configuration
    down: bool = False
    held: bool = False
    back_us: int = 0
    begun: int = 0
    attempt: int = 0  # an end or a fill timeout of an earlier attempt is void
    promised: dict[Batch, tuple[int, int]] = field(default_factory=dict)  # -> when it is expected, its latency

    @property
    def idle(self) -> bool:
        """Whether it is up, on, and has nothing to do."""
        return not self.down and self.on and self.serving is None and not self.waiting


class Clockwork:
    """Events, servers and cards of a run; what batches do next is the business of their owners."""

    def __init__(self, network: Network, conditions: Conditions) -> None:
        self.env = simpy.Environment()
        self.conditions = conditions
        self.servers: list[Server] = []
        self.stations: list[Station] = []
        self.batches: list[Batch] = []
        self.cards_free_us: dict[int, int] = {}
        self.add(network)

    def add(self, network: Network) -> list[Server]:
        """Add servers, which are returned, and stations; numbers of servers, stations and cards go on."""
        first, card = len(self.servers), 1 + max((server.card for server in self.servers), default=-1)
        columns = (network.servers.kind, network.servers.card, network.servers.device, network.servers.on)
        rows = enumerate(zip(*(column.tolist() for column in columns), strict=True), first)
        self.servers += [
            Server(number, kind, card + own, device, on, self.conditions.load_us)
            for number, (kind, own, device, on) in rows
        ]
        self.stations += [
            replace(station, servers=tuple(first + w for w in station.servers)) for station in network.stations
        ]
        return self.servers[first:]

    @property
    def now(self) -> int:
        """The time (µs)."""
        return int(self.env.now)

    def at(self, time_us: int, kind: int, order: int, action: Callable[[], None]) -> None:
        """Let something happen."""
        event = Event(self.env)
        event._ok, event._value = True, None
        event.callbacks = [lambda _: action()]
        self.env.schedule(event, cast(EventPriority, kind * KIND + order), time_us - self.now)

    def station(self, batch: Batch) -> Station:
        """Return where a batch is served."""
        return self.stations[batch.station]

    def new_batch(self, owner: Owner, station: int, server: Server, tokens: list[Token]) -> Batch:
        """Make the next batch; the caller puts it in front of its server."""
        batch = Batch(owner, len(self.batches), station, server, tokens, self.now)
        self.batches.append(batch)
        return batch

    # Servers.

    def begin(self, server: Server) -> None:
        """Begin the first batch in front of a server, if it may."""
        if not server.waiting or server.serving is not None or server.down or server.held:
            return
        server.attempt += 1
        attempt, batch = server.attempt, server.waiting[0]
        station = self.station(batch)
        if station.rule == LATEST_START:
            filled_us = batch.reach_us + station.timeout_us
            if batch.opened and self.now < filled_us:
                again = lambda: self.begin(server) if attempt == server.attempt else None  # noqa: E731
                return self.at(filled_us, FILL, server.number, again)
            batch.opened = False
        server.serving = server.waiting.pop(0)
        batch.kind, batch.size = server.kind, len(batch.tokens)
        batch.start_us = max(self.now, server.until_us)
        server.until_us = batch.start_us + int(station.latency_us[server.kind, batch.size])
        end_us = batch.start_us + self.service_us(server, station, server.until_us - batch.start_us)
        return self.at(end_us, END, batch.number, lambda: self.end(server) if attempt == server.attempt else None)

    def service_us(self, server: Server, station: Station, planned_us: int) -> int:
        """Return how long a service really takes."""
        count, server.begun = server.begun, server.begun + 1
        factors, seed = self.conditions.factors, self.conditions.seed
        if len(factors):
            drawn = factors[floor(uniform(seed, SERVICE, server.number, count) * len(factors))]
            return max(1, round(planned_us * float(drawn)))
        if station.spread:
            return max(1, round(planned_us * exp(station.spread * normal(seed, SERVICE, server.number, count))))
        return planned_us

    def end(self, server: Server) -> None:
        """End a service: the next one begins before what was served goes on."""
        batch = server.serving
        assert batch is not None
        server.serving = None
        batch.end_us = server.until_us = self.now
        server.promised.pop(batch, None)
        self.begin(server)
        batch.owner.corrected(server)
        batch.owner.gone_on(batch)

    # Cards.

    def send_over_card(self, batch: Batch) -> None:
        """Let a batch join the queue of its server's card; first come, first served, its end is known."""
        station, card = self.station(batch), batch.server.card
        begin_us = max(self.now, self.cards_free_us.get(card, 0))
        sending_us = batch.size * station.wire_us
        for slow in self.conditions.slowdowns:
            if slow.from_us <= begin_us < slow.until_us:
                sending_us = round(sending_us * slow.factor)
        self.cards_free_us[card] = begin_us + sending_us
        self.at(begin_us + sending_us + station.hop_us, REACH, batch.number, lambda: batch.owner.reached(batch))
