"""Compiled code is kept where a folder can be written, and its loss never ends a run."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba.core import config

from planner import compilation, kept_code


@pytest.fixture(autouse=True)
def _said_nothing_yet() -> None:
    kept_code.say.cache_clear()
    kept_code.own_folder.cache_clear()


def run(**environment: str) -> subprocess.CompletedProcess[str]:
    # Of numba's places only the user's own is tried, and that is below a file: no place is left.
    nowhere = {"NUMBA_CACHE_DIR": "/dev/null/nowhere"}
    code = (
        "from numba.core import caching\n"
        "caching.CompileResultCacheImpl._locator_classes = [\n"
        "    one for one in caching.CompileResultCacheImpl._locator_classes if 'UserProvided' in one.__name__\n"
        "]\n"
        "import simulator.workload.minute_table\n"
        "import planner.planning\n"
        "import simulator.engine\n"
        "print('fine')\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code], env=os.environ | nowhere | environment, capture_output=True, text=True, check=True
    )


def test_temporary_folder_where_nothing_else_can_be_written(tmp_path: Path) -> None:
    done = run(TMPDIR=str(tmp_path))
    (folder,) = tmp_path.glob("poolpipe-numba-*")
    assert done.stdout == "fine\n"
    assert done.stderr.count("\n") == 1
    assert str(folder) in done.stderr
    assert "NUMBA_CACHE_DIR" in done.stderr
    assert folder.stat().st_mode & 0o077 == 0


def test_no_cache_where_the_temporary_folder_is_open_to_others(tmp_path: Path) -> None:
    folder = tmp_path / f"poolpipe-numba-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    done = run(TMPDIR=str(tmp_path))
    assert done.stdout == "fine\n"
    assert done.stderr.count("\n") == 1
    assert "is open to others" in done.stderr
    assert not list(folder.iterdir())


def test_broken_and_unwritable_caches_cost_time_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    config.reload_config()  # type: ignore[no-untyped-call]
    kept_code.say.cache_clear()  # another test may have made it say the same

    def thrice(number: int) -> int:
        return 3 * number

    assert compilation.compiled(thrice)(14) == 42
    (index,) = tmp_path.rglob("*.nbi")
    (code,) = tmp_path.rglob("*.nbc")
    kept = code.read_bytes()
    code.write_bytes(kept[:100])
    with caplog.at_level(logging.WARNING):
        assert compilation.compiled(thrice)(14) == 42  # made anew, and kept
    assert "cannot be read" in caplog.text
    index.unlink()
    index.mkdir()  # nothing can be written over it
    with caplog.at_level(logging.WARNING):
        assert compilation.compiled(thrice)(14) == 42
    assert "cannot be kept" in caplog.text


def test_code_that_checks_indices_is_kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("NUMBA_BOUNDSCHECK", raising=False)
    config.reload_config()  # type: ignore[no-untyped-call]

    def item(numbers: np.ndarray, k: int) -> int:
        return int(numbers[k])

    assert compilation.compiled(item)(np.arange(5), 4) == 4
    monkeypatch.setenv("NUMBA_BOUNDSCHECK", "1")
    for _ in range(2):  # made, and kept
        with pytest.raises(IndexError):
            compilation.compiled(item)(np.arange(5), 5)
