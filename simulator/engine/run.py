"""One call for all engines."""

from collections.abc import Sequence
from typing import Literal, get_args, overload

import numpy as np

from planner.model import InputError
from simulator.dispatch.frontend import POLICIES as FRONTEND_POLICIES
from simulator.dispatch.system import Ints, Pools, System
from simulator.engine.accounts import check_accounts
from simulator.engine.network import REACTS
from simulator.engine.python_policy import PythonPolicy
from simulator.engine.replay import replay
from simulator.engine.world import World, require_no_takeovers
from simulator.results.records import Records

REACTIVE = "reactive"
POLICIES = (*FRONTEND_POLICIES, REACTIVE)
LATEST_START = "latest-start"  # `simulator.engine.latest_start`: no frontends, but queues in front of every pool

EngineName = Literal["auto", "events", "replay", "simpy"]


@overload
def simulate(
    system: System,
    arrivals_us: Ints,
    *,
    policy: str | PythonPolicy = "reservation",
    engine: EngineName = "auto",
    world: World | None = None,
) -> Records: ...


@overload
def simulate(
    system: Sequence[System],
    arrivals_us: Sequence[Ints],
    *,
    policy: str | PythonPolicy = "reservation",
    engine: EngineName = "auto",
    world: Sequence[World] | None = None,
    pools: Sequence[Pools] | None = None,
) -> list[Records]: ...


def simulate(
    system: System | Sequence[System],
    arrivals_us: Ints | Sequence[Ints],
    *,
    policy: str | PythonPolicy = "reservation",
    engine: EngineName = "auto",
    world: World | Sequence[World] | None = None,
    pools: Sequence[Pools] | None = None,
) -> Records | list[Records]:
    """Simulate what becomes of every arrival.

    Parameters
    ----------
    system
        What serves the requests (`build_system`): of one DNN, or of several that are simulated in one run.
    arrivals_us
        Sorted, not negative, in µs; of each DNN.
    policy
        How requests are dispatched: one of `POLICIES`, ``latest-start`` (`simulator.engine.latest_start`), or a
        function of `View` (`simulator.engine.python_policy`), whose books follow what happens as in a world where all
        goes to plan.
    engine
        ``replay`` (decide everything, then play it; for frontend policies and what goes to plan), ``events`` (compiled,
        event by event) and ``simpy`` (the oracle, to be read and not to be fast) give the same records; ``auto`` takes
        replay wherever it is exact. ``records.engine`` says which ran.
    world
        What goes differently from the plan, for each DNN.
    pools
        Which pools DNNs share (`simulator.engine.plans.network_of`).

    Returns
    -------
    Records, one for each DNN where several were given.

    Raises
    ------
    InputError
        Arrivals that are not sorted or negative, an unknown policy or engine, a world or pools for another engine.

    Examples
    --------
    Two slices that take 10 µs each serve three requests:

    >>> one, zero, latency_us = np.ones((1, 1), np.int64), np.zeros((1, 1), np.int64), np.array([[[0, 10]]])
    >>> system = System("net", 100, np.array([1]), np.array([1]), latency_us, zero, zero, zero, 2 * one, one, one, one,
    ...                 zero, ("GPU",), (2.0,), (1.0,))
    >>> simulate(system, np.array([0, 1, 2])).end_us().tolist()
    [10, 11, 20]
    """
    if isinstance(system, System):
        assert world is None or isinstance(world, World)
        worlds = None if world is None else [world]
        return _simulate([system], [np.asarray(arrivals_us)], policy, engine, worlds, None)[0]
    assert not isinstance(world, World)
    arrivals = [np.asarray(one) for one in arrivals_us]
    if len(arrivals) != len(system) or (world is not None and len(world) != len(system)):
        raise InputError(f"simulate: {len(system)} systems; expected arrivals, and worlds if there are any, for each")
    return _simulate(system, arrivals, policy, engine, world, pools)


def _simulate(
    systems: Sequence[System],
    arrivals_us: Sequence[Ints],
    policy: str | PythonPolicy,
    engine: EngineName,
    worlds: Sequence[World] | None,
    pools: Sequence[Pools] | None,
) -> list[Records]:
    require_runnable(policy, engine)
    for world in worlds or ():
        require_runnable(policy, engine, world)
    arrivals_us = [checked_arrivals(one) for one in arrivals_us]
    if policy == LATEST_START:
        from simulator.engine.latest_start import simulate_latest_start

        return _checked(simulate_latest_start(systems, arrivals_us, pools, worlds, oracle=engine == "simpy"))
    as_planned = worlds is None and not callable(policy) and policy != REACTIVE and pools is None
    if engine == "replay" or (engine == "auto" and as_planned):
        if not as_planned:
            raise InputError("pools that DNNs share need the events engine, got replay")
        found = [replay(system, one, _number(policy)) for system, one in zip(systems, arrivals_us, strict=True)]
    else:
        from simulator.engine.together import simulate_together  # what is compiled for it takes a while to import

        how = policy if callable(policy) else _number(policy)
        found = simulate_together(systems, arrivals_us, how, worlds, pools, oracle=engine == "simpy")
    return _checked(found)


def _checked(found: list[Records]) -> list[Records]:
    for records in found:
        check_accounts(records)
    return found


def _number(policy: str | PythonPolicy) -> int:
    assert isinstance(policy, str)
    return REACTS if policy == REACTIVE else FRONTEND_POLICIES.index(policy)


def require_runnable(policy: str | PythonPolicy, engine: str = "auto", world: World | None = None) -> None:
    """Raise InputError for an unknown policy or engine, or a world or policy for another engine."""
    if not callable(policy) and policy not in (*POLICIES, LATEST_START):
        raise InputError(f"unknown policy {policy!r}; choose one of {', '.join((*POLICIES, LATEST_START))}")
    if engine not in get_args(EngineName):
        raise InputError(f"unknown engine {engine!r}; choose one of {', '.join(get_args(EngineName))}")
    if engine == "replay" and policy in (LATEST_START, REACTIVE):
        raise InputError(f"policy {policy} needs the events engine, got replay")
    if engine in ("replay", "simpy") and callable(policy):
        raise InputError(f"a policy in Python needs the events engine, got {engine}")
    if world is not None and engine == "replay":
        raise InputError("a world needs the events engine, got replay")
    if world is not None and policy == LATEST_START:
        require_no_takeovers(world)
    if world is not None and engine == "simpy" and world.replan is not None:
        raise InputError("a callback that replans needs the events engine, got simpy")


def checked_arrivals(arrivals_us: Ints) -> Ints:
    """Return arrivals as a contiguous int64 array that may be written, or say why they are none."""
    arrivals = np.ascontiguousarray(arrivals_us)
    if not arrivals.size:
        raise InputError("arrivals: zero requests; offer a longer time or a higher rate")
    if arrivals.ndim != 1 or not np.issubdtype(arrivals.dtype, np.integer):
        raise InputError(
            f"arrivals: expected one row of integer µs, got {arrivals.dtype} of shape {arrivals.shape}; "
            "simulator.workload.from_seconds makes them of times in seconds"
        )
    if arrivals[0] < 0:
        raise InputError(f"arrivals: expected times from 0 µs on, got {arrivals[0]}")
    if (backwards := np.flatnonzero(arrivals[1:] < arrivals[:-1])).size:
        k = int(backwards[0])
        raise InputError(f"arrivals: not sorted: request {k + 1} at {arrivals[k + 1]} µs after {arrivals[k]} µs")
    return arrivals.astype(np.int64, copy=not arrivals.flags.writeable)
