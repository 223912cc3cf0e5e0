"""The engine on a real clock, with workers that take what they are told: every rule decides as in a simulation.

Nothing is slept: the workers' clock jumps to what happens next.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from random_networks import random_case
from random_systems import random_arrivals, random_sharing, random_system
from same_records import assert_same, assert_same_network

from simulator.dispatch.decisions import FINISHED, LOST
from simulator.dispatch.frontend import POLICIES
from simulator.dispatch.system import System
from simulator.engine.network import (
    CENTRAL,
    IDLE_FIRST,
    LATEST_START,
    REACTS,
    Change,
    Conditions,
    Frontend,
    Network,
    Route,
    Station,
    Step,
    servers,
)
from simulator.engine.networks import simulate_network
from simulator.engine.plans import network_of
from simulator.engine.running import Observation, Run
from simulator.engine.views import network_records, reactive_records, reserved_records
from simulator.executor.networks.live import LiveRun
from simulator.executor.networks.talk import Ended, Event, Gone, Ready, Service
from simulator.results.records import Records

Duration = Callable[[int, int, int], int]  # server, when, planned time -> time (µs)


class Virtual:
    """Workers in no time; ``dies`` are (server, service) that end a worker, in the middle of it."""

    def __init__(self, duration: Duration, load_us: int = 0, dies: Sequence[tuple[int, int]] = ()) -> None:
        self.duration, self.load_us, self.dies = duration, load_us, set(dies)
        self.live: LiveRun | None = None
        self.time_us = 0
        self.due: list[tuple[int, Event]] = []
        self.begun: dict[int, int] = {}
        self.log: list[tuple[str, int, int]] = []
        self.finished: list[int] = []
        self.left: list[int] = []

    def now_us(self) -> int:
        return self.time_us

    def begin(self, service: Service) -> None:
        assert self.live is not None
        nth = self.begun[service.server] = self.begun.get(service.server, -1) + 1
        state, size = self.live.state, len(service.requests)
        planned_us = int(state.latency[0, service.station, service.kind, size])
        end_us = self.time_us + self.duration(service.server, self.time_us, planned_us)
        if (service.server, nth) in self.dies:
            self.due.append((self.time_us + planned_us // 2, Gone(service.server, "told to")))
        else:
            self.due.append((end_us, Ended(service.server, service.number, self.time_us, end_us)))

    def poll(self, until_us: int) -> list[Event]:
        first_us = min((at_us for at_us, _ in self.due), default=until_us)
        self.time_us = max(self.time_us, min(first_us, until_us))
        found = [event for at_us, event in self.due if at_us <= self.time_us]
        self.due = [item for item in self.due if item[0] > self.time_us]
        return found

    def load(self, server: int, kind: int) -> None:
        self.log.append(("load", server, kind))
        self.due.append((self.time_us + self.load_us, Ready(server)))

    def leave(self, server: int) -> None:
        self.left.append(server)

    def done(self, request: int, finished: bool) -> None:
        assert request not in self.finished
        if finished:
            self.finished.append(request)


def as_planned(server: int, now_us: int, planned_us: int) -> int:
    return planned_us


def serve(network: Network, arrivals_us: Sequence[np.ndarray], staff: Virtual, **more: object) -> LiveRun:
    staff.live = LiveRun(network, arrivals_us, staff, **more)  # type: ignore[arg-type]
    staff.live.serve()
    return staff.live


def recorded(starts: Mapping[tuple[int, int], int]) -> Duration:
    """Take what was recorded of each server and start."""
    return lambda server, now_us, planned_us: starts[server, now_us] - now_us


def rules_of(network: Network) -> set[object]:
    return {"latest start" if one.rule == LATEST_START else ("central", one.placement) for one in network.stations}


def test_routes_are_served_as_simulated_with_the_times_that_workers_took() -> None:
    """Central queues (round robin, idle first, by slack) and latest start first; chains, trees, joins; ties; jitter."""
    met: set[object] = set()
    for seed in range(150):
        case = random_case(seed)
        simulated = simulate_network(case.network, case.arrivals_us, Conditions(seed=seed, corrected=True))
        served = simulated.size > 0
        keys = zip(simulated.server[served].tolist(), simulated.start_us[served].tolist(), strict=True)
        staff = Virtual(recorded(dict(zip(keys, simulated.end_us[served].tolist(), strict=True))))
        live = serve(case.network, case.arrivals_us, staff)
        records = network_records(live.state)
        assert_same_network(records, simulated, seed)
        assert sorted(staff.finished) == np.flatnonzero(simulated.outcome == FINISHED).tolist()
        met |= rules_of(case.network)
    assert met == {"latest start", ("central", 0), ("central", 1), ("central", 2)}


def test_plans_are_served_as_simulated_whatever_the_policy() -> None:
    """All policies and reactive dispatch, one DNN and several that share pools; network cards; jitter."""
    for seed in range(120):
        rng = np.random.default_rng(seed)
        policy = seed % (len(POLICIES) + 1) - 1
        if seed % 2 or policy < 0:
            systems, pools = [random_system(rng)], None
        else:
            systems, pools = random_sharing(rng, int(rng.integers(2, 4)))
        policy = REACTS if policy < 0 else policy
        arrivals_us = [random_arrivals(rng, system, 0.01) for system in systems]
        network = network_of(systems, policy, pools=pools, spread=0.3 if seed % 3 else 0.0)
        run = Run(network, arrivals_us, Conditions(seed=seed, corrected=True))
        run.to_the_end()
        simulated = records_of(run, systems, policy)
        live = serve(network, arrivals_us, Virtual(recorded(ends_of(network, simulated))))
        for d, (mine, theirs) in enumerate(zip(records_of(live.run, systems, policy), simulated, strict=True)):
            assert_same(mine, theirs, (seed, policy, d))


def records_of(run: Run, systems: Sequence[System], policy: int) -> list[Records]:
    view = reactive_records if policy == REACTS else reserved_records
    return [view(run.state, [d], system) for d, system in enumerate(systems)]


def ends_of(network: Network, simulated: Sequence[Records]) -> dict[tuple[int, int], int]:
    """Return (server, start) -> end of all that was served."""
    found = {}
    for records, one in zip(simulated, network.classes, strict=True):
        assert isinstance(one, Frontend)
        for s, visits in enumerate(records.visits):
            for p, w, start_us, end_us in zip(
                visits.pipeline.tolist(), visits.slice.tolist(), visits.start_us.tolist(), visits.end_us.tolist(),
                strict=True,
            ):  # fmt: skip
                if w >= 0:
                    found[network.stations[one.stations[p][s]].servers[w], start_us] = end_us
    return found


def chain(replicas: int = 2, spare: int = 2) -> tuple[Network, np.ndarray]:
    """Two tasks with two variants, of which the second is twice as slow; requests every 3 ms."""
    latency_us = np.array([[0, 4_000, 6_000], [0, 8_000, 12_000]])
    each = replicas + spare
    stations = tuple(
        Station(CENTRAL, tuple(range(q * each, (q + 1) * each)), latency_us, 2, 5_000, IDLE_FIRST) for q in range(2)
    )
    on = [w % each < replicas for w in range(2 * each)]
    route = Route("app", (Step(0, (1,)), Step(1)))
    return Network(servers([0] * 2 * each, on=on), stations, (route,)), np.arange(400) * 3_000


def test_a_task_that_loads_nothing_does_not_wait_for_one_that_does() -> None:
    """At 250 ms the first task's variant and the second one's batch size change: only the former has to load."""
    network, arrivals_us = chain()
    changes = [Change(250_000, 0, (0, 2), 2, 250_000), Change(250_000, 1, (2,), 1, 250_000)]
    looks: list[Observation] = []

    def adapt(seen: Observation) -> list[Change] | None:
        looks.append(seen)
        return changes if len(looks) == 1 else None

    live = serve(network, [arrivals_us], Virtual(as_planned, load_us=70_000), adapt=adapt, every_us=250_000)
    assert [(one.station, one.ready_us) for one in live.cold_starts] == [(1, 250_000), (0, 320_000)]
    known = [replace(change, ready_us=ready) for change, ready in zip(changes, (320_000, 250_000), strict=True)]
    assert_same_network(network_records(live.state), simulate_network(network, [arrivals_us], changes=known), "task")


def test_variants_are_switched_while_requests_flow() -> None:
    """The configuration comes into force when its replicas have loaded, as a simulation that knew when."""
    network, arrivals_us = chain()
    asked: list[Observation] = []

    def adapt(seen: Observation) -> list[Change] | None:
        asked.append(seen)
        if len(asked) in (1, 3):
            return [Change(seen.now_us, 0, (0, 2) if len(asked) == 1 else (2,), 2, seen.now_us)]
        return None

    staff = Virtual(as_planned, load_us=70_000)
    live = serve(network, [arrivals_us], staff, adapt=adapt, every_us=250_000)
    assert [(one.asked_us, one.ready_us) for one in live.cold_starts] == [(250_000, 320_000), (750_000, 820_000)]
    assert staff.log == [("load", 2, 1), ("load", 3, 1), ("load", 0, 0), ("load", 1, 0)]
    assert staff.left == [0, 1, 2, 3]  # who has drained leaves
    records = network_records(live.state)
    assert (records.outcome == FINISHED).all()
    known = [Change(one.asked_us, 0, one.replicas, 2, one.ready_us or 0) for one in live.cold_starts]
    assert_same_network(records, simulate_network(network, [arrivals_us], changes=known), "changes")
    seen: list[Observation] = []
    simulate_network(network, [arrivals_us], changes=known, adapt=seen.append, every_us=250_000)
    for mine, theirs in zip(asked, seen, strict=True):  # what a callback sees is the same, too
        np.testing.assert_array_equal(mine.busy, theirs.busy)
        np.testing.assert_array_equal(mine.queued, theirs.queued)
    first = records.kind[records.station == 0]
    assert set(first.tolist()) == {0, 1}


def test_a_worker_that_dies_loses_nothing_but_what_it_breaks_twice() -> None:
    network, arrivals_us = chain()
    staff = Virtual(as_planned, load_us=50_000, dies=[(0, 5)])
    live = serve(network, [arrivals_us], staff)
    records = network_records(live.state)
    assert (records.outcome == FINISHED).all()
    assert [incident.what for incident in live.incidents] == ["down: told to", "up again"]
    assert staff.log == [("load", 0, 0)]
    down_us, up_us = (incident.time_us for incident in live.incidents)
    assert up_us == down_us + 50_000
    own = records.start_us[(records.server == 0) & (records.size > 0)]
    assert not ((own > down_us) & (own < up_us)).any()
    assert (own >= up_us).any()


def test_a_server_that_keeps_dying_stays_down() -> None:
    network, arrivals_us = chain(spare=0)
    staff = Virtual(as_planned, load_us=1_000, dies=[(w, n) for w in (2, 3) for n in range(99)])
    live = serve(network, [arrivals_us], staff, drain_us=100_000)
    records = network_records(live.state)
    assert not (records.outcome == FINISHED).any()
    assert (records.outcome == LOST).any()
    assert sum(incident.what.startswith("down") for incident in live.incidents) == 6  # three times each


def test_a_run_that_is_stopped_finishes_what_has_come() -> None:
    one, arrivals_us = chain()
    two = replace(one, classes=one.classes * 2)
    for network, each_us in ((one, [arrivals_us]), (two, [arrivals_us, arrivals_us + 1]), _pipelines()):
        staff = Virtual(as_planned)

        def stop(now_us: int, staff: Virtual = staff) -> None:
            if now_us > 0 and staff.live is not None and staff.live.stopped_us is None:
                staff.live.stop()

        live = serve(network, each_us, staff, tick=stop)
        assert live.stopped_us is not None
        came = np.flatnonzero(np.concatenate(each_us) <= live.stopped_us)
        assert 0 < len(came) < sum(map(len, each_us))
        assert sorted(staff.finished) == came.tolist()


def _pipelines() -> tuple[Network, list[np.ndarray]]:
    system = replace(random_system(np.random.default_rng(3)), slo_us=10_000_000)
    return network_of([system], 0), [np.arange(100) * 20_000]


def test_a_loop_without_a_period_is_refused() -> None:
    network, arrivals_us = chain()
    with pytest.raises(Exception, match="every_us: expected a time above 0"):
        serve(network, [arrivals_us], Virtual(as_planned), adapt=lambda seen: None)
