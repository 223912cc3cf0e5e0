"""Commands that simulate: ``run`` one plan at one load, ``sweep`` many plans over loads."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from planner.cli.app import about, console, errors, progress
from planner.files import save, write_text
from planner.model import InputError, digest
from simulator.cli.options import (
    POLICY_HELP,
    WORLD_HELP,
    DataOption,
    DurationOption,
    EngineOption,
    Hosts,
    ProblemOption,
    RoundRobinOption,
    SchemaOption,
    SortOption,
)

if TYPE_CHECKING:
    from simulator.cli.inputs import LoadedPlan
    from simulator.cli.worlds import LoadedWorld
    from simulator.sweep import Series, SweepResult
    from simulator.workload import Trace
    from simulator.workload.arrivals import TimesS


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command("run")(run_plan)
    app.command()(sweep)


def run_plan(
    plan: Annotated[Path, typer.Argument(help="Plan file.")],
    trace: Annotated[Path, typer.Option(help="Arrivals, in any schema, plain or .gz.")],
    problem: ProblemOption = None,
    data: DataOption = None,
    rate: Annotated[float | None, typer.Option(help="Rate of each DNN, requests/s.")] = None,
    load: Annotated[float, typer.Option(help="Where no rate is given: share of the planned throughput.")] = 0.9,
    duration: DurationOption = 30.0,
    policy: Annotated[str, typer.Option(help=f"{POLICY_HELP}.")] = "reservation",
    world: Annotated[Path | None, typer.Option(help=f"{WORLD_HELP}. [default: all as planned]")] = None,
    engine: EngineOption = "auto",
    schema: SchemaOption = "auto",
    sort: SortOption = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything that is random.")] = 0,
    round_robin: RoundRobinOption = False,
    dnn: Annotated[str | None, typer.Option(help="Simulate this DNN only. [default: all]")] = None,
    apart: Annotated[
        bool, typer.Option("--apart", help="Simulate each DNN in a run of its own. [default: all in one]")
    ] = False,
    layout: Annotated[
        Literal["native", "ppipe"],
        typer.Option(help="Of the records: native, or ppipe: OUT/<DNN>/master.csv and i-j.csv for its scripts."),
    ] = "native",
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("out/run"),
) -> None:
    """Simulate one plan: every request's record, and what the records say."""
    from simulator.cli.inputs import load_plans, load_trace, served_dnns, times_per_dnn
    from simulator.cli.worlds import load_world
    from simulator.engine import build_system, simulate
    from simulator.engine.run import require_runnable
    from simulator.results import ppipe_layout, summary
    from simulator.results.metrics import require_counted
    from simulator.results.tables import write_records, write_table
    from simulator.sweep import LARGEST_LOAD
    from simulator.workload import fold

    require_runnable(policy, engine)
    loaded = load_plans([plan], problem, data)[0]
    names = served_dnns(loaded, dnn)
    require_counted(duration)
    if not 0 < load <= LARGEST_LOAD / 100:
        raise InputError(f"--load: expected a share above 0 and at most {LARGEST_LOAD / 100:g}, got {load:g}")
    with about(plan):
        systems = {name: build_system(loaded.problem, loaded.plan, name) for name in names}
    different = load_world(world, problem, data) if world else None
    served = served_dnns(loaded, None)
    worlds = [different.of(systems[name], seed, served) for name in names] if different else None
    for each in worlds or ():
        require_runnable(policy, engine, each)
    recorded = load_trace(trace, schema, sort, seed)
    offered = times_per_dnn(recorded, names, round_robin)
    rates_rps = [load * loaded.plan.throughput_rps(name) if rate is None else rate for name in names]
    arrivals_us = [fold(offered[name], rate_rps, duration) for name, rate_rps in zip(names, rates_rps, strict=True)]
    runs = [[k] for k in range(len(names))] if apart else [list(range(len(names)))]
    found = {
        names[k]: records
        for run in runs
        for k, records in zip(
            run,
            simulate(
                [systems[names[k]] for k in run],
                [arrivals_us[k] for k in run],
                policy=policy,
                engine=engine,
                world=[worlds[k] for k in run] if worlds else None,
            ),
            strict=True,
        )
    }
    rows = []
    for name, rate_rps in zip(names, rates_rps, strict=True):
        records = found[name]
        if layout == "ppipe":
            ppipe_layout.write_run(records, out / name)
        else:
            write_records(records, out / f"{name}.records.csv")
        rows.append({"dnn": name, "rate_rps": rate_rps, "policy": policy, "engine": records.engine} | summary(records))
    write_table(rows, out / "summary.csv")
    save(loaded.problem, out / "problem.json")
    save(loaded.plan, out / "plan.json")
    what = {
        "schema": "run/1",
        "plan": loaded.name,
        "trace": trace.name,
        "duration_s": duration,
        "policy": policy,
        "seed": seed,
        "round_robin": round_robin,
        "apart": apart,
        "world": different.record if different else None,
        "plan_sha256": digest(loaded.plan),
        "problem_sha256": digest(loaded.problem),
        "versions": {name: version(name) for name in ("poolpipe", "numpy", "numba", "simpy")},
    }
    write_text(out / "run.json", json.dumps(what, indent=2) + "\n")
    _show_runs(rows)
    console.print(f"records, summary, plan and problem written to {out}", highlight=False, soft_wrap=True)


