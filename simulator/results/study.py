"""The published study (PPipe, ATC'25) as figures and figures of speech: what its tables become.

Rows are those of a sweep, a row per run, with these columns added: ``study`` (maf19 or ablation), ``cluster`` (HC1 to
HC4), ``group`` (which DNNs were planned together), ``high`` and ``low`` (names of the two device types, the faster
first), and ``high_count``, ``low_count`` (devices in the cluster).

Load factors are each DNN's own: the largest load at which it attains 99 %, averaged over the DNNs of a bar. The
utilisation of a device class is the busy time of its slices, weighted by share, over all DNNs of a group, over the
time of *all* the cluster's devices of that type, planned for or not; every scheduler at its own largest loads.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from simulator.dispatch.system import System
from simulator.results.plots import attainment_over_load, grouped_bars
from simulator.results.style import SCHEDULER_NAMES, in_order, short

KEYS = ["study", "cluster", "group", "dnn", "scheduler", "policy", "trace"]

# What the paper's abstract and its ablation say, over clusters and baselines.
PUBLISHED_GAIN = (0.322, 0.751)
PUBLISHED_LOW_UTILISATION_GAIN = (0.411, 0.655)
PUBLISHED_ABLATION = {"reservation": 0.91, "reactive": 0.71}


def card_use(system: System, throughput_rps: Sequence[float]) -> float:
    """Return the share of time in which network cards send while every pipeline serves what is planned for it.

    Of the pool whose cards are busiest; above 1 they cannot keep up. 0 where nothing is sent.

    Parameters
    ----------
    throughput_rps
        Per pipeline of the system.
    """
    use = 0.0
    for p, rps in enumerate(throughput_rps):
        for s in range(int(system.stages[p]) - 1):
            cards = -(-int(system.slices[p, s]) // int(system.card_slices[p, s]))
            use = max(use, rps * int(system.transfer_us[p, s + 1]) / 1e6 / cards)
    return use


def at_largest_load(rows: pd.DataFrame, target: float = 0.99) -> pd.DataFrame:
    """Return each series' row at its largest load that attains the target, with ``load_factor`` 0 where none does."""
    meets = ~rows["stopped"] & (rows["dropped"] + rows["late"] <= (1 - target) * rows["requests"] + 1e-9)
    best = rows[meets].sort_values("load_factor").groupby(KEYS, sort=False).tail(1)
    none = rows.drop_duplicates(KEYS).merge(best[KEYS], how="left", indicator=True)
    lost = none[none["_merge"] == "left_only"].drop(columns="_merge").assign(load_factor=0.0)
    lost.loc[:, lost.columns.str.startswith("utilisation_")] = 0.0
    return pd.concat([best, lost]).sort_values(KEYS, kind="stable").reset_index(drop=True)


def class_utilisation(rows: pd.DataFrame) -> pd.DataFrame:
    """Return, per group and scheduler, the busy share of all the cluster's high- and low-class devices."""
    table = rows.copy()
    for kind in ("high", "low"):
        table[kind] = [
            row[f"utilisation_{row[kind]}"] * row[f"devices_{row[kind]}"] / row[f"{kind}_count"]
            if row[f"devices_{row[kind]}"]
            else 0.0
            for _, row in rows.iterrows()
        ]
    keys = [key for key in KEYS if key != "dnn"]
    return table.groupby(keys, sort=False)[["high", "low"]].sum().reset_index()


