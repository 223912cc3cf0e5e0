#!/usr/bin/env python
"""Measure the engines at work: requests per second of CPU time on one core, beside what one would pick instead.

Set-up, the run, records and their accounts are in every figure; compiling is not, and is stated. ``whole`` measures a
process that imports the engine, simulates a million requests on ten servers and takes the 99th percentile. Beside are,
on the same servers and arrivals, SimPy (a Resource, a process per request), Ciw (if it is installed), a loop over a
heap and a bare compiled loop. Each figure is the best of a few runs.
"""

import heapq
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import simpy
import typer
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from planner.cli.app import console, new_app, run
from planner.compilation import compiled
from planner.files import replacing, write_csv
from planner.profiling.profiler import processor_name
from simulator.dispatch.system import System
from simulator.engine import World, simulate
from simulator.engine.network import (
    CENTRAL,
    IDLE_FIRST,
    LATEST_START,
    Change,
    Conditions,
    Network,
    Outage,
    Route,
    Station,
    Step,
    servers,
)
from simulator.engine.networks import simulate_network
from simulator.engine.running import Observation
from simulator.engine.world import FailureRate

app = new_app("Measure the engines at work.")
ROUGH = World(seed=1, spread=0.2, load_us=1000, failure_rate=FailureRate("slice", 5e6, 5e5))
COLUMNS = ("work", "requests", "million_rps", "goal_million_rps")


@dataclass(frozen=True)
class Work:
    """Something to simulate: what it is called, how many requests, and what to call."""

    name: str
    requests: int
    simulate: Callable[[], Any]
    goal: float | None = None


def pipelines(slices: int = 30, stages: int = 2, batch: int = 1) -> System:
    """Return one pipeline of like stages: batch 1 takes a slice 1 ms, four slices share a network card."""
    shape = 1, stages
    latency_us = np.zeros((*shape, batch + 1), np.int64)
    latency_us[:, :, 1:] = 1000 * np.sqrt(np.arange(1, batch + 1))
    ones, position = np.ones(shape, np.int64), np.arange(stages)
    return System(
        dnn="net",
        slo_us=5000 * stages,
        stages=np.array([stages]),
        batch=np.array([batch]),
        latency_us=latency_us,
        transfer_us=ones * np.where(position > 0, 100, 0),
        hop_us=0 * ones,
        later_us=ones * (1100 * (stages - 1 - position)),
        slices=slices * ones,
        card_slices=np.where(position == stages - 1, 1, 4) * ones,
        server_slices=4 * ones,
        share=ones,
        device=0 * ones,
        device_types=("GPU",),
        devices=(float(slices * stages),),
        prices_per_hour=(1.0,),
    )


def poisson_us(rps: float, requests: int, seed: int = 1) -> np.ndarray:
    """Return sorted arrivals."""
    return np.cumsum(np.random.default_rng(seed).exponential(1e6 / rps, requests)).astype(np.int64)


def capacity_rps(system: System) -> float:
    """Return what the pool of the first stage sustains."""
    return float(system.slices[0, 0] * system.batch[0] / system.latency_us[0, 0, -1] * 1e6)


def works(requests: int) -> list[Work]:
    """Return all works, at about this many requests each."""
    ten, found = pipelines(10, 1), []
    ten_us = poisson_us(0.9 * capacity_rps(ten), requests)
    found.append(Work("one pool of ten, batch 1, load 0.9, on replay", requests, partial(simulate, ten, ten_us), 50))
    jitter = World(seed=1, spread=0.2)
    goals = {1: (3, 2, 2), 4: (12, 4, 4)}
    for batch in (1, 4):
        system = pipelines(batch=batch)
        us = poisson_us(0.85 * capacity_rps(system), requests)
        name = f"reservation, 30 slices x 2, batch {batch}"
        worlds = {"": None, ", jitter": jitter, ", failures": ROUGH}
        for (what, world), goal in zip(worlds.items(), goals[batch], strict=True):
            run_it = partial(simulate, system, us, engine="events", world=world)
            found.append(Work(name + what, requests, run_it, goal))
        for what, world, goal in (("", None, 3.0), (", jitter", jitter, 2.5)):
            run_it = partial(simulate, system, us, policy="reactive", engine="events", world=world)
            found.append(Work(f"reactive, 30 slices x 2, batch {batch}{what}", requests, run_it, goal))
    for batch, goal in ((1, 2.5), (4, 4.0)):
        found.append(sharing(requests, batch, goal))
    found += [*chains(requests), *merged(requests), adapting(requests)]
    return found


