"""The command line of the simulator, put together."""

from planner.cli.app import new_app, run
from simulator.cli import workload

app = new_app("Simulate plans under arrivals, sweep over loads, look at the results.")
workload.register(app)


def main() -> None:
    """Entry point of ``python -m simulator`` and ``poolpipe-simulator``."""
    run(app)
