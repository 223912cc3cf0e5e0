"""The compiled engine against the oracle: every time of every visit, on random networks and systems."""

import numpy as np
import pytest
from random_networks import Case, random_case
from random_systems import random_arrivals, random_sharing, random_switching, random_system, random_world
from same_records import assert_same, assert_same_network

from planner.model import InputError
from simulator.dispatch.decisions import FINISHED, OPEN
from simulator.engine import POLICIES, simulate
from simulator.engine.core.state import BASE, ROOM
from simulator.engine.network import (
    CENTRAL,
    IDLE_FIRST,
    LATEST_START,
    Change,
    Conditions,
    Network,
    Outage,
    Route,
    Station,
    Step,
    servers,
)
from simulator.engine.networks import simulate_network
from simulator.engine.run import EngineName
from simulator.engine.running import Run
from simulator.engine.views import network_records
from simulator.engine.world import Switch, World
from simulator.results.records import NetworkRecords

QUICK, ALL = 10, 20  # chunks of 50 cases; faults that are planted show within three (test_oracle_mutants.py)
ENGINES: tuple[EngineName, ...] = ("events", "simpy")


def of_case(case: Case, engine: str) -> NetworkRecords:
    return simulate_network(
        case.network,
        case.arrivals_us,
        case.conditions,
        changes=case.changes,
        engine=engine,
    )


def assert_networks_are_the_oracle_s(chunk: int) -> None:
    for seed in range(50 * chunk, 50 * chunk + 50):
        case = random_case(seed)
        assert_same_network(of_case(case, "events"), of_case(case, "simpy"), seed)


def assert_systems_are_the_oracle_s(chunk: int) -> None:
    for seed in range(50 * chunk, 50 * chunk + 50):
        rng = np.random.default_rng(seed)
        system = random_system(rng)
        arrivals_us, world = random_arrivals(rng, system), random_world(rng)
        policy = POLICIES[seed % len(POLICIES)]
        for other in (None, world):
            mine, theirs = (
                simulate(system, arrivals_us, policy=policy, world=other, engine=engine) for engine in ENGINES
            )
            assert_same(mine, theirs, (seed, policy, other))


@pytest.mark.parametrize("chunk", range(QUICK))
def test_networks_of_routes(chunk: int) -> None:
    """Central queues and latest start first, chains, trees and joins; failures, changes and ties."""
    assert_networks_are_the_oracle_s(chunk)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(QUICK, ALL))
def test_thousands_of_networks(chunk: int) -> None:
    assert_networks_are_the_oracle_s(chunk)


@pytest.mark.parametrize("chunk", range(QUICK))
def test_pipelines_of_a_dnn(chunk: int) -> None:
    """All policies, as planned and in worlds."""
    assert_systems_are_the_oracle_s(chunk)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(QUICK, ALL))
def test_thousands_of_systems(chunk: int) -> None:
    assert_systems_are_the_oracle_s(chunk)


def test_dnns_that_share_pools() -> None:
    for seed in range(100):
        rng = np.random.default_rng(seed)
        systems, pools = random_sharing(rng, int(rng.integers(2, 4)))
        arrivals_us = [random_arrivals(rng, system, 0.01) for system in systems]
        worlds = [random_world(np.random.default_rng(seed))] * len(systems) if seed % 2 else None
        policy = ("reservation", "orderly")[seed % 4 // 2]
        found = [
            simulate(systems, arrivals_us, policy=policy, world=worlds, pools=pools, engine=engine)
            for engine in ENGINES
        ]
        for mine, theirs in zip(*found, strict=True):
            assert_same(mine, theirs, seed)


def assert_switching_is_the_oracle_s(chunk: int) -> None:
    for seed in range(50 * chunk, 50 * chunk + 50):
        rng = np.random.default_rng(seed)
        systems, worlds = random_switching(rng)
        arrivals_us = [random_arrivals(rng, system) for system in systems]
        policy = POLICIES[seed % len(POLICIES)]
        found = [simulate(systems, arrivals_us, policy=policy, world=worlds, engine=engine) for engine in ENGINES]
        for mine, theirs in zip(*found, strict=True):
            assert_same(mine, theirs, (seed, policy))


@pytest.mark.parametrize("chunk", range(QUICK))
def test_plans_that_take_over(chunk: int) -> None:
    """One or two DNNs whose plans take over on shared devices, with failures."""
    assert_switching_is_the_oracle_s(chunk)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(QUICK, ALL))
