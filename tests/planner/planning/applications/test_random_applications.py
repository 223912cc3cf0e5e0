"""Random applications of three tasks, chains and trees, with fan-out and every rule of accuracy, against brute force.

The oracle gives every device of the cluster, in every way, to a configuration; what latencies, rates and accuracies are
is written down again here.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations_with_replacement, product
from typing import NamedTuple

import numpy as np
import pytest
from scipy.optimize import linprog

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
from planner.model.applications import rated
from planner.model.check_tasks import check_tasks
from planner.planning import make_plan, plan_both_ways, plan_per_task

MEASURED = Provenance("measured", "by hand")
BITS_PER_US = 10_000  # 10 Gbit/s
HOP_US = 40


class Way(NamedTuple):
    """A way to serve a task by one device."""

    task: int
    variant: int
    device: str
    latency_us: float
    rps: float


def own_accuracy(names: tuple[str, ...]) -> float:
    """Any function of the choice."""
    return float(30 + 37 * sum(ord(name[-1]) * (place + 3) for place, name in enumerate(names)) % 61)


def random_application(seed: int) -> Problem:
    rng = np.random.default_rng(seed)
    tasks = []
    for t in range(3):
        variants = []
        for v in range(2 if t < 2 else 1):
            us = {device: int(rng.integers(600, 2500)) * (v + 1) for device in "AB"}
            tables = tuple(
                LatencyTable(device, 1, (1, 2), ((one,), (round(one * rng.uniform(1.2, 1.8)),)), MEASURED)
                for device, one in us.items()
            )
            bytes_in = int(rng.integers(1, 40)) * 1000
            variants.append(Profile(f"t{t}v{v}", (Block((f"t{t}v{v}",)),), (), tables, input_bytes=bytes_in))
        percents = np.sort(rng.uniform(40, 99, len(variants))).round(2).tolist()
        after = None if t == 0 or seed % 2 else "t0"
        fan_out = 1.0 if t == 0 else float(rng.choice([1.0, 1.0, 2.0, 0.5, 1.5]))
        accuracy = {one.name: percent for one, percent in zip(variants, percents, strict=True)}
        tasks.append(Task(f"t{t}", tuple(variants), accuracy, after, fan_out))
    slo_us = float(rng.integers(9_000, 26_000))
    rule = ("multiply", "average", "sum")[seed % 3] if seed % 4 else "multiply"
    application = Application("app", slo_us, tuple(tasks), rule, rate_rps=float(rng.integers(80, 420)))
    if seed % 4 == 0:  # whatever a function says, worse together in places
        application = rated(
            application, lambda names: float(30 + 37 * sum(ord(n[-1]) * (at + 3) for at, n in enumerate(names)) % 61)
        )
    cluster = Cluster(
        (DeviceType("A", 2, price_per_hour=2.0), DeviceType("B", 2, price_per_hour=0.7)), Network(10, HOP_US)
    )
    objective = ("most_accurate", "least_cost", "fewest_devices")[seed // 2 % 3]
    limits = {"budget_per_hour": float(rng.choice([3.4, 4.7, 5.4]))} if objective == "most_accurate" else {}
    options = Options(objective, 3, slack_fraction=0.1, batch_building_factor=1.0, **limits)  # type: ignore[arg-type]
    return Problem(cluster, (), options, (application,))


def rates(application: Application) -> list[float]:
    found: list[float] = []
    for task, before in zip(application.tasks, application.predecessors, strict=True):
        found.append((application.rate_rps or 0.0) * task.fan_out if before is None else found[before] * task.fan_out)
    return found


def wire_us(one: Profile) -> float:
    return (one.input_bytes or 0) * 8 / BITS_PER_US


def every_way(problem: Problem) -> Iterator[Way]:
    """What one device of each type may do, batches and all, from the definition."""
    (application,) = problem.applications
    before = application.predecessors
    for t, (task, rate_rps) in enumerate(zip(application.tasks, rates(application), strict=True)):
        out_us = sum(
            following.fan_out * max(map(wire_us, following.variants))
            for following, previous in zip(application.tasks, before, strict=True)
            if previous == t
        )
        for v, one in enumerate(task.variants):
            in_us, hop_us = (wire_us(one), HOP_US) if before[t] is not None else (0.0, 0)
            for table, batch in product(one.tables, (1, 2)):
                inference_us = table.latency_us[batch - 1][0]
                latency_us = inference_us + batch * in_us + hop_us + (batch - 1) / rate_rps * 1e6
                rps = min(batch / inference_us, *(1 / us if us else 1.0 for us in (in_us, out_us))) * 1e6
                yield Way(t, v, table.device, latency_us, rps)


def ends(application: Application) -> list[list[int]]:
    """The tasks on the way to every leaf."""
    before = application.predecessors
    leaves = [t for t in range(len(before)) if t not in before]
    found = []
    for leaf in leaves:
        way, at = [], leaf
        while at is not None:
            way.append(at)
            at = before[at]  # type: ignore[assignment]
        found.append(way)
    return found


def worth(problem: Problem, fleet: tuple[Way, ...]) -> float | None:
    """What devices in use are worth by the objective, None where they do not serve the rate in time."""
    (application,) = problem.applications
    reaching = rates(application)
    worst = [max((one.latency_us for one in fleet if one.task == t), default=0.0) for t in range(3)]
    if max(sum(worst[t] for t in way) for way in ends(application)) > 0.9 * application.slo_us:
        return None
    capacity = np.zeros((3, 2))
    for one in fleet:
        capacity[one.task, one.variant] += one.rps
    if (capacity.sum(axis=1) < np.array(reaching) * (1 - 1e-9)).any():
        return None
    cost = sum({"A": 2.0, "B": 0.7}[one.device] for one in fleet)
    if problem.options.objective == "fewest_devices":
        return float(len(fleet))
    if problem.options.objective == "least_cost":
        return cost
    if cost > (problem.options.budget_per_hour or 0.0) + 1e-9:
        return None
    choices = list(product(*(range(len(task.variants)) for task in application.tasks)))
    accuracy = []
    for choice in choices:
        names = [task.variants[v].name for task, v in zip(application.tasks, choice, strict=True)]
        percents = [task.accuracy[name] for task, name in zip(application.tasks, names, strict=True)]
        combined = {
            "multiply": np.prod(np.array(percents) / 100) * 100,
            "sum": sum(percents),
            "average": np.mean(percents),
        }
        own = application.accuracies.get("+".join(names))
        accuracy.append(combined[application.rule] if own is None else own)
    rows, limits = [], []
    for t, v in product(range(3), range(2)):
        fan_out = reaching[t] / (application.rate_rps or 1.0)
        rows.append([fan_out * (choice[t] == v) for choice in choices])
        limits.append(capacity[t, v])
    found = linprog(
        -np.array(accuracy), np.array(rows), np.array(limits) * (1 + 1e-9), np.ones((1, len(choices))),
        [application.rate_rps],
    )  # fmt: skip
    return -float(found.fun) / (application.rate_rps or 1.0) if found.success else None


def brute_force(problem: Problem) -> float | None:
    ways = list(every_way(problem))
    of_types = [
        [
            fleet
            for count in range(3)
            for fleet in combinations_with_replacement([w for w in ways if w.device == g], count)
        ]
        for g in "AB"
    ]
    values = [worth(problem, left + right) for left, right in product(*of_types)]
    known = [value for value in values if value is not None]
    maximises = problem.options.objective == "most_accurate"
    return (max if maximises else min)(known) if known else None


@pytest.mark.parametrize("seed", range(24))
def test_task_by_task_equals_brute_force(seed: int) -> None:
    problem = random_application(seed)
    expected = brute_force(problem)
    if expected is None:
        with pytest.raises(InputError):
            plan_per_task(problem)
        return
    plan = plan_per_task(problem)
    assert plan.value == pytest.approx(expected, rel=1e-6)
    assert plan.status == "optimal"
    assert check_tasks(problem, plan) == ()


@pytest.mark.parametrize("seed", range(12))
def test_the_better_way_is_no_worse_than_either(seed: int) -> None:
    problem = random_application(seed)
    values = []
    for make in (plan_per_task, make_plan):
        try:
            values.append(make(problem).value)
        except InputError:
            continue
    if not values:
        with pytest.raises(InputError):
            plan_both_ways(problem)
        return
    best = (max if problem.options.objective == "most_accurate" else min)(values)
    assert plan_both_ways(problem).value == pytest.approx(best, rel=1e-6)


def test_most_of_the_random_applications_can_be_served() -> None:
    """So that the tests above test something: of each objective there are some, trees and fan-out among them."""
    served = [seed for seed in range(24) if _served(seed)]
    assert len(served) >= 12
    assert {random_application(seed).options.objective for seed in served} >= {"most_accurate", "least_cost"}
    assert any(not random_application(seed).applications[0].is_chain for seed in served)


def _served(seed: int) -> bool:
    try:
        plan_per_task(random_application(seed))
    except InputError:
        return False
    return True


def test_a_longer_slo_and_a_lower_rate_never_hurt() -> None:
    for seed in (3, 5, 7):
        problem = random_application(seed)
        (one,) = problem.applications
        if not _served(seed):
            continue
        value = plan_per_task(problem).value
        sign = 1 if problem.options.objective == "most_accurate" else -1
        longer = replace(problem, applications=(replace(one, slo_us=2 * one.slo_us),))
        assert sign * plan_per_task(longer).value >= sign * value - 1e-6
