#!/usr/bin/env python
"""Reproduce Pitot's study (MLSys 2025) from its published runtimes: `data.npz` and `if2.npz` in one folder.

`evaluate` splits the runtimes as published (of a fraction, 0.8 to learn from and 0.2 to calibrate; the rest judges),
fits methods, and writes a row for each; percentages are of the rows that judge. `figures` draws such rows beside the
published curves.
"""

import csv
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # a second doubles CPU and saves a twentieth of the time

import numpy as np
import pandas as pd
import typer
from matplotlib.axis import Axis as Axis2D
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from planner.cli.app import console, new_app, progress, run
from planner.completion.completion import Completion, fit
from planner.completion.configurations import METHODS
from planner.completion.metrics import coverage, excess, mape, tightness, worst_coverage
from planner.completion.network import Network
from planner.completion.observations import Axis, Observations, split
from planner.completion.training import train
from planner.files import replacing
from planner.model import InputError
from simulator.results.style import COLOURS, INK, MARKERS, figure_of, finish, legend, new_axes, save_with_numbers

LEVELS = {"solo": 0, "2way": 1}
MISSES = {"10": 0.1, "05": 0.05, "01": 0.01}
MEASURES = ("tightness", "excess", "coverage", "worst_device")
FIGURES_OF_A_BOUND = [f"{measure}_{level}_{miss}" for measure in MEASURES for level in LEVELS for miss in MISSES]
COLUMNS = (
    "fraction", "split", "method", *(f"mape_{level}" for level in LEVELS), *FIGURES_OF_A_BOUND, "cpu_seconds", "seed",
)  # fmt: skip

app = new_app("Reproduce Pitot's published results.")

Data = Annotated[Path, typer.Option(help="Folder of the published data.npz and if2.npz.")]


# What the paper printed (percent): MAPE alone and beside one other by fraction, and tightness of interference-aware
# bounds at half of the runtimes by miss rate, alone and beside others.
PUBLISHED_FRACTIONS = (0.1, 0.5, 0.9)
PUBLISHED_MAPE = {
    "pitot": ((10.35, 5.81, 5.39), (11.24, 9.15, 9.03)),
    "factorisation": ((95.9, 11.6, 7.6), (170.0, 81.0, 80.0)),
    "monolithic": ((17.3, 11.2, 10.6), (23.8, 15.0, 13.9)),
    "attention": ((17.3, 11.3, 11.3), (19.9, 13.3, 13.4)),
    "no-residual": ((10.26, 6.95, 6.60), (11.6, 10.2, 9.9)),
    "proportional": ((22.3, 21.6, 21.6), (16.6, 16.1, 16.2)),
    "no-features": ((17.5, 8.46, 6.98), (18.6, 11.9, 10.8)),
    "discard": ((16.1, 6.43, 5.26), (84.0, 80.0, 80.0)),
    "ignore": ((23.0, 17.6, 16.4), (49.5, 47.9, 48.3)),
    "no-activation": ((10.5, 5.99, 5.45), (12.5, 9.8, 9.4)),
}
PUBLISHED_TIGHTNESS = {"solo": (7.99, 10.01, 15.86), "2way": (13.3, 16.1, 22.7)}
NAMES = {"solo": "alone", "2way": "beside one other"}


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


