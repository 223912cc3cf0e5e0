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


def compiled_apart(function: Function) -> Function:
    """Compile a function as `compiled` does, but not as a part of its callers: they are many, or call it seldom."""
    return compilation.compiled(function, stamp=_sources(), **OPTIONS | {"forceinline": False})


@cache
def _sources() -> str:
    """Return a hash of all modules that hold compiled functions, and of the numbers of rules in them."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted([*package.glob("dispatch/*.py"), *package.glob("engine/**/*.py")]):
        text = path.read_bytes()
        if b"@compiled" in text or path.parent.name == "dispatch" or path.name == "network.py":
            digest.update(text)
    return digest.hexdigest()
