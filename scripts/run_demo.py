"""The main job on real input: profile ONNX models, plan two clusters, simulate the plans, draw what comes out.

Run by scripts/demo. Everything that it writes goes to out/demo/.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnx_ir as ir
import pandas as pd
from matplotlib.figure import Figure
from rich.table import Table

from planner.cli.app import console, progress
from planner.cli.profile_model import Profiled, profile_model
from planner.files import replacing, save
from planner.model import Cluster, DeviceType, Dnn, Network, Plan, Problem, Profile
from planner.planning import make_plan
from planner.profiling import DeviceAtHand, Effort, build_model, find_device, open_session, random_feeds, run_model
from simulator.engine import build_system, simulate
from simulator.results.plots import attainment_over_load
from simulator.results.style import save_figure
from simulator.results.tables import write_records, write_table
from simulator.sweep import SweepResult, largest_load, rate_of_load, run_sweep, series_of_plan
from simulator.workload import Trace, assign, fold, read_maf21

ROOT = Path(__file__).parents[1]
TRACE = ROOT / "traces" / "maf-like.maf21.csv.gz"
MODELS = ("resnet50-light", "inception_v1-light", "densenet121-light")
AT_HAND = DeviceAtHand("this-cpu", cores=1)
ESTIMATED = ("V100", "T4", "L4", "P4", "JetsonOrinNano", "RaspberryPi4", "RaspberryPi5")
BATCHES = (1, 2, 4)
EFFORT = Effort(cap_s=0.4, rounds=3)
PLANNING_LIMIT_S = 40.0  # measured latencies differ between machines, and so does how hard their problems are
SCHEDULERS = ("np", "pipelines")

Row = dict[str, Any]


@dataclass(frozen=True)
class Scenario:
    """A cluster, and SLOs as multiples of what each whole model takes on one device of it."""

    name: str
    cluster: Cluster
    slo_device: str
    slo_multiple: float

    def problem(self, profiles: list[Profile]) -> Problem:
        """Return the planning problem for models with these profiles."""
        return Problem(
            self.cluster,
            tuple(
                Dnn(
                    profile.name,
                    self.slo_multiple * profile.stage_latency_us(self.slo_device, 1, 1, 0, len(profile.blocks)),
                    (profile,),
                )
                for profile in profiles
            ),
        )


def scenarios() -> list[Scenario]:
    """Return PPipe's HC3 (25 V100, 75 P4, SLO 5 × L4), and an edge site of small GPUs and Raspberry Pis."""
    centre = Cluster(
        (find_device("V100").device_type(25, devices_per_server=2), find_device("P4").device_type(75)),
        Network(bandwidth_gbps=6.0),
    )
    edge = Cluster(
        (
            find_device("JetsonOrinNano").device_type(4),
            DeviceType(AT_HAND.name, 8, kind="cpu"),
            find_device("RaspberryPi5").device_type(60),
        ),
        Network(bandwidth_gbps=1.0, hop_latency_us=200.0),
    )
    return [Scenario("datacentre", centre, "L4", 5.0), Scenario("edge", edge, "RaspberryPi5", 1.5)]


def prove_batches(name: str, model: ir.Model) -> None:
    """Show that batch 4 gives the rows of four batches of 1, and that the output depends on the input."""
    session = open_session(model, threads=2)
    feeds = random_feeds(model, 4, np.random.default_rng(1))
    together = run_model(session, feeds)
    alone = [run_model(session, {key: value[row : row + 1] for key, value in feeds.items()}) for row in range(4)]
    worst = 0.0
    for index, whole in enumerate(together):
        if np.allclose(whole[0], whole[1], rtol=1e-3):
            raise RuntimeError(f"{name}: two inputs give the same output")
        rows = np.concatenate([outputs[index] for outputs in alone])
        worst = max(worst, float(np.max(np.abs(whole - rows)) / np.max(np.abs(rows))))
    if worst > 1e-4:
        raise RuntimeError(f"{name}: batch 4 differs from four batches of 1 by {worst:.1e}")
    console.print(f"  {name}: batch 4 = 4 × batch 1 (largest difference {worst:.0e}), inputs change outputs")


