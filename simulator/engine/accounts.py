"""Checks on every run: no request is lost or made up, and Little's law holds.

Conservation: every request that arrived is finished, dropped for a cause, lost or still open; one that is finished
was in a batch, which was not sent before the request came; and a batch has as many requests as it says.

Little's law, L · T = n · W: the time that the requests served spent in the system, counted request by request, is
what the queues held (counted by request) and what slices and network cards held (counted by batch).
"""

import numpy as np
from numpy.typing import NDArray

from simulator.dispatch.compiled import compiled
from simulator.dispatch.decisions import FINISHED, OUTCOMES
from simulator.dispatch.system import Ints
from simulator.results.records import Records


def check_accounts(records: Records) -> None:
    """Raise AssertionError, naming the run, unless its accounts balance."""
    run = f"run of {len(records)} requests of {records.system.dnn} on {records.engine}"
    assert records.outcome.min(initial=0) >= 0, f"{run}: a request has no outcome"
    assert records.outcome.max(initial=0) < len(OUTCOMES), f"{run}: a request has no known outcome"
    stages = len(records.visits)
    together = all(visit is records.visit[0] for visit in records.visit)  # batches stay as they are in all stages
    for s in range(1 if together else stages):
        first, last = records.visits[s], records.visits[-1] if together else records.visits[s]
        missing = np.array(first.size, np.int32)
        spent_us, waited_us, wrong = count_requests(
            records.arrival_us, records.outcome, records.visit[s], s == 0, first.arrive_us, last.end_us, missing
        )
        held_us, short = count_batches(first.size, first.arrive_us, last.end_us, missing)
        assert wrong < 0, f"{run}: request {wrong} is finished without a batch in stage {s}, or came after its batch"
        assert short < 0, f"{run}: batch {short} of stage {s} has {missing[short]} requests fewer than it says"
        assert spent_us == waited_us + held_us, f"{run}: stage {s}: {spent_us} µs spent, {waited_us} + {held_us} held"


@compiled
def count_requests(
    arrival_us: Ints,
    outcome: NDArray[np.int8],
    visit: NDArray[np.int32],
    is_first: bool,
    sent_us: Ints,
    end_us: Ints,
    missing: NDArray[np.int32],
) -> tuple[int, int, int]:
    """Take every request from what is missing in its batch.

    Returns
    -------
    spent_us, waited_us, wrong
        Time from arrival to end and to sending, summed over requests in batches; a request that is wrong, or -1.
    """
    spent = waited = 0
    wrong = -1
    for request in range(len(visit)):
        batch = visit[request]
        if batch >= 0:
            missing[batch] -= 1
            waited += sent_us[batch] - arrival_us[request]
            spent += end_us[batch] - arrival_us[request]
            if sent_us[batch] < arrival_us[request]:
                wrong = request
        elif is_first and outcome[request] == FINISHED:
            wrong = request
    return spent, waited, wrong


@compiled
def count_batches(size: NDArray[np.int16], sent_us: Ints, end_us: Ints, missing: NDArray[np.int32]) -> tuple[int, int]:
    """Return the time from sending to end, times the size, summed over batches; and a short batch, or -1."""
    held = 0
    short = -1
    for batch in range(len(size)):
        held += size[batch] * (end_us[batch] - sent_us[batch])
        if missing[batch] != 0:
            short = batch
    return held, short
