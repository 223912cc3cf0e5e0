"""Latencies of devices at hand: blocks run and timed with onnxruntime.

Each block is a session of its own, fed with what the blocks before it make of random requests, and run again and
again, as a worker does whose stage it is. All of that happens in rounds, each on newly opened sessions, which are
warmed before they are timed: the second run of a session is the first to touch the memory which the first run found
to be needed, and takes up to twice as long as those after it. Batch sizes with doubtful latencies (`plausibility`) are
measured a second time; what is doubtful still is said in the table's provenance, as is what others did meanwhile.

Stages are several blocks, whose layers cost less together than block by block, or more: at the ends of a block alone
onnxruntime converts tensors between the layouts of its kernels and fuses nothing across, and what is run again and
again finds its data in the caches. So the whole model is timed in every round, too, and blocks take in sum what it does
(`in_company`).

A share 1/k is measured with k - 1 neighbours that run the same model on the same cores at the same time, so that the
interference is in the number; or with other models as neighbours, which the table then names. Where there are more
workers than cores they take turns, a few milliseconds each: short runs are either not interrupted or very long. So a
share's latency is the mean over many turns; a whole device's is the median.

Peak memory is that of a process which does nothing else: what loading the model and running it add to its resident
size at most.
"""

import datetime
import logging
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import psutil

from planner.model import InputError, LatencyTable, Provenance
from planner.model.segments import Share
from planner.profiling.library import onnxruntime
from planner.profiling.onnx_graph import ModelGraph
from planner.profiling.placement import find_placement
from planner.profiling.plausibility import Watch, describe_doubts, doubts
from planner.profiling.runtime import CPU, open_session, random_feeds, run_model
from planner.profiling.split import Part, extract_part, extract_parts
from planner.profiling.timing import Effort, pinned, time_runs
from planner.profiling.workers import Neighbours, colocated, measure_peak_memory

TURNS_S = 0.2  # how long a share is timed at least: tens of the scheduler's turns

logger = logging.getLogger(__name__)

Progress = Callable[[str], None]
Times = dict[int, list[list[np.ndarray]]]  # [batch][part][round]: single runs, µs


