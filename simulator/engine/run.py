"""One call for both engines."""

from typing import Literal, get_args

import numpy as np

from planner.model import InputError
from simulator.dispatch.frontend import POLICIES as FRONTEND_POLICIES
from simulator.dispatch.system import Ints, System
from simulator.engine.accounts import check_accounts
from simulator.engine.disturbed import DisturbedRun
from simulator.engine.events import Run
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
    policy: str = "reservation",
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
        How requests are dispatched.
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
    arrivals_us = _checked(arrivals_us)
    if policy not in POLICIES:
        raise InputError(f"unknown policy {policy!r}; choose one of {', '.join(POLICIES)}")
    if engine not in get_args(EngineName):
        raise InputError(f"unknown engine {engine!r}; choose one of {', '.join(get_args(EngineName))}")
    by_events = engine == "simpy"
    if world is not None:
        if engine == "replay" or policy == REACTIVE:
            raise InputError(f"a world needs the simpy engine and a policy of the frontend, got {engine} and {policy}")
        records = DisturbedRun(system, arrivals_us, FRONTEND_POLICIES.index(policy), world).records()
    elif policy == REACTIVE:
        records = StagedRun(system, arrivals_us).records() if by_events else replay_stages(system, arrivals_us)
    else:
        number = FRONTEND_POLICIES.index(policy)
        records = Run(system, arrivals_us, number).records() if by_events else replay(system, arrivals_us, number)
    check_accounts(records)
    return records


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
