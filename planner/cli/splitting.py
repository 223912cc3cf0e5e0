"""The command that writes the parts of a model as models of their own."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planner.cli.model_files import (
    BatchAxisOption,
    ConstantOption,
    FixOption,
    ModelArgument,
    SeedOption,
    StateOption,
    read_model,
    settings_of,
)
from planner.cli.output import Column, JsonOption, output
from planner.files import write_text
from planner.model import InputError

if TYPE_CHECKING:
    from planner.profiling import ModelGraph, Part

COLUMNS = {
    "file": Column("part"),
    "numbers": Column("layers", lambda numbers: f"{numbers[0]} to {numbers[1]}"),
    "reads": Column("reads", lambda tensors: ", ".join(tensor["name"] for tensor in tensors)),
    "makes": Column("makes", lambda tensors: ", ".join(tensor["name"] for tensor in tensors)),
}


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command()(split)


def split(
    model: ModelArgument,
    at: Annotated[
        list[str],
        typer.Option(metavar="LAYER,...", help="Layers that begin a part: names, or numbers from 1 (see `layers`)."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for part1.onnx, part2.onnx, ... and parts.json.")],
    fix: FixOption = None,
    constant: ConstantOption = None,
    state: StateOption = None,
    batch_axis: BatchAxisOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Cut a model before some of its layers and write the parts; chained they answer as the whole does.

    parts.json tells what each part reads and makes: a part reads tensors of the model's inputs and of all parts before.
    """
    from planner.files.models import save_model
    from planner.profiling import extract_parts

    graph = read_model(model, settings_of(fix, constant, state, batch_axis), seed).graph
    parts = extract_parts(graph, [0, *_cuts(graph, at)])
    described = []
    for number, part in enumerate(parts, start=1):
        save_model(part.model, out / f"part{number}.onnx")
        described.append(_describe(graph, part, f"part{number}.onnx"))
    whole = {"model": graph.name, "answers": graph.outputs, "parts": described}
    text = json.dumps(whole, indent=2, ensure_ascii=False)
    write_text(out / "parts.json", text + "\n")
    with output(as_json) as printed:
        printed.table("parts", COLUMNS, described)
        printed.line(f"wrote {len(parts)} parts to {out}")


def _cuts(graph: "ModelGraph", texts: Sequence[str]) -> list[int]:
    """Return the cuts that an option names; raises InputError where there is none, or it is barred."""
    places = {layer.name: index for index, layer in enumerate(graph.layers)}
    wanted = [part.strip() for text in texts for part in ([text] if text in places else text.split(","))]
    cuts = []
    for name in wanted:
        cut = places.get(name, int(name) - 1 if name.isdecimal() else -1)
        if not 0 < cut < len(graph.layers):
            raise InputError(
                f"--at: {graph.name} has no layer {name!r} to cut before; expected a name or a number from 2 to "
                f"{len(graph.layers)} as `layers` lists them"
            )
        if cut in graph.barred:
            legal = [each for each in range(1, len(graph.layers)) if each not in graph.barred]
            near = min(legal, default=None, key=lambda each: abs(each - cut))
            hint = "no cut of it is legal" if near is None else f"the nearest layer to cut before is {near + 1}"
            raise InputError(f"--at: cannot cut before layer {name!r}: {graph.barred[cut]}; {hint}")
        cuts.append(cut)
    if not cuts or cuts != sorted(set(cuts)):
        raise InputError(f"--at: expected layers in their order, each once, got {', '.join(wanted) or 'none'}")
    return cuts


def _describe(graph: "ModelGraph", part: "Part", file: str) -> dict[str, Any]:
    def tensors(names: Sequence[str]) -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "type": graph.tensors[name].dtype.name.lower(),
                "request_shape": graph.tensors[name].shape,
                "batch_axis": graph.tensors[name].batch_axis,
            }
            for name in names
        ]

    layers = [layer.name for layer in graph.layers[part.first : part.last]]
    numbers = [part.first + 1, part.last]
    return {
        "file": file,
        "numbers": numbers,
        "layers": layers,
        "reads": tensors(part.inputs),
        "makes": tensors(part.outputs),
    }
