"""Commands that make profiles: profile, estimate, import-profile, merge-profiles."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planner.cli.app import console, errors, progress
from planner.cli.lists import names_in, numbers
from planner.cli.model_files import (
    BatchAxisOption,
    ConstantOption,
    FixOption,
    ModelArgument,
    ModelFile,
    SeedOption,
    StateOption,
    read_model,
    settings_of,
)
from planner.cli.models import say_opaque, write_model
from planner.cli.output import Column, JsonOption, output
from planner.cli.profile_model import cut_blocks
from planner.files import load_variants, save, save_variants
from planner.files.atomic import is_standard_output
from planner.model import InputError, ModelSettings, Profile
from planner.model.segments import share_text

if TYPE_CHECKING:
    import onnx_ir as ir

    from planner.profiling import DeviceAtHand, Effort, ModelGraph

OutOption = Annotated[
    Path,
    typer.Option(
        help="Profile to write; one that exists keeps its blocks, and is added to: latencies, or other sizes."
    ),
]
BatchesOption = Annotated[
    str | None, typer.Option(help="Batch sizes. [default: 1,2,4,8; 1 where requests cannot share a run]")
]
BlocksOption = Annotated[int, typer.Option(min=1, help="Blocks to cut a model into.")]
EvenOption = Annotated[
    bool, typer.Option("--even", help="Blocks of the most even runtime; else of the fewest bytes within bounds.")
]
ModelOutOption = Annotated[
    Path | None, typer.Option(help="Also write the model that was profiled, weights and all: what an executor runs.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command()(profile)
    app.command()(estimate)
    app.command("import-profile")(import_profile)
    app.command("merge-profiles")(merge_profiles)


def profile(
    model: ModelArgument,
    device: Annotated[str, typer.Option(help="Name for this machine in the profile.")],
    out: OutOption,
    batches: BatchesOption = None,
    cores: Annotated[int, typer.Option(min=1, help="Cores of this machine that make up the device.")] = 1,
    shares: Annotated[str, typer.Option(help="Shares 1/k to measure, each with k workers at once: 1,2.")] = "1",
    segment: Annotated[
        str, typer.Option(help="These cores, or this part of a GPU, are a segment of the device: '2 cores', 3g.40gb.")
    ] = "",
    beside: Annotated[
        list[str] | None, typer.Option(help="A model that runs on the device meanwhile, by name or file; repeatable.")
    ] = None,
    blocks: BlocksOption = 10,
    even: EvenOption = False,
    balance: Annotated[
        str, typer.Option(help="Devices of the catalogue on which blocks are to be balanced too, e.g. V100,T4.")
    ] = "",
    provider: Annotated[str, typer.Option(help="onnxruntime's execution provider.")] = "CPUExecutionProvider",
    cap_s: Annotated[float, typer.Option(min=0.01, help="Seconds for one block at one batch size, at most.")] = 1.0,
    width: Annotated[
        float, typer.Option(min=0.001, help="Stop when the median's 95 % confidence interval is within ± this fraction")
    ] = 0.02,
    rounds: Annotated[
        int, typer.Option(min=1, help="Rounds on new sessions: the spread then holds what differs between sittings.")
    ] = 5,
    clock: Annotated[
        str, typer.Option(help="wall, or cpu: processor time, for one core of a machine that others use as well.")
    ] = "wall",
    again: Annotated[bool, typer.Option("--again", help="Measure again what the profile has already.")] = False,
    fix: FixOption = None,
    constant: ConstantOption = None,
    state: StateOption = None,
    batch_axis: BatchAxisOption = None,
    seed: SeedOption = 0,
    model_out: ModelOutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the blocks of a model on this machine with onnxruntime.

    Latencies are medians; a profile that exists keeps its blocks and its other tables, and shares that it has
    already are not measured again unless asked for, so that an interrupted run goes on where it stopped.
    """
    from planner.profiling import DeviceAtHand, Effort, find_device

    asked = numbers(batches, "--batches") if batches is not None else None
    if not device.strip():
        raise InputError(f"--device: expected a name such as this-cpu, got {device!r}")
    if clock not in ("wall", "cpu"):
        raise InputError(f"--clock: expected wall or cpu, got {clock!r}")
    at_hand = DeviceAtHand(device, cores, numbers(shares, "--shares"), provider, segment or None)
    company = [read_model(other, ModelSettings(), seed).graph for other in beside or ()]
    file = read_model(model, settings_of(fix, constant, state, batch_axis), seed)
    graph, sizes = file.graph, file.batches(asked)
    if model_out is not None:
        _write_profiled(model, file.given, model_out)
    helpers = [find_device(other) for other in names_in(balance)]
    blank, starts, others = _start(out, file, lambda: cut_blocks(graph, [at_hand], helpers, blocks, even=even))
    known = [k for k in at_hand.shares if _has(blank, at_hand, k, sizes, tuple(other.name for other in company))]
    missing = [k for k in at_hand.shares if again or k not in known]
    if not missing:
        errors.print(f"{out} has all of it; --again measures it again")
        return
    effort = Effort(cap_s=cap_s, width=width, rounds=rounds, clock="cpu" if clock == "cpu" else "wall")
    found = blank
    for found in _measured(blank, graph, starts, replace(at_hand, shares=tuple(missing)), sizes, effort, company):
        if not is_standard_output(out):  # what is interrupted goes on where it stopped
            save_variants((*others, found), out)
    if is_standard_output(out):
        save_variants((*others, found), out)
    _show(found, out, as_json)


