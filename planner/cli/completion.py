"""Commands that make whole profiles of few measurements: suggest what to time next, complete the rest."""

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planner.cli.app import errors
from planner.cli.lists import names_in
from planner.cli.output import Column, JsonOption, output
from planner.files import file_name, load_observed, load_plan, save
from planner.model import InputError
from planner.model.observed import Observed
from planner.model.segments import share_text

if TYPE_CHECKING:
    from planner.completion.cells import Place
    from planner.completion.plans import Relied
    from planner.completion.profiles import Predictions


class CalibrateOn(StrEnum):
    """Which runs calibrate bounds."""

    ALL = "all"
    CHOSEN = "chosen"


ObservationsArgument = Annotated[Path, typer.Argument(help="Observations, as `observe` writes them.")]
PlanOption = Annotated[
    Path | None,
    typer.Option("--for", help="A plan: only the runs that it rests on and that were not measured."),
]
FeaturesOption = Annotated[
    bool, typer.Option(help="Use peak rates and bandwidths, where the catalogue has all devices.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command()(suggest)
    app.command()(complete)


def suggest(
    observations: ObservationsArgument,
    device: Annotated[str, typer.Option(help="The device to learn about; with --for, only its runs.")] = "",
    for_plan: PlanOption = None,
    budget: Annotated[int, typer.Option(min=1, help="How many runs to suggest, at most.")] = 10,
    features: FeaturesOption = True,
    as_json: JsonOption = False,
) -> None:
    """Tell which runs to time next: those that teach most about a device, or those that a plan rests on.

    About a device: with the typical error of its latencies after each run. For a plan: with the requests/s that each
    run carries, most first, and the error that its latency may have. Once they are timed (`observe --for`), complete
    and plan again; a plan that rests on nothing but measurements is as good as one made from whole profiles.
    """
    observed = load_observed(observations)
    if for_plan is None:
        if not device.strip():
            raise InputError("--device: expected the device to learn about, or a plan with --for; give one of the two")
        with errors.status("reading what the observations say"):
            predictions = _predictions(observed, [device], features, learn=device)
            found = predictions.suggest(device, budget)
        columns = {**RUN_COLUMNS, "error": Column("error then", "{:.1%}".format)}
        rows = [_row(number, place) | {"error": error} for number, (place, error) in enumerate(found, start=1)]
        with output(as_json) as printed:
            printed.table("suggested", columns, rows)
        return
    from planner.completion.plans import relied_on, unmeasured

    plan = load_plan(for_plan)
    every, left = relied_on(plan, observed), unmeasured(plan, observed)
    asked = [one for one in left if device in ("", one.place[1])][:budget]
    with errors.status("reading what the observations say"):
        sigmas = _sigmas(observed, asked, features)
    columns = {
        **RUN_COLUMNS,
        "throughput_rps": Column("requests/s", "{:.4g}".format),
        "error": Column("error now", "{:.1%}".format),
    }
    rows = [
        _row(number, one.place) | {"throughput_rps": one.throughput_rps, "error": sigma}
        for number, (one, sigma) in enumerate(zip(asked, sigmas, strict=True), start=1)
    ]
    with output(as_json) as printed:
        printed.value("relied_on", len(every))
        printed.value("unmeasured", len(left))
        printed.line(f"{for_plan} rests on {len(every)} runs, {len(left)} of which were not measured")
        if rows:
            printed.table("suggested", columns, rows)
            printed.line(
                f"time them: python -m planner observe MODELS --device NAME --for {for_plan} --out {observations}"
            )


RUN_COLUMNS = {
    "run": Column("run"),
    "model": Column("model"),
    "device": Column("device"),
    "share": Column("share", share_text),
    "batch": Column("batch"),
}


def _row(number: int, place: "Place") -> dict[str, Any]:
    return {"run": number, **dict(zip(("model", "device", "share", "batch"), place, strict=True))}


def complete(
    observations: ObservationsArgument,
    out: Annotated[Path, typer.Option(help="Folder for the profiles, a file per model.")],
    bound: Annotated[
        str, typer.Option(help="Levels of upper bounds to add, such as 0.95 or 0.9,0.95; none leaves them out.")
    ] = "0.95",
    devices: Annotated[
        str, typer.Option(help="Devices to complete, e.g. L4,T4; default: all that were observed.")
    ] = "",
    calibrate_on: Annotated[
        CalibrateOn,
        typer.Option(
            help="all runs; or those that plans chose (`observe --for`), for bounds after an optimiser's choice."
        ),
    ] = CalibrateOn.ALL,
    beside: Annotated[
        str, typer.Option(help="Models that run on the device meanwhile, e.g. resnet18: latencies beside them.")
    ] = "",
    features: FeaturesOption = True,
    as_json: JsonOption = False,
) -> None:
    """Write whole profiles: what was measured, estimates of the rest, and upper bounds of sums of blocks.

    What was measured is its own bound. Plan with `latency = {bound = 0.95}` under `[options]` of the problem, see with
    `suggest --for PLAN` which runs the plan rests on, time them with `observe --for PLAN`, and complete again.
    """
    from planner.completion.slowdowns import predict_beside

    levels, others, asked = _levels(bound), names_in(beside), names_in(devices)
    chosen = calibrate_on is CalibrateOn.CHOSEN
    if others and chosen:
        raise InputError("--calibrate-on chosen: plans choose among runs made alone; leave out one of it and --beside")
    observed = load_observed(observations)
    with errors.status("completing"):
        alone = _predictions(observed, asked, features)
        if others:
            slowdowns = predict_beside(alone, observed, others)
            profiles, bounds = slowdowns.profiles(), [slowdowns.profiles(level) for level in levels]
            margins = {level: slowdowns.margin(level) for level in levels}
            rows = f"{len(slowdowns.runs)} runs beside others"
        else:
            profiles, bounds = alone.profiles(), [alone.bounded(level, chosen=chosen) for level in levels]
            margins = {level: alone.margin(level, chosen=chosen) for level in levels}
            rows = f"{len(alone.calibrating(chosen=chosen))} runs{' that plans chose' if chosen else ''}"
    paths = [out / f"{file_name(profile.name)}.json" for profile in profiles]
    for number, (profile, path) in enumerate(zip(profiles, paths, strict=True)):
        tables, limits = profile.tables, tuple(table for of_level in bounds for table in of_level[number].tables)
        if asked:
            tables, limits = (tuple(each for each in part if each.device in asked) for part in (tables, limits))
        save(replace(profile, tables=tables, bounds=limits), path)
    with output(as_json) as printed:
        printed.value("profiles", [str(path) for path in paths])
        printed.value("margins", {f"{level:g}": margin for level, margin in margins.items()})
        for profile, path in zip(profiles, paths, strict=True):
            printed.line(f"wrote {path}: {profile.tables[0].provenance.method}")
        for level, margin in margins.items():
            text = f"bounds of level {level:g}: {margin:.2f} sigmas, calibrated on {rows} left out one by one"
            printed.line(text)


def _predictions(
    observed: Observed,
    devices: Sequence[str],
    features: bool,
    learn: str | None = None,
    wanted: Sequence["Place"] = (),
) -> "Predictions":
    """Complete ``devices``; ``learn`` one at all shares and batches; add the ``wanted`` places to what is completed."""
    from planner.completion.cells import platforms_of, platforms_to_learn
    from planner.completion.profiles import predict_profiles
    from planner.profiling import device_catalogue

    names = {run.device for run in observed.runs} | set(devices) | {device for _, device, *_ in wanted}
    catalogue = device_catalogue()
    described = None
    if features and names <= set(catalogue):
        described = {name: catalogue[name].features for name in names}
    batches = None
    if learn is not None:
        batches = platforms_to_learn(observed, observed.runs, learn, described=described is not None)
    if wanted:
        sizes = {key: set(found) for key, found in platforms_of(observed, observed.runs, devices).items()}
        for _, device, share, batch in wanted:
            sizes.setdefault((device, share), set()).add(batch)
        batches = {key: tuple(sorted(found)) for key, found in sizes.items()}
    return predict_profiles(observed, devices, described, batches)


def _sigmas(observed: Observed, asked: Sequence["Relied"], features: bool) -> list[float]:
    """Return how far off the logarithm of each run's latency may be, in standard deviations."""
    if not asked:
        return []
    predicted = _predictions(observed, [], features, wanted=[one.place for one in asked]).predicted
    return [predicted[one.place].sigma for one in asked]


def _levels(text: str) -> list[float]:
    if text.strip() in ("", "none"):
        return []
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = [0.0]
    if not all(0 < level < 1 for level in found):
        raise InputError(f"--bound: expected numbers between 0 and 1 such as 0.95, got {text!r}")
    return list(dict.fromkeys(found))
