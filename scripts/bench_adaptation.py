#!/usr/bin/env python3
"""An adaptation predicted and measured: two tasks of two variants each, under arrivals that come in bursts.

A rehearsal serves all variants on workers of this machine, with one change of both tasks: by it batch times, how they
vary, and how long new replicas take to load are known. Then IPA's programme (JSys 2024) plans every ``--interval-s``
for the largest rate that was seen since the plan before and for what waits, once in a simulation and once with workers,
of the same arrivals. Variants are chains of matrix products; workers sleep so that batches take ``--slowdown`` times as
long as they compute, so that a few cores are enough for many replicas.

Figures go to OUT/adaptation.csv, the picture to OUT/adaptation.png.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Annotated

import numpy as np
import onnx_ir as ir
import pandas as pd
import typer
from matplotlib.figure import Figure
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from planner.cli.app import console, new_app, run
from planner.files import write_text
from planner.planning.applications.ipa import Ipa, Option, Weights
from simulator.adaptation import Controller, ServedTask, Service, Variant, outcomes_of, running
from simulator.adaptation.ipa import planner_of
from simulator.adaptation.loop import SECOND_US, Decision
from simulator.adaptation.outcomes import Outcomes
from simulator.adaptation.predictors import Predictor
from simulator.adaptation.service import loading
from simulator.engine.network import Change, Conditions
from simulator.engine.running import Observation
from simulator.executor import Emulation, Settings
from simulator.executor.networks.execution import NetworkExecution
from simulator.executor.networks.services import execute_service
from simulator.results.records import NetworkRecords
from simulator.results.style import COLOURS, finish, save_figure
from simulator.workload import poisson

WIDTH = 1024
LAYERS = {"small": 6, "large": 15}
ACCURACY = {"small": 60.0, "large": 80.0}
LARGEST_BATCH, MOST_REPLICAS, TIMEOUT_S = 4, 4, 0.02
REHEARSAL_S, REHEARSAL_RPS = 30, 20.0
SLO_IN_SERVICES = 5.0
DRAWS = 5  # of the service times of the prediction; figures are their means
FACTORS = 200
app = new_app("An adaptation predicted and measured.")


@dataclass(frozen=True)
class Rehearsed:
    """The service with the times that were measured, service times over their means, seconds that replicas load."""

    service: Service
    factors: NDArray[np.float64]
    start_up_s: float


@app.command()
def main(
    seconds: Annotated[int, typer.Option(help="Length of the run, s.")] = 75,
    interval_s: Annotated[int, typer.Option(help="Seconds between decisions, at least what loading takes.")] = 6,
    slowdown: Annotated[float, typer.Option(help="Times that a batch takes as long as it computes.")] = 8.0,
    seed: Annotated[int, typer.Option(help="Of arrivals and of the prediction.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("out/bench_adaptation"),
) -> None:
    """Rehearse, predict, run, compare."""
    models = {f"{task} {name}": _model(layers) for task in ("find", "name") for name, layers in LAYERS.items()}
    settings = Settings(seed=seed, emulation=Emulation(slowdown={"replica": slowdown}))
    rehearsed = _rehearse(models, settings)
    service = rehearsed.service
    for task in service.tasks:
        _say("; ".join(f"{one.name}: {_times_ms(one)} ms" for one in task.variants))
    _say(f"new replicas load for {rehearsed.start_up_s:.1f} s; times vary by {rehearsed.factors.std():.0%}")

    interval_s = max(interval_s, ceil(rehearsed.start_up_s))
    one_rps = min(1 / task.variants[-1].takes_s(1) for task in service.tasks)
    arrivals_us = _bursts(one_rps, seconds, np.random.default_rng(seed))
    slo_s = SLO_IN_SERVICES * sum(task.variants[-1].takes_s(1) for task in service.tasks)
    first = (running(1, LARGEST_BATCH, 1),) * 2
    controller = Controller(
        service, _since_last(interval_s), planner_of(service, _programme(service, slo_s)), first,
        interval_s, rehearsed.start_up_s, clears=True,
    )  # fmt: skip
    predicted = []
    for draw in range(DRAWS):
        conditions = Conditions(seed=seed + draw, factors=rehearsed.factors, corrected=True)
        predicted.append(controller.run(arrivals_us, conditions))
    foreseen = controller.decisions
    done = execute_service(
        service, first, models, arrivals_us, settings, adapt=controller.callback(), every_us=SECOND_US
    )
    really = _as_it_came(controller.decisions, done.execution)
    of_predicted = [outcomes_of(service, foreseen, records, slo_s, seconds) for records in predicted]
    measured = outcomes_of(service, really, done.records, slo_s, seconds)
    rows = _rows(of_predicted, measured, foreseen, really)
    write_text(out / "adaptation.csv", rows.to_csv(index=False, float_format="%.6g"))
    save_figure(
        _picture(arrivals_us, predicted[0], done.records, foreseen, really, service, slo_s), out / "adaptation.png"
    )
    console.print(rows.to_string(index=False, float_format="{:.4g}".format), highlight=False)
    for incident in done.execution.incidents:
        _say(f"at {incident.time_us / 1e6:.1f} s, server {incident.server}: {incident.what}")
    _say(f"written to {out}: adaptation.csv, adaptation.png")


def _model(layers: int) -> ir.Model:
    """Return a chain of products with one matrix."""
    weights = np.random.default_rng(layers).standard_normal((WIDTH, WIDTH)).astype(np.float32) / WIDTH**0.5
    names = ["x", *(f"h{number}" for number in range(layers - 1)), "y"]
    nodes = [helper.make_node("MatMul", [before, "w"], [after], after) for before, after in pairwise(names)]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", WIDTH]) for name in "xy")
    graph = helper.make_graph(nodes, "chain", [x], [y], [numpy_helper.from_array(weights, "w")])
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9))


def _service(times: Sequence[Sequence[dict[int, float]]]) -> Service:
    """Return the tasks with batch times ``[task][variant]``."""
    tasks = tuple(
        ServedTask(
            task,
            tuple(
                Variant(f"{task} {name}", ACCURACY[name], 1, of) for name, of in zip(LAYERS, of_variants, strict=True)
            ),
        )
        for task, of_variants in zip(("find", "name"), times, strict=True)
    )
    return Service(tasks, TIMEOUT_S, placement="idle first", most_replicas=MOST_REPLICAS)


def _rehearse(models: dict[str, ir.Model], settings: Settings) -> Rehearsed:
    """Serve a while with the small variants, then with the large ones.

    A batch occupies a replica from when the queue gives it away until its end is known, handing over included.
    """
    unknown = _service([[{1: 0.02, LARGEST_BATCH: 0.02}] * 2] * 2)
    small, large = ((running(variant, LARGEST_BATCH, 1),) * 2 for variant in (0, 1))
    looks = 0

    def adapt(seen: Observation) -> Sequence[Change] | None:
        nonlocal looks
        looks += 1
        return unknown.changes(small, large, seen.now_us, [seen.now_us] * 2) if looks == REHEARSAL_S // 3 else None

    arrivals_us = poisson(REHEARSAL_RPS, REHEARSAL_S, np.random.default_rng(settings.seed + 1))
    done = execute_service(unknown, small, models, arrivals_us, settings, adapt=adapt, every_us=SECOND_US)
    records, factors = done.records, []
    times: list[list[dict[int, float]]] = [[], []]
    for station in range(2):
        for kind in range(2):
            own = (records.station == station) & (records.kind == kind)
            sizes, took_us = records.size[own], (records.end_us - records.reach_us)[own]
            slope_us = max(0.0, float(np.polyfit(sizes, took_us, 1)[0]))
            base_us = float(took_us.mean() - slope_us * sizes.mean())
            factors.append(took_us / (base_us + slope_us * sizes))
            times[station].append({size: (base_us + slope_us * size) / 1e6 for size in range(1, LARGEST_BATCH + 1)})
    quantiles = np.quantile(np.concatenate(factors), (np.arange(FACTORS) + 0.5) / FACTORS, method="hazen")
    loads_s = [(one.ready_us - one.asked_us) / 1e6 for one in done.execution.cold_starts if one.ready_us is not None]
    return Rehearsed(_service(times), quantiles, float(np.mean(loads_s)))


def _bursts(one_rps: float, seconds: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return arrivals at half of what a replica of the large variants serves alone, and four times that in bursts."""
    parts, at_s, burst = [], 0, False
    while at_s < seconds:
        length_s = min(15, seconds - at_s)
        rate_rps = one_rps * (2.0 if burst else 0.5)
        parts.append(poisson(rate_rps, length_s, rng) + at_s * SECOND_US)
        at_s, burst = at_s + length_s, not burst
    return np.concatenate(parts)


