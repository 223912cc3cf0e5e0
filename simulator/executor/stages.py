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
    prepare_model,
    with_tables,
)
from simulator.executor.layouts import PipelineModels, StageModel, TensorLayout


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


def prepare_stages(
    problem: Problem, pipelines: Sequence[Pipeline], graphs: Mapping[str, ModelGraph], folder: Path
) -> tuple[PipelineModels, ...]:
    """Write the stage models of pipelines into ``folder``; raises InputError if a model is not the one profiled."""
    prepared = []
    for number, pipeline in enumerate(pipelines):
        graph = graphs[pipeline.variant]
        starts = block_starts(graph, problem.dnn(pipeline.dnn).variant(pipeline.variant))
        layers = [starts[stage.first_block] for stage in pipeline.stages]
        prepared.append(split_model(graph, layers, folder / f"pipeline{number}"))
    return tuple(prepared)


def split_model(graph: ModelGraph, starts: Sequence[int], folder: Path) -> PipelineModels:
    """Write the parts of a model that begin at layers ``starts`` into ``folder``, weights beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    stages = []
    for number, part in enumerate(extract_parts(graph, starts)):
        path = folder / f"stage{number}.onnx"
        ir.save(part.model, path, external_data=f"stage{number}.weights")
        stages.append(StageModel(path, _layouts(graph, part.inputs), _layouts(graph, part.outputs)))
    return PipelineModels(tuple(stages), _layouts(graph, tuple(tensor.name for tensor in graph.inputs)), graph.outputs)


def _layouts(graph: ModelGraph, names: Sequence[str]) -> tuple[TensorLayout, ...]:
    return tuple(
        TensorLayout(name, np.dtype(tensor.dtype.numpy()).name, tensor.shape, tensor.request_bytes, tensor.batch_axis)
        for name, tensor in ((name, graph.tensors[name]) for name in names)
    )


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
