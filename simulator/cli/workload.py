"""Commands about arrivals: ``generate`` makes them, ``trace`` looks at recorded ones and converts them."""

from __future__ import annotations

import gzip
from dataclasses import asdict
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.cli.app import console, progress
from planner.cli.output import Column, JsonOption, output
from planner.files import replacing
from planner.model import InputError
from simulator.cli.options import SCHEMAS, ReplayOption, SortOption, TimeColumnOption, UnitOption
from simulator.memory import require_memory

if TYPE_CHECKING:
    from simulator.workload import Trace
    from simulator.workload.arrivals import ArrivalsUs

Rate = Annotated[float, typer.Option(help="Average rate, requests/s.")]
Duration = Annotated[float, typer.Option(help="Length, s.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed: equal seeds give equal arrivals.")]
Out = Annotated[Path, typer.Option(help="File to write; a name that ends in .gz is compressed.")]
MOST_CLIENTS = 10**9
BYTES_AS_TEXT = 200  # of a request, while a file is put together

SchemaOption = Annotated[str, typer.Option(help=f"Schema of the file: auto, {', '.join(SCHEMAS)}.", show_default=True)]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    generate = typer.Typer(
        help="Generate arrivals (µs, one a line), or a trace that mimics MAF'21.", no_args_is_help=True
    )
    for command in (poisson, gamma, markov_modulated, clustered, bursts, diurnal, closed_loop, maf_like):
        generate.command()(command)
    app.add_typer(generate, name="generate")
    trace = typer.Typer(help="Look at recorded arrivals, choose from them, convert them.", no_args_is_help=True)
    trace.command()(info)
    trace.command()(convert)
    app.add_typer(trace, name="trace")


def poisson(out: Out, rate: Rate = 100.0, duration: Duration = 30.0, seed: Seed = 1) -> None:
    """Independent exponential gaps."""
    _generate(out, seed, "poisson", rate, duration)


def gamma(
    out: Out,
    rate: Rate = 100.0,
    duration: Duration = 30.0,
    seed: Seed = 1,
    cv: Annotated[float, typer.Option(help="Coefficient of variation of the gaps; 1 is Poisson.")] = 4.0,
) -> None:
    """Gamma distributed gaps."""
    _generate(out, seed, "gamma", rate, duration, cv=cv)


def markov_modulated(
    out: Out,
    rates: Annotated[str, typer.Option(help="Rate of each state, requests/s.")] = "20,200",
    dwell: Annotated[str, typer.Option(help="Mean time in each state, s.")] = "5,1",
    duration: Duration = 30.0,
    seed: Seed = 1,
) -> None:
    """Poisson arrivals whose rate jumps between states."""
    _generate(out, seed, "markov_modulated", _numbers("--rates", rates), _numbers("--dwell", dwell), duration)


def clustered(
    out: Out,
    rate: Rate = 100.0,
    duration: Duration = 30.0,
    seed: Seed = 1,
    size: Annotated[float, typer.Option(help="Mean requests per cluster.")] = 20.0,
    spread: Annotated[float, typer.Option(help="Mean distance of a request from its cluster's start, s.")] = 0.1,
) -> None:
    """Clusters of requests that start at Poisson times."""
    _generate(out, seed, "clustered", rate, duration, size=size, spread_s=spread)


def bursts(
    out: Out,
    rate: Rate = 100.0,
    duration: Duration = 30.0,
    seed: Seed = 1,
    size: Annotated[float, typer.Option(help="Mean requests per burst.")] = 20.0,
    gap: Annotated[float, typer.Option(help="Mean gap inside a burst, s.")] = 0.001,
) -> None:
    """Bursts with exponential gaps inside."""
    _generate(out, seed, "bursts", rate, duration, size=size, gap_s=gap)


def diurnal(
    out: Out,
    rate: Rate = 100.0,
    duration: Duration = 30.0,
    seed: Seed = 1,
    amplitude: Annotated[float, typer.Option(help="Swing of the rate, as a share of its mean (0 to 1).")] = 0.8,
    period: Annotated[float, typer.Option(help="Length of a swing, s.")] = 86_400.0,
) -> None:
    """Poisson arrivals whose rate swings like day and night."""
    _generate(out, seed, "diurnal", rate, duration, amplitude=amplitude, period_s=period)


