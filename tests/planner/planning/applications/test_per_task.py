"""Plans task by task: against enumeration, trees, shares, memory; beside plans end to end."""

import itertools
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import combinations, combinations_with_replacement, product

import numpy as np
import pytest
from mutants import missed, true_of_tasks
from test_end_to_end import MEASURED, profile, random_problem

from planner.model import (
    Application,
    Block,
    Cluster,
    DeviceType,
    Dnn,
    InputError,
    LatencyTable,
    Network,
    Options,
    Problem,
    Profile,
    Task,
)
from planner.model.applications import combined_accuracy
from planner.model.check_tasks import check_tasks
from planner.model.task_worth import Configuration
from planner.planning import make_plan
from planner.planning.applications import choices, per_task
from planner.planning.applications.configurations import configurations
from planner.planning.applications.per_task import plan_per_task, search_per_task
from planner.planning.programme.backends import Interrupted, Limits, TooLate, clock, solve
from planner.planning.programme.linear import LinearModel, Solution, without_values


def small(seed: int) -> Problem:
    """Two tasks of two variants on two devices of each of two types, the rate within reach."""
    problem = random_problem(seed)
    application = replace(problem.applications[0], rate_rps=450.0 + 60 * seed, slo_us=20_000)
    options = replace(problem.options, budget_per_hour=(2.7, 4.0, 5.4)[seed % 3])
    cluster = problem.cluster.with_counts({"B": 2})
    return replace(problem, cluster=cluster, options=options, applications=(application,))


def most_accurate_flow(accuracy: np.ndarray, capacity: np.ndarray, rate_rps: float) -> float | None:
    """The best of a linear programme in the flows [variant of task 0, variant of task 1], by its vertices.

    With f00, f01, f10 free and f11 = rate - their sum, every constraint is a half-space; a vertex is where three meet.
    """
    rows = np.array(
        [[-1, 0, 0], [0, -1, 0], [0, 0, -1], [1, 1, 1], [1, 1, 0], [-1, -1, 0], [1, 0, 1], [-1, 0, -1]], dtype=float
    )
    (a0, a1), (b0, b1) = capacity
    limits = np.array([0, 0, 0, rate_rps, a0, a1 - rate_rps, b0, b1 - rate_rps])
    best = None
    for chosen in combinations(range(len(rows)), 3):
        part = rows[list(chosen)]
        if abs(np.linalg.det(part)) < 0.5:
            continue
        f = np.linalg.solve(part, limits[list(chosen)])
        if (rows @ f <= limits + 1e-7).all():
            flows = np.array([[f[0], f[1]], [f[2], rate_rps - f.sum()]])
            value = float((flows * accuracy).sum() / rate_rps)
            best = value if best is None else max(best, value)
    return best


def fleets(found: list[Configuration], counts: dict[str, int]) -> Iterator[tuple[Configuration, ...]]:
    """Every way to give devices (whole ones) to configurations."""
    of_types = [
        [one for n in range(count + 1) for one in combinations_with_replacement(own, n)]
        for name, count in counts.items()
        for own in [[each for each in found if each.device == name]]
    ]
    for parts in product(*of_types):
        yield tuple(one for part in parts for one in part)


def brute_force(problem: Problem) -> float | None:
    application = problem.applications[0]
    found = [one for task in (0, 1) for one in configurations(problem, application, task)]
    prices = {device.name: device.price_per_hour or 0.0 for device in problem.cluster.device_types}
    counts = {device.name: device.count for device in problem.cluster.device_types}
    names = [[variant.name for variant in task.variants] for task in application.tasks]
    percents = [list(task.accuracy.values()) for task in application.tasks]
    accuracy = np.array([[combined_accuracy([a, b], application.rule) for b in percents[1]] for a in percents[0]])
    limit_us = application.slo_us * 0.9
    best = None
    seen = set()
    for fleet in fleets(found, counts):
        if sum(prices[one.device] for one in fleet) > (problem.options.budget_per_hour or 0.0) + 1e-9:
            continue
        worst_us = sum(max((one.latency_us for one in fleet if one.task == task), default=0.0) for task in (0, 1))
        if worst_us > limit_us:
            continue
        capacity = np.zeros((2, 2))
        for one in fleet:
            capacity[one.task, names[one.task].index(one.variant)] += one.slice_rps
        key = tuple(capacity.round(6).ravel())
        if key in seen or capacity.sum(axis=1).min() < application.rate_rps:
            continue
        seen.add(key)
        value = most_accurate_flow(accuracy, capacity, application.rate_rps or 0.0)
        if value is not None and (best is None or value > best):
            best = value
    return best


