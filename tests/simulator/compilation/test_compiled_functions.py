"""Compiled functions called from Python, with and without numba."""

import ast
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from planner import kept_code
from simulator.compilation import compiled, compiled_apart, keeping
from simulator.compilation.kernels import OPTIONS, Kernel
from simulator.engine import accounts

POINT = np.dtype([("number", np.int32), ("far", np.float64)], align=True)


class Pair(NamedTuple):
    whole: np.ndarray
    points: np.ndarray


@compiled
def half_sum(pair: Pair, scale: float) -> float:
    """Add up, weighted by the numbers of points."""
    total = 0.0
    for k in range(len(pair.whole)):
        total += pair.whole[k] * pair.points[k].number + pair.points[k].far
    return scale * total


@compiled
def last_of(values: np.ndarray, negated: bool) -> tuple[int, bool, float]:
    """Return the last value, whether it is negated, and half of it."""
    value = values[values.shape[0] - 1, values.shape[1] - 1]
    return (-value if negated else value), negated, value / 2


@compiled
def fill_with(values: np.ndarray, value: int) -> None:
    """Fill."""
    for k in range(len(values)):
        values[k] = value


def test_results_of_all_sorts() -> None:
    values = np.arange(12).reshape(3, 4)
    assert last_of(values, False) == (11, False, 5.5)
    assert last_of(values[:, ::2], True) == (-10, True, 5.0)  # in steps: another kind
    assert last_of(values.T, np.bool_(False)) == (11, False, 5.5)  # columns first
    assert last_of(values.astype(np.int16), True) == (-11, True, 5.5)
    assert fill_with(values[:, 1], np.int32(7)) is None
    assert values[:, 1].tolist() == [7, 7, 7]
    fill_with(row := np.zeros(0, np.int64), 1)
    assert not len(row)


@compiled_apart
def move_on(pair: Pair, steps: int) -> int:
    """Move a number on, and the one that it names."""
    pair.points[steps].number = pair.points[0].number + steps
    return move_on_again(pair, 3)


@compiled
def move_on_again(pair: Pair, step: int) -> int:
    """Change an array of two dimensions beside it."""
    last = pair.whole.shape[1] - 1
    pair.whole[1, last] += step
    return int(pair.whole[1, last])


@compiled
def move_all(pair: Pair) -> int:
    """Read again what calls have changed."""
    before = pair.whole[1, 2]
    after = move_on(pair, 1) + move_on(pair, 2)
    return int(1000 * before + 10 * after + pair.whole[1, 2] + pair.points[2].number)


def test_named_tuples_are_passed_on_and_changed() -> None:
    pair = Pair(np.arange(6).reshape(2, 3), np.zeros(3, POINT))
    pair.points["number"] = 4
    assert move_all(pair) == 5000 + 10 * (8 + 11) + 11 + 6
    assert pair.whole.tolist() == [[0, 1, 2], [3, 4, 11]]
    assert pair.points["number"].tolist() == [4, 5, 6]
    for _ in range(2):  # of the arrays that there are now, not of those of the last call
        other = Pair(np.ones((2, 4), np.int64), np.zeros(9, POINT))
        assert move_all(other) == 1000 + 10 * (4 + 7) + 1 + 2
        assert other.whole[1].tolist() == [1, 1, 1, 7]


def test_read_only_arrays_are_read_only() -> None:
    values = np.arange(6).reshape(2, 3)
    values.flags.writeable = False
    assert last_of(values, True) == (-5, True, 2.5)
    with pytest.raises(Exception, match="[Rr]ead.?only"):
        fill_with(values[0], 1)
    assert values.tolist() == [[0, 1, 2], [3, 4, 5]]


def negative_indices(source: str) -> list[int]:
    """Return the lines on which compiled functions index from the end, which for them is before the beginning."""
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    marked = [each for each in functions if any("compiled" in ast.unparse(mark) for mark in each.decorator_list)]
    indices = [
        index
        for each in marked
        for node in ast.walk(each)
        if isinstance(node, ast.Subscript)
        for index in (node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice])
    ]
    return [k.lineno for k in indices if isinstance(k, ast.UnaryOp) and isinstance(k.op, ast.USub)]


def test_compiled_functions_count_from_the_beginning() -> None:
    assert negative_indices("@compiled\ndef last(x):\n    return x[0, -1] + x[-1]") == [3, 3]
    assert negative_indices("def last(x):\n    return x[-1]") == []
    sources = Path(accounts.__file__).parents[1].rglob("*.py")
    assert {str(path): lines for path in sources if (lines := negative_indices(path.read_text("utf-8")))} == {}