@dataclass(frozen=True)
class DeviceAtHand:
    """A name for this machine: ``cores`` of it, used through an execution provider, in ``shares`` 1/k.

    With ``segment`` these cores, or the part of a GPU that the provider uses, are a named segment of a larger device.
    """

    name: str
    cores: int = 1
    shares: tuple[int, ...] = (1,)
    provider: str = CPU
    segment: str | None = None

    def share_of(self, share: int) -> Share:
        """Return the share of the device that a measured one is."""
        return share if self.segment is None else self.segment

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
    beside: Sequence[ModelGraph] = (),
) -> tuple[LatencyTable, ...]:
    """Return measured tables of the blocks that begin at layers ``starts``, one per share of the device.

    ``progress`` is called with a short text after every round of a batch size. The models ``beside`` run meanwhile, one
    request at a time, in place of equal neighbours: on the whole device by a worker each on the same cores, on a share
    1/k by its k - 1 neighbours in turn, and beside a segment by a worker each on the other cores of this machine.

    Raises
    ------
    InputError
        The machine has fewer cores, the execution provider is missing, cannot be used or runs nothing of the model, or
        processor time cannot tell the latency, or a share has too few neighbours for the models beside.
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
    if device.segment is not None and device.shares != (1,):
        raise InputError(f"segment {device.segment!r}: expected share 1 of it, got {list(device.shares)}")
    for share in device.shares:
        if 1 < share <= len(beside):
            raise InputError(
                f"device {device.name!r}: share 1/{share} has {share - 1} neighbours, which cannot run {len(beside)} "
                "models beside; measure a smaller share, or the whole device"
            )
    if device.segment is not None and beside and device.cores == available:
        raise InputError(
            f"all {available} cores are the segment's; leave cores for the models beside, or measure a share"
        )
    return tuple(
        _measure_share(graph, starts, device, share, batches, effort, progress, beside) for share in device.shares
    )


def _measure_share(
    graph: ModelGraph,
    starts: Sequence[int],
    device: DeviceAtHand,
    share: int,
    batches: Sequence[int],
    effort: Effort,
    progress: Progress,
    beside: Sequence[ModelGraph],
) -> LatencyTable:
    whole = extract_part(graph, 0, len(graph.layers))
    rng = np.random.default_rng(0)
    feeds = {batch: random_feeds(graph.model, batch, rng) for batch in batches}
    workers = max(share, len(beside) + 1)
    if workers > 1:
        effort = replace(effort, least_s=max(TURNS_S, effort.least_s), cap_s=max(TURNS_S, effort.cap_s))
    threads, blocks = device.threads(share), extract_parts(graph, starts)
    parts = blocks if len(blocks) == 1 else (*blocks, whole)
    elsewhere = (
        "" if device.provider == CPU else str(find_placement(whole.model, device.provider, feeds[batches[-1]], threads))
    )
    watch = Watch()
    with _neighbours(device, share, workers) as neighbours:
        if beside:
            neighbours.load(
                *(extract_part(other, 0, len(other.layers)).model for other in beside),
                feeds=[random_feeds(other.model, 1, rng) for other in beside],
            )
        else:
            neighbours.load(whole.model)
        times_us = time_parts(parts, device, share, feeds, effort, neighbours, progress)
        odd = {batch: feeds[batch] for batch, _ in doubts(batches, times_us)}
        if odd:
            times_us = steadier(times_us, time_parts(parts, device, share, odd, effort, neighbours, progress))
        company = watch.company()
    doubtful = describe_doubts(doubts(batches, times_us), len(blocks), company if effort.clock == "wall" else None)
    if doubtful:
        logger.warning(
            "%s on %s 1/%d: %s; measure it again on a quiet machine", graph.name, device.name, share, doubtful
        )
    if elsewhere:
        logger.warning("%s on %s 1/%d: %s", graph.name, device.name, share, elsewhere)
    latency_us, apart = _together(times_us, ends_of(graph, starts), np.median if workers == 1 else np.mean)
    spread = {batch: [log_spread(np.concatenate(rounds)) for rounds in row] for batch, row in times_us.items()}
    repeats = min(sum(map(len, rounds)) for row in times_us.values() for rounds in row)
    remarks = "; ".join(each for each in (f"{company} meanwhile", apart, elsewhere, doubtful) if each)
    if beside:
        remarks = f"beside {', '.join(other.name for other in beside)}; {remarks}"
    return LatencyTable(
        device.name,
        device.share_of(share),
        tuple(batches),
        tuple(tuple(max(1, round(float(each))) for each in latency_us[batch]) for batch in batches),
        _provenance(device, share, effort, repeats, remarks),
        tuple(tuple(round(each, 4) for each in spread[batch][: len(blocks)]) for batch in batches),
        measure_peak_memory(whole.model, list(feeds.values()), threads, device.cores, device.provider),
        tuple(other.name for other in beside),
    )


def _together(
    times_us: Times, ends: np.ndarray, middle: Callable[[np.ndarray], np.floating]
) -> tuple[dict[int, np.ndarray], str]:
    """Return by batch size what blocks take `in_company`, and in words how far from that they are alone.

    Behind the blocks' times stand the whole's, but for a single block, which is the whole.
    """
    latency_us, apart, blocks = {}, [], len(ends)
    for batch, row in times_us.items():
        middles_us = np.array([middle(np.concatenate(rounds)) for rounds in row])
        alone_us, whole_us = middles_us[:blocks], float(middles_us[-1])
        latency_us[batch] = in_company(alone_us, whole_us, ends)
        apart.append(alone_us.sum() / whole_us - 1)
    told = f"blocks alone {min(apart):+.1%} to {max(apart):+.1%} of the whole" if blocks > 1 else ""
    return latency_us, told


def ends_of(graph: ModelGraph, starts: Sequence[int]) -> np.ndarray:
    """Return each block's part of the bytes that cross cuts between blocks, half of a cut on each side of it."""
    crossing = np.array([0, *(graph.cut_bytes[start - 1] for start in starts[1:]), 0], float)
    return np.asarray((crossing[:-1] + crossing[1:]) / (2 * crossing.sum() or 1.0))


