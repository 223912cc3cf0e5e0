#!/usr/bin/env python
"""Reproduce Pitot's study (MLSys 2025) from its published runtimes: `data.npz` and `if2.npz` in one folder.

`evaluate` splits the runtimes as published (of a fraction, 0.8 to learn from and 0.2 to calibrate; the rest judges),
fits methods, and writes a row for each; percentages are of the rows that judge. `figures` draws such rows beside the
published curves.
"""

import csv
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer

from planner.cli.app import console, new_app, progress, run
from planner.completion.completion import Completion, fit
from planner.completion.configurations import METHODS
from planner.completion.metrics import coverage, excess, mape, tightness, worst_coverage
from planner.completion.observations import Axis, Observations, split
from planner.files import replacing
from planner.model import InputError

LEVELS = {"solo": 0, "2way": 1}
MISSES = {"10": 0.1, "05": 0.05, "01": 0.01}
MEASURES = ("tightness", "excess", "coverage", "worst_device")
FIGURES_OF_A_BOUND = [f"{measure}_{level}_{miss}" for measure in MEASURES for level in LEVELS for miss in MISSES]
COLUMNS = (
    "fraction", "split", "method", *(f"mape_{level}" for level in LEVELS), *FIGURES_OF_A_BOUND, "cpu_seconds", "seed",
)  # fmt: skip

app = new_app("Reproduce Pitot's published results.")

Data = Annotated[Path, typer.Option(help="Folder of the published data.npz and if2.npz.")]


@app.command()
def evaluate(
    data: Data,
    out: Annotated[Path, typer.Option(help="CSV file to write; rows that stand there are not computed again.")],
    fractions: Annotated[
        str, typer.Option(help="Fractions of the runtimes to know, e.g. 0.1,0.5,0.9.")
    ] = "0.1,0.5,0.9",
    splits: Annotated[int, typer.Option(min=1, help="Random splits of each fraction.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the splits and of the methods.")] = 0,
    methods: Annotated[str, typer.Option(help=f"Of {', '.join(METHODS)}; or all.")] = "ours",
) -> None:
    """Write, per fraction, split and method, errors and bounds in percent, and the CPU seconds of fit and prediction.

    mape: mean of abs(C / Ĉ - 1). tightness: mean of abs(C / U - 1) for bounds U that 10, 5 or 1 % may break; excess:
    mean of max(0, U - C) / C. coverage: rows within U. worst_device: coverage of the device where it is least, of those
    with 30 rows or more.
    """
    chosen = list(METHODS) if methods == "all" else _names(methods)
    shares = _fractions(fractions)
    observations = read_pitot(data)
    done = _finished(out, seed)
    with progress() as bar:
        task = bar.add_task("evaluating", total=len(shares) * splits * len(chosen))
        for fraction in shares:
            for number in range(splits):
                for method in chosen:
                    if (fraction, number, method) not in done:
                        row = evaluated(observations, fraction, number, method, seed)
                        done[fraction, number, method] = row
                        _write(out, list(done.values()))
                    bar.advance(task)
    _show(pd.DataFrame(list(done.values())))
    console.print(f"{len(done)} rows in {out}", highlight=False, soft_wrap=True)


def evaluated(
    observations: Observations, fraction: float, number: int, method: str, seed: int
) -> dict[str, str | float]:
    """Return the row of one method on one split."""
    parts = split(observations, fraction, np.random.default_rng([seed, number, round(1000 * fraction)]))
    learn, calibrate = observations.take(parts.train), observations.take(parts.calibrate)
    begin_s = time.process_time()
    fitted = fit(learn, calibrate, METHODS[method](len(learn)), seed=seed + number)
    row: dict[str, str | float] = {"fraction": fraction, "split": number, "method": method, "seed": seed}
    row |= dict(judged(fitted, observations.take(parts.test)))
    row["cpu_seconds"] = round(time.process_time() - begin_s, 2)
    return row


