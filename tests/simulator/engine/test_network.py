"""Descriptions of networks: what cannot be is refused in one line."""

from dataclasses import replace

import numpy as np
import pytest

from planner.model import InputError
from simulator.engine.network import CENTRAL, LATEST_START, Network, Route, Station, Step, check_network, servers

LATENCY_US = np.array([[0, 100, 150]])
STATION = Station(CENTRAL, (0,), LATENCY_US, max_batch=2)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            Network(servers([0]), (replace(STATION, servers=(1,)),), ()),
            r"station 0: expected servers of 0 to 0, got \[1\]",
        ),
        (
            Network(servers([0]), (replace(STATION, max_batch=3),), ()),
            "a largest batch of 1 to 2 .those have a latency., got 3",
        ),
        (Network(servers([1]), (STATION,), ()), "latencies are of 1 kinds of servers, got a server of kind 1"),
        (Network(servers([0]), (STATION, STATION), ()), "server 0 is station 0's; only stations of one rule share"),
        (
            Network(servers([0]), (STATION, replace(STATION, rule=LATEST_START)), ()),
            "server 0 is station 0's; only stations of one rule share",
        ),
        (Network(servers([0]), (STATION,), (Route("a", (Step(1),)),)), "expected a station of 0 to 0, got 1"),
        (
            Network(servers([0]), (STATION,), (Route("a", (Step(0, (0,)),)),)),
            r"expected later steps, each once, got \[0\]",
        ),
        (Network(servers([0]), (STATION,), (Route("a", (Step(0), Step(0))),)), "no step leads to step 1"),
    ],
)
def test_networks_that_cannot_be_are_refused(network: Network, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_network(network)


def test_stations_of_latest_start_share_servers() -> None:
    both = replace(STATION, rule=LATEST_START)
    check_network(Network(servers([0]), (both, both), (Route("a", (Step(0, (1,)), Step(1))),)))
