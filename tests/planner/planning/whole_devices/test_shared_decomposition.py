"""The decomposition on shared devices and at given rates: against brute force, the programme, and packing by hand."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from mixtures import random_problem as random_sharing
from oracles import brute_force, random_problem
from sharing_oracle import brute_force as brute_force_of_sharing
from sharing_oracle import fewest

from planner.model import DeviceType, InputError, Problem
from planner.model.check import check
from planner.planning import make_plan
from planner.planning.whole_devices.capacity import Capacity, SharedDevices
from planner.planning.whole_devices.given_rates import divisor

A30 = DeviceType("A30", 2, mig="a30-24gb", processes=2, price_per_hour=2.0)
CPU = DeviceType("cpu", 2, "cpu", cores=4, price_per_hour=0.5)
ODD = DeviceType("odd", 2, shares=(2, 3, 5), price_per_hour=1.0)
L4 = DeviceType("L4", 2, shares=(1, 2), price_per_hour=1.5)
BOTH = DeviceType("both", 2, shares=(1, 2), mig="a30-24gb", price_per_hour=1.0)
SMALL = [
    ((A30,), 2, 1), ((CPU,), 2, 1), ((ODD,), 2, 1), ((L4,), 3, 1), ((L4,), 2, 2), ((BOTH,), 1, 1),
    ((replace(L4, count=1), replace(A30, count=1, processes=1)), 2, 1),
]  # fmt: skip


@pytest.mark.parametrize(("types", "dnns", "stages"), SMALL)
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("objective", ["max_min_throughput", "fewest_devices", "least_cost"])
def test_shared_plans_are_those_of_brute_force(
    types: tuple[DeviceType, ...], dnns: int, stages: int, seed: int, objective: str
) -> None:
    problem = random_sharing(30 * seed + len(types), *types, dnns=dnns, stages=stages, objective=objective)
    expected = brute_force_of_sharing(problem)
    if expected is None or expected == 0:
        with pytest.raises(InputError):
            make_plan(problem, method="decomposition")
        return
    plan = make_plan(problem, method="decomposition")
    assert plan.value == pytest.approx(expected, rel=1e-6)
    assert plan.status == "optimal"
    assert check(problem, plan) == ()


@pytest.mark.parametrize("device", [ODD, A30, BOTH, replace(L4, shares=(1, 2, 3, 4))])
def test_capacity_holds_what_devices_hold(device: DeviceType) -> None:
    problem = random_sharing(1, device, dnns=1)
    shared = SharedDevices.of(problem)
    kinds = [kind for _, kind in shared.takes]
    for counts in product(range(3), repeat=len(kinds)):
        use = np.zeros(len(shared.capacity.limit), dtype=np.int64)
        for kind, count in zip(kinds, counts, strict=True):
            resource, amount = shared.takes[0, kind]
            use[resource] += amount * count
        packed = shared.capacity.packed(use)
        needed = fewest(device, dict(zip(kinds, counts, strict=True)))
        assert (packed is None) == (needed > device.count)
        assert packed is None or len(packed[0]) == needed


def test_prices_of_a_device_are_those_of_its_dearest_layout() -> None:
    shared = SharedDevices.of(random_sharing(1, A30, L4, dnns=1)).capacity
    price = shared.price_of(np.array([3.0, 2.0]))
    assert shared.worth(price) == pytest.approx([3.0, 2.0])
    assert shared.cost(shared.normed(price)) == pytest.approx(1.0)
    assert shared.cost(shared.normed(0 * price)) == pytest.approx(1.0)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("objective", ["fewest_devices", "least_cost"])
def test_given_rates_on_own_devices_are_served_as_cheaply_as_by_brute_force(seed: int, objective: str) -> None:
    base = random_problem(seed, dnns=2, stages=2, counts=(2, 1, 2), shares=(1, 2))
    priced = [replace(one, price_per_hour=0.5 + 0.3 * at) for at, one in enumerate(base.cluster.device_types)]
    best = brute_force(base)
    dnns = tuple(replace(one, rate_rps=max(0.6 * best * one.weight, 1.0)) for one in base.dnns)
    options = replace(base.options, objective=objective)
    problem = replace(base, cluster=replace(base.cluster, device_types=tuple(priced)), dnns=dnns, options=options)
    if not best:
        with pytest.raises(InputError):
            make_plan(problem, method="decomposition")
        return
    plan, other = make_plan(problem, method="decomposition"), make_plan(problem, method="milp")
    assert plan.value == pytest.approx(other.value, rel=1e-6)
    assert plan.bound <= plan.value * (1 + 1e-9)
    assert plan.status == "optimal"


@pytest.mark.parametrize("seed", range(4))
def test_larger_shared_plans_agree_with_the_programme(seed: int) -> None:
    types = (replace(L4, count=3, shares=(1, 2, 3, 4)), replace(ODD, count=2), replace(A30, count=2))
    problem = random_sharing(seed, *types, dnns=5, stages=2, objective="max_min_throughput")
    plan = make_plan(problem, gap=1e-3, time_limit_s=10)
    other = make_plan(problem, method="milp", gap=1e-4, time_limit_s=2)
    assert plan.method == "decomposition"
    assert plan.value <= other.bound * (1 + 1e-9)
    assert other.value <= plan.bound * (1 + 1e-9)
    assert plan.gap <= 0.01


def test_own_devices_are_a_capacity_of_devices() -> None:
    packed = Capacity.of_devices([3, 2]).packed(np.array([2, 2]))
    assert packed is not None
    assert [len(devices) for devices in packed] == [2, 2]
    assert Capacity.of_devices([3, 2]).packed(np.array([4, 0])) is None


def test_costs_have_a_common_divisor_or_none() -> None:
    assert divisor([0.526, 1.2]) == pytest.approx(0.002)
    assert divisor([1.0, 2**0.5]) == 0.0
    assert divisor([0.0, 3.0]) == 3.0


@pytest.mark.parametrize("sharing", ["own", "shared"])
def test_rates_up_to_the_largest_least_throughput_can_be_served_and_no_more(sharing: str) -> None:
    base = random_problem(21, dnns=3, stages=2, counts=(6, 5, 7), shares=(1, 2, 3))
    base = replace(base, options=replace(base.options, device_sharing=sharing))
    most = make_plan(base, gap=1e-5).value

    def at(part: float) -> Problem:
        dnns = tuple(replace(dnn, rate_rps=most * part * dnn.weight) for dnn in base.dnns)
        return replace(base, dnns=dnns, options=replace(base.options, objective="fewest_devices"))

    assert make_plan(at(1 - 1e-9)).value <= 18
    with pytest.raises(InputError, match="whole devices"):
        make_plan(at(1.02))
    with pytest.raises(InputError, match="of the rates asked for"):
        make_plan(at(3.0))
