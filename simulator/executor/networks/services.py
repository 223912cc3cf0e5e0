"""Chains of tasks with variants on real devices: a central queue per task, variants switched while requests flow."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from planner.model import ModelSettings
from planner.profiling import ModelGraph, prepare_model
from planner.profiling.samples import Tensors, cut_samples, draw_samples
from planner.profiling.verification import measure_yardstick
from simulator.adaptation.service import Configuration, Service
from simulator.dispatch.system import Ints
from simulator.engine.network import Route
from simulator.engine.networks import Adapt
from simulator.engine.views import network_records
from simulator.executor.execution import Settings
from simulator.executor.layouts import StageModel
from simulator.executor.networks.courses import Course, Source
from simulator.executor.networks.execution import (
    NetworkExecution,
    before_of,
    execute_network,
    model_folder,
    require_models,
)
from simulator.executor.requesters import SAMPLES, Requester, Samples, Verdict, Verifier
from simulator.executor.stages import split_model
from simulator.executor.workers import WorkerTask
from simulator.results.records import NetworkRecords


@dataclass(frozen=True, eq=False)
class ServiceExecution:
    """What came of a service: records as a simulation's, a verdict per choice of variants that answered, the run."""

    records: NetworkRecords
    verdicts: Mapping[tuple[str, ...], Verdict]
    execution: NetworkExecution


def execute_service(
    service: Service,
    configuration: Configuration,
    models: Mapping[str, ir.Model],
    arrivals_us: Ints,
    settings: Settings,
    *,
    inputs: Sequence[Tensors] | None = None,
    adapt: Adapt | None = None,
    every_us: int = 0,
    tick: Callable[[int], None] | None = None,
) -> ServiceExecution:
    """Serve arrivals with a chain of tasks that begins with a configuration.

    Parameters
    ----------
    models
        The model of each variant, by name. What a task's model makes is what the next one reads, tensor by tensor.
    settings
        Provider, emulated slowdown (of the device ``replica``), verification, seed and priority are followed.
    adapt, every_us
        As of `simulator.engine.networks.simulate_network`: for example `simulator.adaptation.Controller.callback`.

    Raises
    ------
    InputError
        A model is missing or does not fit between its neighbours, or a worker cannot start.
    """
    variants = [[variant.name for variant in task.variants] for task in service.tasks]
    require_models([name for names in variants for name in names], models)
    graphs = {
        name: prepare_model(models[name], name, ModelSettings(), compare=False).graph
        for names in variants
        for name in names
    }
    first = graphs[variants[0][configuration[0].variant]]
    samples = draw_samples(first, SAMPLES, settings.seed) if inputs is None else cut_samples(first, inputs)
    network = service.network(configuration)
    (route,) = network.classes
    assert isinstance(route, Route)

    def courses(folder: Path) -> list[Course]:
        steps: list[dict[int, StageModel]] = []
        requests = None
        for number, names in enumerate(variants):
            steps.append({})
            for kind, name in enumerate(names):
                split = split_model(graphs[name], [0], folder / f"task{number}" / f"variant{kind}")
                requests = split.requests if requests is None else requests
                steps[number][kind] = split.stages[0]
        last = steps[-1][0].outputs
        answers = {layout.name: Source(len(steps) - 1, place) for place, layout in enumerate(last)}
        assert requests is not None
        return [Course("service", samples, requests, tuple(steps), before_of(route), answers)]

    answerers = _Answerers(variants, models, graphs, samples, settings)
    task = WorkerTask((), "replica", 1.0, (), 1, settings.provider, (1,), settings.emulation.slowdown.get("replica", 1))
    batches = sorted({1, *(setting.batch for setting in configuration)})
    with model_folder(courses, batches) as made:
        execution = execute_network(
            network,
            made,
            [{0: tuple(step.station for step in route.steps)}],
            [arrivals_us],
            [task] * len(network.servers),
            [answerers.of],
            adapt=adapt,
            every_us=every_us,
            realtime=settings.realtime,
            tick=tick,
        )
    return ServiceExecution(network_records(execution.run.state), answerers.verdicts(), execution)


class _Answerers:
    """Who gets the answers of each choice of variants: compared with what their originals say, one after the other."""

    def __init__(
        self,
        variants: Sequence[Sequence[str]],
        models: Mapping[str, ir.Model],
        graphs: Mapping[str, ModelGraph],
        samples: Tensors,
        settings: Settings,
    ) -> None:
        self._variants, self._models, self._graphs, self._settings = variants, models, graphs, settings
        self._inputs: dict[tuple[str, ...], Tensors] = {(): samples}
        self._found: dict[tuple[str, ...], _Renaming] = {}
        self._counting = Samples(samples)
        if settings.verify:  # before the run, which must not wait for it
            for names in np.ndindex(*map(len, variants)):
                self._verifier(tuple(own[kind] for own, kind in zip(variants, names, strict=True)))

    def of(self, kinds: tuple[int, ...]) -> Requester:
        """Return who gets the answers of some kinds."""
        if not self._settings.verify:
            return self._counting
        return self._found[tuple(own[kind] for own, kind in zip(self._variants, kinds, strict=True))]

    def verdicts(self) -> dict[tuple[str, ...], Verdict]:
        """Return what was found of each choice that answered."""
        return {names: one.verifier.verdict for names, one in self._found.items() if one.verifier.answered}

    def _verifier(self, names: tuple[str, ...]) -> None:
        inputs, graph = self._inputs_of(names[:-1], names[-1]), self._graphs[names[-1]]
        yardstick = measure_yardstick(self._models[names[-1]], graph, inputs, self._settings.tolerance)
        source = self._settings.inputs or f"random inputs of seed {self._settings.seed}"
        self._found[names] = _Renaming(Verifier(inputs, graph, yardstick, source), graph.outputs)

    def _inputs_of(self, before: tuple[str, ...], name: str) -> Tensors:
        """Return what the last of some tasks reads where the originals of those before it have answered."""
        graph = self._graphs[name]
        if not before:
            return dict(zip((one.name for one in graph.inputs), self._inputs[()].values(), strict=True))
        if before not in self._inputs:
            inputs, own = self._inputs_of(before[:-1], before[-1]), self._graphs[before[-1]]
            answers = measure_yardstick(self._models[before[-1]], own, inputs, None).answers
            self._inputs[before] = {name: np.stack([answer[name] for answer in answers]) for name in own.outputs}
        return dict(zip((one.name for one in graph.inputs), self._inputs[before].values(), strict=True))


@dataclass(frozen=True)
class _Renaming:
    """Answers under the names that the last task's first variant gives them, told to who calls them otherwise."""

    verifier: Verifier
    names: Sequence[str]
    reads: bool = True

    def answer(self, first: int, size: int, outputs: Tensors) -> None:
        """Take the outputs of requests."""
        self.verifier.answer(first, size, dict(zip(self.names, outputs.values(), strict=True)))
