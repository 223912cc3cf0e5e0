"""The command that simulates many plans over loads: ``sweep``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from planner.cli.app import about, errors, progress
from planner.cli.output import Column, JsonOption, Output, output
from planner.model import InputError
from simulator.cli.options import (
    POLICY_HELP,
    WORLD_HELP,
    DataOption,
    DurationOption,
    EngineOption,
    Hosts,
    ProblemOption,
    ReplayOption,
    RoundRobinOption,
    SchemaOption,
    SortOption,
    TimeColumnOption,
    UncheckedOption,
    UnitOption,
)

if TYPE_CHECKING:
    from simulator.cli.demand import TraceFormat
    from simulator.cli.plan_files import LoadedPlan
    from simulator.cli.worlds import LoadedWorld
    from simulator.sweep import Series, SweepResult
    from simulator.workload import Trace
    from simulator.workload.arrivals import TimesS

MOST_LOADS = 10_000


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command()(sweep)


def sweep(
    plans: Annotated[
        list[Path], typer.Argument(help="Plan files; load factor 1 is the throughput of the reference among them.")
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
    reference: Annotated[
        Path | None,
        typer.Option(
            help="The plan whose throughput is load factor 1. [default: of the pipelines plans of the same DNNs and "
            "devices, else of all, the one that serves the DNN most]"
        ),
    ] = None,
    replay: ReplayOption = "fold",
    duration: DurationOption = 30.0,
    target: Annotated[float, typer.Option(help="Attainment that counts as holding, a share.")] = 0.99,
    largest_only: Annotated[
        bool, typer.Option("--largest-only", help="Find only the largest load that holds; stop runs that fail.")
    ] = False,
    engine: EngineOption = "auto",
    schema: SchemaOption = "auto",
    time_column: TimeColumnOption = None,
    unit: UnitOption = "s",
    sort: SortOption = False,
    round_robin: RoundRobinOption = False,
    jobs: Annotated[int, typer.Option(help="Processes. [default: all cores]", min=0, max=1000)] = 0,
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
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the results of another sweep or run in the output folder.")
    ] = False,
    unchecked: UncheckedOption = False,
    as_json: JsonOption = False,
) -> None:
    """Simulate plans × traces × loads × policies × seeds × worlds; a row per run, and each largest load that holds."""
    from simulator.cli.demand import TraceFormat
    from simulator.cli.folders import held, require_no_run
    from simulator.cli.plan_files import checked, load_plans, references
    from simulator.cli.worlds import load_worlds
    from simulator.engine.run import require_runnable
    from simulator.sweep import SweepOptions, run_sweep

    options = SweepOptions(_percents(loads), duration, engine, target, largest_only, replay)
    _require_each_once({"--trace": trace, "--policy": policy, "--seed": seed})
    for one_policy in policy:
        require_runnable(one_policy, engine)
    loaded = load_plans(plans, problem, data)
    refer = references(loaded, reference)
    worlds = load_worlds(world or [], problem, data)
    _refuse_shared_pools(loaded, worlds)
    traces: dict[str, TimesS] = {}
    series: list[Series] = []
    for one_seed, name, recorded in _recorded(trace, seed, TraceFormat(schema, time_column, unit, sort)):
        for one in loaded:
            names = _offer(traces, name, recorded, one, round_robin)
            series += _series(one, names, refer[one.name], policy, one_seed, worlds)
    loaded = [checked(one, unchecked) for one in loaded]
    with held(out):
        require_no_run(out, overwrite)
        with progress() as bar:
            task = bar.add_task("simulating, series", total=len(series))
            result = run_sweep(
                series,
                traces,
                options,
                folder=out,
                overwrite=overwrite,
                processes=jobs or os.cpu_count() or 1,
                hosts=engine_hosts,
                progress=lambda done, _: bar.update(task, completed=done),
            )
        if result.rows:
            _write(result, loaded, refer, out, table, layout)
    if result.rows:
        with output(as_json) as printed:
            printed.value("runs", result.rows)
            _show_largest(printed, result.largest)
            printed.line(f"{len(result.rows)} runs in {out / f'runs.{table}'}")
    for failure in result.failures:
        errors.print(f"failed: {failure.series.plan}, {failure.series.dnn}, {failure.series.trace}: {failure.error}")
    if result.failures:
        raise typer.Exit(1)


def _require_each_once(options: Mapping[str, Sequence[object]]) -> None:
    for option, values in options.items():
        if len(set(values)) < len(values):
            raise InputError(f"{option}: expected each once, got {', '.join(map(str, values))}")


def _refuse_shared_pools(plans: Sequence[LoadedPlan], worlds: Mapping[str, LoadedWorld]) -> None:
    for one in plans:
        if any(stage.pool for pipeline in one.plan.pipelines for stage in pipeline.stages):
            raise InputError(
                f"{one.path}: its DNNs share pools, a sweep simulates each DNN apart; use run, load by load"
            )
    for different in worlds.values():
        if different.shares_pools():
            raise InputError(
                f"{different.path}: switches: DNNs share pools, a sweep simulates each apart; use run, load by load"
            )


def _recorded(paths: Sequence[Path], seeds: Sequence[int], form: TraceFormat) -> Iterator[tuple[int, str, Trace]]:
    """Yield every trace with every seed, and what it is called: by its file's name where that is enough."""
    from simulator.cli.demand import load_trace

    short = len({path.name for path in paths}) == len(paths)
    for path in paths:
        for seed in seeds:
            recorded = load_trace(path, form, seed)
            name = path.name if short else str(path)
            yield seed, f"{name} (seed {seed})" if recorded.spread else name, recorded


