"""Commands about models that share layers."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planner.cli import retraining
from planner.cli.app import about, console
from planner.cli.model_files import FixOption, SeedOption, read_model, settings_of
from planner.cli.output import Column, JsonOption, output
from planner.files import load_plan, load_problem, printable, save, write_csv, write_text
from planner.model import InputError, ModelSettings, Problem

if TYPE_CHECKING:
    from planner.profiling import ModelGraph
    from planner.profiling.common_layers import CommonRun

COLUMNS = {
    "models": Column("models", ", ".join),
    "first_layers": Column("first layers", ", ".join),
    "layers": Column("layers"),
    "bytes": Column("MB", lambda size: f"{size / 1e6:.2f}"),
    "saves_bytes": Column("saves, MB", lambda size: f"{size / 1e6:.2f}"),
    "weights": Column("weights"),
}


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    merge = typer.Typer(help="Models that share layers: one copy of weights for several DNNs.", no_args_is_help=True)
    for command in (candidates, find, export, retraining.retrain):
        merge.command()(command)
    app.add_typer(merge, name="merge")


def candidates(
    models: Annotated[list[str], typer.Argument(help="Two or more .onnx files or names of models (see `models`).")],
    fix: FixOption = None,
    seed: SeedOption = 0,
    out: Annotated[Path | None, typer.Option(help="Write the rows (CSV) to this file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the runs of layers that could share one copy: equal as they are, or alike and to be trained again."""
    from planner.profiling.common_layers import common_runs

    graphs = [read_model(model, settings_of(fix), seed).graph for model in models]
    runs = common_runs(graphs)
    layers = {graph.name: [layer.name for layer in graph.layers] for graph in graphs}
    rows = [_row(run, layers) for run in runs]
    total = sum(graph.parameter_bytes() for graph in graphs)
    equal = sum(run.saves_bytes for run in runs if run.equal)
    alike = sum(run.saves_bytes for run in runs if not run.equal)
    if out and rows:
        write_csv(out, [tuple(COLUMNS), *(tuple(map(_text, row.values())) for row in rows)])
    with output(as_json) as printed:
        printed.table("candidates", COLUMNS, rows)
        printed.value("weights_bytes", total)
        printed.line(
            f"{total / 1e6:.2f} MB of weights in {len(graphs)} models; sharing what is equal saves {equal / 1e6:.2f} "
            f"MB, what is alike {alike / 1e6:.2f} MB more if the models keep their accuracy"
        )
    if out and not rows:
        raise InputError(f"{out}: the models have no layers with weights in common; nothing is written")


def _text(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)


def _row(run: "CommonRun", layers: dict[str, list[str]]) -> dict[str, Any]:
    return {
        "models": list(run.first),
        "first_layers": [layers[model][number] for model, number in run.first.items()],
        "layers": run.layers,
        "bytes": run.parameter_bytes,
        "saves_bytes": run.saves_bytes,
        "weights": "equal" if run.equal else "alike",
    }


def find(
    problem: Annotated[Path, typer.Argument(help="Problem file (JSON or TOML).")],
    models: Annotated[list[str], typer.Argument(help="The .onnx files of its variants, named as the variants are.")],
    out: Annotated[Path, typer.Option(help="Write the problem, with what is one copy, to this file.")],
) -> None:
    """Find the blocks of a problem's DNNs that are one copy, so that plans may have pools that serve several DNNs."""
    from planner.profiling.merged_blocks import find_merged

    asked = load_problem(problem)
    found = find_merged(asked, _graphs(asked, models))
    if not found:
        raise InputError(f"{problem}: no two DNNs have a block in common, equal to the byte; nothing is written")
    merged = replace(asked, merged=found)
    save(merged, out)
    for one in found:
        first = one.members[0]
        blocks = asked.dnn(first.dnn).variant(str(first.variant)).blocks[first.first_block :][: one.blocks]
        size = sum(block.parameter_bytes for block in blocks)
        names = ", ".join(f"{member.dnn} from block {member.first_block} on" for member in one.members)
        console.print(
            printable(f"{one.blocks} blocks, {size / 1e6:.2f} MB, are one copy: {names}"),
            highlight=False,
            soft_wrap=True,
        )
    console.print(printable(f"written to {out}"), highlight=False, soft_wrap=True)


def export(
    plan: Annotated[Path, typer.Argument(help="Plan file.")],
    models: Annotated[list[str], typer.Argument(help="The .onnx files of the variants that it serves.")],
    out: Annotated[Path, typer.Option(help="Folder for the stages, and stages.json, which names their tensors.")],
    problem: Annotated[
        Path | None, typer.Option(help="The plan's problem file. [default: problem.json or .toml beside the plan]")
    ] = None,
) -> None:
    """Write every stage of a plan as a model, pools of several DNNs once, after all of them answered as the originals.

    stages.json has a row per stage of every pipeline: its file, and what the tensors of that file are in its own model.
    """
    from planner.files.models import save_model
    from planner.profiling.merged_stages import export_stages, verify_stages

    beside = [plan.with_name(name) for name in ("problem.json", "problem.toml")]
    found = problem or next((path for path in beside if path.exists()), beside[0])
    asked, planned = load_problem(found), load_plan(plan)
    graphs = _graphs(asked, models)
    stages = export_stages(asked, planned, graphs)
    worst = verify_stages(planned, graphs, stages)
    rows = []
    for (number, position), (home, names) in stages.where.items():
        pipeline = planned.pipelines[number]
        rows.append(
            {
                "pipeline": number,
                "stage": position,
                "dnn": pipeline.dnn,
                "variant": pipeline.variant,
                "pool": pipeline.stages[position].pool,
                "file": _stage_file(home),
                "reads": {name: names[name] for name in stages.parts[home].inputs},
                "makes": {name: names[name] for name in stages.parts[home].outputs},
            }
        )
    for home, part in stages.parts.items():
        save_model(part.model, out / _stage_file(home))
    write_text(out / "stages.json", json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
    console.print(
        printable(
            f"wrote {len(stages.parts)} models for {len(rows)} stages to {out}; all pipelines answer as the models do "
            f"(largest difference {worst:.0e})"
        ),
        highlight=False,
        soft_wrap=True,
    )


def _stage_file(home: tuple[int, int]) -> str:
    return f"pipeline{home[0]}.stage{home[1]}.onnx"


def _graphs(problem: Problem, models: Sequence[str]) -> dict[str, "ModelGraph"]:
    """Return the graphs of a problem's variants, by name, read with the settings of their profiles."""
    from planner.files.models import load_model
    from planner.profiling import prepare_model

    variants = {variant.name: variant for dnn in problem.dnns for variant in dnn.variants}
    graphs = {}
    for text in models:
        path = Path(text)
        if path.stem not in variants:
            raise InputError(
                f"{path}: the problem has no variant {path.stem!r}; it has {', '.join(variants)}: name files so"
            )
        settings = variants[path.stem].settings or ModelSettings()
        with about(path):
            graphs[path.stem] = prepare_model(load_model(path), path.stem, settings, compare=False).graph
    return graphs
