"""Vectors of devices for pipelines of one stage, and how steps are shared out among DNNs, against enumeration."""

from dataclasses import dataclass, field
from itertools import combinations_with_replacement, product

import numpy as np
import pytest
from oracles import random_problem

from planner.planning import make_plan
from planner.planning.arrays import Floats, Integers
from planner.planning.baselines import unpartitioned, with_x0
from planner.planning.methods import all_candidates
from planner.planning.pipelines.candidates import enumerate_pipelines
from planner.planning.pipelines.sizes import CandidateTable
from planner.planning.programme import milp
from planner.planning.programme.backends import Clock, Limits
from planner.planning.whole_devices import offers, plan_search, supply
from planner.planning.whole_devices.capacity import Capacity
from planner.planning.whole_devices.plan_search import PlanSearch
from planner.planning.whole_devices.vectors import DeviceRates

MANY = 1000, 10**6


def drawn(seed: int) -> tuple[DeviceRates, Floats, float, Integers, float]:
    """Return rates, prices of all types (some are 0), the price of value, how many devices there are, and a target."""
    rng = np.random.default_rng(seed)
    kinds = int(rng.integers(1, 5))
    kind = np.sort(rng.permutation(kinds + 1)[:kinds])  # one type serves nothing
    rates = DeviceRates(kind, np.arange(kinds), rng.integers(1, 9, kinds) / 2)
    price = np.where(rng.random(kinds + 1) < 0.15, 0.0, rng.uniform(0.5, 1.5, kinds + 1))
    value_price = float((price[kind] / rates.rate).min()) * (1 - 1e-12)
    return rates, price, value_price, rng.integers(1, 6, kinds + 1), float(rng.integers(1, 20) / 2)


def worth_it(rates: DeviceRates, price: Floats, limit: Integers, target: float, most: float) -> set[tuple[int, ...]]:
    """Return all vectors worth a target at a price of no more than a limit from which no device can be taken away."""
    rate = rates.rate
    ranges = [range(int(limit[kind]) + 1) for kind in rates.kind]
    found = {n for n in product(*ranges) if n @ rate >= target and n @ price[rates.kind] <= most}
    return {n for n in found if all(n @ rate - own < target for own, used in zip(rate, n, strict=True) if used)}


