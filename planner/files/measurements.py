"""A user's own measurements: two CSV files in, a profile out.

The first has the header ``device,share,batch,block,latency_us`` and a row per measurement, blocks counted from 0;
a share is k, for 1/k of a device, or names a segment (``3g.40gb``, ``2 cores/2``);
it must be complete: every block at every batch of a device's share. The second has the header ``block,cut_bytes``
and the bytes per request between block and block + 1, for all blocks but the last.
"""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from planner.model import Block, InputError, LatencyTable, Profile, Provenance
from planner.model.segments import Share, share_text

LATENCY_COLUMNS = ("device", "share", "batch", "block", "latency_us")
CUT_COLUMNS = ("block", "cut_bytes")

Key = tuple[str, Share]
Cells = dict[tuple[int, int], int]


def load_measurements(
    latencies: Path, cuts: Path, name: str, *, date: str | None = None, batches: Sequence[int] = ()
) -> Profile:
    """Read a profile from two CSV files.

    Parameters
    ----------
    latencies, cuts
        The files described above.
    name
        The model's name.
    date
        When it was measured, YYYY-MM-DD.
    batches
        Batch sizes that every device and share must have.

    Raises
    ------
    InputError
        A file cannot be read, a header differs, or a value is missing, no number, negative or given twice.
    """
    tables: dict[Key, Cells] = {}
    for where, row in _rows(latencies, LATENCY_COLUMNS):
        cells = tables.setdefault((_text(row, "device", where), _share(row, where)), {})
        cell = (_integer(row, "batch", where, 1), _integer(row, "block", where, 0))
        if cell in cells:
            raise InputError(f"{where}: batch {cell[0]}, block {cell[1]} is given twice; remove one")
        cells[cell] = round(_number(row, "latency_us", where))
    cut_bytes = _cut_bytes(cuts)
    blocks = len(cut_bytes) + 1
    provenance = Provenance("measured", f"imported from {latencies.name}", date=date)
    return Profile(
        name,
        tuple(Block((f"block {index}",)) for index in range(blocks)),
        cut_bytes,
        tuple(_table(latencies, key, cells, blocks, batches, provenance) for key, cells in tables.items()),
    )


def _table(
    path: Path, key: Key, cells: Cells, blocks: int, asked: Sequence[int], provenance: Provenance
) -> LatencyTable:
    device, share = key
    batches = tuple(sorted({batch for batch, _ in cells}))
    missing = [batch for batch in asked if batch not in batches]
    if missing:
        raise InputError(
            f"{path}: {device} {share_text(share)} has batches {list(batches)}, asked for {list(asked)}: "
            f"measure batch {missing[0]} as well, or ask for fewer"
        )
    for batch in batches:
        for block in range(blocks):
            if (batch, block) not in cells:
                raise InputError(
                    f"{path}: no latency for {device} {share_text(share)}, batch {batch}, block {block}; expected "
                    f"every one of the {blocks} blocks that the cut file implies: add the row"
                )
    extra = sorted(block for _, block in cells if block >= blocks)
    if extra:
        raise InputError(
            f"{path}: {device} {share_text(share)}: block {extra[0]} is beyond the {blocks} blocks that the cut file "
            "implies; correct one of the two files"
        )
    rows = tuple(tuple(cells[batch, block] for block in range(blocks)) for batch in batches)
    return LatencyTable(device, share, batches, rows, provenance)


def _cut_bytes(path: Path) -> tuple[int, ...]:
    found: dict[int, int] = {}
    for where, row in _rows(path, CUT_COLUMNS, may_be_empty=True):
        block = _integer(row, "block", where, 0)
        if block in found:
            raise InputError(f"{where}: block {block} is given twice; remove one")
        found[block] = _integer(row, "cut_bytes", where, 0)
    if sorted(found) != list(range(len(found))):
        raise InputError(f"{path}: block: expected 0 to {len(found) - 1} without a gap, got {sorted(found)}")
    return tuple(found[block] for block in sorted(found))


def _rows(
    path: Path, columns: tuple[str, ...], *, may_be_empty: bool = False
) -> list[tuple[str, dict[str, str | None]]]:
    """Return the rows of a CSV file, each with its place for messages."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise InputError(f"{path}: cannot read it ({reason}); expected a CSV file") from None
    reader = csv.DictReader(text.splitlines())
    header = tuple(reader.fieldnames or ())
    if header != columns:
        raise InputError(f"{path}:1: expected the header {','.join(columns)}, got {','.join(header) or 'nothing'}")
    rows = []
    for row in reader:
        where = f"{path}:{reader.line_num}"
        if surplus := row.pop(None, None):
            raise InputError(
                f"{where}: expected {len(columns)} columns, got {len(columns) + len(surplus)}; is there a comma in a "
                "number or a name? put it in quotes, or take it out"
            )
        rows.append((where, row))
    if not rows and not may_be_empty:
        raise InputError(f"{path}: holds no measurement; expected a row per device, share, batch and block")
    return rows


def _text(row: dict[str, str | None], column: str, where: str) -> str:
    value = (row[column] or "").strip()
    if not value:
        raise InputError(f"{where}: {column}: missing; add it")
    return value


def _number(row: dict[str, str | None], column: str, where: str) -> float:
    text = _text(row, column, where)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise InputError(f"{where}: {column}: expected a number >= 0, got {text!r}; correct or measure it")
    return value


def _share(row: dict[str, str | None], where: str) -> Share:
    """Read 2 as half a device, and what is no number as the name of a segment."""
    text = _text(row, "share", where)
    return text if any(character.isalpha() for character in text) else _integer(row, "share", where, 1)


def _integer(row: dict[str, str | None], column: str, where: str, least: int) -> int:
    text = _text(row, column, where)
    if not text.isdecimal() or int(text) < least:
        raise InputError(f"{where}: {column}: expected an integer >= {least}, got {text!r}; correct it")
    return int(text)
