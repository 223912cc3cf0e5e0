#!/usr/bin/env python
"""IPA's published results again (JSys 2024), from a data folder.

    scripts/reproduce_ipa.py solve --data DIR --cases DIR/reference_cases.json --out out/cases.csv
    scripts/reproduce_ipa.py all --data DIR --out out/ipa             (study, policies, plans: also one by one)

DIR holds the published accuracies' profiles and workloads (profiles_synthetic.json, profile_fragments_measured.json,
workloads.json, twitter_counts_per_second.txt.gz, figure_series.json). What is done stands in OUT and is not done again.

    study      predictors.csv: SMAPE (%) of every predictor on every workload; runs.csv: five applications × four
               workloads × systems, adapted every ten seconds; ablation.csv: the same for each predictor on video;
               APPLICATION.png: cores and accuracy over time beside the published series, and latencies
    policies   policies.csv: what goes beyond the published system, each beside that system at margins and weights
    plans      weights.csv: cores and accuracies as alpha / beta grows; solving.csv: CPU seconds of the programme over
               tasks and variants; end_to_end.csv: what plans task by task and end to end cost; zoo.csv: how accurate
               they are on a GPU and Raspberry Pis; fronts.csv, fronts.png

**What cannot match.** The latency profiles behind the published figures are not public. Speech models are measured
points; video, translation and summaries have synthetic profiles; question answering has one measured point, brought to
other cores by the law of the synthetic profiles (time falls with cores^0.7), and the other encoders count as large
(BERT, RoBERTa: 12 layers each) or half as large (DistilBERT: 6). So orders and ratios are compared, not figures.
Published costs of video are (sum of replicas) · (sum of cores), about twice ours. What a replica takes for a batch in
the simulation is batch / throughput, without the margins that plans keep.

**Beyond what is published.** *robust*: IPA's programme at a rate that a forecast says is not exceeded with probability
0.9. *steady*: the same with a cost of a tenth of alpha per change of a task's variant or batch size. *ahead*: the rate
that arrives while the plan will be in use, not exceeded with that probability, and what is left over from before. *by
slack*: least accurate variants beside those planned, and every batch goes to the most accurate one that ends in time.
"""

import csv
import gzip
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from time import process_time
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from matplotlib.figure import Figure

from planner.cli.app import console, new_app, progress, run
from planner.files import load_problem, write_text
from planner.model import InputError, Options, Problem
from planner.planning import make_plan, plan_both_ways
from planner.planning.applications.ipa import Configuration, Ipa, Option, Weights, optimise
from planner.planning.applications.ipa_profiles import Point, TaskProfile, programme_of
from planner.planning.applications.ipa_published import (
    LEVELS,
    PUBLISHED,
    Points,
    PublishedSystem,
    on_servers,
    options_of,
)
from planner.planning.applications.per_task import plan_per_task
from simulator.adaptation import (
    PREDICTORS,
    Controller,
    Span,
    blend,
    fit_forecast,
    oracle,
    outcomes_of,
    running,
    smape_percent,
    trained_lstm,
)
from simulator.adaptation.ipa import hedged, planner_of, service_of
from simulator.adaptation.loop import Planner
from simulator.adaptation.predictors import AHEAD_S, STEP_S, WINDOW_S, Counts, Predictor
from simulator.results.adaptation_plots import adaptation_figure
from simulator.results.style import COLOURS, DASHES, finish, save_figure

app = new_app("Reproduce IPA's published results.")

Data = Annotated[Path, typer.Option(help="Folder of the data (profiles_synthetic.json, ...).")]
OutFolder = Annotated[Path, typer.Option(help="Folder to write.")]

PHOTOS = Path(__file__).parents[1] / "plans/photos/problem.toml"
TRAINING_S = 14 * 86_400
DAMPING = 8  # published workloads are an eighth of the counts
SPEEDUP = 0.7  # of the synthetic profiles: time falls with cores^0.7
PLANNING_S = 20.0  # both ways of planning together
PLAN_LIFE = Span(8, 18, "mean")  # a plan begins 8 s after its decision, the next one 10 s later


