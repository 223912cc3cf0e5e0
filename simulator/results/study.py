"""The published study (PPipe, ATC'25) as figures and figures of speech: what its tables become.

Rows are those of a sweep, a row per run, with these columns added: ``study`` (maf19 or ablation), ``cluster`` (HC1 to
HC4), ``group`` (which DNNs were planned together), ``high`` and ``low`` (names of the two device types, the faster
first), ``high_count``, ``low_count`` (devices in the cluster), ``planned_rps`` (what the plan promises the DNN) and
``card_use`` (`card_use`).

A load factor at 99 % is a group's: the largest load at which 99 % of the requests to its DNNs are met in time. The
utilisation of a device class is the busy time of its slices, weighted by share, over all DNNs of a group, over the
time of *all* the cluster's devices of that type, planned for or not; every scheduler at its own largest load.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulator.dispatch.system import System
from simulator.results.plots import attainment_over_load, grouped_bars
from simulator.results.style import INK, SCHEDULER_NAMES, in_order

GROUP = ["study", "cluster", "group", "scheduler", "policy", "trace"]

# What the paper's abstract and its ablation say, over clusters and baselines.
PUBLISHED_GAIN = (0.322, 0.751)
PUBLISHED_LOW_UTILISATION_GAIN = (0.411, 0.655)
PUBLISHED_ABLATION = {"reservation": 0.91, "reactive": 0.71}

LATE = 0.05  # share of late requests from which on a plan does not keep what it promises


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
    """Return every group's rows at the largest load at which the group attains the target.

    All DNNs of a group count together, for they share a cluster and are offered their loads at once. Where no load
    attains it, ``load_factor`` and utilisations are 0.
    """
    totals = rows.groupby([*GROUP, "load_factor"], sort=False)[["dropped", "late", "requests", "stopped"]].sum()
    meets = (totals["stopped"] == 0) & (totals["dropped"] + totals["late"] <= (1 - target) * totals["requests"] + 1e-9)
    best = totals[meets].reset_index().groupby(GROUP, sort=False)["load_factor"].max().reset_index()
    found = rows.merge(best, on=[*GROUP, "load_factor"])
    none = rows.drop_duplicates([*GROUP, "dnn"]).merge(best[GROUP], how="left", indicator=True)
    lost = none[none["_merge"] == "left_only"].drop(columns="_merge").assign(load_factor=0.0)
    lost.loc[:, lost.columns.str.startswith("utilisation_")] = 0.0
    return pd.concat([found, lost]).sort_values([*GROUP, "dnn"], kind="stable").reset_index(drop=True)


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
    return table.groupby(GROUP, sort=False)[["high", "low"]].sum().reset_index()


def figure_6(rows: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draw the load factor at 99 % per group of DNNs, in a panel per cluster, a bar per scheduler."""
    found = at_largest_load(_main(rows))
    keys = ["cluster", "group", "scheduler"]
    numbers = found.groupby(keys, sort=False)["load_factor"].first().reset_index()
    names = {group: f"G{number}" for number, group in enumerate(sorted(found["group"].unique()), 1)}
    figure, panels = _panels(rows, 3.0)
    for ax, (_, part) in zip(panels, numbers.groupby("cluster"), strict=True):
        mean = part.groupby("scheduler")["load_factor"].mean().rename("load_factor").reset_index().assign(group="mean")
        drawn = pd.concat([part.assign(group=part["group"].map(names)), mean])
        grouped_bars(drawn, ax, value="load_factor", group="group", bar="scheduler", y="load factor at 99 %")
        ax.set_ylim(0, 1.15)
    _one_legend(figure)
    brief = brief_names(found["dnn"].unique())
    of_group = found.groupby("group")["dnn"].agg(lambda dnns: ", ".join(brief[dnn] for dnn in dnns.unique()))
    _note(figure, found, [f"{name}: {of_group[group]}" for group, name in names.items()])
    return figure, numbers.assign(dnns=numbers["group"].map(of_group), group=numbers["group"].map(names))


