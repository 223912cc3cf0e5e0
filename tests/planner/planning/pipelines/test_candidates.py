"""Candidates against plain loops over every pipeline, and against the counts on published problems."""

import os
from collections.abc import Callable
from dataclasses import replace
from math import inf
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import MEASURED, Piece, every_pipeline, random_problem, with_detours, with_larger_cards

from planner.files.ppipe import read_problem
from planner.model import Block, Cluster, DeviceType, Dnn, LatencyTable, Network, Options, Problem, Profile
from planner.planning.pipelines.candidates import (
    enumerate_candidates,
    fastest_candidate,
    pareto_best,
)
from planner.planning.pipelines.terrain import batch_building_us

REFERENCE = os.environ.get("POOLPIPE_REFERENCE")


def best_vectors(pieces: list[Piece]) -> set[tuple[object, ...]]:
    """Filter by definition: no other pipeline of equal devices and shares is as fast in every stage, faster in one."""
    kept = set()
    for piece in pieces:
        rivals = [other for other in pieces if kind(other) == kind(piece)]
        rivals = [other.slice_rps for other in rivals if other.slice_rps != piece.slice_rps]
        if not any(all(a >= b for a, b in zip(rival, piece.slice_rps, strict=True)) for rival in rivals):
            kept.add((*kind(piece), rounded(piece.slice_rps)))
    return kept


