"""Records of a network as two files: a row per request, and a row per visit that the requests' rows point to.

``requests``: request, class, arrival_us, outcome, done_us, then for every step of its route ``step0_joined_us`` and
``step0_visit`` (the number of a row of visits; empty where it got no further). ``visits``: visit, station, server,
kind, size, reach_us, start_us, end_us. Where kinds of servers are variants of a model, requests also have
``step0_variant`` ... and ``accuracy`` (percent, of those that finished). Written in pieces, so that memory stays flat.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from planner.files.atomic import replacing
from planner.model.applications import AccuracyRule, combined_accuracy
from simulator.dispatch.decisions import FINISHED, OPEN, OUTCOMES
from simulator.results.records import NetworkRecords
from simulator.results.tables import PIECE


@dataclass(frozen=True)
class Variants:
    """What kinds of servers are, ``[station][kind]``: names, accuracies (percent); how those of steps combine."""

    names: Sequence[Sequence[str]]
    accuracy: Sequence[Sequence[float]]
    rule: AccuracyRule = "multiply"


VISIT_COLUMNS = ("station", "server", "kind", "size", "reach_us", "start_us", "end_us")


def write_network_records(
    records: NetworkRecords, folder: Path, classes: Sequence[str], variants: Variants | None = None
) -> None:
    """Write ``requests.parquet`` and ``visits.parquet`` to a folder, each in one step.

    Parameters
    ----------
    classes
        Names of the classes of requests, in the order of the network.
    """
    for name, pieces in (("visits", _visits(records)), ("requests", _requests(records, classes, variants))):
        first = next(pieces)
        with (
            replacing(folder / f"{name}.parquet") as temporary,
            temporary.open("wb") as file,
            pa.parquet.ParquetWriter(file, first.schema) as parquet,
        ):
            parquet.write_table(first)
            for piece in pieces:
                parquet.write_table(piece)


def _visits(records: NetworkRecords) -> Iterator[pa.Table]:
    for first in range(0, max(1, len(records.station)), PIECE):
        rows = slice(first, min(first + PIECE, len(records.station)))
        number = np.arange(rows.start, rows.stop, dtype=np.int32)
        yield pa.table({"visit": number} | {name: getattr(records, name)[rows] for name in VISIT_COLUMNS})


def _requests(records: NetworkRecords, classes: Sequence[str], variants: Variants | None) -> Iterator[pa.Table]:
    for first in range(0, max(1, len(records.outcome)), PIECE):
        rows = slice(first, min(first + PIECE, len(records.outcome)))
        outcome, of_class = records.outcome[rows], records.request_class[rows]
        columns = {
            "request": np.arange(rows.start, rows.stop, dtype=np.int64),
            "class": pa.DictionaryArray.from_arrays(of_class, list(classes)).cast(pa.string()),
            "arrival_us": records.arrival_us[rows],
            "outcome": pa.DictionaryArray.from_arrays(outcome, list(OUTCOMES)).cast(pa.string()),
            "done_us": _or_empty(records.done_us[rows], outcome != OPEN),
        }
        for step in range(records.visit.shape[1]):
            joined_us, visit = records.joined_us[rows, step], records.visit[rows, step]
            columns[f"step{step}_joined_us"] = _or_empty(joined_us, joined_us >= 0)
            columns[f"step{step}_visit"] = _or_empty(visit, visit >= 0)
        if variants is not None:
            columns |= _of_variants(records, rows, variants)
        yield pa.table(columns)


def _of_variants(records: NetworkRecords, rows: slice, variants: Variants) -> dict[str, pa.Array]:
    """Return which variant served requests in each step, and how accurate that makes the whole."""
    visit = records.visit[rows]
    kinds = max(map(len, variants.names))
    place = np.where(visit >= 0, records.station[visit].astype(np.int64) * kinds + records.kind[visit], -1)
    names = [name for row in variants.names for name in [*row, *[""] * (kinds - len(row))]]
    columns = {
        f"step{step}_variant": pa.DictionaryArray.from_arrays(_or_empty(served, served >= 0), names).cast(pa.string())
        for step, served in enumerate(place.T)
    }
    ways, way = np.unique(place, axis=0, return_inverse=True)
    each = [[variants.accuracy[at // kinds][at % kinds] for at in row if at >= 0] for row in ways.tolist()]
    accuracy = np.array([combined_accuracy(one, variants.rule) if one else np.nan for one in each])[way.ravel()]
    columns["accuracy"] = pa.array(accuracy, mask=(records.outcome[rows] != FINISHED) | np.isnan(accuracy))
    return columns


def _or_empty(values: NDArray[np.integer], there: NDArray[np.bool_]) -> pa.Array:
    return pa.array(np.ascontiguousarray(values), mask=~there)
