"""Reader of the Azure Functions trace of 2019 (Shahrad et al., ATC'20): how often each function ran in each minute.

One CSV file per day: HashOwner, HashApp, HashFunction, Trigger, 1, ..., 1440. The 14 public files hold
some 50,000 functions and more than 10^10 invocations in 2 GB of text, most of it zeros. So they are kept
as counts, sparse, until a selection of them is spread over its minutes and becomes a `Trace`.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from planner.files.names import value_of
from planner.model import InputError
from simulator.workload.lines import first_line, open_text, read_blocks
from simulator.workload.minute_table import parse_block
from simulator.workload.trace import Trace, chosen_functions, could_be_chosen

DAY = 1440
NAME_COLUMNS = ("HashOwner", "HashApp", "HashFunction", "Trigger")

# 4 bytes a call for the function, 8 for the time, and as much again while sorting: half a GiB.
MOST_CALLS = 20_000_000


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of a count file, without their zeros.

    Row i is the function ``function[i]`` and has ``filled[i]`` minutes with calls; ``minute`` (counted from the
    first file's beginning) and ``count`` list those of all rows, one row after the other.
    """

    function: NDArray[np.int32]
    filled: NDArray[np.int32]
    minute: NDArray[np.unsignedinteger]
    count: NDArray[np.unsignedinteger]


@dataclass(frozen=True, eq=False)
class MinuteCounts:
    """Calls per function and minute; ``functions`` as in `Trace`, ``parts`` in the order of the files."""

    parts: tuple[Rows, ...]
    functions: tuple[tuple[str, str], ...]
    source: str

    def calls_per_function(self) -> NDArray[np.int64]:
        """Return the number of invocations of each function."""
        total = np.zeros(len(self.functions), dtype=np.int64)
        for part in self.parts:
            calls = np.bincount(np.repeat(np.arange(len(part.filled)), part.filled), part.count, len(part.filled))
            np.add.at(total, part.function, calls.astype(np.int64))
        return total


def read_maf19(
    paths: Path | str | Sequence[Path | str],
    *,
    apps: Collection[str] | None = None,
    functions: Collection[str] | None = None,
    busiest: int | None = None,
    minutes: tuple[int, int] | None = None,
    progress: Callable[[int], None] | None = None,
) -> MinuteCounts:
    """Read daily count files in the MAF'19 schema, one day after the other.

    Parameters
    ----------
    paths
        A file, or the files of consecutive days.
    apps, functions, busiest
        Which functions to keep, as in `trace.select`.
    minutes
        Keep minutes [first, last), counted from 0 at the beginning of the first file. Files outside of them
        are not opened.
    progress
        Called with the number of rows read so far, now and then.

    Raises
    ------
    InputError
        A file cannot be read, its header differs, a count is negative, missing or not an integer (the
        message names the line), a name is unknown, or nothing is left.
    """
    files = [Path(path) for path in ([paths] if isinstance(paths, Path | str) else paths)]
    if not files:
        raise InputError("no MAF'19 file given; expected one CSV file per day")
    first, last = minutes or (0, DAY * len(files))
    if not 0 <= first < last:
        raise InputError(f"minutes: expected 0 <= first < last, got [{first}, {last})")
    parts: list[Rows] = []
    known: dict[tuple[str, str], int] = {}
    rows = 0
    for day, path in enumerate(files):
        start, end = max(first - day * DAY, 0), min(last - day * DAY, DAY)
        for names, peak, block in _read_day(path, start, end) if start < end else ():
            wanted = np.array([could_be_chosen(name, apps, functions) for name in names], dtype=bool)
            code = [
                known.setdefault(name, len(known)) if keep else -1 for name, keep in zip(names, wanted, strict=True)
            ]
            block = replace(block, function=np.array(code, np.int32), minute=block.minute + day * DAY)
            parts.append(_rows(block, wanted & (peak < 256), np.uint8))
            parts.append(_rows(block, wanted & (peak >= 256), np.uint32))
            rows += len(names)
            if progress:
                progress(rows)
    source = str(files[0]) if len(files) == 1 else f"{files[0]} and {len(files) - 1} more"
    return _select(MinuteCounts(tuple(parts), tuple(known), source), apps, functions, busiest)