def sweep(
    plans: Annotated[
        list[Path], typer.Argument(help="Plan files; load factor 1 is their pipelines plan's throughput.")
    ],
    trace: Annotated[list[Path], typer.Option(help="Arrivals, in any schema (repeat for several).")],
    problem: ProblemOption = None,
    data: DataOption = None,
    policy: Annotated[list[str], typer.Option(help=f"{POLICY_HELP} (repeat for several).")] = ["reservation"],  # noqa: B006
    world: Annotated[
        list[Path] | None, typer.Option(help=f"{WORLD_HELP} (repeat for several). [default: all as planned]")
    ] = None,
    seed: Annotated[list[int], typer.Option(min=0, help="Seed of what is random (repeat for several).")] = [0],  # noqa: B006
    loads: Annotated[str, typer.Option(help="Load factors in percent: FIRST:LAST:STEP, or a list.")] = "100:5:5",
    duration: DurationOption = 30.0,
    target: Annotated[float, typer.Option(help="Attainment that counts as holding, a share.")] = 0.99,
    largest_only: Annotated[
        bool, typer.Option("--largest-only", help="Find only the largest load that holds; stop runs that fail.")
    ] = False,
    engine: EngineOption = "auto",
    schema: SchemaOption = "auto",
    sort: SortOption = False,
    round_robin: RoundRobinOption = False,
    jobs: Annotated[int, typer.Option(help="Processes. [default: all cores]", min=0)] = 0,
    engine_hosts: Annotated[Hosts, typer.Option(help="local, or ray: run on a Ray cluster.")] = "local",
    table: Annotated[
        Literal["csv", "parquet"], typer.Option("--format", help="Of the table of runs: csv or parquet.")
    ] = "csv",
    layout: Annotated[
        Literal["native", "ppipe"], typer.Option(help="ppipe: write logs.csv for its scripts as well.")
    ] = "native",
    out: Annotated[Path, typer.Option(help="Folder for the results; finished runs in it are not run again.")] = Path(
        "out/sweep"
    ),
) -> None:
    """Simulate plans × traces × loads × policies × seeds × worlds; a row per run, and each largest load that holds."""
    from simulator.cli.inputs import full_rates, load_plans, load_trace
    from simulator.cli.worlds import load_worlds
    from simulator.engine.run import require_runnable
    from simulator.results import ppipe_layout
    from simulator.results.tables import write_table
    from simulator.sweep import SweepOptions, run_sweep

    options = SweepOptions(_percents(loads), duration, engine, target, largest_only)
    for option, values in (("--trace", trace), ("--policy", policy), ("--seed", seed)):
        if len(set(values)) < len(values):
            raise InputError(f"{option}: expected each once, got {', '.join(map(str, values))}")
    for one_policy in policy:
        require_runnable(one_policy, engine)
    loaded = load_plans(plans, problem, data)
    full_rps = full_rates(loaded)
    worlds = load_worlds(world or [], problem, data)
    traces: dict[str, TimesS] = {}
    series: list[Series] = []
    for path in trace:
        for one_seed in seed:
            recorded = load_trace(path, schema, sort, one_seed)
            name = path.name if len({one.name for one in trace}) == len(trace) else str(path)
            name = name if len(seed) == 1 else f"{name} (seed {one_seed})"
            for one in loaded:
                names = _offer(traces, name, recorded, one, round_robin)
                series += _series(one, names, full_rps[one.name], policy, one_seed, worlds)
    with progress() as bar:
        task = bar.add_task("simulating, series", total=len(series))
        result = run_sweep(
            series,
            traces,
            options,
            folder=out,
            processes=jobs or os.cpu_count() or 1,
            hosts=engine_hosts,
            progress=lambda done, _: bar.update(task, completed=done),
        )
    if result.rows:
        _write_sweep(result, out / f"runs.{table}")
        if layout == "ppipe":
            plans_run = {one.name: (one.problem, one.plan) for one in loaded}
            write_table(ppipe_layout.log_rows(result.rows, plans_run, full_rps), out / "logs.csv")
    for failure in result.failures:
        errors.print(f"failed: {failure.series.plan}, {failure.series.dnn}, {failure.series.trace}: {failure.error}")
    if result.failures:
        raise typer.Exit(1)


