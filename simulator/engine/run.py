"""One call for both engines."""

from functools import partial
from typing import Literal, get_args

import numpy as np

from planner.model import InputError
from simulator.dispatch.frontend import POLICIES as FRONTEND_POLICIES
from simulator.dispatch.frontend import advance
from simulator.dispatch.system import Ints, System
from simulator.engine.accounts import check_accounts
from simulator.engine.disturbed import DisturbedRun
from simulator.engine.events import Run
from simulator.engine.python_policy import PythonPolicy, advance_by
from simulator.engine.replay import replay
from simulator.engine.staged import replay_stages
from simulator.engine.staged_events import StagedRun
from simulator.engine.world import World
from simulator.results.records import Records

REACTIVE = "reactive"
POLICIES = (*FRONTEND_POLICIES, REACTIVE)

EngineName = Literal["auto", "simpy", "replay"]


def simulate(
    system: System,
    arrivals_us: Ints,
    *,
    policy: str | PythonPolicy = "reservation",
    engine: EngineName = "auto",
    world: World | None = None,
) -> Records:
    """Simulate what becomes of every arrival.

    Parameters
    ----------
    system
        What serves the requests (`build_system`).
    arrivals_us
        Sorted, not negative, in µs.
    policy
        How requests are dispatched: one of `POLICIES`, or a function of `View` (`simulator.engine.python_policy`),
        which runs on the simpy engine in ``world``, or in one where all goes to plan.
    engine
        ``replay`` (compiled, two passes) and ``simpy`` (event by event) give the same records; ``auto`` takes replay
        wherever it is exact. ``records.engine`` says which ran.
    world
        What goes differently from the plan; on the simpy engine only, and not with reactive dispatch.

    Raises
    ------
    InputError
        Arrivals that are not sorted or negative, an unknown policy or engine, a world for another engine or policy.
    """
    require_runnable(policy, engine, world)
    arrivals_us = _checked(arrivals_us)
    by_events = engine == "simpy"
    if callable(policy):
        records = DisturbedRun(system, arrivals_us, partial(advance_by, policy), world or World()).records()
    elif world is not None:
        number = FRONTEND_POLICIES.index(policy)
        records = DisturbedRun(system, arrivals_us, partial(advance, number), world).records()
    elif policy == REACTIVE:
        records = StagedRun(system, arrivals_us).records() if by_events else replay_stages(system, arrivals_us)
    else:
        number = FRONTEND_POLICIES.index(policy)
        records = Run(system, arrivals_us, number).records() if by_events else replay(system, arrivals_us, number)
    check_accounts(records)
    return records


def require_runnable(policy: str | PythonPolicy, engine: str = "auto", world: World | None = None) -> None:
    """Raise InputError for an unknown policy or engine, or a world for another engine or policy."""
    if not callable(policy) and policy not in POLICIES:
        raise InputError(f"unknown policy {policy!r}; choose one of {', '.join(POLICIES)}")
    if engine not in get_args(EngineName):
        raise InputError(f"unknown engine {engine!r}; choose one of {', '.join(get_args(EngineName))}")
    if engine == "replay" and callable(policy):
        raise InputError("a policy in Python needs the simpy engine, got replay")
    if world is not None and (engine == "replay" or policy == REACTIVE):
        frontend = ", ".join(FRONTEND_POLICIES)
        raise InputError(
            f"a world needs the simpy engine and one of the policies {frontend}, got {engine} and {policy}"
        )


def _checked(arrivals_us: Ints) -> Ints:
    """Return arrivals as a contiguous int64 array, or say why they are none."""
    arrivals = np.ascontiguousarray(arrivals_us)
    if not arrivals.size:
        raise InputError("arrivals: zero requests; offer a longer time or a higher rate")
    if arrivals.ndim != 1 or not np.issubdtype(arrivals.dtype, np.integer):
        raise InputError(f"arrivals: expected one row of integer µs, got {arrivals.dtype} of shape {arrivals.shape}")
    if arrivals[0] < 0:
        raise InputError(f"arrivals: expected times from 0 µs on, got {arrivals[0]}")
    if (backwards := np.flatnonzero(arrivals[1:] < arrivals[:-1])).size:
        k = int(backwards[0])
        raise InputError(f"arrivals: not sorted: request {k + 1} at {arrivals[k + 1]} µs after {arrivals[k]} µs")
    return arrivals.astype(np.int64, copy=False)
