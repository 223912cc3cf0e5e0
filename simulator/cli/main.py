"""The command line of the simulator, put together."""

from planner.cli.app import add_version, new_app, run
from simulator.cli import executing, reporting, schemas, simulation, workload

app = new_app("Simulate plans under arrivals, sweep over loads, execute them on real devices, look at the results.")
simulation.register(app)
executing.register(app)
workload.register(app)
reporting.register(app)
schemas.register(app)
add_version(app)


def main() -> None:
    """Entry point of ``python -m simulator`` and ``poolpipe-simulator``."""
    run(app)
