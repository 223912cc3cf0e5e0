"""Plans task by task as networks: latencies by hand, shares, trees, both engines alike."""

from dataclasses import replace

import numpy as np
import pytest

from planner.model import (
    Application,
    Block,
    Cluster,
    DeviceType,
    InputError,
    LatencyTable,
    Network,
    Options,
    Problem,
    Profile,
    Provenance,
    Task,
)
from planner.planning import plan_per_task
from simulator.dispatch.decisions import FINISHED
from simulator.engine.networks import simulate_network
from simulator.engine.task_plans import dealt, network_of_tasks

MEASURED = Provenance("measured", "by hand")


def profile(name: str, *us: int, input_bytes: int = 1000) -> Profile:
    """One block on device A, latencies at batch 1, 2, ..."""
    table = LatencyTable("A", 1, tuple(range(1, len(us) + 1)), tuple((each,) for each in us), MEASURED)
    return Profile(name, (Block((name,)),), (), (table,), input_bytes=input_bytes)


def chain(rate_rps: float = 100.0, fan_out: float = 1.0, **changes: object) -> Problem:
    names = profile("n", 3000) if rate_rps <= 300 else profile("n", 3000, 4000)
    tasks = Task("find", (profile("f", 2000),)), Task("name", (names,), fan_out=fan_out)
    application = Application("app", 90_000, tasks, rate_rps=rate_rps)
    options = Options("fewest_devices", slack_fraction=0.0)
    cluster = Cluster((DeviceType("A", 9),), Network(bandwidth_gbps=1, hop_latency_us=100))
    return Problem(cluster, (), options, (replace(application, **changes),))  # type: ignore[arg-type]


def latencies_us(problem: Problem, arrivals_us: list[int], engine: str = "events") -> list[int]:
    made = network_of_tasks(problem, plan_per_task(problem), {"app": np.array(arrivals_us)})
    records = simulate_network(made.network, made.arrivals_us, engine=engine)  # type: ignore[arg-type]
    assert (records.outcome == FINISHED).all()
    return (records.done_us - records.arrival_us)[np.argsort(records.arrival_us, kind="stable")].tolist()


@pytest.mark.parametrize("engine", ["events", "simpy"])
def test_a_chain_by_hand(engine: str) -> None:
    """2 ms, 1000 bytes at 1 Gbit/s (8 us) and a hop of 100 us, then 3 ms; the second waits until the first is done."""
    assert latencies_us(chain(), [0, 50_000, 50_500], engine) == [5108, 5108, 7608]


def test_batches_are_built_as_long_as_planned_by_hand() -> None:
    """At 400 requests/s a slice of names in batches of 2 sustains 500, alone 333: the second one need not be there.

    A single request waits 1 / 400 s for another one; two that come together leave at once.
    """
    problem = chain(rate_rps=400.0)
    (name,) = plan_per_task(problem).of("app", "name")
    assert (name.batch, name.slices) == (2, 1)
    assert latencies_us(problem, [0]) == [2000 + 108 + 2500 + 3000]
    took = latencies_us(problem, [0, 2000])
    assert took == [2000 + 108 + 2000 + 4000, 2000 + 108 + 4000]


def test_a_fan_out_of_two_and_a_half() -> None:
    """Of every two requests one becomes two and one three, and all are served; a request ends with its last part."""
    problem = chain(fan_out=2.5)
    made = network_of_tasks(problem, plan_per_task(problem), {"app": np.arange(100) * 10_000})
    assert sorted((one.copies[1], len(own)) for one, own in zip(made.classes, made.arrivals_us, strict=True)) == [
        (2, 50),
        (3, 50),
    ]
    records = simulate_network(made.network, made.arrivals_us)
    assert (records.outcome == FINISHED).all()
    served = records.size[records.station == 1].sum()
    assert served == 250


