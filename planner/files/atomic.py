"""Files that are either whole or absent."""

import csv
import errno
import io
import os
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from planner.files.names import cell
from planner.model import InputError

# What a full or broken disk says while a file is written.
LOST = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})

STANDARD_STREAM = Path("-")  # standard output to those who write, standard input to those who read


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on a clean exit it becomes ``path``, on an error it vanishes.

    Missing folders are made. A link stays, and what it leads to is replaced; a file keeps its mode, a new one gets
    that of the umask. What is no file (a pipe, a device) is written to, not replaced, and ``-`` is standard output.

    Raises
    ------
    InputError
        The folder cannot be made or written, the disk is full, or ``path`` is a folder itself or too long a name.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(Path(folder) / "a" / "b.txt") as temporary:
    ...         _ = temporary.write_text("whole")
    ...     (Path(folder) / "a" / "b.txt").read_text()
    'whole'
    """
    require_folder(path.parent)
    try:
        if path.is_dir():
            raise InputError(f"{path}: is a folder; give the name of a file")
        is_stream = _is_stream(path)
        mode = path.stat().st_mode if path.exists() else None
        target = path.resolve()
        folder = Path(tempfile.mkdtemp()) if is_stream else target.parent
        folder.mkdir(parents=True, exist_ok=True)
        # The suffix tells some libraries what to write; the rest is short, for names may be as long as is allowed.
        temporary = folder / f".{secrets.token_hex(6)}{path.suffix}"
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise _cannot(path, error) from None
    try:
        try:
            yield temporary
        except OSError as error:
            if error.errno in LOST:
                raise _cannot(path, error) from None
            raise
        try:
            if is_stream:
                _pour(temporary, path)
            else:
                if mode is not None:
                    temporary.chmod(stat.S_IMODE(mode))
                temporary.replace(target)
        except BrokenPipeError:  # its reader has left, which ends nothing
            pass
        except OSError as error:
            raise _cannot(path, error) from None
    finally:
        temporary.unlink(missing_ok=True)
        if is_stream:
            folder.rmdir()


def is_standard_output(path: Path) -> bool:
    """Return whether a path is ``-``, or a name of standard output such as ``/dev/stdout``."""
    if path == STANDARD_STREAM:
        return True
    try:
        return _names_a_descriptor(path) and os.path.samestat(path.stat(), os.fstat(1))
    except (OSError, ValueError):
        return False


def require_folder(path: Path) -> None:
    """Refuse ``-`` as a folder: standard output holds one file."""
    if STANDARD_STREAM in (path, *path.parents[:-1]):
        raise InputError(f"{path}: - is standard output, which holds one file; give a folder")


def _names_a_descriptor(path: Path) -> bool:
    """Return whether a path names what this process has open: ``/dev/stdout``, ``/dev/fd/3``, ``/proc/self/fd/3``."""
    streams = Path("/dev/stdout"), Path("/dev/stderr"), Path("/dev/stdin")
    return path in streams or path.is_relative_to("/dev/fd") or path.is_relative_to("/proc")


def _is_stream(path: Path) -> bool:
    if path == STANDARD_STREAM or _names_a_descriptor(path):
        return True
    return path.exists() and not path.is_file()


def _pour(whole: Path, path: Path) -> None:
    """Write a file into a pipe, a device or standard output, which goes on where it stands."""
    standard = is_standard_output(path)
    if standard:
        sys.stdout.flush()
    with whole.open("rb") as file, open(1, "wb", closefd=False) if standard else path.open("wb") as stream:
        shutil.copyfileobj(file, stream)


def _cannot(path: Path, error: OSError) -> InputError:
    if error.errno in LOST:
        return InputError(f"{path}: cannot write there ({error.strerror}); make room, then run the command again")
    return InputError(f"{path}: cannot write there ({error.strerror}); choose another output folder")


def write_text(path: Path, text: str) -> None:
    """Write a text file in one step; raises InputError as `replacing` does."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write a table: what needs quotes in quotes, no formulas (`cell`); raises InputError as `replacing` does."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([cell(value) for value in row] for row in rows)
    write_text(path, text.getvalue())