def test_whole_numbers_are_of_one_kind() -> None:
    @compiled
    def twice(number: int) -> int:
        return 2 * number

    assert twice(21) == twice(np.int64(21)) == twice(np.int16(21)) == 42
    assert twice(-(1 << 40)) == -(1 << 41)
    assert twice(1.5) == 3.0
    assert len(twice._entries) == 2  # type: ignore[attr-defined]


def test_named_tuples_are_told_apart_as_long_as_they_come_and_go() -> None:
    for size in range(1, 40):  # the next one often stands where the last one did
        points = np.zeros(2 * size, POINT)
        points["number"], points["far"] = 2, 0.25
        step = 1 + size % 2
        pair = Pair(np.arange(2 * size, dtype=np.int32 if size % 3 else np.int64)[::step], points[::step])
        expected = 0.5 * (2.0 * pair.whole.sum() + 0.25 * len(pair.whole))
        assert half_sum(pair, 0.5) == expected
        assert half_sum(pair, 0.5) == expected


def test_other_arguments_are_refused() -> None:
    with pytest.raises(TypeError, match="last_of: expected numbers, arrays and named tuples of arrays, got list"):
        last_of([[1]], False)  # type: ignore[arg-type]


# -- kept from one process to the next


@pytest.fixture
def _kept_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    keeping._place.cache_clear()
    kept_code.say.cache_clear()
    yield
    keeping._place.cache_clear()


def count() -> tuple[int, int]:
    count_batches = Kernel(accounts.count_batches.py_func, OPTIONS)  # type: ignore[attr-defined]
    size, end_us = np.array([2, 1], np.int16), np.array([30, 50])
    held: tuple[int, int] = count_batches(size, np.array([10, 20]), end_us, np.zeros(2, np.int32))
    return held


@pytest.mark.usefixtures("_kept_in")
def test_broken_and_unwritable_folders_cost_time_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    assert count() == (70, -1)
    (code,) = tmp_path.rglob("*.o")
    whole = code.read_bytes()
    for broken in (whole[:40], whole[:-1], whole[:200] + b"!" + whole[201:], b"", b"\xff" * 100):
        kept_code.say.cache_clear()
        caplog.clear()
        code.write_bytes(broken)
        assert count() == (70, -1)  # made anew, and kept
        assert "cannot be read" in caplog.text
        assert len(code.read_bytes()) == len(whole)
    code.unlink()
    code.parent.rmdir()
    code.parent.write_text("a file where the folder was")
    assert count() == (70, -1)
    assert "cannot be kept" in caplog.text
    assert code.parent.is_file()


@pytest.mark.usefixtures("_kept_in")
def test_code_of_earlier_sources_is_removed(tmp_path: Path) -> None:
    for age, name in enumerate("abcde"):
        folder = tmp_path / f"machine-code-{name}"
        folder.mkdir()
        os.utime(folder, (1000 - age, 1000 - age))
    count()
    folders = {folder.name for folder in tmp_path.iterdir()}
    assert len(folders) == keeping.SOURCES_KEPT
    assert {"machine-code-a", "machine-code-b", "machine-code-c"} < folders


def test_a_later_process_needs_no_numba(tmp_path: Path) -> None:
    script = (
        "import sys, numpy as np\n"
        "from simulator.engine.accounts import count_batches\n"
        "print(count_batches(np.array([2], np.int16), np.array([1]), np.array([5]), np.zeros(1, np.int32)))\n"
        "print('numba' in sys.modules)"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    for compiles in (True, False):
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout == f"(8, -1)\n{compiles}\n"
        assert done.stderr.count("\n") == compiles  # what takes so long
        assert ("compiling for this processor" in done.stderr) == compiles


def test_code_that_checks_indices_is_kept_apart(tmp_path: Path) -> None:
    script = (
        "import numpy as np\n"
        "from simulator.engine.accounts import count_batches\n"
        "end_us = np.array({}, np.int64)\n"
        "print(count_batches(np.array([2], np.int16), np.array([1]), end_us, np.zeros(1, np.int32)))\n"
    )
    for checks, end_us, printed in (("0", [5], "(8, -1)\n"), ("1", [], "")):  # the second batch has no end
        environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_BOUNDSCHECK": checks}
        done = subprocess.run(
            [sys.executable, "-c", script.format(end_us)], env=environment, capture_output=True, text=True
        )
        assert done.stdout == printed
    assert "RuntimeError: compiled code: an exception" in done.stderr
