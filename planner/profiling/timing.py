"""Timing a piece of work until its median is known well enough."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter_ns

import numpy as np


@dataclass(frozen=True)
class Effort:
    """When to stop: the median's 95 % confidence interval within ±``width``, or a cap.

    At least ``min_repeats`` runs, and ``least_s`` seconds of them, are timed after ``warm_up`` others; none starts
    after ``cap_s`` seconds or ``max_repeats`` runs.
    """

    warm_up: int = 2
    min_repeats: int = 5
    max_repeats: int = 100
    cap_s: float = 0.5
    width: float = 0.02
    least_s: float = 0.0


def time_runs(run: Callable[[], object], effort: Effort) -> np.ndarray:
    """Return the times (µs) of single runs.

    >>> len(time_runs(lambda: None, Effort(min_repeats=5, max_repeats=5)))
    5
    """
    for _ in range(effort.warm_up):
        run()
    times_us: list[float] = []
    begin = perf_counter_ns()
    while len(times_us) < effort.max_repeats or perf_counter_ns() - begin < effort.least_s * 1e9:
        start = perf_counter_ns()
        run()
        end = perf_counter_ns()
        times_us.append((end - start) / 1000)
        if len(times_us) < effort.min_repeats or end - begin < effort.least_s * 1e9:
            continue
        if end - begin > effort.cap_s * 1e9 or half_width(times_us) <= effort.width:
            break
    return np.array(times_us)


def half_width(times_us: list[float]) -> float:
    """Return half the median's 95 % confidence interval, relative to it: 1.57 · IQR / sqrt(n) (McGill et al. 1978).

    >>> half_width([10.0, 10.0, 10.0])
    0.0
    """
    low, median, high = np.percentile(times_us, [25, 50, 75])
    return float(1.57 * (high - low) / np.sqrt(len(times_us)) / max(median, 1e-9))


@contextmanager
def pinned(cores: int) -> Iterator[None]:
    """Keep this process on its first ``cores`` cores, where the system can."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:cores])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
