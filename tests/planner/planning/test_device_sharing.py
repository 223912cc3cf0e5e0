"""Devices that serve several DNNs, and shares whose fractions do not say what fits: against trying everything."""

from dataclasses import replace

import pytest
from mixtures import random_problem
from sharing_oracle import brute_force

from planner.model import Cluster, DeviceType, Dnn, InputError, Network, Options, Problem
from planner.model.check import check
from planner.model.placing import devices_used, locations
from planner.planning import make_plan
from planner.planning.whole_devices import columns

A30 = DeviceType("A30", 2, mig="a30-24gb", processes=2, price_per_hour=2.0)
CPU = DeviceType("cpu", 2, "cpu", cores=4, price_per_hour=0.5)
ODD = DeviceType("odd", 2, shares=(2, 3, 5), price_per_hour=1.0)
L4 = DeviceType("L4", 2, shares=(1, 2), price_per_hour=1.5)

BOTH = DeviceType("both", 2, shares=(1, 2), mig="a30-24gb", price_per_hour=1.0)  # MPS on one, MIG on another
ONE_L4, ONE_A30 = replace(L4, count=1), replace(A30, count=1, processes=1)

# Types, DNNs, stages.
SMALL = [
    ((A30,), 2, 1),
    ((CPU,), 2, 1),
    ((ODD,), 2, 1),
    ((ONE_L4, ONE_A30), 2, 1),
    ((L4,), 3, 1),
    ((L4,), 2, 2),
    ((ODD,), 1, 1),
    ((BOTH,), 1, 1),
]


@pytest.mark.parametrize("sharing", ["own", "shared"])
@pytest.mark.parametrize(("types", "dnns", "stages"), SMALL)
@pytest.mark.parametrize("seed", [0, 1])
def test_plans_are_optimal(types: tuple[DeviceType, ...], dnns: int, stages: int, sharing: str, seed: int) -> None:
    for objective in ("max_min_throughput", "max_weighted_throughput", "fewest_devices", "least_cost"):
        problem = random_problem(
            10 * seed + len(types), *types, dnns=dnns, stages=stages, sharing=sharing, objective=objective
        )
        expected = brute_force(problem)
        if expected is None or expected == 0:
            with pytest.raises(InputError):
                make_plan(problem)
            continue
        plan = make_plan(problem)  # checks the placement, too
        assert plan.value == pytest.approx(expected, rel=1e-6), objective
        assert plan.status == "optimal"


@pytest.mark.parametrize("slices", [{2: 1, 3: 2, 5: 4}, {3: 2, 5: 3, 7: 5}, {3: 1, 5: 4, 7: 6}])
def test_no_plan_needs_more_devices_than_there_are_where_fractions_would_allow_it(slices: dict[int, int]) -> None:
    # A DNN per share that runs on it alone, at rates of as many slices: 1/2 + 2/3 + 4/5 = 1.967 <= 2 devices, or
    # 2/3 + 3/5 + 5/7 = 1.981, or 1/3 + 4/5 + 6/7 = 1.990; no packing fits in 2.
    shares = tuple(slices)
    base = random_problem(3, DeviceType("odd", 2, shares=shares), dnns=3, sharing="shared")
    dnns = []
    for dnn, share in zip(base.dnns, shares, strict=True):
        (profile,) = dnn.variants
        table = replace(profile.table("odd", share), batches=(1,), latency_us=((10_000,),))
        alone = replace(profile, tables=(table,))
        dnns.append(replace(dnn, variants=(alone,), slo_us=60_000.0, rate_rps=100.0 * slices[share]))
    problem = replace(base, dnns=tuple(dnns), options=replace(base.options, objective="fewest_devices"))
    assert sum(slices[share] / share for share in shares) < 2
    with pytest.raises(InputError, match="whole devices"):
        make_plan(problem)
    three = replace(problem, cluster=problem.cluster.with_counts({"odd": 3}))
    plan = make_plan(three)
    assert plan.value == 3
    assert check(three, plan) == ()
    squeezed = replace(plan, placement=())
    assert [one.constraint for one in check(problem, squeezed, given=three)] == ["devices"]


def test_sharing_never_needs_more_devices_and_never_serves_less() -> None:
    for seed in range(6):
        for objective, better in (("max_min_throughput", 1), ("fewest_devices", -1)):
            own = random_problem(seed, L4, A30, sharing="own", objective=objective)
            shared = replace(own, options=replace(own.options, device_sharing="shared"))
            try:
                alone = make_plan(own).value
            except InputError:
                continue
            assert better * make_plan(shared).value >= better * alone * (1 - 1e-6)


