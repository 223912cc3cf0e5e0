"""The command that simulates one plan at one load: ``run``. Sweeps over loads are in `simulator.cli.sweeping`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from planner.cli.app import about
from planner.cli.output import JsonOption, output
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
from simulator.cli.run_tables import RUN_COLUMNS, show_written

if TYPE_CHECKING:
    from simulator.cli.demand import Demand, Offered
    from simulator.cli.plan_files import LoadedPlan
    from simulator.cli.worlds import LoadedWorld
    from simulator.dispatch.system import Pools, System
    from simulator.engine import World
    from simulator.engine.run import EngineName
    from simulator.results import Records

USUAL_LOAD = 0.9  # of the planned throughput


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
        float | None,
        typer.Option(help=f"Where no rate is given: share of the planned throughput. [default: {USUAL_LOAD}]"),
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
    from simulator.cli.demand import Demand, TraceFormat
    from simulator.cli.folders import owned, write_what
    from simulator.cli.task_runs import is_task_plan, run_task_plan
    from simulator.results.metrics import require_counted

    form = TraceFormat(schema, time_column, unit, sort)
    demand = Demand(trace, form, replay, rate, load, USUAL_LOAD, duration, seed, round_robin)
    if is_task_plan(plan):
        other = {"--policy": policy != "reservation", "--world": world, "--data": data, "--dnn": dnn, "--apart": apart}
        if named := [option for option, given in (other | {"--layout": layout != "native"}).items() if given]:
            raise InputError(f"{named[0]}: is not for plans task by task, which {plan} is; leave it out")
        run_task_plan(plan, problem, demand, engine, unchecked, out, overwrite, as_json)
        return
    require_counted(duration)
    case = _read(plan, problem, data, world, seed, dnn, apart, policy, engine, unchecked)
    loaded = case.loaded
    recorded = demand.read()
    offered = demand.offered(recorded, list(case.systems), loaded.plan)
    what = _what(case, demand, demand.record(recorded, offered), layout)
    with owned(out, what, overwrite=overwrite, again=True):
        found = _simulated(case, offered)
        takeovers = [(one.problem, one.plan) for one in case.different.plans] if case.different else []
        write_what(out, what, loaded.problem, loaded.plan, takeovers)
        rows = _write(found, offered, case, layout, out)
    with output(as_json) as printed:
        printed.table("runs", RUN_COLUMNS, rows)
        show_written(printed, loaded.violations, out)


@dataclass(frozen=True)
class _Case:
    """What is simulated: DNNs of a plan, together or each apart, as planned or in a world, by a policy on an engine."""

    loaded: LoadedPlan
    systems: Mapping[str, System]
    pools: Sequence[Pools] | None
    apart: bool
    policy: str
    engine: EngineName
    different: LoadedWorld | None = None
    worlds: Mapping[str, World] = field(default_factory=dict)


def _read(
    plan: Path,
    problem: Path | None,
    data: Path | None,
    world: Path | None,
    seed: int,
    dnn: str | None,
    apart: bool,
    policy: str,
    engine: EngineName,
    unchecked: bool,
) -> _Case:
    """Return what is simulated; raises InputError where it cannot be."""
    from simulator.cli.plan_files import checked, load_plans, served_dnns
    from simulator.cli.worlds import load_world
    from simulator.engine import build_system
    from simulator.engine.plans import pools_of
    from simulator.engine.run import require_runnable

    require_runnable(policy, engine)
    loaded = load_plans([plan], problem, data)[0]
    names, alone = served_dnns(loaded, dnn), apart or dnn is not None
    with about(plan):
        systems = {name: build_system(loaded.problem, loaded.plan, name) for name in names}
    loaded = checked(loaded, unchecked)
    pools = pools_of(loaded.plan, names)
    if pools and alone:
        raise InputError(f"{plan}: its DNNs share pools; simulate them together, without --apart and --dnn")
    case = _Case(loaded, systems, pools, apart, policy, engine)
    if world is None:
        return case
    different = load_world(world, problem, data)
    if different.shares_pools() and alone:
        raise InputError(f"{world}: switches: DNNs share pools; simulate them together, without --apart and --dnn")
    served = served_dnns(loaded, None)
    worlds = {name: different.of(system, seed, served) for name, system in systems.items()}
    for each in worlds.values():
        require_runnable(policy, engine, each)
    return replace(case, different=different, worlds=worlds)


def _what(
    case: _Case, demand: Demand, arrivals: Mapping[str, Any], layout: Literal["native", "ppipe"]
) -> dict[str, Any]:
    """Return what is run; equal runs have equal results."""
    loaded = case.loaded
    return {
        "schema": "run/1",
        "plan": loaded.name,
        **arrivals,
        "policy": case.policy,
        "engine": case.engine,
        "layout": layout,
        "seed": demand.seed,
        "round_robin": demand.round_robin,
        "apart": case.apart,
        "world": case.different.record if case.different else None,
        "constraints_broken": list(loaded.violations),
        "plan_sha256": digest(loaded.plan),
        "problem_sha256": digest(loaded.problem),
        "versions": {name: version(name) for name in ("poolpipe", "numpy", "numba", "simpy")},
    }


def _simulated(case: _Case, offered: Mapping[str, Offered]) -> dict[str, Records]:
    """Return the records of every DNN."""
    from simulator.engine import simulate

    found: dict[str, Records] = {}
    for names in [[name] for name in case.systems] if case.apart else [list(case.systems)]:
        records = simulate(
            [case.systems[name] for name in names],
            [offered[name].arrivals_us for name in names],
            policy=case.policy,
            engine=case.engine,
            world=[case.worlds[name] for name in names] if case.worlds else None,
            pools=case.pools,
        )
        found |= zip(names, records, strict=True)
    return found


def _write(
    found: Mapping[str, Records],
    offered: Mapping[str, Offered],
    case: _Case,
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
        said = {"dnn": name, "rate_rps": one.rate_rps, "offered_rps": one.offered_rps, "policy": case.policy}
        rows.append(said | {"engine": records.engine} | summary(records))
        write_table(rows, out / "summary.csv")
    write_table(sequence_tables(list(found.values()), case.pools), out / "sequences.csv")
    return rows
