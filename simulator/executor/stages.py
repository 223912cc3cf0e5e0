"""From a plan and a folder of ONNX files to the models that slices run, one per stage.

A plan speaks of blocks, a profile says which layers they hold, the model's file holds the layers. The file must be
the one that was profiled (by its hash), for a plan's figures mean nothing for another.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from planner.model import InputError, Pipeline, Problem, Profile
from planner.profiling.batching import free_batch
from planner.profiling.onnx_graph import ModelGraph, read_graph
from planner.profiling.profiles import block_starts
from planner.profiling.split import extract_parts
from simulator.executor.layouts import PipelineModels, StageModel, TensorLayout


def prepare_stages(
    problem: Problem, pipelines: Sequence[Pipeline], models: Path, folder: Path
) -> tuple[PipelineModels, ...]:
    """Write the stage models of pipelines into ``folder``.

    Parameters
    ----------
    models
        Folder that holds ``<variant>.onnx`` for every variant that the pipelines serve.

    Raises
    ------
    InputError
        A model is missing, is not the one that was profiled, or has other layers than its profile.
    """
    graphs: dict[tuple[str, str], ModelGraph] = {}
    prepared = []
    for number, pipeline in enumerate(pipelines):
        profile = problem.dnn(pipeline.dnn).variant(pipeline.variant)
        key = pipeline.dnn, pipeline.variant
        if key not in graphs:
            graphs[key] = load_model(profile, models)
        starts = block_starts(graphs[key], profile)
        layers = [starts[stage.first_block] for stage in pipeline.stages]
        prepared.append(split_model(graphs[key], layers, folder / f"pipeline{number}"))
    return tuple(prepared)


def load_model(profile: Profile, models: Path) -> ModelGraph:
    """Return the graph of the model that was profiled; raises InputError as `prepare_stages` does."""
    path = models / f"{profile.name}.onnx"
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected the model {profile.name} there (choose --models)")
    if profile.model_sha256 is not None:
        digest = file_sha256(path)
        if digest != profile.model_sha256:
            raise InputError(
                f"{path}: the model changed since it was profiled (SHA-256 {digest[:12]}, profiled "
                f"{profile.model_sha256[:12]}); profile it again, or give the file that was profiled"
            )
    try:
        model = ir.load(path)
    except Exception as error:  # protobuf, onnx_ir and the file system each raise their own
        raise InputError(f"{path}: not a readable ONNX model ({str(error).splitlines()[0]})") from None
    return read_graph(free_batch(model), profile.name)


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file (hex)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
        TensorLayout(name, np.dtype(tensor.dtype.numpy()).name, tensor.shape, tensor.request_bytes, tensor.batched)
        for name, tensor in ((name, graph.tensors[name]) for name in names)
    )
