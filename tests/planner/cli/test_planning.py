"""The commands plan and explain, as users run them."""

import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from planner.cli.main import main
from planner.files import load_plan, save
from planner.model import Block, Cluster, DeviceType, Dnn, LatencyTable, Network, Problem, Profile, Provenance
from planner.model.check import check
from planner.planning.baselines import with_x0


@pytest.fixture
def problem() -> Problem:
    """Two DNNs on four devices of 125 requests/s."""
    table = LatencyTable("L4", 1, (1,), ((4000, 4000),), Provenance("measured", "by hand"))
    profile = Profile("toy", (Block(("a",)), Block(("b",))), (1_000,), (table,))
    dnns = tuple(Dnn(name, 20_000, (profile,)) for name in ("left", "right"))
    return Problem(Cluster((DeviceType("L4", 4),), Network(10)), dnns)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["planner", *arguments])
    main()


def status_of(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, *arguments)
    return stopped.value.code


def test_plan_shows_and_writes(
    problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save(problem, tmp_path / "problem.json")
    out = tmp_path / "out" / "plan.json"
    arguments = ("plan", str(tmp_path / "problem.json"), "--backend", "highs", "--gap", "1e-6", "--out", str(out))
    assert status_of(monkeypatch, *arguments) in (0, None)
    plan = load_plan(out)
    assert check(with_x0(problem), plan) == ()
    assert plan.value == pytest.approx(250.0)
    printed = capsys.readouterr().out
    for text in ("left", "right", "objective 250.000 requests/s per weight", "gap 0.0e+00, optimal", "4 of 4 L4"):
        assert text in printed


def test_explain_names_what_binds(
    problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save(problem, tmp_path / "problem.json")
    assert status_of(monkeypatch, "explain", str(tmp_path / "problem.json")) in (0, None)
    printed = " ".join(capsys.readouterr().out.split())
    assert "left: SLO 20.00 ms; the least possible is 13.33 ms = inference 8.00 ms + slack 5.33 ms" in printed
    assert "one more L4 is worth +62.500 requests/s per weight" in printed


@pytest.mark.parametrize("option", [("--backend", "cplex"), ("--method", "magic"), ("--time-limit", "-1")])
def test_bad_options_are_one_line_and_status_2(
    option: tuple[str, str],
    problem: Problem,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save(problem, tmp_path / "problem.json")
    out = tmp_path / "plan.json"
    assert status_of(monkeypatch, "plan", str(tmp_path / "problem.json"), *option, "--out", str(out)) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not out.exists()


def test_shared_devices_are_listed_with_what_runs_on_them(
    problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # A MIG segment of 1g serves 62.5 requests/s of either DNN: two devices of 4 serve 250 of each.
    (profile,) = problem.dnns[0].variants
    table = replace(profile.tables[0], device="A30", share="1g.6gb", latency_us=((8000, 8000),))
    alone = replace(profile, tables=(table,))
    dnns = tuple(replace(dnn, slo_us=40_000, variants=(replace(alone, name=dnn.name),)) for dnn in problem.dnns)
    a30 = DeviceType("A30", 2, mig="a30-24gb", idle_watts=20, busy_watts=120)
    options = replace(problem.options, device_sharing="shared", max_stages=1)
    save(Problem(Cluster((a30,), Network(10)), dnns, options), tmp_path / "problem.json")
    status_of(monkeypatch, "plan", str(tmp_path / "problem.json"), "--out", str(tmp_path / "plan.json"))
    printed = capsys.readouterr().out
    assert "devices in use: 2 of 2 A30" in printed
    assert "A30 0 (server 0): left 1g.6gb at 0" in printed
    assert "draws 240.0 W, 480.0 J per thousand requests" in printed
    assert load_plan(tmp_path / "plan.json").watts == pytest.approx(240.0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_search_with_the_plan_so_far(
    number: signal.Signals,
    problem: Problem,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def disturbed(*_: object, **__: object) -> None:
        os.kill(os.getpid(), number)
        time.sleep(10)  # until the signal is heard

    monkeypatch.setattr("planner.planning.api.find_x0", disturbed)
    monkeypatch.setattr("planner.cli.search_progress.QUIET_S", 0.0)
    save(problem, tmp_path / "problem.json")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        begin_s = time.monotonic()
        status = status_of(monkeypatch, "plan", str(tmp_path / "problem.json"), "--out", str(tmp_path / "plan.json"))
    finally:
        signal.signal(signal.SIGINT, before)
    assert status in (0, None)
    assert time.monotonic() - begin_s < 8
    plan = load_plan(tmp_path / "plan.json")
    assert plan.method == "start"
    assert check(problem, plan) == ()
    assert f"{plan.value:.6g} requests/s per weight, bound not known yet" in capsys.readouterr().err


def test_better_plans_and_bounds_are_told_on_standard_error(
    problem: Problem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save(problem, tmp_path / "problem.json")
    arguments = ("plan", str(tmp_path / "problem.json"), "--method", "milp", "--json")
    for quiet_s, tells in ((60.0, False), (0.0, True)):
        monkeypatch.setattr("planner.cli.search_progress.QUIET_S", quiet_s)
        assert status_of(monkeypatch, *arguments) in (0, None)
        printed = capsys.readouterr()
        assert json.loads(printed.out)["value"] == 250.0
        assert ("s  250 requests/s per weight, at most 250 possible (gap 0.0e+00)" in printed.err) == tells
