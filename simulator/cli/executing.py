"""The command that runs plans on real devices.

Its folder has the files of a simulated run (records, summary, plan, problem), and what only a real one measures.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from planner.cli.app import INTERRUPTED, errors
from planner.cli.output import Column, JsonOption, Output, output
from planner.files import file_name, printable
from planner.model import InputError, digest
from simulator.cli import splitting
from simulator.cli.execute_options import (
    USUAL_LOAD,
    ClusterOption,
    DnnOption,
    DurationOption,
    EmulateNetworkOption,
    GuardOption,
    InFlightOption,
    InputsOption,
    LoadOption,
    ModelsOption,
    OutOption,
    PlanArgument,
    PolicyOption,
    ProblemOption,
    ProviderOption,
    RateOption,
    RealtimeOption,
    RoundRobinOption,
    SchemaOption,
    SeedOption,
    TogetherOption,
    ToleranceOption,
    TraceOption,
    VerifyOption,
    WarmUpOption,
    WithComparisonOption,
)
from simulator.cli.options import (
    CoresOption,
    OversubscribeOption,
    OverwriteOption,
    ReplayOption,
    SlowdownOption,
    TimeColumnOption,
    UncheckedOption,
    UnitOption,
)

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from planner.model import Profile
    from simulator.cli.demand import Demand, Offered
    from simulator.cli.plan_files import LoadedPlan
    from simulator.executor import Execution, Settings
    from simulator.executor.bounds import Bounds
    from simulator.executor.compare import Comparison
    from simulator.executor.hand_over import HandOver
    from simulator.executor.measure import Measurement
    from simulator.workload.arrivals import ArrivalsUs

CPU = "CPUExecutionProvider"
FRONTEND_FULL = 0.7  # of a core: above, requests wait for the frontend


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command("execute")(execute_plan)
    splitting.register(app)


def execute_plan(
    plan: PlanArgument,
    models: ModelsOption,
    trace: TraceOption,
    problem: ProblemOption = None,
    rate: RateOption = None,
    load: LoadOption = None,
    replay: ReplayOption = "fold",
    duration: DurationOption = 30.0,
    warm_up: WarmUpOption = 1.0,
    schema: SchemaOption = "auto",
    time_column: TimeColumnOption = None,
    unit: UnitOption = "s",
    round_robin: RoundRobinOption = False,
    dnn: DnnOption = None,
    together: TogetherOption = False,
    policy: PolicyOption = "reservation",
    guard: GuardOption = 0.05,
    in_flight: InFlightOption = None,
    verify: VerifyOption = False,
    tolerance: ToleranceOption = None,
    inputs: InputsOption = None,
    with_comparison: WithComparisonOption = False,
    provider: ProviderOption = CPU,
    cluster: ClusterOption = "local",
    realtime: RealtimeOption = False,
    oversubscribe: OversubscribeOption = False,
    cores: CoresOption = None,
    slowdown: SlowdownOption = None,
    emulate_network: EmulateNetworkOption = False,
    seed: SeedOption = 0,
    unchecked: UncheckedOption = False,
    out: OutOption = Path("out/execute"),
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run a plan on real devices: a worker per slice, batches dispatched as in the simulator, on a real clock."""
    from simulator.cli.demand import Demand, TraceFormat
    from simulator.cli.devices import emulation_of, load_profiled, model_file
    from simulator.cli.executing_together import ALSO, run_together
    from simulator.cli.folders import owned
    from simulator.cli.plan_files import checked, load_plans, served_dnns
    from simulator.engine import build_system
    from simulator.engine.plans import pools_of
    from simulator.executor import Settings, check_settings
    from simulator.results.metrics import require_counted

    loaded = load_plans([plan], problem)[0]
    names = served_dnns(loaded, dnn)
    if pools_of(loaded.plan, names) and (dnn or not together):
        raise InputError(f"{plan}: its DNNs share pools; run them --together, without --dnn")
    require_counted(duration, round(1e6 * warm_up))
    profiles = _profiles(loaded, names)
    types = [device.name for device in loaded.problem.cluster.device_types]
    settings = Settings(
        policy=policy,
        guard_fraction=guard,
        in_flight=in_flight,
        warmup_s=warm_up,
        verify=verify,
        tolerance=tolerance,
        inputs="" if inputs is None else str(inputs),
        provider=provider,
        cluster=cluster,
        realtime=realtime,
        oversubscribe=oversubscribe,
        emulation=emulation_of(cores, slowdown, emulate_network, types, list(profiles.values())),
        seed=seed,
    )
    for name in names:
        check_settings(settings, build_system(loaded.problem, loaded.plan, name), ALSO if together else ())
    samples = {name: _samples(inputs, name) for name in names}
    loaded = checked(loaded, unchecked)
    given = {variant: load_profiled(model_file(models, variant), profile) for variant, profile in profiles.items()}
    form = TraceFormat(schema, time_column, unit)
    demand = Demand(trace, form, replay, rate, load, USUAL_LOAD, duration, seed, round_robin)
    offered = demand.offered(demand.read(), names, loaded.plan)
    what = _what(loaded, settings, demand)
    with owned(out, what, overwrite=overwrite), output(as_json) as printed:
        if together:
            run_together(loaded, given, offered, settings, samples, what, out, printed)
        else:
            _run_apart(loaded, given, offered, settings, samples, what, out, with_comparison, printed)


