"""Timing a piece of work until its median is known well enough."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter_ns, thread_time_ns
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class Effort:
    """When to stop: the median's 95 % confidence interval within ±``width``, or a cap.

    At least ``min_repeats`` runs, and ``least_s`` seconds of them, are timed after ``warm_up`` others; none starts
    after ``cap_s`` seconds or ``max_repeats`` runs. ``clock`` is the wall's, or the calling thread's processor time: on
    a machine that others use, that is what a run of one thread would take alone.
    """

    warm_up: int = 2
    min_repeats: int = 5
    max_repeats: int = 100
    cap_s: float = 0.5
    width: float = 0.02
    least_s: float = 0.0
    clock: Literal["wall", "cpu"] = "wall"


def time_runs(run: Callable[[], object], effort: Effort) -> np.ndarray:
    """Return the times (µs) of single runs.

    >>> len(time_runs(lambda: None, Effort(min_repeats=5, max_repeats=5)))
    5
    """
    for _ in range(effort.warm_up):
        run()
    times_us: list[float] = []
    clock_ns = perf_counter_ns if effort.clock == "wall" else thread_time_ns
    begin = perf_counter_ns()
    while len(times_us) < effort.max_repeats or perf_counter_ns() - begin < effort.least_s * 1e9:
        start_ns = clock_ns()
        run()
        times_us.append((clock_ns() - start_ns) / 1000)
        elapsed_ns = perf_counter_ns() - begin
        if len(times_us) < effort.min_repeats or elapsed_ns < effort.least_s * 1e9:
            continue
        if elapsed_ns > effort.cap_s * 1e9 or half_width(times_us) <= effort.width:
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
