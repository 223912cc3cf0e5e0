"""Try the ONNX files that ship in public wheels: accepted how, cut where, right by how much, and priced how well.

A line per file of scripts/models.toml, as the README shows them, and with ``--zoo`` per model built by name. Cuts are
tried as ``planner verify`` does, with the runtime's optimisations off and on; the worst difference from the file's own
answers is shown. Multiply-accumulates are counted a second time, from the shapes that onnxruntime meets while it runs
the file, and stored bytes from the tensors that workers get. With ``--time`` the sum of the blocks' medians (processor
time, batch 1) is put against the whole's. Results are appended to a CSV file, and what stands there is not run again.
"""

import argparse
import csv
import json
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from planner.cli.app import console, progress
from planner.cli.model_files import ModelFile, read_model, settings_of
from planner.cli.output import Column, Output
from planner.cli.profile_model import cut_blocks
from planner.model import InputError, ModelSettings
from planner.profiling import (
    DeviceAtHand,
    Effort,
    ModelGraph,
    extract_part,
    extract_parts,
    model_names,
    open_session,
    random_feeds,
    run_model,
)
from planner.profiling.cuts import BATCH, choose_cuts, try_cuts
from planner.profiling.profiler import time_parts
from planner.profiling.samples import Tensors, draw_samples, join
from planner.profiling.verification import NOISE_SAMPLES, measure_yardstick
from planner.profiling.workers import colocated

ROOT = Path(__file__).parents[1]
BLOCKS = 10
BUILT, ZOO = "built", "zoo"  # in place of a wheel: by scripts/build_models.py, and by name

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
    macs: str = ""
    macs_off: str = ""
    bytes_off: str = ""
    sum_of_blocks: str = ""


