#!/usr/bin/env python
"""IPA's study (JSys 2024, section 5): five applications under four workloads, adapted every ten seconds.

    scripts/reproduce_ipa.py all --data DIR --out out/ipa        (or this script alone, with --only APPLICATION)

DIR holds the published accuracies' profiles and workloads (profiles_synthetic.json, profile_fragments_measured.json,
workloads.json, twitter_counts_per_second.txt.gz, figure_series.json). What is done stands in OUT and is not done again.

    predictors.csv    SMAPE (%) of every predictor on every workload
    runs.csv          a row per run: mean cores and accuracy, requests, dropped, late, latencies, and what was published
    ablation.csv      the same for each predictor on the video application
    APPLICATION.png   cores and accuracy over time beside the published series, and latencies

**What cannot match.** The latency profiles behind the published figures are not public. Speech models are measured
points; video, translation and summaries have synthetic profiles; question answering has one measured point, brought to
other cores by the law of the synthetic profiles (time falls with cores^0.7), and the other encoders count as large
(BERT, RoBERTa: 12 layers each) or half as large (DistilBERT: 6). So orders and ratios are compared, not figures.
Published costs of video are (sum of replicas) · (sum of cores), about twice ours. What a replica takes for a batch in
the simulation is batch / throughput, without the margins that plans keep. The published predictor, an LSTM, is not
here; a linear forecast, learned from the same 14 days, stands in for it. *robust* is IPA's programme at a rate that a
forecast says is not exceeded with probability 0.9, *steady* the same with a cost of two cores per change of a task's
variant or batch size in the objective.
"""

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import ceil
from pathlib import Path
from time import process_time
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from matplotlib.figure import Figure

from planner.cli.app import console, new_app, progress, run
from planner.files import write_text
from planner.model import InputError
from planner.planning.applications.accuracy import ranked
from planner.planning.applications.ipa import Choice, Ipa, Option, Weights, evaluate, optimise, optimise_from
from simulator.adaptation import (
    PREDICTORS,
    Configuration,
    Controller,
    Forecast,
    ServedTask,
    Service,
    Setting,
    Variant,
    blend,
    fit_forecast,
    oracle,
    outcomes_of,
    smape_percent,
)
from simulator.adaptation.predictors import Counts, Predictor
from simulator.results.style import COLOURS, finish, save_figure

app = new_app("Reproduce IPA's study of five applications.")

TRAINING_S = 14 * 86_400
DAMPING = 8  # published workloads are an eighth of the counts
STEP_S = 10
SYSTEMS = ("IPA", "FA2-low", "FA2-high", "RIM", "robust", "steady")
OWN = ("robust", "steady")
SWITCHING = 2.0  # what a task's change of variant or batch costs, in cores (steady)
BOUND = 0.9
LEVELS = (1, 2, 4, 8, 16)  # cores of a replica
SPEEDUP = 0.7  # of the synthetic profiles: time falls with cores^0.7

# Accuracy (percent) and base cores of each variant, as published.
DETECT = {"yolov5n": (45.7, 1), "yolov5s": (56.8, 1), "yolov5m": (64.1, 2), "yolov5l": (67.3, 4), "yolov5x": (68.9, 8)}
CLASSIFY = {
    "resnet18": (69.75, 1), "resnet34": (73.31, 1), "resnet50": (76.13, 1), "resnet101": (77.37, 1),
    "resnet152": (78.31, 2),
}  # fmt: skip
SPEECH = {"s2t-small": (58.72, 1), "s2t-medium": (64.88, 2), "s2t-large": (66.74, 4)}
ANSWER = {"xlm-roberta": (77.14, 1), "roberta": (82.91, 1)}
SENTIMENT = {"distilbert": (79.63, 1), "bert": (79.9, 1), "roberta": (83.03, 1), "distilbert-sst2": (91.1, 1)}
SUMMARISE = {
    "xsum-1-1": (32.26, 1), "xsum-12-1": (33.37, 2), "xsum-6-6": (35.73, 4), "xsum-12-3": (36.39, 8),
    "xsum-9-6": (36.61, 8), "xsum-12-6": (36.99, 16),
}  # fmt: skip
LANGUAGE = {"xlm-li": (99.59, 1)}
TRANSLATE = {"opus-fr": (33.1, 4), "opus-tc-big": (34.4, 8)}


@dataclass(frozen=True)
class Study:
    """An application as published: SLA, batch cap, drop limit (s), margins, RIM's replicas and FA2-high's variants."""

    tasks: tuple[Mapping[str, tuple[float, int]], ...]
    sla_s: float
    batch_cap: int
    drop_age_s: float
    latency_margin: float
    throughput_margin: float
    rate_margin: float
    rim_replicas: tuple[int, ...]
    high: tuple[str, ...]
    weights: Weights


