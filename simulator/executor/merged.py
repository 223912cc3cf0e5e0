"""Models that share stages, on real devices.

A stage that several of them have in common is one, with one copy of its weights, and serves them all in common batches
(see `network_execution`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from planner.model import InputError, ModelSettings
from planner.profiling import ModelGraph, prepare_model
from planner.profiling.common_layers import are_one
from planner.profiling.samples import Tensors, cut_samples, draw_samples
from simulator.dispatch.system import Ints
from simulator.engine.network import Network, Route
from simulator.engine.views import network_records
from simulator.executor.courses import Course
from simulator.executor.execution import Settings, verifier
from simulator.executor.layouts import StageModel
from simulator.executor.network_execution import (
    NetworkExecution,
    execute_network,
    model_folder,
    require_models,
    ways_of,
)
from simulator.executor.network_staff import of_any_kind
from simulator.executor.requesters import SAMPLES, Samples, Verdict, Verifier
from simulator.executor.stages import split_model
from simulator.executor.together import course_of_pipeline
from simulator.executor.workers import WorkerTask
from simulator.results.records import NetworkRecords


@dataclass(frozen=True, eq=False)
class MergedExecution:
    """What came of merged models: records of all (a class per model), a verdict per model, the run."""

    records: NetworkRecords
    verdicts: Mapping[str, Verdict]
    execution: NetworkExecution


def execute_merged(
    network: Network,
    models: Mapping[str, ir.Model],
    starts: Mapping[str, Sequence[int]],
    arrivals_us: Sequence[Ints],
    settings: Settings,
    *,
    inputs: Mapping[str, Sequence[Tensors]] | None = None,
    tick: Callable[[int], None] | None = None,
) -> MergedExecution:
    """Serve several models whose routes may lead through common stations.

    Parameters
    ----------
    network
        Stations, servers, and a `Route` per model, called as it is; a chain with a step per stage. A station that
        several routes lead through is a merged stage.
    models, starts
        By name: the model, and the layers at which its stages begin.
    arrivals_us
        Per route.
    settings
        Provider, emulated slowdown (of the device ``server``), verification, seed and priority are followed.

    Raises
    ------
    InputError
        A model is missing, stages at one station are not alike or have weights of their own, or a worker cannot start.
    """
    routes = [one for one in network.classes if isinstance(one, Route)]
    names = [route.name for route in routes]
    if len(routes) < len(network.classes) or len(set(names)) < len(names):
        raise InputError(f"merged models: expected a route per model, of different names, got {names}")
    require_models(names, models)
    graphs = {name: prepare_model(models[name], name, ModelSettings(), compare=False).graph for name in names}
    owners = _owners(routes, graphs, starts)
    samples = {
        name: draw_samples(graph, SAMPLES, settings.seed)
        if inputs is None or name not in inputs
        else cut_samples(graph, inputs[name])
        for name, graph in graphs.items()
    }
    requesters: dict[str, Samples] = {
        name: verifier(models[name], graph, [starts[name]], samples[name], settings)
        if settings.verify
        else Samples(samples[name])
        for name, graph in graphs.items()
    }

    def courses(folder: Path) -> list[Course]:
        found: list[Course] = []
        stages: dict[tuple[str, int], StageModel] = {}
        for number, (name, route) in enumerate(zip(names, routes, strict=True)):
            split = split_model(graphs[name], starts[name], folder / f"model{number}")
            stages |= {(name, step): stage for step, stage in enumerate(split.stages)}
            course = course_of_pipeline(name, samples[name], split)
            shared = [stages[owners[one.station]] for one in route.steps]
            kinds = [len(network.stations[one.station].latency_us) for one in route.steps]
            found.append(_with_stages(course, shared, kinds))
        return found

    task = WorkerTask((), "server", 1.0, (), 1, settings.provider, (1,), settings.emulation.slowdown.get("server", 1))
    batches = sorted({1, *(station.max_batch for station in network.stations)})
    with model_folder(courses, batches) as made:
        execution = execute_network(
            network,
            made,
            ways_of(network),
            arrivals_us,
            [task] * len(network.servers),
            [of_any_kind(requesters[name]) for name in names],
            realtime=settings.realtime,
            tick=tick,
        )
    verdicts = {name: one.verdict for name, one in requesters.items() if isinstance(one, Verifier)}
    return MergedExecution(network_records(execution.run.state), verdicts, execution)


def _owners(
    routes: Sequence[Route], graphs: Mapping[str, ModelGraph], starts: Mapping[str, Sequence[int]]
) -> dict[int, tuple[str, int]]:
    """Return the model and stage that each station runs: the first that comes there, which the others must equal."""
    owners: dict[int, tuple[str, int]] = {}
    for route in routes:
        if len(route.steps) != len(starts[route.name]):
            raise InputError(
                f"{route.name}: its route has {len(route.steps)} steps, the model is cut into "
                f"{len(starts[route.name])} stages; expected as many"
            )
        for step, one in enumerate(route.steps):
            owner = owners.setdefault(one.station, (route.name, step))
            spans = [_span(graphs[name], starts[name], stage) for name, stage in (owner, (route.name, step))]
            (first, count), (other, others) = spans
            if count != others or not are_one([graphs[owner[0]], graphs[route.name]], [first, other], count):
                raise InputError(
                    f"station {one.station}: stage {step} of {route.name} is not stage {owner[1]} of {owner[0]}: "
                    "their layers or weights differ; merged stages must be equal to the byte"
                )
    return owners


def _span(graph: ModelGraph, starts: Sequence[int], stage: int) -> tuple[int, int]:
    """Return the first layer of a stage, and how many it has."""
    end = starts[stage + 1] if stage + 1 < len(starts) else len(graph.layers)
    return starts[stage], end - starts[stage]


def _with_stages(course: Course, stages: Sequence[StageModel], kinds: Sequence[int]) -> Course:
    """Return a course that goes through the stages of others, on all kinds of servers that stations have."""
    steps = tuple(dict.fromkeys(range(count), stage) for stage, count in zip(stages, kinds, strict=True))
    return replace(course, steps=steps)
