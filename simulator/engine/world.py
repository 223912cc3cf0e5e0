"""What goes differently from the plan: options of a simulation, all off by default, all seeded.

Times are µs of simulated time. Plans are numbered in the order in which they take over, the first is 0. Every source of
randomness, every server and every unit that may fail has a stream of its own that follows from ``seed``, so that
switching one on leaves the others as they were, and what happens up to a time does not depend on how long a run is.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain
from typing import Annotated, Literal

import numpy as np
from annotated_types import Ge, Gt, Le
from numpy.typing import NDArray

from planner.model import InputError
from planner.model.cluster import Count
from planner.model.record import record
from simulator.dispatch.system import Pools, System

LATEST_US = 10**15  # thirty years, so that sums of a few times are numbers of 64 bits
LARGEST_SPREAD, LARGEST_FACTOR = 3.0, 1e6

Unit = Literal["slice", "device", "server"]
TimeUs = Annotated[int, Ge(0), Le(LATEST_US)]
MeanUs = Annotated[float, Gt(0), Le(LATEST_US)]
Replan = Callable[[float, float], System | None]


@record
class Failure:
    """A unit of a stage's pool that stops at ``at_us`` and is back ``repair_us`` later.

    ``index`` counts the units of the pool, ``pipeline`` the pipelines of the DNN, ``plan`` the plans that take over.
    A device or server takes all slices of its plan that lie on it, those of other stages and DNNs of the run included,
    where the plan says where they lie (`System.number`); else so many consecutive slices of the pool.
    """

    unit: Unit
    pipeline: Count
    stage: Count
    index: Count
    at_us: TimeUs
    repair_us: Annotated[int, Gt(0), Le(LATEST_US)]
    plan: Count = 0


@record
class FailureRate:
    """Units that fail independently: exponential times of mean ``between_us`` up and ``repair_us`` down."""

    unit: Unit
    between_us: MeanUs
    repair_us: MeanUs


@record
class Degradation:
    """A time in which transfers that begin take ``factor`` times as long."""

    from_us: TimeUs
    until_us: TimeUs
    factor: Annotated[float, Gt(0), Le(LARGEST_FACTOR)]


@dataclass(frozen=True)
class Switch:
    """A plan that takes over at a time: the old one's devices drain, load the new models, and go on.

    ``pools`` are those that its stages share with other DNNs whose plans take over then (`simulate`).
    """

    at_us: int
    system: System
    pools: Pools = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class World:
    """Everything that can go differently.

    Attributes
    ----------
    spread
        Standard deviation of the logarithm of service times around the planned ones (which are the median): one for
        all stages, or "profile" for each stage's own as the profile measured it.
    factors
        Measured over planned service times, drawn from with replacement, in place of ``spread``.
    failures, failure_rate
        What stops when; a rate is for the units of every plan while the run lasts. A batch on a unit that stops is
        retried once where its deadline allows, else lost.
    load_us
        Time to load a model: on every slice at the start, after a repair and after a switch.
    switches
        Plans that take over.
    replan, replan_every_us
        Called with the time (s) and the rate observed since the last call (requests/s); returns the system that takes
        over now, or None.
    degradations
        Slower networks.
    """

    seed: int = 0
    spread: float | str = 0.0
    factors: tuple[float, ...] = ()
    failures: tuple[Failure, ...] = ()
    failure_rate: FailureRate | None = None
    load_us: int = 0
    switches: tuple[Switch, ...] = ()
    replan: Replan | None = None
    replan_every_us: int = 0
    degradations: tuple[Degradation, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.spread != "profile" and (isinstance(self.spread, str) or not 0 <= self.spread <= LARGEST_SPREAD):
            raise InputError(
                f'world: spread: expected "profile" or a number from 0 to {LARGEST_SPREAD:g} (of the logarithm), got '
                f"{self.spread!r}"
            )
        if self.factors and (self.spread or not 0 < min(self.factors) <= max(self.factors) <= LARGEST_FACTOR):
            raise InputError(
                f"world: factors: expected numbers above 0, to {LARGEST_FACTOR:g}, and no spread beside them"
            )
        if not 0 <= self.load_us <= LATEST_US:
            raise InputError(f"world: load_us: expected a time from 0 to {LATEST_US:g} µs, got {self.load_us}")
        if self.replan is not None and self.replan_every_us <= 0:
            raise InputError(f"world: replan_every_us: expected a time above 0 µs, got {self.replan_every_us}")
        for part in self.degradations:
            if part.factor <= 0 or part.until_us <= part.from_us:
                got = f"{part.from_us}, {part.until_us} and {part.factor:g}"
                raise InputError(f"world: degradations: expected from_us < until_us and a factor above 0, got {got}")
        if [one.at_us for one in self.switches] != sorted({one.at_us for one in self.switches}):
            raise InputError("world: switches: expected increasing times")

    def failure_generator(self) -> np.random.Generator:
        """Return the generator of failures; service times have streams of their own (`simulator.engine.streams`)."""
        return np.random.default_rng(self.seed).spawn(2)[1]

    def check(self, system: System) -> None:
        """Raise InputError if a plan that takes over is for another service, or has no such unit as is to fail."""
        systems = [system, *(switch.system for switch in self.switches)]
        for other in systems[1:]:
            require_same_service(system, other)
        for failure in self.failures:
            if failure.plan < len(systems):
                slices_of(systems[failure.plan], failure)
            if failure.plan and self.replan is None:
                require_in_charge(failure, [switch.at_us for switch in self.switches])


def require_same_service(system: System, other: System) -> None:
    """Raise InputError unless two systems serve the same DNN with the same SLO on the same types of devices."""
    for name in ("dnn", "slo_us", "device_types"):
        if getattr(system, name) != getattr(other, name):
            raise InputError(
                f"world: a plan that takes over has another {name}: expected {getattr(system, name)}, "
                f"got {getattr(other, name)}"
            )


def require_no_takeovers(world: World) -> None:
    """Raise InputError if plans take over in a world for requests that follow routes."""
    if world.switches or world.replan is not None:
        raise InputError(
            "policy latest-start: a request stands in front of a slice from when it comes, so that there is no queue "
            "which another plan could take over; choose another policy, or a world without switches"
        )


def require_in_charge(failure: Failure, switched_us: list[int]) -> None:
    """Raise InputError unless a failure's plan has taken over by then."""
    if sum(at_us <= failure.at_us for at_us in switched_us) < failure.plan:
        raise InputError(
            f"world: failures: plan {failure.plan} has not taken over at {failure.at_us} µs; plans are numbered from 0 "
            "in the order in which they take over"
        )


