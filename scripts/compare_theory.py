#!/usr/bin/env python
"""Compare mean waits in the compiled engine with queueing theory, by utilisation.

Each row is many independent runs; theory should be within their 95 % interval in 95 of 100 rows, and within the 99.9 %
interval in all. Formulas: Pollaczek and Khinchine (M/D/1, M/G/1), Erlang C (M/M/c), Cobham (priorities), the root of
Lindley's equation (E2/M/1), product form (a Jackson network of two classes), Bailey's bulk queue (a server that
takes up to eight of those that wait, whoever comes later waits).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import exp, factorial
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer

from planner.cli.app import console, new_app, progress, run
from planner.files import replacing
from simulator.engine.network import (
    CENTRAL,
    IDLE_FIRST,
    LATEST_START,
    Conditions,
    Network,
    Route,
    Station,
    Step,
    servers,
)
from simulator.engine.networks import simulate_network
from simulator.results.records import NetworkRecords

SERVICE_US = 10_000
# An exponential distribution as factors of the planned service time: the middles of a hundred thousand equal parts.
EXPONENTIAL = -np.log((np.arange(100_000) + 0.5) / 100_000)
STUDENT = {"95 %": {8: 2.365, 12: 2.201, 20: 2.093, 40: 2.023}, "99.9 %": {8: 5.408, 12: 4.437, 20: 3.883, 40: 3.558}}
UTILISATIONS = (0.3, 0.5, 0.7, 0.9)

app = new_app("Compare the engine with queueing theory.")


@dataclass(frozen=True)
class Case:
    """A queue: its theoretical mean wait in services, and a run that measures it."""

    model: str
    utilisation: float
    theory: float
    measure: Callable[[int, int], float]


def queue(count: int = 1, batch: int = 1, spread: float = 0.0) -> Network:
    """One central queue of ``count`` servers; the idle one takes what waits at once, up to a batch."""
    latency_us = np.array([[0, *[SERVICE_US] * batch]])
    station = Station(CENTRAL, tuple(range(count)), latency_us, max_batch=batch, placement=IDLE_FIRST, spread=spread)
    return Network(servers([0] * count), (station,), (Route("r", (Step(0),)),))


def arrivals(gap_us: float, requests: int, seed: int, erlang: int = 1) -> np.ndarray:
    """Return sorted arrivals with gaps of an Erlang distribution of this order."""
    rng = np.random.default_rng([seed, erlang])
    return np.cumsum(rng.gamma(erlang, gap_us / erlang, requests)).astype(np.int64)


def mean_wait(records: NetworkRecords, cls: int | None = None, step: int = 0) -> float:
    """Return the mean wait from joining a step to the start of its service, in services, after a fifth of the run."""
    visit = records.visit[:, step]
    late = records.arrival_us > records.arrival_us.max() // 5
    mine = (visit >= 0) & late if cls is None else (visit >= 0) & late & (records.request_class == cls)
    return float((records.start_us[visit[mine]] - records.joined_us[mine, step]).mean()) / SERVICE_US


def measure_queue(network: Network, gap_us: float, factors: np.ndarray, erlang: int, requests: int, seed: int) -> float:
    """Measure the mean wait in a queue."""
    conditions = Conditions(seed=seed, factors=factors, corrected=True)
    return mean_wait(simulate_network(network, [arrivals(gap_us, requests, seed, erlang)], conditions))


def erlang_c(count: int, utilisation: float) -> float:
    """Return the mean wait in M/M/c in services."""
    a = count * utilisation
    waits = a**count / factorial(count) / (1 - utilisation)
    return waits / (sum(a**k / factorial(k) for k in range(count)) + waits) / (count * (1 - utilisation))


def lindley_root(utilisation: float) -> float:
    """Return sigma of E2/M/1, the root below 1 of s = (2u / (2u + 1 - s))²."""
    sigma = 0.5
    for _ in range(1000):
        sigma = (2 * utilisation / (2 * utilisation + 1 - sigma)) ** 2
    return sigma


def bulk_wait(batch: int, utilisation: float) -> float:
    """Return the mean wait in Bailey's queue in services: exponential services of up to ``batch``."""
    rate = batch * utilisation  # arrivals per service
    low, high = 0.0, 1 - 1e-12
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if rate + middle ** (batch + 1) - (rate + 1) * middle > 0 else (low, middle)
    c = 1 / (1 / rate + 1 / (1 - low))
    return c * low / (1 - low) ** 2 / rate


