"""How a recorded trace is offered at a rate: folded, scaled, thinned, or as it is.

    fold      PPipe's rule (`simulator.workload.arrivals.fold`): windows of the trace fall onto each other
    scale     the same requests, all gaps stretched or squeezed by one factor
    thin      each request is kept with the same probability, independently; only down to lower rates
    verbatim  the trace's own times and rate

All but fold count times from the first arrival and round them to µs; where scaled or thinned requests do not last, they
begin again, a mean gap after the last.
"""

from typing import Literal, get_args

import numpy as np

from planner.model import InputError
from simulator.memory import require_memory
from simulator.workload.arrivals import ArrivalsUs, TimesS, fold, require_positive

How = Literal["fold", "scale", "thin", "verbatim"]

# Above, gaps truncated to µs as PPipe's rule has it would offer 5 % more than was asked for.
MOST_FOLDED_RPS = 100_000
BYTES_PER_REQUEST = 150  # of arrivals, and of what a run records about them


def offer(
    times_s: TimesS, rate_rps: float | None, duration_s: float = 30.0, *, how: How = "fold", seed: int = 0
) -> ArrivalsUs:
    """Return arrivals of a trace at a rate, for so many seconds.

    Parameters
    ----------
    times_s
        Sorted times of the trace (s).
    rate_rps
        Average rate (requests/s); None for verbatim.
    seed
        Of what is kept where the trace is thinned. Lower rates keep a part of what higher ones keep.

    Raises
    ------
    InputError
        The trace cannot be offered at that rate in this way; the message says which way can.

    Examples
    --------
    >>> times_s = np.array([100.0, 100.1, 100.3, 100.4])
    >>> offer(times_s, 5.0, 1.0, how="scale").tolist()
    [0, 150000, 450000, 600000, 800000, 950000]
    >>> offer(times_s, None, how="verbatim").tolist()
    [0, 100000, 300000, 400000]
    """
    if how not in get_args(How):
        raise InputError(f"replay: expected one of {', '.join(get_args(How))}, got {how!r}")
    if (rate_rps is None) != (how == "verbatim"):
        raise InputError("replay: verbatim has the trace's own rate, every other way needs one; choose one of both")
    require_positive("duration", duration_s, "s")
    if rate_rps is None:
        return _until(_relative_us(times_s, 1.0), duration_s)
    require_positive("rate", rate_rps, "requests/s")
    require_memory(
        BYTES_PER_REQUEST * rate_rps * duration_s,
        f"{rate_rps:g} requests/s for {duration_s:g} s",
        "offer a lower rate or a shorter time",
    )
    own_rps = own_rate_rps(times_s)
    if how == "fold":
        return _fold(times_s, own_rps, rate_rps, duration_s)
    if how == "scale":
        return _until(_repeat(_relative_us(times_s, own_rps / rate_rps), rate_rps, duration_s), duration_s)
    if rate_rps > own_rps * (1 + 1e-9):
        raise InputError(
            f"the trace has {own_rps:.4g} requests/s and thinning cannot reach {rate_rps:.4g}; "
            "use --replay fold or scale"
        )
    kept_s = times_s[np.random.default_rng(seed).random(len(times_s)) < rate_rps / own_rps]
    if not len(kept_s):
        raise InputError(f"thinned to {rate_rps:.4g} requests/s, nothing is left of the trace; use --replay scale")
    begin_us = np.rint((kept_s - times_s[0]) * 1e6).astype(np.int64)
    cycle_us = 1e6 * len(times_s) / own_rps
    return _until(_cycles(begin_us, cycle_us, duration_s), duration_s)


def own_rate_rps(times_s: TimesS) -> float:
    """Return a trace's own average rate, (n - 1) / (last - first); raises InputError where it has none."""
    span_s = float(times_s[-1] - times_s[0]) if len(times_s) else 0.0
    if span_s <= 0:
        raise InputError(
            f"a trace of {len(times_s)} arrivals over {span_s:g} s has no rate; give at least two times that differ"
        )
    return (len(times_s) - 1) / span_s


def _fold(times_s: TimesS, own_rps: float, rate_rps: float, duration_s: float) -> ArrivalsUs:
    """Fold by the published rule where it reaches the rate, else say what does."""
    if rate_rps < own_rps * (1 - 1e-9):
        raise InputError(
            f"the trace has {own_rps:.4g} requests/s and folding cannot thin it to {rate_rps:.4g}; use --replay thin "
            "(keeps the pattern, drops requests) or scale (keeps the requests, stretches time)"
        )
    if rate_rps > MOST_FOLDED_RPS:
        raise InputError(
            f"folding cuts gaps to whole µs, which at {rate_rps:.4g} requests/s would offer over 5 % "
            "more; use --replay scale"
        )
    return fold(times_s, rate_rps, duration_s)


def _relative_us(times_s: TimesS, factor: float) -> ArrivalsUs:
    if not len(times_s):
        raise InputError("a trace of 0 arrivals offers nothing; give one that has some")
    relative_us: ArrivalsUs = np.rint((times_s - times_s[0]) * (factor * 1e6)).astype(np.int64)
    return relative_us


def _repeat(arrivals_us: ArrivalsUs, rate_rps: float, duration_s: float) -> ArrivalsUs:
    return _cycles(arrivals_us, 1e6 * len(arrivals_us) / rate_rps, duration_s)


def _cycles(arrivals_us: ArrivalsUs, cycle_us: float, duration_s: float) -> ArrivalsUs:
    """Return arrivals again and again, a cycle later each time, until the duration is covered."""
    cycles = int(duration_s * 1e6 / cycle_us) + 1
    starts_us = np.rint(np.arange(cycles) * cycle_us).astype(np.int64)[:, np.newaxis]
    repeated_us: ArrivalsUs = (starts_us + arrivals_us).ravel()
    return repeated_us


def _until(arrivals_us: ArrivalsUs, duration_s: float) -> ArrivalsUs:
    return arrivals_us[: np.searchsorted(arrivals_us, int(duration_s * 1e6))]
