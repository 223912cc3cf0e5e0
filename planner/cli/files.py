"""Commands about files: validate any of them, print their JSON Schemas."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from planner.cli.app import about, console
from planner.cli.model_files import BatchAxisOption, ConstantOption, FixOption, StateOption
from planner.files import load_any, load_problem, schema_of, write_text
from planner.files.documents import KINDS
from planner.model import Cluster, InputError, Plan, Problem, Profile, TaskPlan
from planner.model.observed import Observed
from planner.model.variants import Variants


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command()(validate)
    app.command()(schema)


def validate(
    files: Annotated[list[Path], typer.Argument(help="Cluster, profile, problem, plan or .onnx files.")],
    problem: Annotated[
        Path | None, typer.Option(help="Problem file: plans are checked against it, constraint by constraint.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of PPipe's published profiles: plan files in its form are checked too.")
    ] = None,
    fix: FixOption = None,
    constant: ConstantOption = None,
    state: StateOption = None,
    batch_axis: BatchAxisOption = None,
) -> None:
    """Read files of any kind, check everything that they promise, and say what they hold."""
    against = load_problem(problem) if problem else None
    for path in files:
        if path.suffix == ".onnx":
            text = _describe_model(path, (fix, constant, state, batch_axis))
        elif data is not None:
            text = _describe_published(path, data)
        else:
            text = _describe(path, against)
        console.print(f"{path}: {text}", highlight=False, soft_wrap=True)


def _describe_model(path: Path, options: Sequence[list[str] | None]) -> str:
    from planner.cli.model_files import settings_of
    from planner.files.models import load_model
    from planner.profiling import prepare_model

    model = load_model(path)
    with about(path):
        prepared = prepare_model(model, path.stem, settings_of(*options))
    megabytes = prepared.graph.parameter_bytes() / 1e6
    batch = f"a run takes one request: {prepared.reason}" if prepared.single else "batch can vary"
    return f"valid ONNX model, {len(prepared.graph.layers)} layers, {megabytes:.1f} MB of parameters, {batch}"


def _describe(path: Path, problem: Problem | None) -> str:
    record = load_any(path)
    if isinstance(record, Cluster):
        return "valid cluster, " + " + ".join(f"{device.count} {device.name}" for device in record.device_types)
    if isinstance(record, Observed):
        return f"valid observations: {len(record.runs)} runs of {len(record.models)} models"
    if isinstance(record, Profile):
        return f"valid profile of {record.name}, {len(record.blocks)} blocks on {', '.join(record.devices)}"
    if isinstance(record, Variants):
        return f"valid profiles of {len(record.profiles)} variants: {', '.join(each.name for each in record.profiles)}"
    if isinstance(record, Problem):
        applications = f", {len(record.applications)} applications" if record.applications else ""
        return f"valid problem, {len(record.dnns)} DNNs{applications}"
    return _describe_plan(path, record, problem)


def _describe_published(path: Path, data: Path) -> str:
    from planner.files import ppipe

    problem = ppipe.read_problem(path, data)
    return _describe_plan(path, ppipe.read_plan(path, problem), problem)


def _describe_plan(path: Path, plan: Plan | TaskPlan, problem: Problem | None) -> str:
    from planner.model.check import check
    from planner.model.check_tasks import check_tasks

    if isinstance(plan, TaskPlan):
        what = f"plan task by task, {len(plan.services)} services"
    else:
        what = f"plan, {len(plan.pipelines)} pipelines"
    text = f"valid {what}, objective {plan.value:.3f}, gap {plan.gap:.2%}"
    if problem is None:
        return text + " (give --problem to check its constraints)"
    violations = check_tasks(problem, plan) if isinstance(plan, TaskPlan) else check(problem, plan)
    if violations:
        count = f"{len(violations)} constraint{'s' * (len(violations) > 1)}"
        raise InputError(f"{path}: breaks {count}, first: {violations[0]}; plan again")
    return text + ", every constraint holds"


def schema(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(KINDS)}; of world, see `simulator schema`.")],
    out: Annotated[Path | None, typer.Option(help="Write it to this file instead of the terminal.")] = None,
) -> None:
    """Print the JSON Schema of a kind of file."""
    if kind == "world":
        raise InputError("world files are the simulator's; see `python -m simulator schema world`")
    if kind not in KINDS:
        raise InputError(f"unknown kind of file {kind!r}; expected one of {', '.join(KINDS)}")
    text = json.dumps(schema_of(kind), indent=2, ensure_ascii=False) + "\n"
    if out:
        write_text(out, text)
    else:
        console.out(text, highlight=False, end="")
