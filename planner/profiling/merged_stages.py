"""The stages of a plan as models: those of a pool once for all its DNNs, verified against every original."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from planner.model import InputError, Plan, Problem
from planner.profiling.merged_blocks import merged_part
from planner.profiling.onnx_graph import ModelGraph
from planner.profiling.profiles import block_starts
from planner.profiling.runtime import open_session, random_feeds, run_model
from planner.profiling.split import Part

TOLERANCE = 1e-4  # of the largest number in an answer: the runtime fuses stages otherwise than the whole


@dataclass(frozen=True, eq=False)
class ExportedStages:
    """The stages of a plan as models: ``parts`` by (pipeline, stage) of the first stage of a pool.

    ``where`` has for every stage whose part it is, and what that part's tensors are called in the stage's own model.
    """

    parts: Mapping[tuple[int, int], Part]
    where: Mapping[tuple[int, int], tuple[tuple[int, int], Mapping[str, str]]]


def export_stages(problem: Problem, plan: Plan, graphs: Mapping[str, ModelGraph]) -> ExportedStages:
    """Return every stage of a plan as a model, those of a pool once for all, verified to be one copy.

    Raises
    ------
    InputError
        A model is missing, or not the one profiled, or a pool's stages are not one copy.
    """
    runs: dict[tuple[int, int], tuple[ModelGraph, int, int]] = {}
    for number, pipeline in enumerate(plan.pipelines):
        if pipeline.variant not in graphs:
            raise InputError(f"no model is given for variant {pipeline.variant!r}; the models are {sorted(graphs)}")
        graph = graphs[pipeline.variant]
        starts = block_starts(graph, problem.dnn(pipeline.dnn).variant(pipeline.variant))
        ends = (*starts, len(graph.layers))
        for position, stage in enumerate(pipeline.stages):
            runs[number, position] = graph, ends[stage.first_block], ends[stage.last_block]
    together: defaultdict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for stage_at, home in plan.homes.items():
        together[home].append(stage_at)
    parts: dict[tuple[int, int], Part] = {}
    where: dict[tuple[int, int], tuple[tuple[int, int], Mapping[str, str]]] = {}
    for home, members in together.items():
        merged = merged_part([runs[member] for member in members])
        parts[home] = merged.part
        for number, member in enumerate(members):
            where[member] = home, merged.names[number]
    return ExportedStages(parts, where)


def verify_stages(plan: Plan, graphs: Mapping[str, ModelGraph], stages: ExportedStages, requests: int = 4) -> float:
    """Run every pipeline stage by stage, and return by how much its answers differ from its model's, relative.

    Raises
    ------
    InputError
        They differ by more than `TOLERANCE`.
    """
    sessions = {home: open_session(part.model) for home, part in stages.parts.items()}
    worst = 0.0
    for number, pipeline in enumerate(plan.pipelines):
        graph = graphs[pipeline.variant]
        given = random_feeds(graph.model, 1 if graph.single else requests, np.random.default_rng(0))
        whole = run_model(open_session(graph.model), given)
        alive = dict(given)
        for position in range(len(pipeline.stages)):
            home, names = stages.where[number, position]
            part = stages.parts[home]
            made = run_model(sessions[home], {name: alive[names[name]] for name in part.inputs})
            alive |= {names[name]: tensor for name, tensor in zip(part.outputs, made, strict=True)}
        for name, expected in zip(graph.outputs, whole, strict=True):
            scale = float(np.abs(expected).max(initial=0)) or 1.0
            worst = max(worst, float(np.abs(alive[name] - expected).max(initial=0)) / scale)
    if worst > TOLERANCE:
        raise InputError(
            f"the stages answer otherwise than the models, by {worst:.1e} of the largest number; export models again"
        )
    return worst
