"""The study of latencies beside others, on made-up observations whose slowdowns are known."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np

from planner.files import save
from planner.model import Block, Profile, Provenance
from planner.model.observed import Observed, Run

SCRIPT = Path(__file__).parents[1] / "scripts" / "study_interference.py"
MEASURED = Provenance("measured", "made up")
NAMES = ("a", "b", "c", "d", "e")


def made_up() -> Observed:
    """Every model alone and beside every other: it suffers and presses by factors of its own, and 1 % is noise."""
    rng = np.random.default_rng(0)
    models = tuple(Profile(name, (Block((name,)), Block((f"{name}2",))), (8,), ()) for name in NAMES)
    alone_us, suffers, presses = rng.lognormal(8, 0.5, (5, 2)), rng.uniform(0, 0.3, 5), rng.uniform(0, 0.6, 5)
    runs = [Run(name, "core", 1, 1, tuple(alone_us[at].tolist()), MEASURED) for at, name in enumerate(NAMES)]
    for at, name in enumerate(NAMES):
        for other, beside in enumerate(NAMES):
            taken_us = alone_us[at] * np.exp(suffers[at] + presses[other] + rng.normal(0, 0.01, 2))
            runs.append(Run(name, "core", 1, 1, tuple(taken_us.tolist()), MEASURED, beside=(beside,)))
    return Observed(models, tuple(runs))


def study(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_pairs_held_out_are_told_better_than_by_one_slowdown(tmp_path: Path) -> None:
    save(made_up(), tmp_path / "seen.json")
    finished = study(tmp_path / "seen.json", "--out", tmp_path / "rows.csv", "--draws", 2, "--known", 0.6)
    assert finished.returncode == 0, finished.stderr
    with (tmp_path / "rows.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2 * 10  # of 25 pairs 15 are known
    alone, constant, predicted = (
        np.median([float(row[f"error_{how}"]) for row in rows]) for how in ("alone", "constant", "predicted")
    )
    assert predicted < 0.4 * constant < 0.4 * alone


def test_what_cannot_be_held_out_is_refused(tmp_path: Path) -> None:
    seen = made_up()
    save(Observed(seen.models, seen.runs[:5]), tmp_path / "seen.json")
    finished = study(tmp_path / "seen.json", "--out", tmp_path / "rows.csv")
    assert finished.returncode == 2
    assert "expected at least 4 runs beside others, got 0" in finished.stderr
    assert finished.stderr.count("\n") == 1
    assert not (tmp_path / "rows.csv").exists()