def test_thousands_of_plans_that_take_over(chunk: int) -> None:
    assert_switching_is_the_oracle_s(chunk)


def test_a_run_cut_into_pieces_is_the_same_run() -> None:
    for seed in range(40):
        case = random_case(seed)
        run = Run(case.network, case.arrivals_us, case.conditions)
        for change in case.changes:
            run.change(change)
        for until_us in (3, 50, 51, 400, 1_000, 2_345):
            run.until(until_us)
        run.to_the_end()
        assert_same_network(network_records(run.state), of_case(case, "events"), seed)


def test_records_that_run_out_of_room_get_more() -> None:
    """With room for what is left but no more than one outage may need, they move at the next one."""
    moved = 0
    for seed in range(60):
        case = random_case(seed)
        if not case.conditions.outages or case.changes:
            continue
        run = Run(case.network, case.arrivals_us, case.conditions)
        run.state.c[ROOM] //= 2
        base = int(run.state.c[BASE])
        run.to_the_end()
        moved += int(run.state.c[BASE]) != base
        assert_same_network(network_records(run.state), of_case(case, "events"), seed)
    assert moved > 5


def test_places_in_front_of_servers_become_more() -> None:
    """Hundreds of batches of two classes stand in front of two servers, and join the other one when theirs fails."""
    station = Station(
        LATEST_START, (0, 1), np.array([[0, 30, 40]]), max_batch=2, timeout_us=5, epsilon_us=10, spread=0.2
    )
    routes = tuple(Route(f"{late}", (Step(0, (), late, 9_000),)) for late in (100, 2_000))
    network = Network(servers([0, 0]), (station,), routes)
    rng = np.random.default_rng(1)
    arrivals_us = [np.sort(rng.integers(0, 3_000, 300)) for _ in routes]
    outages = (Outage(1_500, (0,), 400), Outage(2_500, (1,), 2_000))
    case = Case(network, arrivals_us, Conditions(seed=3, outages=outages, corrected=True), ())
    run = Run(network, arrivals_us, case.conditions)
    before = run.state.places.shape[1]
    run.to_the_end()
    assert run.state.places.shape[1] >= 4 * before
    assert_same_network(network_records(run.state), of_case(case, "simpy"), "crowded")


def test_dnns_in_one_run_that_share_nothing_are_as_if_apart() -> None:
    rng = np.random.default_rng(3)
    systems = [random_system(rng) for _ in range(3)]
    arrivals_us = [random_arrivals(rng, system) for system in systems]
    for policy in POLICIES:
        together = simulate(systems, arrivals_us, policy=policy, engine="events")
        for mine, system, one in zip(together, systems, arrivals_us, strict=True):
            assert_same(mine, simulate(system, one, policy=policy), policy)


def test_whatever_is_switched_on_leaves_other_servers_as_they_are() -> None:
    """Server 0 fails; server 1 has another class and serves it in the very times that it took before."""
    stations = tuple(Station(CENTRAL, (w,), np.array([[0, 100]]), spread=0.3) for w in (0, 1))
    network = Network(servers([0, 0]), stations, (Route("a", (Step(0),)), Route("b", (Step(1),))))
    arrivals_us = [np.arange(0, 10_000, 130)] * 2
    calm = simulate_network(network, arrivals_us, Conditions(seed=5, corrected=True))
    failing = Conditions(seed=5, outages=(Outage(2_000, (0,), 700),), corrected=True)
    rough = simulate_network(network, arrivals_us, failing)
    assert (calm.end_us[calm.station == 1] == rough.end_us[rough.station == 1]).all()
    assert len(calm.end_us) < len(rough.end_us)


