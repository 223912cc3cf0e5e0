"""The command that tells where to cut a model between two devices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planner.cli.app import about, progress
from planner.cli.model_files import BatchAxisOption, ConstantOption, FixOption, StateOption, settings_of
from planner.cli.output import Column, JsonOption, Output, output
from planner.files import load_profile, write_text
from planner.model import InputError, ModelSettings, Profile
from simulator.cli.options import CoresOption, OversubscribeOption, SlowdownOption

if TYPE_CHECKING:
    import onnx_ir as ir

    from simulator.executor import Settings
    from simulator.executor.pareto import SplitPoint, WireLink
    from simulator.executor.trials import Trial


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command()(pareto)


def pareto(
    model: Annotated[
        str,
        typer.Argument(help="A profile (.json): cuts are between its blocks. Or a .onnx file: every cut, estimated."),
    ],
    devices: Annotated[str, typer.Option(help="Two device types, A,B: of the profile, or of the catalogue.")],
    link: Annotated[
        str, typer.Option(metavar="MS,GBPS", help="The link between them: latency (ms), bandwidth (Gbit/s).")
    ],
    batch: Annotated[int, typer.Option(help="Batch size.", min=1)] = 1,
    measure: Annotated[
        int,
        typer.Option(
            min=0, help="Try so many points on this machine: the front first, then even steps through the rest."
        ),
    ] = 0,
    onnx: Annotated[Path | None, typer.Option(help="The model, for --measure with a profile.")] = None,
    seconds: Annotated[float, typer.Option(help="Length of each of a point's two tries, s.")] = 2.0,
    cores: CoresOption = None,
    slowdown: SlowdownOption = None,
    oversubscribe: OversubscribeOption = False,
    fix: FixOption = None,
    constant: ConstantOption = None,
    state: StateOption = None,
    batch_axis: BatchAxisOption = None,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("out/pareto"),
    as_json: JsonOption = False,
) -> None:
    """Latency, throughput and bytes of every cut of a model between two devices, in both orders; the front marked."""
    from simulator.cli.devices import emulation_of
    from simulator.executor import Settings
    from simulator.executor.pareto import split_points, split_table
    from simulator.executor.trials import Trial
    from simulator.results.measured_plots import split_tradeoff
    from simulator.results.style import save_figure
    from simulator.results.tables import as_cells

    pair = _pair(devices)
    wire = _link(link)
    profile, given = _profile_of(model, pair, batch, onnx, settings_of(fix, constant, state, batch_axis))
    points = split_points(profile, pair, wire, batch)
    if measure:
        if given is None:
            raise InputError("--measure needs the model itself; give it with --onnx")
        emulation = emulation_of(cores, slowdown, True, pair, [profile])
        settings = Settings(emulation=emulation, oversubscribe=oversubscribe)
        points = _measured(points, measure, profile, given, settings, Trial(seconds), wire)
    title = f"{profile.name}, batch {batch}, link {wire.hop_latency_us / 1000:g} ms, {wire.bandwidth_gbps:g} Gbit/s"
    table = split_table(points)
    write_text(out / "pareto.csv", as_cells(table).to_csv(index=False, float_format="%.6g"))
    save_figure(split_tradeoff(table, title=title), out / "pareto.png")
    with output(as_json) as printed:
        printed.value("points", [{str(key): value for key, value in row.items()} for row in table.to_dict("records")])
        _show(points, printed)
        printed.line(f"{len(points)} points in {out / 'pareto.csv'}, drawn in pareto.png")


def _pair(text: str) -> tuple[str, str]:
    names = [name.strip() for name in text.split(",")]
    if len(names) != 2 or not all(names):
        raise InputError(f"--devices: expected two device types A,B, got {text!r}")
    return names[0], names[1]


def _link(text: str) -> WireLink:
    from simulator.executor.pareto import WireLink

    try:
        latency_ms, bandwidth_gbps = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--link: expected MS,GBPS (for example 0.5,1), got {text!r}") from None
    return WireLink(1000 * latency_ms, bandwidth_gbps)


def _profile_of(
    text: str, devices: tuple[str, str], batch: int, onnx: Path | None, options: ModelSettings
) -> tuple[Profile, ir.Model | None]:
    """Return a profile that was given, or an estimate per layer for a model; and the model, where there is one."""
    from planner.files.models import load_model
    from simulator.cli.devices import load_profiled
    from simulator.executor.stages import estimate_per_layer

    path = Path(text)
    if path.suffix == ".json":
        if options != ModelSettings():
            raise InputError("--fix and the like are for .onnx files; a profile has its own settings")
        profile = load_profile(path)
        return profile, None if onnx is None else load_profiled(onnx, profile)
    model = load_model(path)
    with about(path):
        return estimate_per_layer(model, path.stem, devices, batch, options), model


def _measured(
    points: tuple[SplitPoint, ...],
    count: int,
    profile: Profile,
    model: ir.Model,
    settings: Settings,
    trial: Trial,
    link: WireLink,
) -> tuple[SplitPoint, ...]:
    """Try the chosen points, one after the other."""
    from simulator.executor.trials import try_point

    found = list(points)
    with progress() as bar:
        chosen = _choose(points, count)
        for index in bar.track(chosen, description="trying points"):
            found[index] = try_point(points[index], profile, model, settings, trial, link)
    return tuple(found)


def _choose(points: tuple[SplitPoint, ...], count: int) -> list[int]:
    """Return the indices of the points to try: the front, then even steps through the rest."""
    front = [index for index, point in enumerate(points) if point.on_front]
    rest = [index for index, point in enumerate(points) if not point.on_front]
    if count <= len(front):
        return [front[len(front) * step // count] for step in range(count)]
    more = min(count - len(front), len(rest))
    return sorted(front + [rest[len(rest) * step // more] for step in range(more)])


COLUMNS = {
    "cut": Column("cut"),
    "latency_ms": Column("ms", "{:.2f}".format),
    "throughput_rps": Column("req/s", "{:.1f}".format),
    "bytes_per_request": Column("kB", lambda size: f"{size / 1000:.0f}"),
    "on_front": Column("front", lambda there: "*" if there else ""),
    "measured_ms": Column("measured ms", "{:.2f}".format),
    "measured_rps": Column("req/s", "{:.1f}".format),
    "speed_up": Column("speed-up", "{:.2f} times".format),
}


def _show(points: tuple[SplitPoint, ...], printed: Output) -> None:
    """Show the front and what was measured; the speed-up is over one batch under way at a time."""
    rows = []
    for point in points:
        if not (point.on_front or point.measured):
            continue
        row: dict[str, Any] = {
            "cut": point.name,
            "latency_ms": point.predicted.latency_us / 1000,
            "throughput_rps": point.predicted.throughput_rps,
            "bytes_per_request": point.bytes_per_request,
            "on_front": point.on_front,
        }
        if point.measured is not None and point.sequential is not None:
            ratio = point.measured.throughput_rps / point.sequential.throughput_rps
            row["measured_ms"] = point.measured.latency_us / 1000
            row["measured_rps"] = point.measured.throughput_rps
            row["speed_up"] = ratio if point.cut is not None else None
        rows.append(row)
    printed.table("front", COLUMNS, rows)
