"""The demo of merging, through the script that users run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from planner.files import load_plan, load_problem
from planner.model.check import check
from planner.model.placing import devices_used

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_merged_models_need_fewer_devices(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "scripts/run_merging.py", "--out", tmp_path, "--epochs", "3", "--lose", "4"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    used = {}
    for name in ("apart", "merged"):
        problem = load_problem(tmp_path / name / "problem.json")
        plan = load_plan(tmp_path / name / "plan.json")
        assert not check(problem, plan)
        used[name] = devices_used(problem, plan).total()
    assert used["merged"] < used["apart"]
    assert "merged blocks run once for all answer as every model does" in done.stdout
    for policy in ("reservation", "latest-start"):
        for name in ("digit", "odd", "five-or-more"):
            assert f"executed, {policy}: {name} answered 100 requests as its own model does" in done.stdout
    assert all("accepted" in json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines())
    assert (tmp_path / "merging.png").stat().st_size > 10_000
