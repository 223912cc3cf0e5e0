"""Commands about models: their layers, and those that are built by name."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planner.cli.app import console, errors
from planner.cli.lists import names_in
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
from planner.files import printable, write_csv
from planner.model import InputError

if TYPE_CHECKING:
    import onnx_ir as ir

    from planner.profiling import ModelGraph


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command()(layers)
    models = typer.Typer(help="List the models that are built by name, or write one as ONNX.", no_args_is_help=False)
    models.callback(invoke_without_command=True)(list_models)
    models.command("export")(export_model)
    app.add_typer(models, name="models")


def layers(
    model: ModelArgument,
    out: Annotated[Path | None, typer.Option(help="CSV file to write instead of the table.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Batch size of the latencies.")] = 1,
    measure: Annotated[bool, typer.Option(help="Measure each layer's kernel here, on one core.")] = False,
    device: Annotated[str, typer.Option(help="Devices of the catalogue to estimate, e.g. V100,T4.")] = "",
    fix: FixOption = None,
    constant: ConstantOption = None,
    state: StateOption = None,
    batch_axis: BatchAxisOption = None,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Show a model's layers: work, parameters, tensors alive, the size of the cut behind each, and latencies in µs."""
    from planner.profiling import DeviceAtHand, estimate_layers, find_device, measure_layers

    graph = read_model(model, settings_of(fix, constant, state, batch_axis), seed).graph
    say_opaque(graph)
    latencies = {other: estimate_layers(graph, find_device(other), batch, 1) for other in names_in(device)}
    if measure:
        times = measure_layers(graph, DeviceAtHand("here"), batch)
        latencies["measured"] = times.latency_us
        errors.print(
            f"the profiler adds {times.overhead:.1%} to a run; {times.between:.1%} of a run is outside kernels"
        )
    rows: list[dict[str, Any]] = [
        {
            "layer": layer.name,
            "operator": layer.operator,
            "MACs": layer.cost.macs,
            "parameter_bytes": layer.parameter_bytes,
            "live_bytes": layer.live_bytes,
            "cut_bytes": size,
        }
        | {f"{key}_us": us[at] for key, us in latencies.items()}
        for at, (layer, size) in enumerate(zip(graph.layers, (*graph.cut_bytes, 0), strict=True))
    ]
    columns = {key: Column(key, "{:.1f}".format if key.endswith("_us") else str) for key in rows[0]}
    with output(as_json) as printed:
        if out is not None:
            cells = ([column.shown(row[key]) for key, column in columns.items()] for row in rows)
            write_csv(out, [list(columns), *cells])
            printed.line(f"wrote {out}: {len(rows)} layers")
            return
        printed.table("layers", columns, rows)


def list_models(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the models that are built by name: image, parameters and multiply-accumulates of one request."""
    if context.invoked_subcommand is not None:
        return
    from planner.profiling.zoo import ARCHITECTURES, LIGHT_MODELS

    rows: list[dict[str, Any]] = [
        {
            "model": name,
            "image": f"{model.size} × {model.size}",
            "parameters": model.parameters,
            "macs": model.macs,
            "source": model.source,
        }
        for name, model in ARCHITECTURES.items()
    ]
    light = {"image": "224 × 224", "source": "the onnx wheel's backend tests"}
    rows += [light | {"model": name} for name in LIGHT_MODELS]
    columns = {
        "model": Column("model"),
        "image": Column("image"),
        "parameters": Column("parameters (M)", lambda count: f"{count / 1e6:.1f}"),
        "macs": Column("MACs (G)", lambda count: f"{count / 1e9:.2f}"),
        "source": Column("published in"),
    }
    with output(as_json) as printed:
        printed.table("models", columns, rows)


def export_model(
    name: Annotated[str, typer.Argument(help="A model that `models` lists.")],
    out: Annotated[Path, typer.Option(help="ONNX file to write.")],
    size: Annotated[
        str, typer.Option(help="Image height × width in pixels, for example 224x224; default: the architecture's.")
    ] = "",
    classes: Annotated[int, typer.Option(min=1, help="Classes to tell apart.")] = 1000,
    seed: SeedOption = 0,
) -> None:
    """Write a model with a symbolic batch and seeded random weights."""
    from planner.profiling import build_model

    height, width = _size(size) if size else (None, None)
    write_model(build_model(name, seed, height=height, width=width, classes=classes), out)


def _size(text: str) -> tuple[int, int]:
    """Read 224x320 as height and width."""
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"--size: expected height x width in pixels such as 224x224, got {text!r}")
    return int(parts[0]), int(parts[1])


def say_opaque(graph: "ModelGraph") -> None:
    """Say what of a model is counted without being understood."""
    if graph.opaque:
        errors.print(printable(graph.opaque))


def write_model(model: "ir.Model", path: Path) -> None:
    """Write a model and say so."""
    from planner.files.models import save_model

    save_model(model, path)
    console.print(f"wrote {path}", highlight=False, soft_wrap=True)
