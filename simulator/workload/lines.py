"""What every reader of text files shares: opening them, and saying which line is wrong and why.

Files may be gzipped whatever they are called, begin with a byte order mark, and have blank lines at both ends.
"""

import csv
import gzip
import io
import re
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from math import isfinite
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from planner.model import InputError
from simulator.workload.arrivals import ABSURD_S

GZIP = b"\x1f\x8b"
MARK = b"\xef\xbb\xbf"  # of UTF-8
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf|infinity)", re.ASCII | re.IGNORECASE)
STANDARD_INPUT = Path("-")


@contextmanager
def readable(path: Path) -> Iterator[Path]:
    """Yield a file that can be read more than once: ``path``, or a copy of standard input (``-``) or of a pipe.

    Errors about the copy name ``path``.
    """
    if path != STANDARD_INPUT and (path.is_file() or not path.exists() or path.is_dir()):
        yield path
        return
    if path.is_char_device() or path.is_block_device():
        raise InputError(f"{path}: is a device; give a file, a pipe, or - for standard input")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, path.name.lstrip("-") or "standard input")
        try:
            given = nullcontext(sys.stdin.buffer) if path == STANDARD_INPUT else path.open("rb")
            with given as stream, copy.open("wb") as file:
                shutil.copyfileobj(stream, file)
        except OSError as error:
            raise InputError(f"{path}: cannot read it ({error.strerror})") from None
        try:
            yield copy
        except InputError as error:
            raise InputError(str(error).replace(str(copy), str(path))) from None


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a file, gzipped or not, behind its byte order mark; raises InputError where it cannot be read."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == GZIP
        with cast(BinaryIO, gzip.open(path, "rb")) if packed else path.open("rb") as file:
            if file.read(len(MARK)) != MARK:
                file.seek(0)
            yield file
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a text file, or cut short"
        raise InputError(f"{path}: cannot read it ({reason}); expected a CSV file, plain or .gz") from None


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Open a text file, gzipped or not; raises InputError where it cannot be read, now or later."""
    with open_bytes(path) as file, io.TextIOWrapper(file, encoding="utf-8", newline="") as lines:
        yield lines


def first_line(path: Path) -> str:
    """Return a file's first line that is not blank; raises InputError where there is none."""
    with open_text(path) as lines:
        for line in lines:
            if line.strip():
                return line.strip()
    raise InputError(f"{path}: line 1: the file is empty; expected a header or an arrival")


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
    >>> time_problem("1_000")
    "expected a number, got '1_000'; correct or drop the row"
    """
    if not NUMBER.fullmatch(text.strip()):
        return f"expected a number, got {text[:40]!r}; correct or drop the row"
    value = float(text)
    if not isfinite(value):
        return f"expected a finite number, got {text[:40]!r}; correct or drop the row"
    if value < 0:
        return f"expected a time >= 0, got {text[:40]!r}; correct or drop the row"
    if value > absurd:
        return f"expected a time <= {absurd:g}, got {text[:40]!r}; is the unit right?"
    return ""


def read_blocks(path: Path, size: int = 8 << 20) -> Iterator[bytes]:
    """Yield a file, gzipped or not, in blocks of whole lines, each ending in a newline; raises InputError."""
    with open_bytes(path) as file:
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
