"""Try the ONNX files that ship in public wheels: accepted how, cut where, right by how much, and priced how well.

A line per file of scripts/models.toml, as the README shows them. Cuts are tried as ``planner verify`` does, with the
runtime's optimisations off and on; the worst difference from the file's own answers is shown. With ``--time`` the sum
of the blocks' medians (processor time, batch 1) is put against the whole's. Results are appended to a CSV file, and
what stands there is not run again.
"""

import argparse
import csv
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from planner.cli.app import console, progress
from planner.cli.model_files import ModelFile, read_model, settings_of
from planner.cli.output import Column, Output
from planner.cli.profile_model import cut_blocks
from planner.model import InputError, ModelSettings
from planner.profiling import DeviceAtHand, Effort, extract_parts, random_feeds
from planner.profiling.cuts import BATCH, choose_cuts, try_cuts
from planner.profiling.profiler import time_parts
from planner.profiling.samples import draw_samples
from planner.profiling.verification import NOISE_SAMPLES, measure_yardstick
from planner.profiling.workers import colocated

ROOT = Path(__file__).parents[1]
BLOCKS = 10

Entry = dict[str, Any]  # of scripts/models.toml


@dataclass(frozen=True)
class Tried:
    """What came of a file. ``accepted`` is how, or why not; ``batch`` what keeps requests from sharing a run."""

    model: str
    layers: str
    accepted: str
    batch: str
    cuts: str = ""
    wrong: str = ""
    worst: str = ""
    noise: str = ""
    sum_of_blocks: str = ""


def main() -> None:
    """Try all files, or those whose path holds one of the words given; exit with 1 if a cut answers wrongly."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="parts of paths; default: all files")
    parser.add_argument("--cuts", type=int, default=20, metavar="N", help="so many cuts, evenly spaced; 0 for all")
    parser.add_argument("--time", action="store_true", help="time the blocks and the whole as well")
    parser.add_argument("--models", type=Path, default=ROOT / "out" / "models", help="where fetch_models.py put them")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "models.csv", metavar="CSV", help="where results go")
    arguments = parser.parse_args()
    results = read(arguments.out)
    known = {found.model for found in results}
    for entry in entries():
        if entry["file"] in known or not any(word in entry["file"] for word in arguments.words or [""]):
            continue
        path = locate(entry, arguments.models)
        if not path.exists():
            console.print(f"{path}: no such file; run scripts/fetch_models.py", highlight=False, soft_wrap=True)
            continue
        results.append(attempt(entry, path, arguments.cuts or None, timed=arguments.time))
        append(arguments.out, results[-1])
    show(results)
    sys.exit(1 if any(found.wrong not in ("", "0") for found in results) else 0)


def entries() -> list[Entry]:
    """Return the list of files."""
    document = tomllib.loads((ROOT / "scripts" / "models.toml").read_text(encoding="utf-8"))
    return list(document["models"])


def locate(entry: Entry, folder: Path) -> Path:
    """Return where a file lies; those of the onnx wheel lie where that is installed."""
    base = Path(onnx.__file__).parents[1] if entry["wheel"] == "onnx" else folder / entry["wheel"]
    return base / entry["file"]


def attempt(entry: Entry, path: Path, count: int | None, *, timed: bool) -> Tried:
    """Try one file as it is, and where that is refused with its options."""
    options = list(entry.get("options", []))
    given = "as it is"
    try:
        file = read_model(str(path), settings_of())
    except InputError as error:
        if not options:
            return Tried(entry["file"], "", f"refused: {error}", "")
        given = " ".join(options)
        try:
            file = read_model(str(path), settings_from(options))
        except InputError as other:
            return Tried(entry["file"], "", f"refused: {other}", "")
    return try_file(entry["file"], file, given, count, timed=timed)


def settings_from(options: Sequence[str]) -> ModelSettings:
    """Return the settings of command line options, each a name and its value."""
    values: dict[str, list[str]] = {}
    for name, value in zip(options[::2], options[1::2], strict=True):
        values.setdefault(name, []).append(value)
    return settings_of(*(values.get(name) for name in ("--fix", "--constant", "--state", "--batch-axis")))


def try_file(name: str, file: ModelFile, given: str, count: int | None, *, timed: bool) -> Tried:
    """Cut an accepted model and compare."""
    graph = file.graph
    batch = f"1: {file.prepared.reason}" if file.prepared.single else "any (freed)" if file.prepared.freed else "any"
    try:
        samples = draw_samples(graph, NOISE_SAMPLES, 0)
        yardstick = measure_yardstick(file.given, graph, samples)
    except InputError as error:
        return Tried(name, str(len(graph.layers)), given, batch, f"none: {error}")
    cuts = choose_cuts(graph, count)
    with progress() as bar:
        task = bar.add_task(f"cuts of {name}", total=len(cuts) + 1)
        size = 1 if file.prepared.single else BATCH
        ways = try_cuts(graph, cuts, samples, yardstick, size, lambda: bar.advance(task))
    return Tried(
        name,
        str(len(graph.layers)),
        given,
        batch,
        str(len(cuts)),
        str(sum(len(way.wrong) for way in ways)),
        f"{max(way.worst.largest for way in ways):.1e}",
        f"{yardstick.loudest:.1e}",
        f"{sum_of_blocks(file):+.1%}" if timed else "",
    )


def sum_of_blocks(file: ModelFile) -> float:
    """Return by what fraction the sum of the blocks' medians differs from the whole's, measured in turns."""
    graph, core = file.graph, DeviceAtHand("here")
    effort = Effort(cap_s=0.2, rounds=1, clock="cpu")
    starts = cut_blocks(graph, [core], [], BLOCKS)
    feeds = {1: random_feeds(graph.model, 1, np.random.default_rng(0))}
    medians: list[list[float]] = [[], []]
    with colocated(1, 1, core.cores, core.provider) as nobody:
        for _ in range(3):
            for totals, begin in zip(medians, (starts, [0]), strict=True):
                times = time_parts(extract_parts(graph, begin), core, 1, feeds, effort, nobody)
                totals.append(sum(float(np.median(rounds[0])) for rounds in times[1]))
    return float(np.median(medians[0]) / np.median(medians[1])) - 1


def read(path: Path) -> list[Tried]:
    """Return the results in a CSV file, none where there is no such file."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return [Tried(**row) for row in csv.DictReader(stream)]


def append(path: Path, found: Tried) -> None:
    """Add a line to a CSV file."""
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [each.name for each in fields(Tried)]
    with path.open("a", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        if new:
            writer.writerow(names)
        writer.writerow([getattr(found, name) for name in names])


def show(results: Sequence[Tried]) -> None:
    """Print a line per file."""
    columns = {each.name: Column(each.name.replace("_", " ")) for each in fields(Tried)}
    Output().table("models", columns, [asdict(found) for found in results])
    refused = sum(found.accepted.startswith("refused") for found in results)
    console.print(f"{len(results) - refused} of {len(results)} accepted", highlight=False)


if __name__ == "__main__":
    main()
