"""`planner plan` task by task and by the better of both ways; its files are checked like other plans."""

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from planner.cli.main import app
from planner.files import load_any, load_plan, load_problem, load_task_plan, save
from planner.model import InputError, Plan, TaskPlan
from planner.model.check_tasks import check_tasks

PHOTOS = Path(__file__).parents[3] / "plans/photos/problem.toml"


def run(*arguments: object) -> None:
    app([str(one) for one in arguments], standalone_mode=False)


def test_a_plan_task_by_task_is_a_file_that_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "tasks.json"
    run("plan", PHOTOS, "--scheduler", "per-task", "--out", out, "--json")
    said = json.loads(capsys.readouterr().out)
    made, problem = load_task_plan(out), load_problem(PHOTOS)
    assert check_tasks(problem, made) == ()
    assert (said["value"], said["status"]) == (made.value, "optimal")
    assert {row["task"] for row in said["services"]} == {"look", "classify"}
    run("validate", out, "--problem", PHOTOS)
    assert "every constraint holds" in capsys.readouterr().out
    with pytest.raises(InputError, match=r'expected "plan/1", got "task-plan/1"; it is a plan task by task'):
        load_plan(out)


def test_the_better_way_is_said_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "better.json"
    run("plan", PHOTOS, "--scheduler", "better", "--time-limit", 10, "--out", out, "--json")
    said = json.loads(capsys.readouterr().out)
    written = load_any(out)
    assert isinstance(written, Plan if said["way"] == "end to end" else TaskPlan)
    assert said["value"] == max(said["ways"].values())


def test_a_changed_file_breaks_a_constraint(tmp_path: Path) -> None:
    out = tmp_path / "tasks.json"
    run("plan", PHOTOS, "--scheduler", "per-task", "--out", out)
    text = out.read_text(encoding="utf-8")
    out.write_text(text.replace('"slices": 1', '"slices": 9', 1), encoding="utf-8")
    with pytest.raises(InputError, match=r"tasks.json: breaks \d constraints?, first: .*; plan again"):
        run("validate", out, "--problem", PHOTOS)


def test_a_plan_of_another_problem_is_told(tmp_path: Path) -> None:
    out, other = tmp_path / "tasks.json", tmp_path / "other.json"
    run("plan", PHOTOS, "--scheduler", "per-task", "--out", out)
    problem = load_problem(PHOTOS)
    slower = replace(problem.applications[0], slo_us=600_000)
    save(replace(problem, applications=(slower,)), other)
    with pytest.raises(InputError, match="first: made for another problem"):
        run("validate", out, "--problem", other)


@pytest.mark.parametrize("scheduler", ["per-task", "better"])
@pytest.mark.parametrize(
    ("option", "value"), [("--method", "milp"), ("--pipelines", "1"), ("--max-started", "1"), ("--best-effort", None)]
)
def test_options_of_pipelines_are_refused(scheduler: str, option: str, value: str | None) -> None:
    given = [option] if value is None else [option, value]
    with pytest.raises(InputError, match=f"{option}: is not for --scheduler {scheduler}; leave it out"):
        run("plan", PHOTOS, "--scheduler", scheduler, *given)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_search_with_the_plan_task_by_task(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def disturbed(*_: object) -> None:
        os.kill(os.getpid(), number)
        time.sleep(10)  # until the signal is heard

    monkeypatch.setattr("planner.planning.applications.per_task._simplest", disturbed)
    out = tmp_path / "tasks.json"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run("plan", PHOTOS, "--scheduler", "per-task", "--out", out)
    finally:
        signal.signal(signal.SIGINT, before)
    assert check_tasks(load_problem(PHOTOS), load_task_plan(out)) == ()
    assert "optimal" in capsys.readouterr().out