def test_shares_are_those_of_the_plan() -> None:
    tasks = (
        Task("find", (profile("small", 1000), profile("large", 4000, 5000)), {"small": 50.0, "large": 90.0}),
        Task("name", (profile("n", 500),), {"n": 100.0}),
    )
    problem = chain(tasks=tasks, rate_rps=900.0)
    cluster = replace(problem.cluster, device_types=(DeviceType("A", 3, price_per_hour=1.0),))
    problem = replace(problem, cluster=cluster, options=Options("most_accurate", slack_fraction=0.0))
    plan = plan_per_task(problem)
    assert len(plan.flows) == 2
    arrivals_us = np.arange(9_000) * 1_111
    made = network_of_tasks(problem, plan, {"app": arrivals_us})
    served = {one.services[0]: 0 for one in made.classes}
    for one, own in zip(made.classes, made.arrivals_us, strict=True):
        served[one.services[0]] += len(own)
    for number, count in served.items():
        assert count == pytest.approx(9_000 * plan.services[number].rate_rps / 900, abs=4)
    accuracy = sum((one.accuracy or 0.0) * len(own) for one, own in zip(made.classes, made.arrivals_us, strict=True))
    assert accuracy / 9_000 == pytest.approx(plan.accuracy["app"], abs=0.05)


@pytest.mark.parametrize("seed", range(4))
def test_both_engines_agree(seed: int) -> None:
    problem = chain(rate_rps=400.0, fan_out=(1.0, 2.0, 1.5, 0.5)[seed], drop_after_us=30_000.0)
    arrivals_us = np.sort(np.random.default_rng(seed).integers(0, 2_000_000, 900))
    made = network_of_tasks(problem, plan_per_task(problem), {"app": arrivals_us})
    runs = [simulate_network(made.network, made.arrivals_us, engine=engine) for engine in ("events", "simpy")]  # type: ignore[arg-type]
    for name in ("outcome", "done_us"):
        np.testing.assert_array_equal(getattr(runs[0], name), getattr(runs[1], name))


def test_dealing_keeps_shares_at_any_time() -> None:
    found = dealt([5.0, 3.0, 1.0], [4, 1, 2], 900)
    for end in range(20, 900):
        counts = np.bincount(found[:end], minlength=3)
        assert np.abs(counts - np.array([5, 3, 1]) / 9 * end).max() <= 6


def test_what_cannot_be_simulated_is_one_line() -> None:
    problem = chain()
    (one,) = problem.applications
    twice = replace(one, tasks=(replace(one.tasks[0], fan_out=2.0), one.tasks[1]))
    several = replace(problem, applications=(twice,))
    with pytest.raises(InputError, match=r"task find: the first task is handed 2 requests at once; expected a fan_out"):
        network_of_tasks(several, plan_per_task(several), {"app": np.arange(3)})
    plan = plan_per_task(problem)
    absurd = replace(plan, services=(replace(plan.services[0], slices=10**9), *plan.services[1:]))
    with pytest.raises(InputError, match=r"task plan: 100000000\d slices; expected at most 32767 to simulate"):
        network_of_tasks(problem, absurd, {"app": np.arange(3)})
    idle = replace(plan, services=tuple(replace(one, rate_rps=0.0) for one in plan.services))
    with pytest.raises(InputError, match=r"app: task find: services of f: rate_rps: expected a sum above 0, got 0"):
        network_of_tasks(problem, idle, {"app": np.arange(3)})
    with pytest.raises(InputError, match=r"application app: flows: rate_rps: expected a sum above 0, got 0"):
        network_of_tasks(problem, replace(plan, flows=()), {"app": np.arange(3)})
    for variants in (("f", "other"), ("f",)):
        astray = replace(plan, flows=(replace(plan.flows[0], variants=variants),))
        with pytest.raises(InputError, match="flow 0: expected a variant for each of 2 tasks that some service runs"):
            network_of_tasks(problem, astray, {"app": np.arange(3)})
