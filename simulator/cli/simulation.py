"""The command that simulates one plan at one load: ``run``. Sweeps over loads are in `simulator.cli.sweeping`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from planner.cli.app import about
from planner.cli.output import Column, JsonOption, output
from planner.files import file_name
from planner.model import InputError, digest
from simulator.cli import sweeping
from simulator.cli.options import (
    POLICY_HELP,
    WORLD_HELP,
    DataOption,
    DurationOption,
    EngineOption,
    OverwriteOption,
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
    from simulator.cli.inputs import Offered
    from simulator.dispatch.system import Pools, System
    from simulator.engine import World
    from simulator.engine.run import EngineName
    from simulator.results import Records

RUN_COLUMNS = {
    "dnn": Column("DNN"),
    "rate_rps": Column("rate (req/s)", "{:.4g}".format),
    "offered_rps": Column("offered (req/s)", "{:.4g}".format),
    "requests": Column("requests", "{:,}".format),
    "attainment": Column("within SLO", "{:.2%}".format),
    "dropped": Column("dropped", "{:,}".format),
    "late": Column("late", "{:,}".format),
    "latency_p50_us": Column("p50 (ms)", lambda us: f"{us / 1000:.1f}"),
    "latency_p99_us": Column("p99 (ms)", lambda us: f"{us / 1000:.1f}"),
}


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command("run")(run_plan)
    sweeping.register(app)


def run_plan(
    plan: Annotated[Path, typer.Argument(help="Plan file.")],
    trace: Annotated[Path, typer.Option(help="Arrivals, in any schema, plain or .gz.")],
    problem: ProblemOption = None,
    data: DataOption = None,
    rate: Annotated[float | None, typer.Option(help="Rate of each DNN, requests/s.")] = None,
    load: Annotated[
        float | None, typer.Option(help="Where no rate is given: share of the planned throughput. [default: 0.9]")
    ] = None,
    replay: ReplayOption = "fold",
    duration: DurationOption = 30.0,
    policy: Annotated[str, typer.Option(help=f"{POLICY_HELP}.")] = "reservation",
    world: Annotated[Path | None, typer.Option(help=f"{WORLD_HELP}. [default: all as planned]")] = None,
    engine: EngineOption = "auto",
    schema: SchemaOption = "auto",
    time_column: TimeColumnOption = None,
    unit: UnitOption = "s",
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
    unchecked: UncheckedOption = False,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("out/run"),
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Simulate one plan: every request's record, and what the records say.

    Of plans task by task (planner plan --scheduler per-task) each task has a central queue; the options of policies,
    worlds, and layouts are not for them.
    """
    from simulator.cli.inputs import Layout
    from simulator.cli.task_runs import is_task_plan, run_task_plan

    how = Layout(schema, time_column, unit, sort)
    if is_task_plan(plan):
        other = {"--policy": policy != "reservation", "--world": world, "--data": data, "--dnn": dnn, "--apart": apart}
        if named := [option for option, given in (other | {"--layout": layout != "native"}).items() if given]:
            raise InputError(f"{named[0]}: is not for plans task by task, which {plan} is; leave it out")
        run_task_plan(
            *(plan, problem, trace, how),
            rate=rate,
            load=load,
            replay=replay,
            duration_s=duration,
            engine=engine,
            seed=seed,
            round_robin=round_robin,
            unchecked=unchecked,
            out=out,
            overwrite=overwrite,
            as_json=as_json,
        )
        return
    from simulator.cli.folders import owned, write_what
    from simulator.cli.inputs import (
        checked,
        load_plans,
        load_trace,
        offer_all,
        served_dnns,
        times_per_dnn,
        trace_sha256,
    )
    from simulator.cli.worlds import load_world
    from simulator.engine import build_system
    from simulator.engine.plans import pools_of
    from simulator.engine.run import require_runnable
    from simulator.results.metrics import require_counted

    require_runnable(policy, engine)
    loaded = load_plans([plan], problem, data)[0]
    names = served_dnns(loaded, dnn)
    require_counted(duration)
    with about(plan):
        systems = {name: build_system(loaded.problem, loaded.plan, name) for name in names}
    loaded = checked(loaded, unchecked)
    pools = pools_of(loaded.plan, names)
    if pools and (apart or dnn):
        raise InputError(f"{plan}: its DNNs share pools; simulate them together, without --apart and --dnn")
    different = load_world(world, problem, data) if world else None
    if different and different.shares_pools() and (apart or dnn):
        raise InputError(f"{world}: switches: DNNs share pools; simulate them together, without --apart and --dnn")
    served = served_dnns(loaded, None)
    worlds = {name: different.of(systems[name], seed, served) for name in names} if different else {}
    for each in worlds.values():
        require_runnable(policy, engine, each)
    recorded = load_trace(trace, how, seed)
    offered = times_per_dnn(recorded, names, round_robin)
    arrivals = offer_all(
        offered, loaded.plan, replay, rate=rate, load=load, default=0.9, duration_s=duration, seed=seed
    )
    what = {
        "schema": "run/1",
        "plan": loaded.name,
        "trace": trace.name,
        "trace_sha256": trace_sha256(recorded),
        "rate_rps": {name: one.rate_rps for name, one in arrivals.items()},
        "replay": replay,
        "duration_s": duration,
        "policy": policy,
        "engine": engine,
        "layout": layout,
        "seed": seed,
        "round_robin": round_robin,
        "apart": apart,
        "world": different.record if different else None,
        "constraints_broken": list(loaded.violations),
        "plan_sha256": digest(loaded.plan),
        "problem_sha256": digest(loaded.problem),
        "versions": {name: version(name) for name in ("poolpipe", "numpy", "numba", "simpy")},
    }
    with owned(out, what, overwrite=overwrite, again=True):
        found: dict[str, Records] = {}
        for together in [[name] for name in names] if apart else [names]:
            found |= _simulated(together, systems, arrivals, worlds, policy, engine, pools)
        takeovers = [(one.problem, one.plan) for one in different.plans] if different else []
        write_what(out, what, loaded.problem, loaded.plan, takeovers)
        rows = _write(found, arrivals, pools, policy, layout, out)
    with output(as_json) as printed:
        printed.table("runs", RUN_COLUMNS, rows)
        printed.value("constraints_broken", loaded.violations)
        if loaded.violations:
            printed.line(f"note: the plan breaks {len(loaded.violations)} constraints, first: {loaded.violations[0]}")
        printed.line(f"records, summary, plan and problem written to {out}")


