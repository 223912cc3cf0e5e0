"""What the executor's benchmark keeps between calls is what it reads again."""

import runpy
from pathlib import Path

import pytest

from simulator.executor.hand_over import HandOver

SCRIPT = Path(__file__).parents[1] / "scripts" / "bench_executor.py"


@pytest.fixture(scope="module")
def bench():
    return runpy.run_path(str(SCRIPT))


@pytest.fixture
def rehearsed(bench):
    costs = HandOver(((110.5, 90.25, 60.0),), ((40.0, 35.5),), frontend_us=210.0, batches=400)
    return bench["Rehearsed"]((2_000.5, 1_900.0), costs, (0.9, 1.1))


def test_a_rehearsal_is_read_as_it_was_written(bench, rehearsed):
    assert bench["Rehearsed"].from_text(rehearsed.to_text()) == rehearsed


def test_other_sessions_are_those_of_the_run_before_of_the_same_kind(bench, rehearsed):
    of_run = {"model": "m", "realtime": True, "load": 0.5, "seed": 0, "rehearsed": rehearsed.to_text()}
    before = bench["_rehearsed_before"]
    assert before([of_run], of_run | {"seed": 1}) == rehearsed
    for other in ({"model": "n"}, {"realtime": False}, {"load": 0.8}):
        assert before([of_run], of_run | {"seed": 1} | other) is None


def test_a_cut_is_read_as_it_was_tried(bench, tmp_path, monkeypatch):
    """Without profiling: the files of an earlier call are enough."""
    import json

    from planner.files import save
    from planner.model import Block, LatencyTable, Profile, Provenance

    served = {name: {"latency_us": 4000.0, "throughput_rps": rps} for name, rps in
              (("predicted", 500.0), ("measured", 480.0), ("sequential", 250.0))}  # fmt: skip
    point = {"devices": ["core", "core"], "cut": 1, "batch": 1, "bytes_per_request": 64, "on_front": True}
    (tmp_path / "m.cut.json").write_text(json.dumps(point | served))
    table = LatencyTable("core", 1, (1,), ((2000, 2000),), Provenance("estimated", "by hand"))
    save(Profile("m", (Block(("a",)), Block(("b",))), (64,), (table,)), tmp_path / "m.profile.json")
    subject = bench["_subject"]
    monkeypatch.setitem(subject.__globals__, "build_model", lambda name: name)
    found = subject("m", tmp_path)
    assert found.point.name == "core|1|core"
    assert (found.served_rps, found.pipelined_over_sequential) == (480.0, pytest.approx(1.92))


def test_runs_are_set_aside_by_the_time_that_workers_had_their_cores(bench):
    runs, aside = bench["_runs"], bench["_aside"]
    rows = [
        {"model": "m", "load": 0.5, "seed": seed, "cpu_per_busy": share, "quantity": quantity}
        for seed, share in ((0, 0.99), (1, 0.5), (2, 0.97))
        for quantity in ("throughput", "p50 latency")
    ]
    assert runs(rows, {"model": "m", "load": 0.5}) == 3
    assert runs([row for row in rows if not aside(row)], {"model": "m", "load": 0.5}) == 2
    assert runs(rows, {"model": "m", "load": 0.8}) == 0
