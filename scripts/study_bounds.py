#!/usr/bin/env python
"""What plans from incomplete profiles are worth: nominal completions, bounds, margins, and the truth.

Of PPipe's published block timings (18 DNNs, four GPUs), a fraction of the runs is given, a run being a DNN's blocks at
one batch size on one share of a GPU. Profiles are completed from these; the published MAF'19 problems are planned with
the completed profiles; every plan is simulated with the dispatcher believing them, while batches take the published
times. Nothing is measured twice: what is given is planned with as it is.

Methods: `nominal`; `margin M` (nominal times M); `block L` and `path L`, bounds of level L of each block or of
pipelines' sums; `selected L`, path-wise with the margin calibrated on the stages that plans of *other* DNNs chose, as
if those had then been measured; `checked L` (and `checked nominal`), path-wise bounds (nominal completions), and what
the plan rests on is measured and planned again with, until a plan rests on nothing else (`runs` tells how many more
that took); `truth`. What is not measured keeps its first bound then, for time; `planner complete` fits it anew.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from time import process_time
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from matplotlib.figure import Figure

from planner.cli.app import console, new_app, progress, run
from planner.completion.cells import Place
from planner.completion.conformal import margin
from planner.completion.paths import plan_scores
from planner.completion.plans import relied_on
from planner.completion.profiles import Kind, Predictions, predict_profiles
from planner.files import file_name, ppipe, replacing
from planner.model import InputError, Plan, Problem, Profile
from planner.model.observed import Observed, Run, runs_of_profile
from planner.planning import make_plan
from planner.profiling import find_device
from simulator.dispatch.frontend import POLICIES
from simulator.engine import System, build_system
from simulator.engine.replay import replay
from simulator.results.metrics import attainment
from simulator.results.style import COLOURS, MARKERS, figure_of, finish, legend, new_axes, save_with_numbers
from simulator.workload import fold, read_maf21

GPUS = ("L4", "T4", "V100", "P4")
LEVELS = (0.8, 0.9, 0.95, 0.99)
MARGINS = (1.1, 1.2, 1.3, 1.5)
LOAD = 0.9  # of the planned throughput, at which attainment is told
STEPS = 20  # of the planned throughput, in which the rate that is held is told
SELECTED_LEVELS = (0.9, 0.95, 0.98)
CHECKED_LEVEL = 0.95
TRACES = "poisson_a,bursty_a"
ROUNDS = 12  # of planning and measuring what was chosen, at most
COLUMNS = (
    "fraction", "seed", "trace", "method", "problem", "dnn", "devices", "planned_rps",
    "attainment", "held_rps", "runs", "cpu_seconds",
)  # fmt: skip
HELD = 0.99
Times = Mapping[str, np.ndarray]  # arrivals, s, by trace
Row = dict[str, object]

app = new_app("Study plans from incomplete profiles.")


@dataclass(frozen=True)
class Case:
    """A published problem: its name, the group of DNNs that it serves, and itself with the published profiles."""

    name: str
    group: str
    problem: Problem


@dataclass(frozen=True, eq=False)
class Ground:
    """What is true: the published profiles, the problems, and arrivals by trace."""

    profiles: Sequence[Profile]
    cases: Sequence[Case]
    times_s: Times


@app.command()
def study(
    data: Annotated[Path, typer.Option(help="Folder of PPipe's published data (models/, plans/, simulator/).")],
    out: Annotated[Path, typer.Option(help="Folder for rows.csv, summary.csv and the picture; rows are kept.")],
    fractions: Annotated[str, typer.Option(help="Fractions of the runs to know.")] = "0.05,0.1,0.25,0.5",
    traces: Annotated[str, typer.Option(help="Traces of the folder simulator/, without their endings.")] = TRACES,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the runs that are known.")] = 0,
    every: Annotated[int, typer.Option(min=1, help="Take every so many of the 24 problems.")] = 1,
) -> None:
    """Plan and simulate; draw throughput against attainment."""
    ground = Ground(
        [ppipe.read_profile(data, name, GPUS) for name in ppipe.list_dnns(data)],
        read_cases(data)[::every],
        {name: read_maf21(data / "simulator" / f"{name}.csv.gz").times_s for name in traces.split(",")},
    )
    rows_file = out / "rows.csv"
    rows = read_rows(rows_file)
    done = {row["fraction"] for row in rows if row["seed"] == seed}
    left = [share for share in _fractions(fractions) if share not in done]
    best = list(judged("truth", ground.cases, ground.profiles, ground)) if left else []
    with progress() as bar:
        for fraction in bar.track(left, description="fractions"):
            rows += study_fraction(ground, best, fraction, seed)
            write_rows(rows_file, rows)
    show(pd.DataFrame(rows), out)


def study_fraction(ground: Ground, best: Sequence[Row], fraction: float, seed: int) -> list[Row]:
    """Return a row per method, problem and DNN; ``best`` are those of plans from the truth."""
    begin_s = process_time()
    predictions = completed(ground.profiles, fraction, seed)
    nominal = predictions.profiles()
    told = {"fraction": fraction, "seed": seed, "cpu_seconds": round(process_time() - begin_s, 1)}
    return [row | told for row in (*best, *of_methods(ground, predictions, nominal))]


def of_methods(ground: Ground, predictions: Predictions, nominal: Sequence[Profile]) -> Iterator[Row]:
    """Yield a row per method but the truth, problem and DNN."""
    profiles: dict[str, Sequence[Profile]] = {"nominal": nominal}
    profiles |= {f"margin {factor:g}": [scaled(profile, factor) for profile in nominal] for factor in MARGINS}
    kinds: tuple[Kind, ...] = ("block", "path")
    for kind in kinds:
        for level in LEVELS:
            try:
                profiles[f"{kind} {level:g}"] = predictions.bounded(level, kind)
            except InputError:  # too few runs calibrate so high a level
                continue
    for method, known in profiles.items():
        yield from judged(method, ground.cases, known, ground)
    if (bounds := profiles.get(f"path {CHECKED_LEVEL:g}")) is None:
        return
    for method, start in ((f"checked {CHECKED_LEVEL:g}", bounds), ("checked nominal", nominal)):
        for case in ground.cases:
            known, count = checked(case, start, ground.profiles)
            yield from judged(method, [case], known, ground, count)
    scores = chosen_scores(ground, bounds, predictions)
    for level in SELECTED_LEVELS:
        for case in ground.cases:
            others = [score for group, own in scores.items() if group != case.group for score in own]
            q = max(0.0, margin(np.array(others), 1 - level))
            if isfinite(q):  # else too few plans calibrate it
                yield from judged(f"selected {level:g}", [case], predictions.bounded(level, "path", q), ground)


def completed(truth: Sequence[Profile], fraction: float, seed: int) -> Predictions:
    """Return what a random fraction of the published runs says of all others."""
    runs = [run for profile in truth for run in runs_of_profile(profile)]
    chosen = np.random.default_rng(seed).permutation(len(runs))[: round(fraction * len(runs))]
    blank = tuple(replace(profile, tables=()) for profile in truth)
    described = {name: find_device(name).features for name in GPUS}
    batches = {(table.device, table.share): table.batches for profile in truth for table in profile.tables}
    return predict_profiles(Observed(blank, tuple(runs[at] for at in chosen)), GPUS, described, batches)


def chosen_scores(ground: Ground, bounds: Sequence[Profile], predictions: Predictions) -> dict[str, list[float]]:
    """Return, for each group of DNNs, the scores of what plans with bounds chose, the worst of each DNN."""
    runs: dict[Place, Run] = {run.place[:4]: run for profile in ground.profiles for run in runs_of_profile(profile)}
    known = {
        place: replace(found, measured_us=np.array(runs[place].latency_us))
        for place, found in predictions.predicted.items()
        if place in runs
    }
    scores: dict[str, list[float]] = {case.group: [] for case in ground.cases}
    for case in ground.cases:
        plan = planned(case, bounds)
        for dnn in case.problem.dnns if plan else ():
            stages = [
                (pipeline.variant, stage.device, stage.share, stage.batch, stage.first_block, stage.last_block)
                for pipeline in plan.of(dnn.name)
                for stage in pipeline.stages
            ]
            scores[case.group].append(plan_scores(stages, known))
    return scores


def checked(case: Case, bounds: Sequence[Profile], truth: Sequence[Profile]) -> tuple[Sequence[Profile], int]:
    """Plan with bounds, measure what was chosen, and again; return the last profiles, and how many runs it took."""
    blank = Observed(tuple(replace(profile, tables=()) for profile in truth))
    measured: set[Place] = set()
    known = bounds
    for _ in range(ROUNDS):
        plan = planned(case, known)
        chosen = {one.place for one in relied_on(plan, blank)} if plan else set()
        if chosen <= measured:
            break
        measured |= chosen
        known = [with_measured(profile, real, measured) for profile, real in zip(bounds, truth, strict=True)]
    return known, len(measured)


def with_measured(profile: Profile, real: Profile, places: Set[Place]) -> Profile:
    """Return a profile with some runs as they really are; a smaller batch is then not slower than those."""
    tables = []
    for table in profile.tables:
        rows = np.array(table.latency_us)
        for number, batch in reversed(list(enumerate(table.batches))):
            if number + 1 < len(rows):
                rows[number] = np.minimum(rows[number], rows[number + 1])
            if (profile.name, table.device, table.share, batch) in places:
                rows[number] = real.table(table.device, table.share).block_latency_us(batch)
        tables.append(replace(table, latency_us=tuple(tuple(row) for row in rows.tolist())))
    return replace(profile, tables=tuple(tables))


def planned(case: Case, profiles: Sequence[Profile]) -> Plan | None:
    """Return the plan made with some profiles; None where an SLO is out of reach with them."""
    try:
        return make_plan(with_profiles(case.problem, profiles))
    except InputError:
        return None


def with_profiles(problem: Problem, profiles: Sequence[Profile]) -> Problem:
    """Return a problem with the profiles of the same names."""
    by_name = {profile.name: profile for profile in profiles}
    dnns = tuple(replace(dnn, variants=tuple(by_name[v.name] for v in dnn.variants)) for dnn in problem.dnns)
    return replace(problem, dnns=dnns)


def judged(
    method: str, cases: Sequence[Case], known: Sequence[Profile], ground: Ground, runs: int = 0
) -> Iterator[Row]:
    """Plan with what is known, and simulate with the true latencies."""
    for case in cases:
        plan = planned(case, known)
        for dnn in case.problem.dnns:
            row: Row = {
                "method": method, "problem": case.name, "dnn": dnn.name, "devices": 0.0, "planned_rps": 0.0,
                "held_rps": 0.0, "attainment": 0.0, "runs": runs,
            }  # fmt: skip
            if plan is None:
                yield from (row | {"trace": trace} for trace in ground.times_s)
                continue
            believed = build_system(with_profiles(case.problem, known), plan, dnn.name)
            real = build_system(*true_plan(case.problem, ground.profiles, plan), dnn.name)
            full_rps = plan.throughput_rps(dnn.name)
            row["devices"], row["planned_rps"] = round(sum(believed.devices), 3), round(full_rps, 3)
            for trace, arrivals_s in ground.times_s.items():
                row["attainment"] = round(attained(believed, real, arrivals_s, LOAD * full_rps), 5)
                row["held_rps"] = round(held_rps(believed, real, arrivals_s, full_rps), 3)
                yield row | {"trace": trace}


def held_rps(believed: System, real: System, times_s: np.ndarray, full_rps: float) -> float:
    """Return the largest rate, in steps of a twentieth of the planned one, at which 99 % are in time; 0 if none.

    By bisection, which takes it for granted that fewer are in time at larger rates.
    """
    held, missed = 0, STEPS + 1
    while missed - held > 1:
        step = (held + missed) // 2
        if attained(believed, real, times_s, step / STEPS * full_rps) >= HELD:
            held = step
        else:
            missed = step
    return held / STEPS * full_rps


def attained(believed: System, real: System, times_s: np.ndarray, rate_rps: float) -> float:
    """Return the attainment at a rate where the dispatcher believes one system and another is real."""
    return attainment(replay(believed, fold(times_s, rate_rps), POLICIES.index("reservation"), truth=real))


def true_plan(problem: Problem, truth: Sequence[Profile], plan: Plan) -> tuple[Problem, Plan]:
    """Return the problem with the true profiles, and the plan with the latencies that its stages really have."""
    real = with_profiles(problem, truth)
    pipelines = []
    for pipeline in plan.pipelines:
        profile = real.dnn(pipeline.dnn).variant(pipeline.variant)
        stages = tuple(
            replace(
                stage,
                latency_us=profile.stage_latency_us(
                    stage.device, stage.share, stage.batch, stage.first_block, stage.last_block
                ),
            )
            for stage in pipeline.stages
        )
        pipelines.append(replace(pipeline, stages=stages))
    return real, replace(plan, pipelines=tuple(pipelines))


def scaled(profile: Profile, factor: float) -> Profile:
    """Return a profile with every latency a factor longer."""
    tables = tuple(
        replace(table, latency_us=tuple(tuple(round(factor * value) for value in row) for row in table.latency_us))
        for table in profile.tables
    )
    return replace(profile, tables=tables)


def read_cases(data: Path) -> list[Case]:
    """Return the published MAF'19 problems."""
    paths = sorted((data / "plans" / "maf19").glob("*_v4.json"))
    if not paths:
        raise InputError(f"{data / 'plans' / 'maf19'}: no published plans there; give the folder of PPipe's data")
    problems = [(path.stem, ppipe.read_problem(path, data)) for path in paths]
    return [Case(name, "+".join(dnn.name for dnn in problem.dnns), problem) for name, problem in problems]


