"""Compilation with numba, whose machine code is kept on disk wherever a folder can be written."""

# mypy: disable-error-code="no-untyped-call"

import logging
import os
import tempfile
from collections.abc import Callable
from functools import cache
from multiprocessing import current_process
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import njit
from numba.core import caching

log = logging.getLogger(__name__)

# numba 0.61 names these with an underscore.
_NAMES = ("UserWideCacheLocator", "_UserWideCacheLocator")
UserWideCacheLocator: Any = next(getattr(caching, name) for name in _NAMES if hasattr(caching, name))

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function, *, stamp: str | None = None, **options: Any) -> Function:
    """Compile a function on its first call in nopython mode, and keep the machine code for the next process.

    numba keeps it beside the module, else in the user's cache folder. Where neither can be written (a read-only
    environment and home), it is kept in a folder of this user for temporary files, else not at all; one line says so.
    A cache that cannot be read or written later (full disk, broken file) costs time, never the run.

    Parameters
    ----------
    stamp
        What the machine code depends on besides the function's own file, as a hash; without it, that file alone.
    **options
        Options of ``numba.njit``.

    Examples
    --------
    >>> @compiled
    ... def twice(number):
    ...     return 2 * number
    >>> twice(21)
    42
    """
    dispatcher = njit(function, **options)
    try:
        kept = _Cache(function)
    except RuntimeError:  # there is no folder that can be written; also for functions without a file
        return cast(Function, dispatcher)
    if stamp is not None:
        kept._cache_file._source_stamp = stamp
    dispatcher._cache = kept
    return cast(Function, dispatcher)


class _TemporaryFolder(UserWideCacheLocator):  # type: ignore[misc]  # found at run time
    """The last place for machine code: a folder among the temporary files that is this user's alone."""

    def __init__(self, function: Callable[..., Any], file: str) -> None:
        super().__init__(function, file)
        self._cache_path = str(_own_folder() / self.get_suitable_cache_subpath(file))

    @classmethod
    def from_function(cls, function: Callable[..., Any], file: str) -> "_TemporaryFolder | None":
        """Return the place, or None where there is none either; say which, once."""
        hint = "set NUMBA_CACHE_DIR to a folder that can be written"
        if not Path(file).exists():
            return None
        try:
            place = cls(function, file)
            place.ensure_cache_path()
        except OSError as error:
            _say(f"compiled code cannot be kept ({_reason(error)}), so that every start compiles anew; {hint}")
            return None
        _say(f"compiled code is kept in {_own_folder()}, as neither installation nor home can be written; {hint}")
        return place


class _Places(caching.CompileResultCacheImpl):
    _locator_classes = [*caching.CompileResultCacheImpl._locator_classes, _TemporaryFolder]  # noqa: RUF012  # as numba has it


class _Cache(caching.FunctionCache):
    """numba's cache of a function's machine code, but one whose failures cost time only."""

    _impl_class = _Places

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the machine code of a signature, or None where there is none that can be read."""
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # a file that was cut off raises whatever unpickling it comes upon
            _say(f"compiled code in {self.cache_path} cannot be read ({_reason(error)}) and is made anew")
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep the machine code of a signature where that is possible."""
        try:
            super().save_overload(sig, data)
        except Exception as error:  # OSError, or the unpickling of a broken index
            _say(f"compiled code cannot be kept in {self.cache_path} ({_reason(error)})")


@cache
def _own_folder() -> Path:
    folder = Path(tempfile.gettempdir(), f"poolpipe-numba-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if folder.is_symlink() or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PermissionError(f"{folder} is open to others")  # whose files would be run as code
    return folder


@cache
def _say(text: str) -> None:
    """Log a line once; worker processes need not say it again."""
    if current_process().name == "MainProcess":  # parent_process() is set only after modules were imported
        log.warning("note: %s", text)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
