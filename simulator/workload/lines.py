"""What every reader of text files shares: opening them, and saying which line is wrong and why."""

import csv
import gzip
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import TextIO

from planner.model import InputError
from simulator.workload.arrivals import ABSURD_S


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Open a text file, gzipped or not; raises InputError where it cannot be read, now or later."""
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8", newline="")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8", newline="") as lines
        ):
            yield lines
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot read it ({_reason(error)}); expected a CSV file, plain or .gz") from None


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else "not a text file, or cut short"


def first_line(path: Path) -> str:
    """Return a file's first line; raises InputError where there is none."""
    with open_text(path) as lines:
        line = lines.readline().strip()
    if not line:
        raise InputError(f"{path}: line 1: the file is empty; expected a header or an arrival")
    return line


def require_header(path: Path, columns: Sequence[str]) -> list[str]:
    """Return the columns that a file's first line names; raises InputError unless ``columns`` are among them."""
    line = first_line(path)
    got = next(csv.reader([line]))
    missing = [column for column in columns if column not in got]
    if missing:
        raise InputError(
            f"{path}: line 1: expected the columns {', '.join(columns)}; {', '.join(missing)} missing in {line[:80]!r}"
        )
    return got


def time_problem(text: str, absurd: float = ABSURD_S) -> str:
    """Say what is wrong with a time, or return an empty text.

    >>> time_problem("-3")
    "expected a time >= 0, got '-3'; correct or drop the row"
    """
    try:
        value = float(text)
    except ValueError:
        return f"expected a number, got {text!r}; correct or drop the row"
    if not isfinite(value):
        return f"expected a finite number, got {text!r}; correct or drop the row"
    if value < 0:
        return f"expected a time >= 0, got {text!r}; correct or drop the row"
    if value > absurd:
        return f"expected a time <= {absurd:g}, got {text!r}; is the unit right?"
    return ""


def read_blocks(path: Path, size: int = 8 << 20) -> Iterator[bytes]:
    """Yield a file, gzipped or not, in blocks of whole lines, each ending in a newline; raises InputError."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            rest = b""
            while block := file.read(size):
                whole, newline, tail = block.rpartition(b"\n")
                if newline:
                    yield rest + whole + newline
                    rest = tail
                else:
                    rest += tail
            if rest:
                yield rest + b"\n"
    except (OSError, EOFError) as error:
        raise InputError(f"{path}: cannot read it ({_reason(error)}); expected a CSV file, plain or .gz") from None
