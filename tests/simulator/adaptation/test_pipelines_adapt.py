"""Pipelines end to end that adapt: changes by hand, real plans of an application, bad input."""

from dataclasses import replace

import numpy as np
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
)
from planner.planning import make_plan
from simulator.adaptation.pipelines import PipelinePlan, by_rate, pipeline_plan, run_adapted
from simulator.adaptation.predictors import Counts
from simulator.engine.world import World

MEASURED = Provenance("measured", "by hand")
S = 1_000_000


def variant(name: str, us: int) -> Profile:
    table = LatencyTable("L4", 1, (1,), ((us,),), MEASURED)
    return Profile(name, (Block((name,)),), (), (table,), input_bytes=100)


FIND = Task("find", (variant("find", 20_000),), {"find": 100.0})
NAME = Task("name", (variant("fast", 20_000), variant("slow", 80_000)), {"fast": 60.0, "slow": 80.0})


def planned(rate_rps: float) -> PipelinePlan:
    """The most accurate plan on one L4: 100 ms a request with the slow variant, 40 ms with the fast one."""
    application = Application("photos", 1e6, (FIND, NAME), rate_rps=rate_rps)
    options = Options("most_accurate", max_stages=1, batch_building_factor=0)
    problem = Problem(Cluster((DeviceType("L4", 1),), Network(10)), (), options, (application,))
    return pipeline_plan(problem, make_plan(problem), "photos", rate_rps)


def lately(counts: Counts) -> float:
    return float(counts[-10:].mean())


def test_plans_take_over_and_go_back_by_hand() -> None:
    """5 requests/s, from 20 s on 15, from 40 s on 5 again; what came in the last ten seconds is planned for."""
    slow, fast = planned(9.0), planned(22.0)
    assert (slow.accuracy, fast.accuracy) == ((80.0,), (60.0,))
    gaps_us = np.repeat([200_000, 66_666, 200_000], [100, 300, 100])
    arrivals_us = np.concatenate([[0], np.cumsum(gaps_us)[:-1]])
    found = run_adapted(slow, arrivals_us, lately, by_rate([fast, slow]))
    assert found.at_us == (0, 30 * S, 50 * S)
    assert found.plans == (slow, fast, slow)
    records = found.records
    by_fast = records.visits[0].pipeline[records.visit[0]] == 1
    assert by_fast[(arrivals_us > 30.2 * S) & (arrivals_us < 49 * S)].all()
    assert not by_fast[(arrivals_us < 29 * S) | (arrivals_us > 51 * S)].any()
    served = records.finished
    assert served[arrivals_us < 20 * S].all()
    assert served[arrivals_us > 32 * S].all()
    assert found.accuracy == pytest.approx(80 - 20 * by_fast[served].mean())


def test_loading_costs_service() -> None:
    """While the new plan's models load for 5 s nothing is served within a second."""
    slow, fast = planned(9.0), planned(22.0)
    arrivals_us = np.arange(0, 40 * S, S // 12)
    shares = [
        run_adapted(slow, arrivals_us, lately, by_rate([slow, fast]), world=World(load_us=load)).records.finished.mean()
        for load in (0, 5 * S)
    ]
    assert shares[0] - shares[1] > 0.08


def test_a_planner_by_rate_is_patient() -> None:
    small, large = planned(9.0), planned(22.0)
    plan = by_rate([large, small], patience=0.8)
    assert plan(8.9, small) is small
    assert plan(9.1, small) is large
    assert plan(8.0, large) is large  # 7.2 would do
    assert plan(7.1, large) is small
    assert plan(99.0, small) is large


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: by_rate([]), "plans by rate: expected a plan at least"),
        (lambda: by_rate([planned(9.0)], 0.0), r"a patience in \(0, 1\], got 0.0"),
        (lambda: replace(planned(9.0), accuracy=()), "expected an accuracy for each of 1 pipelines, got 0"),
        (
            lambda: run_adapted(planned(9.0), np.array([0]), lately, by_rate([planned(9.0)]), interval_s=0),
            "expected an interval of at least 1 s",
        ),
    ],
)
def test_bad_input_is_one_line(make: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()  # type: ignore[operator]
