"""The command line of the planner, put together."""

from planner.cli import completion, files, merging, models, observing, planning, profiling, splitting, verifying
from planner.cli.app import add_version, new_app, run

app = new_app("Profile ONNX models, plan how a cluster of unlike devices serves them, check the result.")
profiling.register(app)
models.register(app)
observing.register(app)
completion.register(app)
splitting.register(app)
verifying.register(app)
merging.register(app)
planning.register(app)
files.register(app)
add_version(app)


def main() -> None:
    """Entry point of ``python -m planner`` and ``poolpipe-planner``."""
    run(app)
