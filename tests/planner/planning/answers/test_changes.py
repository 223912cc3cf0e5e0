"""The next plan from the current one, against every plan that there is."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
from oracles import UNIT, Piece, every_pipeline, fits, random_problem

from planner.model import InputError, Problem
from planner.planning import make_plan, slices_started
from planner.planning.answers.changes import slices_by_role

Roles = Counter[tuple[int, int, int, int]]  # first block, last block, device, share


def every_plan(problem: Problem) -> Iterator[tuple[Roles, float]]:
    """Yield the slices by role and the throughput of every plan of the only DNN, one pipeline after the other."""
    counts = [device.count for device in problem.cluster.device_types]
    sized = []
    for piece in every_pipeline(problem, problem.dnns[0]):
        sized += [(piece, slices) for slices in piece.sizes(counts)]

    def grow(begin: int, use: dict[tuple[int, int], int], roles: Roles, rps: float) -> Iterator[tuple[Roles, float]]:
        yield roles, rps
        for number in range(begin, len(sized)):
            piece, slices = sized[number]
            grown = added(use, piece, slices)
            if fits(grown, counts):
                more = min(x * n for x, n in zip(piece.slice_rps, slices, strict=True))
                yield from grow(number, grown, roles + roles_of(piece, slices), rps + more)

    yield from grow(0, {}, Counter(), 0.0)


def added(use: dict[tuple[int, int], int], piece: Piece, slices: tuple[int, ...]) -> dict[tuple[int, int], int]:
    total = Counter(use)
    for position, (device, share, count) in enumerate(zip(piece.devices, piece.shares, slices, strict=True)):
        total[position, device] += count * UNIT // share
    return dict(total)


def roles_of(piece: Piece, slices: tuple[int, ...]) -> Roles:
    found: Roles = Counter()
    for stage, count in enumerate(slices):
        found[piece.cuts[stage], piece.cuts[stage + 1], piece.devices[stage], piece.shares[stage]] += count
    return found


@pytest.mark.parametrize("seed", [1, 2, 5])
def test_the_best_plan_that_starts_so_few_slices(seed: int) -> None:
    problem = random_problem(seed, counts=(2, 1), shares=(1,))
    other = replace(
        problem, cluster=problem.cluster.with_counts({"g0": 1}), options=replace(problem.options, max_stages=1)
    )
    current = make_plan(other, "np")
    running = Counter(
        {
            (role.first_block, role.last_block, problem.cluster.index(role.device), role.share): count
            for role, count in slices_by_role(current).items()
        }
    )
    plans = list(every_plan(problem))
    assert max(rps for _, rps in plans) == pytest.approx(make_plan(problem).value * problem.dnns[0].weight)
    for most in range(4):
        best = max(rps for roles, rps in plans if (roles - running).total() <= most)
        plan = make_plan(problem, current=current, max_started=most)
        assert plan.value * problem.dnns[0].weight == pytest.approx(best, rel=1e-9)
        started = [(roles - running).total() for roles, rps in plans if rps >= best * (1 - 1e-9)]
        assert slices_started(current, plan) == min(started) <= most


def test_without_a_change_the_plan_stays() -> None:
    problem = random_problem(3, dnns=2, counts=(3, 3), shares=(1,))
    current = make_plan(problem)
    again = make_plan(problem, current=current, max_started=0)
    assert again.value == pytest.approx(current.value, rel=2e-6)
    assert slices_started(current, again) == 0


def test_more_changes_are_never_worse() -> None:
    problem = random_problem(4, dnns=2, counts=(3, 3), shares=(1,))
    current = make_plan(problem)
    heavier = replace(problem, dnns=(replace(problem.dnns[0], weight=3.0), problem.dnns[1]))
    values = [make_plan(heavier, current=current, max_started=most).value for most in (0, 2, 100)]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(make_plan(heavier).value, rel=2e-6)


def test_bad_input() -> None:
    problem = random_problem(3)
    current = make_plan(problem)
    with pytest.raises(InputError, match="belong together"):
        make_plan(problem, current=current)
    with pytest.raises(InputError, match="at least 0, got -1"):
        make_plan(problem, current=current, max_started=-1)
    with pytest.raises(InputError, match="is for scheduler pipelines and method milp, got np and auto"):
        make_plan(problem, "np", current=current, max_started=1)
    with pytest.raises(InputError, match="leave out one of the two"):
        make_plan(problem, current=current, max_started=1, pipelines=1)
    empty = replace(current, pipelines=())
    with pytest.raises(InputError, match="raise the limit of started slices"):
        make_plan(problem, current=empty, max_started=0)
