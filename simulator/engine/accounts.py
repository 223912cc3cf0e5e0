"""Checks on every run: no request is lost or made up, and Little's law holds.

Conservation: every request that arrived is finished, dropped for a cause, lost or still open; one that is finished
was in a batch, which was not sent before the request came; and a batch has as many requests as it says.

Little's law in service (the utilisation law): what a server held over time, the µs that it was busy, is how many
services it gave times how long they took. The left side is the engine's own count, kept as services begin and are cut
short; the right side are the visits in the records. So a service that is recorded twice, not at all, with another
length or on another server is noticed. (`replay` decides before it serves, and the oracle keeps no such count.)

Little's law in the system, L · T = n · W: the time that the requests served spent there, counted request by request, is
what the queues held (counted by request) and what slices and network cards held (counted by batch). Both sides are sums
over the records, so this holds where conservation does; it fails where a request's table and a batch's table disagree.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from simulator.compilation import compiled
from simulator.dispatch.decisions import FINISHED, OPEN, OUTCOMES
from simulator.dispatch.system import Ints
from simulator.engine.core.state import State
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


def check_busy_times(state: State, found: Sequence[tuple[Sequence[int], Records]]) -> None:
    """Raise AssertionError unless every slice was busy for as long as the records say, to the µs.

    Parameters
    ----------
    found
        Per DNN the numbers of the frontends that were in charge of it, in order, and its records.
    """
    served_us = np.zeros(len(state.server), np.int64)
    for frontends, records in found:
        for s, visits in enumerate(records.visits):
            first = first_slices(state, frontends, s)
            add_services(visits.pipeline, visits.slice, visits.start_us, visits.end_us, first, state.lists, served_us)
    require_equal(served_us, state.server["busy_us"])


def first_slices(state: State, frontends: Sequence[int], stage: int) -> Ints:
    """Return ``[pipeline]``, where the servers of a stage begin in the state's lists; -1 where a plan lacks it."""
    found = []
    for d in frontends:
        mine = state.station[state.station["frontend"] == d]
        here = mine["first"][mine["stage"] == stage]
        found.append(here if len(here) else np.full((mine["stage"] == 0).sum(), -1))
    return np.concatenate(found)


def require_equal(served_us: Ints, busy_us: Ints) -> None:
    """Raise AssertionError, naming a server, unless all were busy for as long as they served."""
    unequal = np.flatnonzero(served_us != busy_us)
    assert not len(unequal), (
        f"server {unequal[0]}: busy for {busy_us[unequal[0]]} µs, but its visits took {served_us[unequal[0]]} µs"
    )


def check_network_accounts(records: NetworkRecords, busy_us: Ints | None = None) -> None:
    """Raise AssertionError unless the accounts of every station of a network balance.

    Every request has an outcome or is open, and a visit has as many requests as it says, which joined before it began.
    So per station what requests spent there is what its queue and its servers held, term by term. Where the engine says
    for how long each server was busy, ``busy_us``, that is what its visits took.
    """
    decided = records.done_us >= 0
    assert ((records.outcome == OPEN) != decided).all(), "network: a request has an outcome, but no time of it"
    missing = records.size.astype(np.int32)
    wrong = count_tokens(records.visit, records.joined_us, records.start_us, missing)
    assert wrong < 0, f"network: request {wrong} was in a batch that began before it joined"
    short = np.flatnonzero(missing)
    assert not len(short), f"network: visit {short[0]} has {missing[short[0]]} requests fewer than it says"
    if busy_us is not None:
        served_us = np.zeros(len(busy_us), np.int64)
        add_visits(records.server, records.start_us, records.end_us, served_us)
        require_equal(served_us, busy_us)


@compiled
def count_tokens(visit: NDArray[np.int32], joined_us: Ints, start_us: Ints, missing: NDArray[np.int32]) -> int:
    """Take requests from what is missing in their visits; returns a request that joined too late, or -1."""
    wrong = -1
    for request in range(visit.shape[0]):
        for step in range(visit.shape[1]):
            v = visit[request, step]
            if v >= 0:
                missing[v] -= 1
                if start_us[v] < joined_us[request, step]:
                    wrong = request
    return wrong


@compiled
def add_visits(server: NDArray[np.int16], start_us: Ints, end_us: Ints, served_us: Ints) -> None:
    """Add up how long servers served, without what never began."""
    for v in range(len(server)):
        if start_us[v] >= 0:
            served_us[server[v]] += end_us[v] - start_us[v]


@compiled
def add_services(
    pipeline: NDArray[np.int16],
    chosen: NDArray[np.int16],
    start_us: Ints,
    end_us: Ints,
    first: Ints,
    lists: Ints,
    served_us: Ints,
) -> None:
    """Add up how long slices served in one stage; ``first[pipeline]`` is where its servers begin in ``lists``."""
    for v in range(len(chosen)):
        if chosen[v] >= 0:
            served_us[lists[first[pipeline[v]] + chosen[v]]] += end_us[v] - start_us[v]


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
