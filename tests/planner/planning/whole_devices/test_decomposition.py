"""The decomposition: its tables and searches by brute force, its plans against the programme and every plan."""

from dataclasses import replace
from itertools import combinations_with_replacement
from math import lcm
from pathlib import Path
from time import process_time

import numpy as np
import pytest
from oracles import brute_force, random_problem, with_detours

from planner.files import load_problem
from planner.model import (
    Block,
    Cluster,
    DeviceType,
    Dnn,
    InputError,
    LatencyTable,
    Network,
    Problem,
    Profile,
    Provenance,
)
from planner.model.check import check
from planner.planning import make_plan
from planner.planning.pipelines.candidates import enumerate_pipelines
from planner.planning.pipelines.sizes import CandidateTable
from planner.planning.programme.backends import Clock, Limits, TooLate
from planner.planning.whole_devices import cover_bounds, decomposition, master
from planner.planning.whole_devices.capacity import Capacity
from planner.planning.whole_devices.cheapest_plan import cheapest
from planner.planning.whole_devices.ends import Ends, least_to_fill
from planner.planning.whole_devices.offers import Offer
from planner.planning.whole_devices.plans_within import plans_within
from planner.planning.whole_devices.supply import Supply
from planner.planning.whole_devices.whole_pools import least_loss

ROOT = Path(__file__).parents[4]


def a_supply(seed: int, counts: tuple[int, ...] = (3, 2, 2)) -> Supply:
    problem = random_problem(seed, stages=2, counts=counts, shares=(1, 2))
    table = CandidateTable.of_pipelines(enumerate_pipelines(problem, 0, 1000.0), problem.dnns[0].weight)
    units = np.array([lcm(*device.shares) for device in problem.cluster.device_types])
    return Supply(table, np.array(counts), units)


