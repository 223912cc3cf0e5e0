"""Several DNNs' plans in one execution, sharing pools if they do (see `network_execution`)."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from planner.model import Plan, Problem
from planner.profiling.onnx_graph import ModelGraph
from planner.profiling.samples import Tensors, cut_samples, draw_samples
from simulator.dispatch.frontend import POLICIES
from simulator.dispatch.system import Ints, System
from simulator.engine.network import REACTS, Frontend, Network
from simulator.engine.plans import network_of
from simulator.engine.system import build_system
from simulator.engine.views import reactive_records, reserved_records
from simulator.executor.chained import with_chained
from simulator.executor.courses import REQUEST, Course, Source
from simulator.executor.dispatcher import with_guard
from simulator.executor.execution import Settings, check_settings, guard_us, only_graph, verifier, worker_tasks
from simulator.executor.layouts import PipelineModels
from simulator.executor.network_execution import NetworkExecution, execute_network, model_folder, ways_of
from simulator.executor.network_staff import of_any_kind
from simulator.executor.requesters import SAMPLES, Samples, Verdict, Verifier
from simulator.executor.stages import read_graphs, split_model, stage_starts
from simulator.executor.workers import WorkerTask
from simulator.results.records import Records

Pools = Mapping[tuple[int, int], Hashable]
REACTIVE = "reactive"


@dataclass(frozen=True, eq=False)
class Together:
    """What came of DNNs that were run together: by DNN their records and verdicts, and the run."""

    records: Mapping[str, Records]
    verdicts: Mapping[str, Verdict]
    execution: NetworkExecution


@dataclass(frozen=True, eq=False)
class _Served:
    """A DNN: its pipelines, where its model is cut, what its requests bring, who gets the answers."""

    system: System
    graph: ModelGraph
    starts: Sequence[Sequence[int]]
    samples: Tensors
    requester: Samples


def execute_together(
    problem: Problem,
    plan: Plan,
    models: Mapping[str, ir.Model],
    arrivals_us: Mapping[str, Ints],
    settings: Settings,
    *,
    pools: Sequence[Pools] | None = None,
    inputs: Mapping[str, Sequence[Tensors]] | None = None,
    tick: Callable[[int], None] | None = None,
) -> Together:
    """Serve the arrivals of several DNNs in one run.

    Parameters
    ----------
    arrivals_us
        DNN -> sorted times (µs) from the start of the run.
    settings
        As of `execution.execute`; the policy may be *reactive* as well.
    pools
        Per DNN, in the order of ``arrivals_us``, the pools that it shares (`simulator.engine.plans.network_of`).

    Raises
    ------
    InputError
        As `execution.execute`, and where DNNs that share a pool lay it out differently.
    """
    names = list(arrivals_us)
    number = REACTS if settings.policy == REACTIVE else POLICIES.index(settings.policy)
    served = {name: _served(problem, plan, name, models, settings, (inputs or {}).get(name)) for name in names}
    systems = [with_guard(one.system, guard_us(settings, one.system)) for one in served.values()]
    network = network_of(systems, number, pools=pools)

    def courses(folder: Path) -> list[Course]:
        split: dict[str, tuple[PipelineModels, ...]] = {
            name: tuple(
                split_model(one.graph, own, folder / f"dnn{d}" / f"pipeline{p}") for p, own in enumerate(one.starts)
            )
            for d, (name, one) in enumerate(served.items())
        }
        tasks.extend(_tasks(served, split, settings, network))
        return [
            course_of_pipeline(name, served[name].samples, models_of) for name in names for models_of in split[name]
        ]

    tasks: list[WorkerTask] = []
    batches = sorted({1, *(int(batch) for one in served.values() for batch in one.system.batch)})
    with model_folder(courses, batches) as made:
        execution = execute_network(
            network,
            made,
            ways_of(network),
            list(arrivals_us.values()),
            tasks,
            [of_any_kind(one.requester) for one in served.values()],
            realtime=settings.realtime,
            tick=tick,
        )
    view = reactive_records if number == REACTS else reserved_records
    return Together(
        {name: view(execution.run.state, [d], served[name].system) for d, name in enumerate(names)},
        {name: one.requester.verdict for name, one in served.items() if isinstance(one.requester, Verifier)},
        execution,
    )


def course_of_pipeline(name: str, samples: Tensors, models: PipelineModels) -> Course:
    """Return the stages of a pipeline as a course."""
    made = [(REQUEST, models.requests), *((number, stage.outputs) for number, stage in enumerate(models.stages))]
    answers = {
        layout.name: Source(step, place)
        for step, layouts in made
        for place, layout in enumerate(layouts)
        if layout.name in models.answers
    }
    before = tuple((number - 1,) if number else () for number in range(len(models.stages)))
    return Course(name, samples, models.requests, tuple({0: stage} for stage in models.stages), before, answers)


def _served(
    problem: Problem,
    plan: Plan,
    name: str,
    models: Mapping[str, ir.Model],
    settings: Settings,
    inputs: Sequence[Tensors] | None,
) -> _Served:
    system = build_system(problem, plan, name)
    check_settings(settings, system, also=(REACTIVE,))
    models = with_chained(problem, plan.of(name), models)
    graphs = read_graphs(problem, plan.of(name), models)
    variant, graph = only_graph(name, graphs)
    starts = stage_starts(problem, plan.of(name), graphs)
    samples = draw_samples(graph, SAMPLES, settings.seed) if inputs is None else cut_samples(graph, inputs)
    requester = Samples(samples)
    if settings.verify:
        requester = verifier(models[variant], graph, starts, samples, settings)
    return _Served(system, graph, starts, samples, requester)


def _tasks(
    served: Mapping[str, _Served], split: Mapping[str, tuple[PipelineModels, ...]], settings: Settings, network: Network
) -> list[WorkerTask]:
    """Return what the worker of each server is; a shared one has the cores that the first of its DNNs gives it."""
    found: dict[int, WorkerTask] = {}
    used: set[int] = set()
    for (name, one), frontend in zip(served.items(), network.classes, strict=True):
        assert isinstance(frontend, Frontend)
        new = {}
        for slice_id, task in worker_tasks(one.system, split[name], settings, used).items():
            server = network.stations[frontend.stations[slice_id.pipeline][slice_id.stage]].servers[slice_id.slice]
            if server not in found:
                new[server] = task
        found |= new
        used.update(core for task in new.values() for core in task.cores)
    return [found[w] for w in range(len(found))]
