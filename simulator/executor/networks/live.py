"""The event engine on a real clock: the same rules, but a service ends when its worker says so.

A run of the compiled engine (`simulator.engine.running.Run`) is let happen up to now, again and again. Its services are
endless: whatever begins is given to a worker (`Staff`), and when that is through, the end of the service is entered in
the calendar at the time that the worker stamped. So central queues, latest start first, reservations, reactive
dispatch, shared pools, several DNNs, retries and changes of the configuration are decided by the very functions that a
simulation runs; where workers take exactly as long as planned, everything happens at the µs that a simulation says.

Two things take as long as they take here: a server that has failed is back when its worker is, and a change of the
configuration comes into force when the replicas that it asked for have loaded their variant (a cold start).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from planner.model import InputError
from simulator.dispatch.books import NOTES, TAIL, WAKE
from simulator.dispatch.decisions import FINISHED, OPEN
from simulator.dispatch.system import Ints
from simulator.engine.core.calendar import DISPATCH, END, END_OF_TIME_US, HORIZON_US, TIME_BITS, UNIT, arm, disarm
from simulator.engine.core.configuration import load_servers, reconfigure
from simulator.engine.core.state import FRONTENDS, LOADING, OFF, ROUTES, SENDS, STEP_BITS, State
from simulator.engine.network import (
    REACTIVE,
    REACTS,
    RESERVED,
    Change,
    Conditions,
    Frontend,
    Network,
    Outage,
)
from simulator.engine.networks import Adapt
from simulator.engine.running import Run
from simulator.executor.networks.talk import Ended, Event, Gone, Service, Staff

ENDLESS = 1e6  # times the planned time: never before its worker says so
LOOK_EVERY_US = 250_000


@dataclass
class ColdStart:
    """A change of a station's configuration: ``replicas[kind]``, when it was asked for, and when they had loaded."""

    station: int
    replicas: tuple[int, ...]
    asked_us: int
    ready_us: int | None = None


@dataclass(frozen=True)
class Incident:
    """Something that went wrong with a server."""

    time_us: int
    server: int
    what: str


