"""Plain files of the published data, with errors that name them."""

import csv
from pathlib import Path

from planner.model import InputError


def read_text(path: Path) -> str:
    """Return a file's text; raises InputError when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise InputError(f"{path}: cannot read it ({reason}); give a folder laid out as the published data") from None


def read_cells(path: Path) -> list[list[str]]:
    """Return the cells of a CSV file, empty lines left out; raises InputError when it cannot be read."""
    return [row for row in csv.reader(read_text(path).splitlines()) if row]
