"""Prediction against measurement: the same plan and the same arrivals simulated and run, side by side.

The simulation takes latencies from the profile, what handing over costs and how service times vary from the run's
warm-up (`hand_over`, `variation`), or transfers from the cluster's network and exact times where that is not known, and
dispatches with the same guard time as the run.
Throughput, latencies, attainment and utilisation are then computed by the same functions.
"""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd

from simulator.dispatch.system import System
from simulator.engine import World, simulate
from simulator.executor.bounds import Bounds
from simulator.executor.dispatcher import with_guard
from simulator.executor.execution import Execution
from simulator.executor.hand_over import HandOver, ends_us, with_hand_over
from simulator.results import Records, attainment, latencies_us
from simulator.results.metrics import quantile

DRAWS = 5  # simulations of a prediction whose service times are drawn; its figures are their means

# How a difference is told: relative to the prediction, or in percentage points of a share.
Difference = Literal["relative", "points"]


@dataclass(frozen=True)
class Compared:
    """One quantity, predicted and measured; ``kind`` says how their difference is told."""

    quantity: str
    unit: str
    predicted: float
    measured: float
    kind: Difference

    @property
    def difference(self) -> float:
        """(measured - predicted) / predicted, or measured - predicted in percentage points.

        >>> Compared("p50 latency", "ms", 20.0, 21.0, "relative").difference
        0.05
        """
        if self.kind == "points":
            return 100 * (self.measured - self.predicted)
        return (self.measured - self.predicted) / self.predicted if self.predicted else float("nan")

    @property
    def text(self) -> str:
        """The difference for people."""
        return f"{self.difference:+.1f} points" if self.kind == "points" else f"{self.difference:+.1%}"


@dataclass(frozen=True, eq=False)
class Comparison:
    """A run and its simulation, the first one where times were drawn."""

    predicted: Records
    measured: Records
    rows: tuple[Compared, ...]

    def row(self, quantity: str) -> Compared:
        """Return the row of a quantity."""
        return next(row for row in self.rows if row.quantity == quantity)


def compare(
    execution: Execution, costs: HandOver | None = None, bounds: Bounds | None = None, factors: Sequence[float] = ()
) -> Comparison:
    """Simulate what was run, and put both side by side.

    ``costs`` are those of handing batches over; ``factors`` are service times over planned ones, as they vary;
    Where the plan relies on ``bounds``, each stage that has some tells how many of its batches kept theirs.
    """
    records = execution.records
    predicted = [predict(execution, costs, factors, seed) for seed in range(DRAWS if factors else 1)]
    system, window_us = execution.system, execution.window_us

    def row(quantity: str, unit: str, kind: Difference, figure: Callable[[Records], float]) -> Compared:
        return Compared(quantity, unit, float(np.mean([figure(one) for one in predicted])), figure(records), kind)

    rows = [
        row("throughput", "requests/s", "relative", lambda one: _rate_rps(one, window_us)),
        *(
            row(f"p{percent} latency", "ms", "relative", partial(_quantile_ms, window_us[0], percent))
            for percent in (50, 99)
        ),
        row("attainment", "share", "points", lambda one: attainment(one, window_us[0])),
    ]
    for pipeline in range(len(system.stages)):
        for stage in range(int(system.stages[pipeline])):
            busy = partial(_utilisation, window_us, pipeline, stage)
            rows.append(row(f"utilisation of pipeline {pipeline} stage {stage}", "share", "points", busy))
            if bounds is not None and bounds.is_bound[pipeline, stage].any():
                quantity = f"bounds kept by pipeline {pipeline} stage {stage}"
                kept = bounds.kept(records, pipeline, stage, window_us)
                rows.append(Compared(quantity, "share", bounds.level, kept, "points"))
    return Comparison(predicted[0], records, tuple(rows))


def predict(
    execution: Execution, costs: HandOver | None = None, factors: Sequence[float] = (), seed: int = 0
) -> Records:
    """Return the records of a simulation of what was run.

    Each service takes as long as planned, times one of ``factors`` if there are some, which ``seed`` draws.

    The way to the first stage delays all batches alike, and so does the way back: both are added to when requests have
    their answers, and taken off the time that dispatch believes to have.
    """
    system = execution.system
    world = World(seed, factors=tuple(factors)) if factors else None

    def simulated_as(one: System) -> Records:
        return simulate(one, execution.records.arrival_us, policy=execution.settings.policy, world=world)

    if costs is None:
        return replace(simulated_as(with_guard(system, execution.guard_us)), system=system)
    added_us = np.array(ends_us(costs), np.int64)
    slower = with_guard(
        with_hand_over(system, costs, emulated=execution.settings.emulation.network),
        execution.guard_us + int(added_us.max()),
    )
    simulated = simulated_as(slower)
    answered_us = np.full(len(simulated), -1, np.int64)
    served = np.flatnonzero(simulated.finished)
    pipeline = simulated.visits[0].pipeline[simulated.visit[0][served]]
    answered_us[served] = simulated.end_us()[served] + added_us[pipeline]
    return replace(simulated, system=system, answered_us=answered_us)


def comparison_csv(rows: Sequence[Compared]) -> str:
    """Return the rows as CSV; differences are in percent of the prediction, or in percentage points."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["quantity", "unit", "predicted", "measured", "difference", "difference_unit"])
    for row in rows:
        difference, unit = (row.difference, "points") if row.kind == "points" else (100 * row.difference, "%")
        numbers = f"{row.predicted:.6g}", f"{row.measured:.6g}", f"{difference:.3g}"
        writer.writerow([row.quantity, row.unit, *numbers, unit])
    return text.getvalue()


def latency_shares(comparison: Comparison) -> pd.DataFrame:
    """Return the latencies (ms) within which so many of all requests were answered, a row per percent.

    Columns ``share``, ``predicted_ms``, ``measured_ms`` (NaN where fewer requests were finished) and ``slo_ms``.
    """
    share = np.arange(1, 101) / 100
    columns = {"share": share}
    for name, records in (("predicted_ms", comparison.predicted), ("measured_ms", comparison.measured)):
        latency_ms = np.append(np.sort(latencies_us(records, 0)) / 1000, np.nan)
        rank = np.ceil(share * len(records)).astype(int) - 1
        columns[name] = latency_ms[np.minimum(rank, len(latency_ms) - 1)]
    return pd.DataFrame(columns).assign(slo_ms=comparison.measured.system.slo_us / 1000)


def _rate_rps(records: Records, window_us: tuple[int, int]) -> float:
    """Return requests finished per second of the window."""
    ends_us = records.end_us()[records.finished]
    inside = (ends_us >= window_us[0]) & (ends_us < window_us[1])
    return float(inside.sum()) / ((window_us[1] - window_us[0]) / 1e6)


def _quantile_ms(warm_up_us: int, percent: int, records: Records) -> float:
    return quantile(latencies_us(records, warm_up_us), percent / 100) / 1000


def _utilisation(window_us: tuple[int, int], pipeline: int, stage: int, records: Records) -> float:
    visits = records.visits[stage]
    own = visits.pipeline == pipeline
    inside_us = np.minimum(visits.end_us[own], window_us[1]) - np.maximum(visits.start_us[own], window_us[0])
    slices = int(records.system.slices[pipeline, stage])
    return float(np.maximum(inside_us, 0).sum()) / ((window_us[1] - window_us[0]) * slices)
