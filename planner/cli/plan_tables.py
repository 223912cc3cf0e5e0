"""How a plan of pipelines is printed: a row per pipeline, what it uses, and the proof."""

from collections import Counter
from collections.abc import Iterator

from planner.cli.output import Column, Output
from planner.model import Pipeline, Plan, Problem
from planner.model.placing import devices_used, locations
from planner.model.plan import worth_text
from planner.model.segments import kind_of, share_text

SHOWN_DEVICES = 40  # so many devices are listed with what lies on them; a plan's file has them all
PLAN_COLUMNS = {
    "dnn": Column("DNN"),
    "slo_ms": Column("SLO (ms)", "{:.2f}".format),
    "pipeline": Column("pipeline"),
    "batch": Column("batch"),
    "latency_ms": Column("latency (ms)", "{:.2f}".format),
    "throughput_rps": Column("requests/s", "{:.2f}".format),
}


def show(printed: Output, problem: Problem, made: Plan) -> None:
    """Print a plan: a row per pipeline, what it uses, and the proof."""
    rows = [
        {
            "dnn": dnn.name,
            "slo_ms": dnn.slo_us / 1000,
            "pipeline": f"{pipeline.variant}: " * (len(dnn.variants) > 1) + _stages(pipeline),
            "batch": pipeline.batch,
            "latency_ms": pipeline.latency_us / 1000,
            "throughput_rps": pipeline.throughput_rps,
        }
        for dnn in problem.planned.dnns
        for pipeline in made.of(dnn.name)
    ]
    printed.table("pipelines", PLAN_COLUMNS, rows)
    for name in ("value", "bound", "gap", "status", "seconds", "method", "backend", "watts", "joules_per_thousand"):
        printed.value(name, getattr(made, name))
    for name in ("accuracy", "cost_per_hour", "x0_timed"):
        printed.value(name, getattr(made, name))
    for line in (_devices(problem, made), *_tenants(problem, made), *_neighbours(made), *_watts(made), *_worth(made)):
        printed.line(line)
    worth = worth_text(made.objective, made.value, made.bound, made.status)
    if made.x0_timed:
        printed.line("time was up before X0 was found, which batch building rests on: another run may find another")
    solver = f" on {made.backend}" if made.backend != "none" else ""
    printed.line(f"{worth}, {made.seconds:.2f} s with {made.method}{solver}")


def _stages(pipeline: Pipeline) -> str:
    """Write stages as ``8 × L4 [0-5] → 24 × T4 1/2 [6-9]``: slices, device, share, blocks, and batch if it differs."""
    return " → ".join(
        f"{stage.pool_text} "
        f"[{stage.first_block}-{stage.last_block - 1}]"
        f"{f' in parts of {stage.batch}' if stage.batch != pipeline.batch else ''}"
        for stage in pipeline.stages
    )


def _worth(made: Plan) -> Iterator[str]:
    """Yield what the plan costs and how accurate it serves each DNN, where these are known."""
    if made.accuracy:
        yield "accuracy: " + ", ".join(f"{name} {percent:.2f} %" for name, percent in made.accuracy.items())
    if made.cost_per_hour is not None:
        yield f"cost per hour: {made.cost_per_hour:g}"


def _devices(problem: Problem, made: Plan) -> str:
    used = devices_used(problem, made)
    parts = (f"{used[device.name]} of {device.count} {device.name}" for device in problem.cluster.device_types)
    return "devices in use: " + ", ".join(parts)


def _tenants(problem: Problem, made: Plan) -> Iterator[str]:
    """Yield a line per device of a plan whose DNNs share devices: its segments, and what runs on them."""
    if problem.options.device_sharing == "own" or devices_used(problem, made).total() > SHOWN_DEVICES:
        return
    held: dict[tuple[str, int, int], Counter[tuple[int, str, str]]] = {}
    for one in locations(problem, made):
        pipeline = made.pipelines[one.pipeline]
        stage = pipeline.stages[one.stage]
        blocks = f" [{stage.first_block}-{stage.last_block - 1}]" if len(pipeline.stages) > 1 else ""
        segment = one.slot, share_text(kind_of(stage.share)), f"{pipeline.dnn}{blocks}"
        held.setdefault((one.device, one.server, one.number), Counter())[segment] += 1
    for (device, server, number), segments in sorted(held.items()):
        parts = (
            f"{name} {kind} at {slot}{f' in {count} processes' if count > 1 else ''}"
            for (slot, kind, name), count in sorted(segments.items())
        )
        yield f"  {device} {number} (server {server}): {', '.join(parts)}"


def _neighbours(made: Plan) -> Iterator[str]:
    words = {
        "isolated": "its segments are isolated",
        "measured": "latencies were measured beside such neighbours",
        "assumed": "latencies assume that neighbours matter no more than in the profiles",
    }
    for device, ground in made.neighbours.items():
        yield f"unlike stages share devices of {device}: {words[ground]}"


def _watts(made: Plan) -> Iterator[str]:
    if made.watts is not None:
        yield f"draws {made.watts:.1f} W, {made.joules_per_thousand or 0.0:.1f} J per thousand requests"