@dataclass(frozen=True)
class Policy:
    """How a run is adapted: what may be chosen, what is foreseen, and what goes beyond the published system.

    ``predictor`` is the name of one, or *bound L* or *life L*, bounds at level L. ``switching`` is in alpha, ``share``
    what accurate variants are planned for where requests go by slack. None of ``margin`` and ``weights`` are the
    published ones.
    """

    name: str
    system: PublishedSystem = "IPA"
    predictor: str = "lstm"
    margin: float | None = None
    weights: float | None = None  # times alpha
    switching: float = 0.0
    share: float | None = None

    @property
    def label(self) -> str:
        """The policy and all that it is run with, as a name of a file."""
        parts = [self.name, self.predictor, self.margin, self.weights, self.switching or None, self.share]
        return "_".join(str(part).replace(" ", "") for part in parts if part is not None)


PUBLISHED_POLICIES = tuple(Policy(system, system) for system in ("IPA", "FA2-low", "FA2-high", "RIM"))
OWN = (
    Policy("robust", predictor="bound 0.9", margin=0.0),
    Policy("steady", predictor="bound 0.9", margin=0.0, switching=0.1),
    Policy("ahead", predictor="life 0.9", margin=0.0),
    Policy("by slack", predictor="life 0.99", margin=0.0, share=0.8),
)

COLUMNS = (
    "name", "objective", "objective_as_coded", "reference_objective", "enumeration_as_paper", "enumeration_as_coded",
    "variants", "batches", "replicas", "cores", "seconds",
)  # fmt: skip


@app.command("all")
def everything(data: Data, out: OutFolder) -> None:
    """Make everything but the cases; what is done is kept."""
    study(data, out)
    policies(data, out)
    plans(data, out)


@app.command()
def study(
    data: Data, out: OutFolder, only: Annotated[str | None, typer.Option(help="One application only.")] = None
) -> None:
    """Run five applications under four workloads and every system; write tables and pictures."""
    if only is not None and only not in PUBLISHED:
        raise InputError(f"--only: expected one of {list(PUBLISHED)}, got {only!r}")
    runs = Runs(data, out)
    names = [only] if only else list(PUBLISHED)
    known = runs.predictors
    table(out / "predictors.csv", [smape_row(name, load, known) for name, load in runs.workloads.items()])
    jobs = [(name, load, policy) for name in names for load in runs.workloads for policy in PUBLISHED_POLICIES + OWN]
    ablated = [("video", load, Policy("IPA", predictor=name)) for load in runs.workloads for name in (*known, "oracle")]
    rows = runs.rows([*jobs, *(ablated if "video" in names else [])])
    published = _json(data / "figure_series.json")["series"]
    table(out / "runs.csv", [beside(row, published) for row in rows[: len(jobs)]])
    table(out / "ablation.csv", rows[len(jobs) :])
    for name in names:
        own = [row for row in rows[: len(jobs)] if row["application"] == name]
        figure = adaptation_figure(name, own, published[f"metaseries-18-{name}"], STEP_S)
        save_figure(figure, out / f"{name}.png")
    console.print(f"written to {out}", highlight=False, soft_wrap=True)


@app.command()
def policies(data: Data, out: OutFolder) -> None:
    """Set each policy beyond the published system beside that system at other margins and weights, on video.

    A row of policies.csv is a run; ``beaten_by`` counts the published system's settings that hold no more cores, are no
    less accurate and are in time at least as often, ``best_published`` is how often the best of those as cheap and as
    accurate is in time.
    """
    runs = Runs(data, out)
    margins, weights = (-0.2, 0.0, 0.2, 0.4, 0.7), (0.5, 1.0, 2.0)
    reference = [Policy("IPA", margin=margin, weights=weight) for margin in margins for weight in weights]
    levels = (0.5, 0.8, 0.95)
    own = [
        replace(policy, predictor=f"{policy.predictor.split()[0]} {level:g}", weights=weight)
        for policy in OWN
        for level in levels
        for weight in (1.0, 2.0)
    ]
    rows = []
    for load in ("bursty", "fluctuating"):
        published = runs.rows([("video", load, policy) for policy in reference])
        rows += [
            {**row, **against(row, published)}
            for row in [*published, *runs.rows([("video", load, policy) for policy in own])]
        ]
    table(out / "policies.csv", rows)


