"""The runtime library itself, imported where it is used, and quiet wherever it runs."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType


@cache
def onnxruntime() -> ModuleType:
    """Return onnxruntime, which sends no telemetry.

    It keeps an identifier for that in the user's cache as it is imported, and warns on standard error where it cannot:
    under a read-only HOME it gets a temporary folder for the moment.
    """
    cache_folder = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    with _other_cache() if not _can_write(cache_folder) else nullcontext():
        library = import_module("onnxruntime")
        if hasattr(library, "disable_telemetry_events"):
            library.disable_telemetry_events()
    return library


@contextmanager
def _other_cache() -> Iterator[None]:
    before = os.environ.pop("XDG_CACHE_HOME", None)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        try:
            yield
        finally:
            del os.environ["XDG_CACHE_HOME"]
            if before is not None:
                os.environ["XDG_CACHE_HOME"] = before


def _can_write(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
