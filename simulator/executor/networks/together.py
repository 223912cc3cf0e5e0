"""Several DNNs' plans in one execution, sharing pools if they do (see `execution`).

DNNs have frontends that reserve or react, as alone, which see what others take of a pool; or there is a queue in front
of every pool, whose batches mix DNNs (`simulator.engine.latest_start`). Merged blocks in a common pool are one model:
exported once, opened once by every worker.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import onnx_ir as ir

from planner.model import Plan, Problem
from planner.profiling.merged_blocks import content, merged_part
from planner.profiling.onnx_graph import ModelGraph
from planner.profiling.samples import Tensors
from simulator.dispatch.frontend import POLICIES
from simulator.dispatch.system import Ints, Pools, System
from simulator.engine.latest_start import Spread, records_of_dnns, routed
from simulator.engine.network import REACTS, Frontend, Network
from simulator.engine.plans import network_of, pools_of
from simulator.engine.run import LATEST_START, REACTIVE
from simulator.engine.running import Run
from simulator.engine.views import network_records, reactive_records, reserved_records
from simulator.executor.dispatcher import with_guard
from simulator.executor.execution import Prepared, Settings, guard_us, prepare, worker_tasks
from simulator.executor.layouts import PipelineModels, StageModel
from simulator.executor.networks.courses import Course, course_of_chain
from simulator.executor.networks.execution import NetworkExecution, execute_network, model_folder, ways_of
from simulator.executor.networks.staff import of_any_kind
from simulator.executor.requesters import Verdict, Verifier
from simulator.executor.stages import save_part, split_model
from simulator.executor.workers import WorkerTask
from simulator.results.records import Records

ALSO = (REACTIVE, LATEST_START)  # policies beside those of a DNN alone


@dataclass(frozen=True, eq=False)
class Together:
    """What came of DNNs that were run together: by DNN their records and verdicts, and the run."""

    records: Mapping[str, Records]
    verdicts: Mapping[str, Verdict]
    execution: NetworkExecution


@dataclass(frozen=True, eq=False)
class _Rules:
    """How DNNs are dispatched: the network, ``stations[dnn][pipeline][stage]``, what arrives of each class, records.

    ``ways`` are those of each class (`execute_network`), courses being numbered by DNN and pipeline; ``dnn_of`` tells
    whose each class is.
    """

    network: Network
    stations: Sequence[Sequence[Sequence[int]]]
    ways: Sequence[Mapping[int, Sequence[int]]]
    arrivals_us: Sequence[Ints]
    dnn_of: Sequence[int]
    records: Callable[[Run], Sequence[Records]]


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
        As of `execution.execute`; the policy may be *reactive* or *latest-start* as well.
    pools
        Per DNN, in the order of ``arrivals_us``, the pools that it shares (`simulator.engine.plans.network_of`); None:
        those that the plan's stages name.

    Raises
    ------
    InputError
        As `execution.execute`; DNNs that share a pool lay it out differently, or mix batches where their blocks are not
        one copy.
    """
    names = list(arrivals_us)
    pools = pools_of(plan, names) if pools is None else pools
    served = [prepare(problem, plan, name, models, settings, (inputs or {}).get(name), ALSO) for name in names]
    systems = [with_guard(one.system, guard_us(settings, one.system)) for one in served]
    arrivals = list(arrivals_us.values())
    if settings.policy == LATEST_START:
        rules = _by_latest_start(systems, arrivals, pools)
    else:
        rules = _by_frontends(systems, arrivals, pools, settings.policy)
    tasks: list[WorkerTask] = []

    def courses(folder: Path) -> list[Course]:
        split = [
            [split_model(one.graph, own, folder / f"dnn{d}" / f"pipeline{p}") for p, own in enumerate(one.starts)]
            for d, one in enumerate(served)
        ]
        tasks.extend(_tasks(served, split, settings, rules))
        merged = _merged(served, pools or (), folder, must_be_one=settings.policy == LATEST_START)
        return [
            _course(names[d], served[d].samples, of_pipeline, d, p, merged)
            for d, own in enumerate(split)
            for p, of_pipeline in enumerate(own)
        ]

    batches = sorted({1, *(int(batch) for one in served for batch in one.system.batch)})
    with model_folder(courses, batches) as made:
        execution = execute_network(
            rules.network,
            made,
            rules.ways,
            rules.arrivals_us,
            tasks,
            [of_any_kind(served[d].requester) for d in rules.dnn_of],
            realtime=settings.realtime,
            tick=tick,
        )
    return Together(
        dict(zip(names, rules.records(execution.run), strict=True)),
        {
            name: one.requester.verdict
            for name, one in zip(names, served, strict=True)
            if isinstance(one.requester, Verifier)
        },
        execution,
    )


