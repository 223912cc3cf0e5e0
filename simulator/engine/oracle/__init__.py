"""The oracle: the rules of `simulator.engine.network` in SimPy, event by event, to be read and not to be fast."""

from collections.abc import Sequence

import numpy as np

from simulator.dispatch.system import Ints
from simulator.engine.network import REACTS, Change, Conditions, Frontend, Network, Route, check_network
from simulator.engine.oracle import changes as changing
from simulator.engine.oracle import failures
from simulator.engine.oracle.core import Clockwork, Server
from simulator.engine.oracle.reactive import Reacting
from simulator.engine.oracle.reservations import Dispatcher, Places
from simulator.engine.oracle.routes import Requests
from simulator.results.records import NetworkRecords, Records

__all__ = ["dispatch_oracle", "run_oracle"]


def run_oracle(
    network: Network,
    arrivals_us: Sequence[Ints],
    conditions: Conditions | None = None,
    changes: tuple[Change, ...] = (),
) -> NetworkRecords:
    """Return what happens in a network of routes until nothing is left to do; `dispatch_oracle` is for frontends.

    Parameters
    ----------
    arrivals_us
        ``[class][request]``, in order.
    """
    check_network(network)
    run = Clockwork(network, conditions or Conditions())
    requests = Requests(run, [one for one in network.classes if isinstance(one, Route)], list(arrivals_us))
    changing.schedule(requests, changes)
    failures.schedule(run, lambda _: None, requests.back)
    run.env.run()
    return _records(requests, arrivals_us)


def dispatch_oracle(
    network: Network, arrivals_us: Sequence[Ints], conditions: Conditions | None = None
) -> list[Records]:
    """Return what happens to the DNNs of a network whose classes are all frontends."""
    check_network(network)
    run = Clockwork(network, conditions or Conditions())
    places: Places = {}
    frontends = [
        Reacting(run, number, one, arrivals) if one.policy == REACTS else Dispatcher(run, number, one, arrivals, places)
        for number, (one, arrivals) in enumerate(zip(network.classes, arrivals_us, strict=True))
        if isinstance(one, Frontend)
    ]
    owner = {server: one for one in frontends for server in one.slices}

    def stopped(servers: Sequence[Server]) -> None:
        for server in servers:
            owner[server].corrected(server)
        for one in frontends:
            one.work_through()

    failures.schedule(run, stopped, lambda server: owner[server].corrected(server))
    run.env.run()
    return [one.records() for one in frontends]


def _records(requests: Requests, arrivals_us: Sequence[Ints]) -> NetworkRecords:
    shape = len(requests.arrival_us), max((len(route.steps) for route in requests.route), default=1)
    visit, joined_us = np.full(shape, -1, np.int32), np.full(shape, -1, np.int64)
    for token, number in requests.visit.items():
        visit[token] = number
    for token, at_us in requests.joined_us.items():
        joined_us[token] = at_us
    batches = requests.run.batches
    return NetworkRecords(
        engine="simpy",
        arrival_us=np.array(requests.arrival_us, np.int64),
        request_class=np.repeat(np.arange(len(arrivals_us), dtype=np.int16), [len(one) for one in arrivals_us]),
        outcome=np.array(requests.outcome, np.int8),
        done_us=np.array(requests.done_us, np.int64),
        visit=visit,
        joined_us=joined_us,
        station=np.array([batch.station for batch in batches], np.int16),
        server=np.array([batch.server.number for batch in batches], np.int16),
        kind=np.array([batch.kind for batch in batches], np.int16),
        size=np.array([batch.size for batch in batches], np.int16),
        reach_us=np.array([batch.reach_us for batch in batches], np.int64),
        start_us=np.array([batch.start_us for batch in batches], np.int64),
        end_us=np.array([batch.end_us for batch in batches], np.int64),
    )
