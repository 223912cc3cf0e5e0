"""Memory stays flat: records of many requests, in processes of their own."""

import subprocess
import sys

import pytest

HEAD = """
import re, sys
from pathlib import Path
import numpy as np
from simulator.dispatch.system import System
from simulator.engine import World, simulate
from simulator.engine.world import FailureRate
from simulator.results.tables import write_records

def peak_bytes():
    # VmHWM is this program's own peak; ru_maxrss would count the parent's, which it was forked from.
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

one = np.ones((1, 2), np.int64)
system = System("net", 10_000, np.array([2]), np.array([1]), np.array([[[0, 1000], [0, 1000]]]), 0 * one, 0 * one,
                np.array([[1000, 0]]), 20 * one, one, one, one, 0 * one, ("GPU",), (40.0,), (1.0,))

def arrivals_us(requests):
    return np.cumsum(np.random.default_rng(1).integers(0, 110, requests, dtype=np.int64))
"""

THREE_MILLION = """
records = simulate(system, arrivals_us(3_000_000))
assert records.finished.mean() > 0.9
write_records(records, Path(sys.argv[1]))
print(peak_bytes())
"""

IN_A_WORLD = """
world = World(seed=1, spread=0.2, load_us=1000, failure_rate=FailureRate("slice", 5e6, 5e5))
simulate(system, arrivals_us(1000), world=world)
arrivals = arrivals_us(1_000_000)
Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
before = int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
records = simulate(system, arrivals, world=world)
assert records.finished.mean() > 0.9
print(peak_bytes() - before)
"""


def measured_bytes(script: str, *arguments: object) -> float:
    command = [sys.executable, "-c", HEAD + script, *map(str, arguments)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc"),
]


def test_ten_million_requests_fit_in_two_gibibytes(tmp_path) -> None:
    """As three million of them take three tenths of that, the program included."""
    assert measured_bytes(THREE_MILLION, tmp_path / "run.parquet") < 0.3 * 2 * 2**30
    assert (tmp_path / "run.parquet").stat().st_size > 3_000_000


def test_a_million_requests_in_a_world_take_120_megabytes() -> None:
    """Two stages, batch 1: two visits of 32 bytes, the columns made of them, arrivals, outcomes."""
    assert measured_bytes(IN_A_WORLD) < 120e6
