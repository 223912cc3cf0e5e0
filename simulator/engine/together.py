"""Simulate DNNs on the compiled engine: one or several, all as planned or each in its world."""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial

import numpy as np

from planner.model import InputError
from simulator.dispatch.system import Ints, Pools, System
from simulator.engine.accounts import check_busy_times
from simulator.engine.network import ASKED, REACTS, Conditions, Outage, Slowdown, Takeover
from simulator.engine.plans import network_of, outages_of, stations_of
from simulator.engine.python_policy import PythonPolicy
from simulator.engine.running import Run
from simulator.engine.views import reactive_records, reserved_records
from simulator.engine.world import (
    Failure,
    Switch,
    World,
    combined,
    drawn_failures,
    require_in_charge,
    require_same_service,
)
from simulator.results.records import Records


def simulate_together(
    systems: Sequence[System],
    arrivals_us: Sequence[Ints],
    policy: int | PythonPolicy,
    worlds: Sequence[World] | None = None,
    pools: Sequence[Pools] | None = None,
    *,
    oracle: bool = False,
) -> list[Records]:
    """Simulate some DNNs in one run.

    Parameters
    ----------
    policy
        Number of a policy (`simulator.engine.network.Frontend`), or a function in Python.
    worlds
        One per DNN, alike in all but failures and plans that take over; None: all goes to plan, and the books of
        compiled policies are what was reserved.
    pools
        Pools that DNNs share (`simulator.engine.plans.network_of`). Failures are drawn for them once.
    oracle
        Use SimPy, which has no policies in Python and is not asked for plans while it runs (`World.replan`).
    """
    as_planned = worlds is None
    worlds = [World()] * len(systems) if worlds is None else worlds
    check_worlds(systems, worlds, pools)
    first = worlds[0]
    served = [Served(*one) for one in zip(range(len(systems)), systems, worlds, arrivals_us, strict=True)]
    plans = _Plans(served, ASKED if callable(policy) else policy, any(_drains_by_type(one) for one in served))
    network = network_of(systems, plans.policy, pools=pools, spread=first.spread, by_type=plans.by_type)
    outages = outages_of(systems, network, stations_of(network), failures_of(served, pools))
    conditions = conditions_of(first, outages, corrected=not as_planned or callable(policy))
    if oracle:
        from simulator.engine.oracle import dispatch_oracle  # SimPy

        takeovers = [plans.takeover(at_us, switching) for at_us, switching in plans.switches()]
        return dispatch_oracle(network, arrivals_us, conditions, takeovers)
    run = Run(network, arrivals_us, conditions, policy if callable(policy) else None)
    for at_us, switching in plans.switches():
        run.at(at_us, partial(plans.switch, run, switching))
    for one in served:
        if one.world.replan is not None:
            run.at(one.world.replan_every_us, partial(plans.replan, run, one))
    run.to_the_end()
    found = [one.records(run, plans.policy) for one in served]
    check_busy_times(run.state, [(one.frontends, records) for one, records in zip(served, found, strict=True)])
    return found


def check_worlds(systems: Sequence[System], worlds: Sequence[World], pools: Sequence[Pools] | None) -> None:
    """Raise InputError for worlds that cannot be, or differ where DNNs in one run have one world."""
    for system, world in zip(systems, worlds, strict=True):
        world.check(system)
        for name in ("seed", "spread", "factors", "load_us", "degradations"):
            if getattr(world, name) != getattr(worlds[0], name):
                raise InputError(
                    f"world of {system.dnn}: {name} is not that of {systems[0].dnn}; DNNs in one run have one world, "
                    "simulate them apart"
                )
    shares = any(pools or ()) or any(switch.pools for world in worlds for switch in world.switches)
    times_us = {tuple(switch.at_us for switch in world.switches) for world in worlds}
    if shares and (len(times_us) > 1 or any(world.replan is not None for world in worlds)):
        raise InputError(
            "world: DNNs share pools, so that plans take over for all of them at once; expected switches at the same "
            "times for each DNN, and no callback that replans"
        )


def conditions_of(world: World, outages: tuple[Outage, ...], *, corrected: bool) -> Conditions:
    """Return what goes differently for all DNNs of a run, and what stops."""
    return Conditions(
        seed=world.seed,
        factors=np.array(world.factors),
        load_us=world.load_us,
        outages=outages,
        slowdowns=tuple(Slowdown(one.from_us, one.until_us, one.factor) for one in world.degradations),
        corrected=corrected,
    )


