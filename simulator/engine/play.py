"""What happens to batches once they are sent (DESIGN section 6, "what then really happens").

A slice serves its batches first come, first served. A batch that leaves a stage which is not the last joins
its network card's queue; the card sends one batch at a time, first come, first served. Batches that come at
the same instant are served in the order of their dispatch.

Because latencies are deterministic, a server needs no queue: ``end = max(free, arrival) + service``, with the
batches in the order in which they come. Each pipeline is played stage by stage.
"""

import numpy as np
from numpy.typing import NDArray

from simulator.dispatch.compiled import compiled
from simulator.dispatch.system import Ints, System

Shorts = NDArray[np.int16]


def play(system: System, pipeline: Shorts, size: Shorts, chosen: Shorts, sent_us: Ints) -> Ints:
    """Return when batches reached, were started by and were finished by each stage, ``[what, stage, batch]`` in µs.

    Parameters
    ----------
    system
        What serves them.
    pipeline, size, sent_us
        Per batch, in order of dispatch.
    chosen
        ``[stage, batch]``, the slice. A batch spends no time in stages that its pipeline lacks.
    """
    times_us = np.empty((3, *chosen.shape), np.int64)
    times_us[0, 0] = sent_us
    free_us = np.empty(int(system.slices.max()) + 1, np.int64)
    whole = np.arange(len(sent_us))
    for p, stages in enumerate(system.stages.tolist()):
        order = np.flatnonzero(pipeline == p) if len(system.stages) > 1 else whole
        for s in range(chosen.shape[0]):
            if s >= stages:
                times_us[:, s, order] = times_us[2, s - 1, order]
                continue
            if s > 0:
                send(system, p, s, order, size, chosen[s - 1], times_us[2, s - 1], times_us[0, s], free_us)
            reach_us, start_us, end_us = times_us[:, s]
            serve(order, system.latency_us[p, s], size, chosen[s], reach_us, start_us, end_us, free_us)
    return times_us


def send(
    system: System,
    p: int,
    s: int,
    order: Ints,
    size: Shorts,
    chosen: Shorts,
    ready_us: Ints,
    reach_us: Ints,
    free_us: Ints | None = None,
) -> None:
    """Send batches that stage s - 1 of pipeline p finished to stage s, and put ``order`` in their order there."""
    if free_us is None:
        free_us = np.empty(int(system.slices[p, s - 1]) + 1, np.int64)
    transmit(
        order,
        system.card_slices[p, s - 1],
        system.transfer_us[p, s],
        system.hop_us[p, s],
        size,
        chosen,
        ready_us,
        reach_us,
        free_us,
    )


@compiled
def transmit(
    order: Ints,
    card_slices: int,
    transfer_us: int,
    hop_us: int,
    size: Shorts,
    chosen: Shorts,
    ready_us: Ints,
    reach_us: Ints,
    free_us: Ints,
) -> None:
    """Send batches over the network cards of their slices; ``free_us`` is room for an entry per card."""
    sort(order, ready_us)
    free_us[:] = 0
    for k in order:
        card = chosen[k] // card_slices
        free_us[card] = max(free_us[card], ready_us[k]) + size[k] * transfer_us
        reach_us[k] = free_us[card] + hop_us
    sort(order, reach_us)


@compiled
def serve(
    order: Ints,
    latency_us: Ints,
    size: Shorts,
    chosen: Shorts,
    reach_us: Ints,
    start_us: Ints,
    end_us: Ints,
    free_us: Ints,
) -> None:
    """Serve batches in ``order`` on their slices; ``free_us`` is room for an entry per slice."""
    free_us[:] = 0
    for k in order:
        w = chosen[k]
        start_us[k] = max(free_us[w], reach_us[k])
        end_us[k] = free_us[w] = start_us[k] + latency_us[size[k]]


@compiled
def sort(order: Ints, time_us: Ints) -> None:
    """Sort batches by time, then by dispatch index; by insertion, because they nearly are."""
    for i in range(1, len(order)):
        k = order[i]
        j = i
        while j > 0 and (time_us[order[j - 1]], order[j - 1]) > (time_us[k], k):
            order[j] = order[j - 1]
            j -= 1
        order[j] = k
