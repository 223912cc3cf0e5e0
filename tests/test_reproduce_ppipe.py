"""The reproduction script on all published plans and prepartitions, as a user runs it."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

REFERENCE = os.environ.get("POOLPIPE_REFERENCE")
SCRIPT = Path(__file__).parents[1] / "scripts" / "reproduce_ppipe.py"
DATA = Path(REFERENCE or "") / "ppipe"

pytestmark = pytest.mark.skipif(REFERENCE is None, reason="POOLPIPE_REFERENCE is unset")


def reproduce(out: Path, command: str, *options: str) -> list[dict[str, str]]:
    arguments = [sys.executable, str(SCRIPT), command, "--data", str(DATA), "--out", str(out), *options]
    subprocess.run(arguments, check=True, capture_output=True, text=True)
    with out.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plans", "count", "least", "most"),
    [
        ("maf19/*_v4.json", 24, 0.999999, 1.01),
        ("maf19/*_bl.json", 24, 1 - 1e-6, 1 + 1e-6),
        ("maf19/*_dart-r.json", 24, 1 - 1e-6, 1 + 1e-6),
        ("ablation/*_v4.json", 18, 0.99999, 1.01),
        ("ablation/*_bl.json", 18, 1 - 1e-6, 1 + 1e-6),
    ],
)
def test_every_published_objective_is_reached(
    tmp_path: Path, plans: str, count: int, least: float, most: float
) -> None:
    rows = reproduce(tmp_path / "plans.csv", "plan", "--plans", plans)
    assert len(rows) == count
    for row in rows:
        objective, reference = float(row["objective"]), float(row["reference_objective"])
        assert least <= objective / reference <= most, row
        assert objective <= float(row["bound"])
        assert float(row["gap"]) <= 1e-6, row
        assert (row["reference_seconds"] == "") == (plans == "ablation/*_bl.json")


@pytest.mark.slow
def test_prepartitions_have_the_published_bytes_where_those_keep_their_bounds(tmp_path: Path) -> None:
    rows = reproduce(tmp_path / "blocks.csv", "prepartition")
    assert len(rows) == 18
    assert {row["blocks"] for row in rows} == {"10"}
    broken = [row["dnn"].partition("_")[0] for row in rows if row["reference_feasible"] == "False"]
    assert broken == ["atss", "centernet-update", "fsaf", "gfl"]
    for row in rows:
        assert (row["bytes"] == row["reference_bytes"]) == (row["reference_feasible"] == "True")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("plan", "--plans", "nothing*"), "no such files"),
        (("plan", "--plans", "ablation/repvgg*_v4.json", "--method", "magic"), "no method 'magic'"),
        (("plan", "--plans", "ablation/repvgg*_v4.json", "--backend", "magic"), "unknown backend 'magic'"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_file(tmp_path: Path, options: tuple[str, ...], text: str) -> None:
    out = tmp_path / "rows.csv"
    arguments = [sys.executable, str(SCRIPT), *options, "--data", str(DATA), "--out", str(out)]
    finished = subprocess.run(arguments, capture_output=True, text=True)
    assert finished.returncode == 2
    assert text in finished.stderr
    assert len(finished.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
