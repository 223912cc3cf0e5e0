"""What every command line of the project shares: how it starts, fails and shows progress."""

import codecs
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import IO, Annotated, Any, NoReturn, TextIO

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from planner.files.atomic import STANDARD_STREAM, is_standard_output
from planner.files.names import printable
from planner.model import InputError

INTERRUPTED = 130  # exit status of a program that Ctrl-C ended
ENDED = {signal.SIGTERM: 143, signal.SIGHUP: 129}  # and of one that was told to end, or lost its terminal

WIDEST = 100_000  # characters of a line that goes into a file or pipe

# Symbols of ours, for terminals that have none of them.
ASCII = str.maketrans(
    {"×": "x", "µ": "u", "·": "*", "→": "->", "–": "-", "−": "-", "…": "...", "≥": ">=", "≤": "<=", "±": "+-", "√": "v"}
)


class _Console(Console):
    """A console that outlives the reader of a pipe: what a command does besides printing is done."""

    def on_broken_pipe(self) -> None:
        """Print to nowhere from now on."""
        _to_nowhere(self.file)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print; no table cuts a name short: on terminals cells wrap, elsewhere lines are as long as they need be.

        What no terminal shows is written out (`printable`), whoever's names it stands in, but for the ends of lines.
        """
        objects = tuple(_shown(each) if isinstance(each, str) else each for each in objects)
        for table in (each for each in objects if isinstance(each, Table)):
            for column in table.columns:
                column.overflow = "fold"
            if not self.is_terminal:
                wanted = self.measure(table, options=self.options.update(width=WIDEST)).maximum
                own, self.width = self.width, max(self.width, wanted)
                try:
                    super().print(table, **options)
                finally:
                    self.width = own
                return
        super().print(*objects, **options)


def _shown(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))


def _to_nowhere(stream: IO[str]) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


# Names of layers, files and devices are printed as they are: [/encoder] is no markup, :warning: no picture.
console: Console = _Console(markup=False, emoji=False)
errors: Console = _Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)


def new_app(help_text: str) -> typer.Typer:
    """Return an empty command line; modules register their commands on it."""
    return typer.Typer(help=help_text, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def add_version(app: typer.Typer) -> None:
    """Let a command line of several commands answer ``--version``."""

    @app.callback()
    def main(
        version: Annotated[
            bool, typer.Option("--version", help="Show poolpipe's version and end.", callback=_version, is_eager=True)
        ] = False,
    ) -> None:
        pass

    main.__doc__ = str(app.info.help)


def _alone(app: typer.Typer) -> None:
    """Let the only command of a script go without its name."""
    callback = app.registered_callback.callback if app.registered_callback else None
    single = len(app.registered_commands) == 1 and not app.registered_groups
    if single and callback is not None and callback.__module__ == __name__:
        app.registered_callback = None


def run(app: typer.Typer) -> None:
    """Run a command line: bad input is one line on standard error and exit status 2, Ctrl-C is status 130."""
    for stream in (sys.stdout, sys.stderr):
        _degrade(stream)
    console.stderr = _asks_for_standard_output(sys.argv[1:])  # nothing is mixed with the results that go there
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it says at length that a home cannot be written
    _alone(app)
    in_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, _end) for number in ENDED if in_main}
    try:
        status = app(standalone_mode=False)  # typer returns the status of typer.Exit, and 130 for Ctrl-C
    except InputError as error:
        errors.print(f"error: {printable(str(error))}")
        sys.exit(2)
    except BrokenPipeError:  # the reader of a pipe has left; rich's console copes by itself
        _to_nowhere(sys.stdout)
        status = 0
    except OSError as error:  # of this machine, not of the command: a folder without permission, a broken disk
        what = error.strerror or " ".join(str(error).split())
        errors.print(f"error: {printable(f'{error.filename}: ' if error.filename else '')}{printable(what)}")
        sys.exit(2)
    except MemoryError as error:
        errors.print(f"error: the memory of this machine does not do ({error or 'no more is free'}); ask for less")
        sys.exit(2)
    except typer.TyperException as error:
        if message := error.format_message():  # none where the help was shown for want of a command
            errors.print(f"error: {_usage(message, getattr(error, 'ctx', None))}")
        sys.exit(error.exit_code)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if status == INTERRUPTED:
        errors.print("stopped; what was finished is kept")
    sys.exit(status or 0)


def _version(asked: bool) -> None:
    if asked:
        console.print(f"poolpipe {version('poolpipe')}", highlight=False)
        raise typer.Exit


def _asks_for_standard_output(arguments: Sequence[str]) -> bool:
    """Return whether an option such as ``--out`` names standard output; ``-`` elsewhere may be standard input."""
    for before, argument in pairwise(["", *arguments]):
        option, _, value = argument.partition("=") if argument.startswith("--") else (before, "", argument)
        if is_standard_output(Path(value)) and (value != str(STANDARD_STREAM) or option.endswith("out")):
            return True
    return False


def _end(number: int, frame: FrameType | None) -> NoReturn:
    """End as Ctrl-C does, through every ``finally``, with the status of the signal."""
    sys.exit(ENDED[signal.Signals(number)])


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP interrupt as Ctrl-C does, for work that keeps what it has."""

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    in_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, interrupt) for number in ENDED if in_main}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _degrade(stream: TextIO) -> None:
    """Let a stream whose encoding lacks a symbol write it otherwise."""
    if hasattr(stream, "reconfigure") and "utf" not in (stream.encoding or "").lower():
        codecs.register_error("poolpipe", _substitute)
        stream.reconfigure(errors="poolpipe")


def _substitute(error: UnicodeError) -> tuple[str, int]:
    """Write what an encoding lacks in ASCII: our symbols by look-alikes, all else as escapes."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    _say_degraded(error.encoding)
    text = error.object[error.start : error.end].translate(ASCII)
    return text.encode("ascii", "backslashreplace").decode(), error.end


@cache
def _say_degraded(encoding: str) -> None:
    hint = "set LC_ALL=C.UTF-8 or PYTHONIOENCODING=utf-8"
    errors.print(f"note: the encoding {encoding} lacks some symbols, which are written otherwise; {hint}")


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


class _Description(TextColumn):
    """What is done, with names as data."""

    def render(self, task: Task) -> Text:
        """Return the text, what no terminal shows written out."""
        return Text(printable(super().render(task).plain))


def progress() -> Progress:
    """Return a progress bar (on standard error) with counts, time taken and time left; it vanishes when done.

    Where standard error is no terminal, such as in a log, there is none.
    """
    return Progress(
        _Description("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=errors if errors.is_terminal else Console(quiet=True),  # disabled, rich 13 still prints an empty line
        transient=True,
        disable=not errors.is_terminal,
    )
