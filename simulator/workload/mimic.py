"""A generator of traces that look like MAF'21, calibrated on that trace's published statistics.

Calibration: quantiles over the applications of the full MAF'21 trace (77 have statistics, with 1,979,991
requests in 14 days; Zhang et al., SOSP'21, data CC-BY 4.0), rounded to the digits shown:

- requests of an application: from 104 to 535,667; the busiest has 27 % of all, the five busiest have 72 %;
- mean over median of its inter-arrival times: 1 means even, the five busiest lie between 6 and 20, others
  reach 10^5 (long silences between bursts); medians below 1 ms are taken as 1 ms;
- the share of the 14 days between its first and its last request; requests times rate in that span is at
  most 422,400/s (12,672 at 33.3/s), so that an application with many requests spreads them widely.

Model: each application is a renewal process with log-normal gaps that fills its active span exactly and has
exactly the mean-to-median ratio drawn for it. The three traits are drawn independently (their rank
correlations are weak), except that the busiest 6 % have a ratio table of their own. Their draws are
stratified, one application per quantile, so that even a small trace has the skew.
"""

from math import log10

import numpy as np
from numpy.typing import NDArray

from planner.model import InputError
from simulator.memory import require_memory
from simulator.workload.arrivals import TimesS, require_positive
from simulator.workload.trace import Trace

APPLICATIONS = 77
APPLICATION_REQUESTS = 1_979_991
TWO_WEEKS_S = 1_209_600
RATE_RPS = APPLICATION_REQUESTS / TWO_WEEKS_S

LEVELS = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0)
LOG10_REQUESTS = (2.02, 2.38, 2.66, 3.52, 4.01, 4.51, 5.11, 5.73)
LOG10_RATIO = (0.0, 0.0, 0.61, 1.63, 3.09, 4.18, 4.67, 5.38)
ACTIVE_SHARE = (0.0003, 0.0029, 0.2707, 0.7046, 0.9591, 0.9968, 0.9992, 0.9999)
BUSIEST = 0.94
LOG10_RATIO_BUSIEST = (0.78, 0.94, 1.31)
HIGHEST_REQUESTS_TIMES_RATE = 422_400.0

MOST_APPLICATIONS = 100_000  # each takes a fraction of a millisecond
BYTES = 64  # a request takes while it is drawn: gaps, times, places in order, its function, before and after sorting


def maf_like(
    requests: int, rng: np.random.Generator, *, duration_s: float | None = None, applications: int = APPLICATIONS
) -> Trace:
    """Return a trace of about ``requests`` invocations with the skew and the burstiness of MAF'21.

    Parameters
    ----------
    requests
        Invocations in all; each application gets its share, rounded, and at least one.
    duration_s
        Length of the trace; by default as long as MAF'21 takes for so many requests (1.64 a second).
    applications
        How many applications; each has one function.

    Examples
    --------
    >>> trace = maf_like(10_000, np.random.default_rng(1))
    >>> len(trace), round(float(np.bincount(trace.function).max() / len(trace)), 2)
    (10002, 0.26)
    """
    if not 1 <= applications <= MOST_APPLICATIONS:
        most = f" and <= {MOST_APPLICATIONS}" if applications > 1 else ""
        raise InputError(f"applications: expected an integer >= 1{most}, got {applications}")
    if requests < applications:
        raise InputError(f"requests: expected at least one for each of {applications} applications, got {requests}")
    duration_s = float(requests) / RATE_RPS if duration_s is None else duration_s
    require_positive("duration", duration_s, "s")
    require_memory(BYTES * requests, f"{requests:.3g} requests", "generate fewer")
    level = (np.arange(applications) + 0.5) / applications
    share = 10 ** np.interp(level, LEVELS, LOG10_REQUESTS)
    number = np.maximum(1, np.rint(requests * share / share.sum())).astype(np.int64)
    ratio = 10 ** np.where(
        level >= BUSIEST,
        rng.permutation(np.interp(np.linspace(0, 1, applications), (0, 0.5, 1), LOG10_RATIO_BUSIEST)),
        rng.permutation(np.interp(level, LEVELS, LOG10_RATIO)),
    )
    shortest = (share / share.sum()) ** 2 * (APPLICATION_REQUESTS**2 / HIGHEST_REQUESTS_TIMES_RATE / TWO_WEEKS_S)
    active_s = duration_s * np.clip(rng.permutation(np.interp(level, LEVELS, ACTIVE_SHARE)), shortest, 1.0)
    times = [
        rng.random() * (duration_s - span_s) + _renewal(int(count), float(mean_to_median), span_s, rng)
        for count, mean_to_median, span_s in zip(number, ratio, active_s, strict=True)
    ]
    digits = int(log10(applications)) + 1
    function = np.repeat(np.arange(applications, dtype=np.int32), number)
    times_s = np.concatenate(times)
    order = np.argsort(times_s, kind="stable")
    names = tuple((f"app{index:0{digits}d}", "f") for index in range(applications))
    return Trace(times_s[order], function[order], names, "maf-like")


def _renewal(count: int, mean_to_median: float, span_s: float, rng: np.random.Generator) -> TimesS:
    """Return ``count`` times from 0 to ``span_s`` with log-normal gaps of that mean-to-median ratio."""
    if count < 3:
        return np.sort(rng.random(count)) * span_s
    normal = rng.standard_normal(count - 1)
    gaps = np.exp(_spread(normal, mean_to_median) * normal)
    times = np.concatenate([[0.0], np.cumsum(gaps)])
    times *= span_s / times[-1]
    return times


def _spread(normal: NDArray[np.float64], mean_to_median: float) -> float:
    """Return the s for which exp(s · normal) has that ratio, by bisection; at most 12."""
    low, high = 0.0, 12.0
    for _ in range(40):
        middle = (low + high) / 2
        gaps = np.exp(middle * normal)
        if gaps.mean() < mean_to_median * np.median(gaps):
            low = middle
        else:
            high = middle
    return high
