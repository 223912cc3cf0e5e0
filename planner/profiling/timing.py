"""Timing pieces of work until their medians are known well enough."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import ceil, sqrt
from time import perf_counter_ns, thread_time_ns
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class Effort:
    """When to stop: the medians' 95 % confidence intervals within ±``width``, or a cap.

    Work is timed in ``rounds``, each on newly made sessions: where memory lies, and what else the machine does at the
    time, move a median by more than runs of one sitting differ. Each round begins with ``warm_up`` runs that do not
    count: the first run of a session finds out which memory it needs, the second is the first to touch it, and takes up
    to twice as long as the third. Then at least ``min_repeats`` runs and ``least_s`` seconds of them are timed; none
    starts after ``cap_s`` seconds or ``max_repeats`` runs. Seconds and ``max_repeats`` are of all rounds together and
    per piece of work. ``clock`` is the wall's, or the calling thread's processor time: on a machine that others use,
    that is what a run of one thread would take alone.
    """

    warm_up: int = 2
    min_repeats: int = 3
    max_repeats: int = 100
    cap_s: float = 0.5
    width: float = 0.02
    least_s: float = 0.0
    rounds: int = 5
    clock: Literal["wall", "cpu"] = "wall"

    def of_one_round(self) -> "Effort":
        """Return the effort of each round; together they reach the width.

        >>> Effort(min_repeats=3, max_repeats=100, rounds=4).of_one_round()
        Effort(warm_up=2, min_repeats=3, max_repeats=25, cap_s=0.125, width=0.04, least_s=0.0, rounds=1, clock='wall')
        """
        return replace(
            self,
            max_repeats=max(self.min_repeats, ceil(self.max_repeats / self.rounds)),
            cap_s=self.cap_s / self.rounds,
            least_s=self.least_s / self.rounds,
            width=self.width * sqrt(self.rounds),
            rounds=1,
        )


def time_runs(run: Callable[[], object], effort: Effort) -> np.ndarray:
    """Return the times (µs) of single runs, in one round.

    >>> len(time_runs(lambda: None, Effort(min_repeats=5, max_repeats=5)))
    5
    """
    return time_passes([run], effort)[:, 0]


def time_passes(steps: Sequence[Callable[[], object]], effort: Effort) -> np.ndarray:
    """Return ``[pass, step]``, the times (µs) of steps that are run one after the other, again and again, in one round.

    So each step finds the caches as the others leave them.

    >>> time_passes([list, dict, set], Effort(min_repeats=2, max_repeats=2)).shape
    (2, 3)
    """
    for _ in range(effort.warm_up):
        for step in steps:
            step()
    passes_us: list[list[float]] = []
    clock_ns = perf_counter_ns if effort.clock == "wall" else thread_time_ns
    least_ns, cap_ns = (seconds * len(steps) * 1e9 for seconds in (effort.least_s, effort.cap_s))
    begin_ns = perf_counter_ns()
    while len(passes_us) < effort.max_repeats or perf_counter_ns() - begin_ns < least_ns:
        pass_us = []
        for step in steps:
            start_ns = clock_ns()
            step()
            pass_us.append((clock_ns() - start_ns) / 1000)
        passes_us.append(pass_us)
        elapsed_ns = perf_counter_ns() - begin_ns
        if len(passes_us) < effort.min_repeats or elapsed_ns < least_ns:
            continue
        if elapsed_ns > cap_ns or half_width(np.array(passes_us)).max() <= effort.width:
            break
    return np.array(passes_us)


def half_width(times_us: np.ndarray) -> np.ndarray:
    """Return half the 95 % confidence interval of each column's median, relative to it.

    It is 1.57 · IQR / sqrt(n) (McGill, Tukey and Larsen 1978, "Variations of box plots").

    >>> half_width(np.array([[10.0, 1.0], [10.0, 2.0], [10.0, 3.0]])).round(2)
    array([0.  , 0.45])
    """
    low, median, high = np.percentile(times_us, [25, 50, 75], axis=0)
    width: np.ndarray = 1.57 * (high - low) / np.sqrt(len(times_us)) / np.maximum(median, 1e-9)
    return width


@contextmanager
def pinned(cores: int, first: int = 0) -> Iterator[None]:
    """Keep this process on ``cores`` of its cores, from the ``first`` on, where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[first : first + cores])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