def kind(piece: Piece) -> tuple[object, ...]:
    parts = tuple(piece.batches[0] // batch for batch in piece.batches)
    return piece.variant, piece.devices, piece.shares, parts


def rounded(values: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(round(value, 6) for value in values)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("change", [None, with_detours, with_larger_cards])
@pytest.mark.parametrize("stage_batches", [False, True])
def test_candidates_are_the_best_of_all_pipelines(
    seed: int, change: Callable[[Problem, int], Problem] | None, stage_batches: bool
) -> None:
    counts = [(2, 2), (1, 3), (2, 1, 1), (3,)][seed % 4]
    problem = random_problem(seed, stages=1 + seed % 3, counts=counts, shares=(1, 3) if seed % 2 else (1, 2))
    problem = change(problem, seed) if change else problem
    problem = replace(problem, options=replace(problem.options, stage_batches=stage_batches))
    dnn = problem.dnns[0]
    expected = best_vectors(list(every_pipeline(problem, dnn)))
    candidates = enumerate_candidates(problem, 0, dnn.np_throughput_rps or 0.0)
    found = {(c.variant, c.devices, c.shares, c.parts, rounded(c.slice_rps)) for c in candidates}
    assert len(found) == len(candidates)
    assert found == expected


@pytest.mark.parametrize("seed", range(8))
def test_the_fastest_pipeline_is_the_fastest_of_all(seed: int) -> None:
    problem = with_detours(random_problem(seed, stages=2), seed)
    pieces = list(every_pipeline(problem, problem.dnns[0], any_slo=True))
    fastest = fastest_candidate(problem, 0, problem.dnns[0].np_throughput_rps or 0.0)
    if not pieces:
        assert fastest is None
        return
    assert fastest is not None
    assert fastest[1] == pytest.approx(min(piece.latency_us for piece in pieces), rel=1e-12)


def one_block(*latency_us: int, slo_us: float = 20_000) -> Problem:
    """One device type, one block, a row of latencies per batch size; slack is 40 % of the SLO."""
    batches = tuple(range(1, len(latency_us) + 1))
    table = LatencyTable("L4", 1, batches, tuple((value,) for value in latency_us), MEASURED)
    return Problem(
        Cluster((DeviceType("L4", 2),), Network(10)),
        (Dnn("toy", slo_us, (Profile("toy", (Block(("a",)),), (), (table,)),)),),
    )


def test_batch_building_takes_its_part_of_the_budget() -> None:
    # 12 ms are left of the SLO. Batch 2 takes 10 ms and 1.3 / X0 to build: 1.3 ms at 1000 requests/s, 2.6 at 500.
    problem = one_block(6000, 10_000)
    assert [c.batches for c in enumerate_candidates(problem, 0, 1000.0)] == [(2,)]
    assert [c.batches for c in enumerate_candidates(problem, 0, 500.0)] == [(1,)]
    assert [c.batches for c in enumerate_candidates(problem, 0, 0.0)] == [(1,)]
    assert [c.batches for c in enumerate_candidates(problem, 0, inf)] == [(2,)]
    assert batch_building_us(problem, 3, 1000.0) == pytest.approx(2600.0)


def test_the_slo_itself_is_met() -> None:
    assert len(enumerate_candidates(one_block(12_000), 0, 0.0)) == 1
    assert enumerate_candidates(one_block(12_001), 0, 0.0) == []


def test_slices_of_a_server_share_its_card() -> None:
    # Two blocks of 1 ms, a cut of 1.25 MB: 1 ms on the wire at 10 Gbit/s. Four devices with halves per server: one
    # slice may send 1 / (1 ms · 2 · 4) = 125 requests/s, and receive as many, though it computes 1000.
    table = LatencyTable("L4", 2, (1,), ((1000, 1000),), MEASURED)
    profile = Profile("toy", (Block(("a",)), Block(("b",))), (1_250_000,), (table,))
    cluster = Cluster((DeviceType("L4", 8, shares=(2,), devices_per_server=4),), Network(10))
    problem = Problem(cluster, (Dnn("toy", 20_000, (profile,)),), Options(max_stages=2))
    by_stages = {len(c.devices): c.slice_rps for c in enumerate_candidates(problem, 0, 0.0)}
    assert by_stages == {1: (500.0,), 2: (125.0, 125.0)}


def test_cards_are_shared_as_in_the_larger_server_where_asked() -> None:
    # One block of 1 ms on an A (a device per server), one on a B (four): 2 ms on the wire from A to B. An A has a card
    # of its own by the published formula, and sends 500 requests/s; where four A share one, it sends 125. A B receives
    # 125 either way, and an A behind a B as many as its own card takes.
    tables = tuple(LatencyTable(name, 1, (1,), ((1000, 1000),), MEASURED) for name in "AB")
    profile = Profile("toy", (Block(("a",)), Block(("b",))), (2_500_000,), tables)
    cluster = Cluster((DeviceType("A", 8), DeviceType("B", 8, devices_per_server=4)), Network(10))
    problem = Problem(cluster, (Dnn("toy", 20_000, (profile,)),))
    larger = replace(problem, options=replace(problem.options, card_sharing="larger"))
    own, changed = (
        {c.devices: c.slice_rps for c in enumerate_candidates(one, 0, 0.0) if len(c.devices) == 2}
        for one in (problem, larger)
    )
    assert own == {(0, 0): (500.0, 500.0), (0, 1): (500.0, 125.0), (1, 0): (125.0, 500.0), (1, 1): (125.0, 125.0)}
    assert changed == own | {(0, 1): (125.0, 125.0)}


def test_devices_of_no_count_and_variants() -> None:
    problem = random_problem(1, counts=(0, 2))
    dnn = problem.dnns[0]
    both = replace(problem, dnns=(replace(dnn, variants=(*dnn.variants, replace(dnn.variants[0], name="again"))),))
    alone = enumerate_candidates(problem, 0, 1000.0)
    assert {device for candidate in alone for device in candidate.devices} == {1}
    assert enumerate_candidates(both, 0, 1000.0) == alone + [replace(c, variant=1) for c in alone]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=30))
def test_pareto_best_by_definition(rows: list[tuple[int, int, int]]) -> None:
    gain = np.array(rows, dtype=np.float64)
    best = pareto_best(gain, np.zeros(len(rows)))
    expected = {row for row in rows if not any(other != row and all(np.array(other) >= row) for other in rows)}
    assert {rows[index] for index in best} == expected
    assert len(best) == len(expected)


@pytest.mark.skipif(REFERENCE is None, reason="POOLPIPE_REFERENCE is unset")
@pytest.mark.parametrize(("dnn", "count"), [("convnext_large", 4035), ("efficientnet-b8_3rdparty_8xb32-aa", 7571)])
def test_published_problems_have_as_many_candidates_as_known(dnn: str, count: int) -> None:
    data = Path(REFERENCE or "") / "ppipe"
    path = next((data / "plans" / "ablation").glob(f"{dnn}*_v4.json"))
    problem = read_problem(path, data)
    assert len(enumerate_candidates(problem, 0, problem.dnns[0].np_throughput_rps or 0.0)) == count
