"""A run of the compiled engine that Python can halt, look at and change.

run = Run(network, [arrivals_us], Conditions())
run.until(10_000_000)        # all that happens before 10 s
run.change(Change(...))      # something new from here on
run.to_the_end()
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planner.model import InputError
from simulator.compilation import prepare
from simulator.dispatch.books import NEVER, NOTES, TAIL
from simulator.dispatch.system import Ints
from simulator.engine.checking import check_change
from simulator.engine.core.calendar import END_OF_TIME_US
from simulator.engine.core.configuration import load_servers, reconfigure
from simulator.engine.core.latest_start import NOBODY
from simulator.engine.core.loop import ASKS, CROWDED, ENDLESS, FULL, run
from simulator.engine.core.reactive_queues import work_queue
from simulator.engine.core.reservations import answered, dispatch, let_arrive, place_answer
from simulator.engine.core.state import BASE, DEPTH, NOW, PLACE, ROOM, VISITS, WANTED
from simulator.engine.core.takeovers import hand_over_all
from simulator.engine.network import REACTS, Change, Conditions, Network, Outage, Takeover
from simulator.engine.python_policy import PythonPolicy, advance_by
from simulator.engine.start import start
from simulator.engine.succession import with_outages, with_successors


@dataclass(frozen=True, eq=False)
class Observation:
    """What can be seen of a run between two looks at it.

    Attributes
    ----------
    now_us, since_us
        The time, and that of the look before.
    arrived
        ``[class]``, requests that came from ``since_us`` to before ``now_us``.
    queued
        ``[station]``, requests in central queues now.
    busy
        ``[server]``, share of the time since then that it served; what it serves now counts as a whole.
    """

    now_us: int
    since_us: int
    arrived: Ints
    queued: Ints
    busy: NDArray[np.float64]


class Run:
    """A run: its state, the changes that are due, and the policies in Python."""

    def __init__(
        self,
        network: Network,
        arrivals_us: Sequence[Ints],
        conditions: Conditions,
        policy: PythonPolicy | None = None,
    ) -> None:
        self.network = network
        self.arrivals_us = arrivals_us
        self.policy = policy
        self.state = start(network, arrivals_us, conditions)
        self.now_us = 0
        self.changes: list[tuple[int, int, Callable[[], None]]] = []
        self.looked_us = 0
        self.busy_us = self.state.server["busy_us"].copy()

    def until(self, until_us: int) -> None:
        """Let everything happen that happens before a time."""
        while self.changes and self.changes[0][0] < until_us:
            at_us, _, happen = self.changes.pop(0)
            self._proceed(at_us)
            self.now_us = at_us
            happen()
        self._proceed(until_us)
        self.now_us = max(self.now_us, until_us) if until_us < NEVER else self.now_us

    def to_the_end(self) -> None:
        """Let everything happen."""
        self.until(NEVER)

    def at(self, at_us: int, happen: Callable[[], None]) -> None:
        """Let something happen at a time, before all else at that time and after what was asked for before."""
        if at_us < self.now_us:
            raise InputError(f"run: {at_us} µs is over, it is {self.now_us} µs; expected a later time for a change")
        self.changes.append((at_us, len(self.changes), happen))
        self.changes.sort(key=lambda change: change[0])

    def change(self, change: Change) -> None:
        """Give a central station another configuration."""
        check_change(change, self.network)
        q = change.station
        wanted = np.array(change.replicas, np.int64)
        self.at(change.at_us, lambda: load_servers(self.state, q, wanted))
        self.at(change.ready_us, lambda: reconfigure(self.state, q, wanted.copy(), change.max_batch, self.now_us))

    def prepare(self) -> None:
        """Have compiled what changes will call, which would hold a run on a real clock up."""
        wanted = np.zeros(0, np.int64)
        prepare(load_servers, self.state, 0, wanted)
        prepare(reconfigure, self.state, 0, wanted, 1, 0)

    def add_outages(self, outages: Sequence[Outage]) -> None:
        """Let servers fail that are now or later; raises InputError for a time that is over."""
        self.state = with_outages(self.state, outages, self.now_us)

    def take_over(self, takeover: Takeover) -> None:
        """Let frontends of another network take queues over, now."""
        servers, first = len(self.state.server), len(self.state.frontend)
        self.state = with_successors(self.state, takeover.of, takeover.network, self.now_us)
        hand_over_all(self.state, self.now_us)
        moved = [replace(one, servers=tuple(servers + w for w in one.servers)) for one in takeover.outages]
        self.add_outages(moved)
        for d in range(first, len(self.state.frontend)):
            if self.state.frontend["policy"][d] == REACTS:
                work_queue(self.state, int(self.state.frontend["station"][d]), self.now_us)
            elif self.policy is not None:
                self._answer(d, self.now_us)
            else:
                dispatch(self.state, d, self.now_us)

    def observe(self) -> Observation:
        """Look at the run as it is now."""
        since_us, self.looked_us = self.looked_us, self.now_us
        busy_us = self.state.server["busy_us"].copy()
        arrived = [np.diff(np.searchsorted(one, [since_us, self.now_us]))[0] for one in self.arrivals_us]
        share = (busy_us - self.busy_us[: len(busy_us)]) / max(1, self.now_us - since_us)
        self.busy_us = busy_us
        queued = self.state.station["length"][: len(self.network.stations)].astype(np.int64)
        return Observation(self.now_us, since_us, np.array(arrived), queued, share)

    def _proceed(self, until_us: int) -> None:
        while True:
            code, d = run(self.state, until_us)
            if code == ASKS:
                self._ask(d)
            elif code == FULL:
                self._make_room()
            elif code == CROWDED:
                self._widen()
            elif code == ENDLESS:
                raise InputError(
                    f"run: it goes on beyond {END_OF_TIME_US} µs (50 days); expected shorter services, loads and waits"
                )
            else:
                return  # DONE, or PAUSED

    def _ask(self, d: int) -> None:
        """Let the policy in Python answer for a frontend that wakes up."""
        now = int(self.state.c[NOW])
        let_arrive(self.state, d, now)
        self._answer(d, now)

    def _answer(self, d: int, now: int) -> None:
        """Let the policy in Python work through the queue of a frontend."""
        assert self.policy is not None
        state = self.state
        first, last = int(state.frontend["from_"][d]), int(state.frontend["to"][d])
        while True:
            books, fate = state.books[d], state.fate[first:last]
            size, pipeline = advance_by(self.policy, books, state.arrivals[first:last], fate, now)
            if size == 0:
                break
            place_answer(state, d, size, pipeline, now)
        answered(state, d, now)

    def _make_room(self) -> None:
        """Move what may not have room until the outage after the next to where there is twice as much."""
        state, c = self.state, self.state.c
        if c[DEPTH] and int(state.books[:, NOTES, :, TAIL].max()) + len(state.arrivals) > state.queue.shape[1]:
            self.state = state._replace(queue=np.pad(state.queue, [(0, 0), (0, state.queue.shape[1])]))
            return
        used, base = int(c[VISITS]), int(c[BASE])
        room = 2 * (int(c[ROOM]) + len(state.token) + int(c[DEPTH]) * len(state.arrivals) + len(state.server))
        visits = np.concatenate([state.visits, np.empty((4, room), np.int64)], axis=1)
        c[BASE], c[ROOM] = state.visits.shape[1], room
        visits[:, c[BASE] : c[BASE] + used] = state.visits[:, base : base + used]
        self.state = state._replace(visits=visits)

    def _widen(self) -> None:
        """Let there be as many places in front of servers as are wanted."""
        state = self.state
        servers, room = state.places.shape
        places = np.zeros((servers, int(state.c[WANTED])), PLACE)
        places[:, :room] = state.places
        dues = np.pad(state.dues, [(0, 0), (0, places.shape[1] - room)], constant_values=NOBODY)
        self.state = state._replace(places=places, dues=dues)
