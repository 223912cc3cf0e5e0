"""Published block timings and prepartitions, as a `Profile`."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from planner.files.ppipe.text import read_cells
from planner.model import Block, InputError, LatencyTable, Profile, Provenance

PROVENANCE = Provenance("measured", "published block timings of PPipe (ATC'25)")


@dataclass(frozen=True)
class Prepartition:
    """The published blocks of a DNN: layer names per block, bytes per request of the cuts between blocks.

    Each block was meant to hold between ``lower`` and ``upper`` times 1 / ``blocks_wanted`` of the latency.
    """

    blocks: tuple[tuple[str, ...], ...]
    cut_bytes: tuple[int, ...]
    blocks_wanted: int
    lower: float
    upper: float


def read_prepartition(data: Path, dnn: str) -> Prepartition:
    """Read the published blocks of a DNN.

    Raises
    ------
    InputError
        There is not exactly one mapping, or its files do not fit each other.
    """
    folder = data / "prepartition_mappings" / dnn
    found = sorted(folder.glob("contraction_mapping_ilpprepart*.csv"))
    if len(found) != 1:
        raise InputError(f"{folder}: expected one contraction_mapping_ilpprepartN-LOWER-UPPER.csv, got {len(found)}")
    path = found[0]
    parts = re.fullmatch(r"contraction_mapping_ilpprepart(\d+)-([\d.]+)-([\d.]+)\.csv", path.name)
    if parts is None:
        raise InputError(f"{path}: expected a name like contraction_mapping_ilpprepart10-0.5-1.5.csv")
    try:
        assigned = [(row[0], int(row[1])) for row in read_cells(path)]
        sizes = read_cells(folder / path.name.replace("mapping", "trans-size"))
        cut_bytes = tuple(int(float(row[0])) for row in sizes)
    except (IndexError, ValueError) as error:
        raise InputError(f"{path}: expected rows `layer,block` and sizes in bytes ({error})") from None
    numbers = list(dict.fromkeys(number for _, number in assigned))
    if numbers != sorted(numbers) or len(cut_bytes) != len(numbers) - 1:
        raise InputError(
            f"{path}: expected contiguous blocks and a size per cut, got {numbers} and {len(cut_bytes)} sizes"
        )
    blocks = tuple(tuple(layer for layer, block in assigned if block == number) for number in numbers)
    return Prepartition(blocks, cut_bytes, int(parts[1]), float(parts[2]), float(parts[3]))


def read_profile(data: Path, dnn: str, devices: Iterable[str]) -> Profile:
    """Read the profile of a DNN on the named device types, all published shares of each.

    Raises
    ------
    InputError
        A file is missing or malformed, or a device type has no timings.
    """
    prepartition = read_prepartition(data, dnn)
    return Profile(
        name=dnn,
        blocks=tuple(Block(layers) for layers in prepartition.blocks),
        cut_bytes=prepartition.cut_bytes,
        tables=tuple(table for device in devices for table in _read_tables(data, dnn, device)),
    )


def _read_tables(data: Path, dnn: str, device: str) -> list[LatencyTable]:
    folder = data / "models" / "block-timing-tf32"
    paths = {}
    for path in folder.glob(f"{dnn}-{device}-*.csv"):
        share = path.stem.removeprefix(f"{dnn}-{device}-")
        if share.isdigit():
            paths[int(share)] = path
    if not paths:
        raise InputError(f"{folder}: no {dnn}-{device}-SHARE.csv there; {dnn} has no timings on {device}")
    return [_read_table(paths[share], device, share) for share in sorted(paths)]


def _read_table(path: Path, device: str, share: int) -> LatencyTable:
    """Read one table; in the file a row is a block, a column a batch size from 1."""
    try:
        by_block = [[int(float(cell)) for cell in row] for row in read_cells(path)]
        rows = tuple(zip(*by_block, strict=True))
    except ValueError as error:
        raise InputError(f"{path}: expected a row of latencies in µs per block, equally long ({error})") from None
    if not rows or any(value < 0 for row in rows for value in row):
        raise InputError(f"{path}: expected latencies in µs, none of them negative")
    return LatencyTable(device, share, tuple(range(1, len(rows) + 1)), rows, PROVENANCE)