@dataclass
class LiveRun:
    """A run of a network with real workers.

    ``failures_allowed`` is how often a server's worker may break without serving anything in between.
    """

    network: Network
    arrivals_us: Sequence[Ints]
    staff: Staff
    adapt: Adapt | None = None
    every_us: int = 0
    tick: Callable[[int], None] = lambda now_us: None
    failures_allowed: int = 3
    drain_us: int = 30_000_000
    cold_starts: list[ColdStart] = field(default_factory=list)
    incidents: list[Incident] = field(default_factory=list)
    stopped_us: int | None = None

    def __post_init__(self) -> None:
        """Prepare the state."""
        reacts = any(isinstance(one, Frontend) and one.policy == REACTS for one in self.network.classes)
        # An outage after all time leaves room for requests that join a reactive queue again.
        never = (Outage(HORIZON_US, (), 1),) if reacts else ()
        conditions = Conditions(factors=np.array([ENDLESS]), corrected=True, outages=never)
        self.run = Run(self.network, [one.copy() for one in self.arrivals_us], conditions)
        self._begun = self.state.server["begun"].copy()
        self._serving: dict[int, Service] = {}
        self._open: set[int] = set()  # requests that workers have seen and that have no outcome yet
        self._closed = False
        self._answered: list[int] = []  # those that reservations have brought to the end
        self._in_service: Counter[int] = Counter()
        self._services = 0
        self._changes: list[tuple[Change, ColdStart]] = []
        self._failures: dict[int, int] = {}
        self._loading: set[int] = set()  # servers whose worker is on its way
        self._staffed = set(np.flatnonzero(self.network.servers.on).tolist())
        self._down: set[int] = set()
        self._last_us = max((int(one[-1]) for one in self.arrivals_us if len(one)), default=0)
        if self.adapt is not None:
            if self.every_us <= 0:
                raise InputError(f"adaptation: every_us: expected a time above 0 µs, got {self.every_us}")
            for at_us in range(self.every_us, self._last_us + 1, self.every_us):
                self.run.at(at_us, self._ask)

    @property
    def state(self) -> State:
        """The engine's state."""
        return self.run.state

    def compile(self) -> None:
        """Have everything compiled that a run will call, before anything arrives: it takes seconds the first time."""
        self.run.until(0)
        self.run.prepare()
        state = self.state
        arm(state.tree, state.order, 0, END_OF_TIME_US, END, 0)
        disarm(state.tree, state.order, 0)

    def serve(self) -> None:
        """Let everything happen until all requests have their outcome, or nothing comes of the rest."""
        look_us = 0
        while not self._over():
            now_us = self.staff.now_us()
            if self.stopped_us is not None and not self._closed:
                self._let_no_more_in()
            if now_us >= look_us:
                look_us = now_us + LOOK_EVERY_US
                for w in self._drained():
                    self._staffed.discard(w)
                    self.staff.leave(w)
                self.tick(now_us)
            self._happen(now_us)
            for event in self.staff.poll(min(look_us, self._next_us())):
                self._take(event)

    def stop(self) -> None:
        """Let no further request in, and finish what has come. The loop sees to it: a signal may come at any time."""
        self.stopped_us = self.staff.now_us()

    def _let_no_more_in(self) -> None:
        assert self.stopped_us is not None
        self._closed = True
        state, c = self.state, self.state.c
        self.run.changes.clear()
        for k, route in enumerate(state.route):
            coming = state.arrivals[route["next"] : route["to"]]
            route["to"] = route["next"] + int(np.searchsorted(coming, self.stopped_us, side="right"))
            if route["next"] == route["to"]:
                disarm(state.tree, state.order, int(c[ROUTES]) + k)
        for d, frontend in enumerate(state.frontend):
            came = frontend["came"] if frontend["policy"] == REACTS else state.books[d, NOTES, 0, TAIL]
            frontend["to"] = frontend["from_"] + came
            wake_us = int(state.books[d, NOTES, 0, WAKE])
            if wake_us < END_OF_TIME_US:
                arm(state.tree, state.order, int(c[FRONTENDS]) + d, wake_us, DISPATCH, d)
            else:
                disarm(state.tree, state.order, int(c[FRONTENDS]) + d)

    def change(self, change: Change) -> None:
        """Give a central station another configuration, from ``change.at_us`` on and as soon as it has loaded."""
        self.run.at(max(change.at_us, self.run.now_us), partial(self._load, change))

    def _over(self) -> bool:
        """Return whether nothing is left to happen, or it takes too long."""
        if self._serving or self._loading:
            return self.run.now_us > self._last_us + self.drain_us
        return self._next_us() >= END_OF_TIME_US or self.run.now_us > self._last_us + self.drain_us

    def _next_us(self) -> int:
        """Return when something will happen unless a worker speaks before."""
        state, coming_us = self.state, END_OF_TIME_US
        if len(state.route) == 1 and state.route["next"][0] < state.route["to"][0]:
            coming_us = int(state.arrivals[state.route["next"][0]])
        change_us = self.run.changes[0][0] if self.run.changes else END_OF_TIME_US
        return min(int(state.tree[1]) >> TIME_BITS, coming_us, change_us)

    def _now_us(self) -> int:
        """Return the earliest time at which something new can happen."""
        return max(self.staff.now_us(), self.run.now_us)

    def _happen(self, now_us: int) -> None:
        """Let happen what happens up to now, and give to workers what begins."""
        self.run.until(now_us + 1)
        self._give()
        outcome = self.state.outcome
        decided = [r for r in self._open if outcome[r] != OPEN and not self._in_service[r]]
        for request in decided:
            self._done(request, outcome[request] == FINISHED)
        for request in self._answered:
            self._done(request, finished=True)
        self._answered.clear()

    def _give(self) -> None:
        """Give to workers what has begun."""
        begun = self.state.server["begun"]
        for w in np.flatnonzero(begun != self._begun).tolist():
            self._begun[w] = begun[w]
            if (b := int(self.state.server["serving"][w])) >= 0:
                self._begin(w, b)

    def _done(self, request: int, finished: bool) -> None:
        self._open.remove(request)
        self._in_service.pop(request, None)
        self.staff.done(request, finished)

    def _begin(self, w: int, b: int) -> None:
        service = self._service(w, b)
        planned_us = self._planned_us(w, b)
        self.state.server["busy_us"][w] += planned_us - max(1, round(planned_us * ENDLESS))
        self._serving[w] = service
        self._open.update(service.requests)
        self._in_service.update(service.requests)
        self.staff.begin(service)

    def _service(self, w: int, b: int) -> Service:
        """Return what the engine has begun."""
        state = self.state
        self._services += 1
        batch = state.batch[b]
        q, size = int(batch["station"]), int(batch["size"])
        station = state.station[q]
        kind = int(state.server["kind"][w])
        if station["rule"] == RESERVED:
            first = int(batch["first"])
            requests = tuple(range(first, first + size))
            steps = (int(station["stage"]),) * size
        elif station["rule"] == REACTIVE:
            row = state.queue[len(state.queue) - len(state.station) + int(batch["queue"])]
            first = int(batch["first"])
            requests, steps = tuple(row[first : first + size].tolist()), (int(station["stage"]),) * size
        else:
            steps_of, token, tokens = 1 << int(state.c[STEP_BITS]), int(batch["head"]), []
            for _ in range(size):
                tokens.append(divmod(token, steps_of))
                token = int(state.token["follow"][token])
            requests, steps = tuple(r for r, _ in tokens), tuple(n for _, n in tokens)
        return Service(self._services, w, q, kind, requests, steps)

    # What workers say.

    def _take(self, event: Event) -> None:
        if isinstance(event, Ended):
            self._ended(event)
        elif isinstance(event, Gone):
            self._gone(event)
        else:
            self._ready(event.server)

    def _ended(self, event: Ended) -> None:
        """Enter the end of a service, at the earliest after all that has happened."""
        service = self._serving.get(event.server)
        if service is None or service.number != event.number:  # of a worker that was given up since
            return
        if event.failed:
            self._note(event.server, f"could not run a batch: {event.failed}")
            self._interrupt(event.server)
            self._repair(event.server)
            return
        self._leave_service(event.server)
        self._failures.pop(event.server, None)
        state, w = self.state, event.server
        b = int(state.server["serving"][w])
        end_us = max(event.end_us, self.run.now_us - 1, int(state.batch["start"][b]))
        state.server["busy_us"][w] += end_us - int(state.batch["start"][b]) - self._planned_us(w, b)
        state.batch["start"][b] = min(end_us, max(event.start_us, int(state.batch["start"][b])))
        arm(state.tree, state.order, w, end_us, END, int(state.batch["number"][b]))
        station = state.station[service.station]
        if station["rule"] == RESERVED and not station["links"] & SENDS:
            self._answered += service.requests

    def _planned_us(self, w: int, b: int) -> int:
        """Return how long a server that has begun a batch is planned to take."""
        return int(self.state.server["until"][w]) - int(self.state.batch["start"][b])

    def _leave_service(self, w: int) -> bool:
        """Let a server serve nothing any more; returns whether it did."""
        service = self._serving.pop(w, None)
        if service:
            self._in_service.subtract(service.requests)
        return service is not None

    def _gone(self, event: Gone) -> None:
        """Let a server fail, and load again unless it has failed too often."""
        w = event.server
        self._note(w, f"down: {event.reason}")
        self._loading.discard(w)
        self._failures[w] = self._failures.get(w, 0) + 1
        self._interrupt(w)
        if self._failures[w] < self.failures_allowed:
            self._loading.add(w)
            self.staff.load(w, int(self.state.server["kind"][w]))
        self._come_into_force()

    def _interrupt(self, w: int) -> None:
        """Enter that a server has failed: it is down until it is repaired."""
        if self._leave_service(w):  # the engine takes back what is left of a service, which it knows as endless
            state, b = self.state, int(self.state.server["serving"][w])
            end_us = int(state.tree[len(state.order) + w]) >> TIME_BITS
            state.server["busy_us"][w] += end_us - int(state.batch["start"][b]) - self._planned_us(w, b)
        self._down.add(w)
        self.run.add_outages([Outage(self._now_us(), (w,), END_OF_TIME_US)])

    def _ready(self, w: int) -> None:
        self._loading.discard(w)
        self._staffed.add(w)
        if w in self._down:
            self._note(w, "up again")
            self._repair(w)
        self._come_into_force()

    def _repair(self, w: int) -> None:
        """Enter that a server is back, after all that has happened."""
        self._down.discard(w)
        at_us = self._now_us()
        self.run.at(at_us, partial(self._mend, w, at_us))

    def _mend(self, w: int, at_us: int) -> None:
        state = self.state
        state.server["until"][w] = state.server["back"][w] = at_us
        arm(state.tree, state.order, w, at_us, UNIT, 1 + w)

    def _note(self, w: int, what: str) -> None:
        self.incidents.append(Incident(self.staff.now_us(), w, what))

    # The configuration changes.

    def _ask(self) -> None:
        assert self.adapt is not None
        self._give()
        for change in self.adapt(self.run.observe()) or ():
            self.change(change)

    def _load(self, change: Change) -> None:
        """Let servers load that a change needs, and wait for them."""
        q, now_us = change.station, self.run.now_us
        load_servers(self.state, q, np.array(change.replicas, np.int64))
        self._changes.append((change, ColdStart(q, change.replicas, now_us)))
        for w in self.network.stations[q].servers:
            if self.state.server["off"][w] == LOADING and w not in self._loading:
                self._loading.add(w)
                self.staff.load(w, int(self.state.server["kind"][w]))
        self._come_into_force()

    def _come_into_force(self) -> None:
        """Let changes come into force whose replicas have all loaded, those of a station as they were asked for."""
        waiting: list[tuple[Change, ColdStart]] = []
        for change, cold in self._changes:
            before = {other.station for other, _ in waiting}
            if change.station in before or self._loading & set(self.network.stations[change.station].servers):
                waiting.append((change, cold))
                continue
            self.cold_starts.append(cold)
            self.run.at(self._now_us(), partial(self._reconfigure, change, cold))
        self._changes = waiting

    def _reconfigure(self, change: Change, cold: ColdStart) -> None:
        cold.ready_us = self.run.now_us
        wanted = np.array(change.replicas, np.int64)
        reconfigure(self.state, change.station, wanted, change.max_batch, self.run.now_us)

    def _drained(self) -> list[int]:
        """Return the servers that are off and have nothing in front of them: their workers may leave."""
        server = self.state.server
        idle = (server["off"] == OFF) & (server["serving"] < 0) & (server["head"] < 0)
        return [w for w in np.flatnonzero(idle).tolist() if w in self._staffed and w not in self._loading]
