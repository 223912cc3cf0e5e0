"""The traces in the repository are what their README says."""

from pathlib import Path

import numpy as np
import pytest

from simulator.workload import maf_like, read_trace

TRACES = Path(__file__).parents[3] / "traces"


def test_samples_are_made_by_the_generator_with_the_stated_seed():
    made = maf_like(40_000, np.random.default_rng(21))
    for name in ("maf-like.maf21.csv.gz", "maf-like.arrivals.csv.gz"):
        sample = read_trace(TRACES / name)
        # To the µs that is written: the last bit of exp differs between processors.
        assert sample.times_s == pytest.approx(made.times_s, abs=2.1e-6)
    called = read_trace(TRACES / "maf-like.maf21.csv.gz")
    by_name = {called.functions[code][0]: calls for code, calls in enumerate(np.bincount(called.function).tolist())}
    expected = dict(zip((app for app, _ in made.functions), np.bincount(made.function).tolist(), strict=True))
    assert by_name == expected
    minutes = read_trace(TRACES / "maf-like.maf19.csv.gz")
    assert (
        np.abs(np.bincount((minutes.times_s // 60).astype(int)) - np.bincount((made.times_s // 60).astype(int))).sum()
        <= 2
    )


def test_the_readme_names_every_sample():
    text = (TRACES / "README.md").read_text()
    paths = list(TRACES.glob("*.gz"))
    assert len(paths) == 3
    for path in paths:
        assert f"| {path.name} |" in text
        assert f"--out traces/{path.name}" in text
