"""Options that several commands share, and the names that they offer.

The names are written out here so that ``--help`` need not import engines, readers and plots, which takes seconds;
`tests/simulator/cli/test_options.py` compares them with what is offered there.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

EngineName = Literal["auto", "events", "replay", "simpy"]
Hosts = Literal["local", "ray"]
How = Literal["fold", "scale", "thin", "verbatim"]
POLICIES = ("reservation", "orderly", "round-robin", "least-queued", "earliest-deadline", "reactive")
SCHEMAS = (
    "maf21", "maf19", "minute-counts", "arrival-us", "arrival-ms", "arrival-s", "function-ms", "azure-llm", "burstgpt",
    "vidur", "ms-query", "mooncake",
)  # fmt: skip
WORLD_KEYS = ("spread", "factors", "failures", "failure_rate", "load_us", "switches", "degradations")

LATEST_START = "latest-start"

POLICY_HELP = f"Dispatch policy: {', '.join((*POLICIES, LATEST_START))}"
WORLD_HELP = f"File (schema world/1) of what goes differently: {', '.join(WORLD_KEYS)}"

ProblemOption = Annotated[
    Path | None, typer.Option(help="The plans' problem file. [default: problem.json or .toml beside each plan]")
]
DataOption = Annotated[Path | None, typer.Option(help="PPipe's data folder: the plans are files in its form.")]
SchemaOption = Annotated[str, typer.Option(help=f"Schema of the traces: auto, {', '.join(SCHEMAS)}.")]
TimeColumnOption = Annotated[
    str | None, typer.Option(help="Instead of a schema: the column of any CSV file that has the arrivals.")
]
UnitOption = Annotated[Literal["us", "ms", "s", "date"], typer.Option(help="Unit of --time-column.")]
SortOption = Annotated[bool, typer.Option("--sort", help="Sort plain arrival lists instead of refusing disorder.")]
DurationOption = Annotated[float, typer.Option(help="Simulated time, s.")]
EngineOption = Annotated[
    EngineName, typer.Option(help="auto (replay where it is exact), replay, events, or simpy (to compare with).")
]
RoundRobinOption = Annotated[
    bool, typer.Option("--round-robin", help="Spread the trace's functions over the DNNs; else each gets all of it.")
]
ReplayOption = Annotated[
    How,
    typer.Option(
        help="How the trace is offered at a rate: fold (PPipe's rule), scale (all gaps by one factor), thin (each "
        "request kept by chance), or verbatim (its own rate)."
    ),
]
UncheckedOption = Annotated[
    bool, typer.Option("--unchecked", help="Let a plan pass that breaks constraints of its problem; results say so.")
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace the results of another run in the output folder.")
]
CoresOption = Annotated[
    list[str] | None, typer.Option(metavar="TYPE=N", help="Cores of a device of this type. [default: 1]")
]
SlowdownOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TYPE=X",
        help="Emulate a device X times as slow as this CPU, or, for TYPE=DEVICE, as the profile has it beside DEVICE.",
    ),
]
OversubscribeOption = Annotated[bool, typer.Option("--oversubscribe", help="Run even if there are too few cores.")]