@app.command()
def plans(data: Data, out: OutFolder) -> None:
    """Compare plans of the five applications task by task and end to end, on servers of 16 cores."""
    points = read_points(data)
    table(out / "weights.csv", weights_sweep(points))
    table(out / "solving.csv", resumed(out, "solving", lambda: {"rows": solving_times()})["rows"])
    compared = {name: resumed(out, f"{name}_plans", partial(compare_plans, name, points)) for name in PUBLISHED}
    table(out / "end_to_end.csv", [row for one in compared.values() for row in one["rows"]])
    table(out / "zoo.csv", resumed(out, "zoo_plans", lambda: {"rows": zoo_rows()})["rows"])
    fronts = {name: resumed(out, f"{name}_front", partial(front_rows, name, points)) for name in PUBLISHED}
    table(out / "fronts.csv", [row for one in fronts.values() for row in one["rows"]])
    draw_fronts({name: one["rows"] for name, one in fronts.items()}, out / "fronts.png")


@app.command()
def solve(
    data: Data,
    cases: Annotated[Path, typer.Option(help="Cases with inputs and the reference's optima (reference_cases.json).")],
    out: Annotated[Path, typer.Option(help="CSV file to write.")],
) -> None:
    """Solve every case by the paper's formula, and by the code's for comparison; seconds are CPU time of the former."""
    profiles = read_profiles(data / "profiles_synthetic.json")
    rows = []
    with progress() as bar:
        for case in bar.track(json.loads(cases.read_text(encoding="utf-8")), description="cases"):
            begin_s = process_time()
            programme = programme_of(case["inputs"], profiles)
            found = optimise(programme)
            seconds = process_time() - begin_s
            coded = optimise(replace(programme, as_coded=True))
            rows.append(row_of(case, found, coded, seconds))
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(out, text.getvalue())
    equal = sum(
        abs(row["objective"] - row["enumeration_as_paper"]) <= 1e-6
        and abs(row["objective_as_coded"] - row["enumeration_as_coded"]) <= 1e-6
        for row in rows
    )
    slowest = max(row["seconds"] for row in rows)
    console.print(
        f"{equal} of {len(rows)} cases equal the enumeration by both formulas to 1e-6; "
        f"at most {slowest * 1000:.0f} ms of CPU time a case"
    )


