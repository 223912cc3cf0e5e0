"""What it costs to hand batches over: the ways to a slice, between slices and back, and the frontend's own time.

Profiles know how long a stage computes, the cluster's network how long bytes travel. Beside that a frontend wakes for a
request that has arrived, decides, tells a worker; workers wake, read their inputs, write their outputs and pass the
batch on. That is much where stages take two milliseconds. It differs between machines, transports and loads, so it is
taken from what a run of the same plan wrote down (its warm-up, or a rehearsal), as means:

- ``ways_us[pipeline][s]``: from when a batch was due (s = 0: its last request came, or the policy's timer), or from
  when stage s - 1 had written its outputs, until it is in the queue of stage s, or with the requesters (s = stages).
  Nothing is occupied meanwhile: it is latency. Where workers pass batches on and answer them by themselves, all but the
  first are 0: a batch is in the next queue when its outputs are written.
- ``on_slice_us[pipeline][s]``: what a batch occupies a slice for beyond computing: the worker's waking, its reading and
  writing. It is latency, and bounds what a slice serves.
- ``frontend_us``: CPU time of the frontend per batch, which bounds what one frontend serves, of all slices together.

Where the plan's network is emulated, what it takes is not part of the ways. Where it is not, the ways are all that
there is: bytes go through this machine's memory (or Ray's network), and the plan's network stands for nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from simulator.dispatch.system import System
from simulator.executor.execution import Execution
from simulator.executor.journal import Batch, Visit

LEAST_BATCHES = 20  # of a pipeline, for a mean to say anything
TRIMMED = 50  # one in so many is left out at either end: other programs make rare long times


@dataclass(frozen=True)
class HandOver:
    """Mean costs of handing batches over (µs), as above; ``batches`` is how many they were taken from."""

    ways_us: tuple[tuple[float, ...], ...]
    on_slice_us: tuple[tuple[float, ...], ...]
    frontend_us: float
    batches: int

    @property
    def largest_rate(self) -> float:
        """Batches per second that one frontend serves at most: all of a core for ``frontend_us`` each.

        >>> HandOver(((100.0, 80.0),), ((50.0,),), frontend_us=200.0, batches=100).largest_rate
        5000.0
        """
        return 1e6 / self.frontend_us if self.frontend_us else float("inf")

    def per_batch_us(self, pipeline: int) -> float:
        """Return what it adds to a batch's latency in all."""
        return sum(self.ways_us[pipeline]) + sum(self.on_slice_us[pipeline])


def hand_over(execution: Execution, until_us: int | None = None) -> HandOver | None:
    """Return what handing over took for the batches answered before ``until_us`` (default: the end of the warm-up).

    None where a pipeline had fewer than `LEAST_BATCHES` of them.
    """
    until_us = execution.window_us[0] if until_us is None else until_us
    answered = [batch for batch in execution.journal.batches if (batch.answered_us or until_us) < until_us]
    ways, on_slice = [], []
    for pipeline in range(len(execution.system.stages)):
        own = [batch for batch in answered if batch.pipeline == pipeline]
        if len(own) < LEAST_BATCHES:
            return None
        ways.append(_ways_us(own, execution))
        on_slice.append(_on_slice_us(own))
    return HandOver(tuple(ways), tuple(on_slice), execution.frontend_us_per_batch, len(answered))


def with_hand_over(system: System, costs: HandOver, *, emulated: bool) -> System:
    """Return a system whose hops and stages take what they really take; the ways in and back stay outside of it.

    ``emulated`` tells whether the system's network is: its times stand then, and the ways are added to them.
    """
    latency_us = system.latency_us.copy()
    hop_us, transfer_us = (
        table.copy() if emulated else np.zeros_like(table) for table in (system.hop_us, system.transfer_us)
    )
    for pipeline, (ways_us, on_slice_us) in enumerate(zip(costs.ways_us, costs.on_slice_us, strict=True)):
        for stage, extra_us in enumerate(on_slice_us):
            latency_us[pipeline, stage, 1:] += round(extra_us)
            if stage:
                hop_us[pipeline, stage] += max(0, round(ways_us[stage]))
    return replace(system, latency_us=latency_us, hop_us=hop_us, transfer_us=transfer_us)


def ends_us(costs: HandOver) -> list[int]:
    """Return per pipeline the ways to its first stage and back from its last, together."""
    return [round(ways_us[0] + ways_us[-1]) for ways_us in costs.ways_us]


def computed_us(batches: Sequence[Batch], stage: int) -> float:
    """Return how long a stage computes on average."""
    return float(np.mean([batch.visits[stage].computed_us - batch.visits[stage].start_us for batch in batches]))


def occupied(batches: Sequence[Batch], stage: int) -> list[tuple[Visit, int]]:
    """Return the visits of a stage, the first of each slice apart, and how long (µs) each occupied its slice.

    That is since it was there and the one before was done.
    """
    visits = [batch.visits[stage] for batch in batches]
    found = []
    for slice_id in {visit.slice for visit in visits}:
        own = sorted((visit for visit in visits if visit.slice == slice_id), key=lambda visit: visit.start_us)
        found += [(now, now.end_us - max(now.arrive_us, before.end_us)) for before, now in pairwise(own)]
    return found


def trimmed_mean(times_us: Sequence[float]) -> float:
    """Return the mean without the longest and the shortest 2 %.

    >>> trimmed_mean([1, *[10] * 98, 1000])
    10.0
    """
    ordered = np.sort(np.array(times_us, float))
    cut = len(ordered) // TRIMMED
    return float(ordered[cut : len(ordered) - cut].mean())


def _ways_us(batches: Sequence[Batch], execution: Execution) -> tuple[float, ...]:
    emulated = execution.system if execution.settings.emulation.network else None
    waited_us = {(hop.batch, hop.stage): hop.waited_us for hop in execution.journal.hops}
    times_us: list[list[int]] = [[] for _ in range(len(batches[0].visits) + 1)]
    for batch in batches:
        times_us[0].append(batch.visits[0].arrive_us - batch.due_us)
        for stage, (before, after) in enumerate(pairwise(batch.visits), start=1):
            way_us = after.arrive_us - before.end_us
            if emulated is not None:
                at = batch.pipeline, stage
                way_us -= batch.size * int(emulated.transfer_us[at]) + int(emulated.hop_us[at])
                way_us -= waited_us[batch.number, stage]
            times_us[stage].append(way_us)
        assert batch.answered_us is not None
        times_us[-1].append(batch.answered_us - batch.visits[-1].end_us)
    return tuple(trimmed_mean(of_way) for of_way in times_us)


def _on_slice_us(batches: Sequence[Batch]) -> tuple[float, ...]:
    found = []
    for stage in range(len(batches[0].visits)):
        beyond_us = [us - (visit.computed_us - visit.start_us) for visit, us in occupied(batches, stage)]
        found.append(max(0.0, trimmed_mean(beyond_us)))
    return tuple(found)