def figure_7(rows: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draw attainment over load factor, the mean and range over all DNNs, in a panel per cluster."""
    main = _main(rows)
    figure, panels = _panels(rows, 3.2)
    for ax, (_, part) in zip(panels, main.groupby("cluster"), strict=True):
        attainment_over_load(part, ax, lines=["scheduler"])
        ax.set_xlabel("load factor")
    lowest = min(ax.get_ylim()[0] for ax in panels)
    for ax in panels:
        ax.set_ylim(bottom=lowest)
    _one_legend(figure)
    _note(figure, main, [f"lines: mean over {main['dnn'].nunique()} DNNs; shades: from the least to the largest"])
    numbers = main.groupby(["cluster", "scheduler", "load_factor"])["attainment"].agg(["mean", "min", "max"])
    return figure, numbers.reset_index()


def figure_8(rows: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draw how busy the high- and low-class devices are at each scheduler's largest loads, per cluster."""
    main = _main(rows)
    numbers = class_utilisation(at_largest_load(main))
    numbers = numbers.groupby(["cluster", "scheduler"], sort=False)[["high", "low"]].mean().reset_index()
    types = main.groupby("cluster")[["high", "low"]].first()
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    for ax, kind in zip(figure.subplots(1, 2), ("high", "low"), strict=True):
        drawn = numbers.assign(cluster=[f"{name}: {types[kind][name]}" for name in numbers["cluster"]])
        label = f"busy share of {kind}-class devices"
        grouped_bars(drawn, ax, value=kind, group="cluster", bar="scheduler", y=label, percent=True)
        ax.set_ylim(0, 1.12)
    _one_legend(figure)
    _note(figure, main)
    return figure, numbers


def figure_10(rows: pd.DataFrame) -> tuple[Figure, pd.DataFrame]:
    """Draw the load factor at 99 % of every DNN of the ablation under reservation and reactive dispatch."""
    found = at_largest_load(rows[(rows["study"] == "ablation") & (rows["scheduler"] == "pipelines")])
    numbers = found[["dnn", "policy", "load_factor"]]
    mean = numbers.groupby("policy")["load_factor"].mean().reset_index().assign(dnn="mean of all")
    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    ax = figure.subplots()
    drawn = pd.concat([numbers.replace({"dnn": brief_names(numbers["dnn"].unique())}), mean])
    grouped_bars(drawn, ax, value="load_factor", group="dnn", bar="policy", y="load factor at 99 %")
    ax.set_xticks(ax.get_xticks(), [label.get_text() for label in ax.get_xticklabels()], rotation=40, ha="right")
    ax.set_ylim(0, 1.15)
    _note(figure, found)
    return figure, numbers


def brief_names(names: Iterable[str]) -> dict[str, str]:
    """Return names by their first words: as many as make six characters, and tell the names apart.

    >>> brief_names(["dnl_r101-d8_4xb2-40k", "colorization-v2"])
    {'dnl_r101-d8_4xb2-40k': 'dnl_r101-d8', 'colorization-v2': 'colorization-v2'}
    """
    whole, least = list(names), 6
    while True:
        found = {name: _first_words(name, least) for name in whole}
        if len(set(found.values())) == len(found):
            return found
        least += 1


def _first_words(name: str, least: int) -> str:
    words = name.split("_")
    heads = ("_".join(words[:count]) for count in range(1, len(words)))
    return next((head for head in heads if len(head) >= least), name)


FIGURES: dict[str, Callable[[pd.DataFrame], tuple[Figure, pd.DataFrame]]] = {
    "fig6": figure_6,
    "fig7": figure_7,
    "fig8": figure_8,
    "fig10": figure_10,
}


def comparison(rows: pd.DataFrame, arrivals: str = "synthetic") -> str:
    """Return our figures beside the published ones, in words, for each trace.

    Parameters
    ----------
    arrivals
        What kind of arrivals the traces hold, which every comparison says.
    """
    lines = [
        "PPipe's study again (ATC'25): what we find, and what is published.",
        f"Published: arrivals of MAF'19, on the paper's test bed and simulator. Ours: {arrivals} arrivals, simulated.",
        "So the figures stand side by side as context, not as a test. Load 1 is what the pipelines plan promises each",
        "DNN; of 1.00, 0.95, ... 0.05 the largest counts at which 99 % of the requests to a group meet their SLO.",
    ]
    for trace, part in rows.groupby("trace"):
        lines += ["", f"{trace} ({arrivals} arrivals)", *_compare_main(part), *_compare_ablation(part)]
    return "\n".join(lines) + "\n"


def _compare_main(rows: pd.DataFrame) -> list[str]:
    main = _main(rows)
    if main.empty:
        return []
    best = at_largest_load(main)
    load = best.groupby(["cluster", "scheduler"])["load_factor"].mean().unstack()
    busy = class_utilisation(best).groupby(["cluster", "scheduler"])[["high", "low"]].mean()
    high, low = busy["high"].unstack(), busy["low"].unstack()
    more_busy = pd.DataFrame({name: low["pipelines"] - low[name] for name in in_order(low) if name != "pipelines"})
    return [
        *_table({"load factor at 99 %": load, "high-class busy": high, "low-class busy": low}),
        f"  Pipelines serve more than a baseline by {_range(_gains(load))}.",
        f"    The plans promise {_range(_gains(_planned(main)))};",
        "    what differs from that is the doing of the arrivals, the dispatcher and the network.",
        f"    Published: {_percents(PUBLISHED_GAIN)}.",
        f"  Low-class devices are busier than under a baseline by {_range(more_busy, ' points')}.",
        f"    Published: {_percents(PUBLISHED_LOW_UTILISATION_GAIN)}.",
        *_held_up_by_the_network(rows),
    ]


def _planned(main: pd.DataFrame) -> pd.DataFrame:
    """Return per cluster what schedulers promise a group's worst-served DNN, as a share of what pipelines do."""
    planned = main.groupby(["cluster", "group", "dnn", "scheduler"])["planned_rps"].first().unstack()
    worst = planned.div(planned["pipelines"], axis=0).groupby(["cluster", "group"]).min()
    return worst.groupby("cluster").mean()


def _gains(served: pd.DataFrame) -> pd.DataFrame:
    """Return per cluster and baseline how much more pipelines serve; nothing where the baseline serves nothing."""
    gains = {name: served["pipelines"] / served[name] - 1 for name in in_order(served.columns) if name != "pipelines"}
    return pd.DataFrame(gains).where(served[list(gains)] > 0)


def _table(columns: Mapping[str, pd.DataFrame]) -> list[str]:
    """Write tables of cluster and scheduler beside each other, under their names."""
    first = next(iter(columns.values()))
    schedulers = in_order(first.columns)
    width = 10 * len(schedulers)
    lines = [
        "  " + " " * 4 + "".join(f"{name:>{width}}" for name in columns),
        "  " + " " * 4 + "".join(f"{SCHEDULER_NAMES[name]:>10}" for name in schedulers) * len(columns),
    ]
    for cluster in first.index:
        values = [table[name][cluster] for table in columns.values() for name in schedulers]
        lines.append(f"  {cluster:4}" + "".join(f"{value:10.3f}" for value in values))
    return lines


def _held_up_by_the_network(rows: pd.DataFrame) -> list[str]:
    """Say which pipelines finish many requests late at full load: dispatched in time, then held up on the way.

    The planner's formula counts a network card per server of the sending device type; the simulated card is shared by
    the slices of as many devices as the larger server of a hop has (`simulator.engine.system`). A pool that just
    suffices by the formula may have too few cards. And where cards are busy, batches overtake each other in a way that
    PPipe's dispatcher does not foresee; under the orderly policy they do not.
    """
    pipelines = rows[(rows["study"] == "maf19") & (rows["scheduler"] == "pipelines")]
    full = pipelines[pipelines["load_factor"] == 1.0]
    names = brief_names(full["dnn"].unique())
    full = full.assign(name=[f"{names[dnn]} on {at}" for dnn, at in zip(full["dnn"], full["cluster"], strict=True)])
    plain, orderly = (full[full["policy"] == policy] for policy in ("reservation", "orderly"))
    slow = plain[plain["late"] > LATE * plain["requests"]]
    if slow.empty:
        return []
    over = slow[slow["card_use"] > 1].sort_values("card_use", ascending=False)
    others = slow[slow["card_use"] <= 1].sort_values("card_use", ascending=False)
    lines = [
        f"  Of {len(plain)} DNNs planned with pipelines, {len(slow)} finish more than {LATE:.0%} late at load 1.00:"
    ]
    if len(over):
        lines += [
            f"    {len(over)} where the plan sends more than the network cards carry, as they are simulated",
            f'      (plans with card_sharing = "larger" do not): {_listed(over)}',
        ]
    if len(others):
        lines += [f"    {len(others)} where batches overtake each other behind busy cards:", f"      {_listed(others)}"]
    if len(orderly):
        slow_then = int((orderly["late"] > LATE * orderly["requests"]).sum())
        mean = at_largest_load(pipelines).groupby("policy")["load_factor"].mean()
        lines.append(
            f"    Under orderly dispatch, which lets none overtake, {slow_then} do, and the mean load factor at 99 % "
            f"is {mean['orderly']:.3f} instead of {mean['reservation']:.3f}."
        )
    return lines


def _listed(slow: pd.DataFrame) -> str:
    pairs = zip(slow["name"], slow["card_use"], strict=True)
    return ", ".join(f"{name} (cards {use:.0%} busy)" for name, use in pairs) + "."


def _compare_ablation(rows: pd.DataFrame) -> list[str]:
    ablation = rows[(rows["study"] == "ablation") & (rows["scheduler"] == "pipelines")]
    if ablation.empty:
        return []
    found = at_largest_load(ablation).groupby("policy")["load_factor"].mean()
    ours = ", ".join(f"{policy} {found[policy]:.3f}" for policy in in_order(found.index))
    theirs = ", ".join(f"{policy} {value:.2f}" for policy, value in PUBLISHED_ABLATION.items())
    dnns = ablation["dnn"].nunique()
    return [f"  Ablation (slack 0.1), mean load factor at 99 % over {dnns} DNNs: {ours}.", f"    Published: {theirs}."]


def _range(values: pd.DataFrame, unit: str = " %") -> str:
    """Write the least and the largest value, each with its baseline and cluster."""
    found = [(value, name, at) for name in values for at, value in values[name].dropna().items()]
    ends = [f"{100 * value:.1f}{unit} ({SCHEDULER_NAMES[str(name)]}, {at})" for value, name, at in sorted(found)]
    return f"{ends[0]} to {ends[-1]}"


def _percents(both: tuple[float, float]) -> str:
    return f"{both[0]:.1%} to {both[1]:.1%}"


def _main(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[(rows["study"] == "maf19") & (rows["policy"] == "reservation")]


def _panels(rows: pd.DataFrame, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure with a panel per cluster, named after it and its devices; the first has the legend."""
    clusters = _main(rows).groupby("cluster")[["high_count", "high", "low_count", "low"]].first()
    across = min(2, len(clusters))
    down = -(-len(clusters) // across)
    figure = Figure(figsize=(4.9 * across, height * down), layout="constrained")
    panels = list(figure.subplots(down, across, squeeze=False).flat)
    for ax in panels[len(clusters) :]:
        ax.remove()
    for ax, (name, of) in zip(panels, clusters.iterrows(), strict=False):
        devices = f"{of['high_count']} {of['high']} + {of['low_count']} {of['low']}"
        ax.set_title(f"{name}: {devices}", loc="right", fontsize=10, fontweight="bold")
    return figure, panels[: len(clusters)]


def _one_legend(figure: Figure) -> None:
    """Put one legend above all panels in place of one above each."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    for ax in figure.axes:
        if legend := ax.get_legend():
            legend.remove()
    figure.legend(
        handles, labels, loc="outside upper left", ncols=len(labels), frameon=False, fontsize=9, handlelength=2.6
    )


def _note(figure: Figure, rows: pd.DataFrame, lines: Sequence[str] = ()) -> None:
    """Write which arrivals are offered below a figure, and further lines, two side by side."""
    found = [*lines, f"arrivals: {', '.join(sorted(rows['trace'].unique()))}"]
    pairs = ["      ".join(found[i : i + 2]) for i in range(0, len(found), 2)]
    figure.supxlabel("\n".join(pairs), fontsize=8, color=INK)
