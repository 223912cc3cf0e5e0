"""Records: what happened to every request and every batch of one run, as columns.

`Records` are of one DNN. Per stage position s, ``visits[s]`` has a row per batch served there, and ``visit[s]`` maps
every request to its row, negative if it got no further. A request's way can so be followed through batches that stay
together (one map for all stages) and batches that are built anew in front of every stage. In a stage that a
batch's pipeline lacks its slice is -1 and it spends no time.

`NetworkRecords` are of a network of stations: one table of visits and one of requests.
"""

from dataclasses import dataclass
from functools import cached_property
from math import nan

import numpy as np
from numpy.typing import NDArray

from simulator.dispatch.decisions import FINISHED
from simulator.dispatch.system import System


@dataclass(frozen=True, eq=False)
class Visits:
    """The batches that one stage position of all pipelines served, in order of dispatch; times in µs.

    ``arrive_us`` is when a batch reached the stage (for the first: when it was sent), ``start_us`` and ``end_us``
    when its inference began and ended.
    """

    pipeline: NDArray[np.int16]
    size: NDArray[np.int16]
    slice: NDArray[np.int16]
    arrive_us: NDArray[np.int64]
    start_us: NDArray[np.int64]
    end_us: NDArray[np.int64]


def outcomes(fate: NDArray[np.int32]) -> NDArray[np.int8]:
    """Return ``[request]`` outcomes from fates: a batch's number means finished, -c the outcome c.

    >>> outcomes(np.array([0, -1, 0, 1], np.int32)).tolist()
    [0, 1, 0, 0]
    """
    return (-np.minimum(fate, FINISHED)).astype(np.int8)


@dataclass(frozen=True, eq=False)
class Records:
    """A run of one DNN: columns ``[request]`` in order of arrival, and the batches per stage position.

    ``outcome`` is a code of `simulator.dispatch.decisions`; ``engine`` says which engine ran. ``answered_us`` is
    when requesters had their answers, -1 where they had none; None where answers take no time, as in simulations.
    """

    system: System
    engine: str
    arrival_us: NDArray[np.int64]
    outcome: NDArray[np.int8]
    visit: tuple[NDArray[np.int32], ...]
    visits: tuple[Visits, ...]
    answered_us: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """Count requests."""
        return len(self.arrival_us)

    def __str__(self) -> str:
        """Return in a line how many requests were answered in time, and how fast, warm-up included."""
        latency_us = (self.end_us() - self.arrival_us)[self.finished]
        in_time = int((latency_us <= self.system.slo_us).sum())
        times = ""
        if len(latency_us):
            p50_ms, p99_ms = np.quantile(latency_us, (0.5, 0.99), method="lower") / 1000
            times = f", p50 {p50_ms:.2f} ms, p99 {p99_ms:.2f} ms"
        within = f"{in_time} of {len(self)} requests within {self.system.slo_us / 1000:g} ms"
        return f"{self.system.dnn}: {within}, {len(self) - len(latency_us)} not answered{times}"

    @property
    def finished(self) -> NDArray[np.bool_]:
        """``[request]``, whether it was served to the end."""
        finished: NDArray[np.bool_] = self.outcome == FINISHED
        return finished

    def accuracy(self) -> NDArray[np.float64]:
        """Return ``[request]``, how accurate the variant was that served it (percent); NaN if unknown or unserved."""
        of_pipeline = np.array([*self.system.accuracies] or [nan] * len(self.system.stages))
        accuracy = np.full(len(self), nan)
        served = np.flatnonzero(self.finished)
        accuracy[served] = of_pipeline[self.of_requests(0, self.visits[0].pipeline, served)]
        return accuracy

    def end_us(self) -> NDArray[np.int64]:
        """Return ``[request]``, when it was answered, else left the last stage that it reached; -1 if never sent."""
        return self._end_us

    @cached_property
    def _end_us(self) -> NDArray[np.int64]:
        end_us = np.full(len(self), -1, np.int64)
        done: NDArray[np.int32] | None = None
        for visit, visits in zip(reversed(self.visit), reversed(self.visits), strict=True):
            if visit is done:
                continue  # batches stay together: the last stage has the last end
            done = visit
            if len(visits.end_us):
                np.copyto(end_us, visits.end_us.take(visit, mode="clip"), where=(visit >= 0) & (end_us < 0))
        end_us.flags.writeable = False
        return end_us if self.answered_us is None else np.where(self.answered_us >= 0, self.answered_us, end_us)

    def sent_us(self, stage: int) -> NDArray[np.int64]:
        """Return ``[request]``, when it reached a stage (was sent, for the first); -1 where it never did."""
        row = self.visit[stage]
        times = np.full(len(self), -1, np.int64)
        times[row >= 0] = self.visits[stage].arrive_us[row[row >= 0]]
        return times

    def of_requests(self, stage: int, values: NDArray[np.integer], requests: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return, for some requests, what ``values`` says about their batches in a stage; 0 where they had none."""
        row = self.visit[stage][requests]
        if row.min(initial=0) >= 0:
            return values[row].astype(np.int64, copy=False)
        found = np.zeros(len(row), np.int64)
        found[row >= 0] = values[row[row >= 0]]
        return found


@dataclass(frozen=True, eq=False)
class NetworkRecords:
    """What happened in a network: two tables, linked by ``visit``; times in µs.

    Attributes
    ----------
    arrival_us, request_class, outcome, done_us
        ``[request]``, class by class in order of arrival: when it came, its class, a code of
        `simulator.dispatch.decisions`, and when that was decided (-1 while OPEN).
    visit, joined_us
        ``[request, step]``: the row of the batch that served it (last) in this step of its route, -1 where none did;
        when it (last) joined the queue of that step, -1 where it never did.
    station, server, kind, size, reach_us, start_us, end_us
        ``[visit]``, in order of dispatch: where a batch was served, by which server, which was then of which kind (type
        of device, variant), how many requests it had, when it was sent there, and its service began and ended. A
        service that a failure cut short is a visit of no requests from its start to the failure, one that never began
        has start -1 and ends when it was dissolved.
    """

    engine: str
    arrival_us: NDArray[np.int64]
    request_class: NDArray[np.int16]
    outcome: NDArray[np.int8]
    done_us: NDArray[np.int64]
    visit: NDArray[np.int32]
    joined_us: NDArray[np.int64]
    station: NDArray[np.int16]
    server: NDArray[np.int16]
    kind: NDArray[np.int16]
    size: NDArray[np.int16]
    reach_us: NDArray[np.int64]
    start_us: NDArray[np.int64]
    end_us: NDArray[np.int64]
