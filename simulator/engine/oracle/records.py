"""From what the oracle noted of a DNN to its records: per stage position a row a batch, then what was cut short."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from simulator.dispatch.decisions import LOST
from simulator.dispatch.system import Ints, System
from simulator.engine.oracle.core import Batch
from simulator.engine.world import combined
from simulator.results.records import Records, Visits, outcomes

if TYPE_CHECKING:
    from simulator.engine.oracle.promises import Sent

Interrupted = tuple[int, int, int, tuple[int, int, int]]  # pipeline, stage, slice; reached, started, stopped
Served = tuple[int, int, int, Batch]  # pipeline, stage, slice
# When a batch was stopped, its number, its pipeline, stage and slice, and when that was reached and began.
Cut = tuple[int, int, int, int, int, int, int]


def reserved_records(
    systems: Sequence[System],
    arrivals_us: Ints,
    fate: NDArray[np.int32],
    sent: Sequence["Sent"],
    interrupted: Sequence[Interrupted],
) -> Records:
    """Return the records of a DNN with reservations, whose ``systems`` took over from each other."""
    outcome = outcomes(fate)
    for one in sent:
        if one.lost:
            outcome[one.first : one.first + one.size] = LOST
    system = combined(list(systems))
    visits = tuple(_reserved(s, sent, interrupted) for s in range(system.max_stages))
    return Records(system, "simpy", arrivals_us, outcome, (fate,) * system.max_stages, visits)


def _reserved(s: int, sent: Sequence["Sent"], interrupted: Sequence[Interrupted]) -> Visits:
    rows = []
    for one in sent:
        there = s < len(one.visits) and not (one.lost and s >= len(one.visits) - 1)
        times_us = one.visits[s] if s < len(one.visits) else (one.visits[-1][2],) * 3
        rows.append((one.first_pipeline + one.pipeline, one.size, one.slices[s] if there else -1, *times_us))
    for pipeline, stage, w, times_us in interrupted:
        other_us = (times_us[0 if s < stage else 2],) * 3
        rows.append((pipeline, 0, w if s == stage else -1, *(times_us if s == stage else other_us)))
    return _visits(rows)


def reactive_records(
    systems: Sequence[System],
    arrivals_us: Ints,
    outcome: NDArray[np.int8],
    batches: Sequence[Served],
    cuts: Sequence[Cut],
) -> Records:
    """Return the records of a DNN with reactive dispatch: batches in order, after the first stage by pipeline."""
    system = combined(list(systems))
    visit = np.full((system.max_stages, len(arrivals_us)), -1, np.int32)
    visits = []
    for s in range(system.max_stages):
        mine = [one for one in batches if one[1] == s]
        mine.sort(key=lambda one: one[0] if one[1] > 0 else 0)
        for number, (*_, batch) in enumerate(mine):
            visit[s, [request for request, _ in batch.tokens]] = number
        rows = [(p, b.size, w, b.reach_us, b.start_us, b.end_us) for p, _, w, b in mine]
        for end_us, _, p, stage, w, reach_us, start_us in sorted(cuts):
            rows += [(p, 0, w, reach_us, start_us, end_us)] * (stage == s)
        visits.append(_visits(rows))
    return Records(system, "simpy", arrivals_us, outcome, tuple(visit), tuple(visits))


def _visits(rows: Sequence[tuple[int, ...]]) -> Visits:
    columns = np.array(rows, np.int64).reshape(-1, 6)
    return Visits(*columns[:, :3].T.astype(np.int16), *columns[:, 3:].T)