def spread(counts: MinuteCounts, rng: np.random.Generator | None = None, *, keep: float = 1.0) -> Trace:
    """Turn counts into invocations: uniformly at random within their minute, or evenly where ``rng`` is None.

    Evenly puts c calls of a function at (1/2, 3/2, ...) · 60 s / c. With ``keep`` below 1 (which needs
    ``rng``) each call is kept with that probability, so that even the whole trace can be spread.

    Raises
    ------
    InputError
        More than 20 million calls would be kept.

    Examples
    --------
    >>> two = Rows(np.array([0, 1]), np.array([1, 1]), np.array([0, 2]), np.array([2, 1]))
    >>> spread(MinuteCounts((two,), (("a", "f"), ("a", "g")), "example")).times_s.tolist()
    [15.0, 45.0, 150.0]
    """
    if not 0 < keep <= 1 or (keep < 1 and rng is None):
        raise InputError(f"keep: expected a probability above 0 and at most 1, with a seed if below 1, got {keep}")
    calls = round(keep * int(counts.calls_per_function().sum()))
    if calls > MOST_CALLS:
        raise InputError(
            f"{counts.source}: {calls} calls are more than {MOST_CALLS} to spread; choose functions, applications, "
            f"fewer minutes, or keep a share of them (at most {keep * MOST_CALLS / calls:.2g})"
        )
    times: list[NDArray[np.float64]] = []
    codes: list[NDArray[np.int32]] = []
    for part in counts.parts:
        count = part.count.astype(np.int64)
        if rng is not None and keep < 1:
            count = rng.binomial(count, keep)
        within = _even(count) if rng is None else rng.random(int(count.sum()))
        times.append((np.repeat(part.minute.astype(np.float64), count) + within) * 60.0)
        codes.append(np.repeat(np.repeat(part.function, part.filled).astype(np.int32), count))
    times_s, function = np.concatenate(times), np.concatenate(codes)
    order = np.argsort(times_s, kind="stable")
    return Trace(times_s[order], function[order], counts.functions, counts.source, spread=True)


def _even(count: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the fractions (j + 1/2) / c for j < c, for every c in ``count``."""
    ends = np.cumsum(count)
    rank = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - count, count)
    return (rank + 0.5) / np.repeat(count, count)


def _read_day(path: Path, start: int, end: int) -> Iterator[tuple[list[tuple[str, str]], NDArray[np.uint32], Rows]]:
    """Yield some rows of a file at a time: their names (application, function), largest counts, and counts."""
    header = first_line(path).split(",")
    minutes = len(header) - len(NAME_COLUMNS)
    expected = [*NAME_COLUMNS, *map(str, range(1, minutes + 1))]
    if not 1 <= minutes <= DAY or header != expected:
        raise InputError(f"{path}: line 1: expected {', '.join(NAME_COLUMNS)}, 1, ..., {DAY}, got {header[:6]}")
    lines_before = 1
    for number, block in enumerate(read_blocks(path)):
        blank = len(block) - len(block.lstrip()) if number == 0 else 0  # lines before the header
        lines_before += block[:blank].count(b"\n")
        body = block[block.index(b"\n", blank) + 1 :] if number == 0 else block
        lines, name_at, filled, peak, minute, count = parse_block(np.frombuffer(body, np.uint8), minutes, start, end)
        if lines < 0:
            raise InputError(_bad_row(path, lines_before - lines, header))
        names = [
            (str(value_of(body[a:b].decode())), str(value_of(body[b + 1 : c].decode()))) for a, b, c in name_at.tolist()
        ]
        yield names, peak, Rows(np.arange(len(names), dtype=np.int32), filled, minute, count)
        lines_before += lines


def _rows(rows: Rows, kept: NDArray[np.bool_], count_type: type[np.unsignedinteger]) -> Rows:
    """Return some of the rows, their counts stored as ``count_type``."""
    entries = np.repeat(kept, rows.filled)
    chosen = slice(None) if entries.all() else entries  # rows without calls need no copy
    count = rows.count[chosen].astype(count_type, copy=False)
    return Rows(rows.function[kept], rows.filled[kept], rows.minute[chosen], count)


def _bad_row(path: Path, line: int, header: list[str]) -> str:
    """Return the message for a row that cannot be used."""
    with open_text(path) as lines:
        row = next(text for number, text in enumerate(lines, 1) if number == line).rstrip("\r\n").split(",")
    if len(row) != len(header):
        return f"{path}: line {line}: expected {len(header)} columns, got {len(row)}"
    column, value = next(
        (name, value)
        for name, value in list(zip(header, row, strict=True))[len(NAME_COLUMNS) :]
        if not (value.isascii() and value.isdecimal()) or len(value.lstrip("0")) > 10 or int(value) >= 2**31
    )
    return f"{path}: line {line}: minute {column}: expected an integer >= 0 and < 2^31, got {value[:40]!r}; correct it"


def _select(
    counts: MinuteCounts, apps: Collection[str] | None, functions: Collection[str] | None, busiest: int | None
) -> MinuteCounts:
    chosen = chosen_functions(counts.functions, apps, functions, counts.source)
    calls = np.where(chosen, counts.calls_per_function(), 0)
    if busiest is not None:
        chosen &= np.isin(np.arange(len(calls)), np.argsort(-calls, kind="stable")[:busiest])
    chosen &= calls > 0
    if not chosen.any():
        raise InputError(f"{counts.source}: no invocation is left after the selection; choose other functions or times")
    new_code = np.cumsum(chosen, dtype=np.int32) - 1
    parts = []
    for part in counts.parts:
        kept = chosen[part.function]
        rows = part if kept.all() else _rows(part, kept, part.count.dtype.type)
        parts.append(replace(rows, function=new_code[rows.function]))
    names = tuple(name for name, keep in zip(counts.functions, chosen, strict=True) if keep)
    return replace(counts, parts=tuple(parts), functions=names)
