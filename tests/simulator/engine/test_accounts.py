"""Accounts notice what is wrong: planted faults in what a run leaves behind."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from random_networks import random_case
from random_systems import random_sharing, random_switching

from simulator.engine import World
from simulator.engine.accounts import check_accounts, check_busy_times, check_network_accounts
from simulator.engine.network import Conditions, Route
from simulator.engine.networks import simulate_network
from simulator.engine.plans import network_of
from simulator.engine.running import Run
from simulator.engine.views import network_records, reserved_records
from simulator.results.records import Records, Visits
from simulator.workload import poisson

Fault = Callable[[Visits], Visits]


def changed(name: str, by: int) -> Fault:
    """Return a fault: the last visit of some requests says something else in one column."""

    def fault(visits: Visits) -> Visits:
        values = np.array(getattr(visits, name))
        values[np.flatnonzero(visits.size > 0)[-1]] += by
        return replace(visits, **{name: values})

    return fault


def a_run() -> tuple[Run, Records]:
    """A DNN of two unlike pipelines under load, and its records."""
    systems, _ = random_sharing(np.random.default_rng(8), 1)
    system = systems[0]
    run = Run(network_of(systems, 0), [poisson(2_000.0, 0.5, np.random.default_rng(3))], Conditions())
    run.to_the_end()
    return run, reserved_records(run.state, [0], system)


def broken(records: Records, fault: Fault) -> Records:
    return replace(records, visits=(fault(records.visits[0]), *records.visits[1:]))


@pytest.mark.parametrize("name", ["start_us", "end_us"])
def test_a_service_of_another_length_is_noticed(name: str) -> None:
    run, records = a_run()
    check_busy_times(run.state, [([0], records)])
    with pytest.raises(AssertionError, match=r"server \d+: busy for \d+ µs, but its visits took \d+ µs"):
        check_busy_times(run.state, [([0], broken(records, changed(name, 1)))])


def test_a_service_on_another_slice_is_noticed() -> None:
    run, records = a_run()
    first = records.visits[0]
    slices = int(records.system.slices[first.pipeline[-1], 0])
    assert slices > 1
    other = (int(first.slice[-1]) + 1) % slices - int(first.slice[-1])
    with pytest.raises(AssertionError, match="busy for"):
        check_busy_times(run.state, [([0], broken(records, changed("slice", other)))])


def test_a_service_that_is_recorded_twice_or_never_is_noticed() -> None:
    run, records = a_run()
    first = records.visits[0]
    for rows in (np.arange(len(first.size) - 1), np.append(np.arange(len(first.size)), 0)):
        part = Visits(*(getattr(first, name)[rows] for name in Visits.__dataclass_fields__))
        with pytest.raises(AssertionError, match="busy for"):
            check_busy_times(run.state, [([0], broken(records, lambda _, part=part: part))])  # type: ignore[misc]


def test_the_engines_own_count_is_what_is_compared_with() -> None:
    run, records = a_run()
    run.state.server["busy_us"][0] += 1
    with pytest.raises(AssertionError, match="server 0: busy for"):
        check_busy_times(run.state, [([0], records)])
    check_accounts(records)  # conservation does not see it


def test_servers_of_networks_are_held_to_it_too() -> None:
    """Failures included: a service that is cut short counts up to the failure."""
    cut = 0
    for seed in range(30):
        case = random_case(seed)
        run = Run(case.network, case.arrivals_us, case.conditions)
        for change in case.changes:
            run.change(change)
        run.to_the_end()
        records, busy_us = network_records(run.state), run.state.server["busy_us"]
        assert all(isinstance(one, Route) for one in case.network.classes)
        check_network_accounts(records, busy_us)
        cut += int(((records.size == 0) & (records.start_us >= 0)).sum())
        wrong = np.array(records.end_us)
        wrong[np.flatnonzero(records.start_us >= 0)[0]] += 1
        with pytest.raises(AssertionError):
            check_network_accounts(replace(records, end_us=wrong), busy_us)
    assert cut > 10


def test_every_run_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `simulate` and `simulate_network` return has been held against the engine's count."""
    from simulator.engine import accounts, simulate

    def fail(*_: object) -> None:
        raise AssertionError("looked")

    monkeypatch.setattr(accounts, "require_equal", fail)
    rng = np.random.default_rng(5)
    systems, worlds = random_switching(rng)
    arrivals_us = [poisson(500.0, 0.1, rng) for _ in systems]
    for policy in ("reservation", "reactive", "latest-start"):
        with pytest.raises(AssertionError, match="looked"):
            simulate(systems, arrivals_us, policy=policy, world=[World()] * len(systems), engine="events")
    with pytest.raises(AssertionError, match="looked"):
        simulate(systems, arrivals_us, world=worlds)
    case = random_case(1)
    with pytest.raises(AssertionError, match="looked"):
        simulate_network(case.network, case.arrivals_us, case.conditions)
