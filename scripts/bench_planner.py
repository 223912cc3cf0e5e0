#!/usr/bin/env python
"""Measure how planning grows, methods beside each other, and pipelines beside NP (see tests/bench).

`scripts/bench_planner.py growth --data DIR`; `methods` and `pairs` in place of `growth`.
"""

import runpy
from pathlib import Path

if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).parents[1] / "tests" / "bench"), run_name="__main__")
