"""The command that observes: models timed on this machine, or measurements taken over, into one file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.cli.app import console, progress
from planner.cli.completion import PlanOption
from planner.cli.lists import numbers
from planner.cli.model_files import read_model, settings_of
from planner.cli.profile_model import cut_blocks
from planner.files import load_observed, load_plan, load_profile, printable, save
from planner.files.atomic import is_standard_output
from planner.model import InputError, LatencyTable, Profile
from planner.model.observed import Observed, Run, runs_of_profile
from planner.model.segments import share_text

if TYPE_CHECKING:
    from planner.completion.plans import Relied


def register(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command()(observe)


def observe(
    models: Annotated[
        list[str],
        typer.Argument(
            help="What to time here: .onnx files or names (see `models`); or profiles, or CSV files, to take over."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Observations to write; if they exist, runs are added.")],
    device: Annotated[str, typer.Option(help="Name for this machine; not for profiles.")] = "",
    cores: Annotated[int, typer.Option(min=1, help="Cores of this machine that make up the device.")] = 1,
    shares: Annotated[str, typer.Option(help="Shares 1/k to time, each with k workers at once: 1,2.")] = "1",
    batches: Annotated[str, typer.Option(help="Batch sizes, for example 1,2,4,8.")] = "1,4",
    segment: Annotated[
        str, typer.Option(help="These cores are a segment of the device, such as '1 core'; others run what is beside.")
    ] = "",
    beside: Annotated[
        str, typer.Option(help="A model to keep running meanwhile, on the same cores or, of a segment, on the others.")
    ] = "",
    for_plan: PlanOption = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of PPipe's published data: the models named are taken from there.")
    ] = None,
    cuts: Annotated[
        Path | None, typer.Option(help="For a CSV file with a new model: bytes between its blocks, block,cut_bytes.")
    ] = None,
    blocks: Annotated[int, typer.Option(min=1, help="Blocks to cut a model into.")] = 10,
    clock: Annotated[
        str, typer.Option(help="wall, or cpu: processor time, for one core of a machine that others use as well.")
    ] = "wall",
    cap_s: Annotated[float, typer.Option(min=0.01, help="Seconds for one block at one batch size, at most.")] = 0.3,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds on new sessions.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random weights of a model given by name.")] = 0,
) -> None:
    """Time models block by block on this machine, alone or beside another; or take over what others measured.

    A CSV file has the columns model,device,share,batch,block,latency_us, blocks counted from 0, and perhaps spread and
    beside; blocks that were not timed are left out. Its models are known from a profile, or by --cuts.

    All runs go into one file, each with how it came about. What stands there already is timed again and kept beside:
    timings of one place that disagree are refused where they are used. With --for the plan says which shares and
    batches are timed; complete and plan again afterwards, until a plan rests on nothing but measurements.
    """
    found = load_observed(out) if out.exists() else None
    wanted = None if for_plan is None else _wanted(for_plan, found, out, beside)
    if cuts is not None and not any(_is_csv(text) for text in models):
        raise InputError("--cuts: tells the blocks of a model that a CSV file has timings of; name the CSV file, too")
    timing = _Timing(device, cores, shares, batches, segment or None, beside, blocks, clock, cap_s, rounds, seed)
    for text in models:
        if data is not None:
            found = _added(found, _published(data, text), wanted)
        elif _is_csv(text):
            found = _with_timings(found, Path(text), cuts, wanted)
        elif Path(text).suffix == ".json":
            found = _added(found, load_profile(Path(text)), wanted)
        else:
            profile, runs = timing.observed(text, found, wanted)
            found = _with_runs(found, [profile], runs)
            if not is_standard_output(out):  # what is interrupted is kept
                save(found, out)
    if found is None:
        raise InputError("nothing to observe; name models or profiles")
    save(found, out)
    console.print(f"{len(found.runs)} runs of {len(found.models)} models in {out}", highlight=False, soft_wrap=True)
    if for_plan is not None:
        _say_open(for_plan, found)


def _wanted(for_plan: Path, found: Observed | None, out: Path, beside: str) -> tuple["Relied", ...]:
    """Return the runs that a plan rests on and that were not measured."""
    from planner.completion.plans import unmeasured

    if found is None:
        raise InputError(f"--for {for_plan}: {out} does not exist; name the observations that the plan was made from")
    if beside:
        raise InputError("--for: a plan rests on runs made alone; leave out --beside")
    return unmeasured(load_plan(for_plan), found)


def _say_open(for_plan: Path, found: Observed) -> None:
    """Say which runs of a plan are still to be measured."""
    from planner.completion.plans import unmeasured

    left = unmeasured(load_plan(for_plan), found)
    if not left:
        text = f"everything that {for_plan} rests on was measured; complete and plan again"
    else:
        text = f"{len(left)} runs that {for_plan} rests on are still to be measured: "
        text += "; ".join(f"{m} on {d} {share_text(s)}, batch {b}" for m, d, s, b in (one.place for one in left))
    console.print(printable(text), highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class _Timing:
    """How models are timed on this machine."""

    device: str
    cores: int
    shares: str
    batches: str
    segment: str | None
    beside: str
    blocks: int
    clock: str
    cap_s: float
    rounds: int
    seed: int

    def observed(
        self, text: str, found: Observed | None, wanted: Sequence["Relied"] | None
    ) -> tuple[Profile, tuple[Run, ...]]:
        """Time a model as asked for, or what a plan wants of it; return its profile without latencies, and the runs."""
        if not self.device.strip():
            raise InputError(f"--device: expected a name for this machine, such as this-cpu, got {self.device!r}")
        if wanted is not None:
            return self.timed_for(text, found, wanted)
        sizes = dict.fromkeys(numbers(self.shares, "--shares"), numbers(self.batches, "--batches"))
        return self.timed(text, found, sizes, self.beside)

    def timed(
        self, text: str, found: Observed | None, sizes: Mapping[int, Sequence[int]], beside: str = ""
    ) -> tuple[Profile, tuple[Run, ...]]:
        """Time a model's blocks, by share at batch sizes; return its profile without latencies, and the runs."""
        from planner.profiling import DeviceAtHand, Effort, blank_profile, block_starts, measure_tables

        if self.clock not in ("wall", "cpu"):
            raise InputError(f"--clock: expected wall or cpu, got {self.clock!r}")
        file = read_model(text, settings_of(), self.seed)
        other = read_model(beside, settings_of(), self.seed).graph if beside else None
        known = {} if found is None else {model.name: model for model in found.models}
        if other is not None and other.name not in known:
            raise InputError(f"--beside {beside}: observe it alone first, so that the file knows its blocks")
        at_hand = DeviceAtHand(self.device, self.cores, tuple(sizes), segment=self.segment)
        if file.graph.name in known:
            profile = known[file.graph.name]
            starts = block_starts(file.graph, profile)
        else:
            starts = cut_blocks(file.graph, [at_hand], [], self.blocks)
            profile = blank_profile(file.graph, starts, file.sha256)
        effort = Effort(cap_s=self.cap_s, rounds=self.rounds, clock="cpu" if self.clock == "cpu" else "wall")
        tables: list[LatencyTable] = []
        with progress() as bar:
            total = self.rounds * sum(len(batches) for batches in sizes.values())
            task = bar.add_task(f"timing {printable(file.graph.name)}", total=total)
            for share, batches in sizes.items():
                tables += measure_tables(
                    file.graph, starts, replace(at_hand, shares=(share,)), file.batches(tuple(batches)), effort,
                    lambda _: bar.advance(task), [other] if other else [],
                )  # fmt: skip
        return profile, runs_of_profile(replace(profile, tables=tuple(tables)))

    def timed_for(
        self, text: str, found: Observed | None, wanted: Sequence["Relied"]
    ) -> tuple[Profile, tuple[Run, ...]]:
        """Time what a plan rests on of a model on this device."""
        name = read_model(text, settings_of(), self.seed).graph.name
        sizes: dict[int, list[int]] = {}
        for model, device, share, batch in (one.place for one in wanted):
            here = isinstance(share, int) if self.segment is None else share == self.segment
            if (model, device) == (name, self.device) and here:
                sizes.setdefault(share if isinstance(share, int) else 1, []).append(batch)
        if not sizes:
            asked = sorted({f"{one.place[0]} on {one.place[1]}" for one in wanted})
            raise InputError(
                f"{name} on {self.device}: the plan rests on no such run that was not measured; expected one of {asked}"
            )
        profile, runs = self.timed(text, found, {share: sorted(batches) for share, batches in sizes.items()})
        return profile, tuple(replace(run, chosen=True) for run in runs)


