"""Memory stays flat: ten million requests, records written to Parquet, in a process of their own."""

import subprocess
import sys

import pytest

SCRIPT = """
import re, sys
from pathlib import Path
import numpy as np
from simulator.dispatch.system import System
from simulator.engine import simulate
from simulator.results.tables import write_records

one = np.ones((1, 2), np.int64)
system = System("net", 10_000, np.array([2]), np.array([1]), np.array([[[0, 1000], [0, 1000]]]), 0 * one, 0 * one,
                np.array([[1000, 0]]), 20 * one, one, one, one, 0 * one, ("GPU",), (40.0,), (1.0,))
arrivals_us = np.cumsum(np.random.default_rng(1).integers(0, 110, 10_000_000, dtype=np.int64))
records = simulate(system, arrivals_us, engine=sys.argv[2])
assert records.finished.mean() > 0.9
write_records(records, Path(sys.argv[1]))
# VmHWM is this program's own peak; ru_maxrss would count the parent's, which it was forked from.
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 2**20)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
def test_ten_million_requests_fit_in_two_gibibytes(tmp_path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "run.parquet"), "replay"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 2.0
    assert (tmp_path / "run.parquet").stat().st_size > 10_000_000
