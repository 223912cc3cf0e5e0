#!/usr/bin/env python3
"""Run a plan on real devices: scripts/execute_plan.py PLAN --models DIR --trace FILE --rate R --out DIR."""

from planner.cli.app import new_app, run
from simulator.cli import executing

app = new_app("Run a plan on real devices.")
app.command()(executing.execute_plan)

if __name__ == "__main__":
    run(app)
