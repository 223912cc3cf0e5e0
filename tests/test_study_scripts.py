"""The studies of bounds and of few runs: what they refuse, and how bounds are summed up."""

import runpy
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        # a folder without the published data
        (("study_bounds.py", "--data", "nowhere"), "nowhere: no models/shapes"),
        (("study_few_shot.py", "--data", "nowhere"), "nowhere: no models/shapes"),
        # runs that cannot be given, GPUs that are not there, none to learn from
        (("study_few_shot.py", "--data", "nowhere", "--budgets", "5,x"), "--budgets: expected numbers of at least 0"),
        (("study_few_shot.py", "--data", "nowhere", "--gpus", "A100"), "--gpus: expected some of L4, T4, V100, P4"),
        (
            ("study_few_shot.py", "--data", "nowhere", "--gpus", "L4", "--known", "L4"),
            "expected a GPU beside the one left out, L4",
        ),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(tmp_path: Path, arguments: tuple[str, ...], text: str) -> None:
    command = [sys.executable, str(SCRIPTS / arguments[0]), *arguments[1:], "--out", str(tmp_path / "out")]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert finished.returncode == 2
    assert text in finished.stderr
    assert finished.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_bounds_are_judged_on_dnns_that_the_truth_serves() -> None:
    """Of two DNNs the truth serves one in time when arrivals are steady, and none when they are bursty."""
    rows = [
        {"fraction": 0.5, "seed": 0, "trace": trace, "method": method, "problem": "p", "dnn": dnn, "devices": 1.0,
         "planned_rps": rps, "attainment": attained, "held_rps": 0.9 * rps, "runs": 0, "cpu_seconds": 1.0}
        for trace, method, dnn, rps, attained in [
            ("steady", "truth", "a", 100.0, 1.0), ("steady", "truth", "b", 100.0, 0.5),
            ("steady", "margin 2", "a", 50.0, 0.96), ("steady", "margin 2", "b", 20.0, 0.1),
            ("bursty", "truth", "a", 100.0, 0.8), ("bursty", "truth", "b", 100.0, 0.6),
            ("bursty", "margin 2", "a", 50.0, 0.7), ("bursty", "margin 2", "b", 20.0, 0.3),
        ]
    ]  # fmt: skip
    summary = runpy.run_path(str(SCRIPTS / "study_bounds.py"))["summary"]
    found = summary(pd.DataFrame(rows)).set_index(["trace", "method"])
    assert found.loc["steady", "margin 2"][["planned", "attainment", "in_time", "held"]].tolist() == pytest.approx(
        [0.5, 0.96, 0.0, 0.5]
    )
    assert found.loc["bursty", "margin 2"][["planned", "attainment"]].tolist() == pytest.approx([0.35, 0.5])