def judged(fitted: Completion, test: Observations) -> Iterator[tuple[str, float]]:
    """Yield what is to be known of a fitted method, in percent."""
    for level, others in LEVELS.items():
        rows = test.take(test.level == others)
        measured = rows.log_time
        yield f"mape_{level}", _percent(mape(measured, fitted.predict(rows)))
        for name, miss in MISSES.items():
            bound = fitted.bound(rows, miss)
            values = (
                tightness(measured, bound),
                excess(measured, bound),
                coverage(measured, bound),
                worst_coverage(measured, bound, rows.factor("device")),
            )
            for measure, value in zip(MEASURES, values, strict=True):
                yield f"{measure}_{level}_{name}", _percent(value)


def read_pitot(folder: Path) -> Observations:
    """Return the published runtimes, alone and beside one other; a platform is a runtime on a device.

    Raises
    ------
    InputError
        A file is missing or is not as published, or a runtime is no number above 0.
    """
    alone = _read(folder / "data.npz", ("t", "i_workload", "i_platform", "d_workload", "d_platform", "n_workload"))
    pairs = _read(folder / "if2.npz", ("t", "i_workload", "i_platform", "i_interference0"))
    names = [str(name) for name in alone["n_platform"]]
    runtime, device = (
        np.unique(part, return_inverse=True)[1] for part in zip(*(n.split(":") for n in names), strict=True)
    )
    times = np.concatenate([alone["t"], pairs["t"]]).astype(float)
    if not (np.isfinite(times) & (times > 0)).all():
        bad = int(np.argmin(np.isfinite(times) & (times > 0)))
        raise InputError(f"{folder}: runtime {bad}: expected a number above 0, got {times[bad]}")
    nobody = np.full(len(alone["t"]), -1, dtype=np.int64)
    return Observations(
        Axis(tuple(str(name) for name in alone["n_workload"]), alone["d_workload"].astype(float)),
        Axis(tuple(names), alone["d_platform"].astype(float), {"device": device, "runtime": runtime}),
        np.log(times),
        np.concatenate([alone["i_workload"], pairs["i_workload"]]).astype(np.int64),
        np.concatenate([alone["i_platform"], pairs["i_platform"]]).astype(np.int64),
        np.concatenate([nobody, pairs["i_interference0"]]).astype(np.int64)[:, None],
    )


def _read(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as found:
            missing = [name for name in names if name not in found.files]
            if missing:
                raise InputError(f"{path}: no array {missing[0]!r}; it has {found.files}: use the published file")
            return {name: found[name] for name in found.files}
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot read it; expected the published npz file: give its folder") from None


def _names(text: str) -> list[str]:
    found = [name.strip() for name in text.split(",") if name.strip()]
    for name in found:
        if name not in METHODS:
            raise InputError(f"--methods: unknown {name!r}; expected some of {', '.join(METHODS)}, or all")
    return found


def _fractions(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = [0.0]
    if not all(0 < fraction < 1 for fraction in found):
        raise InputError(f"--fractions: expected numbers between 0 and 1 such as 0.1,0.5, got {text!r}")
    return found


def _finished(out: Path, seed: int) -> dict[tuple[float, int, str], dict[str, str | float]]:
    if not out.exists():
        return {}
    with out.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise InputError(f"{out}: holds something else than results of this command; choose another --out")
        rows = [{name: text if name == "method" else float(text) for name, text in row.items()} for row in reader]
    found = {}
    for row in rows:
        if row["seed"] != seed:
            raise InputError(f"{out}: holds results of seed {row['seed']:.0f}, not of {seed}; choose another --out")
        row |= {name: int(row[name]) for name in ("split", "seed")}
        found[float(row["fraction"]), int(row["split"]), str(row["method"])] = row
    return found


def _write(out: Path, rows: Sequence[dict[str, str | float]]) -> None:
    with replacing(out) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def _show(rows: pd.DataFrame) -> None:
    shown = [
        f"{name}_{level}{end}"
        for name, end in (("mape", ""), ("tightness", "_05"), ("coverage", "_05"))
        for level in LEVELS
    ]
    table = rows.groupby(["fraction", "method"])[[*shown, "cpu_seconds"]].mean().round(2)
    console.print(table.to_string(), highlight=False, soft_wrap=True)


def _percent(value: float) -> float:
    return round(100 * value, 4)


if __name__ == "__main__":
    run(app)