def profile_models(out: Path) -> list[Profile]:
    """Build, prove, measure and estimate the models; write their profiles."""
    estimated = [find_device(name) for name in ESTIMATED]
    profiles = []
    for name in MODELS:
        model = build_model(name)
        prove_batches(name, model)
        with progress() as bar:
            task = bar.add_task(f"measuring {name}", total=EFFORT.rounds * len(BATCHES))
            found: Profiled = profile_model(
                model,
                name,
                at_hand=[AT_HAND],
                estimated=estimated,
                batches=BATCHES,
                effort=EFFORT,
                progress=lambda _, bar=bar, task=task: bar.advance(task),
            )
        save(found.profile, out / "profiles" / f"{name}.json")
        profiles.append(found.profile)
    table = Table("whole model, batch 1 (ms)", *MODELS, "known by", box=None, header_style="bold")
    for device in (AT_HAND.name, *ESTIMATED):
        latencies_us = [profile.stage_latency_us(device, 1, 1, 0, len(profile.blocks)) for profile in profiles]
        kind = profiles[0].table(device, 1).provenance.kind
        table.add_row(device, *(f"{latency_us / 1000:.1f}" for latency_us in latencies_us), kind)
    console.print(table)
    return profiles


def make_plans(scenario: Scenario, problem: Problem, out: Path) -> dict[str, Plan]:
    """Plan with NP and with pipelines, on HiGHS, and write both."""
    save(problem, out / scenario.name / "problem.json")
    plans = {}
    for scheduler in SCHEDULERS:
        plan = make_plan(problem, scheduler, backend="highs", time_limit_s=PLANNING_LIMIT_S)
        save(plan, out / scenario.name / f"{scheduler}.json")
        console.print(
            f"  {scenario.name}, {scheduler}: {plan.value:.1f} requests/s of every DNN, gap {plan.gap:.1e} "
            f"({plan.status}), {plan.seconds:.2f} s with {plan.method}",
            highlight=False,
        )
        plans[scheduler] = plan
    return plans


def sweep(scenario: Scenario, problem: Problem, plans: Mapping[str, Plan], trace: Trace) -> tuple[list[Row], list[Row]]:
    """Return runs of both plans at twenty loads, and the largest loads that hold; load 1 is the pipelines plan's."""
    references = {dnn.name: ("pipelines", plans["pipelines"]) for dnn in problem.dnns}
    times_s = {
        f"{TRACE.name} for {dnn.name}": t for dnn, t in zip(problem.dnns, assign(trace, len(problem.dnns)), strict=True)
    }
    traces = {dnn.name: [name] for dnn, name in zip(problem.dnns, times_s, strict=True)}
    series = [
        one
        for scheduler, plan in plans.items()
        for one in series_of_plan(scheduler, problem, plan, traces, references=references)
    ]
    with progress() as bar:
        task = bar.add_task(f"simulating {scenario.name}", total=len(series))
        result = run_sweep(series, times_s, progress=lambda done, _: bar.update(task, completed=done))
    for failure in result.failures:
        raise RuntimeError(f"{failure.series.dnn}: {failure.error}")
    show(problem, plans, result)
    runs, largest = ([{"cluster": scenario.name} | row for row in rows] for rows in (result.rows, result.largest))
    return runs, largest


