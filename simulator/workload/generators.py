"""Synthetic arrivals: each function returns those of ``duration_s`` seconds, drawn from ``rng``.

Equal arguments and equally seeded generators give equal arrivals on every machine. Rates are averages over
a long run: the count of one run varies around rate · duration.
"""

from collections.abc import Callable, Sequence
from math import ceil, pi

import numpy as np
from numpy.typing import NDArray

from planner.model import InputError
from simulator.memory import require_memory
from simulator.workload.arrivals import ArrivalsUs, require_positive

Rng = np.random.Generator
BYTES = 48  # an arrival takes while it is drawn: as a part, in seconds and in µs, before and after the cut, sorted
BYTES_OF_STAY = 200  # a stay in a state takes: an array of its own


def poisson(rate_rps: float, duration_s: float, rng: Rng) -> ArrivalsUs:
    """Return a Poisson process: independent exponential gaps.

    >>> poisson(2.0, 2.0, np.random.default_rng(1)).tolist()
    [536514, 690741]
    """
    return gamma(rate_rps, duration_s, rng, cv=1.0)


def gamma(rate_rps: float, duration_s: float, rng: Rng, *, cv: float) -> ArrivalsUs:
    """Return a renewal process whose gaps are gamma distributed with coefficient of variation ``cv``.

    ``cv`` 1 is a Poisson process, below 1 more even, above 1 burstier (shape 1 / cv², scale cv² / rate).

    >>> len(gamma(100.0, 10.0, np.random.default_rng(1), cv=4.0))
    1053
    """
    require_positive("rate", rate_rps, "requests/s")
    require_positive("cv", cv, "standard deviation over mean of the gaps")
    return _renewal(lambda n: rng.gamma(1 / cv**2, cv**2 / rate_rps, n), rate_rps, duration_s)


def markov_modulated(rates_rps: Sequence[float], dwell_s: Sequence[float], duration_s: float, rng: Rng) -> ArrivalsUs:
    """Return a Markov-modulated Poisson process: state i lasts exponentially long, ``dwell_s[i]`` on average.

    While it lasts, requests come at ``rates_rps[i]`` (0 is a silent state). The first state, and the next one
    after each, is drawn uniformly (from the others).

    >>> len(markov_modulated([10.0, 200.0], [5.0, 1.0], 60.0, np.random.default_rng(1)))
    3240
    """
    if len(rates_rps) != len(dwell_s) or len(rates_rps) < 2:
        raise InputError(f"expected a rate and a dwell time for 2 states or more, got {len(rates_rps)}, {len(dwell_s)}")
    for rate_rps, mean_s in zip(rates_rps, dwell_s, strict=True):
        require_positive("dwell time", mean_s, "s")
        if not rate_rps >= 0:
            raise InputError(f"rate of a state: expected a number >= 0 (requests/s), got {rate_rps}")
    require_positive("duration", duration_s, "s")
    mean_rps = np.average(rates_rps, weights=dwell_s)
    stays = duration_s / float(np.mean(dwell_s))
    require_memory(BYTES_OF_STAY * stays, f"{stays:.3g} stays in states", "generate a shorter time, or longer stays")
    _require_room(mean_rps * duration_s)
    state, now_s = int(rng.integers(len(rates_rps))), 0.0
    parts: list[NDArray[np.float64]] = []
    while now_s < duration_s:
        stay_s = rng.exponential(dwell_s[state])
        parts.append(now_s + stay_s * rng.random(rng.poisson(rates_rps[state] * stay_s)))
        now_s += stay_s
        state = (state + int(rng.integers(1, len(rates_rps)))) % len(rates_rps)
    return _within(np.concatenate(parts), duration_s)


def clustered(rate_rps: float, duration_s: float, rng: Rng, *, size: float, spread_s: float) -> ArrivalsUs:
    """Return clustered bursts (a Neyman-Scott process): Poisson cluster starts, each with its requests after it.

    A cluster has a geometric number of requests, ``size`` on average, at independent exponential distances,
    ``spread_s`` on average, after its start.

    >>> len(clustered(100.0, 10.0, np.random.default_rng(1), size=20.0, spread_s=0.1))
    731
    """
    require_positive("rate", rate_rps, "requests/s")
    require_positive("spread", spread_s, "s")
    _require_room(rate_rps * duration_s)
    starts_s, sizes = _bursts(rate_rps, duration_s, rng, size)
    times_s = np.repeat(starts_s, sizes) + rng.exponential(spread_s, int(sizes.sum()))
    return _within(times_s, duration_s)


