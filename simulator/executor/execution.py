"""Run one DNN's part of a plan on real devices."""

import os
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import onnx_ir as ir

from planner.model import InputError, Plan, Problem
from planner.profiling.onnx_graph import ModelGraph
from planner.profiling.runtime import require_provider
from planner.profiling.samples import Tensors, cut_samples, draw_samples
from planner.profiling.verification import measure_yardstick
from simulator.dispatch.frontend import POLICIES
from simulator.dispatch.system import Ints, System
from simulator.engine.system import build_system
from simulator.executor.chained import with_chained
from simulator.executor.devices import (
    CPU,
    Emulation,
    assign_cores,
    check_emulation,
    device_of,
    slices_of,
    threads_of,
)
from simulator.executor.dispatcher import Dispatcher, compile_policy
from simulator.executor.fleet import Equipment, Fleet, SliceId, start
from simulator.executor.frontend import Frontend, Patience
from simulator.executor.journal import Journal, to_records
from simulator.executor.layouts import PipelineModels
from simulator.executor.links import Links
from simulator.executor.local import LocalFleet
from simulator.executor.on_ray import RayFleet
from simulator.executor.requesters import SAMPLES, Samples, Verdict, Verifier
from simulator.executor.stages import noise_of_stages, read_graphs, split_model, stage_starts, write_warm_up
from simulator.executor.undisturbed import ahead_of_workers, quietly, stopping_on_interrupt
from simulator.executor.workers import WorkerTask
from simulator.results.records import Records

IN_FLIGHT_PER_SLICE = 4


@dataclass(frozen=True)
class Settings:
    """How to run a plan.

    Attributes
    ----------
    policy
        The dispatch policy, one of the simulator's.
    guard_fraction
        Part of the SLO by which the policy's deadlines are early, so that a batch sent at the last moment is in time.
    in_flight
        Batches under way at most; None for 4 per slice.
    warmup_s
        Requests that arrive before are served, but not measured.
    verify
        Compare every answer with the original model's, the file as it was given, run request by request.
    tolerance
        Relative difference of numbers to allow then; None for what the model's own noise says.
    inputs
        Where the requests' inputs come from, for the results; empty if they are drawn.
    provider
        onnxruntime's execution provider.
    oversubscribe
        Run even if the devices need more cores than there are.
    cluster
        ``local``: processes of this machine; ``ray``: actors on a Ray cluster.
    realtime
        Let the frontend run before all else on its core (Linux, SCHED_RR 1, as root). It needs a core for some
        hundred microseconds per batch; where workers use all cores, it may otherwise have to wait for one of them.
    seed
        Of the requests' inputs, where they are drawn.
    """

    policy: str = "reservation"
    guard_fraction: float = 0.05
    in_flight: int | None = None
    warmup_s: float = 0.0
    verify: bool = False
    tolerance: float | None = None
    inputs: str = ""
    provider: str = CPU
    cluster: Literal["local", "ray"] = "local"
    realtime: bool = False
    oversubscribe: bool = False
    emulation: Emulation = field(default_factory=Emulation)
    patience: Patience = field(default_factory=Patience)
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Execution:
    """A run on real devices: the records, and what a simulation has not.

    ``window_us`` is the measured part of the run, without warm-up and drain. ``load_average`` is the machine's
    over the last minute, before the run and after it; ``frontend_cpu_s`` is the CPU time that the frontend itself
    used. ``emulated`` says what was not real, empty for nothing.
    """

    records: Records
    journal: Journal
    system: System
    settings: Settings
    guard_us: int
    window_us: tuple[int, int]
    interrupted: bool
    verdict: Verdict | None
    load_average: tuple[float, float]
    frontend_cpu_s: float
    emulated: str

    @property
    def frontend_us_per_batch(self) -> float:
        """The CPU time that the frontend used per batch that was sent (µs); 0 if none was."""
        return 1e6 * self.frontend_cpu_s / len(self.journal.batches) if self.journal.batches else 0.0

    @property
    def slices(self) -> tuple[SliceId, ...]:
        """All slices, in plan order."""
        return slices_of(self.system)


FLEETS: Mapping[str, Callable[[Equipment], Fleet]] = {"local": LocalFleet, "ray": RayFleet}


