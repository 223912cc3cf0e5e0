#!/usr/bin/env python
"""Measure how planning grows with the problem: `scripts/bench_planner.py --data DIR` (see tests/bench)."""

import runpy
from pathlib import Path

if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).parents[1] / "tests" / "bench"), run_name="__main__")
