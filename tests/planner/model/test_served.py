import numpy as np
import pytest
from scipy.optimize import linprog

from planner.model import (
    Block,
    Cluster,
    DeviceType,
    Dnn,
    LatencyTable,
    Network,
    Options,
    Problem,
    Profile,
    Provenance,
)
from planner.model.served import Option, cheapest_mix
from planner.planning import make_plan

MEASURED = Provenance("measured", "by hand")


@pytest.mark.parametrize("seed", range(40))
def test_a_mix_is_the_optimum_of_the_linear_programme(seed: int) -> None:
    rng = np.random.default_rng(seed)
    options = [
        Option(float(rng.integers(1, 8)) / 4, float(rng.choice([50, 60, 75, 90])), float(rng.integers(1, 90)))
        for _ in range(rng.integers(1, 8))
    ]
    rate_rps = float(rng.uniform(0.2, 1.0)) * sum(one.throughput_rps for one in options)
    least = float(rng.uniform(45, 92))
    found = linprog(
        [one.joules for one in options],
        A_ub=[[least - one.accuracy for one in options]],
        b_ub=[0.0],
        A_eq=[[1.0] * len(options)],
        b_eq=[rate_rps],
        bounds=[(0.0, one.throughput_rps) for one in options],
    )
    served = cheapest_mix(rate_rps, options, least)
    assert sum(served) == pytest.approx(rate_rps)
    assert all(0 <= rps <= one.throughput_rps * (1 + 1e-12) for one, rps in zip(options, served, strict=True))
    accuracy = sum(one.accuracy * rps for one, rps in zip(options, served, strict=True)) / rate_rps
    if found.status == 0:
        assert sum(one.joules * rps for one, rps in zip(options, served, strict=True)) == pytest.approx(found.fun)
        assert accuracy >= least - 1e-9
    else:
        assert found.status == 2
        assert accuracy < least


def test_what_a_plan_draws_and_how_accurate_it_is_are_told_of_the_same_requests() -> None:
    """A request of *small* takes 0.5 J (100 W for 5 ms), one of *large* 1 J; 60 requests/s are to be 75 % accurate.

    So half of them go to either: 45 W, and 2 devices at rest with 10 W each. The cheapest requests alone would draw
    30 W, the most accurate pipelines would be 90 % accurate.
    """
    variants = tuple(
        Profile(name, (Block(("a",)),), (), (LatencyTable("L4", 1, (1,), ((latency_us,),), MEASURED),))
        for name, latency_us in (("small", 5_000), ("large", 10_000))
    )
    device = DeviceType("L4", 2, idle_watts=10, busy_watts=110)
    dnn = Dnn("d", 50_000, variants, rate_rps=60.0, accuracy={"small": 60.0, "large": 90.0})
    options = Options("least_energy", min_accuracy=75.0)
    plan = make_plan(Problem(Cluster((device,), Network(10)), (dnn,), options))
    assert {one.variant for one in plan.pipelines} == {"small", "large"}
    assert plan.value == pytest.approx(65.0)
    assert plan.bound == pytest.approx(65.0)
    assert plan.watts == pytest.approx(65.0)
    assert plan.accuracy == {"d": pytest.approx(75.0)}
