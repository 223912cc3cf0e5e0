"""Results as one self-contained HTML page: no network, figures as SVG with values under the pointer, sortable tables.

`Report` holds what there is; `report_html` writes the sections for which there is something.
"""

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files

import pandas as pd
from matplotlib.axes import Axes

from planner.files.names import printable
from planner.model import Plan, Problem, digest
from planner.model.problem import UNITS
from planner.model.segments import share_text
from simulator.results.hover import to_svg
from simulator.results.measured_plots import latency_comparison
from simulator.results.placement_drawing import drawable, placement_drawing
from simulator.results.plan_drawing import plan_drawing
from simulator.results.plots import attainment_heat_map, attainment_over_load
from simulator.results.records import Records
from simulator.results.recovery import failures, recovery
from simulator.results.run_plots import latency_distribution, timeline
from simulator.results.style import SCHEDULER_NAMES, figure_of

MOST_ROWS = 400
WIDE = 10  # columns, from which on words are broken so that a table fits a printed page
SAME = ("cluster", "plan", "scheduler", "trace", "policy", "seed", "world", "reference")  # said once if all are alike
BATCHES_SHOWN = 8  # of the longest, in a timeline
EXECUTED = {  # tables that a run on devices writes (`simulator.executor.report`), and what they show
    "comparison": "Prediction against measurement",
    "latencies": "",
    "slices": "Slices",
    "hops": "Hops between them",
    "incidents": "What went wrong and was dealt with",
}


@dataclass(frozen=True)
class Part:
    """A problem with its plans by name, the records of runs by name, and the plans found that are not for it."""

    name: str
    problem: Problem
    plans: Mapping[str, Plan]
    records: Mapping[str, Records] = field(default_factory=dict)
    other_plans: Sequence[str] = ()


@dataclass(frozen=True)
class Report:
    """What a page shows; tables that are absent leave their sections out.

    ``runs`` has a row per simulation of a sweep, ``largest`` a row per series, ``summary`` a row per recorded run,
    ``executions`` per DNN the tables that a run on devices wrote, by `EXECUTED`; ``facts`` are versions, hashes and
    settings.
    """

    title: str
    parts: Sequence[Part] = ()
    runs: pd.DataFrame | None = None
    largest: pd.DataFrame | None = None
    summary: pd.DataFrame | None = None
    executions: Mapping[str, Mapping[str, pd.DataFrame]] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)


def report_html(report: Report) -> str:
    """Return the page."""
    assets = files("simulator.results") / "assets"
    style, script = ((assets / f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    body = "".join(_sections(report))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(report.title)}</title><style>{style}</style></head>\n"
        f"<body><main><h1>{_text(report.title)}</h1>{body}</main>\n<script>{script}</script></body></html>\n"
    )


def _sections(report: Report) -> Iterator[str]:
    for part in report.parts:
        left_out = f"<p>Made for another problem, not shown: {_text(', '.join(part.other_plans))}.</p>"
        yield _section(f"Problem: {part.name}", _problem(part.problem) + (left_out if part.other_plans else ""))
        for name, plan in part.plans.items():
            of = f", {part.name}" if len(report.parts) > 1 else ""
            yield _section(f"Plan: {name}{of}", _plan(f"{part.name} {name}", plan, part.problem))
    if report.largest is not None and not report.largest.empty:
        yield _section("Largest load factor that holds", _largest(report.largest))
    if report.runs is not None and not report.runs.empty:
        yield _section("Attainment over load", _sweep(report.runs))
    if report.summary is not None and not report.summary.empty:
        yield _section("Runs", table(report.summary))
    for part in report.parts:
        for name, records in part.records.items():
            yield _section(f"Run: {name}", _run(f"{part.name} {name}", records))
    for name, tables in report.executions.items():
        yield _section(f"On devices: {name}", _execution(name, tables))
    facts = dict(report.facts)
    for part in report.parts:
        facts[f"problem {part.name}, SHA-256"] = digest(part.problem)
        facts |= {f"plan {part.name} {name}, SHA-256": digest(plan) for name, plan in part.plans.items()}
    if facts:
        yield _section("Versions and hashes", table(pd.DataFrame({"what": list(facts), "value": list(facts.values())})))


