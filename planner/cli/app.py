"""What every command line of the project shares: how it starts, fails and shows progress."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from planner.model import InputError

INTERRUPTED = 130  # exit status of a program that Ctrl-C ended

# Names of layers, files and devices are printed as they are: [/encoder] is no markup, :warning: no picture.
console = Console(markup=False, emoji=False)
errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)


def new_app(help_text: str) -> typer.Typer:
    """Return an empty command line; modules register their commands on it."""
    return typer.Typer(help=help_text, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def run(app: typer.Typer) -> None:
    """Run a command line: bad input is one line on standard error and exit status 2, Ctrl-C is status 130."""
    try:
        status = app(standalone_mode=False)  # typer returns the status of typer.Exit, and 130 for Ctrl-C
    except InputError as error:
        errors.print(f"error: {printable(str(error))}")
        sys.exit(2)
    except typer.TyperException as error:
        if message := error.format_message():  # none where the help was shown for want of a command
            errors.print(f"error: {_usage(message, getattr(error, 'ctx', None))}")
        sys.exit(error.exit_code)
    if status == INTERRUPTED:
        errors.print("stopped; what was finished is kept")
    sys.exit(status or 0)


def printable(text: str) -> str:
    r"""Return a text on one line, control characters written out: a name of a model's may hold any.

    >>> printable("a\nb")
    'a\\nb'
    """
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _usage(message: str, context: typer.Context | None) -> str:
    """Return typer's words about wrong usage as one line in ours, with where to read more."""
    line = " ".join(message.split()).rstrip(".")
    line = line.replace("Value error, ", "").replace("Input should be", "expected a number")
    return line[0].lower() + line[1:] + (f"; see `{context.command_path} --help`" if context else "")


@contextmanager
def about(path: Path) -> Iterator[None]:
    """Put a file's name before the errors that are found in what was read from it."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def progress() -> Progress:
    """Return a progress bar (on standard error) with counts, time taken and time left; it vanishes when done."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=errors,
        transient=True,
    )
