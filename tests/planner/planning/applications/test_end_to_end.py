"""Applications planned end to end: virtual models, accuracy under budgets, against enumeration."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, pairwise, product
from math import ceil

import numpy as np
import pytest

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
    Plan,
    Problem,
    Profile,
    Provenance,
    Task,
    digest,
)
from planner.model.applications import combined_accuracy
from planner.model.check import check
from planner.model.served import plan_accuracy
from planner.planning import accuracy_front, api, make_plan
from planner.planning.baselines import with_x0
from planner.planning.baselines.whole_tasks import size_whole_tasks
from planner.planning.pipelines.sizing import build_plan
from planner.planning.programme.backends import Limits, TooLate

MEASURED = Provenance("measured", "by hand")


def profile(name: str, latency_us: dict[str, list[int]], cut: int = 1000, input_bytes: int | None = 500) -> Profile:
    """Latencies per device of every block at batch 1; batch 2 takes half as long again."""
    blocks = len(next(iter(latency_us.values())))
    tables = tuple(
        LatencyTable(device, 1, (1, 2), (tuple(row), tuple(us * 3 // 2 for us in row)), MEASURED)
        for device, row in latency_us.items()
    )
    made = tuple(Block((f"{name}{n}",)) for n in range(blocks))
    return Profile(name, made, (cut,) * (blocks - 1), tables, input_bytes=input_bytes)


def random_problem(seed: int) -> Problem:
    rng = np.random.default_rng(seed)
    tasks = []
    for t in range(2):
        variants = tuple(
            profile(
                f"t{t}v{v}",
                {"A": [(v + 1) * int(rng.integers(500, 1500))], "B": [(v + 1) * int(rng.integers(900, 3000))]},
            )
            for v in range(2)
        )
        worst = float(rng.uniform(40, 70))
        tasks.append(Task(f"t{t}", variants, {variants[0].name: worst, variants[1].name: worst + 20}))
    cluster = Cluster(
        (DeviceType("A", 2, price_per_hour=2.0), DeviceType("B", 3, price_per_hour=0.7)), Network(bandwidth_gbps=10)
    )
    application = Application("app", 60_000, tuple(tasks), rate_rps=float(rng.uniform(100, 500)))
    options = Options(
        "most_accurate",
        max_stages=2,
        slack_fraction=0.1,
        batch_building_factor=0,
        budget_per_hour=float(rng.choice([2.5, 4.0, 6.1])),
    )
    return Problem(cluster, (), options, (application,))


def pipelines(problem: Problem) -> Iterator[tuple[float, list[str], list[float]]]:
    """Accuracy, devices and slice rates of every pipeline, from the definition: batch 1 or 2, one or two stages."""
    application = problem.applications[0]
    for chosen in application.choices():
        percents = [task.accuracy[one.name] for task, one in zip(application.tasks, chosen, strict=True)]
        for batch, cut in product((1, 2), (None, 1)):
            stages = [chosen] if cut is None else [chosen[:1], chosen[1:]]
            for devices in product(("A", "B"), repeat=len(stages)):
                latency_us = [
                    sum(one.stage_latency_us(device, 1, batch, 0, 1) for one in stage)
                    for stage, device in zip(stages, devices, strict=True)
                ]
                wire_us = 0.0 if cut is None else problem.cluster.network.wire_us(*devices, 500)
                if sum(latency_us) + batch * wire_us + 0.1 * application.slo_us > application.slo_us:
                    continue
                rates = [min(batch / us, 1 / wire_us if wire_us else 1e9) * 1e6 for us in latency_us]
                yield combined_accuracy(percents, application.rule), list(devices), rates


def brute_force(problem: Problem) -> float | None:
    """The most accurate service of the rate within the budget, over sets of up to three pipelines and their sizes."""
    application = problem.applications[0]
    limits = {device.name: device.count for device in problem.cluster.device_types}
    prices = {device.name: device.price_per_hour or 0.0 for device in problem.cluster.device_types}
    sized = set()
    for accuracy, devices, rates in pipelines(problem):
        for level in {
            rate * n for rate, device in zip(rates, devices, strict=True) for n in range(1, limits[device] + 1)
        }:
            counts = [ceil(level / rate - 1e-9) for rate in rates]
            use = tuple(sum(n for n, device in zip(counts, devices, strict=True) if device == name) for name in limits)
            if all(n <= limit for n, limit in zip(use, limits.values(), strict=True)):
                sized.add((accuracy, use, level))
    keep = [
        one
        for one in sized
        if not any(
            other != one
            and other[0] >= one[0]
            and other[2] >= one[2]
            and all(a <= b for a, b in zip(other[1], one[1], strict=True))
            for other in sized
        )
    ]
    best = None
    for count in (1, 2, 3):
        for chosen in combinations(sorted(keep), count):
            use = [sum(column) for column in zip(*(one[1] for one in chosen), strict=True)]
            cost = sum(n * price for n, price in zip(use, prices.values(), strict=True))
            rate = application.rate_rps or 0.0
            if (
                any(n > limit for n, limit in zip(use, limits.values(), strict=True))
                or cost > problem.options.budget_per_hour + 1e-9
            ):
                continue
            if sum(one[2] for one in chosen) < rate - 1e-9:
                continue
            left, total = rate, 0.0
            for accuracy, _, rps in sorted(chosen, reverse=True):
                total += accuracy * min(left, rps)
                left -= min(left, rps)
            best = total / rate if best is None else max(best, total / rate)
    return best


@pytest.mark.parametrize("seed", range(12))
def test_the_most_accurate_plan_within_a_budget_equals_enumeration(seed: int) -> None:
    problem = random_problem(seed)
    expected = brute_force(problem)
    if expected is None:
        with pytest.raises(InputError):
            make_plan(problem)
        return
    plan = make_plan(problem)
    assert plan.value == pytest.approx(expected, rel=1e-6)
    assert plan.accuracy["app"] == pytest.approx(plan.value)
    assert plan.cost_per_hour is not None
    assert plan.cost_per_hour <= (problem.options.budget_per_hour or 0) * (1 + 1e-9)
    assert check(problem, plan) == ()


@pytest.mark.parametrize("seed", range(4))
def test_more_money_never_buys_less_and_asking_for_less_accuracy_never_costs_more(seed: int) -> None:
    problem = random_problem(seed)
    rich = replace(problem, options=replace(problem.options, budget_per_hour=6.1))
    best = make_plan(rich)
    costs = []
    for least in (best.value - 30, best.value - 10, best.value - 1e-6):
        options = replace(problem.options, objective="least_cost", budget_per_hour=None, min_accuracy=max(0.0, least))
        plan = make_plan(replace(problem, options=options))
        assert plan.accuracy["app"] >= least - 1e-6
        costs.append(plan.value)
    assert costs == sorted(costs)
    assert costs[-1] <= (best.cost_per_hour or 0) + 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_the_front_of_accuracy_holds_the_best_plan_of_every_budget(seed: int) -> None:
    problem = random_problem(seed)
    points = accuracy_front(problem, steps=5)
    assert all(one.plan.value < two.plan.value for one, two in pairwise(points))
    for budget in (2.5, 4.0, 6.1):
        try:
            best = make_plan(replace(problem, options=replace(problem.options, budget_per_hour=budget))).value
        except InputError:
            continue
        within = [point.plan.value for point in points if point.price <= budget + 1e-9]
        assert max(within, default=0.0) <= best + 1e-6
    assert points[-1].plan.value == pytest.approx(
        make_plan(replace(problem, options=replace(problem.options, budget_per_hour=None))).value
    )
    with pytest.raises(InputError, match="steps: expected at least 1, got 0"):
        accuracy_front(problem, 0)


def test_a_stage_may_span_a_seam_by_hand() -> None:
    """Two tasks of 2 ms each; one device serves both in a stage of 4 ms: 250 requests/s, accuracy 0.8 · 0.5."""
    tasks = tuple(
        Task(f"t{n}", (profile(f"m{n}", {"A": [2000]}),), {f"m{n}": percent}) for n, percent in ((0, 80.0), (1, 50.0))
    )
    application = Application("app", 20_000, tasks, rate_rps=200.0)
    options = Options("fewest_devices", slack_fraction=0.0, batch_building_factor=0, max_stages=1)
    problem = Problem(Cluster((DeviceType("A", 3),), Network(10)), (), options, (application,))
    plan = make_plan(problem)
    stage = plan.pipelines[0].stages[0]
    assert (plan.pipelines[0].variant, stage.first_block, stage.last_block, stage.slices) == ("m0+m1", 0, 2, 1)
    assert plan.accuracy == {"app": pytest.approx(40.0)}


def test_a_most_accurate_plan_uses_no_device_in_vain() -> None:
    """One device serves 250 requests/s by the only choice; the other nine stay idle."""
    task = Task("t", (profile("m", {"A": [2000]}), profile("n", {"A": [1000]})), {"m": 80.0, "n": 50.0})
    application = Application("app", 20_000, (task,), rate_rps=250.0)
    options = Options("most_accurate", slack_fraction=0.0, batch_building_factor=0)
    problem = Problem(Cluster((DeviceType("A", 10),), Network(10)), (), options, (application,))
    plan = make_plan(problem)
    assert [(one.variant, one.stages[0].slices) for one in plan.pipelines] == [("m", 1)]
    assert plan.value == pytest.approx(80.0)


def test_requests_go_to_the_most_accurate_pipelines_first() -> None:
    problem = random_problem(0)
    plan = make_plan(replace(problem, options=replace(problem.options, budget_per_hour=6.1)))
    found = plan_accuracy(problem.planned, plan.pipelines)
    assert found == plan.accuracy


def mutants(plan: Plan) -> Iterator[Plan]:
    yield replace(plan, accuracy={"app": plan.accuracy["app"] + 1})
    yield replace(plan, accuracy={"other": 1.0})
    yield replace(plan, cost_per_hour=(plan.cost_per_hour or 0) / 2)


def test_stated_accuracy_and_cost_are_checked() -> None:
    problem = random_problem(1)
    plan = make_plan(problem)
    for mutant in mutants(plan):
        assert check(problem, mutant)


TASK = Task("t", (profile("m", {"A": [1000]}),))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Task("t", (profile("m", {"A": [1]}),), {"n": 5.0}),
            "expected variants among \\['m'\\], got \\['n'\\]",
        ),
        (
            lambda: Task("t", (profile("m", {"A": [1]}), profile("n", {"A": [1]})), {"n": 5.0}),
            "accuracy: missing for \\['m'\\]",
        ),
        (lambda: Application("a", 1, (TASK, replace(TASK, name="u", after="v"))), "after: expected one of"),
        (lambda: Application("a", 1, (replace(TASK, after="u"), replace(TASK, name="u"))), "without a cycle"),
        (
            lambda: make_plan(problem_of(Application("a", 9e4, (TASK, replace(TASK, name="u", fan_out=2.0))))),
            "fan-out and trees cannot be planned end to end",
        ),
        (
            lambda: make_plan(
                problem_of(Application("a", 9e4, (TASK, Task("u", (profile("n", {"A": [1]}, input_bytes=None),)))))
            ),
            "the input of n has no known size",
        ),
        (
            lambda: make_plan(problem_of(Application("a", 9e4, (TASK, Task("u", (profile("n", {"B": [1]}),)))))),
            "no device has latencies of all its variants",
        ),
        (lambda: make_plan(problem_of(Application("a", 9e4, (TASK,), rate_rps=1.0))), "accuracy of a/m: missing"),
        (lambda: Problem(Cluster((DeviceType("A", 1),), Network(10))), "expected at least one DNN or application"),
        (lambda: Dnn("d", 1, (profile("m", {"A": [1]}),), accuracy={"x": 1.0}), "expected variants among"),
    ],
)
def test_bad_applications_are_one_line(make: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()  # type: ignore[operator]


def problem_of(application: Application) -> Problem:
    options = Options("most_accurate", batch_building_factor=0)
    return Problem(Cluster((DeviceType("A", 1), DeviceType("B", 1)), Network(10)), (), options, (application,))


def test_budgets_and_accuracies_out_of_reach_say_what_is_in_reach() -> None:
    problem = random_problem(2)
    poor = replace(problem, options=replace(problem.options, budget_per_hour=0.01))
    with pytest.raises(InputError, match=r"budget_per_hour: 0.01 is below what the cheapest plan costs, at least"):
        make_plan(poor)
    strict = replace(problem.options, objective="least_cost", budget_per_hour=None, min_accuracy=99.0)
    with pytest.raises(InputError, match=r"min_accuracy: 99 % is out of reach"):
        make_plan(replace(problem, options=strict))


def in_two_blocks(problem: Problem) -> Problem:
    """The same latencies by two blocks a model: a third and two thirds."""
    (application,) = problem.applications
    tasks = []
    for task in application.tasks:
        variants = tuple(
            profile(
                one.name, {t.device: [t.latency_us[0][0] // 3, t.latency_us[0][0] * 2 // 3 + 1] for t in one.tables}
            )
            for one in task.variants
        )
        tasks.append(replace(task, variants=variants))
    return replace(problem, applications=(replace(application, tasks=tuple(tasks)),))


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("seed", range(6))
def test_plans_of_whole_tasks_keep_every_constraint_and_are_the_best_where_nothing_else_is_cut(
    seed: int, blocks: int
) -> None:
    problem = random_problem(seed) if blocks == 1 else in_two_blocks(random_problem(seed))
    known = with_x0(problem.planned)
    found, best = size_whole_tasks(known, problem.applications, "highs", Limits()), make_plan(problem)
    assert found.value(known) <= best.value * (1 + 1e-6)
    if blocks == 1:
        assert found.value(known) == pytest.approx(best.value, rel=1e-6)
    said = {"scheduler": "pipelines", "method": "milp", "gap": 1e-6, "versions": {}}
    plan = build_plan(known, found, seconds=0.0, problem_sha256=digest(known), **said)  # type: ignore[arg-type]
    assert check(known, plan) == ()


def test_a_plan_of_whole_tasks_is_kept_where_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The programme over all pipelines finds nothing in time: what begins is the answer, not NP's plan."""
    problem = random_problem(2)

    def late(*_: object, **__: object) -> None:
        raise TooLate()

    monkeypatch.setitem(api.METHODS, "milp", late)
    whole = size_whole_tasks(with_x0(problem.planned), problem.applications, "highs", Limits())
    plan = make_plan(problem, time_limit_s=60.0)
    assert plan.method == "start"
    assert plan.value == pytest.approx(whole.value(with_x0(problem.planned)), rel=1e-6)