class Served:
    """A DNN of a run: its part of the world, and the plans that were in charge of it."""

    def __init__(self, number: int, system: System, world: World, arrivals_us: Ints) -> None:
        self.number, self.world, self.arrivals_us = number, world, arrivals_us
        self.systems = [system]
        self.frontends = [number]
        self.switched_us: list[int] = []
        self.failing = world.failure_generator()
        self.observed = 0

    def failures(self, drawn: set[tuple[str, int]], known: set[tuple[int, int]]) -> list[Failure]:
        """Return what fails of the plan in charge from now on: what the world says, then what is drawn.

        That has been done for the units of ``drawn``, and for the pools of stages in ``known``.
        """
        world, plan = self.world, len(self.systems) - 1
        found = [failure for failure in world.failures if failure.plan == plan]
        for failure in found:
            require_in_charge(failure, self.switched_us)
        if world.failure_rate is not None:
            from_us, last_us = self.switched_us[-1] if plan else 0, int(self.arrivals_us[-1])
            rate, rng = world.failure_rate, self.failing
            more = drawn_failures(self.systems[-1], rate, plan, from_us, last_us, rng, drawn)
            found += [failure for failure in more if (failure.pipeline, failure.stage) not in known]
        return found

    def observe_rps(self, now_us: int) -> float:
        """Return the rate since the last call."""
        arrived = int(np.searchsorted(self.arrivals_us, now_us, side="right"))
        before, self.observed = self.observed, arrived
        return (arrived - before) * 1e6 / self.world.replan_every_us

    def records(self, run: Run, policy: int) -> Records:
        """Return what happened to its requests."""
        for failure in self.world.failures:
            require_in_charge(failure, self.switched_us)
        view = reactive_records if policy == REACTS else reserved_records
        return view(run.state, self.frontends, combined(self.systems))


def failures_of(served: Sequence[Served], pools: Sequence[Pools] | None) -> list[tuple[int, Failure]]:
    """Return what fails of the plans in charge from now on, with the places of the DNNs; a shared pool fails once."""
    drawn: set[tuple[str, int]] = set()
    known: set[object] = set()
    found: list[tuple[int, Failure]] = []
    for d, one in enumerate(served):
        names = {} if pools is None else dict(pools[d])
        before = {place for place, name in names.items() if name in known}
        found += [(d, failure) for failure in one.failures(drawn, before)]
        known.update(names.values())
    return found


def _drains_by_type(one: Served) -> bool:
    """Return whether it is not known for all plans on which device each slice is."""
    plans = [*one.systems, *(switch.system for switch in one.world.switches)]
    return one.world.replan is not None or any(plan.number is None for plan in plans)


class _Plans:
    """The plans of a run, and how they take over from each other."""

    def __init__(self, served: Sequence[Served], policy: int, by_type: bool) -> None:
        self.served, self.policy = served, policy
        self.by_type = by_type or len({one.systems[0].device_types for one in served}) > 1
        self.frontends = len(served)

    def switches(self) -> list[tuple[int, list[tuple[Served, Switch]]]]:
        """Return which plans take over when, in order."""
        found: defaultdict[int, list[tuple[Served, Switch]]] = defaultdict(list)
        for one in self.served:
            for switch in one.world.switches:
                found[switch.at_us].append((one, switch))
        return sorted(found.items())

    def takeover(self, at_us: int, switching: Sequence[tuple[Served, Switch]]) -> Takeover:
        """Put other plans in charge, and return what that means for the run."""
        served = [one for one, _ in switching]
        systems, pools = [to.system for _, to in switching], [to.pools for _, to in switching]
        for one, system in zip(served, systems, strict=True):
            require_same_service(one.systems[0], system)
            one.systems.append(system)
            one.switched_us.append(at_us)
        network = network_of(
            systems,
            self.policy,
            pools=pools,
            spread=served[0].world.spread,
            numbers=[one.number for one in served],
            by_type=self.by_type,
        )
        outages = outages_of(systems, network, stations_of(network), failures_of(served, pools))
        takeover = Takeover(at_us, tuple(one.frontends[-1] for one in served), network, outages)
        for number, one in enumerate(served, self.frontends):
            one.frontends.append(number)
        self.frontends += len(served)
        return takeover

    def switch(self, run: Run, switching: Sequence[tuple[Served, Switch]]) -> None:
        """Put other plans in charge, now."""
        run.take_over(self.takeover(run.now_us, switching))

    def replan(self, run: Run, one: Served) -> None:
        """Tell the callback of a DNN what was observed, and let the system that it returns take over."""
        every_us, replan = one.world.replan_every_us, one.world.replan
        assert replan is not None
        if (system := replan(run.now_us / 1e6, one.observe_rps(run.now_us))) is not None:
            self.switch(run, [(one, Switch(run.now_us, system))])
        if run.now_us + every_us <= one.arrivals_us[-1]:
            run.at(run.now_us + every_us, partial(self.replan, run, one))
