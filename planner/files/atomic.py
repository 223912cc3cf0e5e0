"""Files that are either whole or absent."""

import csv
import errno
import io
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from planner.files.names import cell
from planner.model import InputError

# What a full or broken disk says while a file is written.
LOST = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on a clean exit it becomes ``path``, on an error it vanishes.

    Missing folders are made. A link stays, and what it leads to is replaced; a file keeps its mode, a new one gets
    that of the umask. What is no file (a pipe, a device, standard output under ``/dev``) is written to, not replaced.

    Raises
    ------
    InputError
        The folder cannot be made or written, the disk is full, or ``path`` is a folder itself.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(Path(folder) / "a" / "b.txt") as temporary:
    ...         _ = temporary.write_text("whole")
    ...     (Path(folder) / "a" / "b.txt").read_text()
    'whole'
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the name of a file")
    try:
        mode = path.stat().st_mode if path.exists() else None
        is_stream = path.is_relative_to("/dev") or (mode is not None and not stat.S_ISREG(mode))
        target = path.resolve()
        folder = Path(tempfile.mkdtemp()) if is_stream else target.parent
        folder.mkdir(parents=True, exist_ok=True)
        # The suffix tells some libraries what to write; the rest is short, for names may be as long as is allowed.
        temporary = folder / f".{secrets.token_hex(6)}{path.suffix}"
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise _cannot(path, error) from None
    try:
        yield temporary
        if is_stream:
            with temporary.open("rb") as whole, path.open("wb") as stream:
                shutil.copyfileobj(whole, stream)
        else:
            if mode is not None:
                temporary.chmod(stat.S_IMODE(mode))
            temporary.replace(target)
    except OSError as error:
        if error.errno in LOST:
            raise _cannot(path, error) from None
        raise
    finally:
        temporary.unlink(missing_ok=True)
        if is_stream:
            folder.rmdir()


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
