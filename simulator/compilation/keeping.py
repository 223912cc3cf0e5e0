"""Machine code on disk: a file for a function and kinds of arguments, in a folder for the source it was made of."""

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from planner.kept_code import checks, own_folder, reason, require_writable, say, say_nowhere, say_temporary
from simulator.compilation.kinds import Kind
from simulator.compilation.loading import MachineCode, processor

PACKAGE = Path(__file__).parents[1]
FOLDERS = "dispatch", "engine", "compilation"  # where compiled functions are, and what makes their code
SOURCES_KEPT = 4  # earlier ones may be in use still


def kept(function: Callable[..., object], kinds: Sequence[Kind]) -> MachineCode | None:
    """Return the code of a function that an earlier process has made, or None."""
    if (path := _path(function, kinds)) is None:
        return None
    try:
        head, object_file = path.read_bytes().split(b"\n", 1)
        digest, results, single = head.decode().split(" ")
        if digest != hashlib.sha256(object_file).hexdigest():
            raise ValueError("it was cut off or changed")
        return MachineCode(results, single == "single", object_file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        say(f"compiled code in {path} cannot be read ({reason(error)}) and is made anew")
        return None


def keep(function: Callable[..., object], kinds: Sequence[Kind], code: MachineCode) -> None:
    """Keep code for later processes where that is possible."""
    if (path := _path(function, kinds)) is None:
        return
    digest = hashlib.sha256(code.object_file).hexdigest()
    head = f"{digest} {code.results} {'single' if code.single else 'tuple'}\n"
    temporary = None
    try:
        if not path.parent.exists():
            _forget_earlier_sources(path.parent.parent)
            path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as stream:
            temporary = Path(stream.name)
            stream.write(head.encode() + code.object_file)
        temporary.replace(path)
    except OSError as error:
        say(f"compiled code cannot be kept in {path.parent} ({reason(error)})")
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink()


def _path(function: Callable[..., object], kinds: Sequence[Kind]) -> Path | None:
    """Return the file of a function; None if it is not of this package, or there is no folder that can be written."""
    if not Path(function.__code__.co_filename).is_relative_to(PACKAGE) or (place := _place()) is None:
        return None
    digest = hashlib.sha256("\n".join(map(str, kinds)).encode()).hexdigest()[:16]
    name = f"{function.__module__}.{function.__qualname__}"
    return place / f"machine-code-{_source()}" / f"{name}-{digest}.o"


@cache
def _place() -> Path | None:
    """Return where the folders are: as for numba, a named place, beside the modules, or in the user's cache."""
    named = os.environ.get("NUMBA_CACHE_DIR")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    for place in [*([Path(named)] if named else []), PACKAGE / "__pycache__", home / "poolpipe"]:
        try:
            require_writable(place)
        except OSError:
            continue
        return place
    try:
        place = own_folder()
    except OSError as error:
        say_nowhere(error)
        return None
    say_temporary()
    return place


@cache
def _source() -> str:
    """Return a hash of what machine code is made of: functions, numbers of rules, tools, checks, the processor."""
    digest = hashlib.sha256(f"{sys.implementation.cache_tag} {checks()} {processor()}".encode())
    for tool in ("numba", "llvmlite"):
        spec = find_spec(tool)
        assert spec is not None
        assert spec.origin is not None
        digest.update(Path(spec.origin).with_name("_version.py").read_bytes())
    for folder in FOLDERS:
        for path in sorted((PACKAGE / folder).rglob("*.py")):
            text = path.read_bytes()
            if folder != "engine" or b"@compiled" in text or path.name == "network.py":
                digest.update(text)
    return digest.hexdigest()[:16]


def _forget_earlier_sources(place: Path) -> None:
    """Remove the code of all but the latest sources."""
    folders = sorted(place.glob("machine-code-*"), key=lambda folder: folder.stat().st_mtime)
    for folder in folders[: 1 - SOURCES_KEPT]:
        shutil.rmtree(folder, ignore_errors=True)
