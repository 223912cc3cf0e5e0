#!/usr/bin/env python
"""Draw figures of the published study (fig6, fig7, fig8, fig10) from the runs of ``reproduce_ppipe.py all``."""

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from planner.cli.app import console, new_app, run
from planner.model import InputError
from simulator.results.study import FIGURES
from simulator.results.style import save_with_numbers

app = new_app(__doc__)


@app.command()
def plot(
    figures: Annotated[list[str], typer.Argument(help=f"Which: {', '.join(FIGURES)}, or all.")],
    results: Annotated[Path, typer.Option(help="Folder with runs.csv.")],
    out: Annotated[Path, typer.Option(help="Folder for PNG, PDF and CSV files.")],
) -> None:
    """Draw each figure once per trace, with the numbers behind it beside it."""
    wanted = list(FIGURES) if figures == ["all"] else figures
    unknown = [name for name in wanted if name not in FIGURES]
    if unknown:
        raise InputError(f"unknown figure {unknown[0]!r}; expected all or {', '.join(FIGURES)}")
    path = results / "runs.csv"
    if not path.exists():
        raise InputError(f"{path}: no such file; run scripts/reproduce_ppipe.py all first")
    for trace, rows in pd.read_csv(path).groupby("trace"):
        for name in wanted:
            save_with_numbers(*FIGURES[name](rows), out / f"{name}-{trace}")
            console.print(f"{out / f'{name}-{trace}'}.png, .pdf, .csv", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    run(app)
