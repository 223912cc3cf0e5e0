"""The reproduction script on all published experiments, as a user runs it."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

REFERENCE = os.environ.get("POOLPIPE_REFERENCE")
SCRIPT = Path(__file__).parents[1] / "scripts" / "reproduce_parvagpu.py"


@pytest.mark.slow
@pytest.mark.skipif(REFERENCE is None, reason="POOLPIPE_REFERENCE is unset")
def test_every_experiment_takes_as_few_gpus_and_holds_its_objectives(tmp_path: Path) -> None:
    out = tmp_path / "parvagpu.csv"
    arguments = ["--data", f"{REFERENCE}/parvagpu", "--out", str(out), "--duration-s", "20"]
    subprocess.run([sys.executable, str(SCRIPT), *arguments], check=True, capture_output=True, text=True)
    with out.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["published_gpus"], row["gpus"], row["bound"]) for row in rows] == [(n, n, n) for n in "2357"]
    for row in rows:
        assert float(row["attainment"]) > 0.998
        assert 1 < float(row["multiple"]) <= float(row["multiple_bound"]) < 1.001 * float(row["multiple"])
