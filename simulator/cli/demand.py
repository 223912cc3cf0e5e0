"""What the simulator's commands offer to DNNs: traces, at a rate or at a share of what a plan serves."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from planner.cli.app import about, progress
from planner.model import InputError, Plan, TaskPlan
from simulator.sweep import LARGEST_LOAD
from simulator.workload import Trace, assign, offer, read_trace
from simulator.workload.arrivals import ArrivalsUs, TimesS
from simulator.workload.offering import How


@dataclass(frozen=True)
class TraceFormat:
    """What the options say of how a trace is laid out; see `simulator.workload.read_trace`."""

    schema: str = "auto"
    time_column: str | None = None
    unit: str = "s"
    sort: bool = False


def load_trace(path: Path, form: TraceFormat, seed: int | None = None) -> Trace:
    """Read a trace under a progress bar; ``seed`` spreads counts per minute at random instead of evenly."""
    rng = None if seed is None else np.random.default_rng(seed)
    with progress() as bar:
        task = bar.add_task(f"reading {path.name}, rows", total=None)
        return read_trace(
            path,
            schema=form.schema,
            time_column=form.time_column,
            unit=form.unit,
            sort=form.sort,
            minute_rng=rng,
            progress=lambda rows: bar.update(task, completed=rows),
        )


def times_per_dnn(trace: Trace, dnns: Sequence[str], round_robin: bool) -> dict[str, TimesS]:
    """Return the times that each DNN is offered: all of them, or those of every so-many-th function.

    Raises
    ------
    InputError
        A DNN is offered too few times to fold.
    """
    parts = assign(trace, len(dnns)) if round_robin else [trace.times_s] * len(dnns)
    offered = dict(zip(dnns, parts, strict=True))
    for name, times_s in offered.items():
        if not len(times_s) or times_s[0] == times_s[-1]:
            raise InputError(
                f"{trace.source}: offers {name} {len(times_s)} arrival{'s' * (len(times_s) != 1)}; "
                "expected at least two times that differ: give a longer trace, or one with more functions"
            )
    return offered


@dataclass(frozen=True, eq=False)
class Offered:
    """What a DNN is offered: the rate asked for (None: the trace's own), the arrivals, and the rate that came."""

    rate_rps: float | None
    arrivals_us: ArrivalsUs
    offered_rps: float


@dataclass(frozen=True)
class Demand:
    """What the options say of arrivals: the trace, and how DNNs are offered it.

    They are offered a rate, or a share ``load`` of what the plan serves, ``usual_load`` where neither is given.
    """

    trace: Path
    form: TraceFormat
    replay: How
    rate_rps: float | None
    load: float | None
    usual_load: float
    duration_s: float
    seed: int
    round_robin: bool

    def read(self) -> Trace:
        """Return the trace."""
        return load_trace(self.trace, self.form, self.seed)

    def offered(self, recorded: Trace, names: Sequence[str], plan: Plan | TaskPlan) -> dict[str, Offered]:
        """Return what each DNN of a plan is offered.

        Raises
        ------
        InputError
            The rate cannot be offered, the load is none, or both or either are given where there is no choice.
        """
        times_s = times_per_dnn(recorded, names, self.round_robin)
        rate_rps, load = self.rate_rps, self.load
        if load is not None and not 0 < load <= LARGEST_LOAD / 100:
            raise InputError(f"--load: expected a share above 0 and at most {LARGEST_LOAD / 100:g}, got {load:g}")
        if rate_rps is not None and load is not None:
            raise InputError("--rate and --load both say how much is offered; give one of them")
        if self.replay == "verbatim" and (rate_rps is not None or load is not None):
            raise InputError("--replay verbatim: offers the trace's own rate; leave out --rate and --load")
        return {name: self._offered(name, times, plan) for name, times in times_s.items()}

    def _offered(self, name: str, times_s: TimesS, plan: Plan | TaskPlan) -> Offered:
        rate_rps = self.rate_rps
        if rate_rps is None and self.replay != "verbatim":
            rate_rps = (self.usual_load if self.load is None else self.load) * plan.throughput_rps(name)
        with about(Path(name)):
            arrivals_us = offer(times_s, rate_rps, self.duration_s, how=self.replay, seed=self.seed)
        return Offered(rate_rps, arrivals_us, len(arrivals_us) / self.duration_s)

    def record(self, recorded: Trace, offered: Mapping[str, Offered]) -> dict[str, Any]:
        """Return what the record of a run says about it."""
        return {
            "trace": self.trace.name,
            "trace_sha256": hashlib.sha256(recorded.times_s.tobytes() + recorded.function.tobytes()).hexdigest(),
            "rate_rps": {name: one.rate_rps for name, one in offered.items()},
            "replay": self.replay,
            "duration_s": self.duration_s,
        }
