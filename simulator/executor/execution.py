"""Run one DNN's part of a plan on real devices."""

import gc
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import onnx_ir as ir

from planner.model import InputError, Plan, Problem
from planner.profiling.onnx_graph import ModelGraph
from simulator.dispatch.frontend import POLICIES
from simulator.dispatch.system import Ints, System
from simulator.engine.system import build_system
from simulator.executor.devices import CPU, Emulation, assign_cores, check_emulation, device_of, slices_of
from simulator.executor.dispatcher import Dispatcher, compile_policy
from simulator.executor.fleet import Fleet, SliceId, Tensors
from simulator.executor.frontend import Frontend, Patience
from simulator.executor.journal import Journal, to_records
from simulator.executor.layouts import PipelineModels
from simulator.executor.links import Links
from simulator.executor.local import LocalFleet
from simulator.executor.on_ray import RayFleet
from simulator.executor.requesters import Samples, Verdict, Verifier
from simulator.executor.stages import prepare_stages, read_graphs
from simulator.executor.workers import WorkerTask
from simulator.results.records import Records

IN_FLIGHT_PER_SLICE = 4
QUEUE = 4


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
    queue
        Batches that a worker has made and the next stage has not finished with, at most.
    warmup_s
        Requests that arrive before are served, but not measured.
    verify
        Compare every answer with the unsplit model's.
    provider
        onnxruntime's execution provider.
    oversubscribe
        Run even if the devices need more cores than there are.
    cluster
        ``local``: processes of this machine; ``ray``: actors on a Ray cluster.
    seed
        Of the requests' inputs.
    """

    policy: str = "reservation"
    guard_fraction: float = 0.05
    in_flight: int | None = None
    queue: int = QUEUE
    warmup_s: float = 0.0
    verify: bool = False
    provider: str = CPU
    cluster: Literal["local", "ray"] = "local"
    oversubscribe: bool = False
    emulation: Emulation = field(default_factory=Emulation)
    patience: Patience = field(default_factory=Patience)
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Execution:
    """A run on real devices: the records, and what a simulation has not.

    ``window_us`` is the measured part of the run, without warm-up and drain. ``load_average`` is the machine's
    over the last minute, before the run and after it; ``frontend_cpu`` is the CPU time that the frontend itself
    used per second. ``emulated`` says what was not real, empty for nothing.
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
    frontend_cpu: float
    emulated: str

    @property
    def slices(self) -> tuple[SliceId, ...]:
        """All slices, in plan order."""
        return slices_of(self.system)


class MakeFleet(Protocol):
    """Makes the fleet of a run."""

    def __call__(
        self,
        models: tuple[PipelineModels, ...],
        batches: list[int],
        tasks: Mapping[SliceId, WorkerTask],
        inputs: Tensors,
        *,
        queue: int,
    ) -> Fleet:
        """Return a fleet that is not started yet."""


FLEETS: Mapping[str, MakeFleet] = {"local": LocalFleet, "ray": RayFleet}