def _run_apart(
    loaded: LoadedPlan,
    models: dict[str, ir.Model],
    offered: dict[str, Offered],
    settings: Settings,
    samples: dict[str, list[dict[str, np.ndarray]] | None],
    what: dict[str, Any],
    out: Path,
    with_comparison: bool,
    printed: Output,
) -> None:
    """Run DNNs one after the other, write and show what came of each."""
    from simulator.cli.folders import write_what
    from simulator.executor.bounds import bounds_of
    from simulator.results.tables import write_table

    rows: list[dict[str, Any]] = []
    for name, one in offered.items():
        run = _run(loaded, name, models, one.arrivals_us, settings, samples[name])
        if not rows:  # nothing is written before a run came about
            write_what(out, what, loaded.problem, loaded.plan)
        said = {"dnn": name, "rate_rps": one.rate_rps, "offered_rps": one.offered_rps}
        rows.append(said | _write_run(run, out))
        write_table(rows, out / "summary.csv")
        _require_answers(run, out)
        printed.value("runs", rows)
        _measure(run, out, with_comparison, bounds_of(loaded.problem, loaded.plan, name), printed)
    printed.line(f"records and measurements written to {out}")


def _profiles(loaded: LoadedPlan, names: list[str]) -> dict[str, Profile]:
    """Return the profiles of the variants that DNNs are served with; an application's, those of its tasks."""
    from simulator.executor.chained import tasks_of

    pipelines = [pipeline for name in names for pipeline in loaded.plan.of(name)]
    return {
        profile.name: profile
        for pipeline in pipelines
        for profile in tasks_of(loaded.problem, pipeline.dnn, pipeline.variant)
    }


def _samples(inputs: Path | None, name: str) -> list[dict[str, np.ndarray]] | None:
    """Return what the requests of a DNN bring, None where it is to be drawn."""
    from planner.files.inputs import load_inputs

    if inputs is None:
        return None
    own = [inputs / f"{name}.npz", inputs / name]
    return load_inputs(next((path for path in own if path.exists()), inputs))


def _require_answers(run: Execution, out: Path) -> None:
    """Refuse a run that answered nothing: it measured nothing, and whoever asked for it is to know."""
    if run.interrupted or run.records.finished.any():
        return
    incidents = run.journal.incidents
    first = f"; first of {len(incidents)} incidents: {incidents[0].slice}: {incidents[0].what}" if incidents else ""
    raise InputError(
        f"{run.system.dnn}: none of {len(run.records)} requests was answered{first}; what happened is in {out}"
    )


def _run(
    loaded: LoadedPlan,
    name: str,
    models: dict[str, ir.Model],
    arrivals_us: ArrivalsUs,
    settings: Settings,
    samples: list[dict[str, np.ndarray]] | None,
) -> Execution:
    """Run one DNN, and tell how far it is.

    A line of text once a second: a progress bar would take milliseconds of the frontend's time to draw.
    """
    from simulator.executor import execute

    next_us = 0

    def tell(text: str) -> None:
        if errors.is_terminal:
            errors.file.write(f"\r\x1b[K{printable(text)}")
            errors.file.flush()

    def tick(now_us: int) -> None:
        nonlocal next_us
        if now_us >= next_us:
            next_us = now_us + 1_000_000
            tell(
                f"{name}: {arrivals_us.searchsorted(now_us, side='right')} of {len(arrivals_us)} requests have arrived"
            )

    tell(f"{name}: starting workers")
    try:
        return execute(loaded.problem, loaded.plan, name, models, arrivals_us, settings, inputs=samples, tick=tick)
    finally:
        tell("")


def _what(loaded: LoadedPlan, settings: Settings, demand: Demand) -> dict[str, Any]:
    """Return what is run, as a simulation says it."""
    return {
        "schema": "run/1",
        "plan": loaded.name,
        "trace": demand.trace.name,
        "replay": demand.replay,
        "duration_s": demand.duration_s,
        "policy": settings.policy,
        "seed": settings.seed,
        "inputs": settings.inputs or "random",
        "emulated": settings.emulation.describe() or "nothing",
        "constraints_broken": list(loaded.violations),
        "plan_sha256": digest(loaded.plan),
        "problem_sha256": digest(loaded.problem),
        "versions": {name: version(name) for name in ("poolpipe", "numpy", "numba", "onnxruntime")},
    }