def _by_frontends(
    systems: Sequence[System], arrivals_us: Sequence[Ints], pools: Sequence[Pools] | None, policy: str
) -> _Rules:
    """Return that every DNN has a frontend, which is a class of its own."""
    number = REACTS if policy == REACTIVE else POLICIES.index(policy)
    network = network_of(systems, number, pools=pools)
    view = reactive_records if number == REACTS else reserved_records
    return _Rules(
        network,
        [one.stations for one in network.classes if isinstance(one, Frontend)],
        ways_of(network),
        arrivals_us,
        range(len(systems)),
        lambda run: [view(run.state, [d], system) for d, system in enumerate(systems)],
    )


def _by_latest_start(systems: Sequence[System], arrivals_us: Sequence[Ints], pools: Sequence[Pools] | None) -> _Rules:
    """Return that every pool has a queue, and every pipeline is a class."""
    made, spread = routed(systems, pools), Spread.of(systems, arrivals_us)
    return _Rules(
        made.network,
        made.stations,
        ways_of(made.network),
        spread.arrivals_us,
        [d for d, system in enumerate(systems) for _ in range(len(system.stages))],
        lambda run: records_of_dnns(network_records(run.state), systems, made, spread),
    )


@dataclass(frozen=True)
class _Shared:
    """A merged stage, and what a DNN calls its tensors."""

    model: StageModel
    names: Mapping[str, str]


Stage = tuple[int, int, int]  # DNN, pipeline, stage


def _merged(
    served: Sequence[Prepared], pools: Sequence[Pools], folder: Path, *, must_be_one: bool
) -> dict[Stage, _Shared]:
    """Return the stages that are one copy in a pool, exported once; ``must_be_one`` refuses pools of unlike blocks."""
    alike: defaultdict[tuple[Hashable, str], list[Stage]] = defaultdict(list)
    for d, of_dnn in enumerate(pools):
        for (p, s), pool in of_dnn.items():
            digest = "" if must_be_one else content(*_run_of(served, (d, p, s))).digest
            alike[pool, digest].append((d, p, s))
    found: dict[Stage, _Shared] = {}
    for number, stages in enumerate(alike.values()):
        if len(stages) > 1:
            one = merged_part([_run_of(served, stage) for stage in stages])
            model = save_part(served[stages[0][0]].graph, one.part, folder / f"pool{number}.onnx")
            found |= {stage: _Shared(model, names) for stage, names in zip(stages, one.names, strict=True)}
    return found


def _run_of(served: Sequence[Prepared], stage: Stage) -> tuple[ModelGraph, int, int]:
    """Return the layers of a stage."""
    d, p, s = stage
    graph = served[d].graph
    first, last = list(pairwise([*served[d].starts[p], len(graph.layers)]))[s]
    return graph, first, last


def _course(
    name: str, samples: Tensors, models: PipelineModels, d: int, p: int, merged: Mapping[Stage, _Shared]
) -> Course:
    """Return the stages of a pipeline as a course, merged ones in place of its own."""
    shared = {s: merged[d, p, s] for s in range(len(models.stages)) if (d, p, s) in merged}
    stages = [shared[s].model if s in shared else stage for s, stage in enumerate(models.stages)]
    return course_of_chain(
        name, samples, models.requests, stages, models.answers, {s: one.names for s, one in shared.items()}
    )


def _tasks(
    served: Sequence[Prepared], split: Sequence[Sequence[PipelineModels]], settings: Settings, rules: _Rules
) -> list[WorkerTask]:
    """Return what the worker of each server is; a shared one has the cores that the first of its DNNs gives it."""
    found: dict[int, WorkerTask] = {}
    used: set[int] = set()
    for one, models, stations in zip(served, split, rules.stations, strict=True):
        new = {}
        for slice_id, task in worker_tasks(one.system, tuple(models), settings, used).items():
            station = rules.network.stations[stations[slice_id.pipeline][slice_id.stage]]
            server = station.servers[slice_id.slice]
            if server not in found:
                new[server] = task
        found |= new
        used.update(core for task in new.values() for core in task.cores)
    return [found[w] for w in range(len(found))]