def show(problem: Problem, plans: Mapping[str, Plan], result: SweepResult) -> None:
    """Print a row per DNN and scheduler: what was planned, what holds in simulation, how busy its devices are then."""
    table = Table(
        "DNN (SLO)", "scheduler", "planned, req/s", "99 % at", "devices busy then", box=None, header_style="bold"
    )
    for dnn in problem.dnns:
        for scheduler, plan in plans.items():
            mine = [row for row in result.rows if (row["dnn"], row["plan"]) == (dnn.name, scheduler)]
            factor = largest_load(mine)
            at = next((row for row in mine if row["load_factor"] == factor), None)
            table.add_row(
                f"{dnn.name} ({dnn.slo_us / 1000:.1f} ms)",
                scheduler,
                f"{plan.throughput_rps(dnn.name):.0f}",
                f"{factor:.2f}",
                busy(problem, at) if at else "-",
            )
    console.print(table)


def busy(problem: Problem, row: Row) -> str:
    """Write how busy the devices of a run were, type by type, leaving out those that it did not use."""
    shares = {device.name: row[f"utilisation_{device.name}"] for device in problem.cluster.device_types}
    return ", ".join(f"{name} {share:.0%}" for name, share in shares.items() if not isnan(share))


def write_busiest_run(problem: Problem, plan: Plan, rows: list[Row], trace: Trace, path: Path) -> None:
    """Simulate the first DNN's pipelines once more at their largest load and write every request's record."""
    dnn = problem.dnns[0].name
    percent = round(100 * max(0.05, largest_load([r for r in rows if (r["dnn"], r["plan"]) == (dnn, "pipelines")])))
    times_s = assign(trace, len(problem.dnns))[0]
    arrivals_us = fold(times_s, rate_of_load(plan.throughput_rps(dnn), percent))
    write_records(simulate(build_system(problem, plan, dnn), arrivals_us), path)


def draw(rows: pd.DataFrame, path: Path) -> None:
    """Draw attainment over load factor, a panel per cluster; the shade spans the DNNs."""
    clusters = list(rows["cluster"].unique())
    figure = Figure(figsize=(5.2 * len(clusters), 3.8), layout="constrained")
    for cluster, ax in zip(clusters, figure.subplots(1, len(clusters), sharey=True), strict=True):
        attainment_over_load(rows[rows["cluster"] == cluster], ax, lines=["scheduler"]).set_title(cluster, loc="right")
    save_figure(figure, path)


def counts(cluster: Cluster) -> str:
    """Write a cluster as ``25 L4 + 75 P4``."""
    return " + ".join(f"{device.count} {device.name}" for device in cluster.device_types)


def main() -> None:
    """Run the five steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "demo", help="folder for results")
    out: Path = parser.parse_args().out
    begin_s = perf_counter()
    console.print("1. Profile three ONNX models: measured on this machine's CPU, estimated elsewhere")
    profiles = profile_models(out)
    console.print("2. Plan two clusters, without partitioning (np) and with pool-based pipelines")
    problems = {scenario.name: scenario.problem(profiles) for scenario in scenarios()}
    plans = {scenario.name: make_plans(scenario, problems[scenario.name], out) for scenario in scenarios()}
    console.print(f"3. Simulate every plan at twenty loads of {TRACE.name}, 30 s each")
    trace = read_maf21(TRACE)
    rows: list[Row] = []
    largest: list[Row] = []
    for scenario in scenarios():
        console.print(
            f"  {scenario.name}: {counts(scenario.cluster)}, SLO {scenario.slo_multiple:g} × {scenario.slo_device}"
        )
        runs, loads = sweep(scenario, problems[scenario.name], plans[scenario.name], trace)
        rows, largest = rows + runs, largest + loads
    first = scenarios()[0].name
    write_busiest_run(problems[first], plans[first]["pipelines"], rows, trace, out / "records.csv")
    with replacing(out / "sweep.csv") as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)
    write_table(largest, out / "largest.csv")
    draw(pd.DataFrame(rows), out / "attainment.png")
    console.print(
        f"4. Written to {out}: profiles, problems, plans, sweep.csv, largest.csv, records.csv, attainment.png"
    )
    console.print(f"{perf_counter() - begin_s:.0f} s in all")


if __name__ == "__main__":
    main()
