"""Where machine code is kept from one process to the next when the usual places cannot be written; and what is said."""

import logging
import os
import tempfile
from functools import cache
from multiprocessing import current_process
from pathlib import Path

log = logging.getLogger(__name__)

HINT = "set NUMBA_CACHE_DIR to a folder that can be written"


@cache
def own_folder() -> Path:
    """Return a folder among the temporary files that is this user's alone; raises OSError if there is none."""
    folder = Path(tempfile.gettempdir(), f"poolpipe-numba-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if folder.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PermissionError(f"{folder} is open to others")  # whose files would be run as code
    return folder


def require_writable(folder: Path) -> None:
    """Make a folder if there is none; raises OSError if it cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()


def checks() -> str:
    """Return whether compiled code checks its indices: it is other code then, which must be kept apart."""
    return os.environ.get("NUMBA_BOUNDSCHECK", "")


@cache
def say(text: str) -> None:
    """Log a line once; worker processes need not say it again."""
    if current_process().name == "MainProcess":  # parent_process() is set only after modules were imported
        log.warning("note: %s", text)


def say_compiling() -> None:
    """Say what takes so long the first time."""
    say("compiling for this processor, which takes up to a minute or two, once where it can be kept")


def say_temporary() -> None:
    """Say that code is kept among the temporary files."""
    say(f"compiled code is kept in {own_folder()}, as neither installation nor home can be written; {HINT}")


def say_nowhere(error: Exception) -> None:
    """Say that code cannot be kept at all."""
    say(f"compiled code cannot be kept ({reason(error)}), so that every start compiles anew; {HINT}")


def reason(error: Exception) -> str:
    """Return what an exception says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__
