"""The commands plan and explain, as users run them."""

import sys
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