def bursts(rate_rps: float, duration_s: float, rng: Rng, *, size: float, gap_s: float) -> ArrivalsUs:
    """Return bursts with exponential gaps inside: a burst's requests follow one another, ``gap_s`` apart on average.

    Bursts start as a Poisson process and have a geometric number of requests, ``size`` on average; they may overlap.

    >>> len(bursts(100.0, 10.0, np.random.default_rng(1), size=20.0, gap_s=0.001))
    732
    """
    require_positive("rate", rate_rps, "requests/s")
    require_positive("gap", gap_s, "s")
    _require_room(rate_rps * duration_s)
    starts_s, sizes = _bursts(rate_rps, duration_s, rng, size)
    gaps_s = rng.exponential(gap_s, int(sizes.sum()))
    ends = np.cumsum(sizes)
    gaps_s[ends - sizes] = 0.0
    elapsed_s = np.cumsum(gaps_s)
    within_s = elapsed_s - np.repeat(elapsed_s[ends - sizes], sizes)
    return _within(np.repeat(starts_s, sizes) + within_s, duration_s)


def diurnal(
    rate_rps: float, duration_s: float, rng: Rng, *, amplitude: float, period_s: float = 86_400.0
) -> ArrivalsUs:
    """Return a Poisson process whose rate swings: rate · (1 + amplitude · sin(2π t / period)).

    >>> arrivals_us = diurnal(100.0, 10.0, np.random.default_rng(1), amplitude=0.9, period_s=10.0)
    >>> int((arrivals_us < 5_000_000).sum()), int((arrivals_us >= 5_000_000).sum())
    (787, 201)
    """
    if not 0 <= amplitude <= 1:
        raise InputError(f"amplitude: expected a number from 0 to 1, got {amplitude}")
    require_positive("period", period_s, "s")
    times_s = poisson(rate_rps * (1 + amplitude), duration_s, rng) / 1e6
    share = (1 + amplitude * np.sin(2 * pi * times_s / period_s)) / (1 + amplitude)
    return _within(times_s[rng.random(len(times_s)) < share], duration_s)


def closed_loop(clients: int, duration_s: float, rng: Rng, *, response_s: float, think_s: float) -> ArrivalsUs:
    """Return what ``clients`` send that each wait for a response, think, and send again.

    A response takes ``response_s``, which is assumed: arrivals are made before the simulation, so that no queue slows
    clients down. Take the mean latency of a run, and make them again, until the two agree. Thinking is exponential with
    mean ``think_s``, also before the first request. The rate tends to clients / (response + think), and no more than
    ``clients`` requests ever fall into ``response_s``.

    >>> len(closed_loop(10, 60.0, np.random.default_rng(1), response_s=0.1, think_s=0.9))
    624
    """
    if clients < 1:
        raise InputError(f"clients: expected an integer >= 1, got {clients}")
    require_positive("response time", response_s, "s")
    require_positive("think time", think_s, "s")
    require_positive("duration", duration_s, "s")
    rounds = ceil(duration_s / response_s) + 1  # as many as a client that never thinks could manage
    rounds = min(rounds, ceil(3 * duration_s / (response_s + think_s)) + 50)
    _require_room(clients * rounds)
    sent_s = np.cumsum(rng.exponential(think_s, (clients, rounds)) + response_s, axis=1) - response_s
    while sent_s[:, -1].min() < duration_s:
        more_s = np.cumsum(rng.exponential(think_s, (clients, rounds)) + response_s, axis=1)
        sent_s = np.hstack([sent_s, sent_s[:, -1:] + more_s])
    return _within(sent_s.ravel(), duration_s)


def _bursts(rate_rps: float, duration_s: float, rng: Rng, size: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return start times of bursts (Poisson) and their geometric sizes, ``size`` on average."""
    if not size >= 1:
        raise InputError(f"size: expected a number >= 1 (requests per burst), got {size}")
    starts_s = poisson(rate_rps / size, duration_s, rng) / 1e6
    return starts_s, rng.geometric(1 / size, len(starts_s))


def _renewal(draw: Callable[[int], NDArray[np.float64]], rate_rps: float, duration_s: float) -> ArrivalsUs:
    """Return the running sums of gaps (s) that ``draw`` makes, in portions, until the duration is full."""
    require_positive("duration", duration_s, "s")
    _require_room(rate_rps * duration_s)
    portion = ceil(rate_rps * duration_s * 1.1) + 100
    times_s = np.cumsum(draw(portion))
    while times_s[-1] < duration_s:
        times_s = np.concatenate([times_s, times_s[-1] + np.cumsum(draw(portion))])
    return _within(times_s, duration_s)


def _require_room(arrivals: float) -> None:
    """Refuse more arrivals than memory has room for."""
    require_memory(BYTES * arrivals, f"{arrivals:.3g} arrivals", "generate fewer, by a smaller rate or duration")


def _within(times_s: NDArray[np.float64], duration_s: float) -> ArrivalsUs:
    """Return times before the end as sorted whole microseconds."""
    return np.sort((times_s[times_s < duration_s] * 1e6).astype(np.int64))
