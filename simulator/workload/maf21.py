"""Readers of the Azure Functions traces of 2021 (this module) and 2019 (`maf19`).

MAF'21 (Zhang et al., SOSP'21): one CSV row per invocation: app, func, end_timestamp, duration, both in
seconds. An invocation starts at end - duration. Rows are in no particular order.
"""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from planner.files.names import value_of
from planner.model import InputError
from simulator.workload.arrivals import ABSURD_S
from simulator.workload.lines import open_bytes, open_text, require_header, time_problem
from simulator.workload.trace import Trace, from_arrivals

MAF21_COLUMNS = ("app", "func", "end_timestamp", "duration")

# The published timestamps are rounded to ms in places: a start may lie so much before 0 and then counts as 0.
ROUNDING_S = 1e-3

Progress = Callable[[int], None]


def read_maf21(path: Path | str, progress: Progress | None = None) -> Trace:
    """Read a trace in the MAF'21 schema (plain or gzip), sorted by start time.

    The full public file (305 MB, 1,980,951 invocations) takes seconds and a few hundred megabytes.

    Parameters
    ----------
    path
        The CSV file.
    progress
        Called with the number of rows read so far, now and then.

    Raises
    ------
    InputError
        The file cannot be read, its header differs, it is empty, or a row has a negative, missing,
        non-numeric or absurd time; the message names the line.
    """
    path = Path(path)
    require_header(path, MAF21_COLUMNS)
    starts: list[NDArray[np.float64]] = []
    codes: list[NDArray[np.int32]] = []
    known: dict[tuple[str, str], int] = {}
    rows = 0
    try:
        for batch in _batches(path):
            end_s, duration_s = (batch.column(name).to_numpy(zero_copy_only=False) for name in MAF21_COLUMNS[2:])
            start_s = end_s - duration_s
            if not _all_usable(start_s, end_s, duration_s):
                raise InputError(_first_bad_row(path))
            starts.append(np.maximum(start_s, 0.0))
            codes.append(_function_codes(batch, known))
            rows += len(start_s)
            if progress:
                progress(rows)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(_first_bad_row(path, str(error))) from None
    if not rows:
        raise InputError(f"{path}: line 2: the trace has no rows; expected at least one invocation")
    return from_arrivals(np.concatenate(starts), np.concatenate(codes), tuple(known), str(path))


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    names = pa.dictionary(pa.int32(), pa.string())
    types = dict(zip(MAF21_COLUMNS, (names, names, pa.float64(), pa.float64()), strict=True))
    with (
        open_bytes(path) as file,
        pacsv.open_csv(
            file,
            read_options=pacsv.ReadOptions(block_size=8 << 20),
            convert_options=pacsv.ConvertOptions(column_types=types, include_columns=list(MAF21_COLUMNS)),
        ) as reader,
    ):
        yield from reader


def _all_usable(start_s: NDArray[np.float64], end_s: NDArray[np.float64], duration_s: NDArray[np.float64]) -> bool:
    """Say whether every time is a number in range; NaN fails every comparison."""
    return bool(np.all((start_s >= -ROUNDING_S) & (duration_s >= 0) & (end_s >= 0) & (end_s <= ABSURD_S)))


def _function_codes(batch: pa.RecordBatch, known: dict[tuple[str, str], int]) -> NDArray[np.int32]:
    """Return each row's function index; names not met before are added to ``known`` in their order."""
    app, func = (batch.column(name) for name in MAF21_COLUMNS[:2])
    app_names, func_names = app.dictionary.to_pylist(), func.dictionary.to_pylist()
    pair = app.indices.to_numpy().astype(np.int64) * len(func_names) + func.indices.to_numpy()
    pairs, first, inverse = np.unique(pair, return_index=True, return_inverse=True)
    code = np.empty(len(pairs), dtype=np.int32)
    for index in np.argsort(first):
        app_index, func_index = divmod(int(pairs[index]), len(func_names))
        name = str(value_of(app_names[app_index])), str(value_of(func_names[func_index]))
        code[index] = known.setdefault(name, len(known))
    return code[inverse]


def _first_bad_row(path: Path, reason: str = "") -> str:
    """Return the message for the first row that cannot be used, read again line by line."""
    with open_text(path) as lines:
        rows = csv.reader(lines)
        columns = next(row for row in rows if row)
        end, duration = columns.index("end_timestamp"), columns.index("duration")
        for row in rows:
            if not row:
                continue
            where = f"{path}: line {rows.line_num}"
            if len(row) != len(columns):
                return f"{where}: expected {len(columns)} columns ({', '.join(columns)}), got {len(row)}"
            for column in (end, duration):
                problem = time_problem(row[column])
                if problem:
                    return f"{where}: {columns[column]}: {problem}"
            if float(row[end]) - float(row[duration]) < -ROUNDING_S:
                return (
                    f"{where}: the invocation starts at {float(row[end]) - float(row[duration]):.6g} s (end_timestamp "
                    "- duration); expected a time >= 0; shift the trace or drop the row"
                )
    return f"{path}: cannot be read as CSV ({reason.splitlines()[0] if reason else 'unknown reason'})"
