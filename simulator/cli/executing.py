"""Commands that run plans on real devices."""

import sys
from pathlib import Path
from typing import Annotated

import onnx_ir as ir
import typer
from rich.table import Table

from planner.cli.app import console, errors, progress
from planner.files import load_plan, load_problem
from planner.files.models import load_model, model_sha256
from planner.model import InputError, Plan, Problem
from simulator.executor.compare import Comparison, compare
from simulator.executor.devices import CPU, Emulation
from simulator.executor.execution import Execution, Settings, execute
from simulator.executor.measure import Measurement, measure
from simulator.executor.report import write_comparison, write_incidents, write_measurement
from simulator.results import attainment
from simulator.workload import assign, fold, read_trace
from simulator.workload.arrivals import ArrivalsUs

PlanFile = Annotated[Path, typer.Argument(help="Plan file (JSON).")]
ProblemFile = Annotated[
    Path | None, typer.Option("--problem", help="The problem of the plan. [default: problem.json or .toml beside it]")
]
ModelsFolder = Annotated[Path, typer.Option(help="Folder with <variant>.onnx, the files that were profiled.")]
TraceFile = Annotated[Path, typer.Option(help="Arrivals, in any schema, plain or .gz.")]
OutFolder = Annotated[Path, typer.Option(help="Folder for the results.")]
Rate = Annotated[
    float | None, typer.Option(help="Rate of each DNN, requests/s. [default: --load times its planned throughput]")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    app.command("execute")(execute_plan)


def execute_plan(
    plan: PlanFile,
    models: ModelsFolder,
    trace: TraceFile,
    out: OutFolder = Path("out/execute"),
    problem: ProblemFile = None,
    rate: Rate = None,
    load: Annotated[float, typer.Option(help="Load factor, where no rate is given.")] = 0.5,
    duration: Annotated[float, typer.Option(help="Length of the run, s.")] = 30.0,
    warm_up: Annotated[float, typer.Option(help="Served but not measured at the beginning, s.")] = 1.0,
    dnn: Annotated[str | None, typer.Option(help="Run this DNN only. [default: all, one after the other]")] = None,
    policy: Annotated[str, typer.Option(help="Dispatch policy.")] = "reservation",
    guard: Annotated[float, typer.Option(help="Share of the SLO by which dispatch finishes early.")] = 0.05,
    in_flight: Annotated[int | None, typer.Option(help="Batches under way at most. [default: 4 per slice]")] = None,
    queue: Annotated[int, typer.Option(help="Batches that a slice has made and the next stage has not taken.")] = 4,
    verify: Annotated[bool, typer.Option(help="Compare every answer with the unsplit model's.")] = False,
    with_comparison: Annotated[
        bool, typer.Option("--compare", help="Simulate the same plan and arrivals; put both side by side.")
    ] = False,
    provider: Annotated[str, typer.Option(help="onnxruntime execution provider.")] = CPU,
    oversubscribe: Annotated[bool, typer.Option(help="Run even if there are too few cores.")] = False,
    cores: Annotated[
        list[str] | None, typer.Option(metavar="TYPE=N", help="Cores of a device of this type. [default: 1]")
    ] = None,
    slowdown: Annotated[
        list[str] | None, typer.Option(metavar="TYPE=X", help="Emulate a device X times as slow as this CPU.")
    ] = None,
    emulate_network: Annotated[
        bool, typer.Option(help="Let transfers take the time of the cluster's network.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of the requests' inputs.")] = 0,
) -> None:
    """Run a plan on real devices: a worker per slice, batches dispatched as in the simulator, on a real clock."""
    asked, made = _problem_of(plan, problem), load_plan(plan)
    emulation = Emulation(_whole(_per_type("cores", cores)), _per_type("slowdown", slowdown), emulate_network)
    settings = Settings(
        policy=policy,
        guard_fraction=guard,
        in_flight=in_flight,
        queue=queue,
        warmup_s=warm_up,
        verify=verify,
        provider=provider,
        oversubscribe=oversubscribe,
        emulation=emulation,
        seed=seed,
    )
    names = [dnn] if dnn else [served.name for served in asked.dnns if made.of(served.name)]
    loaded = load_models(asked, made, names, models)
    arrivals = _arrivals(trace, made, names, rate, load, duration)
    for name in names:
        folder = out / name if len(names) > 1 else out
        run = _run_with_progress(asked, made, name, loaded, arrivals[name], settings)
        _report(run, folder, with_comparison)
        if run.interrupted:
            errors.print(f"stopped; what was finished is in {folder}")
            sys.exit(130)


def _problem_of(plan: Path, problem: Path | None) -> Problem:
    """Return the problem that was given, or that lies beside the plan."""
    choices = [problem] if problem else [plan.parent / "problem.json", plan.parent / "problem.toml"]
    for path in choices:
        if path.exists():
            return load_problem(path)
    raise InputError(f"{choices[0]}: no such file; give the plan's problem with --problem")


def load_models(problem: Problem, plan: Plan, names: list[str], folder: Path) -> dict[str, ir.Model]:
    """Read the models of DNNs from a folder; raises InputError if one is missing, or not the one profiled."""
    models = {}
    for pipeline in (pipeline for name in names for pipeline in plan.of(name)):
        path = folder / f"{pipeline.variant}.onnx"
        profiled = problem.dnn(pipeline.dnn).variant(pipeline.variant).model_sha256
        models[pipeline.variant] = load_model(path)
        found = model_sha256(path)
        if profiled not in (None, found):
            raise InputError(
                f"{path}: is not the model that was profiled (SHA-256 {found[:12]}, profiled {str(profiled)[:12]}); "
                "profile it again, or choose another --models"
            )
    return models


def _arrivals(
    trace: Path, plan: Plan, names: list[str], rate: float | None, load: float, duration_s: float
) -> dict[str, ArrivalsUs]:
    """Fold a trace, its functions spread over the DNNs, to every DNN's rate."""
    recorded = read_trace(trace)
    streams = assign(recorded, len(names)) if len(names) > 1 else (recorded.times_s,)
    return {
        name: fold(times_s, rate or load * plan.throughput_rps(name), duration_s)
        for name, times_s in zip(names, streams, strict=True)
    }


def _per_type(option: str, given: list[str] | None) -> dict[str, float]:
    """Read TYPE=NUMBER options."""
    found = {}
    for text in given or []:
        name, _, value = text.rpartition("=")
        try:
            found[name] = float(value)
        except ValueError:
            name = ""
        if not name:
            raise InputError(f"--{option}: expected TYPE=NUMBER, got {text!r}")
    return found


def _whole(numbers: dict[str, float]) -> dict[str, int]:
    """Return the same numbers as integers; raises InputError if they are not."""
    for name, number in numbers.items():
        if not number.is_integer():
            raise InputError(f"--cores: expected an integer >= 1 for {name}, got {number:g}")
    return {name: int(number) for name, number in numbers.items()}


def _run_with_progress(
    problem: Problem, plan: Plan, name: str, models: dict[str, ir.Model], arrivals_us: ArrivalsUs, settings: Settings
) -> Execution:
    with progress() as bar:
        task = bar.add_task(f"{name}: starting workers", total=None)

        def tick(now_us: int) -> None:
            done = int(arrivals_us.searchsorted(now_us, side="right"))
            bar.update(task, completed=done, total=len(arrivals_us), description=f"{name}: requests")

        return execute(problem, plan, name, models, arrivals_us, settings, tick=tick)


def _report(run: Execution, folder: Path, with_comparison: bool) -> None:
    """Write a run's files and show the main figures; records come first, so that nothing is lost."""
    write_incidents(run, folder)
    measurement = measure(run)
    write_measurement(run, measurement, folder)
    _show(run, measurement)
    if with_comparison:
        comparison = compare(run)
        write_comparison(comparison, folder)
        _show_comparison(comparison)
    if run.verdict is not None and run.verdict.wrong:
        raise InputError(f"{run.system.dnn}: {run.verdict}")
    console.print(f"written to {folder}", highlight=False)


def _show(run: Execution, measurement: Measurement) -> None:
    name = run.system.dnn
    console.print(
        f"{name}: {measurement.throughput}, attainment {attainment(run.records, run.window_us[0]):.2%} of "
        f"{len(run.records)} requests",
        highlight=False,
    )
    console.print(f"Little's law: {measurement.little}", highlight=False)
    for text in (run.emulated and f"emulated: {run.emulated}", run.verdict and f"verified: {run.verdict}"):
        if text:
            console.print(text, highlight=False)
    table = Table("slice", "device", "requests/s", "busy", "bubble", "CPU", "MB", box=None, pad_edge=False)
    for each in measurement.slices:
        table.add_row(
            f"{each.pipeline}.{each.stage}.{each.slice}",
            each.device,
            f"{each.requests_per_s:.1f}",
            f"{each.busy:.1%}",
            f"{each.bubble:.1%}",
            f"{each.cpu:.2f}",
            f"{each.memory_bytes / 1e6:.0f}",
        )
    console.print(table)
    if measurement.disturbed:
        slices = ", ".join(str(slice_id) for slice_id in measurement.disturbed)
        errors.print(f"note: other programs kept {slices} from computing; these figures are not the plan's")
    if run.journal.incidents:
        errors.print(f"note: {len(run.journal.incidents)} incidents, see incidents.csv")


def _show_comparison(comparison: Comparison) -> None:
    table = Table("", "unit", "simulated", "measured", "difference", box=None, pad_edge=False)
    for row in comparison.rows:
        table.add_row(row.quantity, row.unit, f"{row.predicted:.4g}", f"{row.measured:.4g}", row.text)
    console.print(table)