def execute(
    problem: Problem,
    plan: Plan,
    dnn: str,
    models: Mapping[str, ir.Model],
    arrivals_us: Ints,
    settings: Settings | None = None,
    *,
    inputs: Sequence[Tensors] | None = None,
    make_fleet: Callable[[Equipment], Fleet] | None = None,
    tick: Callable[[int], None] | None = None,
) -> Execution:
    """Serve ``arrivals_us`` with a plan's pipelines for ``dnn``, and return what happened.

    Parameters
    ----------
    models
        Variant name -> the model that was profiled; of an application, those of its tasks.
    arrivals_us
        Sorted times (µs) from the start of the run.
    inputs
        Batches of what requests bring, by input; requests bring these samples in turn. None: drawn ones.
    make_fleet
        Makes the workers, in place of what ``settings.cluster`` says.
    tick
        Called a few times a second with the time since the start (µs).

    Raises
    ------
    InputError
        The plan does not fit the problem, a model is missing or not the one that was profiled, there are too few
        cores, or a worker cannot start. No worker is left behind.
    """
    settings = settings or Settings()
    if not len(arrivals_us):
        raise InputError("no request arrives; expected at least one arrival")
    ready = prepare(problem, plan, dnn, models, settings, inputs)
    system, starts, requester = ready.system, ready.starts, ready.requester
    compile_policy(system, settings.policy)
    dispatcher = Dispatcher(system, arrivals_us, settings.policy, guard_us(settings, system))
    with tempfile.TemporaryDirectory(prefix="poolpipe-") as folder:
        stages = tuple(
            split_model(ready.graph, own, Path(folder) / f"pipeline{number}") for number, own in enumerate(starts)
        )
        for models_of, batch in zip(stages, system.batch.tolist(), strict=True):
            write_warm_up(models_of, ready.graph, ready.samples, warm_batches(batch))
        tasks = worker_tasks(system, stages, settings)
        limit = settings.in_flight or IN_FLIGHT_PER_SLICE * len(tasks)
        fleet = (make_fleet or FLEETS[settings.cluster])(
            Equipment(stages, system.batch.tolist(), tasks, ready.samples, limit)
        )
        try:
            began_s = time.monotonic()
            start(fleet, dispatcher.slices)
            restart_us = round(1e6 * (time.monotonic() - began_s))
            links = Links(system if settings.emulation.network else None)
            frontend = Frontend(system, dispatcher, fleet, requester, links, limit, restart_us, settings.patience, tick)
            effort = _run(frontend, settings.realtime)
        finally:
            fleet.close()
    return _execution(settings, system, arrivals_us, dispatcher, frontend, requester, effort)


@dataclass(frozen=True)
class _Effort:
    """What a run took of this machine: see `Execution`."""

    load_average: tuple[float, float]
    frontend_cpu_s: float


def _run(frontend: Frontend, realtime: bool) -> _Effort:
    """Run a frontend so that little disturbs it."""
    load_before, cpu_before_s = os.getloadavg()[0], time.process_time()
    with stopping_on_interrupt(frontend.stop), quietly(realtime):
        frontend.run()
    return _Effort((load_before, os.getloadavg()[0]), time.process_time() - cpu_before_s)


def _execution(
    settings: Settings,
    system: System,
    arrivals_us: Ints,
    dispatcher: Dispatcher,
    frontend: Frontend,
    requester: Samples,
    effort: _Effort,
) -> Execution:
    """Return what came of a run."""
    arrived = len(arrivals_us) if frontend.stopped_us is None else dispatcher.arrived
    emulated = settings.emulation.describe()
    engine = f"executor; {emulated}" if emulated else "executor"
    return Execution(
        records=to_records(frontend.journal, system, arrivals_us[:arrived], dispatcher.fate[:arrived], engine),
        journal=frontend.journal,
        system=system,
        settings=settings,
        guard_us=guard_us(settings, system),
        window_us=(round(settings.warmup_s * 1e6), frontend.stopped_us or int(arrivals_us[-1])),
        interrupted=frontend.stopped_us is not None,
        verdict=requester.verdict if isinstance(requester, Verifier) else None,
        load_average=effort.load_average,
        frontend_cpu_s=effort.frontend_cpu_s,
        emulated=emulated,
    )


def guard_us(settings: Settings, system: System) -> int:
    """Return how much earlier than the requests' deadlines the policy's are (µs)."""
    return round(settings.guard_fraction * system.slo_us)


