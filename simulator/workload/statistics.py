"""What is said about a trace: how uneven its functions are, and how bursty its arrivals."""

from dataclasses import dataclass

import numpy as np

from simulator.workload.arrivals import TimesS
from simulator.workload.trace import Trace


@dataclass(frozen=True)
class TraceStatistics:
    """Figures of one trace; rates per second, shares from 0 to 1."""

    requests: int
    functions: int
    duration_s: float
    rate_rps: float
    gap_cv: float
    dispersion_1s: float
    dispersion_60s: float
    busiest_share: float
    five_busiest_share: float


def trace_statistics(trace: Trace) -> TraceStatistics:
    """Return the statistics of a trace.

    ``gap_cv`` is the coefficient of variation of the inter-arrival times (standard deviation over mean; 1 for a
    Poisson process), ``dispersion_…`` the `index_of_dispersion`, and the shares are those of the functions
    with most requests.
    """
    calls = np.sort(np.bincount(trace.function))[::-1] / len(trace)
    gaps_s = np.diff(trace.times_s)
    return TraceStatistics(
        requests=len(trace),
        functions=len(trace.functions),
        duration_s=float(trace.times_s[-1] - trace.times_s[0]),
        rate_rps=trace.rate_rps,
        gap_cv=float(gaps_s.std() / gaps_s.mean()) if len(gaps_s) and gaps_s.mean() > 0 else 0.0,
        dispersion_1s=index_of_dispersion(trace.times_s, 1.0),
        dispersion_60s=index_of_dispersion(trace.times_s, 60.0),
        busiest_share=float(calls[0]),
        five_busiest_share=float(calls[:5].sum()),
    )


def index_of_dispersion(times_s: TimesS, window_s: float) -> float:
    """Return variance over mean of the number of arrivals in consecutive windows; 1 for a Poisson process.

    Only whole windows from the first arrival on count; NaN where there is none.

    >>> index_of_dispersion(np.array([0.0, 0.1, 0.2, 2.5, 4.0]), 1.0)
    1.5
    """
    window = ((times_s - times_s[0]) / window_s).astype(np.int64)
    windows, counts = int(window[-1]), np.unique(window[window < window[-1]], return_counts=True)[1]
    if not windows:
        return float("nan")
    mean = counts.sum() / windows  # empty windows, of which there may be any number, count as 0
    squares = ((counts - mean) ** 2).sum() + (windows - len(counts)) * mean**2
    return float(squares / windows / mean)