def _simulated(
    names: Sequence[str],
    systems: Mapping[str, System],
    arrivals: Mapping[str, Offered],
    worlds: Mapping[str, World],
    policy: str,
    engine: EngineName,
    pools: Sequence[Pools] | None,
) -> dict[str, Records]:
    """Return the records of some DNNs in one run."""
    from simulator.engine import simulate

    records = simulate(
        [systems[name] for name in names],
        [arrivals[name].arrivals_us for name in names],
        policy=policy,
        engine=engine,
        world=[worlds[name] for name in names] if worlds else None,
        pools=pools,
    )
    return dict(zip(names, records, strict=True))


def _write(
    found: Mapping[str, Records],
    offered: Mapping[str, Offered],
    pools: Sequence[Pools] | None,
    policy: str,
    layout: Literal["native", "ppipe"],
    out: Path,
) -> list[dict[str, Any]]:
    """Write the records of every DNN, and what they say; return the rows of the summary."""
    from simulator.results import ppipe_layout, summary
    from simulator.results.sequences import sequence_tables
    from simulator.results.tables import write_records, write_table

    rows: list[dict[str, Any]] = []
    for name, records in found.items():
        one = offered[name]
        if layout == "ppipe":
            ppipe_layout.write_run(records, out / file_name(name))
        else:
            write_records(records, out / f"{file_name(name)}.records.csv")
        said = {"dnn": name, "rate_rps": one.rate_rps, "offered_rps": one.offered_rps, "policy": policy}
        rows.append(said | {"engine": records.engine} | summary(records))
        write_table(rows, out / "summary.csv")
    write_table(sequence_tables(list(found.values()), pools), out / "sequences.csv")
    return rows
