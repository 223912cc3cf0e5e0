"""Arrivals: sorted integer microseconds (int64 arrays), how traces become them, and how to transform them.

A *trace* is recorded in seconds (float64, as its file has it); *arrivals* are what a simulation is
offered. `fold` turns one into the other at a chosen rate. Every other function here takes arrivals and
returns new ones. Randomness comes from the generator that is passed.
"""

import logging
from collections.abc import Sequence
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from planner.model import InputError

logger = logging.getLogger(__name__)

TimesS = NDArray[np.float64]
ArrivalsUs = NDArray[np.int64]

# Beyond any Unix time in seconds (the year 2096): a file with such times counts in another unit.
ABSURD_S = 4e9


def fold(times_s: TimesS, rate_rps: float, duration_s: float = 30.0) -> ArrivalsUs:
    """Return arrivals at ``rate_rps`` that keep the pattern of a recorded trace.

    The rule is that of PPipe's simulator (ATC'25), in its order of floating-point operations. With n
    times over T seconds, the times are taken modulo ``T / (rate / ((n-1) / T))``, as if windows of that
    length had happened at once, and sorted; their differences, truncated to µs, are d[0..m-1]. The first
    request comes at 0, request i comes d[i mod m] after request i-1, as long as it is before the end.

    A rate below the trace's own cannot be reached by folding (nothing falls onto anything); that is logged as
    a warning: `scale` or `thin` first.

    Only the part of each window that the duration needs is looked at, so that the cost is that of the
    requests returned, not of the trace.

    Parameters
    ----------
    times_s
        Sorted, not negative.
    rate_rps
        Average rate (requests/s) to offer.
    duration_s
        Length of the simulated time (s).

    Raises
    ------
    InputError
        Rate or duration is not positive, or the trace has no two times that differ.

    Examples
    --------
    Two requests a second, offered at four: the trace's second half, from 1 s on, falls onto its first.

    >>> fold(np.array([0.0, 0.25, 0.75, 1.5, 2.0]), 4.0, duration_s=1.5).tolist()
    [0, 250000, 500000, 750000, 750000, 1000000, 1250000]
    """
    require_positive("rate", rate_rps, "requests/s")
    require_positive("duration", duration_s, "s")
    span_s = float(times_s[-1] - times_s[0]) if len(times_s) else 0.0
    if span_s <= 0:
        raise InputError(f"cannot fold a trace of {len(times_s)} arrivals over {span_s} s; give at least two times")
    period_s = span_s / (rate_rps / ((len(times_s) - 1) / span_s))
    if period_s > times_s[-1]:
        logger.warning(
            "the trace's own rate is %.3g/s, more than %.3g/s: folding keeps it", len(times_s) / span_s, rate_rps
        )
    end_us = int(duration_s * 1e6)
    window_s = duration_s + rate_rps * duration_s * 1e-6 + 2 / rate_rps  # truncation takes up to 1 µs a request
    while True:
        whole = window_s >= period_s
        gaps_us = (np.diff(_first_part(times_s, period_s, window_s)) * 1e6).astype(np.int64)
        if whole or int(gaps_us[1:].sum()) >= end_us:
            break
        window_s *= 2
    return _repeat(gaps_us, end_us)


def _first_part(times_s: TimesS, period_s: float, window_s: float) -> TimesS:
    """Return the sorted remainders of ``times_s`` modulo ``period_s`` that are below ``window_s``."""
    if window_s >= period_s:
        return np.sort(np.fmod(times_s, period_s))
    starts_s = np.arange(int(times_s[0] / period_s), int(times_s[-1] / period_s) + 2) * period_s
    first = np.searchsorted(times_s, starts_s - 1e-6)
    last = np.searchsorted(times_s, starts_s + window_s + 1e-6)
    near = np.concatenate([times_s[i:j] for i, j in zip(first, last, strict=True)])
    remainders_s = np.fmod(near, period_s)
    return np.sort(remainders_s[remainders_s < window_s])


