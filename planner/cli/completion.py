"""Commands that complete profiles from few measurements: observe, suggest, complete."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from planner.cli.app import console, errors, progress
from planner.cli.model_files import read_model, settings_of
from planner.cli.profile_model import cut_blocks
from planner.cli.profiling import names_in, numbers
from planner.files import load_observed, load_profile, ppipe, printable, save
from planner.model import InputError, Profile
from planner.model.observed import Observed, Run, runs_of_profile
from planner.model.segments import share_text

if TYPE_CHECKING:
    from planner.completion.profiles import Predictions

ObservationsArgument = Annotated[Path, typer.Argument(help="Observations, as `observe` writes them.")]
FeaturesOption = Annotated[
    bool, typer.Option(help="Use peak rates and bandwidths, where the catalogue has all devices.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command()(observe)
    app.command()(suggest)
    app.command()(complete)


def observe(
    models: Annotated[
        list[str],
        typer.Argument(help="What to time here: .onnx files or names (see `models`); or profiles, to take over."),
    ],
    out: Annotated[Path, typer.Option(help="Observations to write; if they exist, runs are added.")],
    device: Annotated[str, typer.Option(help="Name for this machine; not for profiles.")] = "",
    cores: Annotated[int, typer.Option(min=1, help="Cores of this machine that make up the device.")] = 1,
    shares: Annotated[str, typer.Option(help="Shares 1/k to time, each with k workers at once: 1,2.")] = "1",
    batches: Annotated[str, typer.Option(help="Batch sizes, for example 1,2,4,8.")] = "1,4",
    beside: Annotated[str, typer.Option(help="A model to keep running on the same cores meanwhile.")] = "",
    data: Annotated[
        Path | None, typer.Option(help="Folder of PPipe's published data: the models named are taken from there.")
    ] = None,
    blocks: Annotated[int, typer.Option(min=1, help="Blocks to cut a model into.")] = 10,
    clock: Annotated[
        str, typer.Option(help="wall, or cpu: processor time, for one core of a machine that others use as well.")
    ] = "wall",
    cap_s: Annotated[float, typer.Option(min=0.01, help="Seconds for one block at one batch size, at most.")] = 0.3,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds on new sessions.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random weights of a model given by name.")] = 0,
) -> None:
    """Time models block by block on this machine, alone or beside another; or take over what profiles measured.

    All runs go into one file, each with how it came about. What stands there already is timed again and kept beside:
    timings of one place that disagree are refused where they are used.
    """
    found = load_observed(out) if out.exists() else None
    if data is not None:
        for name in models:
            found = _added(found, _published(data, name))
    for text in [] if data is not None else models:
        if Path(text).suffix == ".json":
            found = _added(found, load_profile(Path(text)))
            continue
        if not device.strip():
            raise InputError(f"--device: expected a name for this machine, such as this-cpu, got {device!r}")
        profile, runs = _timed(
            text, found, device, cores, numbers(shares, "--shares"), numbers(batches, "--batches"), beside,
            blocks=blocks, clock=clock, cap_s=cap_s, rounds=rounds, seed=seed,
        )  # fmt: skip
        found = _with_runs(found, profile, runs)
        save(found, out)
    if found is None:
        raise InputError("nothing to observe; name models or profiles")
    save(found, out)
    console.print(f"{len(found.runs)} runs of {len(found.models)} models in {out}", highlight=False, soft_wrap=True)


def suggest(
    observations: ObservationsArgument,
    device: Annotated[str, typer.Option(help="The device to learn about.")],
    budget: Annotated[int, typer.Option(min=1, help="How many runs to suggest.")] = 10,
    features: FeaturesOption = True,
) -> None:
    """Tell which runs on a device to time next, and the typical error of its latencies after each of them."""
    with errors.status("reading what the observations say"):
        predictions = _predictions(load_observed(observations), [device], features, learn=device)
        found = predictions.suggest(device, budget)
    table = Table("run", "model", "share", "batch", "error then", box=None)
    for number, ((model, _, share, batch), error) in enumerate(found, start=1):
        table.add_row(str(number), printable(model), share_text(share), str(batch), f"{error:.1%}")
    console.print(table)


def complete(
    observations: ObservationsArgument,
    out: Annotated[Path, typer.Option(help="Folder for the profiles, a file per model.")],
    bound: Annotated[
        str, typer.Option(help="Levels of upper bounds to add, such as 0.95 or 0.9,0.95; none leaves them out.")
    ] = "0.95",
    devices: Annotated[
        str, typer.Option(help="Devices to complete, e.g. L4,T4; default: all that were observed.")
    ] = "",
    features: FeaturesOption = True,
) -> None:
    """Write whole profiles: what was measured, estimates of the rest, and upper bounds of sums of blocks."""
    levels = _levels(bound)
    with errors.status("completing"):
        predictions = _predictions(load_observed(observations), names_in(devices), features)
        bounds = [predictions.bounded(level) for level in levels]
        profiles = predictions.profiles()
    for number, profile in enumerate(profiles):
        tables = tuple(table for of_level in bounds for table in of_level[number].tables)
        path = out / f"{profile.name}.json"
        save(replace(profile, bounds=tables), path)
        console.print(f"wrote {path}: {profile.tables[0].provenance.method}", highlight=False, soft_wrap=True)
    for level in levels:
        margin = predictions.margin(level)
        console.print(
            f"bounds of level {level:g}: {margin:.2f} sigmas, calibrated on {len(predictions.runs)} runs left out one "
            "by one",
            highlight=False,
            soft_wrap=True,
        )


def _predictions(observed: Observed, devices: Sequence[str], features: bool, learn: str | None = None) -> "Predictions":
    from planner.completion.cells import platforms_to_learn
    from planner.completion.profiles import predict_profiles
    from planner.profiling import device_catalogue

    names = {run.device for run in observed.runs} | set(devices)
    catalogue = device_catalogue()
    described = None
    if features and names <= set(catalogue):
        described = {name: catalogue[name].features for name in names}
    batches = None
    if learn is not None:
        batches = platforms_to_learn(observed, observed.runs, learn, described=described is not None)
    return predict_profiles(observed, devices, described, batches)


def _timed(
    text: str,
    found: Observed | None,
    device: str,
    cores: int,
    shares: tuple[int, ...],
    batches: tuple[int, ...],
    beside: str,
    *,
    blocks: int,
    clock: str,
    cap_s: float,
    rounds: int,
    seed: int,
) -> tuple[Profile, tuple[Run, ...]]:
    """Time a model's blocks, and return its profile without latencies, and the runs."""
    from planner.profiling import DeviceAtHand, Effort, blank_profile, block_starts, measure_tables

    if clock not in ("wall", "cpu"):
        raise InputError(f"--clock: expected wall or cpu, got {clock!r}")
    at_hand = DeviceAtHand(device, cores, shares)
    file = read_model(text, settings_of(), seed)
    other = read_model(beside, settings_of(), seed).graph if beside else None
    known = {} if found is None else {model.name: model for model in found.models}
    if other is not None and other.name not in known:
        raise InputError(f"--beside {beside}: observe it alone first, so that the file knows its blocks")
    if file.graph.name in known:
        profile = known[file.graph.name]
        starts = block_starts(file.graph, profile)
    else:
        starts = cut_blocks(file.graph, [at_hand], [], blocks)
        profile = blank_profile(file.graph, starts, file.sha256)
    effort = Effort(cap_s=cap_s, rounds=rounds, clock="cpu" if clock == "cpu" else "wall")
    with progress() as bar:
        task = bar.add_task(f"timing {printable(file.graph.name)}", total=len(shares) * rounds * len(batches))
        sizes = file.batches(batches)
        tables = measure_tables(
            file.graph, starts, at_hand, sizes, effort, lambda _: bar.advance(task), [other] if other else []
        )
    return profile, runs_of_profile(replace(profile, tables=tables))


