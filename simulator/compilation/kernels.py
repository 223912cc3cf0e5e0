"""Compiled functions as Python sees them."""

from collections.abc import Callable
from functools import cached_property, update_wrapper
from threading import RLock
from typing import Any, TypeVar, cast

import numpy as np

from planner.kept_code import say_compiling
from simulator.compilation.keeping import keep, kept
from simulator.compilation.kinds import BOOL, FLOAT, INT, Kind, LastTuple, kind_of_array
from simulator.compilation.loading import load

OPTIONS: dict[str, Any] = {"error_model": "numpy", "forceinline": True, "_nrt": False}

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile a function on its first call in nopython mode, and keep the machine code on disk.

    It must not allocate arrays: then no references need counting, which would cost more than the work. Indices of
    elements count from 0 (-1 is not the last one, but before the first). It becomes part of the compiled functions that
    call it, for an array costs a dozen arguments to pass.

    Arguments are numbers, arrays and named tuples of arrays, by position; results are numbers, or tuples of them. A
    change to any module that holds compiled functions makes all of them be compiled again, for the code holds constants
    and functions of other modules as well.

    Examples
    --------
    >>> @compiled
    ... def twice(number):
    ...     return 2 * number
    >>> twice(21)
    42
    """
    return cast(Function, Kernel(function, OPTIONS))


def compiled_apart(function: Function) -> Function:
    """Compile a function as `compiled` does, but not as a part of its callers: they are many, or call it seldom."""
    return cast(Function, Kernel(function, OPTIONS | {"forceinline": False}))


def prepare(function: Callable[..., object], *arguments: object) -> None:
    """Have a compiled function ready for arguments of these kinds, without calling it."""
    cast(Kernel, function).prepare(arguments)


class Kernel:
    """A compiled function."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        update_wrapper(self, function)
        self.py_func = function
        self._options = options
        self._entries: dict[tuple[Kind, ...], Callable[[list[Any]], Any]] = {}

    def __call__(self, *arguments: Any) -> Any:
        """Call it."""
        kinds, values = self._looked_at(arguments)
        entry = self._entries.get(kinds) or self._enter(kinds)
        return entry(values)

    def prepare(self, arguments: tuple[Any, ...]) -> None:
        """Make it ready for arguments of these kinds."""
        self._enter(self._looked_at(arguments)[0])

    def _looked_at(self, arguments: tuple[Any, ...]) -> tuple[tuple[Kind, ...], list[Any]]:
        """Return the kinds of arguments, and them as they are passed on."""
        kinds: list[Kind] = []
        values = [*arguments]
        for k, argument in enumerate(arguments):
            if type(argument) is int:
                kinds.append(INT)
            elif isinstance(argument, np.ndarray):
                kinds.append(kind_of_array(argument))
            elif isinstance(argument, tuple):
                kinds.append(_last_tuple.kind(argument))
            else:
                kind, values[k] = self._number(argument)
                kinds.append(kind)
        return tuple(kinds), values

    @cached_property
    def _dispatcher(self) -> Any:
        from numba import njit

        options = self._options | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
        return njit(self.py_func, **options)

    @property
    def _numba_type_(self) -> Any:
        """What numba takes it for where another compiled function calls it."""
        return self._dispatcher._numba_type_

    def _number(self, argument: object) -> tuple[Kind, int | float]:
        if isinstance(argument, (bool, np.bool_)):
            return BOOL, bool(argument)
        if isinstance(argument, (int, np.integer)):
            return INT, int(argument)
        if isinstance(argument, (float, np.floating)):
            return FLOAT, float(argument)
        expected = "numbers, arrays and named tuples of arrays"
        raise TypeError(f"{self.py_func.__name__}: expected {expected}, got {type(argument).__name__}")

    def _enter(self, kinds: tuple[Kind, ...]) -> Callable[[list[Any]], Any]:
        """Return what to call for arguments of these kinds: kept code, or new one."""
        with _one_at_a_time:
            if (entry := self._entries.get(kinds)) is not None:
                return entry
            code = kept(self.py_func, kinds)
            if code is None:
                say_compiling()
                from simulator.compilation.building import build

                code = build(self.py_func, kinds, self._options)
                keep(self.py_func, kinds, code)
            self._entries[kinds] = entry = load(code, kinds)
            return entry


_last_tuple = LastTuple()
_one_at_a_time = RLock()
