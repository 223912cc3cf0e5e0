"""The estimate of clock offsets, against clocks that are told what to show."""

import numpy as np
import pytest

from simulator.executor import on_ray
from simulator.executor.on_ray import estimate_lead_ns

MS = 1_000_000


class Wire:
    """Our clock, and theirs behind a way there and a way back that take as long as they are told."""

    def __init__(self, lead_ns: int, trips_ns: list[tuple[int, int]]) -> None:
        self.now_ns, self.lead_ns, self.trips_ns = 7_000_000_000, lead_ns, iter(trips_ns)

    def ask(self) -> int:
        there_ns, back_ns = next(self.trips_ns)
        self.now_ns += there_ns
        theirs_ns = self.now_ns + self.lead_ns
        self.now_ns += back_ns
        return theirs_ns


@pytest.mark.parametrize("lead_ns", [0, 3 * MS, -5_000 * MS])
def test_a_lead_is_found_to_half_the_shortest_trip(monkeypatch: pytest.MonkeyPatch, lead_ns: int) -> None:
    rng = np.random.default_rng(0)
    trips_ns = [(int(there), int(back)) for there, back in rng.exponential(2 * MS, (10, 2)) + MS / 10]
    wire = Wire(lead_ns, trips_ns)
    monkeypatch.setattr(on_ray.time, "monotonic_ns", lambda: wire.now_ns)
    error_ns = abs(estimate_lead_ns(wire.ask, pings=10) - lead_ns)
    assert error_ns <= min(there + back for there, back in trips_ns) / 2 + 1


def test_equal_ways_there_and_back_leave_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(4 * MS, [(9 * MS, MS), (2 * MS, 2 * MS), (MS, 9 * MS)])
    monkeypatch.setattr(on_ray.time, "monotonic_ns", lambda: wire.now_ns)
    assert estimate_lead_ns(wire.ask, pings=3) == 4 * MS