def measure_priorities(gap_us: float, cls: int, requests: int, seed: int) -> float:
    """Measure the wait of one of two classes, of which the first always goes first."""
    station = Station(LATEST_START, (0,), np.array([[0, SERVICE_US]]))
    routes = (Route("first", (Step(0, (), 0),)), Route("second", (Step(0, (), 10**11),)))
    network = Network(servers([0]), (station,), routes)
    found = simulate_network(
        network,
        [arrivals(2 * gap_us, requests // 2, 2 * seed + k) for k in range(2)],
        Conditions(seed=seed, factors=EXPONENTIAL, corrected=True),
    )
    return mean_wait(found, cls)


def measure_jackson(gap_us: float, step: int, requests: int, seed: int) -> float:
    """Measure the wait in a step of the first class; the second one goes through the stations the other way round."""
    stations = tuple(Station(CENTRAL, (q,), np.array([[0, SERVICE_US]]), placement=IDLE_FIRST) for q in range(2))
    routes = (Route("there", (Step(0, (1,)), Step(1))), Route("back", (Step(1, (1,)), Step(0))))
    found = simulate_network(
        Network(servers([0, 0]), stations, routes),
        [arrivals(2 * gap_us, requests // 2, 2 * seed + k) for k in range(2)],
        Conditions(seed=seed, factors=EXPONENTIAL, corrected=True),
    )
    return mean_wait(found, 0, step)


def cases() -> list[Case]:
    """Return all comparisons."""
    found = []
    exact, spread = np.zeros(0), 0.5
    # Log-normal around the planned time as the median: mean and second moment in planned services.
    mean, second = exp(spread**2 / 2), exp(2 * spread**2)
    for u in UTILISATIONS:
        gap_us = SERVICE_US / u
        one = queue()
        found.append(Case("M/D/1", u, u / (2 * (1 - u)), partial(measure_queue, one, gap_us, exact, 1)))
        rate = u / mean
        wait = rate * second / (2 * (1 - u))
        measure = partial(measure_queue, queue(spread=spread), SERVICE_US / rate, exact, 1)
        found.append(Case("M/G/1, log-normal 0.5", u, wait, measure))
        for count in (1, 3, 10, 30):
            measure = partial(measure_queue, queue(count), gap_us / count, EXPONENTIAL, 1)
            found.append(Case(f"M/M/{count}", u, erlang_c(count, u), measure))
        sigma = lindley_root(u)
        found.append(Case("E2/M/1", u, sigma / (1 - sigma), partial(measure_queue, one, gap_us, EXPONENTIAL, 2)))
        for cls, wait in enumerate((u / (1 - u / 2), u / ((1 - u / 2) * (1 - u)))):
            measure = partial(measure_priorities, gap_us, cls)
            found.append(Case(f"M/M/1, priority {cls + 1} of 2", u, wait, measure))
        for step in range(2):
            measure = partial(measure_jackson, gap_us, step)
            found.append(Case(f"Jackson network, step {step + 1}", u, u / (1 - u), measure))
        measure = partial(measure_queue, queue(batch=8), gap_us / 8, EXPONENTIAL, 1)
        found.append(Case("bulk service of up to 8", u, bulk_wait(8, u), measure))
    return found


def compared(case: Case, runs: int, requests: int) -> dict[str, object]:
    """Return a row: theory, the mean of the runs, and whether theory is within their intervals."""
    means = np.array([case.measure(requests, seed) for seed in range(runs)])
    error = means.std(ddof=1) / np.sqrt(runs)
    row: dict[str, object] = {
        "model": case.model,
        "utilisation": case.utilisation,
        "theory": case.theory,
        "engine": means.mean(),
        "off": means.mean() / case.theory - 1,
    }
    rounding = 2 / SERVICE_US  # arrivals and services are whole µs
    for level, quantiles in STUDENT.items():
        row[f"within {level}"] = bool(abs(means.mean() - case.theory) <= quantiles[runs] * error + rounding)
    return row


@app.command()
def compare(
    runs: Annotated[int, typer.Option(help=f"Independent runs a row: {', '.join(map(str, STUDENT['95 %']))}.")] = 20,
    requests: Annotated[int, typer.Option(help="Requests a run.", min=1000)] = 400_000,
    out: Annotated[Path, typer.Option(help="Folder for the table.")] = Path("out/theory"),
) -> None:
    """Measure, print the table (waits in services), write theory.csv; exit 1 where theory and engine differ."""
    if runs not in STUDENT["95 %"]:
        raise typer.BadParameter(f"--runs: expected one of {', '.join(map(str, STUDENT['95 %']))}, got {runs}")
    with progress() as bar:
        rows = [compared(case, runs, requests) for case in bar.track(cases(), description="queues")]
    table = pd.DataFrame(rows)
    with replacing(out / "theory.csv") as temporary:
        table.to_csv(temporary, index=False)
    console.print(table.to_string(index=False, float_format=lambda value: f"{value:.4f}"), soft_wrap=True)
    within = {level: int(table[f"within {level}"].sum()) for level in STUDENT}
    console.print(f"{len(table)} rows; theory within the interval of the runs: {within}")
    if within["99.9 %"] < len(table) or within["95 %"] < 0.85 * len(table):
        raise typer.Exit(1)


if __name__ == "__main__":
    run(app)