def figure_6(rows: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draw the load factor at 99 % per group of DNNs, in a panel per cluster, a bar per scheduler."""
    found = at_largest_load(_main(rows))
    numbers = (
        _numbered(found).groupby(["cluster", "group", "scheduler"], sort=False)["load_factor"].mean().reset_index()
    )
    figure, panels = _panels(numbers, 3.0)
    for ax, (cluster, part) in zip(panels, numbers.groupby("cluster"), strict=True):
        mean = part.groupby("scheduler")["load_factor"].mean().rename("load_factor").reset_index().assign(group="mean")
        grouped_bars(
            pd.concat([part, mean]), ax, value="load_factor", group="group", bar="scheduler", y="load factor at 99 %"
        )
        ax.set_ylim(0, 1.15)
        _name_panel(ax, str(cluster))
    return figure, numbers


def figure_7(rows: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draw attainment over load factor, the mean and range over all DNNs, in a panel per cluster."""
    main = _main(rows)
    figure, panels = _panels(main, 3.2)
    for ax, (cluster, part) in zip(panels, main.groupby("cluster"), strict=True):
        attainment_over_load(part, ax, lines=["scheduler"])
        ax.set_xlabel("load factor")
        _name_panel(ax, str(cluster))
    lowest = min(ax.get_ylim()[0] for ax in panels)
    for ax in panels:
        ax.set_ylim(bottom=lowest)
    numbers = main.groupby(["cluster", "scheduler", "load_factor"])["attainment"].agg(["mean", "min", "max"])
    return figure, numbers.reset_index()


def figure_8(rows: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draw how busy the high- and low-class devices are at each scheduler's largest loads, per cluster."""
    numbers = class_utilisation(at_largest_load(_main(rows)))
    numbers = numbers.groupby(["cluster", "scheduler"], sort=False)[["high", "low"]].mean().reset_index()
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    for ax, kind in zip(figure.subplots(1, 2), ("high", "low"), strict=True):
        grouped_bars(
            numbers,
            ax,
            value=kind,
            group="cluster",
            bar="scheduler",
            y=f"busy share of {kind}-class devices",
            percent=True,
        )
        ax.set_ylim(0, 1.12)
    return figure, numbers


def figure_10(rows: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draw the load factor at 99 % of every DNN of the ablation under reservation and reactive dispatch."""
    found = at_largest_load(rows[(rows["study"] == "ablation") & (rows["scheduler"] == "pipelines")])
    numbers = found[["dnn", "policy", "load_factor"]]
    mean = numbers.groupby("policy")["load_factor"].mean().reset_index().assign(dnn="mean of all")
    figure = Figure(figsize=(9.6, 4.6), layout="constrained")
    ax = figure.subplots()
    drawn = pd.concat([numbers, mean]).assign(dnn=lambda table: table["dnn"].map(lambda name: short(name, 20)))
    grouped_bars(drawn, ax, value="load_factor", group="dnn", bar="policy", y="load factor at 99 %")
    ax.set_xticks(ax.get_xticks(), [label.get_text() for label in ax.get_xticklabels()], rotation=50, ha="right")
    ax.set_ylim(0, 1.15)
    return figure, numbers


FIGURES: dict[str, Callable[[pd.DataFrame], tuple[Figure, pd.DataFrame]]] = {
    "fig6": figure_6,
    "fig7": figure_7,
    "fig8": figure_8,
    "fig10": figure_10,
}


def comparison(rows: pd.DataFrame) -> str:
    """Return our figures beside the published ones, in words; rows of one trace at a time count."""
    lines = [
        "Published figures are for the MAF'19 trace on the paper's own test bed and simulator; ours are simulated on",
        "synthetic arrivals (steady: Poisson; bursty), so they are held side by side as context, not as a test.",
        "",
    ]
    for trace, part in rows.groupby("trace"):
        lines += [f"Arrivals: {trace}", *_compare_main(part), *_compare_ablation(part), ""]
    return "\n".join(lines)


def _compare_main(rows: pd.DataFrame) -> list[str]:
    if rows[rows["study"] == "maf19"].empty:
        return []
    best = at_largest_load(_main(rows))
    load = best.groupby(["cluster", "scheduler"])["load_factor"].mean().unstack()
    busy = class_utilisation(best).groupby(["cluster", "scheduler"])[["high", "low"]].mean().unstack()
    baselines = [name for name in in_order(load.columns) if name != "pipelines"]
    gains = [(load["pipelines"] / load[name] - 1)[load[name] > 0] for name in baselines]
    low = [busy["low"]["pipelines"] - busy["low"][name] for name in baselines]
    lines = ["  load factor at 99 % (mean over DNNs) | high-class busy | low-class busy"]
    for cluster in load.index:
        each = ", ".join(
            f"{SCHEDULER_NAMES[name]} {load[name][cluster]:.3f} | {busy['high'][name][cluster]:.1%} | "
            f"{busy['low'][name][cluster]:.1%}"
            for name in in_order(load.columns)
        )
        lines.append(f"  {cluster}: {each}")
    lines.append(_range("serving throughput gain of pipelines", gains, PUBLISHED_GAIN))
    lines.append(_range("low-class utilisation higher by (points)", low, PUBLISHED_LOW_UTILISATION_GAIN))
    return lines + _held_up_by_the_network(rows)


def _held_up_by_the_network(rows: pd.DataFrame) -> list[str]:
    """Say which pipelines finish many requests late at full load: dispatched in time, then held up on the way.

    The planner counts a network card per server of the sending device type; the simulated card is shared by the
    slices of as many devices as the larger server of a hop has. A pool that just suffices by the first count waits.
    """
    full = rows[(rows["study"] == "maf19") & (rows["scheduler"] == "pipelines") & (rows["load_factor"] == 1.0)]
    slow = full[full["late"] > 0.05 * full["requests"]].sort_values("attainment")
    if slow.empty:
        return []
    names = ", ".join(
        f"{short(row['dnn'])} on {row['cluster']} ({row['attainment']:.0%})" for _, row in slow.iterrows()
    )
    return [
        f"  of {len(full)} DNNs planned with pipelines, {len(slow)} finish more than 5 % late at load 1.00: transfers "
        f"wait for network cards that the simulation shares among more slices than the planner counts: {names}"
    ]


def _compare_ablation(rows: pd.DataFrame) -> list[str]:
    ablation = rows[(rows["study"] == "ablation") & (rows["scheduler"] == "pipelines")]
    if ablation.empty:
        return []
    found = at_largest_load(ablation).groupby("policy")["load_factor"].mean()
    ours = ", ".join(f"{policy} {found[policy]:.3f}" for policy in in_order(found.index))
    theirs = ", ".join(f"{policy} {value:.2f}" for policy, value in PUBLISHED_ABLATION.items())
    dnns = ablation["dnn"].nunique()
    return [f"  ablation, slack 0.1, mean load factor over {dnns} DNNs: {ours} (published: {theirs})"]


def _range(what: str, values: list["pd.Series[float]"], published: tuple[float, float]) -> str:
    low, high = min(one.min() for one in values), max(one.max() for one in values)
    return f"  {what}: {low:.1%} to {high:.1%} (published: {published[0]:.1%} to {published[1]:.1%})"


def _main(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[(rows["study"] == "maf19") & (rows["policy"] == "reservation")]


def _numbered(rows: pd.DataFrame) -> pd.DataFrame:
    """Name the groups G1, G2, ... in alphabetic order of their DNNs."""
    names = {group: f"G{number}" for number, group in enumerate(sorted(rows["group"].unique()), 1)}
    return rows.assign(group=rows["group"].map(names))


def _panels(rows: pd.DataFrame, height: float) -> tuple[Figure, list[Any]]:
    clusters = rows["cluster"].nunique()
    across = min(2, clusters)
    down = -(-clusters // across)
    figure = Figure(figsize=(4.9 * across, height * down), layout="constrained")
    panels = list(figure.subplots(down, across, squeeze=False).flat)
    for ax in panels[clusters:]:
        ax.remove()
    return figure, panels[:clusters]


def _name_panel(ax: Any, name: str) -> None:
    """Write a panel's name where a title would stand, beside the legend."""
    ax.set_title(name, loc="right", fontsize=10, fontweight="bold")
