"""A fleet on a Ray cluster: an actor per slice, tensors in Ray's object store.

Every device is offered by some node as a custom resource named after its device type; the actor of a slice of 1/k
takes 1/k of one. Start nodes with, for example, ``ray start --address=HEAD:6379 --resources='{"pi5": 1}'``.

Tensors are handed from actor to actor as references: the frontend sees the answers only. Times are the actors' own
monotonic clocks, put on the frontend's by offsets that are estimated when an actor starts (Cristian's method: half
the shortest round trip; its error is at most that half).
"""

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil

from planner.model import InputError
from planner.profiling.samples import join_requests
from simulator.executor.fleet import Down, Equipment, Event, Finished, Refused, SliceId, Tensors, Up
from simulator.executor.workers import WorkerTask, open_stage
from simulator.ray_cluster import address, join

PINGS = 10


class Stamp(NamedTuple):
    """When an actor took work in hand, had the results, and what its process has used so far."""

    start_ns: int
    computed_ns: int
    cpu_s: float
    memory_bytes: int


class SliceActor:
    """What runs on a node: one stage, as a worker of this machine would."""

    def __init__(self, task: WorkerTask, files: Mapping[str, bytes]) -> None:
        """Open the stage; its model comes as the contents of its files.

        They are needed no longer once it is open, and an actor that is killed could not remove them.
        """
        with tempfile.TemporaryDirectory(prefix="poolpipe-") as folder:
            for name, content in files.items():
                (Path(folder) / name).write_bytes(content)
            stage = replace(task.parts[0], path=Path(folder) / task.parts[0].path.name)
            self._stage = open_stage(replace(task, parts=(stage,), cores=()))
        self._inputs = [layout.name for layout in stage.inputs]
        self._process = psutil.Process()

    def clock_ns(self) -> int:
        """Return this process's monotonic clock."""
        return time.monotonic_ns()

    def run(self, *tensors: np.ndarray) -> tuple[Any, ...]:
        """Return a stamp and the stage's outputs."""
        start_ns = self.clock_ns()
        outputs = self._stage(dict(zip(self._inputs, tensors, strict=True)))
        times = self._process.cpu_times()
        stamp = Stamp(start_ns, self.clock_ns(), times.user + times.system, self._process.memory_info().rss)
        return (stamp, *outputs)


@dataclass
class _Actor:
    """An actor, its clock's lead over ours, and its work: reference to the stamp -> batch."""

    handle: Any
    work: dict[Any, int] = field(default_factory=dict)
    starting: Any = None
    lead_ns: int = 0
    usage: tuple[float, int] | None = None


@dataclass(frozen=True)
class _Load:
    """A batch under way: its pipeline, and references to its tensors by name."""

    pipeline: int
    refs: dict[str, Any]


