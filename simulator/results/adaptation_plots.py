"""Pictures of applications: adapted runs of several systems, and what accuracy costs by two ways of planning."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from simulator.results.style import COLOURS, DASHES, finish


def adaptation_figure(
    name: str, rows: Sequence[Mapping[str, Any]], published: Mapping[str, Mapping[str, Any]], step_s: int
) -> Figure:
    """Draw runs of an application: cores and accuracy over time, shares of requests served over latency.

    Parameters
    ----------
    rows
        A run each: ``workload``, ``system``, ``requests``, ``dropped``, ``series_cores`` and ``series_accuracy`` (every
        ``step_s`` seconds), ``series_latency`` (s, evenly spaced quantiles of those that were served).
    published
        ``published[workload][system]``, series ``cost`` and ``acc`` drawn dotted beside ours, where there are some; our
        systems without are then dashed.
    """
    loads = list(dict.fromkeys(row["workload"] for row in rows))
    systems = list(dict.fromkeys(row["system"] for row in rows))
    figure = Figure(figsize=(3.4 * len(loads), 7.5), layout="constrained")
    axes = figure.subplots(3, len(loads), squeeze=False)
    for row in rows:
        column, number = loads.index(row["workload"]), systems.index(row["system"])
        theirs = published.get(row["workload"], {}).get(row["system"], {})
        look = {"color": COLOURS[number % len(COLOURS)], "ls": "-" if theirs or not published else "--"}
        for ax, ours, key in zip(axes[:2, column], ("series_cores", "series_accuracy"), ("cost", "acc"), strict=True):
            times_s = np.arange(len(row[ours])) * step_s
            ax.plot(times_s, row[ours], lw=1.4, label=row["system"], drawstyle="steps-post", **look)
            other = theirs.get(key, [])
            ax.plot(np.arange(len(other)) * step_s, other, color=look["color"], lw=0.7, ls=":")
        latency_s = row["series_latency"]
        served = np.linspace(0, 1 - row["dropped"] / row["requests"], len(latency_s))
        axes[2, column].plot(latency_s, served, lw=1.4, **look)
    for number, load in enumerate(loads):
        first = number == 0
        finish(axes[0, number], y="cores" if first else "", title=f"{name}, {load.replace('_', ' ')}")
        finish(axes[1, number], x="time (s)", y="accuracy (%)" if first else "")
        finish(axes[2, number], x="latency (s)", y="share of requests served" if first else "")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    title = "dotted: as published; dashed: not in what was published" if published else None
    figure.legend(handles, labels, loc="outside lower center", ncols=min(8, len(labels)), frameon=False, title=title)
    return figure


def fronts_figure(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Draw accuracy (percent) over cores, an application each, of rows with ``cores``, ``end_to_end``, ``per_task``."""
    figure = Figure(figsize=(13, 3), layout="constrained")
    for ax, (name, own) in zip(figure.subplots(1, len(rows)), rows.items(), strict=True):
        for number, (way, label) in enumerate((("end_to_end", "end to end"), ("per_task", "task by task"))):
            known = [(row["cores"], row[way]) for row in own if row[way] is not None]
            ax.plot(*zip(*known, strict=True), color=COLOURS[number], ls=DASHES[number], label=label)
        finish(ax, x="cores of whole servers", y="accuracy (%)" if name == next(iter(rows)) else "", title=name)
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure
