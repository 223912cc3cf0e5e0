from dataclasses import replace

import numpy as np

from simulator.dispatch.system import System
from simulator.engine import build_system
from simulator.executor.fleet import SliceId
from simulator.executor.links import Links


def emulated(make_case, card_slices: int) -> System:
    # 128 bytes a request: 1024 bit at 0.001 Gbit/s = 1024 µs on the wire; a hop takes 300 µs more.
    case = make_case(slices=(2, 1), bandwidth_gbps=1e-3, hop_latency_us=300.0)
    system = build_system(case.problem, case.plan, case.dnn)
    return replace(system, card_slices=np.array([[card_slices, 1]]))


def test_slices_of_one_server_share_its_card(make_case) -> None:
    links = Links(emulated(make_case, card_slices=2))
    assert links.send(SliceId(0, 0, 0), 2, 1_000) == (1_000 + 2 * 1_024 + 300, 0)
    # The other slice's batch waits for the card, 2048 µs less the 500 µs that have gone by.
    assert links.send(SliceId(0, 0, 1), 1, 1_500) == (1_000 + 3 * 1_024 + 300, 1_548)


def test_slices_of_two_servers_do_not(make_case) -> None:
    links = Links(emulated(make_case, card_slices=1))
    assert links.send(SliceId(0, 0, 0), 2, 1_000) == (1_000 + 2 * 1_024 + 300, 0)
    assert links.send(SliceId(0, 0, 1), 1, 1_500) == (1_500 + 1_024 + 300, 0)
