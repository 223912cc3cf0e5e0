"""The frontends of a run, and how one takes the queue of another one over."""

from collections.abc import Sequence

from simulator.dispatch.system import Ints
from simulator.engine.network import REACTS, Frontend, Network, Outage, Takeover
from simulator.engine.oracle import failures
from simulator.engine.oracle.core import CHANGE, Clockwork, Server
from simulator.engine.oracle.occupancy import Sharing
from simulator.engine.oracle.promises import Places
from simulator.engine.oracle.reactive import Reacting
from simulator.engine.oracle.reservations import Dispatcher
from simulator.results.records import Records

One = Dispatcher | Reacting


class Frontends:
    """All frontends of a run, those that have been taken over included."""

    def __init__(self, run: Clockwork, network: Network, arrivals_us: Sequence[Ints]) -> None:
        self.run, self.dnns = run, len(network.classes)
        self.all: list[One] = []
        self.since_us: list[int] = []
        self.until_us: dict[One, int] = {}  # when those that are not in charge any more were taken over
        self.of_server: dict[Server, One] = {}
        self.places: Places = {}
        self.sharing: Sharing = {}
        for one in self.add(network, list(arrivals_us), [None] * self.dnns, 0):
            if run.conditions.load_us:
                one.expect({server: server.until_us for server in one.slices})
            one.arm()

    def add(
        self, network: Network, arrivals_us: Sequence[Ints], before: Sequence[One | None], first_station: int
    ) -> list[One]:
        """Add the frontends of a network."""
        added: list[One] = []
        for frontend, arrivals, old in zip(network.classes, arrivals_us, before, strict=True):
            assert isinstance(frontend, Frontend)
            stations = [[first_station + q for q in row] for row in frontend.stations]
            number = len(self.all)
            if frontend.policy == REACTS:
                assert not isinstance(old, Dispatcher)
                one: One = Reacting(self.run, number, frontend.system, stations, arrivals, self.sharing, old)
            else:
                assert not isinstance(old, Reacting)
                one = Dispatcher(self.run, number, frontend, stations, arrivals, self.places, old)
            one.promise_ended = self.let_go
            self.all.append(one)
            self.since_us.append(self.run.now if old else -1)
            self.of_server.update(dict.fromkeys(one.slices, one))
            added.append(one)
        return added

    def fail(self, outages: Sequence[Outage], first_server: int = 0) -> None:
        """Let servers fail that are numbered from one on."""

        def stopped(servers: Sequence[Server]) -> None:
            for server in servers:
                self.of_server[server].corrected(server)
            for one in self.all:
                if one not in self.until_us:
                    one.work_through()

        known = [Outage(o.at_us, tuple(first_server + w for w in o.servers), o.repair_us) for o in outages]
        failures.schedule(self.run, known, stopped, lambda server: self.of_server[server].corrected(server))

    def schedule(self, takeover: Takeover) -> None:
        """Let queues be taken over."""
        self.run.at(takeover.at_us, CHANGE, 0, lambda: self.take_over(takeover))

    def take_over(self, takeover: Takeover) -> None:
        """Let frontends with servers of their own take over, all together."""
        olds = [self.all[number] for number in takeover.of]
        first_server, first_station = len(self.run.servers), len(self.run.stations)
        servers = self.run.add(takeover.network)
        self.until_us.update(dict.fromkeys(olds, self.run.now))
        expected_us = {server: self.expected_us(server) for server in servers}
        for server in servers:
            server.held, server.until_us = True, expected_us[server]
        news = self.add(takeover.network, [old.arrivals_us for old in olds], olds, first_station)
        for one in news:
            one.expect({server: expected_us[server] for server in one.slices})
        self.let_go()
        self.fail(takeover.outages, first_server)
        for one in news:
            one.take_queue_over()

    def expected_us(self, server: Server) -> int:
        """Return when a new server may have loaded: after all that plans before have on its device."""
        there = [(one, other) for other, one in self.of_server.items() if other.device == server.device]
        taken_us = [one.taken_us(other) for one, other in there if one in self.until_us]
        return max([self.run.now, *taken_us]) + self.run.conditions.load_us

    def let_go(self) -> None:
        """Let held servers load that nothing holds any more."""
        held = [server for server in self.run.servers if server.held]
        for server in held:
            since_us = self.since_us[self.of_server[server].number]
            before = [one for one, until_us in self.until_us.items() if until_us <= since_us]
            if any(one.is_at_work_on(server.device) for one in before):
                continue
            server.held = False
            server.until_us = max(self.run.now, server.back_us if server.down else 0) + self.run.conditions.load_us
            self.run.begin(server)
            self.of_server[server].corrected(server)

    def records(self) -> list[Records]:
        """Return the records of the DNNs."""
        last: dict[int, One] = {}
        for one in self.all:
            last[one.dnn] = one
        return [last[dnn].records() for dnn in range(self.dnns)]
