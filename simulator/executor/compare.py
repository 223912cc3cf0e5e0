"""Prediction against measurement: the same plan and the same arrivals simulated and run, side by side.

The simulation takes latencies from the profile and what handing over costs from the run's warm-up (`hand_over`), or
transfers from the cluster's network where that is not known, and dispatches with the same guard time as the run.
Throughput, latencies, attainment and utilisation are then computed by the same functions.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from simulator.engine import simulate
from simulator.executor.dispatcher import with_guard
from simulator.executor.execution import Execution
from simulator.executor.hand_over import HandOver, ends_us, with_hand_over
from simulator.results import Records, attainment, latencies_us
from simulator.results.metrics import quantile

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
    """A run and its simulation."""

    predicted: Records
    measured: Records
    rows: tuple[Compared, ...]

    def row(self, quantity: str) -> Compared:
        """Return the row of a quantity."""
        return next(row for row in self.rows if row.quantity == quantity)


def compare(execution: Execution, costs: HandOver | None = None, level: float | None = None) -> Comparison:
    """Simulate what was run, and put both side by side.

    ``costs`` are those of handing batches over; ``level`` is that of the bounds that the plan relies on, if it does:
    each stage then tells how many of its batches kept theirs.
    """
    records = execution.records
    predicted = predict(execution, costs)
    system, window_us = execution.system, execution.window_us
    rows = [
        Compared(
            "throughput", "requests/s", _rate_rps(predicted, window_us), _rate_rps(records, window_us), "relative"
        ),
        *(
            Compared(f"p{percent} latency", "ms", *_quantiles_ms(predicted, records, window_us[0], percent), "relative")
            for percent in (50, 99)
        ),
        Compared(
            "attainment", "share", attainment(predicted, window_us[0]), attainment(records, window_us[0]), "points"
        ),
    ]
    for pipeline in range(len(system.stages)):
        for stage in range(int(system.stages[pipeline])):
            rows.append(
                Compared(
                    f"utilisation of pipeline {pipeline} stage {stage}",
                    "share",
                    _utilisation(predicted, pipeline, stage, window_us),
                    _utilisation(records, pipeline, stage, window_us),
                    "points",
                )
            )
            if level is not None:
                kept = _kept_bounds(records, pipeline, stage, window_us)
                rows.append(
                    Compared(f"bounds kept by pipeline {pipeline} stage {stage}", "share", level, kept, "points")
                )
    return Comparison(predicted, records, tuple(rows))


def predict(execution: Execution, costs: HandOver | None = None) -> Records:
    """Return the records of a simulation of what was run.

    The way to the first stage delays all batches alike, and so does the way back: both are added to when requests have
    their answers, and taken off the time that dispatch believes to have.
    """
    system, policy = execution.system, execution.settings.policy
    if costs is None:
        simulated = simulate(with_guard(system, execution.guard_us), execution.records.arrival_us, policy=policy)
        return replace(simulated, system=system)
    added_us = np.array(ends_us(costs), np.int64)
    slower = with_guard(
        with_hand_over(system, costs, emulated=execution.settings.emulation.network),
        execution.guard_us + int(added_us.max()),
    )
    simulated = simulate(slower, execution.records.arrival_us, policy=policy)
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


def _quantiles_ms(predicted: Records, measured: Records, warm_up_us: int, percent: int) -> tuple[float, float]:
    low, high = (quantile(latencies_us(records, warm_up_us), percent / 100) for records in (predicted, measured))
    return low / 1000, high / 1000


def _kept_bounds(records: Records, pipeline: int, stage: int, window_us: tuple[int, int]) -> float:
    """Return the share of a stage's batches that took no longer than planned; NaN without batches."""
    visits = records.visits[stage]
    own = (visits.pipeline == pipeline) & (visits.start_us >= window_us[0]) & (visits.end_us < window_us[1])
    planned_us = records.system.latency_us[pipeline, stage, visits.size[own]]
    taken_us = visits.end_us[own] - visits.start_us[own]
    return float(np.mean(taken_us <= planned_us)) if own.any() else float("nan")


def _utilisation(records: Records, pipeline: int, stage: int, window_us: tuple[int, int]) -> float:
    visits = records.visits[stage]
    own = visits.pipeline == pipeline
    inside_us = np.minimum(visits.end_us[own], window_us[1]) - np.maximum(visits.start_us[own], window_us[0])
    slices = int(records.system.slices[pipeline, stage])
    return float(np.maximum(inside_us, 0).sum()) / ((window_us[1] - window_us[0]) * slices)