def _programme(service: Service, slo_s: float) -> Ipa:
    options = tuple(
        tuple(
            Option(one.name, one.accuracy / 100, 1, batch, one.takes_s(batch), batch / one.takes_s(batch))
            for one in task.variants
            for batch in range(1, LARGEST_BATCH + 1)
        )
        for task in service.tasks
    )
    return Ipa(options, 1.0, slo_s, "multiply", Weights(10.0, 1.0), most_replicas=MOST_REPLICAS)


def _since_last(interval_s: int) -> Predictor:
    """Return the predictor that expects the largest rate of the last interval."""
    return lambda counts: float(counts[-interval_s:].max(initial=0.0))


def _as_it_came(decisions: Sequence[Decision], done: NetworkExecution) -> list[Decision]:
    """Return decisions with the times at which each task's setting was really in force."""
    came_s = {
        (round(cold.asked_us / SECOND_US), cold.station): cold.ready_us / SECOND_US
        for cold in done.cold_starts
        if cold.ready_us is not None
    }
    found = [decisions[0]]
    for one in decisions[1:]:
        ready_s = [
            max(before_s, came_s.get((round(one.at_s), task), one.at_s))
            for task, before_s in enumerate(found[-1].ready_s)
        ]
        found.append(replace(one, ready_s=tuple(ready_s)))
    return found