def worker_tasks(
    system: System, models: tuple[PipelineModels, ...], settings: Settings, taken: Collection[int] = ()
) -> dict[SliceId, WorkerTask]:
    """Return what the worker of each slice is to be; raises InputError where there are too few cores.

    ``taken`` are cores that others have.
    """
    emulation = settings.emulation
    slices = slices_of(system)
    pinned = cores_of_slices(system, settings, taken) if settings.cluster == "local" else {}
    tasks = {}
    for slice_id in slices:
        device, batch = device_of(system, slice_id), int(system.batch[slice_id.pipeline])
        share = int(system.share[slice_id[:2]])
        tasks[slice_id] = WorkerTask(
            parts=(models[slice_id.pipeline].stages[slice_id.stage],),
            device=device,
            device_share=1 / share,
            cores=pinned.get(slice_id, ()),
            threads=threads_of(system, slice_id, emulation.cores),
            provider=settings.provider,
            warm_batches=warm_batches(batch),
            slowdown=emulation.slowdown.get(device, 1.0),
        )
    return tasks


def warm_batches(batch: int) -> tuple[int, ...]:
    """Return the batch sizes on which workers warm up: those of a request alone and of a whole batch."""
    return tuple(sorted({1, batch}))


def check_settings(settings: Settings, system: System, also: Sequence[str] = ()) -> None:
    """Raise InputError where a system cannot be run with these settings, on this machine if it is to run here.

    ``also`` are further policies that may be asked for.
    """
    if settings.policy not in (*POLICIES, *also):
        raise InputError(f"unknown policy {settings.policy!r}; expected one of {', '.join((*POLICIES, *also))}")
    if not 0 <= settings.guard_fraction < 1:
        raise InputError(f"guard: expected a fraction of the SLO in [0, 1), got {settings.guard_fraction}")
    if settings.in_flight is not None and settings.in_flight < 1:
        raise InputError(f"in-flight: expected an integer >= 1, got {settings.in_flight}")
    if settings.cluster not in FLEETS:
        raise InputError(f"unknown cluster {settings.cluster!r}; expected one of {', '.join(FLEETS)}")
    check_emulation(settings.emulation, system)
    if settings.cluster == "local":
        cores_of_slices(system, settings)
        require_provider(settings.provider)
    with ahead_of_workers(settings.realtime):
        pass


def cores_of_slices(system: System, settings: Settings, taken: Collection[int] = ()) -> dict[SliceId, tuple[int, ...]]:
    """Return the cores of each slice on this machine, none that is taken; raises InputError where there are too few."""
    return assign_cores(
        system,
        slices_of(system),
        settings.emulation.cores,
        oversubscribe=settings.oversubscribe,
        available=sorted(os.sched_getaffinity(0) - set(taken)),
    )


@dataclass(frozen=True, eq=False)
class Prepared:
    """A DNN: its pipelines, at which layers each cuts its model, what its requests bring, who gets the answers."""

    system: System
    graph: ModelGraph
    starts: Sequence[Sequence[int]]
    samples: Tensors
    requester: Samples


def prepare(
    problem: Problem,
    plan: Plan,
    dnn: str,
    models: Mapping[str, ir.Model],
    settings: Settings,
    inputs: Sequence[Tensors] | None,
    also: Sequence[str] = (),
) -> Prepared:
    """Return a DNN made ready to be served; raises InputError where that cannot be (`execute`, `check_settings`)."""
    system, pipelines = build_system(problem, plan, dnn), plan.of(dnn)
    check_settings(settings, system, also)
    models = with_chained(problem, pipelines, models)
    graphs = read_graphs(problem, pipelines, models)
    if len(graphs) > 1:  # answers would differ
        raise InputError(f"{dnn}: the executor runs plans of one variant, this one has {sorted(graphs)}")
    ((variant, graph),) = graphs.items()
    starts = stage_starts(problem, pipelines, graphs)
    samples = draw_samples(graph, SAMPLES, settings.seed) if inputs is None else cut_samples(graph, inputs)
    requester = Samples(samples)
    if settings.verify:
        requester = _verifier(models[variant], graph, starts, samples, settings)
    return Prepared(system, graph, starts, samples, requester)


def _verifier(
    original: ir.Model, graph: ModelGraph, starts: Sequence[Sequence[int]], samples: Tensors, settings: Settings
) -> Verifier:
    """Return who compares the answers of pipelines whose stages begin at layers ``starts`` with the original's."""
    yardstick = measure_yardstick(original, graph, samples, settings.tolerance)
    for own in {tuple(each) for each in starts}:
        yardstick = yardstick.widened(noise_of_stages(graph, own, samples, yardstick.scales))
    return Verifier(samples, graph, yardstick, settings.inputs or f"random inputs of seed {settings.seed}")
