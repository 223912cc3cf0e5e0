"""From a plan and its models to the models that slices run, one per stage.

A plan speaks of blocks, a profile says which layers they hold, the model holds the layers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from planner.model import InputError, ModelSettings, Pipeline, Problem, Profile
from planner.profiling import (
    ModelGraph,
    blank_profile,
    block_starts,
    estimate_tables,
    extract_parts,
    find_device,
    open_session,
    prepare_model,
    run_model,
    with_tables,
)
from planner.profiling.cuts import moved_by, run_parts
from planner.profiling.differences import Difference
from planner.profiling.samples import Tensors, join
from planner.profiling.shapes import Tensor
from planner.profiling.split import Part
from simulator.executor.chained import prefixed, tasks_of
from simulator.executor.layouts import PipelineModels, StageModel, TensorLayout

NOISE_SAMPLES = 8  # what optimisations make of stages differs between requests more than what they make of the whole
# Set aside for an answer whose size depends on the data: so much, or so many times what was met.
LEAST_ROOM_BYTES = 2**16
TIMES_ROOM = 16


def read_graphs(
    problem: Problem, pipelines: Sequence[Pipeline], models: Mapping[str, ir.Model]
) -> dict[str, ModelGraph]:
    """Return the graph of every variant that pipelines serve, by its name, read with the settings of its profile.

    Raises
    ------
    InputError
        A model is not given, or is not as its profile says.
    """
    graphs = {}
    for dnn, variant in dict.fromkeys((pipeline.dnn, pipeline.variant) for pipeline in pipelines):
        if variant not in models:
            raise InputError(f"no model is given for variant {variant!r}; the models are {sorted(models)}")
        settings = problem.dnn(dnn).variant(variant).settings or ModelSettings()
        prepared = prepare_model(models[variant], variant, settings, compare=False)
        if prepared.single and not settings.single:
            raise InputError(f"{variant}: a run takes one request: {prepared.reason}; profile the model again")
        graphs[variant] = prepared.graph
    return graphs


def stage_starts(problem: Problem, pipelines: Sequence[Pipeline], graphs: Mapping[str, ModelGraph]) -> list[list[int]]:
    """Return per pipeline the layers at which stages begin; raises InputError if a model is not the one profiled."""
    found = []
    for pipeline in pipelines:
        tasks = tasks_of(problem, pipeline.dnn, pipeline.variant)
        profile = prefixed(problem.dnn(pipeline.dnn).variant(pipeline.variant), tasks)
        starts = block_starts(graphs[pipeline.variant], profile)
        found.append([starts[stage.first_block] for stage in pipeline.stages])
    return found


def split_model(graph: ModelGraph, starts: Sequence[int], folder: Path) -> PipelineModels:
    """Write the parts of a model that begin at layers ``starts`` into ``folder``, weights beside them.

    Raises
    ------
    InputError
        Between the parts, or from or to requesters, something travels that is no tensor of numbers.
    """
    stages = tuple(
        save_part(graph, part, folder / f"stage{number}.onnx")
        for number, part in enumerate(extract_parts(graph, starts))
    )
    return PipelineModels(stages, _layouts(graph, tuple(tensor.name for tensor in graph.inputs)), graph.outputs)


def save_part(graph: ModelGraph, part: Part, path: Path) -> StageModel:
    """Write a part of a model to a file, weights beside it; raises InputError as `split_model` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ir.save(part.model, path, external_data=f"{path.stem}.weights")
    return StageModel(path, _layouts(graph, part.inputs), _layouts(graph, part.outputs))


def _layouts(graph: ModelGraph, names: Sequence[str]) -> tuple[TensorLayout, ...]:
    return tuple(_layout(graph.tensors[name], answer=name in graph.outputs) for name in names)


def _layout(tensor: Tensor, *, answer: bool = False) -> TensorLayout:
    if tensor.obstacle and not (answer and tensor.varies):
        hint = "export the model without that output" if answer else "cut the model elsewhere"
        raise InputError(f"tensor {tensor.name!r} cannot travel: {tensor.obstacle}; {hint}")
    kind = np.dtype(tensor.dtype.numpy())
    room = max(LEAST_ROOM_BYTES, TIMES_ROOM * tensor.request_bytes) if tensor.varies else 0
    return TensorLayout(tensor.name, kind.name, tensor.shape, tensor.request_bytes, tensor.batch_axis, room)


def write_warm_up(models: PipelineModels, graph: ModelGraph, samples: Tensors, batches: Sequence[int]) -> None:
    """Run the stages on batches of samples, and write what each one reads to where its workers will look for it.

    Raises
    ------
    InputError
        A stage cannot run on what the ones before it make, or makes something else than its model's shapes promise.
    """
    count = len(next(iter(samples.values())))
    alive = {batch: join(graph, samples, [number % count for number in range(batch)]) for batch in batches}
    for number, stage in enumerate(models.stages):
        session = open_session(stage.path)
        for batch, tensors in alive.items():
            feeds = {layout.name: tensors[layout.name] for layout in stage.inputs}
            np.savez(stage.warm_up_file(batch), *feeds.values())
            made = run_model(session, feeds)
            for layout, tensor in zip(stage.outputs, made, strict=True):
                if mismatch := layout.mismatch(tensor, batch):
                    raise InputError(f"stage {number} at batch {batch}: {mismatch}; cut the model elsewhere")
                tensors[layout.name] = tensor
            for name in set(tensors) - models.needed_after(number):
                del tensors[name]


def noise_of_stages(
    graph: ModelGraph, starts: Sequence[int], samples: Tensors, scales: Mapping[str, Difference]
) -> dict[str, Difference]:
    """Return how far the runtime's optimisations of stages, each by itself, move outputs, relative to their scales."""
    batch = 1 if graph.single else min(NOISE_SAMPLES, len(next(iter(samples.values()))))
    feeds = join(graph, samples, range(batch))
    plain, optimised = (run_parts(graph, starts, feeds, optimise=optimise) for optimise in (False, True))
    return moved_by(graph, plain, optimised, batch, scales)


def estimate_per_layer(
    model: ir.Model, name: str, devices: Sequence[str], batch: int, settings: ModelSettings | None = None
) -> Profile:
    """Return a profile with one block per layer that can be cut, estimated for devices of the catalogue.

    Raises
    ------
    InputError
        A device is unknown, the model cannot be prepared with the settings, or a run of it takes one request.
    """
    prepared = prepare_model(model, name, settings, compare=False)
    if prepared.single and batch > 1:
        raise InputError(f"{name}: a run takes one request: {prepared.reason}; take batch 1")
    graph = prepared.graph
    starts = [cut for cut in range(len(graph.layers)) if cut not in graph.barred]
    kinds = [find_device(device) for device in dict.fromkeys(devices)]
    profile = with_tables(blank_profile(graph, starts), estimate_tables(graph, starts, kinds, [batch], [1]))
    return replace(profile, settings=None if prepared.settings == ModelSettings() else prepared.settings)
