"""What every command line of the project shares: how it starts, fails and shows progress."""

import sys

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from planner.model import InputError

console = Console()
errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def new_app(help_text: str) -> typer.Typer:
    """Return an empty command line; modules register their commands on it."""
    return typer.Typer(help=help_text, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def run(app: typer.Typer) -> None:
    """Run a command line: bad input is one line on standard error and exit status 2, Ctrl-C is status 130."""
    try:
        app()
    except InputError as error:
        errors.print(f"error: {error}")
        sys.exit(2)
    except KeyboardInterrupt:
        errors.print("stopped; what was finished is kept")
        sys.exit(130)


def progress() -> Progress:
    """Return a progress bar (on standard error) with counts, time taken and time left; it vanishes when done."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=errors,
        transient=True,
    )