class Runs:
    """Runs of the loop, each done once and kept in a folder, with what all of them need."""

    def __init__(self, data: Path, out: Path) -> None:
        self.out = out
        self.points = read_points(data)
        self.workloads = {name: np.array(one["rps"], float) for name, one in _json(data / "workloads.json").items()}
        with gzip.open(data / "twitter_counts_per_second.txt.gz", "rt") as file:
            counts = np.loadtxt(file, dtype=np.float64, max_rows=TRAINING_S)
        self.history = np.floor(counts / DAMPING)
        self.bounds: dict[str, Predictor] = {}
        self.planners: dict[tuple[object, ...], Planner] = {}  # they remember their answers

    @property
    def predictors(self) -> dict[str, Predictor]:
        """Every predictor of the largest rate ahead that knows no future."""
        rules = dict(PREDICTORS)
        learned = {"lstm": trained_lstm(), "linear": self.fitted("linear")}
        bounds = {name: self.fitted(name) for name in ("bound 0.5", "bound 0.9")}
        return rules | learned | bounds | {"blend": blend([*rules.values(), *learned.values()])}

    def predictor(self, name: str, load: Counts) -> Predictor:
        """Return a predictor by name."""
        rules = PREDICTORS | {"lstm": trained_lstm(), "oracle": oracle(load)}
        if name in rules:
            return rules[name]
        return self.predictors["blend"] if name == "blend" else self.fitted(name)

    def fitted(self, name: str) -> Predictor:
        """Return a forecast of the history, by name."""
        if name not in self.bounds:
            kind, *level = name.split()
            spans = {"life": {"span": PLAN_LIFE}}
            self.bounds[name] = fit_forecast(self.history, *map(float, level), **spans.get(kind, {}))
        return self.bounds[name]

    def rows(self, jobs: Sequence[tuple[str, str, Policy]]) -> list[dict[str, Any]]:
        """Return a row per run, from its file where it was done before."""
        found = []
        with progress() as bar:
            for name, load, policy in bar.track(jobs, description="runs"):
                found.append(resumed(self.out, f"{name}_{load}_{policy.label}", partial(self.row, name, load, policy)))
        return found

    def row(self, name: str, workload: str, policy: Policy) -> dict[str, Any]:
        """Return the figures of one run."""
        begin_s = process_time()
        one, load = PUBLISHED[name], self.workloads[workload]
        fixed = one.rim_replicas if policy.system == "RIM" else None
        weights = replace(one.weights, accuracy=one.weights.accuracy * (policy.weights or 1.0))
        programme = Ipa(options_of(one, self.points, policy.system), 1.0, one.sla_s, "sum", weights, fixed)
        service = service_of(one, self.points)
        key = name, policy.system, policy.weights, policy.switching
        plan = self.planners.setdefault(key, planner_of(service, programme, policy.switching * one.weights.accuracy))
        if policy.share is not None:
            service = replace(service, placement="by slack", answer_by_s=one.sla_s)
            plan = hedged(service, plan, policy.share)
        margin = one.rate_margin if policy.margin is None else policy.margin
        cheapest = tuple(running(0, 1, count) for count in fixed or (1,) * len(one.tasks))
        first = plan(float(load[0]) * (1 + margin), cheapest) or cheapest
        predictor, clears = self.predictor(policy.predictor, load), policy.predictor.startswith("life")
        controller = Controller(service, predictor, plan, first, margin=margin, clears=clears)
        records = controller.run(arrivals_of(load))
        found = outcomes_of(service, controller.decisions, records, one.sla_s, len(load))
        settings = [[(s.variant, s.batch) for s in one.configuration] for one in controller.decisions]
        changes = sum(a != b for old, new in pairwise(settings) for a, b in zip(old, new, strict=True))
        p50, p95, p99 = np.quantile(found.latencies_s, [0.5, 0.95, 0.99]).round(3).tolist()
        return {
            "application": name, "workload": workload, **asdict(policy), "system": policy.name,
            "cores": round(float(found.cores.mean()), 2), "held_cores": round(float(found.held_cores.mean()), 2),
            "planned_accuracy": round(float(found.planned_accuracy.mean()), 3),
            "served_accuracy": round(found.accuracy, 3),
            "requests": found.requests, "dropped": found.dropped, "late": found.late,
            "attainment": round(found.attainment, 5), "p50_s": p50, "p95_s": p95, "p99_s": p99,
            "changes": changes, "infeasible": found.infeasible, "cpu_s": round(process_time() - begin_s, 2),
            "series_latency": np.quantile(found.latencies_s, np.linspace(0, 1, 201)).round(4).tolist(),
            "series_cores": found.cores[::STEP_S].tolist(),
            "series_accuracy": found.planned_accuracy[::STEP_S].tolist(),
        }  # fmt: skip


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV, without their series."""
    kept = [{key: value for key, value in row.items() if not isinstance(value, list)} for row in rows]
    write_text(path, pd.DataFrame(kept).to_csv(index=False, lineterminator="\n"))


def resumed(out: Path, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what is made, from its file where it was made before."""
    path = out / "runs" / f"{name}.json"
    if not path.exists():
        write_text(path, json.dumps(make()))
    found: dict[str, Any] = _json(path)
    return found


def smape_row(name: str, load: Counts, known: Mapping[str, Predictor]) -> dict[str, Any]:
    """Return a workload's row of errors, and how often bounds held."""
    now = range(WINDOW_S, len(load) - AHEAD_S + 1, STEP_S)
    held = {
        f"{each} held": round(float(np.mean([predict(load[:t]) >= load[t : t + AHEAD_S].max() for t in now])), 3)
        for each, predict in known.items()
        if each.startswith("bound")
    }
    return {"workload": name} | {each: round(smape_percent(p, load), 2) for each, p in known.items()} | held