def _repeat(gaps_us: NDArray[np.int64], end_us: int) -> ArrivalsUs:
    """Return 0 and the running sums of gaps 1, 2, ... (cyclically) that are below ``end_us``."""
    cycle_us = int(gaps_us.sum())
    if cycle_us == 0:
        raise InputError(f"the folded trace spans less than 1 µs ({len(gaps_us) + 1} arrivals); offer a lower rate")
    gaps = np.resize(gaps_us, len(gaps_us) * ((end_us + int(gaps_us[0])) // cycle_us + 1))
    gaps[0] = 0
    arrivals_us = np.cumsum(gaps)
    return arrivals_us[: np.searchsorted(arrivals_us, end_us)]


def from_seconds(times_s: TimesS | Sequence[float]) -> ArrivalsUs:
    """Return the arrivals at times in seconds, in any order, rounded to whole µs.

    >>> from_seconds([0.25, 0.1000006]).tolist()
    [100001, 250000]
    """
    times = np.asarray(times_s, dtype=np.float64)
    wrong = ~(np.isfinite(times) & (times >= 0) & (times < ABSURD_S))
    if times.ndim != 1 or wrong.any():
        got = f"{times[wrong][0]:g}" if times.ndim == 1 else f"an array of shape {times.shape}"
        raise InputError(f"arrivals: expected one row of seconds, from 0 to {ABSURD_S:g}, got {got}")
    return np.sort(np.rint(times * 1e6).astype(np.int64), kind="stable")


def scale(arrivals_us: ArrivalsUs, factor: float) -> ArrivalsUs:
    """Return the same arrivals ``factor`` times as fast (times divided by it, truncated to µs).

    >>> scale(np.array([0, 100, 301]), 2.0).tolist()
    [0, 50, 150]
    """
    require_positive("factor", factor, "times as fast")
    return (arrivals_us / factor).astype(np.int64)


def thin(arrivals_us: ArrivalsUs, keep: float, rng: np.random.Generator) -> ArrivalsUs:
    """Return each arrival with probability ``keep``, independently.

    >>> len(thin(np.arange(10_000), 0.25, np.random.default_rng(1)))
    2491
    """
    if not 0 < keep <= 1:
        raise InputError(f"keep: expected a probability above 0 and at most 1, got {keep}")
    return arrivals_us[rng.random(len(arrivals_us)) < keep]


def shift(arrivals_us: ArrivalsUs, by_us: int) -> ArrivalsUs:
    """Return the arrivals ``by_us`` later (earlier where negative); none may come before 0.

    >>> shift(np.array([5, 9]), -5).tolist()
    [0, 4]
    """
    if len(arrivals_us) and arrivals_us[0] + by_us < 0:
        raise InputError(f"shift by {by_us} µs would put the first arrival ({arrivals_us[0]} µs) before 0")
    return arrivals_us + by_us


def merge(*parts_us: ArrivalsUs) -> ArrivalsUs:
    """Return all arrivals of several streams in one, in order.

    >>> merge(np.array([1, 5]), np.array([2, 3])).tolist()
    [1, 2, 3, 5]
    """
    return np.sort(np.concatenate(parts_us), kind="stable") if parts_us else np.empty(0, np.int64)


def window(arrivals_us: ArrivalsUs, start_us: int, end_us: int) -> ArrivalsUs:
    """Return the arrivals in [start, end), counted from ``start_us``.

    >>> window(np.array([1, 5, 7, 9]), 5, 9).tolist()
    [0, 2]
    """
    if not 0 <= start_us < end_us:
        raise InputError(f"window: expected 0 <= start < end, got [{start_us}, {end_us}) µs")
    first, last = np.searchsorted(arrivals_us, [start_us, end_us])
    return arrivals_us[first:last] - start_us


def require_positive(what: str, value: float, unit: str) -> None:
    """Raise InputError unless ``value`` is a finite number above 0."""
    if not (isfinite(value) and value > 0):
        raise InputError(f"{what}: expected a number above 0 ({unit}), got {value}")
