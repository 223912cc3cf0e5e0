"""From an ONNX file to a plan, a sweep and a picture: a tutorial in cells, for an editor that runs them one by one.

Run as a whole it takes about half a minute: ``.venv/bin/python scripts/tutorial.py``. What it writes goes to
``out/tutorial/``. Every step has a command as well (README.md); here it is Python, on your own objects.
"""

# %% What we need: the planner makes plans, the simulator tries them.
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from planner.cli.profile_model import profile_model
from planner.files import save
from planner.files.models import load_model, save_model
from planner.model import Cluster, Dnn, Network, Problem
from planner.planning import make_plan
from planner.profiling import build_model, find_device
from simulator.engine import Drop, Send, View, build_system, simulate
from simulator.results import attainment, distribution, latencies_us, summary, utilisation
from simulator.results.plan_drawing import plan_drawing
from simulator.results.plots import attainment_over_load
from simulator.results.style import save_figure
from simulator.sweep import SweepOptions, run_sweep, series_of_plan
from simulator.workload import from_seconds, gamma, merge, poisson

OUT = Path("out/tutorial")

# %% 1. A model. Any ONNX file will do; this one is built, with random weights, and its batch can vary.
save_model(build_model("mobilenet_v2"), OUT / "mobilenet_v2.onnx")
model = load_model(OUT / "mobilenet_v2.onnx")

# %% 2. A profile: the model cut into 10 blocks, and what each costs on each device at each batch size.
# Neither device is at hand, so both are estimated from their datasheets; every table says how it is known. On a device
# that you have, `python -m planner profile` measures, and adds to the same profile.
devices = [find_device("JetsonOrinNano"), find_device("RaspberryPi4")]
profile = profile_model(model, "mobilenet_v2", estimated=devices, batches=(1, 2, 4)).profile
save(profile, OUT / "mobilenet_v2.json")
print(profile)

# %% 3. A problem: which devices there are, and within which time (the SLO) each request must be answered.
# Here it is 1.2 times what a Raspberry Pi takes alone: with the slack that is kept for queueing, too little for whole
# models on Pis, so that these help only as stages of pipelines.
alone_us = profile.stage_latency_us("RaspberryPi4", 1, 1, 0, len(profile.blocks))
types = tuple(device.device_type(count) for device, count in zip(devices, (1, 40), strict=True))
cluster = Cluster(types, Network(bandwidth_gbps=1.0, hop_latency_us=200.0))
problem = Problem(cluster, (Dnn("mobilenet_v2", 1.2 * alone_us, (profile,)),))
save(problem, OUT / "problem.json")

# %% 4. Two plans: whole models on single devices (np), and stages on pools of devices (pipelines).
# A plan is a frozen record. Its value is the objective, here requests per second; its bound is what no plan exceeds.
plans = {scheduler: make_plan(problem, scheduler) for scheduler in ("np", "pipelines")}
for name, plan in plans.items():
    save(plan, OUT / f"{name}.json")
    print(plan)
save_figure(plan_drawing(plans["pipelines"], problem), OUT / "plan.png")

# %% 5. One run: what becomes of every request when 90 % of what is planned arrives at random.
# Arrivals are sorted whole microseconds. Yours come from a trace (`simulator.workload.read_trace`) or a generator.
rng = np.random.default_rng(1)
rate_rps = 0.9 * plans["pipelines"].value
arrivals_us = poisson(rate_rps, 30.0, rng)
records = simulate(build_system(problem, plans["pipelines"], "mobilenet_v2"), arrivals_us)
print(records)
us = distribution(latencies_us(records))  # and `quantile(latencies_us(records), 0.999)` for any other
print(f"after the first millisecond: {attainment(records):.2%} in time, p50 {us['p50']} µs, p95 {us['p95']} µs")
print(f"goodput {summary(records)['goodput_rps']:.1f} requests/s, devices busy {utilisation(records)}")

# %% 6. Your own arrivals: a steady stream, and bursts on top of it; or any times in seconds.
bursty_us = merge(poisson(0.5 * rate_rps, 30.0, rng), gamma(0.3 * rate_rps, 30.0, rng, cv=6.0))
bursty = simulate(build_system(problem, plans["pipelines"], "mobilenet_v2"), bursty_us)
print(f"with bursts: {attainment(bursty):.2%} of {len(bursty)} in time")
every_20_ms = from_seconds(np.arange(0.0, 30.0, 0.02))
print(f"evenly: {simulate(build_system(problem, plans['pipelines'], 'mobilenet_v2'), every_20_ms)}")


# %% 7. Your own policy: a function of what a frontend sees, which says what it does next.
# This one never waits for a batch to fill: it sends the head at once where that is in time, else drops it.
def impatient(view: View) -> Send | Drop:
    """Send the head of the queue alone, on the first pipeline that answers it in time."""
    for number in range(view.pipelines):
        if view.completion_us(number, 1) <= view.deadline_us:
            return Send(number, 1)
    return Drop()


alone = simulate(build_system(problem, plans["pipelines"], "mobilenet_v2"), arrivals_us, policy=impatient)
print(f"without batches: {alone}")

# %% 8. A sweep: both plans at many loads, and the largest load at which 99 % of the requests are in time.
# Load factor 1 is the throughput of the pipelines plan, for both, so that they are compared at equal rates.
trace_s = poisson(1.0, 20_000.0, rng) / 1e6  # a trace is in seconds, and is folded to each rate
reference = {"mobilenet_v2": ("pipelines", plans["pipelines"])}
series = [
    one
    for name, plan in plans.items()
    for one in series_of_plan(name, problem, plan, {"mobilenet_v2": ["poisson"]}, references=reference)
]
result = run_sweep(series, {"poisson": trace_s}, SweepOptions(duration_s=20.0), folder=OUT / "sweep")
for row in result.largest:
    print(f"{row['plan']}: 99 % in time up to load factor {row['largest_load_factor']:.2f}")

# %% 9. A picture.
runs = pd.DataFrame(result.rows)
save_figure(attainment_over_load(runs), OUT / "attainment.png")
print(f"pictures: {OUT / 'plan.png'} and {OUT / 'attainment.png'}")

# %% 10. What if? A problem is a frozen record, too: change what you like and plan again.
longer = replace(problem, dnns=(replace(problem.dnns[0], slo_us=2 * problem.dnns[0].slo_us),))
print(f"with twice the SLO: {make_plan(longer).value:.1f} requests/s")
