"""The losses that tell which candidates a plan can hold."""

from math import inf

import pytest

from planner.model import Block, Cluster, DeviceType, Dnn, LatencyTable, Network, Problem, Profile, Provenance
from planner.planning.pipelines.candidates import Candidate
from planner.planning.programme.relaxation import least_losses, relax


def test_candidates_on_a_type_without_devices_are_ruled_out() -> None:
    """Two L4s run the two stages at 200/s each, as the relaxation has it; the one-stage candidate needs a T4."""
    table = LatencyTable("L4", 1, (1,), ((5000, 5000),), Provenance("measured", "by hand"))
    profile = Profile("net", (Block(("a",)), Block(("b",))), (1_000,), (table,))
    cluster = Cluster((DeviceType("L4", 2), DeviceType("T4", 0)), Network(10))
    problem = Problem(cluster, (Dnn("net", 100_000, (profile,)),))
    candidates = [
        Candidate(0, 0, (0, 2), (1,), (1,), (1,), (100.0,)),
        Candidate(0, 0, (0, 1, 2), (0, 0), (1, 1), (1, 1), (200.0, 200.0)),
    ]
    losses = least_losses(problem, candidates, relax(problem, candidates))
    assert losses.tolist() == [inf, pytest.approx(0.0)]