def _write(
    result: SweepResult,
    plans: Sequence[LoadedPlan],
    refer: Mapping[str, Mapping[str, LoadedPlan]],
    out: Path,
    table: Literal["csv", "parquet"],
    layout: Literal["native", "ppipe"],
) -> None:
    """Write the tables of a sweep in the place of those of another format that lie there."""
    from simulator.results import ppipe_layout
    from simulator.results.tables import write_table

    for row in (*result.rows, *result.largest):
        if broken := next(len(one.violations) for one in plans if one.name == row["plan"]):
            row["constraints_broken"] = broken
    write_table(result.rows, out / f"runs.{table}")
    (out / f"runs.{'parquet' if table == 'csv' else 'csv'}").unlink(missing_ok=True)
    write_table(result.largest, out / "largest.csv")
    (out / "logs.csv").unlink(missing_ok=True)
    if layout == "ppipe":
        plans_run = {one.name: (one.problem, one.plan) for one in plans}
        full_rps = {plan: {dnn: to.plan.throughput_rps(dnn) for dnn, to in of.items()} for plan, of in refer.items()}
        write_table(ppipe_layout.log_rows(result.rows, plans_run, full_rps), out / "logs.csv")


def _offer(traces: dict[str, TimesS], name: str, recorded: Trace, one: LoadedPlan, round_robin: bool) -> dict[str, str]:
    """Add what the DNNs of a plan are offered to the traces of a sweep, and return DNN -> the name of its trace."""
    import numpy as np

    from simulator.cli.demand import times_per_dnn

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
    refer: Mapping[str, LoadedPlan],
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
            references={dnn: (to.name, to.plan) for dnn, to in refer.items()},
            policies=policies,
            seeds=[seed],
            worlds={name: partial(world.of, dnns=served) for name, world in worlds.items()},
        )


def _percents(text: str) -> tuple[float, ...]:
    """Read ``100:5:5`` or ``100,92.5,50`` as percents.

    >>> _percents("100:80:10"), _percents("50,92.5"), _percents("100:95:2.5")
    ((100, 90, 80), (50, 92.5), (100, 97.5, 95))
    """
    try:
        numbers = [Decimal(part.strip()) for part in text.split(":" if ":" in text else ",")]
        if ":" in text:
            first, last, step = numbers
            least, step = min(first, last), abs(step)
            if abs(first - last) / step > MOST_LOADS:
                raise InputError(f"--loads: expected at most {MOST_LOADS} loads, got {text!r}")
            numbers = [max(first, last) - number * step for number in range(int(abs(first - last) / step) + 1)]
            numbers = [number for number in numbers if number >= least]
        return tuple(int(number) if number == number.to_integral_value() else float(number) for number in numbers)
    except (ArithmeticError, ValueError):
        raise InputError(f"--loads: expected FIRST:LAST:STEP or a list of percents, got {text!r}") from None


def _show_largest(printed: Output, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the largest loads: the mean over plans, and over DNNs too where there are many."""
    import pandas as pd

    printed.value("largest", rows)
    found = pd.DataFrame(rows)
    varying = [key for key in ("plan", "trace", "policy", "seed", "world") if found[key].nunique() > 1]
    if "plan" in varying and (len(found) > 24 or found.groupby("scheduler")["plan"].nunique().max() == 1):
        varying.remove("plan")
    keys = ["scheduler", *(["dnn"] if len(found) <= 24 else []), *varying]
    heads = {"dnn": "DNN"} | {key: key for key in keys if key != "dnn"}
    columns = {key: Column(heads[key]) for key in keys}
    columns |= {"reference": Column("load 1 is that of")} if found["reference"].nunique() <= 3 else {}
    columns |= {
        "series": Column("series"),
        "largest_load_factor": Column("largest load factor that holds", "{:.3f}".format),
        "holds_up_to": Column("all hold up to", "{:.3f}".format),
    }
    shown: list[dict[str, Any]] = []
    for names, part in found.groupby(keys, sort=False):
        mean = {key: float(part[key].mean()) for key in ("largest_load_factor", "holds_up_to")}
        said = dict(zip(keys, map(str, names), strict=True)) | {"series": len(part)}
        said["reference"] = ", ".join(sorted(set(part["reference"])))
        shown.append(said | {key: None if value != value else value for key, value in mean.items()})
    if not printed.as_json:
        printed.table("means", columns, shown)
    if any(row["holds_up_to"] is not None and row["holds_up_to"] < row["largest_load_factor"] for row in rows):
        printed.line("a load below the largest that holds does not: attainment need not fall with the load")
