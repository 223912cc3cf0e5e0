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


@pytest.mark.slow
def test_the_whole_study_runs_and_resumes(tmp_path: Path) -> None:
    """One group of DNNs on one cluster, and one DNN of the ablation, from plans to the summary."""
    data, out = tmp_path / "data", tmp_path / "study"
    data.mkdir()
    for name in ("models", "model_list.txt", "prepartition_mappings"):
        (data / name).symlink_to(DATA / name)
    for pattern in ("maf19/apcnet*L4-T4*.json", "ablation/repvgg*.json"):
        for path in (DATA / "plans").glob(pattern):
            link = data / "plans" / path.parent.name / path.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
    traces = tmp_path / "traces"
    traces.mkdir()
    (traces / "steady.csv.gz").symlink_to(DATA / "simulator" / "poisson_a.csv.gz")

    def study(*options: str) -> str:
        arguments = ["all", "--data", str(data), "--traces", str(traces), "--out", str(out), "--jobs", "1", *options]
        subprocess.run([sys.executable, str(SCRIPT), *arguments], check=True, capture_output=True, text=True)
        return (out / "summary.txt").read_text()

    text = study()
    assert "steady (synthetic arrivals)" in text
    assert "1 where the plan sends more than the network cards carry" in text  # gcnet on HC2
    figures = {path.name for path in (out / "figures").glob("*.pdf")}
    assert figures == {f"fig{number}-steady.pdf" for number in (6, 7, 8, 10)}
    with (out / "runs.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == (3 * 3 + 3 + 2 + 1) * 20  # schedulers · DNNs, orderly too; two policies and NP of the ablation

    kept = [out / "sweep" / "runs.jsonl", *out.glob("plans/*/*.json")]
    before = [path.read_bytes() for path in kept]
    assert study() == text
    assert [path.read_bytes() for path in kept] == before

    larger = study("--card-sharing", "larger", "--arrivals", "Poisson")
    assert "steady (Poisson arrivals)" in larger
    assert "more than the network cards carry" not in larger