def _measured(
    known: Profile,
    graph: "ModelGraph",
    starts: Sequence[int],
    device: "DeviceAtHand",
    batches: Sequence[int],
    effort: "Effort",
    company: Sequence["ModelGraph"],
) -> Iterator[Profile]:
    """Yield a profile with one more share of a device measured, share by share, under a progress bar."""
    from planner.profiling import measure_tables, with_tables

    with progress() as bar:
        steps = len(device.shares) * effort.rounds * len(batches)
        task = bar.add_task(f"measuring {graph.name} on {device.name}", total=steps)
        for share in device.shares:
            one = replace(device, shares=(share,))
            tables = measure_tables(graph, starts, one, batches, effort, lambda _: bar.advance(task), company)
            known = with_tables(known, tables)
            yield known


def estimate(
    model: ModelArgument,
    device: Annotated[str, typer.Option(help="Devices of the catalogue, e.g. V100,RaspberryPi5.")],
    out: OutOption,
    batches: BatchesOption = None,
    shares: Annotated[str, typer.Option(help="Limit the shares 1/k to these; default: all that a device offers.")] = "",
    blocks: BlocksOption = 10,
    even: EvenOption = False,
    fix: FixOption = None,
    constant: ConstantOption = None,
    state: StateOption = None,
    batch_axis: BatchAxisOption = None,
    seed: SeedOption = 0,
    model_out: ModelOutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Estimate the blocks of a model on devices that are not at hand, from datasheet figures (a roofline per layer)."""
    from planner.profiling import estimate_tables, find_device, with_tables

    asked = numbers(batches, "--batches") if batches is not None else None
    limit = numbers(shares, "--shares") if shares else None
    devices = [find_device(other) for other in names_in(device)]
    if not devices:
        raise InputError(f"--device: expected names such as T4,L4, got {device!r}")
    for one in devices:
        if limit and not set(limit) & set(one.shares):
            offered = ", ".join(f"1/{k}" for k in one.shares)
            raise InputError(
                f"--shares: {one.name} offers {offered} and none of {shares}; leave it out, or ask for one"
            )
    file = read_model(model, settings_of(fix, constant, state, batch_axis), seed)
    graph, sizes = file.graph, file.batches(asked)
    if model_out is not None:
        _write_profiled(model, file.given, model_out)
    blank, starts, others = _start(out, file, lambda: cut_blocks(graph, [], devices, blocks, even=even))
    say_opaque(graph)
    found = with_tables(blank, estimate_tables(graph, starts, devices, sizes, limit))
    save_variants((*others, found), out)
    _show(found, out, as_json)


def import_profile(
    csv: Annotated[Path, typer.Argument(help="Measurements: device,share,batch,block,latency_us, blocks from 0.")],
    cuts: Annotated[Path, typer.Option(help="Bytes per request between blocks: block,cut_bytes.")],
    out: Annotated[Path, typer.Option(help="Profile to write.")],
    name: Annotated[str, typer.Option(help="The model's name; default: the CSV file's.")] = "",
    batches: Annotated[str, typer.Option(help="Batch sizes that must be there, for example 1,2,4.")] = "",
    date: Annotated[str | None, typer.Option(help="When it was measured, YYYY-MM-DD.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a profile of your own measurements."""
    from planner.files.measurements import load_measurements

    asked = numbers(batches, "--batches") if batches else ()
    found = load_measurements(csv, cuts, name or csv.stem, date=date, batches=asked)
    save(found, out)
    _show(found, out, as_json)


def merge_profiles(
    profiles: Annotated[list[Path], typer.Argument(help="Profiles of one model, from several machines.")],
    out: Annotated[Path, typer.Option(help="Profile to write; one that is there is replaced.")],
    as_json: JsonOption = False,
) -> None:
    """Join profiles of one model that were made on several machines: the latencies of all of them in one file.

    They must have the same blocks: take a profile along and profile into it on the next machine, or into copies of it.
    """
    from planner.profiling import joined

    found = joined([(str(path), profile) for path in profiles for profile in load_variants(path)])
    save_variants(found, out)
    with output(as_json) as printed:
        rows = [{"profile": each.name} | row for each in found for row in _rows(each)]
        printed.table("tables", {"profile": Column("profile")} | PROFILE_COLUMNS, rows)
        printed.line(f"wrote {out}: {', '.join(found[0].devices)}")


def _has(known: Profile, device: "DeviceAtHand", share: int, batches: tuple[int, ...], beside: tuple[str, ...]) -> bool:
    """Tell whether a profile has what is to be measured."""
    key = device.name, device.share_of(share)
    return known.has(*key) and known.table(*key).batches == batches and known.table(*key).beside == beside


def _start(
    out: Path, file: ModelFile, cut: Callable[[], tuple[int, ...]]
) -> tuple[Profile, tuple[int, ...], tuple[Profile, ...]]:
    """Return what ``out`` has of a model with these settings, and beside.

    That is a profile, without latencies if it is a new one, the layers at which its blocks begin, and profiles of the
    same model at other sizes.
    """
    from planner.profiling import blank_profile, block_starts

    kept = load_variants(out) if out.exists() else ()
    for found in kept:
        if found.model_sha256 not in (None, file.sha256):
            raise InputError(
                f"{out}: is the profile of another model file (hash {str(found.model_sha256)[:12]}, "
                f"not {file.sha256[:12]}); choose another --out"
            )
    others = tuple(found for found in kept if found.model_sha256 and not _same_sizes(found.settings, file.settings))
    own = next((found for found in kept if found not in others), None)
    if own is None:
        starts = cut()
        return replace(blank_profile(file.graph, starts, file.sha256), settings=file.settings), starts, others
    if own.settings != file.settings:
        raise InputError(f"{out}: is of the same model read with other settings; give the same ones, or another --out")
    return own, block_starts(file.graph, own), others


def _same_sizes(first: ModelSettings | None, second: ModelSettings | None) -> bool:
    return (first or ModelSettings()).sizes == (second or ModelSettings()).sizes


def _write_profiled(text: str, model: "ir.Model", out: Path) -> None:
    """Write the model that a command was given: a copy of its file, or what was built by its name."""
    from planner.files.models import copy_model

    path = Path(text)
    if not path.exists():
        write_model(model, out)
        return
    copy_model(path, out)
    console.print(f"wrote {out}", highlight=False, soft_wrap=True)


PROFILE_COLUMNS = {
    "device": Column("device"),
    "share": Column("share", share_text),
    "smallest": Column("smallest batch"),
    "largest": Column("largest batch"),
    "kind": Column("known by"),
}


def _rows(profile: Profile) -> list[dict[str, Any]]:
    """Return a row per table: what the whole model takes at its smallest and largest batch."""
    rows = []
    for table in profile.tables:
        ms = [sum(latencies) / 1000 for latencies in table.latency_us]
        ends = (f"{ms[at]:.2f} (batch {table.batches[at]})" for at in (0, -1))
        row: dict[str, Any] = dict(zip(("smallest", "largest"), ends, strict=True))
        row |= {"device": table.device, "share": table.share, "kind": table.provenance.kind}
        rows.append(row | {"batches": list(table.batches), "whole_model_ms": ms})
    return rows


def _show(profile: Profile, out: Path, as_json: bool) -> None:
    with output(as_json) as printed:
        printed.value("profile", profile.name)
        printed.line(f"{profile.name}: whole model, ms")
        printed.table("tables", PROFILE_COLUMNS, _rows(profile))
        for table in profile.tables:
            if table.peak_memory_bytes is not None:
                batch = table.batches[-1]
                computed_mb = profile.memory_bytes(batch, 0, len(profile.blocks)) / 1e6
                printed.line(
                    f"peak memory on {table.device} {share_text(table.share)}, batch {batch}: measured "
                    f"{table.peak_memory_bytes[-1] / 1e6:.0f} MB, computed {computed_mb:.0f} MB (parameters and live "
                    "tensors)"
                )
        printed.line(f"wrote {out}: {len(profile.blocks)} blocks")
