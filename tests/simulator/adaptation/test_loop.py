"""The loop: changes by hand, nothing lost, the oracle engine under the same changes, bad input."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from planner.model import InputError
from simulator.adaptation import (
    Configuration,
    Controller,
    ServedTask,
    Service,
    Setting,
    Variant,
    outcomes_of,
    reactive,
    running,
)
from simulator.adaptation.service import batch_latencies_us
from simulator.engine.networks import simulate_network
from simulator.workload import poisson

SMALL = Variant("small", 60.0, 1, {1: 0.1, 4: 0.25})
LARGE = Variant("large", 80.0, 2, {1: 0.3, 4: 0.8})
ONE = Service((ServedTask("classify", (SMALL, LARGE)),), timeout_s=0.2, most_replicas=8)
TWO = replace(ONE, tasks=(*ONE.tasks, ServedTask("name", (SMALL, LARGE))))


def always(configuration: Configuration) -> Callable[[float, Configuration], Configuration]:
    return lambda rate_rps, in_use: configuration


def test_a_change_by_hand() -> None:
    """A request a second. From 10 s on the large variant loads, at 14 s it serves: 0.3 s in place of 0.1 s."""
    controller = Controller(
        ONE, reactive, always((running(1, 1, 1),)), (running(0, 1, 1),), interval_s=10, start_up_s=4.0
    )
    arrivals_us = np.arange(500_000, 20_500_000, 1_000_000)
    records = controller.run(arrivals_us)
    took_us = (records.done_us - records.arrival_us).tolist()
    assert took_us == [100_000] * 14 + [300_000] * 6
    decided = [(one.at_s, one.ready_s, one.rate_rps) for one in controller.decisions]
    assert decided == [(0, (0,), 0), (10, (14,), 1)]
    found = outcomes_of(ONE, controller.decisions, records, slo_s=0.2, duration_s=20)
    assert found.cores.tolist() == [1] * 14 + [2] * 6
    assert found.held_cores.tolist() == [1] * 10 + [3] * 4 + [2] * 6
    assert found.planned_accuracy.tolist() == [60] * 14 + [80] * 6
    assert (found.requests, found.dropped, found.late, found.infeasible) == (20, 0, 6, 0)
    assert found.accuracy == pytest.approx((14 * 60 + 6 * 80) / 20)
    assert found.attainment == pytest.approx(0.7)


def test_only_what_loads_waits_by_hand() -> None:
    """Two tasks of 0.1 s, a request a second, whose first batch size and second replicas change at 10 s.

    A request that waits alone for a batch of 4 leaves after 0.2 s: from 10 s on the first task takes 0.3 s. The second
    one has two replicas from 14 s on, and holds their cores from 10 s on.
    """
    before, after = (running(0, 1, 1), running(0, 1, 1)), (running(0, 4, 1), running(0, 1, 2))
    controller = Controller(TWO, reactive, always(after), before, interval_s=10, start_up_s=4.0)
    records = controller.run(np.arange(500_000, 20_500_000, 1_000_000))
    took_us = (records.done_us - records.arrival_us).tolist()
    assert took_us == [200_000] * 10 + [400_000] * 10
    assert [one.ready_s for one in controller.decisions] == [(0, 0), (10, 14)]
    found = outcomes_of(TWO, controller.decisions, records, slo_s=1.0, duration_s=20)
    assert found.cores.tolist() == [2] * 14 + [3] * 6
    assert found.held_cores.tolist() == [2] * 10 + [3] * 10


def test_fewer_replicas_are_in_force_at_once_by_hand() -> None:
    """Three replicas until 10 s, one from then on: of two requests at once the second one then waits."""
    controller = Controller(ONE, reactive, always((running(0, 1, 1),)), (running(0, 1, 3),), 10, 4.0)
    records = controller.run(np.array([9_000_000, 9_000_000, 10_500_000, 10_500_000]))
    assert (records.done_us - records.arrival_us).tolist() == [100_000, 100_000, 100_000, 200_000]
    found = outcomes_of(ONE, controller.decisions, records, slo_s=1.0, duration_s=12)
    assert found.cores.tolist() == found.held_cores.tolist() == [3] * 10 + [1] * 2


def test_no_answer_keeps_the_configuration_and_is_said() -> None:
    first = (running(0, 1, 2),)
    controller = Controller(ONE, reactive, lambda rate_rps, in_use: None, first)
    controller.run(np.arange(0, 30_000_000, 500_000))
    assert [one.configuration for one in controller.decisions] == [first] * len(controller.decisions)
    assert [one.feasible for one in controller.decisions] == [True, False, False]


def wandering(seed: int) -> Callable[[float, Configuration], Configuration]:
    """A planner that picks at random."""
    rng = np.random.default_rng(seed)
    return lambda rate_rps, in_use: tuple(
        Setting(tuple(rng.multinomial(rng.integers(1, 9), [0.5, 0.5]).tolist()), int(rng.integers(1, 5)))
        for _ in in_use
    )


@pytest.mark.parametrize("placement", ["round robin", "idle first", "by slack"])
@pytest.mark.parametrize("seed", range(3))
def test_no_request_is_lost_while_variants_change_and_both_engines_agree(seed: int, placement: str) -> None:
    service = replace(TWO, placement=placement, drop_age_s=6.0, answer_by_s=2.0)
    first = (running(0, 2, 4), running(1, 2, 4))
    controller = Controller(service, reactive, wandering(seed), first, interval_s=5, start_up_s=2.0)
    arrivals_us = poisson(12.0, 60.0, np.random.default_rng(seed))
    records = controller.run(arrivals_us)
    assert set(records.outcome.tolist()) <= {0, 3}  # finished, or dropped for its age
    known = controller.decisions
    changes = [
        change
        for before, after in pairwise(known)
        for change in service.changes(
            before.configuration,
            after.configuration,
            round(after.at_s * 1e6),
            [round(ready_s * 1e6) for ready_s in after.ready_s],
        )
    ]
    oracle = simulate_network(service.network(first), [arrivals_us], changes=changes, engine="simpy")
    assert np.array_equal(oracle.done_us, records.done_us)
    assert np.array_equal(oracle.kind[oracle.visit], records.kind[records.visit])
    found = outcomes_of(service, known, records, slo_s=2.0, duration_s=60)
    assert found.requests == len(arrivals_us) == found.dropped + len(found.latencies_s)
    assert 36 <= found.accuracy <= 64  # between products of the worst and of the best variants


def test_a_rule_of_accuracy_counts() -> None:
    mean = replace(TWO, rule="average")
    controller = Controller(
        mean, reactive, always((running(0, 1, 1), running(1, 1, 1))), (running(0, 1, 1), running(1, 1, 1))
    )
    records = controller.run(np.arange(0, 9_000_000, 1_000_000))
    assert outcomes_of(mean, controller.decisions, records, 9.0, 9).accuracy == pytest.approx(70.0)


def test_latencies_between_known_batches() -> None:
    assert batch_latencies_us(SMALL, 4).tolist() == [100_000, 100_000, 150_000, 200_000, 250_000]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Variant("m", 101.0, 1, {1: 0.1}), r"accuracy of m: expected percent in \[0, 100\], got 101"),
        (lambda: Variant("m", 50.0, 1, {1: 0.0}), "variant m: expected batch sizes of at least 1 and times above 0 s"),
        (lambda: Service(()), "expected at least one task"),
        (lambda: replace(ONE, placement="any"), "placement: expected one of"),
        (lambda: ONE.network((running(2, 1, 1),)), "task classify: expected variants of 0 to 1, got 2"),
        (lambda: ONE.network((running(0, 5, 1),)), "task classify: expected a batch of 1 to 4, got 5"),
        (lambda: ONE.network((running(0, 1, 9),)), "task classify: expected 1 to 8 replicas, got \\[9\\]"),
        (lambda: ONE.network(()), r"expected a setting per task \(1\), got 0"),
        (lambda: Controller(ONE, reactive, always(()), (running(0, 1, 1),), 0), "an interval of at least 1 s"),
        (lambda: Controller(ONE, reactive, always(()), (running(0, 1, 1),), 5, 8.0), "a start-up of 8.0 s is longer"),
    ],
)
def test_bad_input_is_one_line(make: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()  # type: ignore[operator]
