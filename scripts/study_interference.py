#!/usr/bin/env python
"""How well latencies beside other models are told from those of other pairs: observations of pairs, some held out.

Observations as `planner observe` makes them, each model alone and beside others. Of the runs beside others some are
known, drawn at random; the rest are predicted (`planner.completion.slowdowns`) and held against what was measured:

    for a in MODELS: for b in MODELS: python -m planner observe a --beside b --device here --out out/pairs.json

With `--against` all runs of the file are known, and those of a later file, of the same pairs, are predicted.

Errors are of whole models' latencies beside others: as if they ran alone, with one slowdown for all pairs of a platform
(the mean of those known), and as predicted; against later runs also of the same pair's earlier run, which tells how
well such runs repeat. And how many kept their bound. Beside the rows a picture: slowdowns predicted over measured.
"""

from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from matplotlib.figure import Figure

from planner.cli.app import console, new_app, progress, run
from planner.completion.cells import Place
from planner.completion.profiles import predict_profiles
from planner.completion.slowdowns import predict_beside
from planner.files import load_observed, write_csv
from planner.model import InputError
from planner.model.observed import Observed, Run
from planner.model.segments import on_device
from simulator.results.style import COLOURS, INK, MARKERS, figure_of, finish, legend, new_axes, save_figure

app = new_app("Study latencies beside other models.")


@app.command()
def study(
    observations: Annotated[Path, typer.Argument(help="Observations of models, alone and beside others.")],
    out: Annotated[Path, typer.Option(help="CSV to write: a row per held-out run and draw.")],
    against: Annotated[Path | None, typer.Option(help="Observations of the same pairs at another time.")] = None,
    known: Annotated[float, typer.Option(help="Part of the runs beside others that is known.")] = 0.5,
    draws: Annotated[int, typer.Option(min=1, help="Random draws of what is known.")] = 10,
    level: Annotated[float, typer.Option(help="Level of bounds.")] = 0.8,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws.")] = 0,
) -> None:
    """Hold out runs beside others, predict them, and write how far off that is."""
    observed = load_observed(observations)
    if not 0 < known < 1:
        raise InputError(f"--known: expected a number between 0 and 1, got {known}")
    alone = tuple(each for each in observed.runs if not each.beside)
    places = {each.place[:4] for each in alone}
    pairs = _pairs(observations, observed, places)
    rows: list[dict[str, object]] = []
    if against is None:
        with progress() as bar:
            for draw in bar.track(range(draws), description="holding out"):
                order = np.random.default_rng([seed, draw]).permutation(len(pairs))
                first = round(known * len(pairs))
                given, left = ([pairs[at] for at in part] for part in (order[:first], order[first:]))
                seen = Observed(observed.models, (*alone, *given))
                rows += [row | {"draw": draw} for row in held_out(seen, given, left, level)]
    else:
        later = _pairs(against, load_observed(against), places)
        rows += held_out(observed, pairs, later, level)
    write_csv(out, [list(rows[0]), *(list(row.values()) for row in rows)])
    table = pd.DataFrame(rows)
    save_figure(draw_slowdowns(table), out.with_suffix(".png"))
    shown = table.groupby("platform")
    errors = [name for name in table.columns if name.startswith("error")]
    figures = shown[["slowdown", *errors]].median()
    figures["within_bound"] = shown["within_bound"].mean()
    console.print(figures.round(3).to_string(), highlight=False, soft_wrap=True)
    console.print(f"{len(rows)} rows in {out}, and a picture beside it", highlight=False, soft_wrap=True)


def _pairs(path: Path, observed: Observed, places: Set[Place]) -> list[Run]:
    """Return the runs beside others, of models that were timed alone in the same place."""
    pairs = [each for each in observed.merged() if each.beside]
    if len(pairs) < 4:
        raise InputError(f"{path}: expected at least 4 runs beside others, got {len(pairs)}; observe some")
    for pair in pairs:
        if pair.place[:4] not in places:
            raise InputError(f"{path}: {pair}: its model was not timed alone there; observe it without --beside")
    return pairs


def draw_slowdowns(rows: pd.DataFrame) -> Figure:
    """Draw predicted slowdowns over measured ones."""
    ax = new_axes(5.6, 5.0)
    for number, (platform, part) in enumerate(rows.groupby("platform")):
        style = {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
        ax.scatter(part["slowdown"], part["predicted"], s=16, alpha=0.6, label=platform, **style)
    ends = rows[["slowdown", "predicted"]].to_numpy()
    ax.plot([ends.min(), ends.max()], [ends.min(), ends.max()], "--", color=INK, linewidth=0.8)
    finish(ax, x="time beside another / alone, measured", y="predicted", title="Models beside others; dashed: equal")
    legend(ax)
    return figure_of(ax)


def held_out(seen: Observed, given: Sequence[Run], left: Sequence[Run], level: float) -> Iterator[dict[str, object]]:
    """Yield a row per run that is left: errors are of the whole model's latency."""
    alone = predict_profiles(seen)
    solo_us = {each.place[:4]: sum(value or 0 for value in each.latency_us) for each in alone.runs}
    slowdowns = {beside: predict_beside(alone, seen, beside) for beside in {each.beside for each in left}}
    before_us = {pair.place: sum(value or 0 for value in pair.latency_us) for pair in given}
    for one in left:
        place = one.place[:4]
        taken_us = sum(value or 0 for value in one.latency_us)
        same = [pair for pair in given if (pair.device, pair.share) == (one.device, one.share)]
        factors = [sum(value or 0 for value in pair.latency_us) / solo_us[pair.place[:4]] for pair in same]
        predicted = slowdowns[one.beside].predicted(place)
        whole_us = predicted.latency_us.sum()
        bound_us = whole_us * np.exp(slowdowns[one.beside].margin(level) * predicted.sigma)
        again = {"error_again": round(abs(before_us[one.place] / taken_us - 1), 4)} if one.place in before_us else {}
        yield {
            "platform": on_device(one.device, one.share),
            "model": one.model,
            "beside": "+".join(one.beside),
            "slowdown": round(taken_us / solo_us[place], 4),
            "predicted": round(float(whole_us) / solo_us[place], 4),
            "error_alone": round(abs(solo_us[place] / taken_us - 1), 4),
            "error_constant": round(abs(float(np.mean(factors)) * solo_us[place] / taken_us - 1), 4),
            "error_predicted": round(abs(whole_us / taken_us - 1), 4),
            "within_bound": bool(taken_us <= bound_us),
        } | again


if __name__ == "__main__":
    run(app)
