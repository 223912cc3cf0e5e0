"""One pipeline per DNN: against every pipeline there is, and long chains whose optimum is known."""

import itertools
from contextlib import suppress
from dataclasses import replace
from math import ceil, inf

import pytest
from oracles import every_pipeline, random_problem

from planner.model import (
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
    Provenance,
)
from planner.model.check import check
from planner.planning import make_plan
from planner.planning.answers.changes import slices_started
from planner.planning.programme.backends import Limits, TooLate, clock
from planner.planning.whole_devices import chains, master


def chain(blocks: int, counts: tuple[int, ...], held: int, stages: int) -> Problem:
    """Equal blocks of 1 ms on equal devices that hold so many of them; transfers take no time."""
    provenance = Provenance("measured", "by hand")
    names = [f"g{number}" for number in range(len(counts))]
    tables = tuple(LatencyTable(name, 1, (1,), ((1000,) * blocks,), provenance) for name in names)
    parts = tuple(Block((f"b{number}",), parameter_bytes=1) for number in range(blocks))
    profile = Profile("long", parts, (0,) * (blocks - 1), tables)
    types = tuple(DeviceType(name, count, memory_bytes=held) for name, count in zip(names, counts, strict=True))
    dnn = Dnn("long", 200_000, (profile,), np_throughput_rps=0.0)
    return Problem(Cluster(types, Network(10.0)), (dnn,), Options(max_stages=stages))


@pytest.mark.parametrize(("devices", "held"), [(4, 18), (8, 11), (12, 7)])
def test_the_optimum_of_equal_blocks_is_one_even_chain(devices: int, held: int) -> None:
    problem = chain(60, (devices,), held, 12)
    longest = ceil(60 / devices)  # blocks of the longest stage of an even chain
    for pipelines in (1, None):
        plan = make_plan(problem, pipelines=pipelines, gap=1e-6)
        assert plan.value == pytest.approx(1000 / longest, rel=1e-6)
        assert plan.status == "optimal"
        assert check(problem, plan) == ()


def test_one_pipeline_is_all_there_is_where_two_do_not_fit() -> None:
    # 60 blocks on devices that hold 11 take 6 stages: 8 devices are one pipeline, 12 are two.
    assert chains.exhaust(chain(60, (8,), 11, 12))
    assert not chains.exhaust(chain(60, (12,), 11, 12))
    # Two DNNs of 10 blocks on devices that hold 5: two stages each, so that 5 devices are no third pipeline.
    one = chain(10, (2, 3), 5, 4)
    two = replace(one, dnns=(one.dnns[0], replace(one.dnns[0], name="other")))
    assert chains.exhaust(two)
    assert not chains.exhaust(replace(two, cluster=two.cluster.with_counts({"g0": 3})))


@pytest.mark.parametrize("stages", [1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_one_pipeline_is_the_best_of_all(seed: int, stages: int) -> None:
    problem = random_problem(seed, stages=stages, counts=(2, 1, 1), shares=(1, 2))
    best = 0.0
    for piece in every_pipeline(problem, problem.dnns[0]):
        for slices in piece.sizes([2, 1, 1]):
            whole = [0, 0, 0]
            for device, share, count in zip(piece.devices, piece.shares, slices, strict=True):
                whole[device] += ceil(count / share)
            if all(one <= most for one, most in zip(whole, (2, 1, 1), strict=True)):
                best = max(best, min(rps * count for rps, count in zip(piece.slice_rps, slices, strict=True)))
    plan = make_plan(problem, pipelines=1)
    assert plan.value == pytest.approx(best / problem.dnns[0].weight, rel=2e-6)
    assert len(plan.pipelines) == 1
    assert check(problem, plan) == ()


def test_dnns_divide_the_devices() -> None:
    # Of 10 blocks each, on 2 + 2 devices: two stages of 5 blocks for either DNN.
    one = chain(10, (2, 2), 100, 4)
    problem = replace(one, dnns=(one.dnns[0], replace(one.dnns[0], name="other")))
    plan = make_plan(problem, pipelines=1)
    assert plan.value == pytest.approx(200.0, rel=1e-6)
    assert [len(plan.of(name)) for name in ("long", "other")] == [1, 1]


def test_the_next_plan_of_a_long_chain_is_found_without_listing_any() -> None:
    # 12 stages of 5 blocks on 12 devices; of 10^11 pipelines on 13 devices none is listed. With 12 devices left nothing
    # need be started; with one less the chain is no plan any more, and eleven stages of at most 6 blocks are started.
    problem = chain(60, (13,), 7, 12)
    current = make_plan(chain(60, (12,), 7, 12), pipelines=1)
    following = make_plan(problem, current=current, max_started=0)
    assert following.value == pytest.approx(200.0, rel=1e-6)
    assert slices_started(current, following) == 0
    fewer = chain(60, (11,), 7, 12)
    following = make_plan(fewer, current=current, max_started=11)
    assert following.value == pytest.approx(1000 / 6, rel=1e-6)
    with pytest.raises(InputError):
        make_plan(fewer, current=current, max_started=0)


def test_what_it_cannot_do_is_refused() -> None:
    problem = chain(10, (2, 2), 100, 4)
    for options, message in (
        ({"pipelines": 2}, "pipelines: expected 1"),
        ({"pipelines": 1, "scheduler": "np"}, "pipelines: expected 1"),
    ):
        with pytest.raises(InputError, match=message):
            make_plan(problem, **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at most 300000 vectors of devices"):
        make_plan(chain(10, (1000, 1000), 100, 4), pipelines=1)


@pytest.mark.parametrize("looks", [2, 5, 20, 80])
def test_a_clock_that_is_over_ends_the_search_with_what_it_has(looks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_problem(3, dnns=1, stages=3, counts=(2, 2, 1))
    optimum = chains.size(problem, Limits()).value(problem)
    monkeypatch.setattr(clock, "monotonic", itertools.count().__next__)  # a second a look
    value, bound = 0.0, inf
    with suppress(TooLate):  # before there were any prices
        found = chains.size(problem, Limits(1e-6, looks))
        value, bound = found.value(problem), found.bound
    assert value <= optimum * (1 + 1e-9)
    assert bound >= optimum * (1 - 1e-9)


def test_a_choice_that_was_not_made_in_time_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_problem(3, dnns=2, stages=2, counts=(2, 2, 1))
    optimum = chains.size(problem, Limits()).value(problem)
    monkeypatch.setattr(master, "choose", lambda *_: (None, "no solution"))
    found = chains.size(problem, Limits())
    assert found.pipelines == ()
    assert found.bound >= optimum * (1 - 1e-9)
