"""The command that splits a model at its cuts and compares the answers with those of its file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.cli.app import about, progress
from planner.cli.model_files import (
    BatchAxisOption,
    ConstantOption,
    FixOption,
    ModelArgument,
    StateOption,
    read_model,
    settings_of,
)
from planner.cli.output import Column, JsonOption, output
from planner.files import write_csv
from planner.model import InputError

if TYPE_CHECKING:
    from planner.profiling import ModelGraph
    from planner.profiling.cuts import CutsTried
    from planner.profiling.samples import Tensors
    from planner.profiling.verification import Yardstick

InputsOption = Annotated[
    Path | None,
    typer.Option(help="Samples: a .npz with an array for each input, or a folder of them. [default: random ones]"),
]
ToleranceOption = Annotated[
    float | None,
    typer.Option(min=0, help="Relative difference of numbers to allow. [default: by the model's own noise]"),
]
COLUMNS = ("optimised", "cuts", "bit_equal", "moved", "wrong", "worst", "worst_rms", "noise")
SAMPLES = 8


def register(app: typer.Typer) -> None:
    """Add the command of this module to the command line."""
    app.command()(verify)


def verify(
    model: ModelArgument,
    cuts: Annotated[str, typer.Option(help="Cuts to try: all, or how many, evenly spaced.")] = "20",
    inputs: InputsOption = None,
    tolerance: ToleranceOption = None,
    fix: FixOption = None,
    constant: ConstantOption = None,
    state: StateOption = None,
    batch_axis: BatchAxisOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of random inputs (and of the weights of models by name).")] = 0,
    out: Annotated[Path | None, typer.Option(help="Also write the table to this CSV file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Split a model in two at its cuts, run the halves, and compare with what the file itself answers, per request.

    Tried with the runtime's optimisations off and on. Answers may differ by what the model's own answers do from one
    level of optimisation to another; labels not at all, unless their scores are nearly tied. `moved` counts cuts where
    the runtime optimises the parts into less exact ones than the whole, so that answers differ by more.
    """
    from planner.profiling.cuts import BATCH, choose_cuts, try_cuts
    from planner.profiling.samples import draw_samples
    from planner.profiling.verification import measure_yardstick

    count = None if cuts == "all" else _count(cuts)
    file = read_model(model, settings_of(fix, constant, state, batch_axis), seed)
    original, graph = file.given, file.graph
    samples = draw_samples(graph, SAMPLES, seed) if inputs is None else _given(graph, inputs)
    yardstick = measure_yardstick(original, graph, samples, tolerance)
    chosen = choose_cuts(graph, count)
    batch = 1 if file.prepared.single else min(BATCH, len(yardstick.answers))
    with progress() as bar:
        task = bar.add_task(f"cuts of {graph.name}", total=len(chosen) + 1)
        ways = try_cuts(graph, chosen, samples, yardstick, batch, lambda: bar.advance(task))
    rows = [_row(way, yardstick) for way in ways]
    source = f"random, seed {seed}" if inputs is None else str(inputs)
    if out is not None:
        asked = "" if tolerance is None else f"{tolerance:g}"
        write_csv(
            out, [("model", *COLUMNS, "tolerance", "inputs"), *((graph.name, *row, asked, source) for row in rows)]
        )
    allowed = "by its own noise" if tolerance is None else f"a tolerance of {tolerance:g}"
    with output(as_json) as printed:
        printed.line(
            f"{graph.name}: {len(yardstick.answers)} samples ({source}), answers compared with the file's, {allowed}"
        )
        shown = {name: Column(name.replace("_", " ")) for name in COLUMNS}
        printed.table(graph.name, shown, [dict(zip(COLUMNS, row, strict=True)) for row in rows])
    _require_right(graph, ways)


def _row(way: "CutsTried", yardstick: "Yardstick") -> tuple[str, ...]:
    return (
        "yes" if way.optimised else "no",
        str(way.cuts),
        str(way.equal),
        str(way.moved),
        str(len(way.wrong)),
        f"{way.worst.largest:.1e}",
        f"{way.worst.rms:.1e}",
        f"{yardstick.loudest:.1e}",
    )


def _require_right(graph: "ModelGraph", ways: "tuple[CutsTried, CutsTried]") -> None:
    for way in ways:
        with_or_without = "with" if way.optimised else "without"
        if 0 in way.wrong:
            raise InputError(
                f"{graph.name}: the unsplit model does not answer as its file does, {with_or_without} optimisations: "
                f"{way.wrong[0]}"
            )
        if way.wrong:
            cut, why = min(way.wrong.items())
            raise InputError(
                f"{graph.name}: wrong answers at {len(way.wrong)} of {way.cuts} cuts, {with_or_without} optimisations; "
                f"first behind layer {graph.layers[cut - 1].name!r}: {why}"
            )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"--cuts: expected all or a number >= 1, got {text!r}")
    return int(text)


def _given(graph: "ModelGraph", path: Path) -> "Tensors":
    from planner.files.inputs import load_inputs
    from planner.profiling.samples import cut_samples

    batches = load_inputs(path)
    with about(path):
        return cut_samples(graph, batches)