STUDIES = {
    "video": Study(
        (DETECT, CLASSIFY), 4.62 + 2.27, 8, 10, 0, 0, 0, (3, 3), ("yolov5s", "resnet101"), Weights(2, 1)
    ),
    "audio-qa": Study(
        (SPEECH, ANSWER), 8.34 + 0.89, 1, 20, 1, -0.5, 0.2, (20, 5), ("s2t-medium", "roberta"), Weights(10, 0.5)
    ),
    "audio-sent": Study(
        (SPEECH, SENTIMENT), 8.34 + 1.08, 1, 20, 1, -0.5, 0.2, (20, 5), ("s2t-medium", "distilbert-sst2"),
        Weights(10, 0.5),
    ),
    "sum-qa": Study(
        (SUMMARISE, ANSWER), 2.52 + 1.32, 1, 5, 0, -0.5, 0, (12, 8), ("xsum-12-6", "roberta"), Weights(10, 0.5)
    ),
    "nlp": Study(
        (LANGUAGE, TRANSLATE, SUMMARISE), 0.97 + 12.76 + 3.87, 1, 20, 0, -0.5, 0, (4, 15, 8),
        ("xlm-li", "opus-tc-big", "xsum-6-6"), Weights(10, 0.5),
    ),
}  # fmt: skip

Points = Mapping[tuple[str, int], Mapping[int, tuple[float, float]]]  # (variant, cores) -> batch -> latency, throughput


