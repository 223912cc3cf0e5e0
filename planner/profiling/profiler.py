"""Latencies of devices at hand: blocks run and timed with onnxruntime.

Each block is a session of its own, fed with what the blocks before it make of random requests. A share 1/k is
measured with k workers that run the same block on the same cores at the same time, so that the interference is
in the number. Where there are more workers than cores they take turns, a few milliseconds each: short runs are either
not interrupted or very long. So a share's latency is the mean over many turns; a whole device's is the median.
"""

import datetime
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import psutil

from planner.model import InputError, LatencyTable, Provenance
from planner.profiling.onnx_graph import ModelGraph
from planner.profiling.runtime import CPU, open_session, random_feeds, run_model
from planner.profiling.split import extract_parts
from planner.profiling.timing import Effort, pinned, time_runs
from planner.profiling.workers import colocated

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

    ``progress`` is called with a short text after every block and batch size.

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
    parts = extract_parts(graph, starts)
    rng = np.random.default_rng(0)
    alive = {batch: random_feeds(graph.model, batch, rng) for batch in batches}
    latencies = np.zeros((len(batches), len(parts)))
    spreads = np.zeros_like(latencies)
    repeats = []
    if share > 1:
        effort = replace(effort, least_s=max(TURNS_S, effort.least_s), cap_s=max(TURNS_S, effort.cap_s))
    with colocated(share, device.threads(share), device.cores, device.provider) as neighbours:
        for column, part in enumerate(parts):
            session = open_session(part.model, threads=device.threads(share), provider=device.provider)
            neighbours.load(part.model)
            for row, batch in enumerate(batches):
                feeds = {name: alive[batch][name] for name in part.inputs}
                with pinned(device.cores), neighbours.busy(feeds):
                    timings_us = time_runs(partial(run_model, session, feeds), effort)
                latencies[row, column] = np.median(timings_us) if share == 1 else np.mean(timings_us)
                spreads[row, column] = np.std(np.log(timings_us))
                repeats.append(len(timings_us))
                alive[batch].update(zip(part.outputs, run_model(session, feeds), strict=True))
                for name in set(alive[batch]) - set(graph.alive[part.last]):
                    del alive[batch][name]
                progress(f"{device.name} 1/{share}, block {column}, batch {batch}")
    return LatencyTable(
        device.name,
        share,
        tuple(batches),
        tuple(tuple(max(1, round(value)) for value in row) for row in latencies.tolist()),
        _provenance(device, share, effort, min(repeats)),
        tuple(tuple(round(value, 4) for value in row) for row in spreads.tolist()),
    )


def _provenance(device: DeviceAtHand, share: int, effort: Effort, repeats: int) -> Provenance:
    import onnxruntime

    frequency = psutil.cpu_freq()
    clock = f", {frequency.current / 1000:.1f} GHz" if frequency is not None else ""
    return Provenance(
        "measured",
        f"{'median' if share == 1 else 'mean'} of timed runs ({effort.clock} clock); {share} worker(s) of "
        f"{device.threads(share)} thread(s) on {device.cores} core(s) of {_processor()}{clock}, "
        f"load average {os.getloadavg()[0]:.1f}",
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        runtime=f"onnxruntime {onnxruntime.__version__} {device.provider}",
        repeats=repeats,
    )


def _processor() -> str:
    """Return the processor's name as Linux knows it, else its architecture."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.machine()
