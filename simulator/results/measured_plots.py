"""Plots of what devices did beside what was predicted: latencies of a run, and the ways to cut a model."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from simulator.results.hover import attach
from simulator.results.style import COLOURS, INK, MARKERS, finish, legend, new_axes

LOGARITHMIC_FROM = 10  # times as large as the smallest value: then a linear axis would hide most points
LATENCY_LINES = {  # column, how it is called, colour, dash
    "predicted_ms": ("simulated from the profile", COLOURS[0], "--"),
    "measured_ms": ("measured", COLOURS[5], "-"),
}


def latency_comparison(latencies: pd.DataFrame, ax: Axes | None = None, *, title: str = "") -> Axes:
    """Draw which share of all requests had been answered after which time, as predicted and as measured.

    Parameters
    ----------
    latencies
        Columns ``share`` (of all requests, rising), ``predicted_ms`` and ``measured_ms`` (the latency within which so
        many were answered; NaN where fewer were), and ``slo_ms``, the same everywhere.

    Examples
    --------
    >>> rows = {"share": [0.5, 1.0], "predicted_ms": [8, 9], "measured_ms": [8, 11], "slo_ms": 20}
    >>> latency_comparison(pd.DataFrame(rows)).get_ylabel()
    'share of all requests'
    """
    ax = ax or new_axes(6.4, 3.6)
    for column, (name, colour, dash) in LATENCY_LINES.items():
        (line,) = ax.step(latencies[column], latencies["share"], where="post", label=name, color=colour, linestyle=dash)
        attach(line, [f"{name}: p50 {_at(latencies, column, 0.5)}, p99 {_at(latencies, column, 0.99)}"])
    ax.axvline(float(latencies["slo_ms"].iloc[0]), color=INK, linewidth=1, linestyle=":", label="SLO")
    ax.set_xlim(left=0)
    ax.set_ylim(0, 1.02)
    finish(ax, x="latency (ms)", y="share of all requests", title=title)
    legend(ax)
    return ax


def split_tradeoff(points: pd.DataFrame, ax: Axes | None = None, *, title: str = "") -> Axes:
    """Draw the throughput of every way to cut a model over its latency, the front ringed, measurements as crosses.

    Parameters
    ----------
    points
        A row per way, with ``name``, ``devices``, ``on_front``, ``predicted_latency_ms``,
        ``predicted_throughput_rps``, and ``measured_latency_ms`` and ``measured_throughput_rps``, NaN where not
        measured.
    """
    ax = ax or new_axes(6.4, 5.0)  # its legend is long
    for number, (devices, own) in enumerate(points.groupby("devices", sort=False)):
        label = str(devices).replace("+", " then ")
        _scatter(ax, own, "predicted", c=COLOURS[number], marker=MARKERS[number], s=22, label=label)
    front = points[points["on_front"]]
    _scatter(ax, front, "predicted", facecolors="none", edgecolors="black", marker="o", s=80, label="front")
    measured = points[points["measured_latency_ms"].notna()]
    if not measured.empty:
        _scatter(ax, measured, "measured", c="black", marker="x", s=40, label="measured")
    finish(ax, x="latency of a batch (ms)", y="throughput (requests/s)", title=title)
    for values, set_scale in (
        (points["predicted_latency_ms"], ax.set_xscale),
        (points["predicted_throughput_rps"], ax.set_yscale),
    ):
        if values.max() > LOGARITHMIC_FROM * values.min():
            set_scale("log")
    legend(ax)
    return ax


def _at(latencies: pd.DataFrame, column: str, share: float) -> str:
    """Return the latency within which so many were answered, for people."""
    value = float(latencies.loc[latencies["share"] >= share, column].iloc[0])
    return "never" if value != value else f"{value:.2f} ms"


def _scatter(ax: Axes, points: pd.DataFrame, kind: str, **style: Any) -> None:
    latency_ms, served_rps = points[f"{kind}_latency_ms"], points[f"{kind}_throughput_rps"]
    drawn = ax.scatter(latency_ms, served_rps, **style)
    values = zip(points["name"], latency_ms, served_rps, strict=True)
    attach(drawn, [f"{name}, {kind}: {ms:.2f} ms, {rps:.1f} requests/s" for name, ms, rps in values])
