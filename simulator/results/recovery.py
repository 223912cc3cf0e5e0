"""What failures did to a run over time, and how it recovered: a table, and a picture of rate, attainment and queue."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from simulator.dispatch.decisions import FINISHED, LOST
from simulator.results.records import Records
from simulator.results.run_plots import title
from simulator.results.style import COLOURS, DASHES, INK, finish, legend

BINS = 120  # of a picture


def failures(records: Records) -> pd.DataFrame:
    """Return when failures cut services short, and what that cost: a row per stage and instant.

    ``services`` were cut and ``slices`` stopped in it, as far as they were serving; ``lost`` requests were in batches
    that were given up in that stage then, none (NA) where records do not tell: without reservations, lost requests are
    in no batch.
    """
    rows = []
    lost = records.outcome == LOST
    told = bool((records.visit[-1][lost] >= 0).all())
    for stage, visits in enumerate(records.visits):
        cut = (visits.size == 0) & (visits.slice >= 0) & (visits.end_us > visits.start_us)
        given_up_us = visits.end_us[records.visit[stage][lost & (records.visit[stage] >= 0)]]
        for at_us in np.unique(visits.end_us[cut]):
            here = cut & (visits.end_us == at_us)
            rows.append(
                {
                    "at_s": at_us / 1e6,
                    "stage": stage,
                    "services": int(here.sum()),
                    "pipelines": ", ".join(str(p) for p in np.unique(visits.pipeline[here])),
                    "served_in_vain_ms": float((visits.end_us[here] - visits.start_us[here]).sum()) / 1e3,
                    "lost": int((given_up_us == at_us).sum()) if told else pd.NA,
                }
            )
    columns = ["at_s", "stage", "services", "pipelines", "served_in_vain_ms", "lost"]
    return pd.DataFrame(rows, columns=columns).sort_values(["at_s", "stage"], ignore_index=True)


def over_time(records: Records, bins: int = BINS) -> pd.DataFrame:
    """Return a row per part of a run (equal parts, up to the last arrival).

    ``arrived_rps`` and ``finished_rps`` count arrivals and ends, ``attainment`` is that of the requests that arrived in
    it (NaN where none did), ``queued`` counts those that wait to be sent at its end.
    """
    edges_us = np.linspace(0, int(records.arrival_us[-1]) + 1, bins + 1)
    seconds = np.diff(edges_us) / 1e6
    arrived = np.histogram(records.arrival_us, edges_us)[0]
    finished, end_us = records.outcome == FINISHED, records.end_us()
    in_time = finished & (end_us <= records.arrival_us + records.system.slo_us)
    met = np.histogram(records.arrival_us[in_time], edges_us)[0]
    # One that is dropped leaves the queue no later than at its deadline; when exactly is not recorded.
    sent_us = np.where(records.visit[0] >= 0, records.sent_us(0), records.arrival_us)
    queued = np.cumsum(arrived) - np.cumsum(np.histogram(np.sort(sent_us), edges_us)[0])
    with np.errstate(invalid="ignore"):
        attainment = np.where(arrived > 0, met / np.maximum(arrived, 1), np.nan)
    return pd.DataFrame(
        {
            "from_s": edges_us[:-1] / 1e6,
            "until_s": edges_us[1:] / 1e6,
            "arrived_rps": arrived / seconds,
            "finished_rps": np.histogram(end_us[finished], edges_us)[0] / seconds,
            "attainment": attainment,
            "queued": queued,
        }
    )


def recovery(
    records: Records, axes: Sequence[Axes] | None = None, *, bins: int = BINS, of: str = ""
) -> NDArray[np.object_]:
    """Draw rate, attainment and queue over time, one below the other; grey lines are instants of failures.

    The title names the DNN and the load, after ``of`` (the plan, the cluster).
    """
    if axes is None:
        axes = Figure(figsize=(7.2, 5.4), layout="constrained").subplots(3, sharex=True)
    rows, cuts = over_time(records, bins), failures(records)
    middle_s = (rows["from_s"] + rows["until_s"]) / 2
    rate, attainment, queue = axes
    for number, name in enumerate(("arrived", "finished")):
        rate.plot(middle_s, rows[f"{name}_rps"], color=COLOURS[number], linestyle=DASHES[number], label=name)
    attainment.plot(middle_s, rows["attainment"] * 100, color=COLOURS[2])
    queue.plot(middle_s, rows["queued"], color=COLOURS[3])
    for ax in axes:
        for at_s in cuts["at_s"].unique():
            ax.axvline(at_s, color=INK, linewidth=0.8, alpha=0.35, zorder=0)
    finish(rate, y="requests/s", title=title(records, of))
    finish(attainment, y="within SLO (%)")
    finish(queue, x="time (s); upright lines: failures", y="queued")
    for ax in (rate, queue):
        ax.set_ylim(bottom=0)
    attainment.set_ylim(0, 103)
    queue.set_xlim(0, float(rows["until_s"].iloc[-1]))
    legend(rate)
    return np.asarray(axes, dtype=object)
