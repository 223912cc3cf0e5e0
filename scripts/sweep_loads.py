#!/usr/bin/env python
"""Sweep loads: plans × traces × loads × policies × seeds × worlds on all cores, resumable, one row per run.

The same as ``python -m simulator sweep``; see ``--help``. Results go to out/sweep unless told otherwise.
"""

from planner.cli.app import new_app, run
from simulator.cli.sweeping import sweep

app = new_app(__doc__)
app.command()(sweep)

if __name__ == "__main__":
    run(app)
