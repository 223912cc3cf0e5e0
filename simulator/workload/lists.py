"""Readers of plain arrival lists, one line per request, and the one call that recognises a file's schema.

A list is sorted; one that is not is refused unless ``sort`` is set, because disorder often means that a
column was taken for another. Adding a format is one entry in `LISTS`.
"""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from planner.model import InputError
from simulator.workload.arrivals import ABSURD_S
from simulator.workload.lines import first_line, open_text, time_problem
from simulator.workload.maf19 import NAME_COLUMNS, MinuteCounts, Rows, read_maf19, spread
from simulator.workload.maf21 import MAF21_COLUMNS, read_maf21
from simulator.workload.trace import Trace


@dataclass(frozen=True)
class ListFormat:
    """How one kind of list is laid out.

    ``header`` is its first line (None: it has none), ``time`` the column of the arrival, ``function`` that of
    the function called (None: all requests are alike), ``per_second`` the time column's units in a second
    (None: dates such as ``2023-11-16 18:15:46.68``, counted from the first).
    """

    header: tuple[str, ...] | None
    time: int
    function: int | None
    per_second: float | None


LISTS = {
    "arrival-us": ListFormat(("arrival_us",), 0, None, 1e6),
    "arrival-ms": ListFormat(("arrival_ms",), 0, None, 1e3),
    "arrival-s": ListFormat(("arrival_s",), 0, None, 1.0),
    "function-ms": ListFormat(("func_name", "invoke_time_ms"), 1, 0, 1e3),
    "azure-llm": ListFormat(("TIMESTAMP", "ContextTokens", "GeneratedTokens"), 0, None, None),
    "ms-query": ListFormat(None, 0, None, 1e3),
}
SCHEMAS = ("maf21", "maf19", "minute-counts", *LISTS)


def read_trace(
    path: Path | str,
    *,
    schema: str = "auto",
    sort: bool = False,
    minute_rng: np.random.Generator | None = None,
    progress: Callable[[int], None] | None = None,
) -> Trace:
    """Read a trace in any of the schemas (`SCHEMAS`).

    Parameters
    ----------
    schema
        ``auto`` looks at the first line. A single column of numbers without a header is ambiguous: say
        ``minute-counts`` (calls per minute of one function) or give it a header (arrival_us, arrival_ms, arrival_s).
    sort
        Sort a plain list instead of refusing disorder. The MAF schemas are always sorted.
    minute_rng
        Spreads counts per minute at random; evenly without it.
    progress
        Called with the number of rows read so far, now and then.

    Raises
    ------
    InputError
        The schema is unknown or cannot be recognised, or the file is not as its schema says.
    """
    path = Path(path)
    schema = recognise(path) if schema == "auto" else schema
    if schema == "maf21":
        return read_maf21(path, progress)
    if schema == "maf19":
        return spread(read_maf19(path, progress=progress), minute_rng)
    if schema == "minute-counts":
        return spread(read_minute_counts(path), minute_rng)
    if schema not in LISTS:
        raise InputError(f"schema: expected auto, {', '.join(SCHEMAS)}, got {schema!r}")
    return read_list(path, LISTS[schema], sort=sort)


def recognise(path: Path) -> str:
    """Return the name of the schema that a file's first line shows; raises InputError."""
    columns = next(csv.reader([first_line(path)]))
    if set(MAF21_COLUMNS) <= set(columns):
        return "maf21"
    if tuple(columns[:4]) == NAME_COLUMNS:
        return "maf19"
    for name, known in LISTS.items():
        if known.header is not None and tuple(columns[: len(known.header)]) == known.header:
            return name
    if len(columns) == 2 and not time_problem(columns[0]):
        return "ms-query"
    raise InputError(
        f"{path}: line 1: expected the header of a known schema ({', '.join(SCHEMAS)}), got {','.join(columns)[:60]!r}"
        "; name the schema (--schema), or give the list the header arrival_us, arrival_ms or arrival_s"
    )


def read_list(path: Path, layout: ListFormat, *, sort: bool = False) -> Trace:
    """Read a plain arrival list; raises InputError that names the line."""
    times: list[float] = []
    codes: list[int] = []
    known: dict[str, int] = {}
    with open_text(path) as lines:
        rows = csv.reader(lines)
        if layout.header is not None and tuple(next(rows, [])[: len(layout.header)]) != layout.header:
            raise InputError(f"{path}: line 1: expected the header {','.join(layout.header)}")
        for row in rows:
            if not row:
                continue
            where = f"{path}: line {rows.line_num}"
            if len(row) <= max(layout.time, layout.function or 0):
                raise InputError(f"{where}: expected at least {max(layout.time, layout.function or 0) + 1} columns")
            time_s = _seconds(row[layout.time], layout.per_second, where)
            if times and time_s < times[-1] and not sort:
                got = row[layout.time]
                raise InputError(
                    f"{where}: {got} is earlier than the line before; sort the list, or read it with --sort"
                )
            times.append(time_s)
            name = "" if layout.function is None else row[layout.function]
            codes.append(known.setdefault(name, len(known)))
    if not times:
        raise InputError(f"{path}: line 2: the list has no arrivals; expected at least one")
    times_s, function = np.array(times), np.array(codes, dtype=np.int32)
    order = np.argsort(times_s, kind="stable")
    if layout.per_second is None:
        times_s = times_s - times_s.min()
    return Trace(times_s[order], function[order], tuple(("", name) for name in known), str(path))


def _seconds(text: str, per_second: float | None, where: str) -> float:
    if per_second is None:
        try:
            return datetime.fromisoformat(text[:26]).replace(tzinfo=UTC).timestamp()
        except ValueError:
            raise InputError(f"{where}: expected a date such as 2023-11-16 18:15:46.68, got {text!r}") from None
    problem = time_problem(text, ABSURD_S * per_second)
    if problem:
        raise InputError(f"{where}: {problem}")
    return float(text) / per_second


def read_minute_counts(path: Path) -> MinuteCounts:
    """Read calls per minute of one function, a number a line; raises InputError that names the line."""
    counts: list[int] = []
    with open_text(path) as lines:
        for number, line in enumerate(lines, 1):
            text = line.strip()
            if not text.isdecimal() or int(text) >= 2**31:
                raise InputError(f"{path}: line {number}: expected an integer >= 0, got {text!r}; correct it")
            counts.append(int(text))
    count = np.array(counts, dtype=np.uint32)
    (minute,) = np.nonzero(count)
    if not len(minute):
        raise InputError(f"{path}: {len(counts)} minutes without a call; expected at least one")
    filled = np.array([len(minute)], dtype=np.int32)
    rows = Rows(np.zeros(1, np.int32), filled, minute.astype(np.uint32), count[minute])
    return MinuteCounts((rows,), (("", path.stem),), str(path))
