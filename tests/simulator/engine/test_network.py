"""Descriptions of networks and of what happens in them: what cannot be is refused in one line."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from planner.model import InputError
from simulator.engine.checking import check_change, check_conditions, check_network
from simulator.engine.network import (
    CENTRAL,
    LATEST_START,
    REACTIVE,
    RESERVED,
    Change,
    Conditions,
    Network,
    Outage,
    Route,
    Slowdown,
    Station,
    Step,
    servers,
)
from simulator.engine.networks import simulate_network

LATENCY_US = np.array([[0, 100, 150]])
STATION = Station(CENTRAL, (0,), LATENCY_US, max_batch=2)
ROUTE = Route("a", (Step(0),))
NETWORK = Network(servers([0]), (STATION,), (ROUTE,))
ARRIVALS_US = [np.array([0, 2, 3])]


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            Network(servers([0]), (replace(STATION, servers=(1,)),), (ROUTE,)),
            r"station 0: expected servers of 0 to 0, each once, got \[1\]",
        ),
        (
            Network(servers([0]), (replace(STATION, max_batch=3),), (ROUTE,)),
            "a largest batch of 1 to 2 .those have a latency., got 3",
        ),
        (Network(servers([1]), (STATION,), (ROUTE,)), "latencies are of 1 kinds of servers, got a server of kind 1"),
        (
            Network(servers([0]), (STATION, STATION), (ROUTE,)),
            "server 0 is station 0's; only stations",
        ),
        (
            Network(servers([0]), (STATION, replace(STATION, rule=LATEST_START)), (ROUTE,)),
            "server 0 is station 0's; only stations",
        ),
        (Network(servers([0]), (STATION,), (Route("a", (Step(1),)),)), "expected a station of 0 to 0, got 1"),
        (
            Network(servers([0]), (STATION,), (Route("a", (Step(0, (0,)),)),)),
            r"expected later steps, each once, got \[0\]",
        ),
        (Network(servers([0]), (STATION,), (Route("a", (Step(0), Step(0))),)), "no step leads to step 1"),
        (replace(NETWORK, classes=(Route("a", ()),)), r"class 0 .a.: no steps; expected at least one"),
        (replace(NETWORK, classes=()), "0 classes of requests and 1 rows of arrivals"),
        (replace(NETWORK, classes=(ROUTE, ROUTE)), "2 classes of requests and 1 rows of arrivals"),
        (replace(NETWORK, servers=servers([-1])), "servers: kind: expected numbers from 0 on, got -1"),
        (replace(NETWORK, servers=servers([0], card=[-1])), "servers: card: expected numbers from 0 on, got -1"),
        (replace(NETWORK, servers=servers([0], card=[10**9])), "servers: card: expected numbers below 65536"),
        (replace(NETWORK, servers=servers([0], device=[0, 1])), "servers: expected columns of one length"),
    ],
)
def test_networks_that_cannot_be_are_refused(network: Network, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_network(network, 1)


def test_stations_of_latest_start_share_servers() -> None:
    route = Route("a", (Step(0, (1,)), Step(1)))
    both = replace(STATION, rule=LATEST_START)
    check_network(Network(servers([0]), (both, both), (route,)), 1)
    with pytest.raises(InputError, match="server 0 is station 0's"):
        check_network(Network(servers([0]), (STATION, STATION), (route,)), 1)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("timeout_us", -5, "timeout_us: expected 0 to 2199023255552 µs, got -5"),
        ("drop_age_us", -1, "drop_age_us: expected 0 to"),
        ("end_by_us", -1, "end_by_us: expected 0 to"),
        ("epsilon_us", -1, "epsilon_us: expected 0 to"),
        ("wire_us", -1, "wire_us: expected 0 to"),
        ("hop_us", 1 << 60, "hop_us: expected 0 to"),  # would not fit into a calendar's word
        ("spread", -1.0, "spread: expected a finite number from 0 on, got -1"),
        ("spread", float("nan"), "spread: expected a finite number from 0 on, got nan"),
        ("rule", 9, "unknown rule 9; expected one of 0 to 3"),
        ("rule", RESERVED, "station 0 is a frontend's, expected a central queue or latest start"),
        ("rule", REACTIVE, "station 0 is a frontend's"),
        ("placement", 3, "unknown placement 3; expected one of 0 to 2"),
        ("servers", (0, 0), r"expected servers of 0 to 0, each once, got \[0, 0\]"),
        ("latency_us", np.array([[0, -5, 5]]), "latency_us: expected 0 to 2199023255552 µs, got -5 to 5"),
        ("latency_us", np.array([[0, 1 << 62, 5]]), "latency_us: expected 0 to"),
        ("latency_us", np.array([[0, 1.5, 2.5]]), "latency_us: expected integer µs .kind, batch., .* got float64"),
        ("latency_us", np.array([0, 5, 5]), "latency_us: expected integer µs .kind, batch., .* of shape .3,."),
        ("counted_us", np.array([[0, 5]]), "counted_us: expected integer µs .kind, batch., as many everywhere"),
    ],
)
def test_stations_that_cannot_be_are_refused(field: str, value: Any, message: str) -> None:
    broken = replace(NETWORK, stations=(replace(STATION, **{field: value}),))
    for engine in ("events", "simpy"):
        with pytest.raises(InputError, match=message):
            simulate_network(broken, ARRIVALS_US, engine=engine)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (Conditions(load_us=-5), "load_us: expected 0 to"),
        (Conditions(seed=-1), "seed: expected a number from 0 to 2.63 - 1, got -1"),
        (Conditions(seed=1 << 70), "seed: expected a number from 0"),
        (Conditions(factors=np.array([1.0, 0.0])), r"factors: expected finite numbers above 0, got \[1.0, 0.0\]"),
        (Conditions(factors=np.array([float("nan")])), "factors: expected finite numbers above 0"),
        (Conditions(outages=(Outage(1, (7,), 5),)), r"outage 0: expected servers of 0 to 0, got \[7\]"),
        (Conditions(outages=(Outage(1, (0,), 0),)), "outage 0: .* a repair of at least 1 µs, got 1 and 0"),
        (Conditions(outages=(Outage(9, (0,), 5), Outage(1, (0,), 5))), "outage 1: expected a time from 9 µs on"),
        (Conditions(slowdowns=(Slowdown(0, 5, -1.0),)), "slowdown 0: .* a finite factor above 0, got 0, 5 and -1"),
        (Conditions(slowdowns=(Slowdown(5, 5, 1.0),)), "slowdown 0: expected from_us < until_us"),
    ],
)
def test_conditions_that_cannot_be_are_refused(conditions: Conditions, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_conditions(conditions, servers=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (Change(5, 7, (1,), 1, 5), "change: expected a station of 0 to 0, got 7"),
        (Change(5, -1, (1,), 1, 5), "change: expected a station of 0 to 0, got -1"),
        (Change(5, 0, (), 1, 5), "change of station 0: expected a central station, replicas of kinds 0 to 0"),
        (Change(5, 0, (1,), 3, 5), "change of station 0: .* a batch of 1 to 2"),
        (Change(-5, 0, (1,), 1, 5), "change of station 0: expected 0 <= at_us <= ready_us, got -5 and 5"),
        (Change(5, 0, (1,), 1, 4), "change of station 0: expected 0 <= at_us <= ready_us, got 5 and 4"),
        (3, "change: expected a Change, got 3"),
    ],
)
def test_changes_that_cannot_be_are_refused(change: Change, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_change(change, NETWORK)


def test_unknown_engines_and_intervals_are_refused() -> None:
    with pytest.raises(InputError, match="unknown engine 'replay'; choose one of events, simpy"):
        simulate_network(NETWORK, ARRIVALS_US, engine="replay")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="every_us: expected a whole number of µs above 0, got 1.5"):
        simulate_network(NETWORK, ARRIVALS_US, adapt=lambda _: None, every_us=1.5)  # type: ignore[arg-type]