@pytest.mark.parametrize("seed", range(8))
def test_the_most_accurate_plan_equals_enumeration(seed: int) -> None:
    problem = small(seed)
    expected = brute_force(problem)
    if expected is None:
        with pytest.raises(InputError):
            plan_per_task(problem)
        return
    plan = plan_per_task(problem)
    assert plan.value == pytest.approx(expected, rel=1e-6)
    assert plan.bound == pytest.approx(plan.value, rel=1e-5)
    assert check_tasks(problem, plan) == ()


@pytest.mark.parametrize("seed", range(8))
def test_the_mean_admits_what_the_worst_does(seed: int) -> None:
    problem = small(seed)
    try:
        worst = plan_per_task(problem)
    except InputError:
        return
    mean = plan_per_task(problem, "mean")
    assert mean.value >= worst.value - 1e-6


@pytest.mark.parametrize("seed", range(6))
def test_end_to_end_is_never_worse_where_each_task_has_one_configuration_at_batch_1(seed: int) -> None:
    """The theorem of the module: then pools of the per-task plan are a pipeline. Elsewhere either may be better."""
    problem = random_problem(seed)
    tasks = tuple(
        replace(task, variants=tuple(map(of_batch_1, task.variants))) for task in problem.applications[0].tasks
    )
    application = replace(problem.applications[0], tasks=tasks, rate_rps=120.0)
    options = replace(problem.options, objective="least_cost", budget_per_hour=None)
    problem = replace(problem, options=options, applications=(application,))
    alone = plan_per_task(problem)
    assert all(len(alone.of("app", task.name)) == 1 for task in tasks)
    assert make_plan(problem).value <= alone.value * (1 + 1e-9)


def of_batch_1(one: Profile) -> Profile:
    tables = tuple(replace(table, batches=(1,), latency_us=table.latency_us[:1]) for table in one.tables)
    return replace(one, tables=tables)


def tree(fan_out: float = 3.0) -> Problem:
    """A detector of 2 ms hands crops to a classifier (1 ms) and frames to a describer (4 ms)."""
    tasks = (
        Task("detect", (profile("d", {"A": [2000]}),), {"d": 80.0}),
        Task("classify", (profile("c", {"A": [1000]}),), {"c": 70.0}, after="detect", fan_out=fan_out),
        Task("describe", (profile("t", {"A": [4000]}),), {"t": 60.0}, after="detect"),
    )
    application = Application("app", 20_000, tasks, rule="average", rate_rps=400.0)
    options = Options("fewest_devices", slack_fraction=0.0, batch_building_factor=0)
    return Problem(Cluster((DeviceType("A", 9),), Network(10)), (), options, (application,))


def test_a_tree_with_fan_out_by_hand() -> None:
    """400 requests/s: 0.8 detectors' time, 1.2 classifiers' at 1,200/s, 1.6 describers'. In batches of 2 (1.5 times the
    time, 2 of 3 ms each) it is 0.6, 0.9 and 1.2: 1 + 1 + 2 devices. Latencies by hand: 2 + (1.5 + 1/1200 s) and
    2 + 4 (batches of 1 suffice there) all fit 20 ms."""
    plan = plan_per_task(tree())
    assert plan.value == 4
    assert {task: sum(one.slices for one in plan.of("app", task)) for task in ("detect", "classify", "describe")} == {
        "detect": 1,
        "classify": 1,
        "describe": 2,
    }
    (classify,) = plan.of("app", "classify")
    assert classify.batch == 2
    assert classify.rate_rps == pytest.approx(1200)
    assert classify.latency_us == pytest.approx(1500 + 1e6 / 1200 + 2 * 500 * 8 / 10_000)
    assert plan.accuracy["app"] == pytest.approx(70.0)


def test_more_fan_out_never_takes_fewer_devices() -> None:
    assert [plan_per_task(tree(fan_out)).value for fan_out in (1.0, 3.0, 5.0)] == [4, 4, 5]


def test_shares_and_memory() -> None:
    """Halves take 1.5 times as long: two sustain 1,333 requests/s where the whole does 1,000; given the memory."""
    tables = tuple(LatencyTable("A", share, (1,), ((us,),), MEASURED) for share, us in ((1, 1000), (2, 1500)))
    model = Profile("m", (Block(("a",), parameter_bytes=600),), (), tables)
    for memory_bytes, share, devices in ((1200, 2, 1), (1199, 1, 2)):
        device = DeviceType("A", 5, shares=(1, 2), memory_bytes=memory_bytes)
        dnn, options = Dnn("m", 9000, (model,), rate_rps=1300.0), Options("fewest_devices", slack_fraction=0.0)
        plan = plan_per_task(Problem(Cluster((device,), Network(10)), (dnn,), options))
        assert (plan.value, {one.share for one in plan.services}) == (devices, {share})


