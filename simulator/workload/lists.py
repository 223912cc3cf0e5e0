"""Readers of plain arrival lists, one line per request.

A list is sorted; one that is not is refused unless ``sort`` is set, because disorder often means that a
column was taken for another. Adding a format of columns is one entry in `LISTS`.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from planner.files.names import value_of
from planner.model import InputError
from simulator.workload.arrivals import ABSURD_S
from simulator.workload.lines import first_line, open_text, time_problem
from simulator.workload.maf19 import MinuteCounts, Rows
from simulator.workload.trace import Trace, from_arrivals

UNITS = {"us": 1e6, "ms": 1e3, "s": 1.0, "date": None}


@dataclass(frozen=True)
class ListFormat:
    """How one kind of list is laid out.

    ``columns`` are those that its header has, among others (empty: two columns without a header); ``time`` is the
    column of the arrival, ``function`` that of the function called (None: all requests are alike); ``unit`` of the time
    is one of `UNITS`, a date being such as ``2023-11-16 18:15:46.68`` or ``2023-11-16T19:15:46+01:00``.
    """

    columns: tuple[str, ...]
    time: str
    unit: str
    function: str | None = None


LISTS = {
    "arrival-us": ListFormat(("arrival_us",), "arrival_us", "us"),
    "arrival-ms": ListFormat(("arrival_ms",), "arrival_ms", "ms"),
    "arrival-s": ListFormat(("arrival_s",), "arrival_s", "s"),
    "function-ms": ListFormat(("func_name", "invoke_time_ms"), "invoke_time_ms", "ms", "func_name"),
    "azure-llm": ListFormat(("TIMESTAMP", "ContextTokens", "GeneratedTokens"), "TIMESTAMP", "date"),
    "burstgpt": ListFormat(("Timestamp", "Model", "Request tokens"), "Timestamp", "s", "Model"),
    "vidur": ListFormat(("arrived_at", "num_prefill_tokens"), "arrived_at", "s"),
    "ms-query": ListFormat((), "0", "ms"),
}
MOONCAKE = ListFormat(("timestamp",), "timestamp", "ms")  # a JSON object a line


def read_list(path: Path, layout: ListFormat, *, sort: bool = False) -> Trace:
    """Read a plain arrival list; raises InputError that names the line."""
    times: list[float] = []
    codes: list[int] = []
    known: dict[str, int] = {}
    with_offset: bool | None = None
    for where, got, name in _json_rows(path, layout) if layout is MOONCAKE else _csv_rows(path, layout):
        per_second = UNITS[layout.unit]
        if per_second is None:
            time_s, has_offset = _date_s(got, where)
            if with_offset not in (None, has_offset):
                raise InputError(f"{where}: {got!r}: expected a UTC offset on every date or on none; correct the dates")
            with_offset = has_offset
        elif problem := time_problem(got, ABSURD_S * per_second):
            raise InputError(f"{where}: {problem}")
        else:
            time_s = float(got) / per_second
        if times and time_s < times[-1] and not sort:
            raise InputError(f"{where}: {got} is earlier than the line before; sort the list, or read it with --sort")
        times.append(time_s)
        codes.append(known.setdefault(name, len(known)))
    if not times:
        raise InputError(f"{path}: line 2: the list has no arrivals; expected at least one")
    functions = tuple(("", name) for name in known)
    return from_arrivals(np.array(times), np.array(codes, dtype=np.int32), functions, str(path))


def _csv_rows(path: Path, layout: ListFormat) -> Iterator[tuple[str, str, str]]:
    """Yield the place, the time and the function of every row; rows of other lengths than the header's are refused."""
    first = first_line(path) if layout.columns else ""
    separator = ";" if ";" in first and "," not in first else ","  # as spreadsheets write it in many countries
    with open_text(path) as lines:
        rows = csv.reader(lines, delimiter=separator)
        header = ["0", "1"] if not layout.columns else next((row for row in rows if row), [])
        header = [name.strip() for name in header]
        missing = [name for name in layout.columns if name not in header]
        if missing and layout.columns:
            raise InputError(
                f"{path}: line {rows.line_num}: expected the columns {', '.join(layout.columns)}; "
                f"{', '.join(missing)} missing"
            )
        time = header.index(layout.time)
        function = None if layout.function is None else header.index(layout.function)
        try:
            for row in rows:
                if not any(row):
                    continue
                where = f"{path}: line {rows.line_num}"
                if len(row) != len(header):
                    raise InputError(
                        f"{where}: expected {len(header)} column{'s' * (len(header) > 1)}, got {len(row)} "
                        f"({','.join(row)[:60]}); numbers have no commas, texts with commas need quotes"
                    )
                yield where, row[time], "" if function is None else str(value_of(row[function]))
        except csv.Error as error:
            raise InputError(f"{path}: line {rows.line_num}: cannot be read as CSV ({error})") from None


def _json_rows(path: Path, layout: ListFormat) -> Iterator[tuple[str, str, str]]:
    """Yield the place and the time of every line, each a JSON object."""
    with open_text(path) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{path}: line {number}"
            try:
                time = json.loads(line, parse_int=str, parse_float=str)[layout.time]
            except (ValueError, TypeError, RecursionError):
                raise InputError(f"{where}: expected a JSON object with {layout.time!r}, got {line[:40]!r}") from None
            except KeyError:
                raise InputError(f"{where}: has no {layout.time!r}; add it or drop the line") from None
            yield where, str(time), ""


def _date_s(text: str, where: str) -> tuple[float, bool]:
    """Return a date as Unix time, and whether it has a UTC offset; without one it is taken as UTC."""
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise InputError(f"{where}: expected a date such as 2023-11-16 18:15:46.68, got {text[:40]!r}") from None
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC).timestamp(), False
    return moment.timestamp(), True


def read_minute_counts(path: Path) -> MinuteCounts:
    """Read calls per minute of one function, a number a line; raises InputError that names the line."""
    with open_text(path) as lines:
        texts = [line.strip() for line in lines]
    begin = next((number for number, text in enumerate(texts) if text), 0)
    end = next((number for number in range(len(texts), 0, -1) if texts[number - 1]), 0)
    counts: list[int] = []
    for number, text in enumerate(texts[begin:end], begin + 1):
        if not (text.isascii() and text.isdecimal()) or len(text.lstrip("0")) > 10 or int(text) >= 2**31:
            raise InputError(f"{path}: line {number}: expected an integer >= 0, got {text[:40]!r}; correct it")
        counts.append(int(text))
    count = np.array(counts, dtype=np.uint32)
    (minute,) = np.nonzero(count)
    if not len(minute):
        raise InputError(f"{path}: {len(counts)} minutes without a call; expected at least one")
    filled = np.array([len(minute)], dtype=np.int32)
    rows = Rows(np.zeros(1, np.int32), filled, minute.astype(np.uint32), count[minute])
    return MinuteCounts((rows,), (("", path.stem),), str(path))
