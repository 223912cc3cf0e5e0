"""What a run on real devices measured.

Throughput is taken over the *window* of a run, from the end of the warm-up to the last arrival (or Ctrl-C), cut
into equal intervals; its confidence interval is the one of their mean (batch means, 95 %).

Little's law holds for any system that is empty at both ends of the time looked at: the mean number of requests in
flight is the rate at which they are sent times the mean time that they are in flight. Here the left side is
counted by the frontend while it runs, the right side is taken from the records. If they differ by more
than 5 %, one of them is wrong, and so is every figure that rests on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf, nan, sqrt

import numpy as np

from planner.model import InputError
from simulator.executor.devices import CPU, device_of
from simulator.executor.execution import Execution
from simulator.executor.fleet import SliceId
from simulator.executor.journal import Usage
from simulator.results.metrics import distribution

INTERVALS = 20
T_QUANTILE = 2.093  # Student's t, 97.5 %, 19 degrees of freedom
LITTLE_TOLERANCE = 0.05
DISTURBED = 0.1  # of a busy worker's time that it did not get its cores


@dataclass(frozen=True)
class Throughput:
    """Requests answered per second: mean over the window, and half the 95 % confidence interval."""

    rps: float
    half_width_rps: float

    def __str__(self) -> str:
        """Return a text for people."""
        return f"{self.rps:.1f} ± {self.half_width_rps:.1f} requests/s"


@dataclass(frozen=True)
class Little:
    """Both sides of Little's law over the whole run: mean requests in flight = rate · mean time in flight."""

    in_flight: float
    rate_rps: float
    time_in_flight_s: float

    @property
    def error(self) -> float:
        """Relative difference of the two sides."""
        product = self.rate_rps * self.time_in_flight_s
        if self.in_flight == product:
            return 0.0
        return abs(self.in_flight - product) / max(self.in_flight, product)

    def __str__(self) -> str:
        """Return the figures."""
        product = self.rate_rps * self.time_in_flight_s
        return (
            f"{self.in_flight:.3f} requests in flight, {self.rate_rps:.3f} requests/s · {self.time_in_flight_s:.4f} s "
            f"= {product:.3f} ({self.error:.1%} apart)"
        )


@dataclass(frozen=True)
class SliceFigures:
    """What one slice did in the window.

    ``busy`` is the share of the time in which it worked on batches, ``bubble`` the rest; ``cpu`` is the CPU time that
    its worker used per second (in cores), ``expected_cpu`` what one uses at least that computes whenever it is busy
    (0 where that is not known); ``memory_bytes`` is its largest resident size. NaN and 0 where not sampled.
    """

    pipeline: int
    stage: int
    slice: int
    device: str
    batches: int
    requests_per_s: float
    busy: float
    bubble: float
    cpu: float
    expected_cpu: float
    memory_bytes: int


@dataclass(frozen=True)
class HopFigures:
    """The ways into one stage, or back to the requesters (``stage`` = number of stages): measured bytes and times."""

    pipeline: int
    stage: int
    batches: int
    bytes_per_request: float
    mean_us: float
    p50_us: float
    p99_us: float
    waited_us: float


@dataclass(frozen=True)
class Measurement:
    """All figures of a run that a simulation does not have."""

    window_s: float
    throughput: Throughput
    little: Little
    slices: tuple[SliceFigures, ...]
    hops: tuple[HopFigures, ...]

    @property
    def disturbed(self) -> tuple[SliceId, ...]:
        """Slices that were kept from their cores: busy for much longer than they computed, by other programs."""
        return tuple(
            SliceId(each.pipeline, each.stage, each.slice)
            for each in self.slices
            if each.expected_cpu - each.cpu > DISTURBED * each.expected_cpu
        )


def measure(execution: Execution) -> Measurement:
    """Return what a run measured.

    Raises
    ------
    InputError
        The window is empty, or Little's law is broken: the result is refused, with the figures.
    """
    first_us, last_us = execution.window_us
    if last_us <= first_us:
        raise InputError(
            f"nothing to measure: the warm-up ends at {first_us / 1e6:.3f} s, the arrivals at {last_us / 1e6:.3f} s; "
            "run longer, or choose a shorter --warm-up"
        )
    little = littles_law(execution)
    if little.error > LITTLE_TOLERANCE:
        raise InputError(f"result refused: it breaks Little's law by more than {LITTLE_TOLERANCE:.0%}: {little}")
    return Measurement(
        window_s=(last_us - first_us) / 1e6,
        throughput=throughput(execution),
        little=little,
        slices=tuple(_slice_figures(execution, slice_id) for slice_id in execution.slices),
        hops=_hop_figures(execution),
    )