def test_task_plans_are_checked_in_everything_that_they_say() -> None:
    plans = [(problem, plan_per_task(problem)) for problem in map(small, range(4))]
    tried, passed = missed(plans, check_tasks, true_of_tasks)
    assert tried > 300
    assert passed == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: plan_per_task(small(1), "median"), "latency: expected one of \\['worst', 'mean'\\], got 'median'"),
        (
            lambda: plan_per_task(with_options(objective="max_min_throughput")),
            "objective: task by task expected one of",
        ),
        (lambda: plan_per_task(with_options(device_sharing="shared")), "each device serves one task, expected 'own'"),
        (lambda: plan_per_task(with_application(rate_rps=None)), "rate_rps of app: missing"),
        (lambda: plan_per_task(with_application(slo_us=300)), "task t0: no variant can meet the SLO"),
        (lambda: plan_per_task(with_application(rate_rps=9e4)), "the rates cannot be served task by task"),
        (
            lambda: plan_per_task(with_options(budget_per_hour=0.1)),
            "budget_per_hour: 0.1 is below what the cheapest",
        ),
        (
            lambda: plan_per_task(with_options(objective="least_cost", budget_per_hour=None, min_accuracy=99.0)),
            "min_accuracy: 99 % is out of reach; with the whole cluster it is",
        ),
        (lambda: plan_per_task(without_accuracy()), "accuracy of app/t0/t0v0: missing"),
    ],
)
def test_bad_input_is_one_line(make: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()  # type: ignore[operator]


def with_options(**changes: object) -> Problem:
    problem = small(1)
    return replace(problem, options=replace(problem.options, **changes))


def with_application(**changes: object) -> Problem:
    problem = small(1)
    return replace(problem, applications=(replace(problem.applications[0], **changes),))


def without_accuracy() -> Problem:
    tasks = tuple(replace(task, accuracy={}) for task in small(1).applications[0].tasks)
    return with_application(tasks=tasks)


def interrupted_while_solving(monkeypatch: pytest.MonkeyPatch, found: bool) -> None:
    """Let Ctrl-C come while the programme is solved, before or after a solution is known."""

    def stopped(model: LinearModel, backend: str, limits: Limits) -> tuple[Solution, str]:
        solution, name = solve(model, backend, limits)
        ended = Interrupted(solution if found else without_values("no solution", maximise=model.maximise))
        ended.backend = name
        raise ended

    monkeypatch.setattr(per_task, "solve", stopped)


def test_ctrl_c_keeps_the_plan_that_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = small(0)
    best = plan_per_task(problem)
    interrupted_while_solving(monkeypatch, found=True)
    plan, interrupted = search_per_task(problem, "worst", "auto", Limits())
    assert interrupted
    assert plan.value == pytest.approx(best.value)
    assert plan.backend in ("highs", "gurobi")
    assert check_tasks(problem, plan) == ()


def test_ctrl_c_before_any_plan_is_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted_while_solving(monkeypatch, found=False)
    with pytest.raises(KeyboardInterrupt):
        plan_per_task(small(0))


def test_ctrl_c_while_the_simplest_plan_is_looked_for_keeps_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> Solution:
        raise KeyboardInterrupt

    problem = small(0)
    best = plan_per_task(problem)
    monkeypatch.setattr(per_task, "_simplest", interrupted)
    plan, ended = search_per_task(problem, "worst", "highs", Limits())
    assert ended
    assert plan.value == pytest.approx(best.value)
    assert check_tasks(problem, plan) == ()


def test_choices_that_prices_have_no_time_to_ask_for_prove_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time given is one for all steps, and a plan from some of many choices is no optimum."""
    problem = small(0)
    best = plan_per_task(problem)
    monkeypatch.setattr(choices, "MOST_CHOICES", 1)
    monkeypatch.setattr(clock, "monotonic", itertools.count().__next__)  # a second a look
    for looks in (3, 10, 40, 1000):
        plan = None
        with suppress(TooLate):
            plan = plan_per_task(problem, limits=Limits(1e-6, looks))
        if plan is not None:
            assert plan.value <= best.value * (1 + 1e-9)
            assert plan.bound >= best.value * (1 - 1e-9)
