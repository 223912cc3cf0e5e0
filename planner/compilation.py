"""Compilation with numba, whose machine code is kept on disk wherever a folder can be written."""

# mypy: disable-error-code="no-untyped-call"

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import njit
from numba.core import caching

from planner.kept_code import checks, own_folder, reason, say, say_compiling, say_nowhere, say_temporary

# numba 0.61 names these with an underscore.
_NAMES = ("UserWideCacheLocator", "_UserWideCacheLocator")
UserWideCacheLocator: Any = next(getattr(caching, name) for name in _NAMES if hasattr(caching, name))

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function, **options: Any) -> Function:
    """Compile a function on its first call in nopython mode, and keep the machine code for the next process.

    numba keeps it beside the module, else in the user's cache folder. Where neither can be written (a read-only
    environment and home), it is kept in a folder of this user for temporary files, else not at all; one line says so.
    A cache that cannot be read or written later (full disk, broken file) costs time, never the run.

    Parameters
    ----------
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
        dispatcher._cache = _Cache(function)
    except RuntimeError:  # there is no folder that can be written; also for functions without a file
        return cast(Function, dispatcher)
    return cast(Function, dispatcher)


class _TemporaryFolder(UserWideCacheLocator):  # type: ignore[misc]  # found at run time
    """The last place for machine code: a folder among the temporary files that is this user's alone."""

    def __init__(self, function: Callable[..., Any], file: str) -> None:
        super().__init__(function, file)
        self._cache_path = str(own_folder() / self.get_suitable_cache_subpath(file))

    @classmethod
    def from_function(cls, function: Callable[..., Any], file: str) -> "_TemporaryFolder | None":
        """Return the place, or None where there is none either; say which, once."""
        if not Path(file).exists():
            return None
        try:
            place = cls(function, file)
            place.ensure_cache_path()
        except OSError as error:
            say_nowhere(error)
            return None
        say_temporary()
        return place


class _Places(caching.CompileResultCacheImpl):
    _locator_classes = [*caching.CompileResultCacheImpl._locator_classes, _TemporaryFolder]  # noqa: RUF012  # as numba has it


class _Cache(caching.FunctionCache):
    """numba's cache of a function's machine code, but one whose failures cost time only."""

    _impl_class = _Places

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the machine code of a signature, or None where there is none that can be read."""
        try:
            kept = super().load_overload(sig, target_context)
        except Exception as error:  # a file that was cut off raises whatever unpickling it comes upon
            say(f"compiled code in {self.cache_path} cannot be read ({reason(error)}) and is made anew")
            return None
        if kept is None:
            say_compiling()
        return kept

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep the machine code of a signature where that is possible."""
        try:
            super().save_overload(sig, data)
        except Exception as error:  # OSError, or the unpickling of a broken index
            say(f"compiled code cannot be kept in {self.cache_path} ({reason(error)})")

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return super()._index_key(sig, codegen), checks()
