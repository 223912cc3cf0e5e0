"""A run small enough to work everything out by hand."""

import numpy as np
import pytest

from simulator.dispatch.decisions import FINISHED, HOPELESS
from simulator.dispatch.system import System
from simulator.results.records import Records, Visits


@pytest.fixture
def records() -> Records:
    """Two stages (10 µs at batch 1 or 2 on 1/2 of an A, 20 µs on a B), 3 µs per request on the wire; SLO 50.

    Requests 0 and 1 (at 1000 and 1002) make a batch that is sent at 1002, served until 1012, sent until 1018, waits
    until 1030 and ends at 1050: latencies 50 and 48. Request 2 (at 1010) goes alone at 1010, is served from 1012 to
    1022, reaches stage 1 at 1025, waits until 1050 and ends at 1070: latency 60. Request 3 (at 1100) is dropped.
    """
    one = np.array([[1, 1]])
    system = System(
        dnn="net",
        slo_us=50,
        stages=np.array([2]),
        batch=np.array([2]),
        latency_us=np.array([[[0, 10, 10], [0, 20, 20]]]),
        transfer_us=np.array([[0, 3]]),
        hop_us=0 * one,
        later_us=np.array([[20, 0]]),
        slices=one,
        card_slices=one,
        server_slices=one,
        share=np.array([[2, 1]]),
        device=np.array([[0, 1]]),
        device_types=("A", "B", "C"),
        devices=(0.5, 1.0, 0.0),
        prices_per_hour=(2.0, 3.0, float("nan")),
    )
    batch = np.array([0, 0, 1, -2], np.int32)
    labels = np.array([0, 0], np.int16), np.array([2, 1], np.int16), np.array([0, 0], np.int16)
    visits = (
        Visits(*labels, np.array([1002, 1010]), np.array([1002, 1012]), np.array([1012, 1022])),
        Visits(*labels, np.array([1018, 1025]), np.array([1030, 1050]), np.array([1050, 1070])),
    )
    outcome = np.array([FINISHED, FINISHED, FINISHED, HOPELESS], np.int8)
    return Records(system, "hand", np.array([1000, 1002, 1010, 1100]), outcome, (batch, batch), visits)
