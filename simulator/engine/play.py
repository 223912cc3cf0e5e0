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
from simulator.dispatch.system import Ints

Shorts = NDArray[np.int16]


@compiled
def play(
    stages: Ints,
    latency_us: Ints,
    transfer_us: Ints,
    hop_us: Ints,
    slices: Ints,
    card_slices: Ints,
    pipeline: Shorts,
    size: Shorts,
    chosen: Shorts,
    sent_us: Ints,
) -> tuple[Ints, Ints, Ints]:
    """Return when each batch arrived at, was started by and was finished by each stage, ``[stage, batch]`` in µs.

    The first six arguments are a System's arrays; ``pipeline``, ``size`` and ``sent_us`` are per batch, in order of
    dispatch, ``chosen`` is ``[stage, batch]``, the slice. A batch spends no time in stages that its pipeline lacks.
    """
    width, sent = chosen.shape
    arrive_us = np.empty((width, sent), np.int64)
    start_us = np.empty((width, sent), np.int64)
    end_us = np.empty((width, sent), np.int64)
    for p in range(len(stages)):
        order = np.flatnonzero(pipeline == p)
        for s in range(width):
            if s == 0:
                for k in order:
                    arrive_us[0, k] = sent_us[k]
            elif s < stages[p]:
                send(
                    order,
                    card_slices[p, s - 1],
                    slices[p, s - 1],
                    transfer_us[p, s],
                    hop_us[p, s],
                    size,
                    chosen[s - 1],
                    end_us[s - 1],
                    arrive_us[s],
                )
            else:
                for k in order:
                    arrive_us[s, k] = start_us[s, k] = end_us[s, k] = end_us[s - 1, k]
                continue
            serve(order, slices[p, s], latency_us[p, s], size, chosen[s], arrive_us[s], start_us[s], end_us[s])
    return arrive_us, start_us, end_us


@compiled
def send(
    order: Ints,
    card_slices: int,
    slices: int,
    transfer_us: int,
    hop_us: int,
    size: Shorts,
    chosen: Shorts,
    ready_us: Ints,
    arrive_us: Ints,
) -> None:
    """Send batches over their cards, and put ``order`` in the order of arrival at the next stage."""
    sort(order, ready_us)
    free = np.zeros(slices // card_slices + 1, np.int64)
    for k in order:
        card = chosen[k] // card_slices
        free[card] = max(free[card], ready_us[k]) + size[k] * transfer_us
        arrive_us[k] = free[card] + hop_us
    sort(order, arrive_us)


@compiled
def serve(
    order: Ints,
    slices: int,
    latency_us: Ints,
    size: Shorts,
    chosen: Shorts,
    arrive_us: Ints,
    start_us: Ints,
    end_us: Ints,
) -> None:
    """Serve batches in ``order`` on the slices that were chosen for them."""
    free = np.zeros(slices, np.int64)
    for k in order:
        w = chosen[k]
        start_us[k] = max(free[w], arrive_us[k])
        end_us[k] = free[w] = start_us[k] + latency_us[size[k]]


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
