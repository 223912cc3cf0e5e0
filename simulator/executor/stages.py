"""From a plan and its models to the models that slices run, one per stage.

A plan speaks of blocks, a profile says which layers they hold, the model holds the layers.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from planner.model import InputError, Pipeline, Problem, Profile
from planner.profiling import (
    ModelGraph,
    blank_profile,
    block_starts,
    estimate_tables,
    extract_parts,
    find_device,
    free_batch,
    read_graph,
    with_tables,
)
from simulator.executor.layouts import PipelineModels, StageModel, TensorLayout


def read_graphs(pipelines: Sequence[Pipeline], models: Mapping[str, ir.Model]) -> dict[str, ModelGraph]:
    """Return the graph of every variant that pipelines serve, by its name; raises InputError if one is not given."""
    graphs = {}
    for variant in dict.fromkeys(pipeline.variant for pipeline in pipelines):
        if variant not in models:
            raise InputError(f"no model is given for variant {variant!r}; the models are {sorted(models)}")
        graphs[variant] = read_graph(free_batch(models[variant]), variant)
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


def estimate_per_layer(model: ir.Model, name: str, devices: Sequence[str], batch: int) -> Profile:
    """Return a profile with one block per layer, estimated for devices of the catalogue; raises InputError."""
    graph = read_graph(free_batch(model), name)
    starts = range(len(graph.layers))
    kinds = [find_device(device) for device in dict.fromkeys(devices)]
    return with_tables(blank_profile(graph, starts), estimate_tables(graph, starts, kinds, [batch], [1]))
