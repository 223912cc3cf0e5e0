"""Whether measured latencies can be believed: against batch sizes, between rounds, and what else the machine did.

Latencies are *doubtful* where

- the medians of two rounds are more than `ROUNDS_APART` apart (rounds of a machine at rest differ by a few percent, a
  neighbour that came or went makes more);
- a batch takes less time than a smaller one, or `GROWTH` times as much as its size explains: work grows at most in
  proportion to the batch, but for what no longer fits the caches.

Differences below `GRAIN_US` say nothing of blocks of microseconds.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from time import monotonic

import numpy as np
import psutil

ROUNDS_APART = 0.3
SHRINKS = 0.9
GROWTH = 1.5
GRAIN_US = 50.0
DISTURBING = 0.1  # cores that others use, or that the hypervisor gives to others

Rounds = Sequence[np.ndarray]


def doubts(batches: Sequence[int], times_us: Mapping[int, Sequence[Rounds]]) -> dict[tuple[int, int], str]:
    """Return by batch size and block why a latency is doubtful; ``times_us[batch][block][round]`` are single runs (µs).

    >>> steady, odd = [np.array([1000.0])] * 2, [np.array([9000.0])] * 2
    >>> doubts([1, 2], {1: [steady], 2: [odd]})
    {(2, 0): '4.5 times what batch 1 takes per request'}
    """
    medians_us = {
        batch: [[float(np.median(times)) for times in rounds] for rounds in times_us[batch]] for batch in batches
    }
    found: dict[tuple[int, int], str] = {}
    for batch in batches:
        for block, of_rounds in enumerate(medians_us[batch]):
            least, most = min(of_rounds), max(of_rounds)
            if most - least > max(GRAIN_US, ROUNDS_APART * least):
                found[batch, block] = f"rounds are {most / least - 1:.0%} apart"
    for small, large in pairwise(batches):
        for block, (low, high) in enumerate(zip(medians_us[small], medians_us[large], strict=True)):
            low_us, high_us = float(np.median(low)), float(np.median(high))
            explained_us = low_us * large / small
            if high_us - explained_us > max(GRAIN_US, (GROWTH - 1) * explained_us):
                why = f"{high_us / explained_us:.1f} times what batch {small} takes per request"
                found.setdefault((large, block), why)
            elif low_us - high_us > max(GRAIN_US, (1 - SHRINKS) * low_us):
                found.setdefault((small, block), f"longer than batch {large}, which takes {high_us / low_us:.0%} of it")
    return found


@dataclass(frozen=True)
class Company:
    """What else a machine did meanwhile: cores that other programs used, and that were stolen by its hypervisor."""

    others: float
    stolen: float

    @property
    def disturbing(self) -> bool:
        """Whether that is enough to make wall-clock times longer."""
        return self.others + self.stolen > DISTURBING

    def __str__(self) -> str:
        """Return the figures."""
        return f"others used {self.others:.1f} core(s), {self.stolen:.1f} stolen"


def describe_doubts(found: Mapping[tuple[int, int], str], blocks: int, company: Company | None = None) -> str:
    """Return doubts in a few words, the first of them in full; an empty text for none.

    What was timed behind the ``blocks`` is the whole model. ``company`` is given where the times are the wall's, to
    which what others did with the machine adds.

    >>> describe_doubts({(4, 0): "rounds are 50% apart"}, 2), describe_doubts({}, 2, Company(others=0.02, stolen=0.0))
    ('doubtful: block 0 at batch 4 (rounds are 50% apart)', '')
    """
    reasons = [
        f"{f'block {block}' if block < blocks else 'the whole'} at batch {batch} ({why})"
        for (batch, block), why in list(found.items())[:1]
    ]
    if len(found) > 1:
        reasons.append(f"{len(found) - 1} more")
    if company is not None and company.disturbing:
        reasons.append("the wall clock counts what others did meanwhile (--clock cpu leaves it out)")
    return f"doubtful: {' and '.join(reasons)}" if reasons else ""


class Watch:
    """Watches the machine from its making on.

    >>> Watch().company().stolen >= 0
    True
    """

    def __init__(self) -> None:
        self._begin_s, self._busy_s, self._own_s, self._stolen_s = self._now()

    def company(self) -> Company:
        """Return what else the machine did since then."""
        end_s, busy_s, own_s, stolen_s = self._now()
        span_s = max(end_s - self._begin_s, 1e-3)
        others_s = (busy_s - self._busy_s) - (own_s - self._own_s)
        return Company(max(0.0, others_s) / span_s, max(0.0, stolen_s - self._stolen_s) / span_s)

    @staticmethod
    def _now() -> tuple[float, float, float, float]:
        times, own = psutil.cpu_times(), os.times()
        children_s = sum(_cpu_s(child) for child in psutil.Process().children(recursive=True))
        busy_s = sum(getattr(times, kind, 0.0) for kind in ("user", "nice", "system", "irq", "softirq"))
        own_s = own.user + own.system + own.children_user + own.children_system + children_s
        return monotonic(), busy_s, own_s, getattr(times, "steal", 0.0)


def _cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)
