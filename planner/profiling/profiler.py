"""Latencies of devices at hand: blocks run and timed with onnxruntime.

Each block is a session of its own, fed with what the blocks before it make of random requests, and run again and again,
as a worker does whose stage it is. All of that happens in rounds, each on newly opened sessions.

A share 1/k is measured with k - 1 neighbours that run the same model on the same cores at the same time, so that the
interference is in the number. Where there are more workers than cores they take turns, a few milliseconds each: short
runs are either not interrupted or very long. So a share's latency is the mean over many turns; a whole device's is the
median.

Peak memory is that of a process which does nothing else: what loading the model and running it add to its resident
size at most.
"""

import datetime
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import psutil

from planner.model import InputError, LatencyTable, Provenance
from planner.profiling.onnx_graph import ModelGraph
from planner.profiling.runtime import CPU, open_session, random_feeds, run_model
from planner.profiling.split import Part, extract_part, extract_parts
from planner.profiling.timing import Effort, pinned, time_runs
from planner.profiling.workers import Neighbours, colocated, measure_peak_memory

TURNS_S = 0.2  # how long a share is timed at least: tens of the scheduler's turns

Progress = Callable[[str], None]


@dataclass(frozen=True)
class DeviceAtHand:
    """A name for this machine: ``cores`` of it, used through an execution provider, in ``shares`` 1/k."""

    name: str
    cores: int = 1
    shares: tuple[int, ...] = (1,)
    provider: str = CPU

    def threads(self, share: int) -> int:
        """Return the threads of one of ``share`` co-located workers."""
        return max(1, self.cores // share)


def measure_tables(
    graph: ModelGraph,
    starts: Sequence[int],
    device: DeviceAtHand,
    batches: Sequence[int],
    effort: Effort | None = None,
    progress: Progress = lambda _: None,
) -> tuple[LatencyTable, ...]:
    """Return measured tables of the blocks that begin at layers ``starts``, one per share of the device.

    ``progress`` is called with a short text after every round of a batch size.

    Raises
    ------
    InputError
        The machine has fewer cores, the execution provider is missing, or processor time cannot tell the latency.
    """
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if device.cores > available:
        raise InputError(f"device {device.name!r} is to have {device.cores} cores; this machine offers {available}")
    effort = effort or Effort()
    if effort.clock == "cpu" and (device.threads(1) > 1 or device.shares != (1,) or device.provider != CPU):
        raise InputError(
            f"device {device.name!r}: processor time tells the latency of one thread on a whole core only; "
            "use one core, share 1 and the CPU, or the wall clock"
        )
    return tuple(_measure_share(graph, starts, device, share, batches, effort, progress) for share in device.shares)


def _measure_share(
    graph: ModelGraph,
    starts: Sequence[int],
    device: DeviceAtHand,
    share: int,
    batches: Sequence[int],
    effort: Effort,
    progress: Progress,
) -> LatencyTable:
    whole = extract_part(graph, 0, len(graph.layers)).model
    rng = np.random.default_rng(0)
    feeds = {batch: random_feeds(graph.model, batch, rng) for batch in batches}
    if share > 1:
        effort = replace(effort, least_s=max(TURNS_S, effort.least_s), cap_s=max(TURNS_S, effort.cap_s))
    threads = device.threads(share)
    with colocated(share, threads, device.cores, device.provider) as neighbours:
        neighbours.load(whole)
        times_us = time_parts(extract_parts(graph, starts), device, share, feeds, effort, neighbours, progress)
    middle = np.median if share == 1 else np.mean
    return LatencyTable(
        device.name,
        share,
        tuple(batches),
        tuple(tuple(max(1, round(float(middle(times)))) for times in row) for row in times_us.values()),
        _provenance(device, share, effort, min(len(times) for row in times_us.values() for times in row)),
        tuple(tuple(round(log_spread(times), 4) for times in row) for row in times_us.values()),
        measure_peak_memory(whole, list(feeds.values()), threads, device.cores, device.provider),
    )


def time_parts(
    parts: Sequence[Part],
    device: DeviceAtHand,
    share: int,
    feeds: Mapping[int, Mapping[str, np.ndarray]],
    effort: Effort,
    neighbours: Neighbours,
    progress: Progress = lambda _: None,
) -> dict[int, list[np.ndarray]]:
    """Return by batch size, for each part, the times (µs) of its runs; ``feeds[batch]`` is what the first one reads."""
    times_us: dict[int, list[list[np.ndarray]]] = {batch: [[] for _ in parts] for batch in feeds}
    threads = device.threads(share)
    # The run that makes what the next part reads warms up, too.
    one_round = replace(effort.of_one_round(), warm_up=max(0, effort.warm_up - 1))
    for number in range(effort.rounds):
        with pinned(device.cores):  # sessions too: their threads inherit the cores
            sessions = [open_session(part.model, threads=threads, provider=device.provider) for part in parts]
            for batch, given in feeds.items():
                alive = dict(given)
                with neighbours.busy(given):
                    for part, session, times in zip(parts, sessions, times_us[batch], strict=True):
                        read = {name: alive[name] for name in part.inputs}
                        alive.update(zip(part.outputs, run_model(session, read), strict=True))
                        times.append(time_runs(partial(run_model, session, read), one_round))
                progress(f"{device.name} 1/{share}, round {number + 1} of {effort.rounds}, batch {batch}")
    return {batch: [np.concatenate(rounds) for rounds in row] for batch, row in times_us.items()}


def log_spread(times_us: np.ndarray) -> float:
    """Return the standard deviation of the logarithms, 0 of a single one."""
    return float(np.std(np.log(times_us), ddof=min(1, len(times_us) - 1)))


def _provenance(device: DeviceAtHand, share: int, effort: Effort, repeats: int) -> Provenance:
    import onnxruntime

    frequency = psutil.cpu_freq()
    clock = f", {frequency.current / 1000:.1f} GHz" if frequency is not None else ""
    return Provenance(
        "measured",
        f"{'median' if share == 1 else 'mean'} of runs in {effort.rounds} rounds ({effort.clock} clock); "
        f"{share} worker(s) of "
        f"{device.threads(share)} thread(s) on {device.cores} core(s) of {processor_name()}{clock}, "
        f"load average {os.getloadavg()[0]:.1f}",
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        runtime=f"onnxruntime {onnxruntime.__version__} {device.provider}",
        repeats=repeats,
    )


def processor_name() -> str:
    """Return the processor's name as Linux knows it, else its architecture."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.machine()
