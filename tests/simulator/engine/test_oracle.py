"""The oracle by hand, and what must hold on every run of it."""

import numpy as np
import pytest
from random_networks import random_case

from simulator.dispatch.decisions import FINISHED, HOPELESS, LATE, LOST, OPEN
from simulator.engine.network import (
    CENTRAL,
    LATEST_START,
    Conditions,
    Network,
    Outage,
    Route,
    Station,
    Step,
    servers,
)
from simulator.engine.oracle import run_oracle

LATENCY_US = np.array([[0, 10, 14, 18]])


def test_a_central_queue_waits_for_a_full_batch_or_its_timeout() -> None:
    """Batches of 3 or after 20: 0, 5, 8 leave full at 8 and take 18; 30 leaves alone at 50; a second server is free."""
    station = Station(CENTRAL, (0, 1), LATENCY_US, max_batch=3, timeout_us=20)
    network = Network(servers([0, 0]), (station,), (Route("r", (Step(0),)),))
    found = run_oracle(network, [np.array([0, 5, 8, 30])])
    assert found.size.tolist() == [3, 1]
    assert found.start_us.tolist() == [8, 50]
    assert found.server.tolist() == [0, 1]  # round robin
    assert found.done_us.tolist() == [26, 26, 26, 60]


def test_later_steps_wait_for_all_before_them_and_cards_take_their_time() -> None:
    """Step 0 (10) sends over a wire of 2 and a hop of 5 to steps 1 (10) and 2 (10, behind 1's); 3 waits for both."""
    first = Station(CENTRAL, (0,), LATENCY_US, wire_us=2, hop_us=5)
    others = tuple(Station(CENTRAL, (w,), LATENCY_US * w) for w in (1, 2, 3))
    route = Route("r", (Step(0, (1, 2)), Step(1, (3,)), Step(2, (3,)), Step(3)))
    network = Network(servers([0, 0, 0, 0]), (first, *others), (route,))
    found = run_oracle(network, [np.array([0])])
    assert found.start_us.tolist() == [0, 17, 17, 37]  # stations 0, 1, 2 (20 long), 3 (30 long)
    assert found.done_us.tolist() == [67]


def test_latest_start_first_joins_what_is_open_and_discards_what_is_hopeless() -> None:
    """One server busy until 10. Requests at 1 (latest start 41), 2 (22): the second is served before the first."""
    station = Station(LATEST_START, (0,), LATENCY_US, max_batch=1, discard=True)
    routes = (
        Route("first", (Step(0, (), 0, 100),)),
        Route("patient", (Step(0, (), 40, 100),)),
        Route("urgent", (Step(0, (), 20, 100),)),
        Route("hopeless", (Step(0, (), 0, 5),)),
    )
    network = Network(servers([0]), (station,), routes)
    found = run_oracle(network, [np.array([0]), np.array([1]), np.array([2]), np.array([3])])
    assert found.outcome.tolist() == [FINISHED, FINISHED, FINISHED, HOPELESS]
    assert found.done_us.tolist() == [10, 30, 20, 3]


def test_a_second_cut_in_one_step_loses_a_request() -> None:
    """Served from 0, cut at 5 and served again from 7, cut at 9: lost. The next request is served when it is back."""
    network = Network(servers([0]), (Station(CENTRAL, (0,), LATENCY_US),), (Route("r", (Step(0),)),))
    outages = (Outage(5, (0,), 2), Outage(9, (0,), 4))
    found = run_oracle(network, [np.array([0, 8])], Conditions(outages=outages, corrected=True))
    assert found.outcome.tolist() == [LOST, FINISHED]
    assert found.done_us.tolist() == [9, 23]


@pytest.mark.parametrize("seed", range(60))
def test_every_run_keeps_its_books(seed: int) -> None:
    """All requests have one outcome, servers serve one batch at a time, and nothing is served before it comes."""
    case = random_case(seed)
    found = run_oracle(case.network, case.arrivals_us, case.conditions, case.changes)
    decided = np.isin(found.outcome, [FINISHED, LATE, HOPELESS, LOST])
    assert (decided == (found.done_us >= 0)).all()
    assert (found.done_us[decided] >= found.arrival_us[decided]).all()
    waiting = found.outcome == OPEN  # for a server that is off, or a step whose other branch is lost
    assert not waiting.any() or case.changes or not case.network.servers.on.all()
    served = found.start_us >= 0
    assert (found.start_us[served] >= found.reach_us[served]).all()
    for server in range(len(case.network.servers)):
        mine = np.flatnonzero(served & (found.server == server))
        mine = mine[np.argsort(found.start_us[mine], kind="stable")]
        assert (found.start_us[mine[1:]] >= found.end_us[mine[:-1]]).all()
    finished = np.flatnonzero(found.outcome == FINISHED)
    for request in finished:
        steps = len(case.network.classes[found.request_class[request]].steps)  # type: ignore[union-attr]
        assert (found.visit[request, :steps] >= 0).all()
        last_us = found.end_us[found.visit[request, :steps]].max()
        assert last_us <= found.done_us[request]
