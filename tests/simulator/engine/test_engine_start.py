"""What a run begins with."""

import numpy as np
import pytest

from simulator.engine.core.state import EACH, HOME
from simulator.engine.network import (
    CENTRAL,
    LATEST_START,
    NO_LIMIT_US,
    Conditions,
    Network,
    Route,
    Station,
    Step,
    servers,
)
from simulator.engine.start import start


def station(w: int, rule: int = CENTRAL, timeout_us: int = 5, drop_age_us: int = NO_LIMIT_US) -> Station:
    return Station(rule, (w,), np.array([[0, 10, 14]]), max_batch=2, timeout_us=timeout_us, drop_age_us=drop_age_us)


def route(*steps: tuple[int, tuple[int, ...]]) -> Route:
    return Route("net", tuple(Step(q, then) for q, then in steps))


CHAIN = route((0, (1,)), (1, (2,)), (2, ()))


@pytest.mark.parametrize(
    ("stations", "routes", "expected"),
    [
        ([{}, {}, {}], [CHAIN], [1, 2, HOME]),
        ([{}, {}, {}], [CHAIN, CHAIN], [1, 2, HOME]),
        ([{}, {}, {}], [CHAIN, route((1, ()))], [1, EACH, HOME]),  # from the second one some go home
        ([{}, {}, {}], [CHAIN, route((0, (1,)), (2, ()))], [EACH, 2, HOME]),  # from the first one to two others
        ([{}, {"timeout_us": 0}, {}], [CHAIN], [EACH, 2, HOME]),  # it sends each request as it comes
        ([{}, {"drop_age_us": 99}, {}], [CHAIN], [EACH, EACH, HOME]),  # batches pass over old requests
        ([{}, {}, {"rule": LATEST_START}], [CHAIN], [1, EACH, HOME]),
        ([{}, {}, {}], [route((0, (1, 2)), (1, ()), (2, ()))], [EACH, EACH, EACH]),
    ],
)
def test_stations_whose_batches_go_on_together(stations, routes, expected) -> None:
    network = Network(servers([0] * 3), tuple(station(w, **one) for w, one in enumerate(stations)), tuple(routes))
    state = start(network, [np.array([0])] * len(routes), Conditions())
    assert state.station["onward"].tolist() == expected
