"""Rows of the CSV files that users bring, each with its place, and their cells as what they stand for.

Cells are separated by commas, or by semicolons, as spreadsheets write them in many countries. The columns may stand in
any order. Numbers have a decimal point and neither units nor separators of thousands: "1,500" is refused, for it is
1500 here and 1.5 there.
"""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from planner.model import InputError
from planner.model.profile import MOST_BATCH, MOST_US
from planner.model.segments import MOST_SHARES, Share

Row = dict[str, str]


def csv_rows(
    path: Path, columns: Sequence[str], *, optional: Sequence[str] = (), may_be_empty: bool = False
) -> list[tuple[str, Row]]:
    """Return the rows of a CSV file, each with its place (file:line) for messages; empty lines are no rows.

    Raises
    ------
    InputError
        The file is no text in UTF-8, has other columns, or a row has more cells than columns or a quote without end.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file in UTF-8"
        raise InputError(f"{path}: cannot read it ({reason}); expected a CSV file") from None
    lines = text.splitlines()
    first = lines[0] if lines else ""
    reader = csv.reader(lines, delimiter=";" if ";" in first and "," not in first else ",", strict=True)
    rows: list[tuple[str, Row]] = []
    try:
        header = [cell.strip() for cell in next(reader, [])]
        _check_header(path, header, columns, optional)
        for cells in reader:
            where = f"{path}:{reader.line_num}"
            if len(cells) > len(header):
                raise InputError(
                    f"{where}: expected {len(header)} columns, got {len(cells)}; is there a comma in a number or a "
                    "name? put it in quotes, or take it out"
                )
            if any(cell.strip() for cell in cells):
                padded = [*cells, *[""] * (len(header) - len(cells))]
                rows.append((where, {name: cell.strip() for name, cell in zip(header, padded, strict=True)}))
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: not valid CSV ({error}); correct the line") from None
    if not rows and not may_be_empty:
        raise InputError(f"{path}: holds no measurement; expected a row per device, share, batch and block")
    return rows


def _check_header(path: Path, header: Sequence[str], columns: Sequence[str], optional: Sequence[str]) -> None:
    unknown = set(header) - {*columns, *optional}
    if not unknown and set(columns) <= set(header) and len(set(header)) == len(header):
        return
    also = f" and perhaps {','.join(optional)}" if optional else ""
    unit = next((f"; write {name} in µs as latency_us" for name in sorted(unknown) if "latency" in name.lower()), "")
    raise InputError(
        f"{path}:1: expected the header {','.join(columns)}{also}, got {','.join(header) or 'nothing'}{unit}"
    )


def text_in(row: Row, column: str, where: str) -> str:
    """Return a cell; raises InputError where it is empty."""
    if not row[column]:
        raise InputError(f"{where}: {column}: missing; add it")
    return row[column]


def number_in(row: Row, column: str, where: str, *, zero: bool = True) -> float:
    """Return a cell as a number of at least 0, or above 0, and at most `MOST_US`; raises InputError."""
    text = text_in(row, column, where)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (0 <= value <= MOST_US) or (value == 0 and not zero):
        range_ = (">= 0" if zero else "above 0") + (f" and <= {MOST_US:.0e}" if value > MOST_US else "")
        raise InputError(
            f"{where}: {column}: expected a number {range_}, got {text!r}; correct or measure it{_odd(text)}"
        )
    return value


def _odd(text: str) -> str:
    """Say what is odd about a text that has a number in it."""
    if any(character.isdigit() for character in text) and any(mark in text for mark in ", "):
        return ": a decimal point, no unit, and no separators of thousands"
    return ""


def integer_in(row: Row, column: str, where: str, least: int, most: int = MOST_US) -> int:
    """Return a cell as an integer in a range; raises InputError."""
    text = text_in(row, column, where)
    value = int(text.lstrip("0")[:20] or "0") if text.isascii() and text.isdecimal() else least - 1
    if not least <= value <= most:
        limit = f" and <= {most}" if value > most else ""
        raise InputError(f"{where}: {column}: expected an integer >= {least}{limit}, got {text!r}; correct it")
    return value


def batch_in(row: Row, where: str) -> int:
    """Return the cell ``batch``; raises InputError."""
    return integer_in(row, "batch", where, 1, MOST_BATCH)


def share_in(row: Row, where: str) -> Share:
    """Return the cell ``share``: 2 or 1/2 is half a device, and what has letters names a segment; raises InputError."""
    text = text_in(row, "share", where)
    if any(character.isalpha() for character in text):
        return text
    return integer_in(row | {"share": text.removeprefix("1/")}, "share", where, 1, MOST_SHARES)