@app.command()
def figures(
    data: Data,
    results: Annotated[Path, typer.Option(help="CSV of `evaluate`.")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures, each with its numbers.")],
    seed: Annotated[int, typer.Option(min=0, help="Seed of the network whose embeddings are drawn.")] = 0,
) -> None:
    """Draw errors, tightness and ablations beside the published ones, slowdowns, and embeddings of a network."""
    rows = pd.read_csv(results)
    if tuple(rows.columns) != COLUMNS:
        raise InputError(f"{results}: expected the columns that `evaluate` writes")
    observations = read_pitot(data)
    for level, number in (("solo", 0), ("2way", 1)):
        save_with_numbers(*draw_errors(rows, level, number), out / f"mape-{level}")
        save_with_numbers(*draw_tightness(rows, level), out / f"tightness-{level}")
    save_with_numbers(*draw_ablations(rows), out / "ablations")
    save_with_numbers(*draw_slowdowns(observations), out / "slowdown")
    save_with_numbers(*draw_embeddings(observations, seed), out / "embeddings")
    console.print(f"pictures are in {out}", highlight=False, soft_wrap=True)


def draw_errors(rows: pd.DataFrame, level: str, number: int) -> tuple[Figure, pd.DataFrame]:
    """Draw MAPE over the fraction that is known, of every method in the rows, and as published."""
    ax = new_axes()
    found = rows.groupby(["method", "fraction"])[f"mape_{level}"].agg(["mean", "std"]).reset_index()
    order = sorted(found.groupby("method"), key=lambda pair: list(METHODS).index(str(pair[0])))
    for at, (method, part) in enumerate(order):
        again, colour = at // len(COLOURS), COLOURS[at % len(COLOURS)]  # hollow marks where colours come again
        mark = {"marker": MARKERS[(at + 3 * again) % len(MARKERS)], "markerfacecolor": "white" if again else colour}
        deviation = part["std"].fillna(0)
        ax.errorbar(part.fraction, part["mean"], deviation, color=colour, label=method, **mark)
        if method in PUBLISHED_MAPE:
            ax.plot(PUBLISHED_FRACTIONS, PUBLISHED_MAPE[method][number], "--", color=colour, alpha=0.6)
    if "pitot" not in set(found.method):
        ax.plot(PUBLISHED_FRACTIONS, PUBLISHED_MAPE["pitot"][number], "--", color=INK, label="pitot, published")
    ax.set_yscale("log")
    plain_ticks(ax.yaxis)
    finish(ax, x="fraction of the runtimes known", y="MAPE, %", title=f"{NAMES[level]}; dashed: published")
    legend(ax)
    return figure_of(ax), found


def plain_ticks(axis: Axis2D) -> None:
    """Label a logarithmic axis with 1, 2 and 5 times powers of ten, as plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def draw_tightness(rows: pd.DataFrame, level: str) -> tuple[Figure, pd.DataFrame]:
    """Draw how far bounds are above runtimes over the miss rate, at every fraction."""
    ax = new_axes()
    ours = rows[rows.method == "ours"]
    columns = [f"tightness_{level}_{name}" for name in MISSES]
    found = ours.groupby("fraction")[columns].mean()
    for at, (fraction, values) in enumerate(found.iterrows()):
        ax.plot(list(MISSES.values()), values, marker=MARKERS[at], color=COLOURS[at], label=f"{fraction:g} known")
    ax.plot(list(MISSES.values()), PUBLISHED_TIGHTNESS[level], "--", color=INK, label="0.5 known, published")
    ax.set_xscale("log")
    plain_ticks(ax.xaxis)
    finish(ax, x="miss rate", y="mean of |C / U - 1|, %", title=f"Tightness of bounds, {NAMES[level]}")
    legend(ax)
    return figure_of(ax), found.reset_index()


def draw_ablations(rows: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draw the errors of every method at the fraction nearest to one half, both levels; hollow as published at half."""
    fraction = min(rows.fraction.unique(), key=lambda value: abs(value - 0.5))
    found = rows[rows.fraction == fraction].groupby("method", sort=False)[[f"mape_{level}" for level in LEVELS]].mean()
    ax = new_axes(7.0, 0.5 + 0.4 * max(4, len(found)))
    for at, level in enumerate(LEVELS):
        style = {"linestyle": "", "color": COLOURS[at], "marker": MARKERS[at]}
        ax.plot(found[f"mape_{level}"], np.arange(len(found)), label=NAMES[level], **style)
        printed = {row: PUBLISHED_MAPE[name][at][1] for row, name in enumerate(found.index) if name in PUBLISHED_MAPE}
        ax.plot(list(printed.values()), list(printed), markerfacecolor="none", **style)
    ax.set_yticks(np.arange(len(found)), list(found.index))
    ax.invert_yaxis()
    ax.set_xscale("log")
    plain_ticks(ax.xaxis)
    finish(ax, x="MAPE, %", title=f"{fraction:g} of the runtimes known; hollow: published")
    legend(ax)
    return figure_of(ax), found.reset_index()


def draw_slowdowns(observations: Observations) -> tuple[Figure, pd.DataFrame]:
    """Draw a histogram of how much longer workloads take beside another, where they were also timed alone."""
    pairs = observations.take(observations.level == 1)
    alone = observations.take(observations.level == 0)
    solo = np.full((len(observations.workloads), len(observations.platforms)), np.nan)
    solo[alone.workload, alone.platform] = alone.log_time
    slowdown = np.exp(pairs.log_time - solo[pairs.workload, pairs.platform])
    slowdown = slowdown[np.isfinite(slowdown)]
    counts, edges = np.histogram(slowdown, np.linspace(0.8, 4, 65))
    ax = new_axes()
    ax.stairs(counts, edges, fill=True, color=COLOURS[0])
    middle, high = np.median(slowdown), np.quantile(slowdown, 0.95)
    finish(ax, x="time beside another / time alone", y="runs", title=f"median {middle:.2f}, 95 % within {high:.2f}")
    return figure_of(ax), pd.DataFrame({"from": edges[:-1], "to": edges[1:], "runs": counts})


def draw_embeddings(observations: Observations, seed: int) -> tuple[Figure, pd.DataFrame]:
    """Draw the two main directions of workloads' embeddings, coloured by the suite that they are from."""
    parts = split(observations, 0.5, np.random.default_rng([seed, 0, 500]))
    learn = observations.take(parts.train)
    network = train(METHODS["ours"](len(learn)).recipe, learn, seed)
    assert isinstance(network, Network)
    centred = network.embeddings()[0] - network.embeddings()[0].mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    suites = [re.split("[/:]", name)[0] for name in observations.workloads.names]
    found = pd.DataFrame({"workload": observations.workloads.names, "suite": suites})
    found[["first", "second"]] = left[:, :2] * values[:2]
    ax = new_axes()
    for at, (suite, part) in enumerate(found.groupby("suite")):
        style = {"color": COLOURS[at % len(COLOURS)], "marker": MARKERS[at % len(MARKERS)]}
        ax.scatter(part["first"], part["second"], s=14, label=suite, **style)
    finish(ax, x="first direction", y="second direction", title="Embeddings of workloads")
    legend(ax)
    return figure_of(ax), found


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