def _largest(largest: pd.DataFrame) -> str:
    """Return the table of largest loads, with heads for people, and a mark where a lower load fails."""
    heads = {
        "largest_load_factor": "largest load factor that holds",
        "holds_up_to": "all loads hold up to",
        "full_rps": "load 1 (requests/s)",
        "reference": "load 1 is that of",
    }
    gaps = ""
    if "holds_up_to" in largest and (largest["holds_up_to"] < largest["largest_load_factor"]).any():
        gaps = "<p>Attainment need not fall with the load: where the two differ, a load between them fails.</p>"
    said, varying = _told_once(largest)
    return said + gaps + table(varying.rename(columns=heads))


def _told_once(rows: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """Return what all rows have in common as a line, and the rows without it: narrower tables.

    Traces named by their DNN tell no more than the part before it, schedulers that are the plans' names nothing.
    """
    if {"trace", "dnn"} <= set(rows):
        pairs = [(str(trace), f" for {dnn}") for trace, dnn in zip(rows["trace"], rows["dnn"], strict=True)]
        if all(trace.endswith(end) for trace, end in pairs):
            rows = rows.assign(trace=[f"{trace.removesuffix(end)} for each DNN" for trace, end in pairs])
    if {"plan", "scheduler"} <= set(rows) and (rows["plan"] == rows["scheduler"]).all():
        rows = rows.drop(columns="scheduler")
    common = [name for name in SAME if name in rows and len(rows) > 1 and rows[name].nunique(dropna=False) == 1]
    said = ", ".join(f"{name} {rows[name].iloc[0]}" for name in common)
    return f"<p>In all rows: {_text(said)}.</p>" if said else "", rows.drop(columns=common)


def _problem(problem: Problem) -> str:
    devices = pd.DataFrame(
        {
            "device": device.name,
            "kind": device.kind,
            "count": device.count,
            "shares": ", ".join(share_text(share) for share in device.offers),
            "devices per server": device.devices_per_server,
            "price per hour": "unknown" if device.price_per_hour is None else device.price_per_hour,
            "watts idle, busy": "unknown"
            if device.idle_watts is None or device.busy_watts is None
            else f"{device.idle_watts:g}, {device.busy_watts:g}",
        }
        for device in problem.cluster.device_types
    )
    dnns = pd.DataFrame(
        {
            "DNN": dnn.name,
            "SLO (ms)": dnn.slo_us / 1000,
            "weight": dnn.weight,
            "variants": len(dnn.variants),
            "blocks": len(dnn.variants[0].blocks),
            "parameters (MB)": sum(block.parameter_bytes for block in dnn.variants[0].blocks) / 1e6 or "unknown",
            "latencies": ", ".join(sorted({one.provenance.kind for v in dnn.variants for one in v.tables})),
        }
        for dnn in problem.planned.dnns
    )
    network = problem.cluster.network
    return (
        f"<p>Network: {network.bandwidth_gbps:g} Gbit/s per server, {network.hop_latency_us:g} µs per hop. At most "
        f"{problem.options.max_stages} stages; {problem.options.slack_fraction:.0%} of the SLO is kept free.</p>"
        + table(devices)
        + table(dnns)
    )


def _plan(name: str, plan: Plan, problem: Problem) -> str:
    pipelines = pd.DataFrame(
        {
            "DNN": pipeline.dnn,
            "pipeline": number,
            "stages": " → ".join(map(str, pipeline.stages)),
            "batch": pipeline.batch,
            "requests/s": pipeline.throughput_rps,
            "inference (ms)": pipeline.inference_us / 1000,
            "transfer (ms)": pipeline.transfer_us / 1000,
            "batch building (ms)": pipeline.batch_building_us / 1000,
            "slack (ms)": pipeline.slack_us / 1000,
        }
        for number, pipeline in enumerate(plan.pipelines)
    )
    scheduler = SCHEDULER_NAMES.get(plan.scheduler, plan.scheduler)
    solver = "" if plan.backend == "none" else f" on {plan.backend}"
    unit = UNITS[problem.options.objective]
    proof = (
        f"{scheduler}, {plan.objective.replace('_', ' ')}: {plan.value:.3f} {unit}, bound {plan.bound:.3f}, gap "
        f"{plan.gap:.2%} ({plan.status}); {plan.seconds:.2f} s with {plan.method}{solver}."
    )
    if plan.watts is not None:
        proof += f" Draws {plan.watts:.1f} W, {plan.joules_per_thousand or 0.0:.1f} J per thousand requests."
    for device, ground in plan.neighbours.items():
        proof += f" Unlike stages share devices of {device}: latencies beside neighbours are {ground}."
    drawn = figure(plan_drawing(plan, problem), f"plan {name}")
    if drawable(problem, plan):
        drawn += figure(placement_drawing(plan, problem), f"placement {name}")
    return f"<p>{_text(proof)}</p>" + drawn + table(pipelines)


def _sweep(runs: pd.DataFrame) -> str:
    stopped = "stopped" in runs and bool(runs["stopped"].any())
    shown = [
        column
        for column in runs
        if column in ("cluster", "plan", "scheduler", "dnn", "trace", "policy", "seed", "world", "load_factor")
        or column in ("rate_rps", "requests", "dropped", "late", "attainment", "latency_p50_us", "latency_p99_us")
        or str(column).startswith("utilisation_")
    ]
    if stopped:
        pictures = "<p>Only the largest load that holds was asked for: runs that certainly fail were stopped.</p>"
    else:
        pictures = figure(attainment_over_load(runs), "attainment over load factor")
        if len(runs.groupby([c for c in ("cluster", "plan", "dnn", "trace", "policy", "world") if c in runs])) <= 60:
            pictures += figure(attainment_heat_map(runs), "attainment heat map")
    said, varying = _told_once(runs[shown])
    return pictures + said + table(varying)


def _run(name: str, records: Records) -> str:
    pictures = ""
    of = name.removesuffix(records.system.dnn).strip()
    if records.finished.any():
        start_ms, end_ms = _window_ms(records)
        pictures += figure(latency_distribution(records, warm_up_us=0, of=of), f"latencies of {name}")
        pictures += figure(timeline(records, start_ms=start_ms, end_ms=end_ms, of=of), f"timeline of {name}")
        if len(cuts := failures(records)):
            pictures += figure(recovery(records, of=of)[0], f"rate, attainment and queue of {name} over time")
            pictures += "<h3>What failed when, and what it cost</h3>" + table(cuts)
    return pictures or "<p>No request was finished.</p>"


def _execution(name: str, tables: Mapping[str, pd.DataFrame]) -> str:
    shown = ""
    for kind, heading in EXECUTED.items():
        if kind not in tables or tables[kind].empty:
            continue
        if kind == "latencies":
            shown += figure(latency_comparison(tables[kind]), f"latencies of {name}, predicted and measured")
        else:
            shown += f"<h3>{heading}</h3>" + table(tables[kind])
    return shown


def _window_ms(records: Records) -> tuple[float, float]:
    """Return a window in the middle of a run: from the start of a batch, as long as a few of the longest take."""
    first, longest_us = (
        records.visits[0],
        max(int((one.end_us - one.start_us).max(initial=1)) for one in records.visits),
    )
    later = first.start_us[first.start_us >= records.arrival_us[-1] / 2]
    start_us = int(later.min() if len(later) else first.start_us.max())
    return start_us / 1000, (start_us + BATCHES_SHOWN * longest_us) / 1000


def figure(ax: Axes, name: str) -> str:
    """Return axes as a figure of the page, with its name below it."""
    drawn = figure_of(ax)
    width = drawn.get_size_inches()[0]
    return (
        f'<figure><div class="scroll"><div style="min-width:{min(width, 8) * 54:.0f}px;max-width:{width * 110:.0f}px">'
        f"{to_svg(drawn, name)}</div></div><figcaption>{_text(name)}</figcaption></figure>"
    )


def table(rows: pd.DataFrame) -> str:
    """Return a table whose columns sort on a click of their heads; of long ones the first rows, which is said."""
    head = "".join(f'<th scope="col"><button type="button">{_text(name)}</button></th>' for name in rows.columns)
    body = "".join(
        "<tr>" + "".join(_cell(value) for value in row) + "</tr>"
        for row in rows.head(MOST_ROWS).itertuples(index=False)
    )
    more = f"<p>The first {MOST_ROWS} of {len(rows)} rows.</p>" if len(rows) > MOST_ROWS else ""
    wide = ' class="wide"' if len(rows.columns) > WIDE else ""
    return f'<div class="scroll"><table{wide}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{more}'


def _cell(value: object) -> str:
    """Write a value as a cell; numbers are shown short and sorted by their full value."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        text = _text(value)
        return f"<td>{text}</td>" if len(text) <= 40 else f'<td class="long" title="{text}">{text}</td>'
    shown = f"{value:,}" if isinstance(value, int) else "" if value != value else f"{value:,.4g}"
    shown = f"{value:,.0f}" if isinstance(value, float) and abs(value) >= 10_000 else shown
    return f'<td class="number" data-value="{value!r}">{shown}</td>'


def _section(title: str, body: str) -> str:
    return f"<section><h2>{_text(title)}</h2>{body}</section>\n"


def _text(value: object) -> str:
    return html.escape(printable(str(value)))
