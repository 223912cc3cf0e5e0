#!/usr/bin/env python
"""How well latencies beside other models are told from those of other pairs: observations of pairs, some held out.

Observations as `planner observe` makes them, each model alone and beside others. Of the runs beside others some are
known, drawn at random; the rest are predicted (`planner.completion.slowdowns`) and held against what was measured:

    for a in MODELS: for b in MODELS: python -m planner observe a --beside b --device here --out out/pairs.json

Errors are of whole models' latencies beside others: as if they ran alone, with one slowdown for all pairs of a platform
(the mean of those known), and as predicted; and how many kept their bound.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer

from planner.cli.app import console, new_app, progress, run
from planner.completion.profiles import predict_profiles
from planner.completion.slowdowns import predict_beside
from planner.files import load_observed, write_csv
from planner.model import InputError
from planner.model.observed import Observed, Run
from planner.model.segments import on_device

app = new_app("Study latencies beside other models.")


@app.command()
def study(
    observations: Annotated[Path, typer.Argument(help="Observations of models, alone and beside others.")],
    out: Annotated[Path, typer.Option(help="CSV to write: a row per held-out run and draw.")],
    known: Annotated[float, typer.Option(help="Part of the runs beside others that is known.")] = 0.5,
    draws: Annotated[int, typer.Option(min=1, help="Random draws of what is known.")] = 10,
    level: Annotated[float, typer.Option(help="Level of bounds.")] = 0.8,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws.")] = 0,
) -> None:
    """Hold out runs beside others, predict them, and write how far off that is."""
    observed = load_observed(observations)
    if not 0 < known < 1:
        raise InputError(f"--known: expected a number between 0 and 1, got {known}")
    alone = tuple(run for run in observed.runs if not run.beside)
    pairs = [run for run in observed.merged() if run.beside]
    if len(pairs) < 4:
        raise InputError(f"{observations}: expected at least 4 runs beside others, got {len(pairs)}; observe some")
    rows: list[dict[str, object]] = []
    with progress() as bar:
        for draw in bar.track(range(draws), description="holding out"):
            order = np.random.default_rng([seed, draw]).permutation(len(pairs))
            first = round(known * len(pairs))
            given, left = ([pairs[at] for at in part] for part in (order[:first], order[first:]))
            seen = Observed(observed.models, (*alone, *given))
            rows += [row | {"draw": draw} for row in held_out(seen, given, left, level)]
    write_csv(out, [list(rows[0]), *(list(row.values()) for row in rows)])
    shown = pd.DataFrame(rows).groupby("platform")
    table = shown[["slowdown", "error_alone", "error_constant", "error_predicted"]].median()
    table["within_bound"] = shown["within_bound"].mean()
    console.print(table.round(3).to_string(), highlight=False, soft_wrap=True)
    console.print(f"{len(rows)} rows in {out}", highlight=False, soft_wrap=True)


def held_out(seen: Observed, given: Sequence[Run], left: Sequence[Run], level: float) -> Iterator[dict[str, object]]:
    """Yield a row per run that is left: errors are of the whole model's latency."""
    alone = predict_profiles(seen)
    solo_us = {each.place[:4]: sum(value or 0 for value in each.latency_us) for each in alone.runs}
    slowdowns = {beside: predict_beside(alone, seen, beside) for beside in {each.beside for each in left}}
    for one in left:
        place = one.place[:4]
        taken_us = sum(value or 0 for value in one.latency_us)
        same = [pair for pair in given if (pair.device, pair.share) == (one.device, one.share)]
        factors = [sum(value or 0 for value in pair.latency_us) / solo_us[pair.place[:4]] for pair in same]
        predicted = slowdowns[one.beside].predicted(place)
        whole_us = predicted.latency_us.sum()
        bound_us = whole_us * np.exp(slowdowns[one.beside].margin(level) * predicted.sigma)
        yield {
            "platform": on_device(one.device, one.share),
            "model": one.model,
            "beside": "+".join(one.beside),
            "slowdown": round(taken_us / solo_us[place], 4),
            "error_alone": round(abs(solo_us[place] / taken_us - 1), 4),
            "error_constant": round(abs(float(np.mean(factors)) * solo_us[place] / taken_us - 1), 4),
            "error_predicted": round(abs(whole_us / taken_us - 1), 4),
            "within_bound": bool(taken_us <= bound_us),
        }


if __name__ == "__main__":
    run(app)
