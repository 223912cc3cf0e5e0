"""Checks on every run: no request is lost or made up, and Little's law holds.

Conservation: every request that arrived is finished, dropped for a cause, lost or still open; one that is finished
was in a batch, which was not sent before the request came; and a batch has as many requests as it says.

Little's law, L · T = n · W: the time that the requests served spent in the system, counted request by request, is
what the queues held (counted by request) and what slices and network cards held (counted by batch). Both sides are sums
over the records, so this holds where conservation does; it fails where a request's table and a batch's table disagree.
"""

import numpy as np
from numpy.typing import NDArray

from simulator.compilation import compiled
from simulator.dispatch.decisions import FINISHED, OPEN, OUTCOMES
from simulator.dispatch.system import Ints
from simulator.results.records import NetworkRecords, Records


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


def check_network_accounts(records: NetworkRecords) -> None:
    """Raise AssertionError unless the accounts of every station of a network balance.

    Every request has an outcome or is open; a visit has as many requests as it says, which joined before it began; and
    per station the time that requests spent there is what its queue and its servers held.
    """
    decided = records.done_us >= 0
    assert ((records.outcome == OPEN) != decided).all(), "network: a request has an outcome, but no time of it"
    missing = records.size.astype(np.int32)
    unequal_us = np.zeros(int(records.station.max(initial=0)) + 1, np.int64)
    times_us = records.reach_us, records.start_us, records.end_us
    wrong = count_tokens(records.visit, records.joined_us, records.station, *times_us, missing, unequal_us)
    assert wrong < 0, f"network: request {wrong} was in a batch that began before it joined"
    short = np.flatnonzero(missing)
    assert not len(short), f"network: visit {short[0]} has {missing[short[0]]} requests fewer than it says"
    count_visits(records.station, records.size, records.reach_us, records.end_us, unequal_us)
    unequal = np.flatnonzero(unequal_us)
    assert not len(unequal), f"network: times of station {unequal[0]} do not balance"


@compiled
def count_tokens(
    visit: NDArray[np.int32],
    joined_us: Ints,
    station: NDArray[np.int16],
    reach_us: Ints,
    start_us: Ints,
    end_us: Ints,
    missing: NDArray[np.int32],
    unequal_us: Ints,
) -> int:
    """Take requests from what is missing in their visits, and add up what they spent but did not wait in queues.

    Returns a request that joined too late, or -1.
    """
    wrong = -1
    for request in range(visit.shape[0]):
        for step in range(visit.shape[1]):
            v = visit[request, step]
            if v >= 0:
                missing[v] -= 1
                unequal_us[station[v]] += end_us[v] - reach_us[v]
                if start_us[v] < joined_us[request, step]:
                    wrong = request
    return wrong


@compiled
def count_visits(
    station: NDArray[np.int16], size: NDArray[np.int16], reach_us: Ints, end_us: Ints, unequal_us: Ints
) -> None:
    """Take away what servers held, and had in front of them."""
    for v in range(len(station)):
        unequal_us[station[v]] -= size[v] * (end_us[v] - reach_us[v])


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
