"""IPA's published cases, through the script that users run."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif("POOLPIPE_REFERENCE" not in os.environ, reason="POOLPIPE_REFERENCE is unset")
def test_all_cases_equal_the_enumeration(tmp_path: Path) -> None:
    data, out = Path(os.environ["POOLPIPE_REFERENCE"]) / "ipa", tmp_path / "cases.csv"
    command = [sys.executable, ROOT / "scripts/reproduce_ipa.py", "solve", "--data", data]
    subprocess.run([*command, "--cases", data / "reference_cases.json", "--out", out], check=True, cwd=ROOT)
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert len(rows) == 32
    for row in rows:
        assert float(row["objective"]) == pytest.approx(float(row["enumeration_as_paper"]), abs=1e-6), row["name"]
        coded = float(row["objective_as_coded"])
        assert coded == pytest.approx(float(row["enumeration_as_coded"]), abs=1e-6), row["name"]
        assert coded == pytest.approx(float(row["reference_objective"]), abs=2e-5), row["name"]


@pytest.mark.slow
@pytest.mark.skipif("POOLPIPE_REFERENCE" not in os.environ, reason="POOLPIPE_REFERENCE is unset")
def test_the_study_of_an_application_is_resumed_and_orders_systems_as_published(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "scripts/reproduce_ipa.py", "study", "--only", "audio-qa"]
    command += ["--workload", "bursty", "--data", Path(os.environ["POOLPIPE_REFERENCE"]) / "ipa", "--out", tmp_path]
    subprocess.run(command, check=True, cwd=ROOT)
    rows = list(csv.DictReader((tmp_path / "runs.csv").read_text().splitlines()))
    assert len(rows) == 8
    bursty = {row["system"]: row for row in rows}
    cores = [float(bursty[system]["cores"]) for system in ("FA2-low", "IPA", "FA2-high")]
    accuracy = [float(bursty[system]["planned_accuracy"]) for system in ("FA2-low", "IPA", "FA2-high")]
    assert cores == sorted(cores)
    assert accuracy == sorted(accuracy)
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()}
    subprocess.run(command, check=True, cwd=ROOT)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()} == made
