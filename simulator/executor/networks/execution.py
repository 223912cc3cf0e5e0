"""Run a network on real devices: any rule of the engine, shared pools, several DNNs or chains of tasks in one run."""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from planner.model import InputError
from simulator.dispatch.system import Ints
from simulator.engine.network import Frontend, Network, Route
from simulator.engine.networks import Adapt
from simulator.engine.running import Run
from simulator.executor.networks.courses import Course, write_warm_up
from simulator.executor.networks.live import ColdStart, Incident, LiveRun
from simulator.executor.networks.staff import NetworkStaff, RequesterOf, check_batches, layout_of
from simulator.executor.undisturbed import quietly, stopping_on_interrupt
from simulator.executor.workers import WorkerTask


@dataclass(frozen=True, eq=False)
class NetworkExecution:
    """A run of a network on real devices: the engine's run, from which records come, and what only a real one has.

    ``cold_starts`` are the changes of the configuration that came into force, with the time that loading took.
    ``frontend_cpu_s`` is the CPU time that the frontend used.
    """

    run: Run
    cold_starts: tuple[ColdStart, ...]
    incidents: tuple[Incident, ...]
    stopped_us: int | None
    frontend_cpu_s: float


def execute_network(
    network: Network,
    courses: Sequence[Course],
    ways: Sequence[Mapping[int, Sequence[int]]],
    arrivals_us: Sequence[Ints],
    tasks: Sequence[WorkerTask],
    requesters: Sequence[RequesterOf],
    *,
    adapt: Adapt | None = None,
    every_us: int = 0,
    realtime: bool = False,
    tick: Callable[[int], None] | None = None,
) -> NetworkExecution:
    """Serve what arrives with a network's rules, on this machine.

    Parameters
    ----------
    courses, ways
        The models of all classes of requests, and per class: course -> the stations of its steps (`rows_of` numbers
        those of frontends).
    arrivals_us
        Of each class, sorted, from the start of the run.
    tasks
        Per server what its worker is; its parts follow from the courses.
    requesters
        Per class who gets the answers, by the kinds of server that served a request.
    adapt, every_us
        As of `simulator.engine.networks.simulate_network`; a change comes into force when its replicas have loaded.

    Raises
    ------
    InputError
        A model does not fit its place, or a worker cannot start. No worker is left behind.
    """
    check_batches([station.max_batch for station in network.stations])
    listed: list[list[int]] = [[] for _ in tasks]
    rows = rows_of(network)
    for way in ways:
        for stations in way.values():
            for q in stations:
                for w in network.stations[rows[q]].servers:
                    if q not in listed[w]:
                        listed[w].append(q)
    layout = layout_of(courses, [len(one) for one in arrivals_us], ways, listed)
    at_once = sum(max((network.stations[rows[q]].max_batch for q in own), default=0) for own in listed)
    staff = NetworkStaff(layout, tasks, requesters, at_once)
    try:
        kinds, on = network.servers.kind.tolist(), network.servers.on
        staff.start({w: kinds[w] for w in np.flatnonzero(on).tolist()})
        live = LiveRun(network, arrivals_us, staff, adapt, every_us, tick or (lambda now_us: None))
        live.compile()
        staff.start_clock()
        before_s = time.process_time()
        with stopping_on_interrupt(live.stop), quietly(realtime):
            live.serve()
        used_s = time.process_time() - before_s
    finally:
        staff.close()
    return NetworkExecution(live.run, tuple(live.cold_starts), tuple(live.incidents), live.stopped_us, used_s)


def rows_of(network: Network) -> dict[int, int]:
    """Return the station of the network that each station of a run is: its own ones, then frontends' stages."""
    found = {q: q for q in range(len(network.stations))}
    at = len(network.stations)
    for one in network.classes:
        if isinstance(one, Frontend):
            pipelines, stages = one.system.slices.shape
            for p, row in enumerate(one.stations):
                found |= {at + p * stages + s: q for s, q in enumerate(row)}
            at += pipelines * stages
    return found


def ways_of(network: Network) -> list[dict[int, tuple[int, ...]]]:
    """Return per class: course -> stations of its steps, if a route is one course, and a pipeline is one."""
    ways: list[dict[int, tuple[int, ...]]] = []
    course, at = 0, len(network.stations)
    for one in network.classes:
        if isinstance(one, Route):
            ways.append({course: tuple(step.station for step in one.steps)})
            course += 1
            continue
        pipelines, stages = one.system.slices.shape
        ways.append(
            {course + p: tuple(at + p * stages + s for s in range(len(one.stations[p]))) for p in range(pipelines)}
        )
        course += pipelines
        at += pipelines * stages
    return ways


@contextmanager
def model_folder(courses: Callable[[Path], Sequence[Course]], batches: Sequence[int]) -> Iterator[Sequence[Course]]:
    """Give courses whose files lie in a folder of their own, warm-up included, for as long as they are needed."""
    with tempfile.TemporaryDirectory(prefix="poolpipe-") as folder:
        made = courses(Path(folder))
        for course in made:
            write_warm_up(course, batches)
        yield made


def before_of(route: Route) -> tuple[tuple[int, ...], ...]:
    """Return per step the steps that lead to it."""
    return tuple(
        tuple(earlier for earlier, step in enumerate(route.steps) if number in step.then)
        for number in range(len(route.steps))
    )


def require_models(named: Sequence[str], models: Mapping[str, object]) -> None:
    """Raise InputError where a model is not given."""
    if missing := sorted(set(named) - set(models)):
        raise InputError(f"no model is given for {missing[0]!r}; the models are {sorted(models)}")
