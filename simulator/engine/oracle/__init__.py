"""The oracle: the rules of `simulator.engine.network` in SimPy, event by event, to be read and not to be fast."""

from collections.abc import Sequence

import numpy as np

from simulator.dispatch.system import Ints
from simulator.engine.checking import check_change, check_conditions, check_network
from simulator.engine.network import Change, Conditions, Network, Route, Takeover
from simulator.engine.oracle import changes as changing
from simulator.engine.oracle import failures
from simulator.engine.oracle.core import Clockwork
from simulator.engine.oracle.routes import Requests
from simulator.engine.oracle.takeovers import Frontends
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
    conditions = conditions or Conditions()
    check_network(network, len(arrivals_us))
    check_conditions(conditions, len(network.servers))
    for change in changes:
        check_change(change, network)
    run = Clockwork(network, conditions)
    requests = Requests(run, [one for one in network.classes if isinstance(one, Route)], list(arrivals_us))
    changing.schedule(requests, changes)
    failures.schedule(run, run.conditions.outages, lambda _: None, requests.back)
    run.env.run()
    return _records(requests, arrivals_us)


def dispatch_oracle(
    network: Network,
    arrivals_us: Sequence[Ints],
    conditions: Conditions | None = None,
    takeovers: Sequence[Takeover] = (),
) -> list[Records]:
    """Return what happens to the DNNs of a network whose classes are all frontends; ``takeovers`` in order of time."""
    conditions = conditions or Conditions()
    check_network(network, len(arrivals_us))
    check_conditions(conditions, len(network.servers))
    run = Clockwork(network, conditions)
    frontends = Frontends(run, network, arrivals_us)
    frontends.fail(run.conditions.outages)
    for takeover in takeovers:
        check_network(takeover.network, len(takeover.of))
        frontends.schedule(takeover)
    run.env.run()
    return frontends.records()


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
