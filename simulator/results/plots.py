"""Plots of sweeps: functions of tidy rows, one per run as `simulator.sweep` makes them, that return their axes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter

from planner.files.names import printable
from planner.model import InputError
from simulator.results.hover import attach
from simulator.results.style import (
    COLOURS,
    DASHES,
    HATCHES,
    INK,
    MARKERS,
    figure_of,
    finish,
    in_order,
    legend,
    new_axes,
    save_figure,
    short,
)

__all__ = [
    "attainment_heat_map",
    "attainment_over_load",
    "grouped_bars",
    "save_figure",
    "throughput_tradeoff",
]

LEAST_MISSED = 0.001  # share of missed requests from which on the heat map's shades differ
HEAT_TICKS = (0.999, 0.99, 0.95, 0.9, 0.8, 0.5, 0.0)


def attainment_over_load(
    rows: pd.DataFrame, ax: Axes | None = None, *, lines: Sequence[str] | None = None, target: float = 0.99
) -> Axes:
    """Draw attainment over load factor.

    Parameters
    ----------
    rows
        With columns ``load_factor`` and ``attainment`` (shares), and those that tell the lines apart.
    lines
        Columns whose values make a line; by default those of cluster, world, trace, policy and scheduler that vary. A
        line is the mean over its other rows (the DNNs); of up to three lines, a shade shows the least and largest.
    target
        Where the dotted line is drawn.

    Examples
    --------
    >>> rows = pd.DataFrame({"load_factor": [0.5, 1.0], "attainment": [1.0, 0.8], "scheduler": "np"})
    >>> attainment_over_load(rows).get_xlabel()
    'load factor (offered rate / throughput of the reference plan)'
    """
    _need(rows, "load_factor", "attainment")
    ax = ax or new_axes()
    keys = _varying(rows, lines or ("cluster", "world", "trace", "policy", "scheduler"))
    lines_drawn = _lines(rows, keys)
    orders = [in_order(rows[key]) for key in keys]
    lowest = 0.9
    for name, part in lines_drawn:
        by_load = part.groupby("load_factor")["attainment"].agg(["mean", "min", "max"]).sort_index()
        places = [order.index(value) for order, value in zip(orders, name, strict=True)] or [0]
        style = _line_style(places[-1], sum(places[:-1]))
        label = ", ".join(short(value) for value in name)
        (line,) = ax.plot(by_load.index, by_load["mean"], label=label, **style)
        attach(
            line, [f"{label or 'attainment'} at load {load:.2f}: {mean:.2%}" for load, mean in by_load["mean"].items()]
        )
        shaded = len(lines_drawn) <= 3
        if shaded:
            ax.fill_between(
                by_load.index, by_load["min"], by_load["max"], color=style["color"], alpha=0.13, linewidth=0
            )
        lowest = min(lowest, by_load["min" if shaded else "mean"].min())
    ax.axhline(target, color=INK, linewidth=1, linestyle=":")
    ax.annotate(
        f"{target:.0%}", (1, target), xycoords=("axes fraction", "data"), xytext=(3, 0), textcoords="offset points",
        va="center", fontsize=8, color=INK,
    )  # fmt: skip
    ax.set_xlim(0, max(1.0, rows["load_factor"].max()) * 1.01)
    ax.set_ylim(np.floor(lowest * 10) / 10, 1.005)
    ax.yaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10]))  # whole percents
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    references = list(rows["reference"].unique()) if "reference" in rows else []
    refer = short(printable(str(references[0]))) if len(references) == 1 else "the reference plan"
    finish(ax, x=f"load factor (offered rate / throughput of {refer})", y="requests within their SLO")
    legend(ax)
    return ax


def _line_style(colour: int, variant: int) -> dict[str, Any]:
    """Return a line's colour and marker by its last property, its dash and filling by the others."""
    return {
        "color": COLOURS[colour % 8],
        "marker": MARKERS[colour % 8],
        "linestyle": DASHES[(colour if variant == 0 else variant) % 8],
        "markerfacecolor": COLOURS[colour % 8] if variant == 0 else "white",
        "markersize": 4,
        "linewidth": 1.6,
    }