@app.command()
def study(
    data: Annotated[Path, typer.Option(help="Folder of the published data.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    only: Annotated[str | None, typer.Option(help="One application only.")] = None,
) -> None:
    """Run everything that is not done yet, then write the tables and pictures."""
    if only is not None and only not in STUDIES:
        raise InputError(f"--only: expected one of {list(STUDIES)}, got {only!r}")
    points = read_points(data)
    workloads = {name: np.array(one["rps"], float) for name, one in _json(data / "workloads.json").items()}
    with gzip.open(data / "twitter_counts_per_second.txt.gz", "rt") as file:
        counts = np.loadtxt(file, dtype=np.float64)
    forecast = fit_forecast(np.floor(counts[:TRAINING_S] / DAMPING))
    known = predictors(forecast)
    table(out / "predictors.csv", [smape_row(name, load, known) for name, load in workloads.items()])
    names = [only] if only else list(STUDIES)
    jobs = [(name, load, system, "linear") for name in names for load in workloads for system in SYSTEMS]
    ablated = [("video", load, "IPA", name) for load in workloads for name in (*known, "oracle")]
    rows = {}
    with progress() as bar:
        for job in bar.track([*jobs, *(ablated if "video" in names else [])], description="runs"):
            rows[job] = resumed(out, job, lambda job=job: run_once(job, points, workloads, forecast))
    published = _json(data / "figure_series.json")["series"]
    table(out / "runs.csv", [beside(rows[job], published) for job in jobs])
    table(out / "ablation.csv", [rows[job] for job in ablated if job in rows])
    for name in names:
        draw(name, {job: rows[job] for job in jobs if job[0] == name}, published, out / f"{name}.png")
    console.print(f"written to {out}", highlight=False, soft_wrap=True)


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV, without their series."""
    kept = [{key: value for key, value in row.items() if not isinstance(value, list)} for row in rows]
    write_text(path, pd.DataFrame(kept).to_csv(index=False, lineterminator="\n"))


def resumed(out: Path, job: tuple[str, ...], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return a run's row, from its file where it was done before."""
    path = out / "runs" / f"{'_'.join(job)}.json"
    if not path.exists():
        write_text(path, json.dumps(make()))
    found: dict[str, Any] = _json(path)
    return found


def predictors(forecast: Forecast) -> dict[str, Predictor]:
    """Return every predictor that knows no future."""
    rules = dict(PREDICTORS)
    learned = {"linear": forecast, f"bound {BOUND:g}": forecast.at(BOUND)}
    return rules | learned | {"blend": blend([*rules.values(), forecast])}


def smape_row(name: str, load: Counts, known: Mapping[str, Predictor]) -> dict[str, Any]:
    """Return a workload's row of errors, and how often the bound held."""
    errors = {each: round(smape_percent(predictor, load), 2) for each, predictor in known.items()}
    bound = known[f"bound {BOUND:g}"]
    held = [bound(load[:now]) >= load[now : now + 20].max() for now in range(120, len(load) - 19, STEP_S)]
    return {"workload": name, **errors, "bound_held": round(float(np.mean(held)), 3)}


def read_points(data: Path) -> Points:
    """Return latency (s) and throughput (requests/s) of every variant on its base cores; the module says how known."""
    found: dict[tuple[str, int], dict[int, tuple[float, float]]] = {}
    for rows in _json(data / "profiles_synthetic.json").values():
        for row in rows:
            found.setdefault((row["variant"], row["cpu"]), {})[row["batch"]] = row["latency_s"], row["throughput_rps"]
    for row in _json(data / "profile_fragments_measured.json")["fragments"]:
        if row["variant"].startswith("s2t-"):
            found.setdefault((row["variant"], row["cpu"]), {})[row["batch"]] = row["lat_p99"], row["thr_max"]
        elif row["variant"] == "deepset-xlm-roberta-base-squad2" and row["batch"] == 1:
            for cores in LEVELS:
                slower = (row["cpu"] / cores) ** SPEEDUP
                for factor, names in (
                    (1, ("xlm-roberta", "roberta", "bert")),
                    (0.5, ("distilbert", "distilbert-sst2")),
                ):
                    one = {1: (row["lat_p99"] * slower * factor, row["thr_max"] / slower / factor)}
                    found |= {(name, cores): one for name in names}
    return found


def options_of(study: Study, points: Points, system: str) -> tuple[tuple[Option, ...], ...]:
    """Return what each task may run under a system, accuracies as ranks, margins included."""
    options = []
    for number, task in enumerate(study.tasks):
        ranks = ranked({name: accuracy for name, (accuracy, _) in task.items()})
        allowed = {"FA2-low": [min(task, key=lambda name: task[name][0])], "FA2-high": [study.high[number]]}
        options.append(
            tuple(
                Option(
                    name, ranks[name], task[name][1], batch, latency_s * (1 + study.latency_margin),
                    rps * (1 + study.throughput_margin),
                )
                for name in allowed.get(system, list(task))
                for batch, (latency_s, rps) in sorted(points[name, task[name][1]].items())
                if batch <= study.batch_cap
            )
        )  # fmt: skip
    return tuple(options)


def service_of(study: Study, points: Points) -> Service:
    """Return the application as it is simulated: a batch takes batch / throughput."""
    tasks = []
    for number, task in enumerate(study.tasks):
        variants = []
        for name, (accuracy, cores) in task.items():
            measured = points[name, cores]
            takes = {batch: batch / rps for batch, (_, rps) in measured.items() if batch <= study.batch_cap}
            variants.append(Variant(name, accuracy, cores, takes))
        tasks.append(ServedTask(f"task {number}", tuple(variants)))
    return Service(tuple(tasks), timeout_s=1.0, drop_age_s=study.drop_age_s)


def planner_of(study: Study, points: Points, system: str) -> Callable[[float, Configuration], Configuration | None]:
    """Return the planner of a system: the programme at a rate (to a tenth of a request/s), solved once each."""
    options = options_of(study, points, system)
    fixed = study.rim_replicas if system == "RIM" else None
    names = [list(task) for task in study.tasks]
    answers: dict[tuple[float, tuple[tuple[int, int], ...]], Configuration | None] = {}

    def plan(rate_rps: float, in_use: Configuration) -> Configuration | None:
        rate_rps = ceil(rate_rps * 10 - 1e-9) / 10
        key = rate_rps, tuple((one.variant, one.batch) for one in in_use) if system == "steady" else ()
        if key not in answers:
            ipa = Ipa(options, rate_rps, study.sla_s, "sum", study.weights, fixed)
            try:
                if system == "steady":
                    used = [option_in_use(*entry) for entry in zip(options, names, in_use, strict=True)]
                    best = optimise_from(ipa, evaluate(ipa, used), SWITCHING * study.weights.cores)
                else:
                    best = optimise(ipa)
                answers[key] = tuple(map(partial(setting_of, names), range(len(names)), best.choices))
            except InputError:
                answers[key] = None
        return answers[key]

    return plan


def option_in_use(options: Sequence[Option], names: Sequence[str], setting: Setting) -> Option:
    """Return the option that a setting stands for."""
    return next(one for one in options if (names.index(one.variant), one.batch) == (setting.variant, setting.batch))


def setting_of(names: Sequence[Sequence[str]], task: int, choice: Choice) -> Setting:
    """Return a choice of the programme as the loop has it."""
    return Setting(names[task].index(choice.option.variant), choice.option.batch, choice.replicas)


def arrivals_of(load: Counts) -> np.ndarray:
    """Return arrivals (µs): the counts of every second at uniform times in it, a Poisson process given its counts."""
    seconds = np.repeat(np.arange(len(load)), load.astype(int))
    times_us = seconds * 1e6 + np.random.default_rng(1).uniform(0, 1e6, len(seconds))
    return np.sort(times_us.astype(np.int64))


def run_once(
    job: tuple[str, str, str, str], points: Points, workloads: Mapping[str, Counts], forecast: Forecast
) -> dict[str, Any]:
    """Return the figures of one run."""
    name, workload, system, predictor = job
    begin_s = process_time()
    one, load = STUDIES[name], workloads[workload]
    known = predictors(forecast) | {"oracle": oracle(load)}
    plan = planner_of(one, points, system)
    service = service_of(one, points)
    replicas = one.rim_replicas if system == "RIM" else (1,) * len(one.tasks)
    cheapest = tuple(Setting(0, 1, count) for count in replicas)
    first = plan(float(load[0]) * (1 + one.rate_margin), cheapest) or cheapest
    chosen = f"bound {BOUND:g}" if system in OWN else predictor
    margin = 0.0 if system in OWN else one.rate_margin
    controller = Controller(service, known[chosen], plan, first, margin=margin)
    records = controller.run(arrivals_of(load))
    found = outcomes_of(service, controller.decisions, records, one.sla_s, len(load))
    known_settings = [[(s.variant, s.batch) for s in one.configuration] for one in controller.decisions]
    changes = sum(a != b for old, new in pairwise(known_settings) for a, b in zip(old, new, strict=True))
    p50, p95, p99 = np.quantile(found.latencies_s, [0.5, 0.95, 0.99]).round(3).tolist()
    return {
        "application": name, "workload": workload, "system": system, "predictor": chosen,
        "cores": round(float(found.cores.mean()), 2),
        "planned_accuracy": round(float(found.planned_accuracy.mean()), 3),
        "served_accuracy": round(found.accuracy, 3),
        "requests": found.requests, "dropped": found.dropped, "late": found.late,
        "attainment": round(found.attainment, 5), "p50_s": p50, "p95_s": p95, "p99_s": p99,
        "changes": changes, "infeasible": found.infeasible, "cpu_s": round(process_time() - begin_s, 2),
        "series_latency": np.quantile(found.latencies_s, np.linspace(0, 1, 201)).round(4).tolist(),
        "series_cores": found.cores[::STEP_S].tolist(), "series_accuracy": found.planned_accuracy[::STEP_S].tolist(),
    }  # fmt: skip


def beside(row: Mapping[str, Any], published: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with the published means of the same run, where there are some."""
    series = published[f"metaseries-18-{row['application']}"][row["workload"]].get(row["system"])
    means = {key: round(float(np.mean(series[key])), 2) if series else None for key in ("cost", "acc")}
    return {**row, "published_cost": means["cost"], "published_accuracy": means["acc"]}


def draw(
    name: str, rows: Mapping[tuple[str, ...], Mapping[str, Any]], published: Mapping[str, Any], path: Path
) -> None:
    """Draw cores and accuracy over time and latencies, a column per workload, published series thin beside ours."""
    loads = list(dict.fromkeys(job[1] for job in rows))
    figure = Figure(figsize=(13, 7.5), layout="constrained")
    axes = figure.subplots(3, len(loads), squeeze=False)
    for (_, load, system, _), row in rows.items():
        column, colour = loads.index(load), COLOURS[SYSTEMS.index(system) + (system in OWN)]
        series = published[f"metaseries-18-{name}"][load].get(system, {"cost": [], "acc": []})
        for ax, ours, theirs in zip(
            axes[:2, column], ("series_cores", "series_accuracy"), ("cost", "acc"), strict=True
        ):
            times_s = np.arange(len(row[ours])) * STEP_S
            ax.plot(times_s, row[ours], color=colour, lw=1.4, label=system, drawstyle="steps-post")
            ax.plot(np.arange(len(series[theirs])) * STEP_S, series[theirs], color=colour, lw=0.7, ls=":")
        served = np.linspace(0, 1 - row["dropped"] / row["requests"], 201)
        axes[2, column].plot(row["series_latency"], served, color=colour, lw=1.4)
    for number, load in enumerate(loads):
        finish(axes[2, number], x="latency (s)", y="share of requests served" if number == 0 else "")
        finish(axes[0, number], y="cores" if number == 0 else "", title=f"{name}, {load.replace('_', ' ')}")
        finish(axes[1, number], x="time (s)", y="accuracy (%)" if number == 0 else "")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(
        handles, [*labels], loc="outside lower center", ncols=len(labels), frameon=False, title="dotted: published"
    )
    save_figure(figure, path)


if __name__ == "__main__":
    run(app)