@pytest.mark.parametrize("backend", ["highs", "gurobi", "cbc"])
def test_backends_agree(backend: str) -> None:
    for types in ((A30,), (ODD,)):
        problem = random_problem(7, *types, objective="max_min_throughput")
        try:
            plan = make_plan(problem, backend=backend)
        except InputError as error:
            if "backend" in str(error):
                pytest.skip(str(error))
            raise
        assert plan.value == pytest.approx(make_plan(problem).value, rel=1e-6)


def test_baselines_that_can_share_do_and_others_say_so() -> None:
    problem = random_problem(1, L4, dnns=3, objective="max_min_throughput")
    plan = make_plan(problem, "np")
    assert plan.value > 0  # three DNNs on two devices
    assert all(len(pipeline.stages) == 1 for pipeline in plan.pipelines)
    with pytest.raises(InputError, match="dart-r replicates pipelines on whole devices"):
        make_plan(problem, "dart-r")
    for method, text in (("dynamic", "method dynamic"), ("columns", "method columns")):
        with pytest.raises(InputError, match=text):
            make_plan(problem, method=method)


def test_one_device_type_of_whole_devices_shares_nothing() -> None:
    problem = random_problem(1, replace(L4, shares=(1,)), dnns=2, objective="max_min_throughput")
    assert columns.admits(problem)


def test_a_plan_places_every_slice_and_counts_the_devices_it_names() -> None:
    problem = random_problem(5, A30, dnns=2, objective="max_min_throughput")
    plan = make_plan(problem)
    found = list(locations(problem, plan))
    assert len(found) == sum(stage.slices for pipeline in plan.pipelines for stage in pipeline.stages)
    assert devices_used(problem, plan) == {"A30": len({one.number for one in found})}
    assert plan.neighbours in ({}, {"A30": "isolated"})


def test_energy_is_least() -> None:
    # "fast" serves 100 requests/s at 100 W idle and 200 W busy; "slow" 50 at 20 and 60 W. 120 requests/s: fast + slow
    # is 120 + (100 - ...): the slow one first, 40 W / 50 rps = 0.8 J, against 100 W / 100 rps = 1 J. So slow serves 50
    # and fast 70: 120 + 40 + 70 = 230 W; three slow ones: 60 + 0.8 · 120 = 156 W; two fast ones: 200 + 120 = 320 W.
    base = random_problem(0, DeviceType("fast", 2, idle_watts=100, busy_watts=200), dnns=1)
    fast = replace(base.dnns[0].variants[0].tables[0], batches=(1,), latency_us=((10_000,),))
    slow = replace(fast, device="slow", latency_us=((20_000,),))
    profile = replace(base.dnns[0].variants[0], tables=(fast, slow))
    types = base.cluster.device_types[0], DeviceType("slow", 3, idle_watts=20, busy_watts=60)
    dnn = Dnn("d0", 60_000.0, (profile,), np_throughput_rps=0.0, rate_rps=120.0)
    problem = Problem(Cluster(types, Network(10.0)), (dnn,), Options(objective="least_energy", max_stages=1))
    plan = make_plan(problem)
    assert plan.value == pytest.approx(156.0)
    assert plan.watts == pytest.approx(156.0)
    assert plan.joules_per_thousand == pytest.approx(1300.0)
    two_slow = replace(problem, cluster=problem.cluster.with_counts({"slow": 1}))
    assert make_plan(two_slow).value == pytest.approx(230.0)
    # Where idle devices draw nothing, and hardly a request comes, it is the fast one's 2 J or the slow one's 1.2.
    idle = tuple(replace(device, idle_watts=0.0) for device in types)
    seldom = replace(problem, cluster=replace(problem.cluster, device_types=idle), dnns=(replace(dnn, rate_rps=1e-9),))
    assert make_plan(seldom).value == pytest.approx(1.2e-9)
    unknown = replace(
        problem, cluster=replace(problem.cluster, device_types=(types[0], replace(types[1], busy_watts=None)))
    )
    with pytest.raises(InputError, match="busy_watts of slow: missing"):
        make_plan(unknown)


def test_one_more_device_never_hurts_and_the_order_of_dnns_does_not_matter() -> None:
    for seed in range(4):
        problem = random_problem(seed, A30, dnns=3, objective="max_min_throughput")
        try:
            value = make_plan(problem).value
        except InputError:
            continue
        more = replace(problem, cluster=problem.cluster.with_counts({"A30": 3}))
        turned = replace(problem, dnns=problem.dnns[::-1])
        assert make_plan(more).value >= value * (1 - 1e-6)
        assert make_plan(turned).value == pytest.approx(value, rel=1e-6)