@pytest.mark.parametrize("seed", range(40))
def test_vectors_within_a_budget_are_those_of_enumeration(seed: int) -> None:
    rates, price, value_price, limit, target = drawn(seed)
    budget = 1.3
    arguments = rates, price, limit, target, value_price * target + budget
    expected = worth_it(*arguments)
    complete, steps, found = rates.vectors(price, value_price, target, limit, budget=budget, cheapest=False, most=MANY)
    assert complete
    assert set(map(tuple, found.tolist())) == expected
    assert len(found) == len(expected)
    _, _, falling = rates.vectors(price, value_price, target, limit, budget=budget, cheapest=True, most=MANY)
    if expected:
        assert falling[-1] @ price[rates.kind] == pytest.approx(min(n @ price[rates.kind] for n in expected))
    for cut in {steps - 1, steps // 2}:
        ended, taken, some = rates.vectors(
            price, value_price, target, limit, budget=budget, cheapest=False, most=(1000, cut)
        )
        assert (ended, taken) == (False, cut + 1)
        assert set(map(tuple, some.tolist())) <= expected


@pytest.mark.parametrize("seed", range(6))
def test_np_by_vectors_is_np_by_the_programme(seed: int) -> None:
    problem = with_x0(random_problem(seed, dnns=3, counts=(3, 4, 2, 5), shares=(1, 2)))
    whole = unpartitioned(problem)
    expected = milp.size(whole, all_candidates(whole), "highs", Limits(1e-9)).value(whole)
    plan = make_plan(problem, "np", method="decomposition", gap=1e-7)
    assert plan.status == "optimal"
    assert plan.value == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("seed", range(8))
def test_undominated_items_are_those_of_enumeration(seed: int) -> None:
    rng = np.random.default_rng(seed)
    use = rng.integers(0, 4, (120, 70)) * (rng.random((120, 70)) < 0.04)  # pools 63 apart are among them
    use = use[use.any(axis=1)]
    use = use[np.argsort(use.sum(axis=1), kind="stable")]
    expected = [at for at, own in enumerate(use) if not (use[:at] <= own).all(axis=1).any()]
    assert supply._undominated(use).tolist() == expected


@dataclass
class Needing:
    """A supply whose search takes so many steps."""

    needed: int
    price: float = 1.0
    asked: list[int] = field(default_factory=list)
    use: Integers = field(default_factory=lambda: np.ones((1, 1), dtype=np.int64))
    budgets: list[float] = field(default_factory=list)

    def usable(self, target: float) -> Integers:
        return np.arange(len(self.use))

    def value_price(self, price: Floats) -> float:
        return 0.0

    def extend(self, price: Floats, budget: float, target: float) -> bool:
        return False

    def all_within(
        self, price: Floats, target: float, budget: float, limit: Integers, most: tuple[int, int, int]
    ) -> tuple[bool, int]:
        self.asked.append(most[2])
        self.budgets.append(budget)
        return self.needed <= most[2], min(self.needed, most[2] + 1)


@pytest.mark.parametrize(
    ("needed", "complete"),
    [
        ((10, 10, 10, 10), True),
        ((150, 1, 1, 1), True),  # its part is 100, of which the others leave most
        ((1, 1, 1, 250), True),
        ((1, 1, 1, 450), False),
        ((150, 150, 1, 1), False),  # a second time, 98 steps are left for both
        ((500, 500, 500, 500), False),
    ],
)
def test_steps_that_dnns_leave_are_for_those_cut_off(
    needed: tuple[int, ...], complete: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_search, "LISTED", (9, 9, 400))
    supplies = [Needing(one) for one in needed]
    search = PlanSearch(supplies, Capacity.of_devices([1]), np.ones(1), 1.0, 0.0, Clock(Limits()))  # type: ignore[arg-type]
    *_, listed = search.near_cheapest(1.0, np.ones(1), [1.0] * 4, 0.01, 1.0)
    assert all(listed.complete) is complete
    assert sum(min(own, one.needed) for one in supplies for own in one.asked) <= 400 + 4


def test_a_dearer_dnn_leaves_less_slack_to_those_after_it() -> None:
    """Of a slack of 5 the first leaves 3, as its cheapest plan costs 2 more than was thought; the last has no plan."""
    supplies = [Needing(1) for _ in range(3)]
    for one, used in zip(supplies, (3, 1, 9), strict=True):
        one.use = np.array([[used]])
    search = PlanSearch(supplies, Capacity.of_devices([9]), np.ones(1), 1.0, 0.0, Clock(Limits()))  # type: ignore[arg-type]
    [listed] = search.near_cheapest(1.0, np.ones(1), [1.0] * 3, 5.0, 1.0)
    assert [one.budgets for one in supplies] == [[6.0], [4.0], [4.0]]
    assert all(listed.complete)
    assert not any(map(len, listed.plans))  # there is no solution


def test_pipelines_of_several_stages_or_parts_of_devices_have_no_vectors() -> None:
    problem = with_x0(random_problem(1, dnns=1, stages=2, counts=(3, 4, 2), shares=(1, 2)))
    table = CandidateTable.of(all_candidates(problem), 1.0)
    assert DeviceRates.of(table, np.array([2, 2, 2])) is None
    whole = CandidateTable.of(all_candidates(unpartitioned(problem)), 1.0)
    rates = DeviceRates.of(whole, np.array([1, 1, 1]))
    assert rates is not None
    assert rates.rate.tolist() == [whole.value[whole.device[:, 0] == kind].max() for kind in rates.kind.tolist()]


@pytest.mark.parametrize("largest", [10**12, 40])
def test_classes_tell_rows_of_residues_apart(largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supply, "LARGEST", largest)  # so that numbers are counted anew on the way
    rng = np.random.default_rng(0)
    units = rng.integers(1, 13, 9)
    residues = rng.integers(0, units, (300, 9)) * (rng.random((300, 9)) < 0.2)
    expected = np.unique(residues, axis=0, return_inverse=True)[1].ravel()
    found = supply._classes(residues, units)
    assert len(set(zip(found.tolist(), expected.tolist(), strict=True))) == len(set(expected.tolist()))
    assert len(set(found.tolist())) == len(set(expected.tolist()))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("pools", [False, True])
def test_items_of_all_plans_within_a_budget_stay(seed: int, pools: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offers, "FEW_ITEMS", 0)
    problem = random_problem(seed, stages=2, counts=(3, 2, 2), shares=(1, 2, 3))
    table = CandidateTable.of_pipelines(enumerate_pipelines(problem, 0, 1000.0), 1.0)
    own, price = supply.Supply(table, np.array([3, 2, 2]), np.array([6, 6, 6])), np.array([0.5, 0.7, 0.3])
    own.extend(price, 10.0, np.inf)
    target, budget = float(own.items.value.max() * 1.1), 0.4
    offer = own.offer(price, target, 5 * budget, cheapest_only=False)
    within = (offer.with_pools() if pools else offer).within(budget)
    assert len(within.item) < len(offer.item)
    value, left = own.items.value, [np.flatnonzero(within.item == item) for item in range(len(own.items.row))]
    base = own.value_price(price) * target
    for size in (1, 2):  # whatever two items come to is a plan's price
        for chosen in combinations_with_replacement(offer.item.tolist(), size):
            items = own.items.take(np.array(chosen))
            if value[list(chosen)].sum() >= target and own._whole(items) @ price - base <= budget:
                assert all(len(left[item]) for item in chosen)
