"""The planner's benchmark; scripts/bench_planner.py runs it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from growth import SIZES, chosen_sizes, draw, measure, measure_here, write_table

from planner.cli.app import console, new_app, progress, run
from planner.model import InputError

app = new_app("Measure how planning grows with DNNs, device types, devices and stages.")


@app.command()
def main(
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


if __name__ == "__main__":
    run(app)