def execute(
    problem: Problem,
    plan: Plan,
    dnn: str,
    models: Mapping[str, ir.Model],
    arrivals_us: Ints,
    settings: Settings | None = None,
    *,
    make_fleet: MakeFleet | None = None,
    tick: Callable[[int], None] | None = None,
) -> Execution:
    """Serve ``arrivals_us`` with a plan's pipelines for ``dnn``, and return what happened.

    Parameters
    ----------
    models
        Variant name -> the model that was profiled.
    arrivals_us
        Sorted times (µs) from the start of the run.
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
    system = build_system(problem, plan, dnn)
    _check(settings, system, arrivals_us)
    compile_policy(system, settings.policy)
    guard_us = round(settings.guard_fraction * system.slo_us)
    dispatcher = Dispatcher(system, arrivals_us, settings.policy, guard_us)
    in_flight = settings.in_flight or IN_FLIGHT_PER_SLICE * len(dispatcher.slices)
    graphs = read_graphs(plan.of(dnn), models)
    requester = _requester(dnn, graphs, settings)
    with tempfile.TemporaryDirectory(prefix="poolpipe-") as folder:
        stages = prepare_stages(problem, plan.of(dnn), graphs, Path(folder))
        tasks = worker_tasks(system, stages, settings)
        make_fleet = make_fleet or FLEETS[settings.cluster]
        fleet = make_fleet(stages, system.batch.tolist(), tasks, requester.inputs, queue=settings.queue)
        links = Links(system if settings.emulation.network else None)
        try:
            started_s = time.monotonic()
            fleet.start()
            restart_us = round(1e6 * (time.monotonic() - started_s))
            frontend = Frontend(
                system, dispatcher, fleet, stages, requester, links, in_flight, restart_us, settings.patience, tick
            )
            load_before, cpu_before_s = os.getloadavg()[0], time.process_time()
            with _stopping_on_interrupt(frontend), _without_collection(), _ahead_of_workers():
                frontend.run()
            cpu_s = time.process_time() - cpu_before_s
        finally:
            fleet.close()
    arrived = len(arrivals_us) if frontend.stopped_us is None else dispatcher.arrived
    emulated = settings.emulation.describe()
    engine = f"executor; {emulated}" if emulated else "executor"
    return Execution(
        records=to_records(frontend.journal, system, arrivals_us[:arrived], dispatcher.fate[:arrived], engine),
        journal=frontend.journal,
        system=system,
        settings=settings,
        guard_us=guard_us,
        window_us=(round(settings.warmup_s * 1e6), frontend.stopped_us or int(arrivals_us[-1])),
        interrupted=frontend.stopped_us is not None,
        verdict=requester.verdict if isinstance(requester, Verifier) else None,
        load_average=(load_before, os.getloadavg()[0]),
        frontend_cpu=cpu_s / max(1e-6, frontend.now_us() / 1e6),
        emulated=emulated,
    )


def worker_tasks(system: System, models: tuple[PipelineModels, ...], settings: Settings) -> dict[SliceId, WorkerTask]:
    """Return what the worker of each slice is to be; raises InputError where there are too few cores."""
    emulation = settings.emulation
    slices = slices_of(system)
    here = settings.cluster == "local"
    pinned = assign_cores(system, slices, emulation.cores, oversubscribe=settings.oversubscribe) if here else {}
    tasks = {}
    for slice_id in slices:
        device, batch = device_of(system, slice_id), int(system.batch[slice_id.pipeline])
        share = int(system.share[slice_id[:2]])
        tasks[slice_id] = WorkerTask(
            stage=models[slice_id.pipeline].stages[slice_id.stage],
            device=device,
            device_share=1 / share,
            cores=pinned.get(slice_id, ()),
            threads=max(1, emulation.cores.get(device, 1) // share),
            provider=settings.provider,
            warm_batches=tuple(sorted({1, batch})),
            slowdown=emulation.slowdown.get(device, 1.0),
        )
    return tasks


def _check(settings: Settings, system: System, arrivals_us: Ints) -> None:
    if not len(arrivals_us):
        raise InputError("no request arrives; expected at least one arrival")
    if settings.policy not in POLICIES:
        raise InputError(f"unknown policy {settings.policy!r}; choose one of {', '.join(POLICIES)}")
    if not 0 <= settings.guard_fraction < 1:
        raise InputError(f"guard: expected a fraction of the SLO in [0, 1), got {settings.guard_fraction}")
    for name, number in (("in-flight", settings.in_flight), ("queue", settings.queue)):
        if number is not None and number < 1:
            raise InputError(f"{name}: expected an integer >= 1, got {number}")
    if settings.cluster not in FLEETS:
        raise InputError(f"unknown cluster {settings.cluster!r}; expected one of {', '.join(FLEETS)}")
    check_emulation(settings.emulation, system)


def _requester(dnn: str, graphs: Mapping[str, ModelGraph], settings: Settings) -> Samples:
    """Return who sends the requests; all pipelines of a run must serve one variant, or answers would differ."""
    if len(graphs) > 1:
        raise InputError(f"{dnn}: the executor runs plans of one variant, this one has {sorted(graphs)}")
    (graph,) = graphs.values()
    return (Verifier if settings.verify else Samples)(graph, settings.seed)


@contextmanager
def _stopping_on_interrupt(frontend: Frontend) -> Iterator[None]:
    """Let Ctrl-C end the run in order; a second one ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum: int, frame: object) -> None:
        signal.signal(signal.SIGINT, before)
        frontend.stop()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _without_collection() -> Iterator[None]:
    """Keep the garbage collector from pausing the loop, which makes no cycles."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def _ahead_of_workers() -> Iterator[None]:
    """Run the frontend before anything else on its core, where the system allows it (Linux, as root).

    It needs a core for a few hundred microseconds per batch. Where workers use all cores it would otherwise wait until
    one of them is interrupted, for as long as a small inference takes, with every batch.
    """
    if not hasattr(os, "sched_setscheduler"):
        yield
        return
    before, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        # Workers that are started meanwhile are not to inherit it.
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except PermissionError:
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, before, parameter)
