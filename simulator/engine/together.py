"""Simulate DNNs on the compiled engine: one or several, all as planned or each in its world."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from planner.model import InputError
from simulator.dispatch.system import Ints, System
from simulator.engine.network import ASKED, REACTS, Conditions, Network, Outage, Slowdown
from simulator.engine.plans import Pools, network_of, outages_of
from simulator.engine.python_policy import PythonPolicy
from simulator.engine.running import Run
from simulator.engine.views import reactive_records, reserved_records
from simulator.engine.world import World, combined, drawn_failures, require_in_charge, require_same_service
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
        Use SimPy, which has no policies in Python and no plans that take over.
    """
    number = ASKED if callable(policy) else policy
    as_planned = worlds is None
    worlds = [World()] * len(systems) if worlds is None else worlds
    _check(systems, worlds)
    first = worlds[0]
    by_type = any(_drains_by_type(system, world) for system, world in zip(systems, worlds, strict=True))
    network = network_of(systems, number, pools=pools, spread=first.spread, by_type=by_type)
    served = [
        _Served(d, system, world, arrivals_us[d], by_type)
        for d, (system, world) in enumerate(zip(systems, worlds, strict=True))
    ]
    known: set[object] = set()
    outages: list[Outage] = []
    for d, one in enumerate(served):
        names = {} if pools is None else dict(pools[d])
        outages += one.outages(network, d, frozenset(place for place, name in names.items() if name in known))
        known.update(names.values())
    conditions = Conditions(
        seed=first.seed,
        factors=np.array(first.factors),
        load_us=first.load_us,
        outages=tuple(sorted(outages, key=lambda outage: outage.at_us)),
        slowdowns=tuple(Slowdown(one.from_us, one.until_us, one.factor) for one in first.degradations),
        corrected=not as_planned or callable(policy),
    )
    if oracle:
        from simulator.engine.oracle import dispatch_oracle  # SimPy

        return dispatch_oracle(network, arrivals_us, conditions)
    run = Run(network, arrivals_us, conditions, policy if callable(policy) else None)
    for one in served:
        one.ask_for_switches(run, number)
    run.to_the_end()
    return [one.records(run, number) for one in served]


def _check(systems: Sequence[System], worlds: Sequence[World]) -> None:
    """Raise InputError for worlds that cannot be, or differ where DNNs in one run have one world."""
    for system, world in zip(systems, worlds, strict=True):
        world.check(system)
        for name in ("seed", "spread", "factors", "load_us", "degradations"):
            if getattr(world, name) != getattr(worlds[0], name):
                raise InputError(
                    f"world of {system.dnn}: {name} is not that of {systems[0].dnn}; DNNs in one run have one world, "
                    "simulate them apart"
                )


def _drains_by_type(system: System, world: World) -> bool:
    """Return whether it is not known for all plans on which device each slice is."""
    plans = [system, *(switch.system for switch in world.switches)]
    return world.replan is not None or any(plan.number is None for plan in plans)


class _Served:
    """A DNN of a run: the plans that were in charge of it, and its part of the world."""

    def __init__(self, number: int, system: System, world: World, arrivals_us: Ints, by_type: bool) -> None:
        self.by_type = by_type
        self.number, self.world, self.arrivals_us = number, world, arrivals_us
        self.systems = [system]
        self.frontends = [number]
        self.switched_us: list[int] = []
        self.failing = world.failure_generator()
        self.observed = 0

    def outages(
        self, network: Network, frontend: int = 0, drawn_before: frozenset[tuple[int, int]] = frozenset()
    ) -> list[Outage]:
        """Return what fails of the plan in charge from now on: what the world says, then what is drawn."""
        world, system, plan = self.world, self.systems[-1], len(self.systems) - 1
        failures = [failure for failure in world.failures if failure.plan == plan]
        if world.failure_rate is not None:
            from_us, last_us = self.switched_us[-1] if plan else 0, int(self.arrivals_us[-1])
            drawn = drawn_failures(system, world.failure_rate, plan, from_us, last_us, self.failing)
            failures += [failure for failure in drawn if (failure.pipeline, failure.stage) not in drawn_before]
        return outages_of(system, network, failures, frontend)

    def ask_for_switches(self, run: Run, policy: int) -> None:
        """Let plans take over at their times, and the callback be asked at its own."""
        for switch in self.world.switches:
            run.at(switch.at_us, partial(self.switch, run, policy, switch.system))
        if self.world.replan is not None:
            run.at(self.world.replan_every_us, partial(self.replan, run, policy))

    def switch(self, run: Run, policy: int, system: System) -> None:
        """Put another plan in charge, now."""
        require_same_service(self.systems[0], system)
        self.systems.append(system)
        self.switched_us.append(run.now_us)
        network = network_of([system], policy, spread=self.world.spread, first=self.number, by_type=self.by_type)
        outages = self.outages(network)
        for failure in self.world.failures:
            if failure.plan == len(self.switched_us):
                require_in_charge(failure, self.switched_us)
        self.frontends.append(run.take_over(self.frontends[-1], network, outages))

    def replan(self, run: Run, policy: int) -> None:
        """Tell the callback what was observed, and let the system that it returns take over."""
        every_us, replan = self.world.replan_every_us, self.world.replan
        assert replan is not None
        arrived = int(np.searchsorted(self.arrivals_us, run.now_us, side="right"))
        rate_rps = (arrived - self.observed) * 1e6 / every_us
        self.observed = arrived
        if (system := replan(run.now_us / 1e6, rate_rps)) is not None:
            self.switch(run, policy, system)
        if run.now_us + every_us <= self.arrivals_us[-1]:
            run.at(run.now_us + every_us, partial(self.replan, run, policy))

    def records(self, run: Run, policy: int) -> Records:
        """Return what happened to its requests."""
        for failure in self.world.failures:
            require_in_charge(failure, self.switched_us)
        view = reactive_records if policy == REACTS else reserved_records
        return view(run.state, self.frontends, combined(self.systems))
