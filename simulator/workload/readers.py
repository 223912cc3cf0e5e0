"""The one call that reads a trace in any schema, and recognises which it is."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from planner.model import InputError
from simulator.workload.lines import first_line, readable, time_problem
from simulator.workload.lists import LISTS, MOONCAKE, UNITS, ListFormat, read_list, read_minute_counts
from simulator.workload.maf19 import NAME_COLUMNS, read_maf19, spread
from simulator.workload.maf21 import MAF21_COLUMNS, read_maf21
from simulator.workload.trace import Trace

SCHEMAS = ("maf21", "maf19", "minute-counts", *LISTS, "mooncake")


def read_trace(
    path: Path | str,
    *,
    schema: str = "auto",
    time_column: str | None = None,
    unit: str = "s",
    sort: bool = False,
    minute_rng: np.random.Generator | None = None,
    progress: Callable[[int], None] | None = None,
) -> Trace:
    """Read a trace in any of the schemas (`SCHEMAS`).

    Parameters
    ----------
    path
        A file, gzipped or not, a pipe, or ``-`` for standard input.
    schema
        ``auto`` looks at the first line. A single column of numbers without a header is ambiguous: say
        ``minute-counts`` (calls per minute of one function) or give it a header (arrival_us, arrival_ms, arrival_s).
    time_column, unit
        Instead of a schema: the column of any CSV file that has the arrivals, in us, ms, s, or as dates.
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
    with readable(path) as file:
        trace = _read(file, schema, time_column, unit, sort, minute_rng, progress)
    return replace(trace, source=str(path))


def _read(
    path: Path,
    schema: str,
    time_column: str | None,
    unit: str,
    sort: bool,
    minute_rng: np.random.Generator | None,
    progress: Callable[[int], None] | None,
) -> Trace:
    if unit not in UNITS:
        raise InputError(f"unit: expected one of {', '.join(UNITS)}, got {unit!r}")
    if time_column is not None:
        if schema != "auto":
            raise InputError(f"a time column is for files of no schema; leave out the schema {schema} or the column")
        return read_list(path, ListFormat((time_column,), time_column, unit), sort=sort)
    schema = recognise(path) if schema == "auto" else schema
    if schema == "maf21":
        return read_maf21(path, progress)
    if schema == "maf19":
        return spread(read_maf19(path, progress=progress), minute_rng)
    if schema == "minute-counts":
        return spread(read_minute_counts(path), minute_rng)
    if schema == "mooncake":
        return read_list(path, MOONCAKE, sort=sort)
    if schema not in LISTS:
        raise InputError(f"schema: expected auto, {', '.join(SCHEMAS)}, got {schema!r}")
    return read_list(path, LISTS[schema], sort=sort)


def recognise(path: Path) -> str:
    """Return the name of the schema that a file's first line shows; raises InputError."""
    line = first_line(path)
    if _is_mooncake(line):
        return "mooncake"
    columns = next(csv.reader([line]))
    if set(MAF21_COLUMNS) <= set(columns):
        return "maf21"
    if tuple(columns[:4]) == NAME_COLUMNS:
        return "maf19"
    for name, known in LISTS.items():
        if known.columns and set(known.columns) <= {column.strip() for column in columns}:
            return name
    if len(columns) == 2 and not time_problem(columns[0]):
        if "." in columns[0]:
            return "ms-query"
        raise InputError(
            f"{path}: line 1: {line[:40]!r} may be one number or two; if it is a time in ms and a query, say --schema "
            "ms-query, else give the list a header (arrival_us, arrival_ms or arrival_s) and numbers without commas"
        )
    raise InputError(
        f"{path}: line 1: expected the header of a known schema ({', '.join(SCHEMAS)}), got {','.join(columns)[:60]!r}"
        "; name the schema (--schema) or the column of the arrivals (--time-column), or give the list the header "
        "arrival_us, arrival_ms or arrival_s"
    )


def _is_mooncake(line: str) -> bool:
    try:
        return line.startswith("{") and MOONCAKE.time in json.loads(line)
    except (ValueError, RecursionError):
        return False