def grouped_bars(
    rows: pd.DataFrame,
    ax: Axes | None = None,
    *,
    value: str,
    group: str,
    bar: str,
    y: str,
    percent: bool = False,
) -> Axes:
    """Draw the mean of a column as bars: a group per value of ``group``, in it a bar per value of ``bar``.

    Groups keep the order of the rows. Each bar carries its number; a missing combination has no bar.

    Parameters
    ----------
    y
        Label of the axis, with the unit.
    percent
        Show shares as percentages.
    """
    _need(rows, value, group, bar)
    groups, bars = list(dict.fromkeys(rows[group])), in_order(rows[bar])
    ax = ax or new_axes(max(4.8, 0.34 * len(groups) * len(bars) + 1.6))
    mean = rows.groupby([group, bar])[value].mean()
    width = 0.82 / len(bars)
    for number, name in enumerate(bars):
        at = [(place, mean[one, name]) for place, one in enumerate(groups) if (one, name) in mean.index]
        drawn = ax.bar(
            [place + (number - (len(bars) - 1) / 2) * width for place, _ in at],
            [height for _, height in at],
            width * 0.94,
            color=COLOURS[number % 8],
            hatch=HATCHES[number % 8],
            edgecolor="white",
            linewidth=0.5,
            label=short(name),
        )
        texts = [f"{height:.0%}" if percent else f"{height:.2f}" for _, height in at]
        for one, (place, height) in zip(drawn, at, strict=True):
            attach(
                one,
                [
                    f"{short(name)}, {groups[place]}: {height:.1%}"
                    if percent
                    else f"{short(name)}, {groups[place]}: {height:.3f}"
                ],
            )
        ax.bar_label(
            drawn, texts, fontsize=7, color=INK, padding=1.5, rotation=90 if len(groups) * len(bars) > 14 else 0
        )
    ax.set_xticks(range(len(groups)), groups)
    ax.set_xlim(-0.6, len(groups) - 0.4)
    if percent:
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.margins(y=0.12)
    ax.set_ylim(bottom=0)
    finish(ax, y=y)
    ax.tick_params(axis="x", length=0)
    legend(ax)
    return ax


def attainment_heat_map(rows: pd.DataFrame, ax: Axes | None = None, *, target: float = 0.99) -> Axes:
    """Draw attainment of every series (vertical) at every load (horizontal) as shades.

    Shades follow the logarithm of the share that is missed, from light (0.1 % or less) to dark (the most found), so
    that the last percents differ as much as the first; a dot marks the loads that attain the target, so that the edge
    of what holds is seen without colour.
    """
    _need(rows, "load_factor", "attainment", "dnn")
    names = _varying(rows, ("cluster", "dnn", "scheduler", "policy", "world", "trace")) or ["dnn"]
    table = rows.pivot_table(index=names, columns="load_factor", values="attainment", sort=False)
    first = {name: list(rows[name].unique()) if name == "dnn" else in_order(rows[name]) for name in names}
    table = table.sort_index(key=lambda level: level.map(first[str(level.name)].index))[sorted(table.columns)]
    labels = [index if isinstance(index, tuple) else (index,) for index in table.index]
    most = 1 - np.floor(min(0.9, float(np.nanmin(table))) * 10) / 10
    ax = ax or new_axes(7.6, 1.2 + 0.19 * len(table))
    missed = (1 - table).clip(lower=LEAST_MISSED)
    image = ax.imshow(
        missed, cmap="cividis_r", norm=LogNorm(LEAST_MISSED, most), aspect="auto", interpolation="nearest"
    )
    down, right = np.nonzero(table.to_numpy() >= target)
    ax.plot(right, down, linestyle="none", marker=".", color="black", markersize=4, label=f"attains {target:.0%}")
    ax.set_xticks(range(len(table.columns)), [f"{load:.2f}" for load in table.columns], rotation=90)
    ax.set_yticks(range(len(table)), [", ".join(short(p) for p in index) for index in labels])
    finish(ax, x=f"load factor (a dot: at least {target:.0%} of the requests within their SLO)")
    ax.grid(visible=False)
    ax.tick_params(labelsize=8)
    bar = figure_of(ax).colorbar(image, ax=ax, aspect=40, pad=0.02)
    bar.ax.invert_yaxis()
    ticks = [one for one in HEAT_TICKS if 1 - one <= most * 1.001]
    bar.set_ticks([1 - one for one in ticks], labels=[f"{100 * one:g}%" for one in ticks], minor=False)
    bar.ax.minorticks_off()
    bar.set_label("within SLO", fontsize=9)
    return ax


