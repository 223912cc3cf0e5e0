"""Sweeps: what load factor 1 means, the largest load, early stop, resuming, processes, failures."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.model import InputError
from simulator.engine import World, build_system, simulate
from simulator.engine.world import Failure, FailureRate, Switch
from simulator.results.metrics import attainment
from simulator.sweep import (
    LOADS,
    Series,
    SweepOptions,
    largest_load,
    rate_of_load,
    run_series,
    run_sweep,
)
from simulator.workload import fold, gamma


@pytest.fixture(scope="module")
def system(one_stage):
    """Return a system of one stage; it serves at most slices · 2 / 15 ms."""

    def make(**changes):
        return build_system(*one_stage(**changes), "net")

    return make


@pytest.fixture(scope="module")
def series(system):
    def make(of=None, full_rps=266.7, trace="t", **changes):
        return replace(Series("plan.json", "np", "net", trace, "reservation", 0, full_rps, of or system()), **changes)

    return make


@pytest.fixture(scope="module")
def times_s():
    return gamma(5.0, 2000.0, np.random.default_rng(1), cv=2.0) / 1e6


SHORT = SweepOptions(duration_s=5.0)


def test_the_offered_rate_is_floored_twice():
    assert rate_of_load(266.7, 100) == 266
    assert rate_of_load(266.7, 55) == 146  # floor(146.3); 266.7 · 0.55 = 146.7 would be 146, too
    assert rate_of_load(101.99, 99) == 99  # floor(101 · 0.99) where 101.99 · 0.99 = 100.97


def test_rows_are_the_runs_from_the_highest_load_down(series, system, times_s):
    rows = run_series(series(), times_s, SHORT)
    assert [row["load_factor"] for row in rows] == [load / 100 for load in LOADS]
    half = rows[10]
    records = simulate(system(), fold(times_s, half["rate_rps"], 5.0))
    assert (half["rate_rps"], half["attainment"]) == (133, attainment(records))
    assert half["dnn"] == "net"
    assert rows[0]["attainment"] < 0.9 < 0.99 <= rows[-1]["attainment"]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    cv=st.sampled_from([0.5, 1.0, 3.0, 8.0]),
    slo_us=st.integers(12_000, 80_000),
    full_rps=st.floats(20, 400),
    target=st.sampled_from([0.9, 0.99, 0.999, 1.0]),
)
def test_the_early_stop_never_changes_the_largest_load(series, system, seed, cv, slo_us, full_rps, target):
    times_s = gamma(0.5, 4000.0, np.random.default_rng(seed), cv=cv) / 1e6
    one = series(system(slo_us=slo_us), full_rps)
    options = SweepOptions(duration_s=3.0, target=target)
    every = run_series(one, times_s, options)
    some = run_series(one, times_s, replace(options, largest_only=True))
    linear = next(
        (
            row["load_factor"]
            for row in every  # a run without requests shows nothing
            if row["requests"] and row["dropped"] + row["late"] <= (1 - target) * row["requests"] + 1e-9
        ),
        0,
    )
    assert largest_load(every, target) == largest_load(some, target) == linear
    for stopped, full in zip(some, every, strict=False):  # what counts as certainly lost is lost in the whole run
        assert stopped["requests"] == full["requests"]
        assert stopped["dropped"] + stopped["late"] <= full["dropped"] + full["late"]


def test_the_early_stop_does_stop(series, times_s):
    some = run_series(series(), times_s, replace(SHORT, largest_only=True))
    assert some[0]["stopped"]
    assert len(some) < len(LOADS)


def test_one_process_and_two_give_the_same(series, system, times_s):
    rough = World(seed=1, spread=0.2, switches=(Switch(2_000_000, system(slices=3)),))
    many = [series(), series(system(slices=3)), series(trace="u", full_rps=200.0), series(world=rough)]
    traces = {"t": times_s, "u": times_s * 1.5}
    options = replace(SHORT, loads=(100, 50))
    alone, together = run_sweep(many, traces, options), run_sweep(many, traces, options, processes=2)
    pd.testing.assert_frame_equal(pd.DataFrame(alone.rows), pd.DataFrame(together.rows))
    assert alone.largest == together.largest
    assert len(alone.rows) == 8


def test_a_sweep_resumes_and_grows(series, system, times_s, tmp_path, monkeypatch):
    calls = []
    original = simulate
    monkeypatch.setattr("simulator.sweep.loads.simulate", lambda *a, **k: calls.append(1) or original(*a, **k))
    traces = {"t": times_s}
    first = run_sweep([series()], traces, replace(SHORT, loads=(100, 50)), folder=tmp_path)
    assert len(calls) == 2
    with (tmp_path / "runs.jsonl").open("a") as file:
        file.write('{"key": "cut o')  # as a kill leaves it
    again = run_sweep([series()], traces, replace(SHORT, loads=(100, 75, 50)), folder=tmp_path)
    assert len(calls) == 3
    assert repr([row for row in again.rows if row["load_factor"] != 0.75]) == repr(first.rows)  # NaN is NaN
    run_sweep([series(), series(plan="b.json")], traces, replace(SHORT, loads=(100, 50)), folder=tmp_path)
    assert len(calls) == 3  # the same content under another name
    run_sweep([series(system(first_us=9_000)), series(plan="b.json")], traces, SHORT, folder=tmp_path)
    assert len(calls) == 3 + 20 + 17  # another content: everything; b.json: the loads not run before


def test_other_code_runs_again(series, times_s, tmp_path, monkeypatch):
    one = {"series": [series()], "traces": {"t": times_s}, "options": SHORT, "folder": tmp_path}
    assert run_sweep(**one).failures == []
    monkeypatch.setattr("simulator.sweep.loads.simulate", None)  # what is known needs no simulation
    assert run_sweep(**one).failures == []
    monkeypatch.setattr("simulator.sweep.store.code_sha256", lambda: "of another version")
    assert "not callable" in run_sweep(**one).failures[0].error


def test_stopped_runs_are_run_again_where_all_is_asked(series, times_s, tmp_path):
    only = replace(SHORT, largest_only=True)
    stopped = run_sweep([series()], {"t": times_s}, only, folder=tmp_path)
    assert stopped.rows[0]["stopped"]
    whole = run_sweep([series()], {"t": times_s}, SHORT, folder=tmp_path)
    assert not any(row["stopped"] for row in whole.rows)
    assert len(whole.rows) == 20
    largest = run_sweep([series()], {"t": times_s}, only, folder=tmp_path).largest
    assert largest == [row | {"holds_up_to": None} for row in whole.largest]


def test_a_folder_of_another_sweep_is_refused_and_kept(series, times_s, tmp_path):
    run_sweep([series()], {"t": times_s}, replace(SHORT, loads=(50,)), folder=tmp_path)
    before = (tmp_path / "runs.jsonl").read_bytes()
    with pytest.raises(InputError, match="another sweep .*plan.json.*choose another output folder"):
        run_sweep([series(plan="other.json")], {"t": times_s}, replace(SHORT, loads=(50,)), folder=tmp_path)
    assert (tmp_path / "runs.jsonl").read_bytes() == before
    (tmp_path / "sweep.json").write_text("[]")
    with pytest.raises(InputError, match="cannot be read as a sweep"):
        run_sweep([series()], {"t": times_s}, SHORT, folder=tmp_path)
    (tmp_path / "sweep.json").unlink()
    with pytest.raises(InputError, match="unknown sweep"):
        run_sweep([series()], {"t": times_s}, SHORT, folder=tmp_path)
    assert json.loads(before.splitlines()[0])["row"]["load_factor"] == 0.5


def test_rows_that_cannot_be_read_are_named_and_kept(series, times_s, tmp_path):
    run_sweep([series()], {"t": times_s}, replace(SHORT, loads=(50,)), folder=tmp_path)
    with (tmp_path / "runs.jsonl").open("a") as file:
        file.write("no row\n")
    before = (tmp_path / "runs.jsonl").read_bytes()
    with pytest.raises(InputError, match=r"runs\.jsonl: line 2: cannot be read as a run; remove the line"):
        run_sweep([series()], {"t": times_s}, SHORT, folder=tmp_path)
    assert (tmp_path / "runs.jsonl").read_bytes() == before


def test_a_failure_is_reported_and_the_rest_finished(series, system, times_s):
    broken = replace(system(), latency_us=np.zeros((1, 1, 0), np.int64))
    many = [series(broken), series(), series(full_rps=4.0)]  # less than the trace has
    result = run_sweep(many, {"t": times_s}, replace(SHORT, loads=(100,)))
    assert [failure.series for failure in result.failures] == [many[0], many[2]]
    assert "Traceback" in result.failures[0].error
    assert "folding cannot thin it to 4" in result.failures[1].error
    assert len(result.rows) == len(result.largest) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"policy": "fifo"}, "unknown policy 'fifo'; choose one of reservation, "),
        ({"world": World(replan=lambda *_: None, replan_every_us=1)}, "content, which a function has not"),
    ],
)
def test_what_cannot_be_simulated_is_refused_before_there_is_a_folder(series, times_s, tmp_path, changes, words):
    with pytest.raises(InputError, match=words):
        run_sweep([series(), series(**changes)], {"t": times_s}, SHORT, folder=tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


def test_runs_are_filed_by_what_the_world_is_like(series, system, times_s, tmp_path, monkeypatch):
    calls = []
    original = simulate
    monkeypatch.setattr("simulator.sweep.loads.simulate", lambda *a, **k: calls.append(1) or original(*a, **k))

    def swept(**world):
        one = series(world_name="rough", world=World(**world))
        return run_sweep([one], {"t": times_s}, replace(SHORT, loads=(50,)), folder=tmp_path).rows[0]

    failure = Failure("slice", 0, 0, 0, 1_000_000, 2_000_000)
    first = swept(spread=0.2, seed=1)
    assert (first["world"], first["engine"]) == ("rough", "events")
    assert repr(swept(spread=0.2, seed=1)) == repr(first)  # NaN is NaN
    assert len(calls) == 1
    assert swept(spread=0.2, seed=2)["latency_mean_us"] != first["latency_mean_us"]
    assert swept(spread=0.2, seed=1, failures=(failure,))["attainment"] < first["attainment"]
    to = tuple(Switch(1_000_000, system(slices=slices)) for slices in (1, 3))
    assert swept(switches=to[:1])["attainment"] < swept(switches=to[1:])["attainment"]
    assert len(calls) == 5
    assert run_sweep([series()], {"t": times_s}, replace(SHORT, loads=(50,))).rows[0]["world"] == "as planned"


def test_the_early_stop_holds_in_a_world(series, times_s):
    rate = FailureRate("slice", 1e6, 1e6)
    one = series(world=World(spread=0.2, failure_rate=rate, load_us=50_000), world_name="rough")
    options = replace(SHORT, target=0.9)
    every, some = run_series(one, times_s, options), run_series(one, times_s, replace(options, largest_only=True))
    assert largest_load(every, 0.9) == largest_load(some, 0.9)
    assert some[0]["stopped"]
    for stopped, full in zip(some, every, strict=False):
        assert stopped["dropped"] + stopped["late"] <= full["dropped"] + full["late"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"loads": (100, 0)}, "percents above 0"),
        ({"loads": (10**6,)}, "percents above 0 and at most 10000"),
        ({"loads": (-5,)}, "percents above 0"),
        ({"loads": ()}, "percents above 0"),
        ({"target": 0.0}, "target"),
        ({"target": 1.5}, "target"),
        ({"duration_s": 0.001}, "duration: .*first 0.001 s are not counted, got 0.001"),
        ({"duration_s": float("nan")}, "duration"),
        ({"duration_s": float("inf")}, "duration: .* got inf"),
    ],
)
def test_absurd_options_are_refused(changes, words):
    with pytest.raises(InputError, match=words):
        SweepOptions(**changes)
    with pytest.raises(InputError, match="nothing to simulate"):
        run_sweep([], {})


@pytest.mark.slow
def test_a_ray_cluster_of_two_nodes_gives_the_same(series, system, times_s):
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install poolpipe[ray]")
    from ray.cluster_utils import Cluster

    many = [series(), series(system(slices=3)), series(trace="u", full_rps=200.0)]
    traces = {"t": times_s, "u": times_s * 1.5}
    options = replace(SHORT, loads=(100, 50))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False)
        assert len(ray.nodes()) == 2
        on_ray = run_sweep(many, traces, options, hosts="ray")
    finally:
        ray.shutdown()
        cluster.shutdown()
    pd.testing.assert_frame_equal(pd.DataFrame(run_sweep(many, traces, options).rows), pd.DataFrame(on_ray.rows))
