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
