"""Plots of one run's records: what its slices did when, and what its latencies consist of."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from planner.files.names import printable
from planner.model import InputError
from simulator.results.hover import attach
from simulator.results.metrics import WARM_UP_US, latencies_us, latency_parts_us
from simulator.results.records import Records
from simulator.results.style import COLOURS, HATCHES, INK, figure_of, finish, legend, new_axes, short

PARTS = ("inference", "transfer", "building", "queueing")  # from what a plan fixes to what the load makes of it
FAR_SLO = 4  # times the slowest request, beyond which the SLO is not drawn, for nothing else could be told apart


def timeline(
    records: Records,
    ax: Axes | None = None,
    *,
    start_ms: float = 0.0,
    end_ms: float = 500.0,
    most_slices: int = 12,
    of: str = "",
) -> Axes:
    """Draw what slices did in a window: a row per slice, a bar per batch, with its size where there is room.

    Rows are grouped by pipeline and stage, which the first row of a pool says; of each pool the first ``most_slices``
    slices are drawn. Bars are coloured and hatched by pipeline. The title names the DNN and the load, after ``of`` (the
    plan, the cluster).

    Raises
    ------
    InputError
        No batch was worked on in the window.
    """
    rows, ticks, bars = _bars(records, start_ms, end_ms, most_slices)
    if not bars:
        raise InputError(f"no batch was worked on from {start_ms:g} to {end_ms:g} ms; choose another window")
    ax = ax or new_axes(8.0, 1.2 + 0.17 * len(rows))
    for row, pipeline, begin, length, size in bars:
        (bar,) = ax.barh(
            row, length, left=begin, height=0.8, color=COLOURS[pipeline % 8], hatch=HATCHES[pipeline % 8],
            edgecolor="white", linewidth=0.6,
        )  # fmt: skip
        attach(bar, [f"{rows[row]}: batch of {size} from {begin:.3f} ms, {length:.3f} ms"])
        if length > (end_ms - start_ms) * 0.025:
            box = {"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
            ax.text(begin + length / 2, row, str(size), ha="center", va="center", fontsize=6.5, color=INK, bbox=box)
    ax.set_yticks(range(len(rows)), ticks)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlim(start_ms, end_ms)
    finish(ax, x="time (ms); the number in a bar is the batch size", title=title(records, of))
    ax.tick_params(axis="y", labelsize=8)
    ax.grid(visible=False, axis="y")
    ax.grid(axis="x", color="#DDDDDD", linewidth=0.8)
    _name_pipelines(ax, sorted({bar.pipeline for bar in bars}))
    return ax


class _Bar(NamedTuple):
    """A batch of a slice: its row, and what is seen of it in the window, ms."""

    row: int
    pipeline: int
    begin_ms: float
    length_ms: float
    size: int


def _bars(
    records: Records, start_ms: float, end_ms: float, most_slices: int
) -> tuple[list[str], list[str], list[_Bar]]:
    """Return what each row is, in full and beside the axis, and the batches of a window."""
    system = records.system
    start_us, end_us = start_ms * 1000, end_ms * 1000
    rows: list[str] = []
    ticks: list[str] = []
    bars: list[_Bar] = []
    for pipeline in range(len(system.stages)):
        for stage in range(int(system.stages[pipeline])):
            visits, slices = records.visits[stage], int(system.slices[pipeline, stage])
            drawn = min(slices, most_slices)
            mine = (visits.pipeline == pipeline) & (visits.end_us > start_us) & (visits.start_us < end_us)
            for index in np.flatnonzero(mine & (visits.slice >= 0) & (visits.slice < drawn)):
                begin_ms = max(int(visits.start_us[index]), start_us) / 1000
                length_ms = min(int(visits.end_us[index]), end_us) / 1000 - begin_ms
                row = len(rows) + int(visits.slice[index])
                bars.append(_Bar(row, pipeline, begin_ms, length_ms, int(visits.size[index])))
            device = system.device_types[int(system.device[pipeline, stage])]
            share = int(system.share[pipeline, stage])
            pool = device if share == 1 else f"1/{share} {device}"
            counted = f"{drawn} of {slices}" if drawn < slices else drawn
            ticks += [f"pipeline {pipeline}, stage {stage}: {counted} × {pool}  #0"]
            ticks += [f"#{number}" for number in range(1, drawn)]
            rows += [f"pipeline {pipeline}, stage {stage}, {device} #{number}" for number in range(drawn)]
    return rows, ticks, bars


def _name_pipelines(ax: Axes, pipelines: Sequence[int]) -> None:
    """Say which pipeline is which, where there are several: between the bars and the title."""
    if len(pipelines) < 2:
        return
    above = 1.0 + 0.3 / float(figure_of(ax).get_size_inches()[1])
    patches = [
        Patch(facecolor=COLOURS[p % 8], hatch=HATCHES[p % 8], edgecolor="white", label=f"pipeline {p}")
        for p in pipelines
    ]
    ax.legend(
        handles=patches, loc="lower left", bbox_to_anchor=(0.0, above), ncols=4, frameon=False, fontsize=8,
        borderaxespad=0.2,
    )  # fmt: skip


def title(records: Records, of: str = "") -> str:
    """Return what a picture of a run is about: ``edge pipelines: net, 105 requests/s offered, SLO 60 ms``."""
    span_s = int(records.arrival_us[-1]) / 1e6 if len(records) else 0.0
    load = f", {len(records) / span_s:.4g} requests/s offered" if span_s else ""
    dnn = short(printable(records.system.dnn), 48)
    return f"{printable(of)}: " * bool(of) + f"{dnn}{load}, SLO {records.system.slo_us / 1000:g} ms"


def latency_distribution(
    records: Records, ax: Axes | None = None, *, warm_up_us: int = WARM_UP_US, of: str = ""
) -> Axes:
    """Draw the latencies of finished requests from the fastest to the slowest, and what they consist of.

    Horizontally the percentile, vertically the latency; each percent of the requests is a slot in which the means of
    inference, transfer, batch building and queueing are stacked. The dotted line is the SLO; one that is too far off
    is written above. The title names the DNN and the load, after ``of`` (the plan, the cluster).

    Raises
    ------
    InputError
        No request was finished.
    """
    total = latencies_us(records, warm_up_us)
    if not len(total):
        raise InputError("no request was finished after the warm-up; offer a lower load")
    order = np.argsort(total, kind="stable")
    slots = np.array_split(order, min(100, len(order)))
    parts = latency_parts_us(records, warm_up_us)
    percentile = np.linspace(0, 100, len(slots) + 1)
    means = [[float(parts[name][slot].mean()) / 1000 for slot in slots] for name in PARTS]
    ax = ax or new_axes()
    below = np.zeros(len(slots) + 1)
    for number, (name, mean) in enumerate(zip(PARTS, means, strict=True)):
        above = below + np.array([*mean, mean[-1]])
        ax.fill_between(
            percentile, below, above, step="post", facecolor=COLOURS[number], hatch=HATCHES[number], edgecolor="white",
            linewidth=0.0, label=name,
        )  # fmt: skip
        below = above
    slo_ms, slowest_ms = records.system.slo_us / 1000, float(below.max())
    ax.axhline(slo_ms, color=INK, linewidth=1, linestyle=":")
    seen = slo_ms <= FAR_SLO * slowest_ms
    ax.annotate(
        "SLO" if seen else f"SLO {slo_ms:g} ms ↑", (1, slo_ms if seen else 1),
        xycoords=("axes fraction", "data" if seen else "axes fraction"), xytext=(3 if seen else 0, 0),
        textcoords="offset points", va="center" if seen else "bottom", ha="left" if seen else "right",
        fontsize=8, color=INK, annotation_clip=False,
    )  # fmt: skip
    ax.set_xlim(0, 100)
    ax.set_ylim(0, (max(slo_ms, slowest_ms) if seen else slowest_ms) * 1.05)
    finish(ax, x="percentile of the finished requests, by latency (%)", y="latency (ms)", title=title(records, of))
    legend(ax)
    return ax
