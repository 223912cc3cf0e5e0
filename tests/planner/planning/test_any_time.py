"""Searches that are ended at any moment: by Ctrl-C, by a time limit, in every method; and NP's plan as the least."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from math import inf, isfinite

import pytest
from oracles import random_problem

from planner.model import Problem
from planner.model.check import check
from planner.model.objective import MAXIMISED
from planner.planning import api, make_plan, methods
from planner.planning.baselines import first_plan, with_quick_x0, with_x0
from planner.planning.incumbent import Incumbent
from planner.planning.methods import all_candidates
from planner.planning.pipelines.sizing import Sizing
from planner.planning.programme import milp
from planner.planning.programme.backends import Limits, clock

SHARED = replace(random_problem(5).options, device_sharing="shared")
CASES: dict[str, tuple[Callable[[], Problem], tuple[str, ...]]] = {
    "two types": (lambda: random_problem(1, dnns=3, counts=(3, 3)), ("dynamic", "milp", "decomposition", "columns")),
    "three types": (
        lambda: random_problem(21, dnns=3, stages=2, counts=(3, 2, 3), shares=(1, 2)),
        ("decomposition", "columns"),
    ),
    "shared devices": (
        lambda: replace(random_problem(5, dnns=3, counts=(2, 2)), options=SHARED),
        ("decomposition", "milp"),
    ),
}
EVERY = [(case, method) for case, (_, methods) in CASES.items() for method in methods]


class Stop:
    """Progress that notes what it is told, and presses Ctrl-C when told for the n-th time."""

    def __init__(self, after: int | None = None) -> None:
        self.told: list[tuple[float, float]] = []
        self._after = after

    def __call__(self, value: float, bound: float) -> None:
        self.told.append((value, bound))
        if len(self.told) == self._after:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("case", "method"), EVERY)
def test_ctrl_c_keeps_the_best_plan_whenever_it_comes(case: str, method: str) -> None:
    problem = CASES[case][0]()
    undisturbed = Stop()
    best = make_plan(problem, method=method, time_limit_s=20, progress=undisturbed)
    values, bounds = zip(*undisturbed.told, strict=True)
    assert list(values) == sorted(values)
    assert list(bounds) == sorted(bounds, reverse=True)
    assert values[-1] == pytest.approx(best.value, rel=1e-6)
    assert bounds[0] == inf  # a plan is there before any bound
    for after in {1, 2, len(values) // 2, len(values)} - {0}:
        stop = Stop(after)
        plan = make_plan(problem, method=method, progress=stop)
        assert len(stop.told) <= after + 1, "the search went on"  # a solver's last word
        assert isfinite(plan.bound)
        assert plan.bound >= best.value * (1 - 1e-6)
        assert plan.value >= values[0] * (1 - 1e-9)
        assert check(problem, plan) == ()


@pytest.mark.parametrize("scheduler", ["pipelines", "np"])
def test_ctrl_c_while_x0_is_found_keeps_a_plan(scheduler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "find_x0", interrupted)
    problem = random_problem(21, dnns=3, stages=2, counts=(6, 5, 7), shares=(1, 2, 3))
    plan = make_plan(problem, scheduler)  # type: ignore[arg-type]
    assert plan.method == "start"
    start = first_plan(with_quick_x0(problem))
    assert start is not None
    assert plan.value == pytest.approx(start.value(problem))
    assert plan.bound >= plan.value
    assert check(problem, plan) == ()


def test_ctrl_c_that_numba_turns_into_an_error_of_its_own_is_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise SystemError("returned a result with an exception set") from KeyboardInterrupt()

    monkeypatch.setattr(api, "size_pipelines", interrupted)
    problem = random_problem(21, dnns=3, counts=(6, 5, 7))
    assert make_plan(problem).method == "start"
    nobody = replace(problem, cluster=problem.cluster.with_counts({"g0": 1, "g1": 1, "g2": 0}))
    with pytest.raises(KeyboardInterrupt):
        make_plan(nobody)


def test_ctrl_c_while_the_plan_is_checked_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []

    def checked(*given: object) -> object:
        calls.append(given)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return given[1]

    problem = random_problem(1, dnns=2, counts=(3, 3))
    expected = make_plan(problem).value
    monkeypatch.setattr(api, "_checked", checked)
    assert make_plan(problem).value == expected


@pytest.mark.parametrize("looks", [3, 30, 100, 300])
@pytest.mark.parametrize("counts", [(3, 2, 3), (12, 9, 14)])
def test_pipelines_are_no_worse_than_np_in_the_same_time(
    counts: tuple[int, ...], looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time passes by a second whenever somebody looks at the clock, so that both schedulers have equally much of it.

    NP is looked for to a per mille where time is short.
    """
    problem = with_x0(random_problem(8, dnns=4, stages=2, counts=counts, shares=(1, 2)))
    monkeypatch.setattr(api, "ENDING", 0.0)
    values = []
    for scheduler in ("np", "pipelines"):
        monkeypatch.setattr(clock, "monotonic", itertools.count().__next__)
        values.append(make_plan(problem, scheduler, time_limit_s=looks).value)  # type: ignore[arg-type]
    assert values[1] >= values[0] * (1 - methods.NP_GAP)


@pytest.mark.parametrize("seed", range(6))
def test_pipelines_are_no_worse_than_np_where_time_is_not_limited(seed: int) -> None:
    """On one stage, so that there is nothing that pipelines could gain."""
    problem = random_problem(seed, dnns=4, stages=1, counts=(5, 4, 6))
    problem = replace(problem, dnns=tuple(replace(dnn, slo_us=4 * dnn.slo_us) for dnn in problem.dnns))
    whole, pipelines = make_plan(problem, "np"), make_plan(problem)
    assert pipelines.value >= whole.value * (1 - 1e-9)


def test_np_goes_on_after_a_method_that_stays_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = with_x0(random_problem(8, dnns=4, stages=2, counts=(12, 9, 14), shares=(1, 2)))
    whole = make_plan(problem, "np")

    def nothing(problem: Problem, *_: object, **__: object) -> Sizing:
        return Sizing((), 1e9, "none")

    monkeypatch.setattr(methods, "NP_GAP", 0.9)  # what there is to begin with will do before the method
    monkeypatch.setattr(methods, "_decomposed", nothing)
    found = make_plan(problem)
    assert found.value == pytest.approx(whole.value, rel=1e-6)


def test_an_incumbent_takes_what_is_better_and_tells_what_is_new() -> None:
    problem = with_x0(random_problem(1, dnns=2, counts=(3, 3)))
    assert MAXIMISED[problem.options.objective]
    good, fair = milp.size(problem, all_candidates(problem), "highs", Limits()), first_plan(problem)
    assert fair is not None
    assert fair.value(problem) < good.value(problem)
    progress = Stop()
    best = Incumbent(problem, progress)
    best.prove(9e9)
    assert progress.told == []  # no plan yet
    best.offer(fair)
    best.report(replace(good, bound=8e9))
    best.report(replace(fair, bound=9e9))
    assert best.plan is not None
    assert best.plan.pipelines == good.pipelines
    assert best.bound == 8e9
    assert progress.told == [(fair.value(problem), 9e9), (good.value(problem), 8e9)]
    best.restart(problem, fair)  # as when X0 becomes known: a plan that is worse is not told
    assert best.plan is fair
    assert best.bound is None
    assert len(progress.told) == 2
