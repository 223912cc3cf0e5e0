"""The command that searches what models may share by training them again."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from planner.cli.app import about, console
from planner.cli.model_files import read_model, settings_of
from planner.files import printable
from planner.files.atomic import require_folder
from planner.model import InputError

if TYPE_CHECKING:
    from planner.profiling import ModelGraph
    from planner.retraining import Task


def retrain(
    models: Annotated[list[str], typer.Argument(help="Two or more classifiers (.onnx files).")],
    data: Annotated[
        Path,
        typer.Option(
            help="A .npz file: inputs, test_inputs, and labels.NAME and test_labels.NAME of every model, from 0."
        ),
    ],
    memory_mb: Annotated[str, typer.Option(help="MB that each device has for these models: 1.2,1.2,0.7.")],
    out: Annotated[Path, typer.Option(help="Folder for the merged models, and the answers that were found.")],
    lose: Annotated[float, typer.Option(min=0, help="Points of accuracy (percent) that a model may lose.")] = 1.0,
    stages: Annotated[int, typer.Option(min=1, help="Stages that a model may have.")] = 2,
    load: Annotated[float, typer.Option(min=0, help="What a model keeps busy of a device, on the mean.")] = 0.2,
    joint_epochs: Annotated[int, typer.Option(min=1, help="Most epochs of all models together.")] = 3,
    own_epochs: Annotated[int, typer.Option(min=0, help="Most epochs of each model alone.")] = 5,
    most_tries: Annotated[int, typer.Option(min=1, help="Questions at most, each of which trains the models.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the order of training.")] = 0,
) -> None:
    """Merge what saves the most memory and lets every model keep its accuracy, and write the models trained again.

    Layer groups begin at layers with weights; the last one is the head, and stays each model's own. A run that is
    cut off goes on with the answers in OUT/answers.jsonl.
    """
    from planner.files.models import save_model
    from planner.planning.merging import exact
    from planner.planning.merging.deployment import MergeProblem
    from planner.planning.merging.oracles import History
    from planner.planning.merging.schemes import MergeModel
    from planner.retraining import Effort, Retrained, Retraining, groups_of, write_models

    graphs = [read_model(model, settings_of(None)).graph for model in models]
    names = [graph.name for graph in graphs]
    if len(graphs) < 2 or len(set(names)) < len(names):
        raise InputError(f"expected two or more models of different names, got {names}")
    with about(data):
        tasks = _read_tasks(data, graphs, lose)
    for task in tasks:
        console.print(
            printable(f"{task.graph.name}: {task.min_accuracy + lose:.2f} % of the test inputs right"), highlight=False
        )

    def tell(_: object, retrained: Retrained) -> None:
        reached = ", ".join(f"{percent:.2f} %" for percent in retrained.accuracy)
        console.print(f"trained again: {reached}: {'accepted' if retrained.accepted else 'refused'}", highlight=False)

    oracle = Retraining(tasks, seed, Effort(joint_epochs, own_epochs), tell)
    merged = tuple(MergeModel(task.graph.name, groups_of(task.graph, task.starts), stages, 1.0, load) for task in tasks)
    problem = MergeProblem(merged, tuple(int(size * 1e6) for size in _sizes(memory_mb)))
    require_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    history = History(merged, oracle, out / "answers.jsonl")
    found = exact.search(problem, history, most_tries=most_tries)
    if not found.sharing:
        raise InputError("nothing can be shared without losing more accuracy; let models lose more, or train longer")
    result = oracle.result(found.sharing)
    for task, model in zip(tasks, write_models(tasks, result.weights), strict=True):
        save_model(model, out / f"{task.graph.name}.onnx")
    for members in sorted(found.sharing, key=min):
        shared = ", ".join(f"group {group} of {names[model]}" for model, group in sorted(members))
        console.print(printable(f"one copy: {shared}"), highlight=False, soft_wrap=True)
    bound = "" if found.bound_bytes is None else f", at most {found.bound_bytes / 1e6:.3f} MB possible"
    console.print(
        printable(f"saves {found.saved_bytes / 1e6:.3f} MB{bound}; models and answers written to {out}"),
        highlight=False,
        soft_wrap=True,
    )


def _read_tasks(path: Path, graphs: Sequence["ModelGraph"], lose: float) -> list["Task"]:
    """Return every model with its data, and the accuracy that it must keep."""
    import numpy as np

    from planner.retraining import Task, accuracy, group_starts, weights_of

    try:
        arrays = dict(np.load(path, allow_pickle=False))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read it ({str(error).splitlines()[0]}); expected a .npz file") from None

    def array(name: str) -> Any:
        if name not in arrays:
            raise InputError(f"has no array {name!r}; it has {', '.join(sorted(arrays))}")
        return arrays[name]

    tasks = []
    for graph in graphs:
        labels = [array(f"{part}.{graph.name}") for part in ("labels", "test_labels")]
        inputs = [array(part) for part in ("inputs", "test_inputs")]
        for name, own, given in zip(("labels", "test_labels"), labels, inputs, strict=True):
            if len(own) != len(given) or own.ndim != 1 or own.dtype.kind not in "iu":
                raise InputError(
                    f"{name}.{graph.name}: expected {len(given)} whole numbers, got {own.dtype} {list(own.shape)}"
                )
        learn, test = (np.asarray(one, np.float32) for one in inputs)
        numbers = [one.astype(np.int64) for one in labels]
        task = Task(graph, group_starts(graph), learn, numbers[0], test, numbers[1], 0.0)
        tasks.append(replace(task, min_accuracy=accuracy(task, weights_of(graph)) - lose))
    return tasks


def _sizes(text: str) -> list[float]:
    try:
        sizes = [float(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) <= 0:
        raise InputError(f"--memory-mb: expected numbers above 0 like 1.2,0.7, got {text!r}")
    return sizes