def closed_loop(
    out: Out,
    clients: Annotated[
        int, typer.Option(max=MOST_CLIENTS, help="Clients that each wait for a response before they think.")
    ] = 10,
    response: Annotated[float, typer.Option(help="Response time that is assumed, s; a run's mean latency, say.")] = 0.1,
    think: Annotated[float, typer.Option(help="Mean thinking time, s.")] = 0.9,
    duration: Duration = 30.0,
    seed: Seed = 1,
) -> None:
    """Clients that send, wait, think, and send again; how long they wait is assumed, whatever a run then takes."""
    _generate(out, seed, "closed_loop", clients, duration, response_s=response, think_s=think)


def maf_like(
    out: Out,
    requests: Annotated[int, typer.Option(help="Requests in all.")] = 20_000,
    applications: Annotated[int, typer.Option(help="Applications that share them.")] = 77,
    duration: Annotated[float | None, typer.Option(help="Length, s; default: as long as MAF'21 takes.")] = None,
    seed: Seed = 1,
    schema: Annotated[str, typer.Option(help="maf21, maf19, or arrival-us (a plain list).")] = "maf21",
) -> None:
    """Write a trace with the skew and burstiness of MAF'21."""
    import numpy as np

    from simulator.workload import maf_like as mimic

    rng = np.random.default_rng(seed)
    _write_trace(out, mimic(requests, rng, duration_s=duration, applications=applications), schema)


def _generate(out: Path, seed: int, generator: str, *arguments: object, **options: float) -> None:
    """Write what a generator of `simulator.workload` makes of its arguments and a seed."""
    import numpy as np

    from simulator import workload

    _write_arrivals(out, getattr(workload, generator)(*arguments, np.random.default_rng(seed), **options))


