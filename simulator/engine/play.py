"""What happens to batches once they are sent (PPipe, ATC'25).

A slice serves its batches first come, first served. A batch that leaves a stage which is not the last joins
its network card's queue; the card sends one batch at a time, first come, first served. Batches that come at
the same instant are served in the order of their dispatch.

Because latencies are deterministic, a server needs no queue: ``end = max(free, arrival) + service``, with the
batches in the order in which they come. Each pipeline is played stage by stage.
"""

import numpy as np
from numpy.typing import NDArray

from simulator.compilation import compiled
from simulator.dispatch.system import Ints, System

Shorts = NDArray[np.int16]
Numbers = NDArray[np.int32]


def play(system: System, pipeline: Shorts, size: Shorts, chosen: Shorts, times_us: Ints) -> None:
    """Find out when batches reached, were started by and were finished by each stage.

    Parameters
    ----------
    system
        What serves them.
    pipeline, size
        Per batch, in order of dispatch.
    chosen
        ``[stage, batch]``, the slice. A batch spends no time in stages that its pipeline lacks.
    times_us
        ``[what, stage, batch]``; when they reached the first stage is given, all else is filled.
    """
    for p, stages in enumerate(system.stages.tolist()):
        if len(system.stages) > 1:
            order = np.flatnonzero(pipeline == p).astype(np.int32)
            came_us = times_us[0, 0, order]
        else:
            order, came_us = np.arange(len(pipeline), dtype=np.int32), times_us[0, 0]
        for s in range(chosen.shape[0]):
            if s >= stages:
                times_us[:, s, order] = times_us[2, s - 1, order]
                continue
            if s > 0:
                came_us = send(system, p, s, order, size, chosen[s - 1], times_us[2, s - 1])
            reach_us, start_us, end_us = times_us[:, s]
            free_us = np.empty(system.slices[p, s], np.int64)
            serve(order, came_us, system.latency_us[p, s], size, chosen[s], reach_us, start_us, end_us, free_us)


def send(system: System, p: int, s: int, order: Numbers, size: Shorts, chosen: Shorts, ready_us: Ints) -> Ints:
    """Send batches that stage s - 1 of pipeline p finished to stage s, and return when they come there, in order.

    ``order`` are the batches as stage s - 1 served them; it is put in the order in which they reach stage s.
    """
    slices, on_card = int(system.slices[p, s - 1]), int(system.card_slices[p, s - 1])
    came_us = np.empty(len(order), np.int64)
    transmit(
        order,
        came_us,
        np.arange(slices) // on_card,
        on_card > 1,
        system.transfer_us[p, s],
        system.hop_us[p, s],
        size,
        chosen,
        ready_us,
        np.empty(slices, np.int64),
    )
    return came_us


@compiled
def transmit(
    order: Numbers,
    came_us: Ints,
    card_of: Ints,
    shared: bool,
    transfer_us: int,
    hop_us: int,
    size: Shorts,
    chosen: Shorts,
    ready_us: Ints,
    free_us: Ints,
) -> None:
    """Send batches over the network cards of their slices; ``free_us`` is room for an entry per card."""
    if shared:  # a slice finishes its batches in order, several together do not
        for i in range(len(order)):
            insert(order, came_us, i, ready_us[order[i]])
    free_us[:] = 0
    for i in range(len(order)):
        k = order[i]
        card = card_of[chosen[k]]
        free_us[card] = max(free_us[card], ready_us[k]) + size[k] * transfer_us
        insert(order, came_us, i, free_us[card] + hop_us)


@compiled
def serve(
    order: Numbers,
    came_us: Ints,
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
    for i in range(len(order)):
        k = order[i]
        w = chosen[k]
        reach_us[k] = came_us[i]
        start_us[k] = max(free_us[w], came_us[i])
        end_us[k] = free_us[w] = start_us[k] + latency_us[size[k]]


@compiled
def insert(order: Numbers, came_us: Ints, i: int, at_us: int) -> None:
    """Insert the i-th batch among those before it, which are in order of time, then of dispatch; nearly all stay."""
    k = order[i]
    j = i
    while j > 0 and (came_us[j - 1] > at_us or (came_us[j - 1] == at_us and order[j - 1] > k)):
        order[j] = order[j - 1]
        came_us[j] = came_us[j - 1]
        j -= 1
    order[j] = k
    came_us[j] = at_us
