"""What commands print: lines and tables for people, or one JSON document for programs (``--json``)."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite
from typing import Annotated, Any

import typer
from rich.table import Table

from planner.cli.app import console
from planner.files import printable

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of lines and tables.")]

Format = Callable[[Any], str]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """A column of a table: its head for people, and how its values are written; absent values (None) are blank."""

    head: str
    shown: Format = str


@dataclass
class Output:
    """What a command prints. Lines are for people only, values for programs only, tables for both."""

    as_json: bool = False
    document: dict[str, Any] = field(default_factory=dict)

    def line(self, text: str) -> None:
        """Print a line for people."""
        if not self.as_json:
            console.print(printable(text), highlight=False, soft_wrap=True)

    def value(self, name: str, value: Any) -> None:
        """Add a value to the document for programs."""
        self.document[name] = _plain(value)

    def table(self, name: str, columns: Mapping[str, Column], rows: Sequence[Row]) -> None:
        """Print rows; in the document they are objects with all that they hold."""
        self.value(name, [dict(row) for row in rows])
        if self.as_json:
            return
        table = Table(box=None, header_style="bold")
        for column in columns.values():
            table.add_column(column.head, overflow="fold")  # a name is never cut
        for row in rows:
            values = [row.get(key) for key in columns]
            cells = zip(columns.values(), values, strict=True)
            table.add_row(*("" if value is None else printable(column.shown(value)) for column, value in cells))
        console.print(table)


@contextmanager
def output(as_json: bool) -> Iterator[Output]:
    """Yield what a command prints to; the document is printed at the end."""
    out = Output(as_json)
    yield out
    if as_json:
        escaped = console.encoding != "utf-8"  # else letters that it lacks would be written as no JSON has them
        console.print(json.dumps(out.document, indent=2, ensure_ascii=escaped), highlight=False, soft_wrap=True)


def _plain(value: Any) -> Any:
    """Return what JSON knows: numpy's numbers as Python's, NaN and infinity as null."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