def sharing(requests: int, batch: int, goal: float | None, dnns: int = 4) -> Work:
    """DNNs of two stages that share the first pool, of ten slices each."""
    systems = [pipelines(10 * dnns, batch=batch) for _ in range(dnns)]
    pools: list[dict[tuple[int, int], Hashable]] = [{(0, 0): "shared"} for _ in systems]
    share = 0.8 * capacity_rps(systems[0]) / dnns
    arrivals_us = [poisson_us(share, requests // dnns, seed) for seed in range(dnns)]
    run_it = partial(simulate, systems, arrivals_us, pools=pools)
    return Work(f"{dnns} DNNs sharing a pool, reservation, batch {batch}", requests, run_it, goal)


def latencies_us(first_us: int, more_us: int, batch: int) -> np.ndarray:
    """Return ``[1, batch]`` latencies that grow linearly."""
    return np.array([[0, *(first_us + more_us * k for k in range(batch))]])


def chain(stations: int, spread: float = 0.0) -> Network:
    """Central queues one after the other, batches of 8, six replicas each."""
    each = tuple(
        Station(
            CENTRAL,
            tuple(range(6 * q, 6 * q + 6)),
            latencies_us(10_000, 4_000, 8),
            max_batch=8,
            timeout_us=20_000,
            placement=IDLE_FIRST,
            spread=spread,
        )
        for q in range(stations)
    )
    steps = tuple(Step(q, (q + 1,) if q + 1 < stations else ()) for q in range(stations))
    return Network(servers([0] * 6 * stations), each, (Route("chain", steps),))


CHAIN_RPS = 0.8 * 6 * 8 / 38_000 * 1e6


def chains(requests: int) -> list[Work]:
    """Three central queues, as planned and with jitter and failures."""
    us = poisson_us(CHAIN_RPS, requests)
    rng = np.random.default_rng(2)
    times = np.sort(rng.integers(0, int(us[-1]), 300)).tolist()
    outages = tuple(Outage(at, (int(rng.integers(18)),), int(rng.exponential(2e5)) + 1) for at in times)
    conditions = Conditions(seed=1, load_us=10_000, outages=outages, corrected=True)
    name = "chain of three central queues, batch 8"
    rough = partial(simulate_network, chain(3, 0.3), [us], conditions)
    return [
        Work(name, requests, partial(simulate_network, chain(3), [us]), 12),
        Work(f"{name}, jitter and failures", requests, rough, 10),
    ]


def merged(requests: int) -> list[Work]:
    """Four DNNs whose first stage is merged, on six devices, latest start first."""
    stages = [latencies_us(4_000, 800, 8), *[latencies_us(3_000, 900, 8)] * 4]
    everywhere = tuple(range(6))
    stations = tuple(
        Station(LATEST_START, everywhere, each, max_batch=8, timeout_us=5_000, epsilon_us=5_000, discard=True)
        for each in stages
    )
    slo_us, rest_us = 150_000, 10_000
    classes = tuple(
        Route(
            f"net{d}",
            (
                Step(0, (1,), slo_us * 4 // 5 - 2 * rest_us, 2 * slo_us - 2 * rest_us),
                Step(1 + d, (), slo_us - rest_us, 2 * slo_us - rest_us),
            ),
        )
        for d in range(4)
    )
    network = Network(servers([0] * 6), stations, classes)
    full_rps = 6 / ((stages[0][0, 8] + stages[1][0, 8]) / 8) * 1e6
    found = []
    for load, goal in ((0.8, 8.0), (1.2, 4.0)):
        arrivals_us = [poisson_us(load * full_rps / 4, requests // 4, seed) for seed in range(4)]
        run_it = partial(simulate_network, network, arrivals_us)
        found.append(Work(f"merged first stage, latest start first, load {load}", requests, run_it, goal))
    return found


def adapting(requests: int) -> Work:
    """Three central queues, two variants; every 10 s the callback asks for the replicas that the rate needs."""
    seconds = 1_000
    rng = np.random.default_rng(1)
    rate_rps = requests / seconds * (1 + 0.5 * np.sin(np.arange(seconds) / 150))
    counts = rng.poisson(rate_rps)
    us = np.sort(np.concatenate([s * 1_000_000 + rng.integers(0, 1_000_000, n) for s, n in enumerate(counts)]))
    latency_us = np.concatenate([latencies_us(10_000, 4_000, 8), latencies_us(20_000, 8_000, 8)])
    replica_rps = 8 / latency_us[:, 8] * 1e6
    most = int(2 * 2 * requests / seconds / replica_rps[1]) + 4
    stations = tuple(
        Station(
            CENTRAL, tuple(range(q * most, (q + 1) * most)), latency_us, max_batch=8, timeout_us=100_000, spread=0.25
        )
        for q in range(3)
    )
    network = Network(servers([0] * 3 * most), stations, (Route("chain", (Step(0, (1,)), Step(1, (2,)), Step(2))),))

    def adapt(seen: Observation) -> list[Change]:
        rps = float(seen.arrived[0]) / (seen.now_us - seen.since_us) * 1e6
        kind = int(rps < requests / seconds)
        replicas = min(most, int(1.2 * rps / replica_rps[kind]) + 1)
        wanted = (replicas, 0) if kind == 0 else (0, replicas)
        return [Change(seen.now_us, q, wanted, 8, seen.now_us + 2_000_000) for q in range(3)]

    conditions = Conditions(seed=1, corrected=True)
    run_it = partial(simulate_network, network, [us], conditions, adapt=adapt, every_us=10_000_000)
    return Work("adaptation every 10 s", len(us), run_it, 7)


def growth(requests: int) -> dict[str, list[tuple[int, Work]]]:
    """Return works that grow: in requests, slices, DNNs that share a pool, and stations of a chain."""
    grown: dict[str, list[tuple[int, Work]]] = {"requests": [], "slices": [], "DNNs": [], "stations": []}
    for count in (requests // 100, requests // 10, requests):
        us = poisson_us(0.85 * capacity_rps(pipelines()), count)
        grown["requests"].append((count, Work("", count, partial(simulate, pipelines(), us, engine="events"))))
    for slices in (10, 30, 100, 300):
        system = pipelines(slices)
        us = poisson_us(0.85 * capacity_rps(system), requests // 4)
        grown["slices"].append((slices, Work("", requests // 4, partial(simulate, system, us, engine="events"))))
    for dnns in (1, 2, 4, 8):
        grown["DNNs"].append((dnns, sharing(requests // 4, 1, None, dnns)))
    for stations in (1, 2, 4, 8):
        us = poisson_us(CHAIN_RPS, requests // 4)
        grown["stations"].append((stations, Work("", requests // 4, partial(simulate_network, chain(stations), [us]))))
    return grown


def draw(grown: dict[str, list[tuple[int, float]]]) -> Figure:
    """Draw the CPU time of a request over what grows."""
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    for ax, (name, points) in zip(figure.subplots(1, len(grown), sharey=True), grown.items(), strict=True):
        sizes, million_rps = zip(*points, strict=True)
        ax.plot(sizes, [1000 / rps for rps in million_rps], "o-")
        ax.set(xscale="log", yscale="log", xlabel=name, ylabel="ns of CPU a request" if name == "requests" else "")
        ax.set_xticks(sizes, [f"{size:,}" for size in sizes])
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:,.0f}")
        ax.minorticks_off()
        ax.grid(alpha=0.3)
    return figure


# What one would pick instead: a million requests, ten servers of 1 ms, load 0.9.


def heap_loop(arrivals_us: np.ndarray) -> float:
    """Ten servers, first come, first served, as ten lines of Python."""
    free_us = [0] * 10
    waited_us = np.empty(len(arrivals_us))
    for k, at_us in enumerate(arrivals_us.tolist()):
        start_us = max(at_us, heapq.heappop(free_us))
        heapq.heappush(free_us, start_us + 1000)
        waited_us[k] = start_us + 1000 - at_us
    return float(np.quantile(waited_us, 0.99))


@compiled
def bare_pool(arrivals_us: np.ndarray, free_us: np.ndarray, end_us: np.ndarray) -> None:
    """Serve as compiled code may at best: no batches, deadlines or network, and nothing is kept but the ends."""
    for k in range(len(arrivals_us)):
        soonest = 1 << 62
        for w in range(len(free_us)):
            soonest = min(soonest, (max(free_us[w], arrivals_us[k]) << 16) | w)
        end_us[k] = free_us[soonest & 0xFFFF] = (soonest >> 16) + 1000


def compiled_kernel(arrivals_us: np.ndarray) -> float:
    """Ten servers (and six that are never free, for the vectors) as a compiled loop."""
    bare_pool(arrivals_us, np.array([0] * 10 + [1 << 44] * 6), end_us := np.empty(len(arrivals_us), np.int64))
    return float(end_us[-1])


def simpy_resource(arrivals_us: np.ndarray) -> float:
    """Use a SimPy Resource of ten and a process per request."""
    env = simpy.Environment()
    resource_ = simpy.Resource(env, 10)
    latencies_us: list[float] = []

    def request(at_us: int) -> Any:
        with resource_.request() as mine:
            yield mine
            yield env.timeout(1000)
        latencies_us.append(env.now - at_us)

    def source() -> Any:
        for at_us in arrivals_us.tolist():
            yield env.timeout(at_us - env.now)
            env.process(request(at_us))

    env.process(source())
    env.run()
    return float(np.quantile(latencies_us, 0.99))


def ciw_network(arrivals_us: np.ndarray) -> float:
    """Ten servers in Ciw."""
    import ciw

    gaps_us = np.diff(arrivals_us, prepend=0).tolist()
    network = ciw.create_network(
        arrival_distributions=[ciw.dists.Sequential([*gaps_us, float("inf")])],
        service_distributions=[ciw.dists.Deterministic(1000)],
        number_of_servers=[10],
    )
    simulation = ciw.Simulation(network)
    simulation.simulate_until_max_customers(len(arrivals_us) - 1, method="Finish")
    return float(np.quantile([one.waiting_time + one.service_time for one in simulation.get_all_records()], 0.99))


WHOLE = """
import numpy as np
from simulator.engine import System, simulate
one, zero = np.ones((1, 1), np.int64), np.zeros((1, 1), np.int64)
system = System("net", 5000, np.array([1]), np.array([1]), np.array([[[0, 1000]]]), zero, zero, zero, 10 * one, one,
                one, one, zero, ("GPU",), (10.0,), (1.0,))
arrivals_us = np.cumsum(np.random.default_rng(1).exponential(1000 / 9, 1_000_000)).astype(np.int64)
records = simulate(system, arrivals_us)
print(np.quantile(records.end_us()[records.finished] - arrivals_us[records.finished], 0.99))
"""

MEMORY = """
import ctypes, re, sys
from pathlib import Path
sys.path.insert(0, {scripts!r})
from bench_engines import works
def megabytes(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
for small, work in zip(works(1_000), works(1_000_000)):
    if work.name in {names!r}:
        small.simulate()
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of making arrivals
        before = megabytes("VmRSS")
        held = work.simulate()
        print(f"{{work.name}}: {{megabytes('VmHWM') - before:.0f}}")
        del held
"""
MEASURED = (
    "one pool of ten, batch 1, load 0.9, on replay",
    "reservation, 30 slices x 2, batch 1",
    "reservation, 30 slices x 2, batch 1, failures",
    "reactive, 30 slices x 2, batch 1",
    "chain of three central queues, batch 8",
    "merged first stage, latest start first, load 0.8",
)


def cpu_s(function: Callable[[], Any], repeats: int) -> float:
    """Return the CPU time of the best of some calls."""
    best_s = float("inf")
    for _ in range(repeats):
        start_s = time.process_time()
        function()
        best_s = min(best_s, time.process_time() - start_s)
    return best_s


def child_cpu_s(script: str) -> float:
    """Return the CPU time of a process, its imports included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@app.command()
def bench(
    requests: Annotated[int, typer.Option(help="Requests of each work.", min=1000)] = 1_000_000,
    repeats: Annotated[int, typer.Option(help="Runs of each work; the best counts.", min=1)] = 3,
    beside: Annotated[bool, typer.Option(help="Measure what one would pick instead as well.")] = True,
    memory: Annotated[bool, typer.Option(help="Measure the memory of some works as well.")] = True,
    out: Annotated[Path, typer.Option(help="Folder for the table.")] = Path("out/bench"),
) -> None:
    """Measure, print, write engines.csv, and engines.png with what grows."""
    console.print(
        f"machine: {processor_name()}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} before the start"
    )
    start_s = time.process_time()
    for work in works(2000):
        work.simulate()
    console.print(f"compiling, or loading what was compiled before: {time.process_time() - start_s:.1f} s of CPU")
    rows: list[dict[str, Any]] = []
    for work in works(requests):
        rows.append(_row(work.name, work.requests, work.requests / cpu_s(work.simulate, repeats) / 1e6, work.goal))
    if beside:
        for name, tool, count in (
            ("SimPy, a Resource and a process per request", simpy_resource, 50_000),
            ("Ciw", ciw_network, 20_000),
            ("a loop over a heap", heap_loop, 500_000),
            ("a bare compiled loop, which only finds out when each ends", compiled_kernel, 1_000_000),
        ):
            if tool is ciw_network and find_spec("ciw") is None:
                console.print("Ciw is not installed: pip install ciw to have it beside")
                continue
            us = poisson_us(9000, count)
            tool(us[:10])
            rows.append(_row(name, count, count / cpu_s(partial(tool, us), 1) / 1e6, None))
    whole_s = min(child_cpu_s(WHOLE) for _ in range(repeats))
    console.print(f"a whole process, a million requests on ten servers, p99: {whole_s:.2f} s of CPU (goal 0.35)")
    if memory:
        script = MEMORY.format(scripts=str(Path(__file__).parent), names=MEASURED)
        done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
        console.print("memory of a million requests, MB, which is bytes a request (goal in a world: 120)")
        console.print(done.stdout, end="", highlight=False)
    grown = {
        name: [(size, work.requests / cpu_s(work.simulate, repeats) / 1e6) for size, work in works_]
        for name, works_ in growth(requests).items()
    }
    for name, points in grown.items():
        console.print(f"growing {name}: " + ", ".join(f"{size:,}: {rps:.3g} M/s" for size, rps in points))
    with replacing(out / "engines.png") as temporary:
        draw(grown).savefig(temporary, dpi=150)
    write_csv(out / "engines.csv", [COLUMNS, *(tuple(row.values()) for row in rows)])


def _row(work: str, requests: int, million_rps: float, goal: float | None) -> dict[str, Any]:
    console.print(f"{work}: {million_rps:.3g} M/s" + (f" (goal {goal:g})" if goal else ""))
    return {"work": work, "requests": requests, "million_rps": round(million_rps, 4), "goal_million_rps": goal}


if __name__ == "__main__":
    run(app)
