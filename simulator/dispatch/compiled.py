"""Compilation of the functions that dispatch and simulate, cached on disk."""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from planner import compilation

OPTIONS: dict[str, Any] = {"error_model": "numpy", "forceinline": True, "_nrt": False}

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile a function on its first call in nopython mode, and keep the machine code on disk.

    It must not allocate arrays: then no references need counting, which would cost more than the work. It
    becomes part of the compiled functions that call it, for an array costs a dozen arguments to pass.

    numba's own cache looks at the file of a function only, though the code holds constants and functions of other
    modules as well; here a change to any module of the package makes all of its functions be compiled again.
    """
    return compilation.compiled(function, stamp=_sources(), **OPTIONS)


@cache
def _sources() -> str:
    """Return a hash of all modules that hold compiled functions."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted([*package.glob("dispatch/*.py"), *package.glob("engine/*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()