def info(
    file: Annotated[Path, typer.Argument(help="A trace in any schema, plain or .gz.")],
    schema: SchemaOption = "auto",
    time_column: TimeColumnOption = None,
    unit: UnitOption = "s",
    sort: SortOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say how many requests a trace has, how unevenly they are spread, and how bursty they are."""
    from simulator.workload import trace_statistics

    statistics = trace_statistics(_read(file, schema, time_column, unit, sort))
    shown = {
        "requests": f"{statistics.requests:,}",
        "functions": f"{statistics.functions:,}",
        "duration": f"{statistics.duration_s:,.1f} s",
        "average rate": f"{statistics.rate_rps:.3f} requests/s",
        "gaps, standard deviation / mean": _known(statistics.gap_cv),
        "index of dispersion over 1 s": _known(statistics.dispersion_1s),
        "index of dispersion over 60 s": _known(statistics.dispersion_60s),
        "busiest function": f"{statistics.busiest_share:.1%} of the requests",
        "five busiest functions": f"{statistics.five_busiest_share:.1%} of the requests",
    }
    with output(as_json) as printed:
        for name, value in asdict(statistics).items():
            printed.value(name, value)
        if not as_json:
            rows = [{"what": what, "value": value} for what, value in shown.items()]
            printed.table("statistics", {"what": Column(""), "value": Column(str(file))}, rows)


def _known(figure: float) -> str:
    return "the trace is too short for it" if isnan(figure) else f"{figure:.2f}"


def convert(
    files: Annotated[list[Path], typer.Argument(help="A trace in any schema, plain or .gz; of MAF'19 a file per day.")],
    out: Out,
    to: Annotated[
        str, typer.Option(help="Schema to write: maf21, maf19, or arrival-us (a plain list).")
    ] = "arrival-us",
    schema: SchemaOption = "auto",
    time_column: TimeColumnOption = None,
    unit: UnitOption = "s",
    sort: SortOption = False,
    app: Annotated[list[str] | None, typer.Option(help="Keep this application (repeat for several).")] = None,
    function: Annotated[list[str] | None, typer.Option(help="Keep this function (repeat for several).")] = None,
    busiest: Annotated[int | None, typer.Option(help="Then keep the functions with most requests.", min=1)] = None,
    window: Annotated[
        str | None, typer.Option(help="Keep times in START,END (s); whole minutes of a MAF'19 trace.")
    ] = None,
    keep: Annotated[float, typer.Option(help="Keep each request of a MAF'19 trace with this probability.")] = 1.0,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed of where in its minute a request of a MAF'19 trace comes.")
    ] = 0,
    rate: Annotated[float | None, typer.Option(help="Offer this rate, requests/s (writes a plain list).")] = None,
    replay: ReplayOption = "fold",
    duration: Annotated[float, typer.Option(help="With a rate: length of the arrivals, s.")] = 30.0,
) -> None:
    """Choose from a trace, offer it at a rate where asked, and write it in another schema."""
    from simulator.workload import offer, select
    from simulator.workload.readers import recognise

    start_end = _window(window)
    if (recognise(files[0]) if schema == "auto" and not time_column and files[0].is_file() else schema) == "maf19":
        trace = _read_minutes(files, app, function, busiest, start_end, keep, seed)
    elif len(files) > 1 or keep != 1.0:
        raise InputError(f"{files[0]}: several files, and --keep, are for MAF'19 traces only; give one file")
    else:
        whole = _read(files[0], schema, time_column, unit, sort)
        trace = select(whole, apps=app, functions=function, busiest=busiest, window_s=start_end)
    if rate is None:
        _write_trace(out, trace, to)
    elif to == "arrival-us":
        _write_arrivals(out, offer(trace.times_s, rate, duration, how=replay, seed=seed))
    else:
        raise InputError(f"--rate: arrivals at a rate have no functions; write them with --to arrival-us, not {to}")


def _window(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    numbers = _numbers("--window", text)
    if len(numbers) != 2 or not 0 <= numbers[0] < numbers[1]:
        raise InputError(f"--window: expected START,END in seconds, 0 <= START < END, got {text!r}")
    return numbers[0], numbers[1]


def _read_minutes(
    files: list[Path],
    apps: list[str] | None,
    functions: list[str] | None,
    busiest: int | None,
    window_s: tuple[float, float] | None,
    keep: float,
    seed: int,
) -> Trace:
    """Read days of counts, choosing while reading, and spread what was chosen over its minutes."""
    import numpy as np

    from simulator.workload import read_maf19, spread

    minutes = None if window_s is None else (int(window_s[0] // 60), -int(-window_s[1] // 60))
    with progress() as bar:
        task = bar.add_task("reading, rows", total=None)
        counts = read_maf19(
            files,
            apps=apps,
            functions=functions,
            busiest=busiest,
            minutes=minutes,
            progress=lambda rows: bar.update(task, completed=rows),
        )
    return spread(counts, np.random.default_rng(seed), keep=keep)


def _read(file: Path, schema: str, time_column: str | None, unit: str, sort: bool) -> Trace:
    from simulator.cli.demand import TraceFormat, load_trace

    return load_trace(file, TraceFormat(schema, time_column, unit, sort))


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{option}: expected numbers with commas between them, got {text!r}") from None


def _write_trace(out: Path, trace: Trace, schema: str) -> None:
    from simulator.workload import maf19_text, maf21_text

    texts = {"maf21": maf21_text, "maf19": maf19_text}
    _require_room(out, len(trace))
    if schema == "arrival-us":
        _write_arrivals(out, (trace.times_s * 1e6).astype("int64"))
    elif schema in texts:
        _write(out, texts[schema](trace), len(trace))
    else:
        raise InputError(f"unknown schema {schema!r}; expected {', '.join(texts)} or arrival-us")


def _write_arrivals(out: Path, arrivals_us: ArrivalsUs) -> None:
    from simulator.workload import arrivals_text

    if not len(arrivals_us):
        raise InputError(f"{out}: no arrival fell into the time asked for; give a longer duration or a higher rate")
    _require_room(out, len(arrivals_us))
    _write(out, arrivals_text(arrivals_us), len(arrivals_us))


def _require_room(out: Path, requests: int) -> None:
    """Refuse to write more requests than memory has room for as text."""
    require_memory(BYTES_AS_TEXT * requests, f"{out}: {requests:,} requests", "write fewer")


def _write(out: Path, text: str, requests: int) -> None:
    content = text.encode()
    with replacing(out) as temporary:
        temporary.write_bytes(gzip.compress(content, mtime=0) if out.suffix == ".gz" else content)
    console.print(f"{out}: {requests:,} requests", highlight=False, soft_wrap=True)
