"""Simulate a network of routes, whose configuration may change while it works."""

from collections.abc import Callable, Sequence
from functools import partial
from numbers import Integral
from typing import Literal, get_args

from planner.model import InputError
from simulator.dispatch.system import Ints
from simulator.engine.accounts import check_network_accounts
from simulator.engine.network import Change, Conditions, Network
from simulator.engine.run import checked_arrivals
from simulator.engine.running import Observation, Run
from simulator.engine.views import network_records
from simulator.results.records import NetworkRecords

NetworkEngine = Literal["events", "simpy"]
Adapt = Callable[[Observation], Sequence[Change] | None]


def simulate_network(
    network: Network,
    arrivals_us: Sequence[Ints],
    conditions: Conditions | None = None,
    *,
    changes: Sequence[Change] = (),
    adapt: Adapt | None = None,
    every_us: int = 0,
    engine: NetworkEngine = "events",
) -> NetworkRecords:
    """Simulate what becomes of every request that follows a route.

    Parameters
    ----------
    arrivals_us
        Of each class, sorted, not negative, in µs.
    conditions
        What goes differently.
    changes
        Configurations that stations get, known before.
    adapt, every_us
        Called every so often until the last arrival with what was observed since the last call; returns the changes
        that follow from it, from that time on, or None.
    engine
        ``events``, or the oracle, ``simpy``, which has no ``adapt``.

    Raises
    ------
    InputError
        A network, arrivals or changes that cannot be.

    Examples
    --------
    One server takes 10 µs for one request and 14 for two, and waits for two up to 5 µs:

    >>> import numpy as np
    >>> from simulator.engine.network import CENTRAL, Route, Station, Step, servers
    >>> station = Station(CENTRAL, (0,), np.array([[0, 10, 14]]), max_batch=2, timeout_us=5)
    >>> network = Network(servers([0]), (station,), (Route("net", (Step(0),)),))
    >>> simulate_network(network, [np.array([0, 2, 3])]).done_us.tolist()
    [16, 16, 26]
    """
    if engine not in get_args(NetworkEngine):
        raise InputError(f"unknown engine {engine!r}; choose one of {', '.join(get_args(NetworkEngine))}")
    conditions = conditions or Conditions()
    arrivals = [checked_arrivals(one) for one in arrivals_us]
    if engine == "simpy":
        if adapt is not None:
            raise InputError("adaptation needs the events engine, got simpy")
        from simulator.engine.oracle import run_oracle  # SimPy

        return run_oracle(network, arrivals, conditions, tuple(changes))
    run = Run(network, arrivals, conditions)
    for change in changes:
        run.change(change)
    if adapt is not None:
        if not isinstance(every_us, Integral) or every_us <= 0:
            raise InputError(f"adaptation: every_us: expected a whole number of µs above 0, got {every_us}")
        last_us = max(int(one[-1]) for one in arrivals)
        for at_us in range(every_us, last_us + 1, every_us):
            run.at(at_us, partial(_ask, run, adapt))
    run.to_the_end()
    records = network_records(run.state)
    check_network_accounts(records, run.state.server["busy_us"])
    return records


def _ask(run: Run, adapt: Adapt) -> None:
    for change in adapt(run.observe()) or ():
        run.change(change)
