"""`simulator run` on plans task by task."""

import json
from pathlib import Path

import pandas as pd
import pytest

from planner.cli.main import app as planner
from planner.model import InputError
from simulator.cli.main import app

ROOT = Path(__file__).parents[3]
PHOTOS, TRACE = ROOT / "plans/photos/problem.toml", ROOT / "traces/maf-like.maf21.csv.gz"


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("plans") / "tasks.json"
    arguments = ["plan", str(PHOTOS), "--scheduler", "per-task", "--out", str(out)]
    planner(arguments, standalone_mode=False)
    return out


def simulate(plan: Path, out: Path, *more: object) -> None:
    arguments = ["run", plan, "--problem", PHOTOS, "--trace", TRACE, "--out", out, *more]
    app([str(one) for one in arguments], standalone_mode=False)


def test_a_run_writes_records_that_add_up(plan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    simulate(plan, tmp_path / "run", "--load", 0.5, "--duration", 20, "--json")
    (row,) = json.loads(capsys.readouterr().out)["runs"]
    requests = pd.read_parquet(tmp_path / "run/requests.parquet")
    assert row["requests"] <= len(requests) <= row["requests"] + 2  # but for the warm-up
    assert row["attainment"] > 0.99
    assert row["accuracy"] == pytest.approx(56.674, abs=0.01)
    finished = requests[requests["outcome"] == "finished"]
    assert (finished["step1_joined_us"] > finished["step0_joined_us"]).all()
    simulate(plan, tmp_path / "run", "--load", 0.5, "--duration", 20)  # the same run may be written again
    with pytest.raises(InputError, match="holds the results of another run"):
        simulate(plan, tmp_path / "run", "--load", 0.6, "--duration", 20)


@pytest.mark.parametrize(
    ("option", "value"), [("--policy", "reactive"), ("--dnn", "photos"), ("--apart", None), ("--layout", "ppipe")]
)
def test_options_of_pipelines_are_refused(plan: Path, tmp_path: Path, option: str, value: str | None) -> None:
    given = [option] if value is None else [option, value]
    with pytest.raises(InputError, match=f"{option}: is not for plans task by task"):
        simulate(plan, tmp_path, *given)


def test_a_plan_that_breaks_its_problem_runs_only_unchecked(plan: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed.json"
    changed.write_text(plan.read_text(encoding="utf-8").replace('"slices": 1', '"slices": 2', 1), encoding="utf-8")
    with pytest.raises(InputError, match=r"breaks \d constraints? of its problem, first: .*--unchecked"):
        simulate(changed, tmp_path / "run")
    simulate(changed, tmp_path / "run", "--unchecked", "--duration", 5)