def against(row: Mapping[str, Any], published: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return how a run compares with those of the published system that hold no more cores and are no less accurate."""
    others = [
        one["attainment"]
        for one in published
        if one is not row
        and one["held_cores"] <= row["held_cores"]
        and one["served_accuracy"] >= row["served_accuracy"]
    ]
    return {
        "beaten_by": sum(other >= row["attainment"] for other in others),
        "best_published": max(others, default=None),
    }


def read_points(data: Path) -> Points:
    """Return latency (s) and throughput (requests/s) of every variant on cores; the script's head says how known."""
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


def arrivals_of(load: Counts) -> np.ndarray:
    """Return arrivals (µs): the counts of every second at uniform times in it, a Poisson process given its counts."""
    seconds = np.repeat(np.arange(len(load)), load.astype(int))
    times_us = seconds * 1e6 + np.random.default_rng(1).uniform(0, 1e6, len(seconds))
    return np.sort(times_us.astype(np.int64))


def beside(row: Mapping[str, Any], published: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with the published means of the same run, where there are some."""
    series = published[f"metaseries-18-{row['application']}"][row["workload"]].get(row["system"])
    means = {key: round(float(np.mean(series[key])), 2) if series else None for key in ("cost", "acc")}
    return {**row, "published_cost": means["cost"], "published_accuracy": means["acc"]}


def weights_sweep(points: Points, rate_rps: float = 20.0) -> list[dict[str, Any]]:
    """Return cores and accuracies of every application at one rate, as accuracy is worth more."""
    rows = []
    for name, one in PUBLISHED.items():
        for alpha in (0.5, 1, 2, 5, 10, 20, 50, 100):
            weights = replace(one.weights, accuracy=alpha, cores=1.0)
            best = optimise(Ipa(options_of(one, points), rate_rps, one.sla_s, "sum", weights))
            chosen = "+".join(choice.option.variant for choice in best.choices)
            rows.append(
                {
                    "application": name,
                    "alpha_over_beta": alpha,
                    "cores": best.cores,
                    "ranks": best.accuracy,
                    "variants": chosen,
                }
            )
    return rows


def compare_plans(name: str, points: Points) -> dict[str, Any]:
    """Return what the cheapest plans task by task and end to end cost (cores of whole servers) at given accuracies.

    Replicas may have any profiled number of cores, as shares of servers of 16; both ways building a batch takes
    (b - 1) / rate.
    """
    one, rows = PUBLISHED[name], []
    for rate_rps in (20.0, 200.0):
        best = plan_per_task(on_servers(one, points, rate_rps, Options("most_accurate", slack_fraction=0)))
        for part in (0.5, 0.8, 1.0):
            least = part * best.objective
            options = Options(
                "least_cost", len(one.tasks), slack_fraction=0, batch_building_factor=1, min_accuracy=least * (1 - 1e-9)
            )
            problem = on_servers(one, points, rate_rps, options)
            rows.append(
                {"application": name, "rate_rps": rate_rps, "min_accuracy": round(least, 2), **both_ways(problem)}
            )
    return {"rows": rows}


def both_ways(problem: Problem) -> dict[str, Any]:
    """Return what both ways reach, which one is better, and what no plan of either is better than."""
    found = plan_both_ways(problem, time_limit_s=PLANNING_S)
    return {
        "per_task": found.per_task and round(found.per_task.objective, 3),
        "end_to_end": found.end_to_end and round(found.end_to_end.value, 3),
        "best": round(found.value, 3), "way": found.way, "bound": round(found.bound, 3),
    }  # fmt: skip


def zoo_rows() -> list[dict[str, Any]]:
    """Return how accurate the application of plans/photos is on a GPU and Raspberry Pis, both ways, at rates."""
    asked = load_problem(PHOTOS)
    options = replace(asked.options, slack_fraction=0.0, batch_building_factor=1.0)
    rows = []
    for rate_rps in (20.0, 40.0, 80.0, 120.0, 160.0, 200.0):
        (one,) = asked.applications
        one = replace(one, rate_rps=rate_rps, np_throughput_rps=rate_rps)
        rows.append({"rate_rps": rate_rps, **both_ways(replace(asked, options=options, applications=(one,)))})
    return rows


def front_rows(name: str, points: Points, rate_rps: float = 50.0, servers: int = 12) -> dict[str, Any]:
    """Return the most accurate plans, end to end and task by task, for growing numbers of servers."""
    options = Options("most_accurate", len(PUBLISHED[name].tasks), slack_fraction=0, batch_building_factor=1)
    problem = on_servers(PUBLISHED[name], points, rate_rps, options, servers)
    rows: list[dict[str, Any]] = []
    for budget in range(1, servers + 1):
        limited = replace(problem, options=replace(options, budget_per_hour=16.0 * budget))
        row: dict[str, Any] = {"application": name, "cores": 16 * budget}
        for way, make in (("end_to_end", make_plan), ("per_task", plan_per_task)):
            try:
                row[way] = round(make(limited).accuracy["application"], 4)
            except InputError:
                row[way] = None
        rows.append(row)
    return {"rows": rows}


def draw_fronts(rows: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Draw accuracy over cores, an application each, both ways of planning."""
    figure = Figure(figsize=(13, 3), layout="constrained")
    for ax, (name, own) in zip(figure.subplots(1, len(rows)), rows.items(), strict=True):
        for number, (way, label) in enumerate((("end_to_end", "end to end"), ("per_task", "task by task"))):
            known = [(row["cores"], row[way]) for row in own if row[way] is not None]
            ax.plot(*zip(*known, strict=True), color=COLOURS[number], ls=DASHES[number], label=label)
        finish(ax, x="cores of whole servers", y="accuracy (%)" if name == next(iter(rows)) else "", title=name)
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    save_figure(figure, path)


def solving_times() -> list[dict[str, Any]]:
    """Return CPU seconds of random programmes, each solved to its optimum."""
    rows = []
    sizes = ((1, 5, 1), (2, 5, 1), (3, 5, 1), (5, 5, 1), (5, 10, 1), (10, 10, 10), (20, 20, 10))
    for tasks, variants, seeds in sizes:
        for seed in range(seeds):
            programme = random_programme(tasks, variants, seed)
            begin_s = process_time()
            optimise(programme)
            rows.append(
                {"tasks": tasks, "variants": variants, "seed": seed, "cpu_s": round(process_time() - begin_s, 3)}
            )
    return rows


def random_programme(tasks: int, variants: int, seed: int) -> Ipa:
    """Return a programme whose accurate variants are slower and take more cores, at six batch sizes each."""
    rng = np.random.default_rng(seed)
    options = []
    for _ in range(tasks):
        accuracy, takes_s = np.sort(rng.uniform(0.5, 1.0, variants)), np.sort(rng.uniform(0.02, 0.5, variants))
        cores = np.sort(rng.choice([1, 2, 4, 8], variants))
        options.append(
            tuple(
                Option(
                    f"v{v}", float(accuracy[v]), int(cores[v]), batch, float(takes_s[v] * batch**0.85),
                    float(batch**0.15 / takes_s[v]),
                )
                for v in range(variants)
                for batch in (1, 2, 4, 8, 16, 32)
            )
        )  # fmt: skip
    fastest_s = sum(min(option.latency_s for option in own) for own in options)
    weights = Weights(float(rng.choice([10, 50, 200, 1000])), float(rng.uniform(0.2, 0.6)))
    return Ipa(tuple(options), 20.0, fastest_s * float(rng.uniform(2, 8)), "multiply", weights)


def read_profiles(path: Path) -> dict[str, list[TaskProfile]]:
    """Read a file of profile points per application: task, variant, accuracy, cpu, batch, latency_s, throughput_rps."""
    applications = {}
    for name, rows in json.loads(path.read_text(encoding="utf-8")).items():
        tasks: dict[str, list[Point]] = {}
        for row in rows:
            point = Point(
                row["variant"], row["accuracy"], row["cpu"], row["batch"], row["latency_s"], row["throughput_rps"]
            )
            tasks.setdefault(row["task"], []).append(point)
        applications[name] = [TaskProfile(task, tuple(points)) for task, points in tasks.items()]
    return applications


def row_of(case: Mapping[str, Any], found: Configuration, coded: Configuration, seconds: float) -> dict[str, Any]:
    """Return a case's row: what was found beside what the reference and the enumerations found."""
    choices = found.choices
    return {
        "name": case["name"],
        "objective": round(found.objective, 9),
        "objective_as_coded": round(coded.objective, 9),
        "reference_objective": case["gurobi"][0]["objective"] if case["gurobi"] else None,
        "enumeration_as_paper": (case["enumeration_as_paper"] or {}).get("objective"),
        "enumeration_as_coded": (case["enumeration_as_coded"] or {}).get("objective"),
        "variants": "+".join(choice.option.variant for choice in choices),
        "batches": "+".join(str(choice.option.batch) for choice in choices),
        "replicas": "+".join(str(choice.replicas) for choice in choices),
        "cores": found.cores,
        "seconds": round(seconds, 4),
    }


if __name__ == "__main__":
    run(app)
