"""The study of latencies beside others, on made-up observations whose slowdowns are known."""

import csv
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

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


def test_later_runs_are_held_against_what_was_known_before(tmp_path: Path) -> None:
    seen = made_up()
    save(seen, tmp_path / "seen.json")
    later = tuple(replace(run, latency_us=tuple(1.1 * (us or 0) for us in run.latency_us)) for run in seen.runs[5:])
    save(Observed(seen.models, later), tmp_path / "later.json")
    finished = study(tmp_path / "seen.json", "--against", tmp_path / "later.json", "--out", tmp_path / "rows.csv")
    assert finished.returncode == 0, finished.stderr
    with (tmp_path / "rows.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 25
    assert {row["error_again"] for row in rows} == {"0.0909"}  # 1 - 1 / 1.1
    assert np.median([float(row["error_predicted"]) for row in rows]) == pytest.approx(0.091, abs=0.01)
    assert (tmp_path / "rows.png").exists()


def test_pairs_without_the_model_alone_are_refused(tmp_path: Path) -> None:
    seen = made_up()
    save(Observed(seen.models, seen.runs[1:]), tmp_path / "seen.json")
    finished = study(tmp_path / "seen.json", "--out", tmp_path / "rows.csv")
    assert finished.returncode == 2
    assert "a on core 1/1, batch 1 beside a: its model was not timed alone there" in finished.stderr
    assert finished.stderr.count("\n") == 1


def test_what_cannot_be_held_out_is_refused(tmp_path: Path) -> None:
    seen = made_up()
    save(Observed(seen.models, seen.runs[:5]), tmp_path / "seen.json")
    finished = study(tmp_path / "seen.json", "--out", tmp_path / "rows.csv")
    assert finished.returncode == 2
    assert "expected at least 4 runs beside others, got 0" in finished.stderr
    assert finished.stderr.count("\n") == 1
    assert not (tmp_path / "rows.csv").exists()