def main() -> None:
    """Try all files, or those whose path holds one of the words given; exit with 1 if a cut answers wrongly."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="parts of paths; default: all files")
    parser.add_argument("--cuts", type=int, default=20, metavar="N", help="so many cuts, evenly spaced; 0 for all")
    parser.add_argument("--zoo", action="store_true", help="the models that are built by name, too")
    parser.add_argument("--time", action="store_true", help="time the blocks and the whole as well")
    parser.add_argument("--models", type=Path, default=ROOT / "out" / "models", help="where fetch_models.py put them")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "models.csv", metavar="CSV", help="where results go")
    arguments = parser.parse_args()
    results = read(arguments.out)
    known = {found.model for found in results}
    for entry in entries(zoo=arguments.zoo):
        if entry["file"] in known or not any(word in entry["file"] for word in arguments.words or [""]):
            continue
        path = locate(entry, arguments.models)
        if not path.exists() and entry["wheel"] != ZOO:
            maker = "build_models.py" if entry["wheel"] == BUILT else "fetch_models.py"
            console.print(f"{path}: no such file; run scripts/{maker}", highlight=False, soft_wrap=True)
            continue
        results.append(attempt(entry, path, arguments.cuts or None, timed=arguments.time))
        append(arguments.out, results[-1])
    show(results)
    sys.exit(1 if any(found.wrong not in ("", "0") for found in results) else 0)


def entries(*, zoo: bool = False) -> list[Entry]:
    """Return the list of files."""
    document = tomllib.loads((ROOT / "scripts" / "models.toml").read_text(encoding="utf-8"))
    return [*document["models"], *({"wheel": ZOO, "file": name} for name in model_names() if zoo)]


def locate(entry: Entry, folder: Path) -> Path:
    """Return where a file lies, those of the onnx wheel where that is installed; a model built by name has no file."""
    if entry["wheel"] == ZOO:
        return Path(entry["file"])
    base = Path(onnx.__file__).parents[1] if entry["wheel"] == "onnx" else folder / entry["wheel"]
    return base / entry["file"]


def attempt(entry: Entry, path: Path, count: int | None, *, timed: bool, samples: int = NOISE_SAMPLES) -> Tried:
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
    return try_file(entry["file"], file, given, count, timed=timed, samples=samples)


def settings_from(options: Sequence[str]) -> ModelSettings:
    """Return the settings of command line options, each a name and its value."""
    values: dict[str, list[str]] = {}
    for name, value in zip(options[::2], options[1::2], strict=True):
        values.setdefault(name, []).append(value)
    return settings_of(*(values.get(name) for name in ("--fix", "--constant", "--state", "--batch-axis")))


def try_file(
    name: str, file: ModelFile, given: str, count: int | None, *, timed: bool, samples: int = NOISE_SAMPLES
) -> Tried:
    """Cut an accepted model and compare its answers to so many samples."""
    graph = file.graph
    batch = f"1: {file.prepared.reason}" if file.prepared.single else "any (freed)" if file.prepared.freed else "any"
    try:
        drawn = draw_samples(graph, samples, 0)
        yardstick = measure_yardstick(file.given, graph, drawn)
    except InputError as error:
        return Tried(name, str(len(graph.layers)), given, batch, f"none: {error}")
    cuts = choose_cuts(graph, count)
    with progress() as bar:
        task = bar.add_task(f"cuts of {name}", total=len(cuts) + 1)
        size = 1 if file.prepared.single else BATCH
        ways = try_cuts(graph, cuts, drawn, yardstick, size, lambda: bar.advance(task))
    return Tried(
        name,
        str(len(graph.layers)),
        given,
        batch,
        str(len(cuts)),
        str(sum(len(way.wrong) for way in ways)),
        f"{max(way.worst.largest for way in ways):.1e}",
        f"{yardstick.loudest:.1e}",
        *work_of(file, drawn),
        f"{sum_of_blocks(file):+.1%}" if timed else "",
    )


def work_of(file: ModelFile, samples: Tensors) -> tuple[str, str, str]:
    """Return what a request multiplies, and by what fractions that and the stored bytes differ from second counts."""
    macs = sum(layer.cost.macs for layer in file.graph.layers)
    counted, stored = count_macs(file, samples), count_bytes(file.graph)
    return (
        f"{macs / 1e6:.4g} M",
        f"{macs / max(1, counted) - 1:+.2%}",
        f"{file.graph.parameter_bytes() / stored - 1:+.2%}",
    )


def count_macs(file: ModelFile, samples: Tensors) -> int:
    """Return the multiply-accumulates of the file's answer to a request, from the shapes that onnxruntime met."""
    feeds = {**file.graph.constants, **join(file.graph, samples, [0])}
    with tempfile.TemporaryDirectory(prefix="poolpipe-") as folder:
        session = open_session(file.given, optimise=False, profile_prefix=str(Path(folder) / "run"))
        run_model(session, feeds)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    total = 0
    for event in events:
        if event["name"].endswith("_kernel_time"):
            read, made = (
                [list(next(iter(each.values()))) for each in event["args"][f"{side}_type_shape"]]
                for side in ("input", "output")
            )
            total += products_of(event["args"]["op_name"], read, made)
    return total


def products_of(operator: str, read: Sequence[Sequence[int]], made: Sequence[Sequence[int]]) -> int:
    """Return how many products a node of these shapes sums up."""
    match operator:
        case "Conv" | "ConvInteger":
            return prod(made[0]) * prod(read[1][1:])
        case "QLinearConv":
            return prod(made[0]) * prod(read[3][1:])
        case "ConvTranspose":
            return prod(read[0]) * prod(read[1][1:])
        case "Gemm" | "QGemm":
            return prod(made[0]) * (prod(read[0]) // made[0][0])
        case "LSTM" | "GRU" | "RNN":
            return prod(read[0][:2]) * (prod(read[1]) + prod(read[2]))
        case "Attention":  # with the keys of earlier calls in front: made[1] are all of them
            return made[1][-2] * (prod(read[0]) + prod(made[0]))
        case "Einsum":
            raise InputError("shapes do not tell what an Einsum multiplies; count it by hand")
    return prod(made[0]) * read[0][-1] if "MatMul" in operator else 0


def count_bytes(graph: ModelGraph) -> int:
    """Return the bytes of all tensors in the model as it is stored for its workers.

    Sizes that are fixed leave out of it what the file has for other sizes and in branches that are never taken.
    """
    model = extract_part(graph, 0, len(graph.layers)).model
    tensors = [value.const_value for each in model.graphs() for value in each.initializers.values()]
    tensors += [
        attribute.as_tensor()
        for node in model.graph.all_nodes()
        for attribute in node.attributes.values()
        if attribute.type == ir.AttributeType.TENSOR
    ]
    return sum(-(-tensor.size * tensor.dtype.bitwidth // 8) for tensor in tensors if tensor is not None)


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