def throughput_tradeoff(
    plans: pd.DataFrame, ax: Axes | None = None, *, against: str, x: str, line: str = "scheduler", title: str = ""
) -> Axes:
    """Draw planned throughput over a price that is paid for it: the SLO, or the cost of the cluster.

    Parameters
    ----------
    plans
        A row per plan, with ``throughput_rps``, the column ``against``, and the column ``line``.
    x
        Label of the axis, with the unit.

    A point that no other of its line beats in both (less paid, at least as much throughput) is filled and joined to
    the next; the others, and those that serve nothing, are hollow.
    """
    _need(plans, "throughput_rps", against, line)
    ax = ax or new_axes()
    beaten = False
    for number, name in enumerate(in_order(plans[line])):
        part = plans[plans[line] == name].sort_values([against, "throughput_rps"], ascending=[True, False])
        best = part["throughput_rps"].astype(float).cummax().shift(fill_value=-np.inf)
        ahead = (part["throughput_rps"] > best) & (part["throughput_rps"] > 0)
        front, rest = part[ahead], part[~ahead]
        style = _line_style(number, 0)
        (joined,) = ax.plot(front[against], front["throughput_rps"], label=short(name), **style)
        values = zip(front[against], front["throughput_rps"], strict=True)
        attach(joined, [f"{short(name)}: {rps:.1f} requests/s at {paid:.4g}" for paid, rps in values])
        ax.plot(rest[against], rest["throughput_rps"], **(style | {"linestyle": "none", "markerfacecolor": "white"}))
        beaten |= len(rest) > 0
    if beaten:
        words = "hollow: another point costs no more and serves as much"
        ax.annotate(words, (1, 0.02), xycoords="axes fraction", ha="right", fontsize=8, color=INK)
    ax.set_ylim(bottom=0)
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    finish(ax, x=x, y="planned throughput (requests/s)", title=title)
    legend(ax)
    return ax


def _lines(rows: pd.DataFrame, keys: Sequence[str]) -> list[tuple[tuple[object, ...], pd.DataFrame]]:
    """Return the rows of each line, pipelines before the baselines."""
    if not keys:
        return [((), rows)]
    parts = {name if isinstance(name, tuple) else (name,): part for name, part in rows.groupby(list(keys), sort=False)}
    order = [in_order(rows[key]) for key in keys]
    return sorted(parts.items(), key=lambda item: [one.index(v) for one, v in zip(order, item[0], strict=True)])


def _varying(rows: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """Return the columns with several values; a trace that goes with the DNN tells nothing more than the DNN."""
    varying = [column for column in columns if column in rows and rows[column].nunique() > 1]
    if "trace" in varying and "dnn" in rows and rows.groupby("dnn")["trace"].nunique().max() == 1:
        varying.remove("trace")
    return varying


def _need(rows: pd.DataFrame, *columns: str) -> None:
    missing = [column for column in columns if column not in rows]
    if missing or rows.empty:
        what = f"no column {', '.join(missing)}" if missing else "no rows"
        raise InputError(f"cannot draw: {what} in the results; give the table of a finished sweep")
