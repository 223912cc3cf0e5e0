#!/usr/bin/env python
"""How many runs a new GPU takes: PPipe's published block timings with one of the four GPUs left out.

The others, or those of them that `--known` names, are known (at batches 1, 4 and 8). Of the one left out, some runs are
given back, drawn at random or chosen as `suggest` does; a run is a DNN's blocks timed at one batch size on one share.
Errors are of what was not given back: of blocks, and of whole models (the sum of a run's blocks). With `--unit block` a
single block is given at a time.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Annotated

import numpy as np
import pandas as pd
import typer

from planner.cli.app import console, new_app, progress, run
from planner.completion.gaussian import next_measurements
from planner.completion.observations import Floats, Ints
from planner.completion.profiles import predict_profiles
from planner.files import ppipe, replacing
from planner.model import InputError, Profile
from planner.model.observed import Observed, runs_of_profile
from planner.profiling import find_device

GPUS = ("L4", "T4", "V100", "P4")
DRAWS = 5
KNOWN_BATCHES, NEW_BATCHES = (1, 4, 8), (1, 2, 4, 8)
COLUMNS = ("gpu", "unit", "chosen", "budget", "block_median", "block_mean", "whole_median", "whole_mean", "cpu_seconds")

app = new_app("Study how few runs a new device takes.")


@app.command()
def study(
    data: Annotated[Path, typer.Option(help="Folder of PPipe's published data.")],
    out: Annotated[Path, typer.Option(help="CSV to write: errors in percent, a row per GPU, way of choosing, budget.")],
    gpus: Annotated[str, typer.Option(help="GPUs to leave out, one after the other.")] = ",".join(GPUS),
    known: Annotated[str, typer.Option(help="GPUs that are known besides; default: all others.")] = ",".join(GPUS),
    budgets: Annotated[str, typer.Option(help="How many runs (or blocks) to give back.")] = "0,5,10,20,50",
    unit: Annotated[str, typer.Option(help="What is given back at a time: run or block.")] = "run",
    seed: Annotated[int, typer.Option(min=0, help="Seed of random draws.")] = 0,
) -> None:
    """Leave each GPU out, give some of it back, and write how far off the rest is."""
    if unit not in ("run", "block"):
        raise InputError(f"--unit: expected run or block, got {unit!r}")
    names, others = _gpus("--gpus", gpus), _gpus("--known", known)
    numbers = [int(text) if text.strip().isdecimal() else -1 for text in budgets.split(",")]
    if min(numbers) < 0:
        raise InputError(f"--budgets: expected numbers of at least 0 such as 0,5,10, got {budgets!r}")
    for name in names:
        if set(others) <= {name}:
            raise InputError(f"--known: expected a GPU beside the one left out, {name}; name one more")
    profiles = [ppipe.read_profile(data, name, GPUS) for name in ppipe.list_dnns(data)]
    rows: list[dict[str, object]] = []
    with progress() as bar:
        for gpu in bar.track(names, description="leaving out"):
            rows += list(left_out(profiles, gpu, others, numbers, unit, seed))
            with replacing(out) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
                writer = csv.DictWriter(stream, COLUMNS)
                writer.writeheader()
                writer.writerows(rows)
    table = pd.DataFrame(rows)
    shown = table.groupby(["unit", "chosen", "budget"], sort=False)[list(COLUMNS[4:8])].mean().round(1)
    console.print(shown.to_string(), highlight=False, soft_wrap=True)
    console.print(f"{len(rows)} rows in {out}", highlight=False, soft_wrap=True)


def _gpus(option: str, text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not set(names) <= set(GPUS):
        raise InputError(f"{option}: expected some of {', '.join(GPUS)}, got {text!r}")
    return names


def left_out(
    profiles: Sequence[Profile], gpu: str, others: Sequence[str], budgets: Sequence[int], unit: str, seed: int
) -> Iterator[dict[str, object]]:
    """Yield a row per way of choosing and budget."""
    begin_s = process_time()
    blank = tuple(replace(profile, tables=()) for profile in profiles)
    runs = [run for profile in profiles for run in runs_of_profile(profile)]
    known = tuple(run for run in runs if run.device in others and run.device != gpu and run.batch in KNOWN_BATCHES)
    new = [run for run in runs if run.device == gpu and run.batch in NEW_BATCHES]
    batches = {(table.device, table.share): table.batches for profile in profiles for table in profile.tables}
    described = {name: find_device(name).features for name in GPUS}
    used = {key: sizes for key, sizes in batches.items() if key[0] == gpu or key[0] in others}
    predictions = predict_profiles(Observed(blank, known), (), described, used)
    cells, truth, of_run = predictions.cells.measured(new)
    mean, covariance = predictions.posterior.mean(cells), predictions.posterior.covariance(cells)
    noise = predictions.posterior.effects.noise
    by_run = [np.flatnonzero(of_run == number) for number in range(len(new))]
    candidates = by_run if unit == "run" else [np.array([at]) for at in range(len(cells))]
    rng = np.random.default_rng(seed)
    offered = subset(candidates, rng)
    chosen = next_measurements(covariance, offered, noise, max(budgets))
    orders = {"suggested": [[offered[at] for at in chosen]]}
    orders["random"] = [[candidates[at] for at in rng.permutation(len(candidates))] for _ in range(DRAWS)]
    for budget in budgets:
        for name, draws in orders.items():
            errors = []
            for order in draws:
                given = np.concatenate([np.zeros(0, np.int64), *order[:budget]]).astype(np.int64)
                errors.append(errors_after(mean, covariance, noise, truth, of_run, given))
            row: dict[str, object] = {"gpu": gpu, "unit": unit, "chosen": name, "budget": budget}
            row |= dict(zip(COLUMNS[4:8], np.round(100 * np.mean(errors, axis=0), 2).tolist(), strict=True))
            yield row | {"cpu_seconds": round(process_time() - begin_s, 1)}


def subset(candidates: list[Ints], rng: np.random.Generator, most: int = 400) -> list[Ints]:
    """Return at most so many candidates: choosing among thousands of single blocks takes long and gains little."""
    return [candidates[at] for at in np.sort(rng.permutation(len(candidates))[:most])]


def errors_after(
    mean: Floats, covariance: Floats, noise: float, truth: Floats, of_run: Ints, given: Ints
) -> tuple[float, float, float, float]:
    """Return median and mean errors, of blocks and of whole runs that were not (wholly) given."""
    predicted = mean
    if len(given):
        seen = covariance[np.ix_(given, given)] + noise * np.eye(len(given))
        predicted = mean + covariance[:, given] @ np.linalg.solve(seen, truth[given] - mean[given])
    hidden = np.ones(len(truth), bool)
    hidden[given] = False
    block = np.abs(np.expm1(predicted - truth))[hidden]
    mixed = np.where(hidden, predicted, truth)
    whole = np.bincount(of_run, np.exp(mixed)) / np.bincount(of_run, np.exp(truth)) - 1
    open_runs = np.abs(whole[np.bincount(of_run, hidden) > 0])
    return float(np.median(block)), float(block.mean()), float(np.median(open_runs)), float(open_runs.mean())


if __name__ == "__main__":
    run(app)
