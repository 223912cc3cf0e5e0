"""What the command `execute` can be told."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from simulator.cli.options import SCHEMAS

USUAL_LOAD = 0.5  # of the planned throughput

PlanArgument = Annotated[Path, typer.Argument(help="Plan file (JSON).")]
ModelsOption = Annotated[
    Path,
    typer.Option(help="Folder with the files that were profiled: <variant>.onnx, bert.onnx for bert@seq=128."),
]
TraceOption = Annotated[Path, typer.Option(help="Arrivals, in any schema, plain or .gz.")]
ProblemOption = Annotated[
    Path | None, typer.Option(help="The plan's problem file. [default: problem.json or .toml beside it]")
]
RateOption = Annotated[float | None, typer.Option(help="Rate of each DNN, requests/s.")]
LoadOption = Annotated[
    float | None, typer.Option(help=f"Where no rate is given: share of the planned throughput. [default: {USUAL_LOAD}]")
]
DurationOption = Annotated[float, typer.Option(help="Length of the run, s.")]
WarmUpOption = Annotated[float, typer.Option(min=0, help="Served but not measured at the beginning, s.")]
SchemaOption = Annotated[str, typer.Option(help=f"Schema of the trace: auto, {', '.join(SCHEMAS)}.")]
RoundRobinOption = Annotated[
    bool, typer.Option("--round-robin", help="Spread the trace's functions over the DNNs; else each gets all.")
]
DnnOption = Annotated[str | None, typer.Option(help="Run this DNN only. [default: all, one after the other]")]
TogetherOption = Annotated[
    bool,
    typer.Option("--together", help="All DNNs in one run on this machine, by any policy of `run` and reactive."),
]
PolicyOption = Annotated[str, typer.Option(help="Dispatch policy.")]
GuardOption = Annotated[float, typer.Option(help="Share of the SLO by which dispatch finishes early.")]
InFlightOption = Annotated[int | None, typer.Option(help="Batches under way at most. [default: 4 per slice]")]
VerifyOption = Annotated[bool, typer.Option("--verify", help="Compare every answer with the model file's own.")]
ToleranceOption = Annotated[
    float | None, typer.Option(min=0, help="Relative difference to allow. [default: by the model's own noise]")
]
InputsOption = Annotated[
    Path | None,
    typer.Option(
        help="What requests bring: a .npz with an array for each input, or a folder of them (with several DNNs: "
        "DNN.npz or DNN/ in it). [default: random inputs]"
    ),
]
WithComparisonOption = Annotated[
    bool, typer.Option("--compare", help="Simulate the same plan and arrivals; put both side by side.")
]
ProviderOption = Annotated[str, typer.Option(help="onnxruntime execution provider.")]
ClusterOption = Annotated[
    Literal["local", "ray"], typer.Option(help="local: this machine; ray: the cluster at RAY_ADDRESS.")
]
RealtimeOption = Annotated[
    bool, typer.Option("--realtime", help="Frontend at real-time priority, ahead of workers (Linux, as root).")
]
EmulateNetworkOption = Annotated[
    bool, typer.Option("--emulate-network", help="Let transfers take the time of the cluster's network.")
]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of everything that is random.")]
OutOption = Annotated[Path, typer.Option(help="Folder for the results.")]
