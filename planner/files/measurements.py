"""A user's own measurements: two CSV files in, a profile out.

The first has the columns ``device,share,batch,block,latency_us`` and a row per measurement, blocks counted from 0;
a share is k, for 1/k of a device, or names a segment (``3g.40gb``, ``2 cores/2``);
it must be complete: every block at every batch of a device's share. The second has the columns ``block,cut_bytes``
and the bytes per request between block and block + 1, for all blocks but the last. Measurements that are not complete
are observations (`planner.files.timings`).
"""

from collections.abc import Sequence
from pathlib import Path

from planner.files.csv_rows import batch_in, csv_rows, integer_in, number_in, share_in, text_in
from planner.model import Block, InputError, LatencyTable, Profile, Provenance
from planner.model.cluster import MOST
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
    for where, row in csv_rows(latencies, LATENCY_COLUMNS):
        cells = tables.setdefault((text_in(row, "device", where), share_in(row, where)), {})
        cell = (batch_in(row, where), integer_in(row, "block", where, 0))
        if cell in cells:
            raise InputError(f"{where}: batch {cell[0]}, block {cell[1]} is given twice; remove one")
        cells[cell] = round(number_in(row, "latency_us", where))
    cut_bytes = load_cuts(cuts)
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


def load_cuts(path: Path) -> tuple[int, ...]:
    """Read the bytes per request between blocks; raises InputError."""
    found: dict[int, int] = {}
    for where, row in csv_rows(path, CUT_COLUMNS, may_be_empty=True):
        block = integer_in(row, "block", where, 0)
        if block in found:
            raise InputError(f"{where}: block {block} is given twice; remove one")
        found[block] = integer_in(row, "cut_bytes", where, 0, MOST)
    if sorted(found) != list(range(len(found))):
        raise InputError(f"{path}: block: expected 0 to {len(found) - 1} without a gap, got {sorted(found)}")
    return tuple(found[block] for block in sorted(found))