def in_company(alone_us: np.ndarray, whole_us: float, ends: np.ndarray) -> np.ndarray:
    """Return what blocks take that are run together, in sum the whole.

    What they take longer alone is spent at their ends, where onnxruntime converts tensors, so each is relieved of it in
    proportion to the bytes there (`ends_of`), of at most half of what it takes. Where they take less alone than
    together, all are scaled alike.

    >>> in_company(np.array([30.0, 60.0, 30.0]), 100.0, np.array([0.4, 0.5, 0.1])).tolist()
    [22.0, 50.0, 28.0]
    """
    relief_us = np.minimum(max(0.0, alone_us.sum() - whole_us) * ends, alone_us / 2)
    latency_us = alone_us - relief_us
    return np.asarray(latency_us * (whole_us / latency_us.sum()))


def _neighbours(device: DeviceAtHand, share: int, workers: int) -> AbstractContextManager[Neighbours]:
    """Return the workers beside the timed one: on its cores, or, beside a segment, on this machine's others."""
    if device.segment is None:
        return colocated(workers, device.threads(share), device.cores, device.provider)
    others = max(1, len(os.sched_getaffinity(0)) - device.cores) if hasattr(os, "sched_getaffinity") else 1
    return colocated(workers, max(1, others // max(1, workers - 1)), others, device.provider, first_core=device.cores)


def time_parts(
    parts: Sequence[Part],
    device: DeviceAtHand,
    share: int,
    feeds: Mapping[int, Mapping[str, np.ndarray]],
    effort: Effort,
    neighbours: Neighbours,
    progress: Progress = lambda _: None,
) -> Times:
    """Return ``[batch][part][round]``, the times (µs) of single runs; ``feeds[batch]`` is what the first part reads."""
    times_us: Times = {batch: [[] for _ in parts] for batch in feeds}
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
    return times_us


def steadier(first: Times, second: Times) -> Times:
    """Return the times of two measurements, of each batch size and part those whose rounds agree better.

    >>> steady, wild = [np.array([5.0]), np.array([5.0])], [np.array([5.0]), np.array([9.0])]
    >>> steadier({1: [wild], 2: [steady]}, {1: [steady]}) == {1: [steady], 2: [steady]}
    True
    """

    def apart(rounds: Sequence[np.ndarray]) -> float:
        medians_us = [float(np.median(times)) for times in rounds]
        return max(medians_us) / max(min(medians_us), 1e-9)

    again = {batch: second.get(batch, row) for batch, row in first.items()}
    return {
        batch: [min(pair, key=apart) for pair in zip(again[batch], row, strict=True)] for batch, row in first.items()
    }


def log_spread(times_us: np.ndarray) -> float:
    """Return the standard deviation of the logarithms, 0 of a single one."""
    return float(np.std(np.log(times_us), ddof=min(1, len(times_us) - 1)))


def _provenance(device: DeviceAtHand, share: int, effort: Effort, repeats: int, remarks: str) -> Provenance:
    frequency = psutil.cpu_freq()
    clock = f", {frequency.current / 1000:.1f} GHz" if frequency is not None else ""
    return Provenance(
        "measured",
        f"{'median' if share == 1 else 'mean'} of runs in {effort.rounds} rounds ({effort.clock} clock); "
        f"{share} worker(s) of "
        f"{device.threads(share)} thread(s) on {device.cores} core(s) of {processor_name()}{clock}; {remarks}",
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        runtime=f"onnxruntime {onnxruntime().__version__} {device.provider}",
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
