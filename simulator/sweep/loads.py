"""One line of a sweep: a DNN of a plan under one trace and policy, at several loads.

Rule for the largest load: *the largest of the loads asked for at which the share of dropped and late requests
is at most 1 - target*. Attainment need not fall monotonically with the load, so the loads are tried from the
highest down and the first that meets the target is the answer; a bisection could miss it.

Early stop: where only that answer is wanted, a run ends as soon as it certainly fails. A simulation of the first
arrivals alone is, up to the last of them, the same as one of all arrivals (no policy sees the future). So
every request whose deadline lies before that moment has its final verdict, and once more of these are lost
than the whole run may lose, the rest does not matter.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from math import floor
from typing import Any

import numpy as np

from planner.model import InputError
from simulator.dispatch.system import System
from simulator.engine import World, simulate
from simulator.engine.run import EngineName
from simulator.results import Records, summary
from simulator.results.metrics import WARM_UP_US, require_counted
from simulator.workload import offer
from simulator.workload.arrivals import ArrivalsUs, TimesS
from simulator.workload.offering import How

LOADS: tuple[float, ...] = tuple(range(100, 0, -5))  # percent, as published: 1.00, 0.95, ..., 0.05
WHOLE_FROM_RPS = 100  # full rates from which on loads are whole rates, as published
LARGEST_LOAD = 10_000  # percent; beyond it a slip of the pen is likelier than a question
AS_PLANNED = "as planned"  # the name of no world
PREFIXES = (0.1, 0.3)  # shares of the arrivals after which a run that certainly fails is stopped

Row = dict[str, Any]


@dataclass(frozen=True)
class SweepOptions:
    """What all runs of a sweep have in common.

    ``loads`` are percents. ``largest_only`` asks for nothing but the largest load that attains ``target``: runs that
    certainly fail are stopped, and loads below the answer are left out. ``replay`` is how traces are offered
    (`simulator.workload.offer`).
    """

    loads: tuple[float, ...] = LOADS
    duration_s: float = 30.0
    engine: EngineName = "auto"
    target: float = 0.99
    largest_only: bool = False
    replay: How = "fold"

    def __post_init__(self) -> None:
        """Refuse loads of zero or below, runs that end in their warm-up, and targets that are no shares."""
        if not self.loads or min(self.loads) <= 0 or max(self.loads) > LARGEST_LOAD:
            raise InputError(f"loads: expected percents above 0 and at most {LARGEST_LOAD}, got {list(self.loads)}")
        require_counted(self.duration_s)
        if not 0 < self.target <= 1:
            raise InputError(f"target: expected a share above 0 and at most 1, got {self.target}")
        if self.replay == "verbatim":
            raise InputError("replay: verbatim has one rate, a sweep has many; use fold, scale or thin")


@dataclass(frozen=True, eq=False)
class Series:
    """A DNN of a plan (its ``system``) under one trace and policy, in a world where not all goes to plan or in none.

    ``seed`` is what the trace was read with, and the world's.

    ``full_rps`` is what load factor 1 means: the throughput for this DNN of the plan ``reference``.
    """

    plan: str
    scheduler: str
    dnn: str
    trace: str
    policy: str
    seed: int
    full_rps: float
    system: System
    world_name: str = AS_PLANNED
    world: World | None = None
    reference: str = ""

    @property
    def label(self) -> Row:
        """The columns that say which series a row belongs to, and what its load factor 1 is."""
        names = ("plan", "scheduler", "dnn", "trace", "policy", "seed")
        found = {name: getattr(self, name) for name in names} | {"world": self.world_name}
        return found | {"reference": self.reference, "full_rps": self.full_rps}

    def digest(self, times_sha256: str, options: SweepOptions) -> str:
        """Return the SHA-256 of everything that determines its rows, the rates aside."""
        said = f"{times_sha256} {self.policy} {self.seed} {options.duration_s!r} {options.replay}"
        found = hashlib.sha256(said.encode())
        _update(found, self.system)
        if self.world is not None:
            found.update(b"a stream per server ")  # how service times are drawn: rows drawn otherwise are others
            _update(found, self.world)
        return found.hexdigest()


def _update(found: "hashlib._Hash", value: Any) -> None:
    """Take a value, and all that it holds, into a digest."""
    if is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            found.update(f"{field.name} ".encode())
            _update(found, getattr(value, field.name))
    elif isinstance(value, np.ndarray):
        found.update(f"{value.shape} ".encode())
        found.update(value.tobytes())
    elif isinstance(value, tuple):
        found.update(f"{len(value)} ".encode())
        for part in value:
            _update(found, part)
    else:
        found.update(repr(value).encode())


def rate_of_load(full_rps: float, percent: float) -> float:
    """Return the rate that a load means: floor(floor(X) · percent / 100), as in the published sweeps.

    Deviation: below 100 requests/s, where whole numbers are too coarse, X · percent / 100.

    >>> rate_of_load(744.9, 95), rate_of_load(744.9, 92.5), rate_of_load(2.86, 45)
    (706, 688, 1.287)
    """
    if full_rps < WHOLE_FROM_RPS:
        return full_rps * percent / 100
    return floor(floor(full_rps) * percent / 100 + 1e-9)


def run_series(
    series: Series,
    times_s: TimesS,
    options: SweepOptions,
    known: Mapping[float, Row] | None = None,
    offered: dict[float, ArrivalsUs] | None = None,
    done: Callable[[Row], None] | None = None,
) -> list[Row]:
    """Simulate a series at its loads, from the highest down, and return a row for each.

    Parameters
    ----------
    times_s
        The trace; sorted, in seconds.
    known
        Load (percent) -> row of an earlier run, taken instead of running again.
    offered
        Rate -> the trace offered at it; series of one trace share it, so that each rate is made once.
    done
        Called with every row that was not known.
    """
    known = known or {}
    offered = {} if offered is None else offered
    rows: list[Row] = []
    for percent in sorted(options.loads, reverse=True):
        row = known.get(percent)
        if row is None or (row["stopped"] and not options.largest_only):
            row = run_load(series, times_s, percent, options, offered)
            if done:
                done(row)
        rows.append(row)
        if options.largest_only and _meets(row, options.target):
            break
    return rows


def is_finished(known: Mapping[float, Row], options: SweepOptions) -> bool:
    """Say whether `run_series` would have nothing left to simulate."""
    for percent in sorted(options.loads, reverse=True):
        row = known.get(percent)
        if row is None or (row["stopped"] and not options.largest_only):
            return False
        if options.largest_only and _meets(row, options.target):
            return True
    return True


def run_load(
    series: Series,
    times_s: TimesS,
    percent: float,
    options: SweepOptions,
    offered: dict[float, ArrivalsUs] | None = None,
) -> Row:
    """Simulate a series at one load and return its row: what was offered, and the `summary` of the records.

    ``devices_<type>`` is how many devices the plan fills for this DNN, which ``utilisation_<type>`` refers to.

    ``rate_rps`` is the rate asked for, ``offered_rps`` what came: all arrivals over the duration.

    ``stopped`` says that the run was ended because it certainly fails; ``requests`` are then all those offered,
    ``dropped`` the requests lost for certain, and the other metrics are absent.
    """
    rate_rps = rate_of_load(series.full_rps, percent)
    offered = {} if offered is None else offered
    if rate_rps not in offered:
        offered[rate_rps] = offer(times_s, rate_rps, options.duration_s, how=options.replay, seed=series.seed)
    arrivals_us = offered[rate_rps]
    said: Row = {"load_factor": percent / 100, "rate_rps": rate_rps}
    said["offered_rps"] = len(arrivals_us) / options.duration_s
    if options.largest_only:
        lost = _certainly_lost(series, arrivals_us, options)
        if lost:
            requests = int((arrivals_us >= WARM_UP_US).sum())
            return series.label | said | {"stopped": True, "requests": requests, "dropped": lost, "late": 0}
    records = _simulated(series, arrivals_us, options)
    filled = {f"devices_{name}": n for name, n in zip(series.system.device_types, series.system.devices, strict=True)}
    return series.label | said | {"stopped": False, "engine": records.engine} | filled | summary(records)


def largest_load(rows: Sequence[Row], target: float = 0.99) -> float:
    """Return the largest load factor among the rows of one series that attains the target; 0 where none does.

    >>> row = {"stopped": False, "requests": 1000, "late": 0}
    >>> largest_load([row | {"load_factor": 1.0, "dropped": 11}, row | {"load_factor": 0.95, "dropped": 10}])
    0.95
    """
    return max((float(row["load_factor"]) for row in rows if _meets(row, target)), default=0.0)


def holds_up_to(rows: Sequence[Row], target: float = 0.99) -> float | None:
    """Return the largest load factor up to which every load tried attains the target; 0 where the least one fails.

    None where not all loads were run to the end, so that it is not known.

    >>> losses = {0.7: 0, 0.45: 11, 0.4: 0}
    >>> row = {"stopped": False, "requests": 1000, "late": 0}
    >>> holds_up_to([row | {"load_factor": load, "dropped": lost} for load, lost in losses.items()])
    0.4
    """
    holds = 0.0
    for row in sorted(rows, key=lambda row: float(row["load_factor"])):
        if not _meets(row, target):
            return holds
        holds = float(row["load_factor"])
    return holds


def _meets(row: Row, target: float) -> bool:
    """Say whether a run attains the target; one without a request that counts shows nothing."""
    lost = row["dropped"] + row["late"]
    return not row["stopped"] and row["requests"] > 0 and lost <= _may_lose(row["requests"], target)


def _may_lose(requests: int, target: float) -> int:
    """Return how many of the requests may be lost: (1 - target) of them, rounded down, not below for 0.01 · 100."""
    return floor((1 - target) * requests * (1 + 1e-12) + 1e-12)


def _simulated(series: Series, arrivals_us: ArrivalsUs, options: SweepOptions) -> Records:
    return simulate(series.system, arrivals_us, policy=series.policy, engine=options.engine, world=series.world)


def _certainly_lost(series: Series, arrivals_us: ArrivalsUs, options: SweepOptions) -> int:
    """Return how many requests a prefix of the arrivals shows to be lost, where it is too many; else 0."""
    may_lose = _may_lose(int((arrivals_us >= WARM_UP_US).sum()), options.target)
    for share in PREFIXES:
        part_us = arrivals_us[: int(share * len(arrivals_us))]
        if len(part_us) <= may_lose:
            continue
        lost = _lost_before(_simulated(series, part_us, options))
        if lost > may_lose:
            return lost
    return 0


def _lost_before(records: Records) -> int:
    """Count requests that are certainly lost at the moment of the last arrival: overdue, and not served in time."""
    deadline_us = records.arrival_us + records.system.slo_us
    overdue = (records.arrival_us >= WARM_UP_US) & (deadline_us < records.arrival_us[-1])
    in_time = records.finished & (records.end_us() <= deadline_us)
    return int((overdue & ~in_time).sum())
