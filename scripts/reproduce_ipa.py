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
the simulation is batch / throughput, without the margins that plans keep. What goes beyond the published system is told
in `simulator.adaptation.policies`.
"""

import csv
import gzip
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from time import process_time
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer

from planner.cli.app import about, console, new_app, progress, run
from planner.files import load_problem, write_text
from planner.model import InputError, Options, Problem
from planner.planning import make_plan, plan_both_ways
from planner.planning.applications.ipa import Configuration, Ipa, Option, Weights, optimise
from planner.planning.applications.ipa_profiles import programme_of, task_profiles
from planner.planning.applications.ipa_published import LEVELS, PUBLISHED, Points, on_servers, options_of
from planner.planning.applications.per_task import plan_per_task
from simulator.adaptation import smape_percent
from simulator.adaptation.policies import OWN_POLICIES, PUBLISHED_POLICIES, Policy, Runs
from simulator.adaptation.predictors import AHEAD_S, STEP_S, WINDOW_S, Counts, Predictor
from simulator.results.adaptation_plots import adaptation_figure, fronts_figure
from simulator.results.style import save_figure

app = new_app("Reproduce IPA's published results.")

Data = Annotated[Path, typer.Option(help="Folder of the data (profiles_synthetic.json, ...).")]
OutFolder = Annotated[Path, typer.Option(help="Folder to write.")]

PHOTOS = Path(__file__).parents[1] / "plans/photos/problem.toml"
TRAINING_S = 14 * 86_400
DAMPING = 8  # published workloads are an eighth of the counts
SPEEDUP = 0.7  # of the synthetic profiles: time falls with cores^0.7
PLANNING_S = 20.0  # both ways of planning together

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
    data: Data,
    out: OutFolder,
    only: Annotated[str | None, typer.Option(help="One application only.")] = None,
    workload: Annotated[str | None, typer.Option(help="One workload only.")] = None,
) -> None:
    """Run five applications under four workloads and every system; write tables and pictures."""
    made = Study(data, out)
    for option, given, known_names in (("--only", only, PUBLISHED), ("--workload", workload, made.workloads)):
        if given is not None and given not in known_names:
            raise InputError(f"{option}: expected one of {list(known_names)}, got {given!r}")
    names = [only] if only else list(PUBLISHED)
    loads = [workload] if workload else list(made.workloads)
    known = made.runs.predictors
    table(out / "predictors.csv", [made.errors(load) for load in loads])
    jobs = [(name, load, policy) for name in names for load in loads for policy in PUBLISHED_POLICIES + OWN_POLICIES]
    ablated = [("video", load, Policy("IPA", predictor=name)) for load in loads for name in (*known, "oracle")]
    rows = made.rows([*jobs, *(ablated if "video" in names else [])])
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
    made = Study(data, out)
    margins, weights = (-0.2, 0.0, 0.2, 0.4, 0.7), (0.5, 1.0, 2.0)
    reference = [Policy("IPA", margin=margin, weights=weight) for margin in margins for weight in weights]
    levels = (0.5, 0.8, 0.95)
    own = [
        replace(policy, predictor=f"{policy.predictor.split()[0]} {level:g}", weights=weight)
        for policy in OWN_POLICIES
        for level in levels
        for weight in (1.0, 2.0)
    ]
    rows = []
    for load in ("bursty", "fluctuating"):
        published = made.rows([("video", load, policy) for policy in reference])
        rows += [
            {**row, **against(row, published)}
            for row in [*published, *made.rows([("video", load, policy) for policy in own])]
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
    save_figure(fronts_figure({name: one["rows"] for name, one in fronts.items()}), out / "fronts.png")


@app.command()
def solve(
    data: Data,
    cases: Annotated[Path, typer.Option(help="Cases with inputs and the reference's optima (reference_cases.json).")],
    out: Annotated[Path, typer.Option(help="CSV file to write.")],
) -> None:
    """Solve every case by the paper's formula, and by the code's for comparison; seconds are CPU time of the former."""
    read = _json(data / "profiles_synthetic.json")
    profiles = {name: task_profiles(points) for name, points in read.items()}
    rows = []
    with progress() as bar:
        for case in bar.track(json.loads(cases.read_text(encoding="utf-8")), description="cases"):
            begin_s = process_time()
            with about(Path(case["name"])):
                programme = programme_of(case["inputs"], profiles)
            found = optimum(programme)
            seconds = process_time() - begin_s
            rows.append(row_of(case, found, optimum(replace(programme, as_coded=True)), seconds))
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(out, text.getvalue())
    pairs = (("objective", "enumeration_as_paper"), ("objective_as_coded", "enumeration_as_coded"))
    equal = sum(all(same(row[ours], row[theirs]) for ours, theirs in pairs) for row in rows)
    slowest = max(row["seconds"] for row in rows)
    console.print(
        f"{equal} of {len(rows)} cases equal the enumeration by both formulas to 1e-6; "
        f"at most {slowest * 1000:.0f} ms of CPU time a case"
    )


class Study:
    """Runs of applications under the published workloads, each done once and kept in a folder."""

    def __init__(self, data: Path, out: Path) -> None:
        self.out = out
        self.workloads = {name: np.array(one["rps"], float) for name, one in _json(data / "workloads.json").items()}
        with gzip.open(data / "twitter_counts_per_second.txt.gz", "rt") as file:
            counts = np.loadtxt(file, dtype=np.float64, max_rows=TRAINING_S)
        self.runs = Runs(read_points(data), np.floor(counts / DAMPING))

    def errors(self, workload: str) -> dict[str, Any]:
        """Return the row of what predictors miss on a workload, from its file where it was made before."""
        make = partial(smape_row, workload, self.workloads[workload], self.runs.predictors)
        return resumed(self.out, f"{workload}_predictors", make)

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
        one = self.runs.run(name, self.workloads[workload], policy)
        found = one.outcomes
        p50, p95, p99 = np.quantile(found.latencies_s, [0.5, 0.95, 0.99]).round(3).tolist()
        return {
            "application": name, "workload": workload, **asdict(policy), "system": policy.name,
            "cores": round(float(found.cores.mean()), 2), "held_cores": round(float(found.held_cores.mean()), 2),
            "planned_accuracy": round(float(found.planned_accuracy.mean()), 3),
            "served_accuracy": round(found.accuracy, 3),
            "requests": found.requests, "dropped": found.dropped, "late": found.late,
            "attainment": round(found.attainment, 5), "p50_s": p50, "p95_s": p95, "p99_s": p99,
            "changes": one.changes, "infeasible": found.infeasible, "cpu_s": round(process_time() - begin_s, 2),
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
            least = part * best.value
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
        "per_task": found.per_task and round(found.per_task.value, 3),
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


def optimum(programme: Ipa) -> Configuration | None:
    """Return the best configuration, None where there is none."""
    try:
        return optimise(programme)
    except InputError:
        return None


def same(ours: float | None, theirs: float | None) -> bool:
    """Return whether two objectives are equal to 1e-6, or neither is there."""
    if ours is None or theirs is None:
        return ours is theirs
    return abs(ours - theirs) <= 1e-6


def row_of(
    case: Mapping[str, Any], found: Configuration | None, coded: Configuration | None, seconds: float
) -> dict[str, Any]:
    """Return a case's row: what was found beside what the reference and the enumerations found, empty for nothing."""
    choices = found.choices if found else ()
    reference = case.get("gurobi") or [{}]
    return {
        "name": case["name"],
        "objective": found and round(found.objective, 9),
        "objective_as_coded": coded and round(coded.objective, 9),
        "reference_objective": reference[0].get("objective"),
        "enumeration_as_paper": (case.get("enumeration_as_paper") or {}).get("objective"),
        "enumeration_as_coded": (case.get("enumeration_as_coded") or {}).get("objective"),
        "variants": "+".join(choice.option.variant for choice in choices),
        "batches": "+".join(str(choice.option.batch) for choice in choices),
        "replicas": "+".join(str(choice.replicas) for choice in choices),
        "cores": found and found.cores,
        "seconds": round(seconds, 4),
    }


if __name__ == "__main__":
    run(app)
