"""The planner's benchmark; scripts/bench_planner.py runs it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from growth import SIZES, chosen_sizes, draw, measure, measure_here, warm_up, write_table
from methods import GRID, compared, paired, short_by, sized, write_records
from problems import Size

from planner.cli.app import console, new_app, progress, run
from planner.model import InputError

app = new_app("Measure how planning grows, what each method finds in the same time, and pipelines beside NP.")


DataOption = Annotated[Path, typer.Option(help="Folder of PPipe's published data, whose profiles are used.")]
CellsOption = Annotated[
    str | None, typer.Option(help="Comma-separated DNNs/types/devices/stages.  [default: a grid of twelve]")
]
BELOW = 1e-9  # relative: what is less is rounding


@app.command()
def growth(
    data: Annotated[
        Path | None, typer.Option(help="Folder of PPipe's published data, whose profiles are used.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for growth.csv and growth.png.")] = Path("out/bench"),
    axes: Annotated[str, typer.Option(help=f"Comma-separated, of {', '.join(SIZES)}.")] = ",".join(SIZES),
    time_limit: Annotated[float | None, typer.Option(help="Seconds per plan.  [default: none]")] = None,
    one: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Plan problems of growing size, each in a process of its own, and write the table and its picture."""
    if one is not None:
        print(json.dumps(asdict(measure_here(one))))
        return
    if data is None:
        raise InputError("--data: missing; give the folder of PPipe's published data")
    unknown = [axis for axis in axes.split(",") if axis not in SIZES]
    if unknown:
        raise InputError(f"--axes: expected some of {list(SIZES)}, got {unknown}")
    rows = []
    with progress() as bar:
        for axis, size in bar.track(list(chosen_sizes(axes.split(","))), description="planning"):
            row = measure(axis, size, data, time_limit)
            rows.append(row)
            console.print(
                f"{axis:8} {size}: {row.method}, gap {row.gap:.2%}, {row.seconds:.1f} s "
                f"({row.cpu_seconds:.1f} s CPU), {row.peak_mib:.0f} MiB"
            )
    write_table(rows, out / "growth.csv")
    draw(rows, out / "growth.png")
    console.print(f"written to {out}")


@app.command()
def methods(
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Write the table (CSV) to this file.")] = Path("out/bench/methods.csv"),
    time_limit: Annotated[float, typer.Option(help="Seconds per plan.")] = 4.0,
    seed: Annotated[int, typer.Option(help="Of the problems.")] = 7,
    cells: CellsOption = None,
) -> None:
    """Plan every problem of a grid by every method, in the same time and on the same X0: is auto right?"""
    warm_up(data)
    rows = []
    for found in compared(data, _sizes(cells), seed, time_limit):
        rows += found
        for row in found:
            console.print(
                f"{row.size} {row.asked}: {row.value:.3f} by {row.used}, gap {row.gap:.1e}, {row.seconds:.1f} s "
                f"({row.cpu_seconds:.1f} s CPU)"
            )
        console.print(f"{found[0].size}: auto is short of the best by {short_by(found):.2%}")
    write_records(rows, out)


@app.command()
def pairs(
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Write the table (CSV) to this file.")] = Path("out/bench/pairs.csv"),
    time_limits: Annotated[str, typer.Option(help="Seconds per plan, comma-separated.")] = "1,2,3,4,5",
    seeds: Annotated[str, typer.Option(help="Of the problems, comma-separated.")] = "7,8",
    cells: CellsOption = None,
) -> None:
    """Plan np and pipelines in the same time: are pipelines ever below?"""
    warm_up(data)
    limits_s, drawn = [float(one) for one in time_limits.split(",")], [int(one) for one in seeds.split(",")]
    rows = []
    for row in paired(data, _sizes(cells), drawn, limits_s):
        rows.append(row)
        console.print(
            f"{row.size} seed {row.seed}, {row.limit_s:g} s: np {row.np_value:.3f} ({row.np_seconds:.1f} s), pipelines "
            f"{row.value:.3f} ({row.seconds:.1f} s), {-row.below:+.2%}, {'the same' if row.same_x0 else 'another'} X0"
        )
    below = [row.below for row in rows if row.below > BELOW]
    console.print(f"{len(rows)} pairs, pipelines below in {len(below)}, by at most {max(below, default=0.0):.2%}")
    write_records(rows, out)


def _sizes(cells: str | None) -> list[Size]:
    return list(GRID) if cells is None else [sized(one) for one in cells.split(",")]


if __name__ == "__main__":
    run(app)