def _offer(traces: dict[str, TimesS], name: str, recorded: Trace, one: LoadedPlan, round_robin: bool) -> dict[str, str]:
    """Add what the DNNs of a plan are offered to the traces of a sweep, and return DNN -> the name of its trace."""
    import numpy as np

    from simulator.cli.inputs import times_per_dnn

    offered = times_per_dnn(recorded, [dnn.name for dnn in one.problem.planned.dnns], round_robin)
    names = {dnn: f"{name} for {dnn}" if round_robin else name for dnn in offered}
    for dnn, times_s in offered.items():
        if not np.array_equal(traces.setdefault(names[dnn], times_s), times_s):
            raise InputError(
                f"--round-robin: {dnn} would get other functions in {one.name} than in a plan of other DNNs before; "
                "sweep them one after the other"
            )
    return names


def _series(
    one: LoadedPlan,
    traces: Mapping[str, str],
    full_rps: Mapping[str, float],
    policies: list[str],
    seed: int,
    worlds: Mapping[str, LoadedWorld],
) -> list[Series]:
    from simulator.sweep import series_of_plan

    served = [dnn.name for dnn in one.problem.planned.dnns if one.plan.of(dnn.name)]
    with about(Path(one.name)):
        return series_of_plan(
            one.name,
            one.problem,
            one.plan,
            {dnn: [name] for dnn, name in traces.items()},
            full_rps=full_rps,
            policies=policies,
            seeds=[seed],
            worlds={name: partial(world.of, dnns=served) for name, world in worlds.items()},
        )


def _percents(text: str) -> tuple[int, ...]:
    """Read ``100:5:5`` or ``100,90,50`` as percents.

    >>> _percents("100:80:10"), _percents("50,25")
    ((100, 90, 80), (50, 25))
    """
    try:
        if ":" not in text:
            return tuple(int(part) for part in text.split(","))
        first, last, step = (int(part) for part in text.split(":"))
        return tuple(range(max(first, last), min(first, last) - 1, -abs(step)))
    except ValueError:
        raise InputError(f"--loads: expected FIRST:LAST:STEP or a list of percents, got {text!r}") from None


def _write_sweep(result: SweepResult, path: Path) -> None:
    """Write the runs, and the largest loads beside them, and show these."""
    from simulator.results.tables import write_table

    write_table(result.rows, path)
    write_table(result.largest, path.with_name("largest.csv"))
    _show_largest(result)
    console.print(f"{len(result.rows)} runs in {path}", highlight=False, soft_wrap=True)


def _show_runs(rows: list[dict[str, Any]]) -> None:
    table = Table("DNN", "rate (req/s)", "requests", "within SLO", "dropped", "late", "p50 (ms)", "p99 (ms)", box=None)
    for row in rows:
        table.add_row(
            row["dnn"],
            f"{row['rate_rps']:.1f}",
            f"{row['requests']:,}",
            f"{row['attainment']:.2%}",
            f"{row['dropped']:,}",
            f"{row['late']:,}",
            f"{row['latency_p50_us'] / 1000:.1f}",
            f"{row['latency_p99_us'] / 1000:.1f}",
        )
    console.print(table)


def _show_largest(result: SweepResult) -> None:
    """Print the largest loads: the mean over plans, and over DNNs too where there are many."""
    import pandas as pd

    found = pd.DataFrame(result.largest)
    varying = [key for key in ("trace", "policy", "seed", "world") if found[key].nunique() > 1]
    keys = ["scheduler", *(["dnn"] if len(found) <= 24 else []), *varying]
    table = Table(*keys, "series", "largest load factor", box=None)
    for names, part in found.groupby(keys, sort=False)["largest_load_factor"]:
        table.add_row(*map(str, names), str(len(part)), f"{part.mean():.3f}")
    console.print(table)
