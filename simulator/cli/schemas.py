"""The command that prints the JSON Schema of the simulator's own kind of file: ``schema world``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from planner.cli.app import console
from planner.files import schema_of, write_text


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command()(schema)


def schema(
    kind: Annotated[Literal["world"], typer.Argument(help="world; the planner's `schema` prints the other kinds.")],
    out: Annotated[Path | None, typer.Option(help="Write it to this file instead of the terminal.")] = None,
) -> None:
    """Print the JSON Schema of a world file."""
    from simulator.cli.worlds import WorldDocument

    text = json.dumps(schema_of(kind, WorldDocument), indent=2, ensure_ascii=False) + "\n"
    if out:
        write_text(out, text)
    else:
        console.out(text, highlight=False, end="")