def _write_run(run: Execution, folder: Path) -> dict[str, Any]:
    """Write what happened in a run, and return what its records say."""
    from simulator.executor.report import write_incidents
    from simulator.results import summary
    from simulator.results.tables import write_records

    write_records(run.records, folder / f"{file_name(run.system.dnn)}.records.csv")
    write_incidents(run, folder)
    said = {"policy": run.settings.policy, "engine": run.records.engine}
    return said | summary(run.records, round(1e6 * run.settings.warmup_s))


def _measure(run: Execution, folder: Path, with_comparison: bool, bounds: Bounds | None, printed: Output) -> None:
    """Write and show what a run measured; raises InputError if its figures or its answers cannot be right."""
    from simulator.executor.compare import compare
    from simulator.executor.hand_over import hand_over
    from simulator.executor.measure import measure
    from simulator.executor.report import write_comparison, write_measurement
    from simulator.executor.variation import service_factors

    name = run.system.dnn
    if run.interrupted:
        errors.print(f"stopped; what was finished is in {folder}")
        sys.exit(INTERRUPTED)
    measurement = measure(run)
    write_measurement(run, measurement, folder)
    _show(run, measurement, printed)
    if with_comparison:
        costs = hand_over(run)
        _tell_costs(run, costs, printed)
        comparison = compare(run, costs, bounds, service_factors(run))
        write_comparison(comparison, folder)
        _show_comparison(run, comparison, printed)
        if bounds is not None and not bounds.is_bound.any():
            printed.line(f"{name} relies on no bound: every latency that its plan adds up was measured")
    if run.verdict is not None and run.verdict.wrong:
        raise InputError(f"{name}: {run.verdict}")


def _tell_costs(run: Execution, costs: HandOver | None, printed: Output) -> None:
    """Say what handing over takes, and where the frontend is the limit."""
    from simulator.executor.hand_over import LEAST_BATCHES

    if costs is None:
        errors.print(
            f"note: fewer than {LEAST_BATCHES} batches of a pipeline were answered in the warm-up: what handing over "
            "takes is not in the prediction; choose a longer --warm-up"
        )
        return
    added_ms = max(costs.per_batch_us(pipeline) for pipeline in range(len(costs.ways_us))) / 1000
    sent = sum(batch.sent_us >= run.window_us[0] for batch in run.journal.batches)
    rate = sent / ((run.window_us[1] - run.window_us[0]) / 1e6)
    printed.line(
        f"hand-over, measured in the warm-up: {added_ms:.2f} ms a batch; the frontend takes {costs.frontend_us:.0f} µs "
        f"of CPU time a batch, so that one serves {costs.largest_rate:.0f} batches/s at most ({rate:.0f} now)"
    )
    if rate > FRONTEND_FULL * costs.largest_rate:
        errors.print("note: the frontend is the limit at this rate; plan larger batches, or run more frontends")


SLICE_COLUMNS = {
    "slice": Column("slice"),
    "device": Column("device"),
    "requests_per_s": Column("requests/s", "{:.1f}".format),
    "busy": Column("busy", "{:.1%}".format),
    "bubble": Column("bubble", "{:.1%}".format),
    "cpu": Column("CPU", "{:.2f}".format),
    "memory_bytes": Column("MB", lambda size: f"{size / 1e6:.0f}"),
}
COMPARISON_COLUMNS = {
    "quantity": Column(""),
    "unit": Column("unit"),
    "predicted": Column("simulated", "{:.4g}".format),
    "measured": Column("measured", "{:.4g}".format),
    "text": Column("difference"),
}


def _show(run: Execution, measurement: Measurement, printed: Output) -> None:
    from simulator.results import attainment

    name = run.system.dnn
    printed.line(
        f"{name}: {measurement.throughput}, attainment {attainment(run.records, run.window_us[0]):.2%} of "
        f"{len(run.records)} requests"
    )
    printed.line(f"Little's law: {measurement.little}")
    if run.emulated:
        printed.line(f"emulated: {run.emulated}")
    if run.verdict:
        printed.line(f"verified: {run.verdict}")
    rows = [asdict(each) | {"slice": f"{each.pipeline}.{each.stage}.{each.slice}"} for each in measurement.slices]
    printed.table(f"{name}: slices", SLICE_COLUMNS, rows)
    if measurement.disturbed:
        errors.print(
            f"note: {len(measurement.disturbed)} of {len(measurement.slices)} slices were kept from their cores, by "
            "other programs or by each other; these figures are not the plan's"
        )
    if run.journal.incidents:
        errors.print(f"note: {len(run.journal.incidents)} incidents, see {file_name(name)}.incidents.csv")


def _show_comparison(run: Execution, comparison: Comparison, printed: Output) -> None:
    rows = [asdict(row) | {"text": row.text} for row in comparison.rows]
    printed.table(f"{run.system.dnn}: comparison", COMPARISON_COLUMNS, rows)