def throughput(execution: Execution) -> Throughput:
    """Return the steady-state throughput of a run."""
    first_us, last_us = execution.window_us
    ends_us = execution.records.end_us()[execution.records.finished]
    counts, _ = np.histogram(ends_us, bins=np.linspace(first_us, last_us, INTERVALS + 1))
    rates_rps = counts / ((last_us - first_us) / 1e6 / INTERVALS)
    return Throughput(float(rates_rps.mean()), float(T_QUANTILE * rates_rps.std(ddof=1) / sqrt(INTERVALS)))


def littles_law(execution: Execution) -> Little:
    """Return both sides of Little's law, from the first sending to the end of the drain."""
    journal = execution.journal
    times_us = np.array([time_us for time_us, _ in journal.in_flight], np.float64)
    numbers = np.array([number for _, number in journal.in_flight], np.float64)
    span_us = times_us[-1] - times_us[0]
    if span_us <= 0:
        return Little(0.0, 0.0, 0.0)
    in_flight = float((numbers[:-1] * np.diff(times_us)).sum() / span_us)
    sent_us, end_us = execution.records.sent_us(0), execution.records.end_us()
    answered = execution.records.finished
    stay_us = (end_us - sent_us)[answered].sum(dtype=np.float64)
    requests = int(answered.sum())
    for batch in journal.batches:
        if batch.answered_us is None and batch.lost_us is not None:
            stay_us += batch.size * (batch.lost_us - batch.sent_us)
            requests += batch.size
    return Little(in_flight, requests / span_us * 1e6, stay_us / max(1, requests) / 1e6)


def _slice_figures(execution: Execution, slice_id: SliceId) -> SliceFigures:
    first_us, last_us = execution.window_us
    window_s = (last_us - first_us) / 1e6
    visits = [visit for visit in execution.journal.visits() if visit.slice == slice_id]
    inside_us = sum(max(0, min(visit.end_us, last_us) - max(visit.start_us, first_us)) for visit in visits)
    ended = [visit for visit in visits if first_us <= visit.end_us < last_us]
    samples = [sample for sample in execution.journal.usage if sample.slice == slice_id]
    busy = inside_us / 1e6 / window_s
    slowdown = execution.settings.emulation.slowdown.get(device_of(execution.system, slice_id), 1.0)
    return SliceFigures(
        *slice_id,
        device=device_of(execution.system, slice_id),
        batches=len(ended),
        requests_per_s=sum(visit.size for visit in ended) / window_s,
        busy=busy,
        bubble=1 - busy,
        cpu=_cpu([sample for sample in samples if first_us <= sample.time_us <= last_us]),
        expected_cpu=busy / slowdown if execution.settings.provider == CPU else 0.0,
        memory_bytes=max((sample.memory_bytes for sample in samples), default=0),
    )


def _cpu(samples: Sequence[Usage]) -> float:
    """Return CPU seconds per second; a worker that was replaced begins anew at 0, which counts as nothing used."""
    if len(samples) < 2:
        return nan
    used_s = sum(max(0.0, later.cpu_s - earlier.cpu_s) for earlier, later in pairwise(samples))
    return used_s / ((samples[-1].time_us - samples[0].time_us) / 1e6 or inf)


def _hop_figures(execution: Execution) -> tuple[HopFigures, ...]:
    first_us, last_us = execution.window_us
    found = []
    hops = [hop for hop in execution.journal.hops if first_us <= hop.end_us < last_us]
    for pipeline, stage in sorted({(hop.pipeline, hop.stage) for hop in hops}):
        own = [hop for hop in hops if (hop.pipeline, hop.stage) == (pipeline, stage)]
        times_us = distribution(np.array([hop.end_us - hop.start_us for hop in own]))
        found.append(
            HopFigures(
                pipeline,
                stage,
                len(own),
                sum(hop.nbytes for hop in own) / sum(hop.size for hop in own),
                times_us["mean"],
                times_us["p50"],
                times_us["p99"],
                float(np.mean([hop.waited_us for hop in own])),
            )
        )
    return tuple(found)