def test_plans_take_over_whatever_the_policy() -> None:
    """Every request has an outcome, and after the switch all batches are the new plan's."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        old = random_system(rng, types=2)
        new = random_system(rng, types=2, slo_us=old.slo_us)
        world = World(seed=seed, spread=0.2, load_us=1_000, switches=(Switch(9_000, new),))
        arrivals_us = random_arrivals(rng, old)
        for policy in POLICIES:
            found = simulate(old, arrivals_us, policy=policy, world=world)
            assert not (found.outcome == OPEN).any()
            first = found.visits[0]
            late = first.arrive_us > 9_000
            if policy != "reactive":  # there, requests that come back from a slice that failed are new batches
                assert (first.pipeline[late] >= len(old.stages)).all()
            assert (first.pipeline[first.arrive_us < 9_000] < len(old.stages)).all()


def test_adaptation_sees_the_run_and_changes_it() -> None:
    """One replica of 100 µs falls behind arrivals every 60; the callback asks for two, ready 50 later."""
    station = Station(CENTRAL, (0, 1), np.array([[0, 100]]), placement=IDLE_FIRST)
    network = Network(servers([0, 0], on=[True, False]), (station,), (Route("a", (Step(0),)),))
    arrivals_us = np.arange(0, 6_000, 60)
    seen = []

    def adapt(observation):
        seen.append(observation)
        if len(seen) > 1:
            return None
        return [Change(observation.now_us, 0, (2,), 1, observation.now_us + 50)]

    found = simulate_network(network, [arrivals_us], adapt=adapt, every_us=1_200)
    assert [one.now_us for one in seen] == [1_200, 2_400, 3_600, 4_800]
    assert seen[0].arrived.tolist() == [20]  # at 0 to 1,140
    assert seen[0].queued.tolist() == [8]  # 20 came, 11 were served by 1,100, the 12th is being served
    assert seen[0].busy.tolist() == [1.0, 0.0]
    assert found.server[found.start_us < 1_250].tolist() == [0] * 13
    assert set(found.server[found.start_us >= 1_250].tolist()) == {0, 1}
    assert (found.outcome == FINISHED).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (Change(5, 0, (0, 1), 1, 6), "expected a central station, replicas of kinds 0 to 0 and a batch of 1 to 1, got"),
        (Change(5, 0, (-1,), 1, 6), "expected a central station"),
        (Change(5, 0, (1,), 2, 6), "a batch of 1 to 1, got"),
        (Change(5, 0, (1,), 1, 4), "expected 0 <= at_us <= ready_us, got 5 and 4"),
    ],
)
def test_changes_that_cannot_be_are_refused(change: Change, message: str) -> None:
    network = Network(servers([0]), (Station(CENTRAL, (0,), np.array([[0, 100]])),), (Route("a", (Step(0),)),))
    with pytest.raises(InputError, match=message):
        simulate_network(network, [np.array([0])], changes=[change])


def test_a_run_beyond_the_end_of_the_calendar_is_refused() -> None:
    network = Network(servers([0]), (Station(CENTRAL, (0,), np.array([[0, 1 << 41]])),), (Route("a", (Step(0),)),))
    with pytest.raises(InputError, match="goes on beyond"):
        simulate_network(network, [np.zeros(3, np.int64)])
    with pytest.raises(InputError, match="expected all before"):
        simulate_network(network, [np.array([1 << 41])])


def test_what_cannot_run_together_is_refused() -> None:
    first, second = (random_system(np.random.default_rng(seed)) for seed in (1, 2))
    arrivals_us = [np.array([0]), np.array([0])]
    with pytest.raises(InputError, match="2 systems; expected arrivals, and worlds if there are any, for each"):
        simulate([first, second], arrivals_us[:1])
    with pytest.raises(InputError, match="world of net: seed is not that of net; DNNs in one run have one world"):
        simulate([first, second], arrivals_us, world=[World(seed=1), World(seed=2)])
    with pytest.raises(InputError, match="pools that DNNs share need the events engine, got replay"):
        simulate([first, second], arrivals_us, pools=[{}, {}], engine="replay")
    assert first.slices[0, 0] != second.slices[0, 0]
    with pytest.raises(
        InputError, match=r"pool shared: net has \d slices of it in stage 0 of pipeline 0, another DNN has"
    ):
        simulate([first, second], arrivals_us, pools=[{(0, 0): "shared"}] * 2)