def slices_of(system: System, failure: Failure) -> tuple[int, ...]:
    """Return the slices of the pool that are on the unit that fails; raises InputError if the pool has no such unit."""
    p, s = failure.pipeline, failure.stage
    units = units_of(system, failure.unit, p, s)
    if failure.index >= len(units):
        raise InputError(
            f"world: failures: stage {s} of pipeline {p} has no {failure.unit} {failure.index}; it has "
            f"{sum(map(len, units))} slices on {len(units)} of them, from 0"
        )
    return units[failure.index]


def units_of(system: System, unit: Unit, pipeline: int, stage: int) -> list[tuple[int, ...]]:
    """Return the units of a pool, by number, each as its slices."""
    if pipeline >= len(system.stages) or stage >= int(system.stages[pipeline]):
        return []
    number = unit_numbers(system, unit, pipeline, stage)
    order = np.argsort(number, kind="stable")
    begins = np.flatnonzero(np.diff(number[order])) + 1
    return [tuple(part.tolist()) for part in np.split(order, begins)]


def unit_numbers(system: System, unit: Unit, pipeline: int, stage: int) -> NDArray[np.int64]:
    """Return ``[slice]``, which unit each slice of a pool is on: where the plan places it, else so many on each."""
    slices = np.arange(int(system.slices[pipeline, stage]))
    share, per_server = int(system.share[pipeline, stage]), int(system.server_slices[pipeline, stage])
    if unit == "slice":
        return slices
    if system.number is None:
        return slices // (share if unit == "device" else per_server)
    devices: NDArray[np.int64] = system.number[pipeline, stage, : len(slices)]
    return devices if unit == "device" else devices // max(1, per_server // share)


def drawn_failures(
    system: System,
    rate: FailureRate,
    plan: int,
    from_us: int,
    until_us: int,
    rng: np.random.Generator,
    drawn: set[tuple[str, int]] | None = None,
) -> list[Failure]:
    """Return the failures of all units of a plan in a time; each unit's are drawn by a generator of its own.

    ``drawn`` holds the devices or servers (type, number) for which they have been drawn; those of this plan are added,
    where it is known which they are.
    """
    drawn = set() if drawn is None else drawn
    found = []
    for p, stages in enumerate(system.stages.tolist()):
        for s in range(stages):
            units = units_of(system, rate.unit, p, s)
            numbers = unit_numbers(system, rate.unit, p, s)
            for index, own in enumerate(rng.spawn(len(units))):
                if rate.unit != "slice" and system.number is not None:
                    one = system.device_types[int(system.device[p, s])], int(numbers[units[index][0]])
                    if one in drawn:
                        continue
                    drawn.add(one)
                at_us = from_us + own.exponential(rate.between_us)
                while at_us < until_us:
                    repair_us = int(own.exponential(rate.repair_us)) + 1
                    found.append(Failure(rate.unit, p, s, index, int(at_us), repair_us, plan))
                    at_us += repair_us + own.exponential(rate.between_us)
    return found


def combined(systems: list[System]) -> System:
    """Return all pipelines in one system, for the records of a run in which plans took over from each other."""
    if len(systems) == 1:
        return systems[0]
    stages = max(system.max_stages for system in systems)
    batches = max(system.latency_us.shape[2] for system in systems)

    def stacked(name: str, fill: int = 0) -> NDArray[np.int64]:
        parts = []
        for system in systems:
            part = getattr(system, name)
            margins = [(0, 0), (0, stages - part.shape[1])]
            if part.ndim == 3:
                margins.append((0, batches - part.shape[2]))
            parts.append(np.pad(part, margins, constant_values=fill))
        return np.concatenate(parts)

    tables = ("latency_us", "transfer_us", "hop_us", "later_us", "slices", "card_slices", "server_slices", "share")
    first = systems[0]
    return System(
        dnn=first.dnn,
        slo_us=first.slo_us,
        stages=np.concatenate([system.stages for system in systems]),
        batch=np.concatenate([system.batch for system in systems]),
        device=stacked("device", -1),
        device_types=first.device_types,
        devices=tuple(np.max([system.devices for system in systems], axis=0).tolist()),
        prices_per_hour=first.prices_per_hour,
        watts=first.watts,
        spread=None,
        variants=tuple(chain.from_iterable(system.variants for system in systems)),
        accuracies=tuple(chain.from_iterable(system.accuracies for system in systems)),
        **{name: stacked(name) for name in tables},
    )