class RayFleet:
    """Workers on a Ray cluster (see `fleet.Fleet`).

    It joins the cluster that this process is connected to, else the one at ``RAY_ADDRESS``.

    Raises
    ------
    InputError
        Ray is not installed, no cluster is named, or the cluster lacks a resource that the plan names.
    """

    answers_in_place = False

    def __init__(self, equipment: Equipment) -> None:
        self._ray = _import_ray()
        self._tasks, self._inputs, self._models = equipment.tasks, equipment.inputs, equipment.models
        self._loads: dict[int, _Load] = {}
        self._actors: dict[SliceId, _Actor] = {}
        self._joined = not self._ray.is_initialized()
        if self._joined:
            join(self._ray, _cluster_address())
        try:
            self._require_resources()
            self._files = {
                path: self._ray.put({file.name: file.read_bytes() for file in path.parent.glob(f"{path.stem}.*")})
                for path in {task.parts[0].path for task in self._tasks.values()}
            }
        except BaseException:
            self.close()
            raise

    def take(self, batch: int, pipeline: int, first: int, size: int) -> int:
        """Put the inputs of a batch into the object store."""
        nbytes, load = 0, _Load(pipeline, {})
        for layout in self._models[pipeline].requests:
            samples = self._inputs[layout.name]
            numbers = [number % len(samples) for number in range(first, first + size)]
            tensor = join_requests(layout.name, samples, numbers, layout.batch_axis)
            nbytes += tensor.nbytes
            load.refs[layout.name] = self._ray.put(tensor)
        self._loads[batch] = load
        return nbytes

    def send(self, batch: int, stage: int, slices: Sequence[SliceId]) -> None:
        """Call an actor; the frontend calls the following one."""
        actor = self._actors.get(slices[0])
        if actor is None:  # it was found dead a moment ago
            return
        part, refs = self._tasks[slices[0]].parts[0], self._loads[batch].refs
        inputs = [refs[layout.name] for layout in part.inputs]
        stamp, *outputs = actor.handle.run.options(num_returns=1 + len(part.outputs)).remote(*inputs)
        refs.update(zip((layout.name for layout in part.outputs), outputs, strict=True))
        actor.work[stamp] = batch

    def poll(self, timeout_s: float) -> list[Event]:
        """Return what actors have finished."""
        waiting = {ref: slice_id for slice_id, actor in self._actors.items() for ref in actor.work}
        waiting |= {actor.starting: slice_id for slice_id, actor in self._actors.items() if actor.starting is not None}
        if not waiting:
            time.sleep(max(0.0, timeout_s))
            return []
        self._ray.wait(list(waiting), num_returns=1, timeout=max(0.0, timeout_s), fetch_local=False)
        ready, _ = self._ray.wait(list(waiting), num_returns=len(waiting), timeout=0, fetch_local=False)
        return [event for ref in ready for event in self._hear(waiting[ref], ref)]

    def look(self) -> list[Event]:
        """Return nothing: every actor reports by itself."""
        return []

    def tell_ends(self, wanted: bool) -> None:
        """Change nothing: ends are told always."""

    def answers(self, batch: int) -> Tensors:
        """Bring the answers here."""
        load = self._loads[batch]
        names = self._models[load.pipeline].answers
        return dict(zip(names, self._ray.get([load.refs[name] for name in names]), strict=True))

    def release(self, batch: int) -> None:
        """Drop the references; Ray frees what nobody refers to."""
        del self._loads[batch]

    def dismiss(self, slice_id: SliceId) -> None:
        """Kill an actor."""
        if slice_id in self._actors:
            self._drop(slice_id)

    def restart(self, slice_id: SliceId) -> None:
        """Create an actor on some node that offers its device."""
        task = self._tasks[slice_id]
        actor = self._ray.remote(SliceActor).options(
            num_cpus=0, resources={task.device: task.device_share}, max_restarts=0
        )
        handle = actor.remote(task, self._files[task.parts[0].path])
        self._actors[slice_id] = _Actor(handle, starting=handle.clock_ns.remote())

    def usage(self) -> Mapping[SliceId, tuple[float, int]]:
        """Return what the actors said with their last batches."""
        return {slice_id: actor.usage for slice_id, actor in self._actors.items() if actor.usage is not None}

    def actor(self, slice_id: SliceId) -> Any:
        """Return the handle of a slice's actor."""
        return self._actors[slice_id].handle

    def close(self) -> None:
        """Kill all actors; leave the cluster as it was found."""
        for slice_id in list(self._actors):
            self._drop(slice_id)
        if self._joined:
            self._ray.shutdown()
            self._joined = False

    def _hear(self, slice_id: SliceId, ref: Any) -> list[Event]:
        actor = self._actors.get(slice_id)
        if actor is None:  # it was found dead a moment ago
            return []
        try:
            if ref is actor.starting:
                self._ray.get(ref)
                actor.lead_ns = estimate_lead_ns(lambda: self._ray.get(actor.handle.clock_ns.remote()))
                actor.starting = None
                return [Up(slice_id)]
            stamp: Stamp = self._ray.get(ref)
        except self._ray.exceptions.RayActorError as error:
            self._drop(slice_id)
            return [Down(slice_id, _one_line(error))]
        except self._ray.exceptions.RayError as error:
            return [Refused(slice_id, actor.work.pop(ref), _one_line(error))]
        batch = actor.work.pop(ref)
        actor.usage = stamp.cpu_s, stamp.memory_bytes
        start_ns, computed_ns = stamp.start_ns - actor.lead_ns, stamp.computed_ns - actor.lead_ns
        nbytes = self._keep_alive(self._loads[batch], slice_id.stage)
        return [Finished(slice_id, batch, nbytes, start_ns, computed_ns, computed_ns, handed_on=False)]

    def _keep_alive(self, load: _Load, stage: int) -> int:
        """Drop what nobody needs after a stage; return the bytes of the rest, which the object store knows."""
        needed = {layout.name for layout in self._models[load.pipeline].alive_after(stage)}
        for name in set(load.refs) - needed:
            del load.refs[name]
        locations = self._ray.experimental.get_object_locations(list(load.refs.values()))
        return sum(int(location["object_size"]) for location in locations.values())

    def _drop(self, slice_id: SliceId) -> None:
        actor = self._actors.pop(slice_id)
        self._ray.kill(actor.handle, no_restart=True)

    def _require_resources(self) -> None:
        """Refuse a cluster that does not offer the plan's devices."""
        offered = self._ray.cluster_resources()
        needed: defaultdict[str, float] = defaultdict(float)
        for task in self._tasks.values():
            needed[task.device] += task.device_share
        for device, number in needed.items():
            if offered.get(device, 0) < number - 1e-3:
                raise InputError(
                    f"the Ray cluster offers {offered.get(device, 0):g} of resource {device!r}, the plan needs "
                    f"{number:g}; start nodes with --resources='{{\"{device}\": ...}}'"
                )


def estimate_lead_ns(ask: Callable[[], int], pings: int = PINGS) -> int:
    """Return by how much a clock is ahead of this process's monotonic one, if ``ask`` reads it (Cristian 1989).

    The answer of the shortest round trip was given about half-way; the error is at most half of that trip.

    >>> abs(estimate_lead_ns(lambda: time.monotonic_ns() + 5_000_000_000) - 5_000_000_000) < 1_000_000
    True
    """
    found = []
    for _ in range(pings):
        before_ns = time.monotonic_ns()
        theirs_ns = ask()
        trip_ns = time.monotonic_ns() - before_ns
        found.append((trip_ns, theirs_ns - before_ns - trip_ns // 2))
    return min(found)[1]


def _import_ray() -> Any:
    try:
        import ray
        import ray.experimental
    except ImportError:
        raise InputError("Ray is not installed; run `pip install 'poolpipe[ray]'`, or choose --cluster local") from None
    return ray


def _cluster_address() -> str:
    """Return where the cluster is; without an address Ray would start one on this machine alone."""
    found = address()
    if not found:
        raise InputError(
            "RAY_ADDRESS is not set; start a cluster with `ray start --head` and set RAY_ADDRESS=HOST:6379, "
            "or choose --cluster local"
        )
    return found


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