def every_plan(supply: Supply, target: float) -> dict[tuple[int, ...], float]:
    """The best value per vector of whole devices, of all multisets of at most three items."""
    items, units = supply.items, np.resize(supply.units, supply.items.use.shape[1])
    found: dict[tuple[int, ...], float] = {}
    for size in (1, 2, 3):
        chosen = np.array([*combinations_with_replacement(range(len(items.row)), size)])
        value = items.value[chosen].sum(axis=1)
        whole = -(-items.use[chosen].sum(axis=1) // units)
        use = whole.reshape(len(chosen), -1, len(supply.limit)).sum(axis=1)
        fits = (value >= target) & (use <= supply.limit).all(axis=1)
        for one, own in zip(map(tuple, use[fits].tolist()), value[fits].tolist(), strict=True):
            found[one] = max(own, found.get(one, 0.0))
    return found


@pytest.mark.parametrize("seed", range(6))
def test_the_cheapest_plan_is_that_of_brute_force(seed: int) -> None:
    supply = a_supply(seed)
    rng = np.random.default_rng(seed)
    for _ in range(3):
        price = rng.uniform(0.1, 1.0, 3)
        supply.extend(price, 10.0, np.inf)
        target = float(rng.uniform(0.5, 1.0) * supply.items.value.max())  # three items always do: one is enough
        expected = min(price @ np.array(use) for use in every_plan(supply, target))
        priced = supply.price(price, target, label_limit=50_000)
        found = supply.use[supply.usable(target)] @ price
        assert priced.bound <= expected * (1 + 1e-9)
        assert found.min() <= expected * (1 + 1e-9)
        assert priced.bound == pytest.approx(found.min(), rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_a_search_that_is_cut_short_leaves_a_bound(seed: int) -> None:
    supply, price = a_supply(seed), np.array([0.5, 0.7, 0.3])
    supply.extend(price, 10.0, np.inf)
    target = float(supply.items.value.max() * 0.9)
    exact = a_supply(seed)
    exact.extend(price, 10.0, np.inf)
    least = exact.price(price, target, label_limit=50_000).bound
    for limit in (1, 2, 5, 20):
        assert supply.price(price, target, label_limit=limit).bound <= least * (1 + 1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_all_plans_within_a_budget_are_those_of_brute_force(seed: int) -> None:
    supply, price = a_supply(seed), np.array([0.5, 0.7, 0.3])
    supply.extend(price, 10.0, np.inf)
    target = float(supply.items.value.max() * 0.9)
    expected = {use for use in every_plan(supply, target) if price @ np.array(use) <= 2.2}
    assert supply.all_within(price, target, 2.2, supply.limit, (100_000, 1000, 10**9))[0]
    found = {tuple(use) for use in supply.use[supply.usable(target)].tolist()}
    for use in expected:
        assert any(all(a <= b for a, b in zip(known, use, strict=True)) for known in found)
    for use in found:  # every one is needed: it is no larger than another
        assert price @ np.array(use) <= 2.2 + 1e-9
        assert not any(all(a <= b for a, b in zip(other, use, strict=True)) for other in found - {use})


def test_items_of_other_prices_join_those_that_are_listed() -> None:
    supply = a_supply(2)
    assert supply.extend(np.array([0.5, 0.7, 0.3]), 0.3, 1e9)
    assert not supply.extend(np.array([0.5, 0.7, 0.3]), 0.3, 1e9)
    few = len(supply.items.row)
    assert supply.extend(np.array([0.5, 0.7, 0.3]), 3.0, 1e9)
    assert len(supply.items.row) > few


@pytest.mark.parametrize("seed", range(5))
def test_tables_bound_what_covering_costs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    use = rng.integers(0, 7, (5, 2))
    value, unit, price = rng.uniform(0.2, 1.0, 5), np.array([3, 1]), np.array([1.0, 0.4])
    cost = use @ (price / unit)
    least = cover_bounds.least_cost(value, cost, 1.0)
    from_pool = cover_bounds.least_from(use, value, cost, unit, price, 1.0)
    for size in range(1, 6):
        for chosen in combinations_with_replacement(range(5), size):
            reached = min(1.0, value[list(chosen)].sum())
            paid = cost[list(chosen)].sum()
            assert least[int(reached * cover_bounds.PARTS - 1e-6)] <= paid + 1e-9
            at = int(reached * cover_bounds.POOL_PARTS - 1e-6)
            for residue in range(3):
                left = -(residue + use[list(chosen), 0].sum()) % 3
                assert from_pool[0, at, residue] <= paid + left / 3 * price[0] + 1e-9


@pytest.mark.parametrize("seed", range(6))
def test_tables_of_pools_change_no_cheapest_plan(seed: int) -> None:
    supply = a_supply(seed)
    price = np.random.default_rng(seed).uniform(0.1, 1.0, 3)
    supply.extend(price, 10.0, np.inf)
    target = float(supply.items.value.max() * 1.7)
    offer = supply.offer(price, target, 10.0, cheapest_only=True)
    plain, tabled = (
        cheapest(one, supply._sizes(one, price), below=10.0, tolerance=0.0, label_limit=200_000)
        for one in (offer, offer.with_pools().within(10.0).with_pools())
    )
    assert tabled.loss == pytest.approx(plain.loss, rel=1e-9)
    assert tabled.bound == pytest.approx(plain.bound, rel=1e-9)


def test_a_pool_pays_for_its_rounding_or_for_what_fills_it() -> None:
    """Thirds of a device at 9: after one third, an item of one that loses 2 leads to two, and so does the next."""
    use, loss = np.array([[1], [2]], dtype=np.int32), np.array([2.0, 9.0])
    paid = least_to_fill(use, loss, np.array([3]), np.array([9.0]))
    assert paid.tolist() == [[0.0, 4.0, 2.0]]


def test_pools_share_the_losses_of_what_fills_both() -> None:
    """Half a device of two pools in an item that loses 3: the dear pool takes all of it, the other nothing."""
    use, loss = np.array([[1, 1]], dtype=np.int32), np.array([3.0])
    paid = least_to_fill(use, loss, np.array([2, 2]), np.array([8.0, 2.0]))
    assert paid.tolist() == [[0.0, 3.0], [0.0, 0.0]]


@pytest.mark.parametrize("seed", range(12))
def test_whole_pools_cost_no_more_than_any_plan(seed: int) -> None:
    """Whole devices for slices that may be divided cost no more than for whole slices, and no less than parts do."""
    supply, rng = a_supply(seed), np.random.default_rng(seed)
    price = rng.uniform(0.1, 1.0, 3)
    supply.extend(price, 10.0, np.inf)
    target = float(rng.uniform(0.3, 1.0) * supply.items.value.max())
    offer = supply.offer(price, target, 10.0, cheapest_only=True)
    least = least_loss(offer, supply._sizes(offer, price).ends) + supply.value_price(price) * target
    plans = supply.price(price, target, label_limit=50_000)
    assert supply.value_price(price) * target * (1 - 1e-9) <= least <= plans.bound * (1 + 1e-9)


def test_whole_pools_bound_the_rounding_of_all_pools() -> None:
    """A stage on each of two types of which it fills a hundredth of a device: both devices are paid for."""
    offer = Offer(
        item=np.zeros(1, dtype=np.int64),
        pool=np.array([0, 4]),
        use=np.array([[1, 1]], dtype=np.int32),
        value=np.array([1.0]),
        loss=np.array([0.0]),
        unit=np.array([100, 100]),
        price=np.array([5.0, 3.0]),
        kind=np.array([0, 1]),
        value_price=0.08,
        target=1.0,
        least=np.zeros(2),
        least_from=np.zeros((1, 1, 1)),
    )
    ends = Ends(
        excess=np.zeros(1),
        stages=np.array([2]),
        value=np.ones((1, 2)),
        pool=np.array([[0, 1]]),
        slice_use=np.ones((1, 2), dtype=np.int64),
        slice_price=np.array([[0.05, 0.03]]),
    )
    assert least_loss(offer, ends) == pytest.approx(8.0 - 0.08, rel=1e-6)


def test_the_master_mixes_and_chooses() -> None:
    uses = [np.array([[2, 0], [0, 2]]), np.array([[2, 0], [0, 2]])]
    two = Capacity.of_devices([2, 2])
    mixed = master.mix(uses, two, Clock(Limits()))
    assert mixed.overload == pytest.approx(0.0)
    assert mixed.price @ np.array([2, 2]) == pytest.approx(1.0)
    chosen, _ = master.choose(uses, two, mixed.price, Limits(time_limit_s=5.0))
    assert chosen is not None
    assert sorted(chosen) == [0, 1]
    assert master.choose(uses, Capacity.of_devices([2, 1]), mixed.price, Limits(time_limit_s=5.0)) == (
        None,
        "infeasible",
    )


@pytest.mark.parametrize("seed", range(10))
def test_small_plans_are_those_of_brute_force(seed: int) -> None:
    problem = random_problem(seed, dnns=2, stages=2, counts=(2, 1, 2), shares=(1, 2))
    if seed % 2:
        problem = with_detours(problem, seed)
    best = brute_force(problem)
    if not best:
        with pytest.raises(InputError):
            make_plan(problem, method="decomposition")
        return
    plan = make_plan(problem, method="decomposition")
    assert plan.value == pytest.approx(best, rel=1e-6)
    assert plan.bound >= best * (1 - 1e-9)
    assert plan.status == "optimal"
    assert check(problem, plan) == ()


@pytest.mark.parametrize("seed", range(20, 23))
def test_larger_plans_agree_with_the_programme(seed: int) -> None:
    problem = random_problem(seed, dnns=3, stages=2, counts=(6, 5, 7), shares=(1, 2, 3))
    plan, other = make_plan(problem), make_plan(problem, method="milp", gap=1e-5, time_limit_s=10)
    assert plan.method == "decomposition"
    assert plan.gap <= 1e-4
    assert plan.value <= other.bound * (1 + 1e-9)
    assert other.value <= plan.bound * (1 + 1e-9)


def test_a_plan_is_no_worse_than_np_and_than_what_it_begins_with() -> None:
    problem = random_problem(3, dnns=3, stages=2, counts=(6, 5, 7), shares=(1, 2))
    np_plan = make_plan(problem, "np")
    assert np_plan.method == "decomposition"
    plan = make_plan(problem, gap=0.5)
    assert plan.value >= np_plan.value * (1 - 1e-9)
    again = decomposition.size(problem, Limits(gap=0.5), begin=decomposition.size(problem, Limits(1e-4)))
    assert again.value(problem) >= plan.value * (1 - 1e-9)


def test_progress_is_told_and_an_interrupted_search_keeps_the_best() -> None:
    problem = random_problem(21, dnns=3, stages=2, counts=(6, 5, 7), shares=(1, 2, 3))
    seen: list[tuple[float, float]] = []
    plan = make_plan(problem, progress=lambda value, bound: seen.append((value, bound)))
    values, bounds = zip(*seen, strict=True)
    assert list(values) == sorted(values)
    assert list(bounds) == sorted(bounds, reverse=True)
    assert values[-1] == pytest.approx(plan.value, rel=1e-9)

    def interrupt(value: float, bound: float) -> None:
        if value > 0:
            raise KeyboardInterrupt

    stopped = make_plan(problem, progress=interrupt)
    assert 0 < stopped.value <= plan.bound * (1 + 1e-9)
    assert stopped.bound >= plan.value * (1 - 1e-9)


def test_too_few_devices_are_told() -> None:
    problem = random_problem(3, dnns=4, counts=(1, 1, 1))
    with pytest.raises(InputError, match="gets no devices"):
        make_plan(problem)


def test_one_more_device_never_hurts() -> None:
    problem = random_problem(7, dnns=2, stages=2, counts=(3, 2, 2), shares=(1, 2))
    more = replace(problem, cluster=problem.cluster.with_counts({"g0": 4}))
    assert make_plan(more).value >= make_plan(problem).value * (1 - 1e-6)


def test_searches_without_items_are_empty() -> None:
    supply, price = a_supply(0), np.ones(3)
    offer = supply.offer(price, 1.0, 1.0, cheapest_only=True)
    assert cheapest(offer, supply._sizes(offer, price), below=2.0, tolerance=0.0, label_limit=9).bound == 2.0
    sizes = supply._sizes(offer, price)
    assert plans_within(offer, sizes, np.ones(3, dtype=np.int64), budget=1.0, most=(9, 9, 9)).complete


def test_plans_that_need_nothing_scarce_cost_nothing_and_are_found() -> None:
    """Whole models on one T4 and twelve Pis: at the relaxation's prices a DNN's cheapest plans cost nothing."""
    problem = load_problem(ROOT / "plans/edge/problem.toml")
    by_programme = make_plan(problem, "np", method="milp")
    found = make_plan(problem, "np")
    assert found.method == "decomposition"
    assert found.value == pytest.approx(by_programme.value, rel=1e-6)


@pytest.mark.parametrize("seed", range(12))
def test_np_is_found_where_few_devices_are_scarce(seed: int) -> None:
    """A few fast devices and many slow ones that one DNN cannot use: every item of that DNN takes what is scarce."""
    rng = np.random.default_rng(seed)
    names = ("fast", "middle", "slow")
    profiles = [
        Profile(
            f"net{n}",
            (Block(("layer",)),),
            (),
            tuple(
                LatencyTable(name, 1, (1, 2), ((us,), (int(us * 1.8),)), Provenance("measured", "by hand"))
                for name, us in zip(names, (int(rng.integers(2, 9)) * 300, 40_000 + 9_000 * n, 90_000), strict=True)
            ),
        )
        for n in range(3)
    ]
    slos = (60_000, 150_000, 400_000)
    dnns = tuple(Dnn(p.name, float(slo), (p,)) for p, slo in zip(profiles, slos, strict=True))
    counts = (int(rng.integers(3, 6)), int(rng.integers(2, 9)), 60)
    cluster = Cluster(tuple(DeviceType(*pair) for pair in zip(names, counts, strict=True)), Network(10))
    problem = Problem(cluster, dnns)
    found = make_plan(problem, "np", method="decomposition")
    assert found.value == pytest.approx(make_plan(problem, "np", method="milp").value, rel=1e-5)


def test_a_plan_worth_no_more_than_its_slowest_slice_is_found() -> None:
    # Both blocks of 4 ms on one device are too much for its memory: two stages of one device each, 250 requests/s.
    tables = tuple(LatencyTable(name, 1, (1,), ((4000, 4000),), Provenance("measured", "by hand")) for name in "abc")
    blocks = Block(("a",), parameter_bytes=10), Block(("b",), parameter_bytes=10)
    types = DeviceType("a", 1, memory_bytes=10), DeviceType("b", 1, memory_bytes=10), DeviceType("c", 1, memory_bytes=1)
    dnn = Dnn("toy", 40_000, (Profile("toy", blocks, (0,), tables),), np_throughput_rps=0.0)
    problem = Problem(Cluster(types, Network(10)), (dnn,))
    plan = make_plan(problem, method="decomposition")
    assert (plan.value, plan.status) == (250.0, "optimal")


def test_rates_of_millions_of_devices_keep_a_limit() -> None:
    """Sizes of millions of devices took minutes to list, whatever the limit."""
    problem = random_problem(0, dnns=3, stages=2, counts=(10**7,) * 3, shares=(1, 2, 3))
    dnns = tuple(replace(dnn, rate_rps=2e9 * (1 + number)) for number, dnn in enumerate(problem.dnns))
    problem = replace(problem, dnns=dnns, options=replace(problem.options, objective="least_cost"))
    begin_s = process_time()
    with pytest.raises(TooLate, match="raise the time limit"):
        decomposition.size(problem, Limits(time_limit_s=2.0))
    assert process_time() - begin_s < 5
