"""Commands about models that share layers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from planner.cli.app import console
from planner.cli.model_files import FixOption, SeedOption, read_model, settings_of
from planner.files import printable, write_csv
from planner.model import InputError

if TYPE_CHECKING:
    from planner.profiling.common_layers import CommonRun

COLUMNS = ("models", "first_layers", "layers", "bytes", "saves_bytes", "weights")


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    merge = typer.Typer(help="Models that share layers: one copy of weights for several DNNs.", no_args_is_help=True)
    merge.command()(candidates)
    merge.callback()(lambda: None)
    app.add_typer(merge, name="merge")


def candidates(
    models: Annotated[list[str], typer.Argument(help="Two or more .onnx files or names of models (see `models`).")],
    fix: FixOption = None,
    seed: SeedOption = 0,
    out: Annotated[Path | None, typer.Option(help="Write the rows (CSV) to this file.")] = None,
) -> None:
    """List the runs of layers that could share one copy: equal as they are, or alike and to be trained again."""
    from planner.profiling.common_layers import common_runs

    graphs = [read_model(model, settings_of(fix), seed).graph for model in models]
    runs = common_runs(graphs)
    layers = {graph.name: [layer.name for layer in graph.layers] for graph in graphs}
    rows = [_row(run, layers) for run in runs]
    table = Table("models", "first layers", "layers", "MB", "saves, MB", "weights", box=None, header_style="bold")
    for models_, first, count, size, saved, weights in rows:
        megabytes = (f"{int(size) / 1e6:.2f}", f"{int(saved) / 1e6:.2f}")
        table.add_row(printable(models_), printable(first), count, *megabytes, weights)
    console.print(table)
    total = sum(graph.parameter_bytes() for graph in graphs)
    equal = sum(run.saves_bytes for run in runs if run.equal)
    alike = sum(run.saves_bytes for run in runs if not run.equal)
    console.print(
        f"{total / 1e6:.2f} MB of weights in {len(graphs)} models; sharing what is equal saves {equal / 1e6:.2f} MB, "
        f"what is alike {alike / 1e6:.2f} MB more if the models keep their accuracy",
        highlight=False,
        soft_wrap=True,
    )
    if out:
        if not rows:
            raise InputError(f"{out}: the models have no layers with weights in common; nothing is written")
        write_csv(out, [COLUMNS, *rows])


def _row(run: "CommonRun", layers: dict[str, list[str]]) -> tuple[str, str, str, str, str, str]:
    return (
        ", ".join(run.first),
        ", ".join(layers[model][number] for model, number in run.first.items()),
        str(run.layers),
        str(run.parameter_bytes),
        str(run.saves_bytes),
        "equal" if run.equal else "alike",
    )
