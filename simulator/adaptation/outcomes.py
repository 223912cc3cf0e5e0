"""What an adapted run is worth: cores and accuracy over time, latencies, drops and late answers apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

import numpy as np
from numpy.typing import NDArray

from planner.model.applications import combined_accuracy
from simulator.adaptation.loop import Decision, in_force
from simulator.adaptation.service import Service
from simulator.dispatch.decisions import FINISHED
from simulator.results.records import NetworkRecords


@dataclass(frozen=True)
class Outcomes:
    """Figures of a run.

    Attributes
    ----------
    seconds, cores, planned_accuracy
        ``[second]`` of the run: cores of the configuration in use, and the accuracy (percent) of its variants.
    held_cores
        ``[second]``, cores with those that load meanwhile.
    latencies_s
        Of the requests that finished, sorted.
    requests, dropped, late
        How many there were, were dropped for their age, finished after the SLO.
    accuracy
        Mean (percent) over the requests that finished, each by the variants that really served it.
    infeasible
        Decisions at which no configuration served the rate, so that the one in use stayed.
    """

    seconds: NDArray[np.float64]
    cores: NDArray[np.float64]
    held_cores: NDArray[np.float64]
    planned_accuracy: NDArray[np.float64]
    latencies_s: NDArray[np.float64]
    requests: int
    dropped: int
    late: int
    accuracy: float
    infeasible: int

    @property
    def attainment(self) -> float:
        """Requests that finished within the SLO, over all."""
        return 1 - (self.dropped + self.late) / self.requests


def outcomes_of(
    service: Service, decisions: Sequence[Decision], records: NetworkRecords, slo_s: float, duration_s: int
) -> Outcomes:
    """Return the figures of a run of so many seconds."""
    seconds = np.arange(duration_s, dtype=np.float64)
    configurations, which = in_force(decisions, seconds)
    cores = np.array([service.cores(one) for one in configurations], np.float64)[which]
    accuracy = np.array([service.accuracy(one) for one in configurations])[which]
    held = cores.copy()
    for before, after in pairwise(decisions):
        for task, ready_s in enumerate(after.ready_s):
            until_ready = slice(ceil(after.at_s), ceil(ready_s))
            held[until_ready] += service.loading_cores(task, before.configuration[task], after.configuration[task])
    finished = records.outcome == FINISHED
    latencies_s = np.sort((records.done_us - records.arrival_us)[finished] / 1e6)
    kinds = records.kind[records.visit[finished]]
    chosen, counts = np.unique(kinds, axis=0, return_counts=True)
    each = [_accuracy(service, row) for row in chosen.tolist()]
    return Outcomes(
        seconds,
        cores,
        held,
        accuracy,
        latencies_s,
        len(finished),
        int((~finished).sum()),
        int((latencies_s > slo_s).sum()),
        float(np.average(each, weights=counts)) if each else 0.0,
        sum(not decision.feasible for decision in decisions),
    )


def _accuracy(service: Service, variants: Sequence[int]) -> float:
    pairs = zip(service.tasks, variants, strict=True)
    return combined_accuracy([task.variants[number].accuracy for task, number in pairs], service.rule)