def _fractions(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = [0.0]
    if not all(0 < fraction < 1 for fraction in found):
        raise InputError(f"--fractions: expected numbers between 0 and 1 such as 0.1,0.5, got {text!r}")
    return found


def read_rows(path: Path) -> list[Row]:
    """Return the rows that are there already."""
    if not path.exists():
        return []
    found = pd.read_csv(path)
    if tuple(found.columns) != COLUMNS:
        raise InputError(f"{path}: holds something else than rows of this study; choose another --out")
    return [{str(name): value for name, value in row.items()} for row in found.to_dict("records")]


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write all rows in one step."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def summary(rows: pd.DataFrame) -> pd.DataFrame:
    """Return, by trace, fraction and method, throughput and what is held of the truth's, attainment and devices.

    Means over the DNNs that plans from the truth serve in time at that load; over all where there are none (bursts).
    """
    keys = ["trace", "fraction", "seed", "problem", "dnn"]
    best = rows[rows.method == "truth"][[*keys, "planned_rps", "held_rps", "attainment"]]
    in_time = best.attainment >= HELD
    best = best[in_time | ~in_time.groupby(best.trace).transform("any")]
    joined = rows.merge(best, on=keys, suffixes=("", "_truth"))
    joined["planned"] = joined.planned_rps / joined.planned_rps_truth
    joined["held"] = joined.held_rps / joined.held_rps_truth.where(joined.held_rps_truth > 0)
    joined["in_time"] = joined.attainment >= HELD
    columns = ["planned", "attainment", "in_time", "held", "devices", "runs"]
    order = list(dict.fromkeys(rows.method))
    found = joined.groupby(["trace", "fraction", "method"], sort=False)[columns].mean()
    return found.reindex(order, level="method").reset_index()


def show(rows: pd.DataFrame, out: Path) -> None:
    """Print and write the summary, and draw throughput against attainment, a picture per trace."""
    found = summary(rows)
    console.print(found.round(4).to_string(index=False), highlight=False, soft_wrap=True)
    for trace, part in found.groupby("trace", sort=False):
        save_with_numbers(draw(part, str(trace)), part, out / f"bounds-{file_name(str(trace))}")
    console.print(f"rows.csv, and a table and a picture per trace, are in {out}", highlight=False, soft_wrap=True)


def draw(found: pd.DataFrame, trace: str) -> Figure:
    """Draw attainment over planned throughput: a line per fraction and family of methods, along levels or margins."""
    ax = new_axes(8.0, 4.8)
    smallest = found.fraction.min()
    families = dict.fromkeys(method if method.startswith("checked") else method.split()[0] for method in found.method)
    ordered = sorted(families, key=lambda family: (family == "truth", family.startswith("checked")))
    for number, family in enumerate(ordered):
        part = found[found.method.map(lambda name, family=family: name == family or name.split()[0] == family)]
        for fraction, points in part.groupby("fraction"):
            ax.plot(
                points.planned,
                100 * points.attainment,
                marker=MARKERS[number % len(MARKERS)],
                color=COLOURS[number % len(COLOURS)],
                alpha=0.35 + 0.65 * float(np.sqrt(fraction)),
                markersize=4 + 6 * float(fraction),
                label=family if fraction == smallest else None,
            )
    ax.axhline(100 * HELD, color="#999999", linewidth=0.8)
    finish(
        ax,
        x="planned throughput, of that planned from the truth",
        y="attainment at load 0.9, %",
        title=f"{trace}; larger and darker marks: more runs known; along a line: levels or margins",
    )
    legend(ax)
    return figure_of(ax)


if __name__ == "__main__":
    run(app)
