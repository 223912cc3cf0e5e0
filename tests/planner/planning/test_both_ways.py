"""Applications planned both ways: never worse than either, on random small ones; what only one way can do; no way."""

from dataclasses import replace
from math import inf

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
    TaskPlan,
)
from planner.model.check import check
from planner.model.check_tasks import check_tasks
from planner.model.problem import Objective
from planner.planning import both_ways, make_plan, plan_both_ways
from planner.planning.applications.per_task import plan_per_task
from planner.planning.programme.backends import TooLate

MEASURED = Provenance("measured", "by hand")


def profile(name: str, latency_us: dict[str, tuple[int, ...]]) -> Profile:
    """One block, with latencies per device at batches 1 and 2."""
    tables = tuple(
        LatencyTable(device, 1, tuple(range(1, len(row) + 1)), tuple((us,) for us in row), MEASURED)
        for device, row in latency_us.items()
    )
    return Profile(name, (Block((name,)),), (), tables, input_bytes=500)


def pair(seed: int, objective: Objective = "most_accurate") -> Problem:
    """Two tasks of two variants: the first is quick on A, the second on B; the rate needs several of each."""
    tasks = []
    for t, quick in enumerate("AB"):
        variants = []
        for v in range(2):
            base = 1000 + 500 * v + 137 * (seed + t)
            times = {
                device: (base * slow, round(base * slow * (1.2 + 0.1 * (seed % 5))))
                for device in "AB"
                for slow in [1 if device == quick else 3]
            }
            variants.append(profile(f"t{t}v{v}", times))
        tasks.append(Task(f"t{t}", tuple(variants), {f"t{t}v0": 50.0 + 3 * seed, f"t{t}v1": 70.0 + 2 * seed}))
    cluster = Cluster((DeviceType("A", 2, price_per_hour=2.0), DeviceType("B", 3, price_per_hour=0.7)), Network(10))
    rate_rps = 700.0 + 90 * seed
    application = Application("app", 25_000, tuple(tasks), rate_rps=rate_rps, np_throughput_rps=rate_rps)
    limits = {"min_accuracy": 30.0} if objective != "most_accurate" else {}
    options = Options(objective, 2, slack_fraction=0.0, batch_building_factor=1.0, **limits)
    return Problem(cluster, (), options, (application,))


@pytest.mark.parametrize("objective", ["most_accurate", "least_cost", "fewest_devices"])
@pytest.mark.parametrize("seed", range(8))
def test_never_worse_than_either_way(seed: int, objective: Objective) -> None:
    problem = pair(seed, objective)
    values = []
    for make in (make_plan, plan_per_task):
        try:
            plan = make(problem)
        except InputError:
            continue
        values.append(plan.value)
    if not values:
        with pytest.raises(InputError):
            plan_both_ways(problem)
        return
    found = plan_both_ways(problem)
    best = (max if objective == "most_accurate" else min)(values)
    assert found.value == pytest.approx(best, rel=1e-6)
    assert found.bound == pytest.approx(best, rel=1e-5)  # both ways are proven
    chosen = found.end_to_end if found.way == "end to end" else found.per_task
    assert found.plan is chosen
    if found.end_to_end is not None:
        assert check(problem, found.end_to_end) == ()
    if found.per_task is not None:
        assert check_tasks(problem, found.per_task) == ()


def common_queue() -> Problem:
    """Task 0 takes 1 ms on A and 4 ms on B, task 1 takes 9 and 5 ms: one A and four B are to serve 600 requests/s."""
    tasks = (
        Task("t0", (profile("m0", {"A": (1000,), "B": (4000,)}),), {"m0": 80.0}),
        Task("t1", (profile("m1", {"A": (9000,), "B": (5000,)}),), {"m1": 50.0}),
    )
    application = Application("app", 40_000, tasks, rate_rps=600.0, np_throughput_rps=600.0)
    options = Options("fewest_devices", 1, slack_fraction=0.0, batch_building_factor=0)
    return Problem(Cluster((DeviceType("A", 1), DeviceType("B", 4)), Network(10)), (), options, (application,))


def test_task_by_task_is_the_answer_where_it_is_better_by_hand() -> None:
    """In one stage B serves 1 / 9 ms = 111 requests/s, A 100: 544 of 600. Task by task one A and three B serve all."""
    problem = common_queue()
    with pytest.raises(InputError):
        make_plan(problem)
    found = plan_both_ways(problem)
    assert (found.way, found.value, found.end_to_end) == ("task by task", 4.0, None)
    assert list(found.reasons) == ["end to end"]


def test_trees_are_planned_task_by_task_and_shared_devices_end_to_end() -> None:
    problem = pair(0)
    application = problem.applications[0]
    tree = replace(application, tasks=(application.tasks[0], replace(application.tasks[1], fan_out=0.5)))
    assert plan_both_ways(replace(problem, applications=(tree,))).way == "task by task"
    shared = replace(problem, options=replace(problem.options, device_sharing="shared"))
    found = plan_both_ways(shared)
    assert (found.way, found.per_task) == ("end to end", None)
    assert "each device serves one task" in found.reasons["task by task"]


def test_what_was_not_through_in_time_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*_: object, **__: object) -> None:
        raise TooLate()

    monkeypatch.setattr(both_ways, "make_plan", late)
    found = plan_both_ways(pair(1))
    assert (found.way, found.bound) == ("task by task", float("inf"))
    assert plan_both_ways(common_queue()).bound == 0.0
    monkeypatch.setattr(both_ways, "search_per_task", late)
    with pytest.raises(InputError, match="raise the time limit"):
        plan_both_ways(pair(1))


def test_rates_out_of_reach_are_one_line() -> None:
    problem = pair(0)
    application = replace(problem.applications[0], rate_rps=9e4, np_throughput_rps=9e4)
    with pytest.raises(InputError, match="at most 4.0% of the rates asked for"):
        plan_both_ways(replace(problem, applications=(application,)))


def test_ctrl_c_task_by_task_leaves_that_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = pair(1)
    best = plan_per_task(problem)

    def ended(*_: object) -> tuple[TaskPlan, bool]:
        return best, True

    def never(*_: object, **__: object) -> None:
        raise AssertionError("the search went on")

    monkeypatch.setattr("planner.planning.both_ways.search_per_task", ended)
    monkeypatch.setattr("planner.planning.both_ways.make_plan", never)
    both = plan_both_ways(problem)
    assert (both.way, both.plan, both.bound) == ("task by task", best, inf)
    assert both.reasons == {"end to end": "the search was ended before there was one"}


def test_ctrl_c_end_to_end_before_any_plan_leaves_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("planner.planning.both_ways.make_plan", ended)
    assert plan_both_ways(pair(1)).way == "task by task"
    cannot = replace(pair(1), options=replace(pair(1).options, device_sharing="shared"))  # end to end only
    with pytest.raises(KeyboardInterrupt):
        plan_both_ways(cannot)