def _rows(
    predicted: Sequence[Outcomes], measured: Outcomes, foreseen: Sequence[Decision], really: Sequence[Decision]
) -> pd.DataFrame:
    """Return a row per quantity; predictions are means over the draws."""
    figures = {
        "requests answered": lambda one: one.requests - one.dropped,
        "attainment (%)": lambda one: 100 * one.attainment,
        "p50 latency (ms)": lambda one: 1000 * float(np.quantile(one.latencies_s, 0.5)),
        "p99 latency (ms)": lambda one: 1000 * float(np.quantile(one.latencies_s, 0.99)),
        "accuracy (%)": lambda one: one.accuracy,
        "cores held, mean": lambda one: float(one.held_cores.mean()),
    }
    rows = [(name, float(np.mean([of(one) for one in predicted])), float(of(measured))) for name, of in figures.items()]
    rows.append(("changes of a task", len(_changed(foreseen)), len(_changed(really))))
    rows.append(("until what has to load serves, mean (s)", _waited_s(foreseen), _waited_s(really)))
    table = pd.DataFrame(rows, columns=["quantity", "predicted", "measured"])
    return table.assign(difference_percent=100 * (table.measured / table.predicted - 1))


def _changed(decisions: Sequence[Decision]) -> list[tuple[bool, float]]:
    """Return, of every task's every change, whether something had to load, and the time until it was in force (s)."""
    return [
        (any(loading(old, new)), ready_s - after.at_s)
        for before, after in pairwise(decisions)
        for old, new, ready_s in zip(before.configuration, after.configuration, after.ready_s, strict=True)
        if old != new
    ]


def _waited_s(decisions: Sequence[Decision]) -> float:
    return float(np.mean([waited_s for loads, waited_s in _changed(decisions) if loads] or [np.nan]))


def _picture(
    arrivals_us: NDArray[np.int64],
    predicted: NetworkRecords,
    measured: NetworkRecords,
    foreseen: Sequence[Decision],
    really: Sequence[Decision],
    service: Service,
    slo_s: float,
) -> Figure:
    """Draw the load, the replicas of each variant that serve, and latencies over time."""
    end_s = int(np.ceil(arrivals_us[-1] / SECOND_US))
    figure = Figure(figsize=(8.0, 8.0), layout="constrained")
    load, *replicas, latency = figure.subplots(4, 1, sharex=True)
    counts = np.bincount(arrivals_us // SECOND_US, minlength=end_s)
    load.stairs(counts, np.arange(len(counts) + 1), fill=True, color="#BBBBBB", label="arrived")
    load.step(
        [*(one.at_s for one in really[1:]), end_s], [*(one.rate_rps for one in really[1:]), really[-1].rate_rps],
        where="post", color=COLOURS[5], label="planned for",
    )  # fmt: skip
    finish(load, y="requests/s", title="Load")
    for task, ax in enumerate(replicas):
        for kind, name in enumerate(LAYERS):
            for decisions, style, who in ((foreseen, "--", "predicted"), (really, "-", "measured")):
                own = [(*one.configuration[task].replicas, 0, 0)[kind] for one in decisions]
                times_s = [*(one.ready_s[task] for one in decisions), end_s]
                ax.step(times_s, [*own, own[-1]], style, where="post", color=COLOURS[kind], label=f"{name}, {who}")
        finish(ax, y="replicas", title=f"Replicas that serve: {service.tasks[task].name}")
        ax.set_ylim(-0.2, MOST_REPLICAS + 0.4)
    for records, style, who in ((predicted, "--", "predicted"), (measured, "-", "measured")):
        second = records.arrival_us // SECOND_US
        took_ms = (records.done_us - records.arrival_us) / 1000
        for share, colour in ((0.5, COLOURS[0]), (0.95, COLOURS[1])):
            each = [np.quantile(took_ms[second == s], share) if (second == s).any() else np.nan for s in range(end_s)]
            latency.plot(np.arange(end_s) + 0.5, each, style, color=colour, label=f"p{100 * share:.0f}, {who}")
    latency.axhline(1000 * slo_s, color="#333333", lw=0.8, ls=":", label="SLO")
    latency.set_yscale("log")
    latency.set_xlim(0, end_s)
    finish(latency, x="time (s)", y="latency (ms)", title="Latency of the requests of each second")
    for ax in figure.axes:
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
    return figure


def _times_ms(variant: Variant) -> str:
    return ", ".join(f"{1000 * took_s:.1f}" for _, took_s in sorted(variant.batch_s.items()))


def _say(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    run(app)