def _published(data: Path, name: str) -> Profile:
    from planner.files import ppipe

    devices = ("L4", "T4", "V100", "P4")
    if name not in ppipe.list_dnns(data):
        raise InputError(f"{data}: no DNN {name!r} there; expected one of {ppipe.list_dnns(data)}")
    return ppipe.read_profile(data, name, devices)


def _added(found: Observed | None, profile: Profile, wanted: Sequence["Relied"] | None) -> Observed:
    """Return observations with a profile's measurements as runs; its estimates are kept as such.

    Where a plan tells which are ``wanted``, only these are taken.
    """
    runs = runs_of_profile(profile)
    if runs and wanted is not None:
        return _with_runs(found, [replace(profile, tables=(), bounds=())], _chosen(runs, wanted))
    if not runs:
        raise InputError(f"profile {profile.name}: nothing in it was measured; there is nothing to observe")
    estimated = tuple(table for table in profile.tables if table.provenance.kind == "estimated")
    return _with_runs(found, [replace(profile, tables=estimated, bounds=())], runs)


def _is_csv(text: str) -> bool:
    return Path(text).suffix.lower() == ".csv"


def _with_timings(found: Observed | None, path: Path, cuts: Path | None, wanted: Sequence["Relied"] | None) -> Observed:
    """Return observations with the timings of a CSV file as runs; ``cuts`` tell the blocks of a model that is new."""
    from planner.files.timings import blank_model, load_timings, models_in

    known = {} if found is None else {model.name: model for model in found.models}
    if cuts is not None:
        new = [name for name in models_in(path) if name not in known]
        if len(new) != 1:
            raise InputError(
                f"--cuts {cuts}: expected one new model in {path}, got {new or 'none'}; give one CSV file per model"
            )
        known[new[0]] = blank_model(new[0], cuts)
    runs = load_timings(path, known)
    return _with_runs(found, list(known.values()), runs if wanted is None else _chosen(runs, wanted))


def _chosen(runs: Sequence[Run], wanted: Sequence["Relied"]) -> tuple[Run, ...]:
    """Return those runs that a plan rests on, marked as such."""
    from planner.completion.plans import among

    return tuple(replace(run, chosen=True) for run in among(runs, wanted))


def _with_runs(found: Observed | None, models: Sequence[Profile], runs: tuple[Run, ...]) -> Observed:
    """Return observations with runs that they do not have yet, and the models of these."""
    if found is None:
        return Observed(tuple(models), runs)
    known = {model.name: model for model in found.models}
    for model in models:
        if model.name in known and known[model.name].blocks != model.blocks:
            raise InputError(
                f"{model.name}: its blocks are not those that the observations have; observe it into another file"
            )
    have = set(found.runs)
    return Observed(
        (*found.models, *(model for model in models if model.name not in known)),
        (*found.runs, *(run for run in runs if run not in have)),
    )
