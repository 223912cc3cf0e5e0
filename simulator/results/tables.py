"""Records as files: a row per request, CSV or Parquet.

Columns: request, arrival_us, deadline_us, outcome, pipeline, then for every stage position s the batch (number,
size, slice) and its times: ``stage0_batch, stage0_size, stage0_slice, stage0_arrive_us, stage0_start_us,
stage0_end_us, stage1_batch, ...``; empty where the request got no further. Inferences that a failure cut short, which
no request belongs to any more, follow as rows without a request, outcome *interrupted*, size 0. Written in pieces of
`PIECE` rows, so that memory stays flat.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray

from planner.files.atomic import replacing
from planner.files.names import cell, value_of
from planner.model import InputError
from simulator.dispatch.decisions import OUTCOMES
from simulator.dispatch.system import System
from simulator.results.records import Records, Visits

PIECE = 250_000
INTERRUPTED = "interrupted"
VISIT_COLUMNS = ("size", "slice", "arrive_us", "start_us", "end_us")


def write_records(records: Records, path: Path) -> None:
    """Write a run's records in one step; the suffix, .csv or .parquet, says how.

    Raises
    ------
    InputError
        Another suffix, or the folder cannot be written.
    """
    schema = _schema(len(records.visits), answered=records.answered_us is not None)
    with replacing(path) as temporary, temporary.open("wb") as file:  # pyarrow takes paths for UTF-8
        if path.suffix == ".parquet":
            with pa.parquet.ParquetWriter(file, schema) as parquet:
                for piece in _pieces(records, schema):
                    parquet.write_table(piece)
        elif path.suffix == ".csv":
            with pa.csv.CSVWriter(file, schema) as text:
                for piece in _pieces(records, schema):
                    text.write_table(piece)
        else:
            raise InputError(f"{path}: expected a name that ends in .csv or .parquet")


def write_table(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write rows that name their columns in one step; the suffix, .parquet or another (CSV), says how."""
    table = pd.DataFrame(rows)
    with replacing(path) as temporary, temporary.open("wb") as file:
        if path.suffix == ".parquet":
            table.to_parquet(file, index=False)
        else:
            as_cells(table).to_csv(file, index=False)


def as_cells(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table as its texts stand in a CSV file, those that name columns too."""
    return table.map(cell).rename(columns=cell)


def read_table(path: Path) -> pd.DataFrame:
    """Read what `write_table` wrote; a text such as ``NA`` is a name, not a blank."""
    if path.suffix == ".parquet":
        return pd.read_parquet(io.BytesIO(path.read_bytes()))
    table = pd.read_csv(path, keep_default_na=False, na_values=[""])
    texts = table.select_dtypes(exclude="number").columns
    table[texts] = table[texts].map(value_of)
    return table.rename(columns=value_of)


def read_records(path: Path, system: System) -> Records:
    """Read what `write_records` wrote about a run of ``system``, exactly as it was.

    Raises
    ------
    InputError
        The file cannot be read, or its columns are others.
    """
    try:
        with path.open("rb") as file:
            table = pa.parquet.read_table(file) if path.suffix == ".parquet" else pa.csv.read_csv(file)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path}: cannot read records there ({error}); expected a .csv or .parquet file") from None
    answered = "answered_us" in table.column_names
    expected = _schema(system.max_stages, answered).names
    if table.column_names != expected:
        raise InputError(f"{path}: expected the columns {expected}, got {table.column_names}")

    def column(name: str) -> NDArray[np.int64]:
        numbers: NDArray[np.int64] = table[name].fill_null(-1).to_numpy().astype(np.int64)
        return numbers

    codes = {outcome: code for code, outcome in enumerate(OUTCOMES)}
    pipeline = column("pipeline")
    requests = table.num_rows - table["request"].null_count
    visit, visits = [], []
    for s in range(system.max_stages):
        batch = column(f"stage{s}_batch")
        first = np.flatnonzero(batch >= 0)
        numbers, place = np.unique(batch[first], return_index=True)
        first = first[place]
        dense = np.full(int(batch.max(initial=-1)) + 2, -1)
        dense[numbers] = np.arange(len(numbers))
        visit.append(dense[batch[:requests]].astype(np.int32))
        size, slices, arrive_us, start_us, end_us = (column(f"stage{s}_{name}")[first] for name in VISIT_COLUMNS)
        pipelines = pipeline[first].astype(np.int16)
        visits.append(Visits(pipelines, size.astype(np.int16), slices.astype(np.int16), arrive_us, start_us, end_us))
    outcome = np.array([codes[text] for text in table["outcome"].slice(0, requests).to_pylist()], np.int8)
    answered_us = column("answered_us")[:requests] if answered else None
    return Records(system, "file", column("arrival_us")[:requests], outcome, tuple(visit), tuple(visits), answered_us)


def _schema(stages: int, answered: bool = False) -> pa.Schema:
    """Return the columns; real runs have one more, when requesters had their answers."""
    times = {"request": pa.int64(), "arrival_us": pa.int64(), "deadline_us": pa.int64()}
    fields = {**times, "outcome": pa.string(), "pipeline": pa.int16()}
    for s in range(stages):
        fields[f"stage{s}_batch"] = pa.int32()
        fields |= {f"stage{s}_{name}": pa.int64() if name.endswith("_us") else pa.int16() for name in VISIT_COLUMNS}
    if answered:
        fields["answered_us"] = pa.int64()
    return pa.schema(fields)


def _pieces(records: Records, schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the rows, `PIECE` requests at a time, then the inferences that were cut short."""
    names = np.array(OUTCOMES)
    for first in range(0, len(records), PIECE):
        here = slice(first, min(first + PIECE, len(records)))
        arrival_us = records.arrival_us[here]
        reached = records.visit[0][here] >= 0
        columns = [
            pa.array(np.arange(here.start, here.stop)),
            pa.array(arrival_us),
            pa.array(arrival_us + records.system.slo_us),
            pa.array(names[records.outcome[here]]),
            _masked(records.visits[0].pipeline, records.visit[0][here], reached),
        ]
        for visit, visits in zip(records.visit, records.visits, strict=True):
            batch = visit[here]
            reached = batch >= 0
            columns.append(pa.array(batch, mask=~reached))
            columns += [_masked(getattr(visits, name), batch, reached) for name in VISIT_COLUMNS]
        if records.answered_us is not None:
            answered_us = records.answered_us[here]
            columns.append(pa.array(answered_us, mask=answered_us < 0))
        yield pa.Table.from_arrays(columns, schema=schema)
    cut = np.flatnonzero(records.visits[0].size == 0).astype(np.int32)
    if len(cut):
        there = np.ones(len(cut), np.bool_)
        columns = [pa.nulls(len(cut), pa.int64())] * 3 + [pa.array([INTERRUPTED] * len(cut))]
        columns.append(_masked(records.visits[0].pipeline, cut, there))
        for visits in records.visits:
            columns += [pa.array(cut), *(_masked(getattr(visits, name), cut, there) for name in VISIT_COLUMNS)]
        yield pa.Table.from_arrays(columns, schema=schema)


def _masked(values: NDArray[np.generic], rows: NDArray[np.int32], there: NDArray[np.bool_]) -> pa.Array:
    """Return the values of those rows that are there, null for the others."""
    taken = np.zeros(len(rows), values.dtype)
    taken[there] = values[rows[there]]
    return pa.array(taken, mask=~there)