def _published(data: Path, name: str) -> Profile:
    devices = ("L4", "T4", "V100", "P4")
    if name not in ppipe.list_dnns(data):
        raise InputError(f"{data}: no DNN {name!r} there; expected one of {ppipe.list_dnns(data)}")
    return ppipe.read_profile(data, name, devices)


def _added(found: Observed | None, profile: Profile) -> Observed:
    """Return observations with a profile's measurements as runs; its estimates are kept as such."""
    runs = runs_of_profile(profile)
    if not runs:
        raise InputError(f"profile {profile.name}: nothing in it was measured; there is nothing to observe")
    estimated = tuple(table for table in profile.tables if table.provenance.kind == "estimated")
    return _with_runs(found, replace(profile, tables=estimated, bounds=()), runs)


def _with_runs(found: Observed | None, profile: Profile, runs: tuple[Run, ...]) -> Observed:
    if found is None:
        return Observed((profile,), runs)
    known = {model.name: model for model in found.models}
    if profile.name in known and known[profile.name].blocks != profile.blocks:
        raise InputError(
            f"{profile.name}: its blocks are not those that the observations have; observe it into another file"
        )
    models = found.models if profile.name in known else (*found.models, profile)
    have = set(found.runs)
    return Observed(models, (*found.runs, *(run for run in runs if run not in have)))


def _levels(text: str) -> list[float]:
    if text.strip() in ("", "none"):
        return []
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = [0.0]
    if not all(0 < level < 1 for level in found):
        raise InputError(f"--bound: expected numbers between 0 and 1 such as 0.95, got {text!r}")
    return found
