"""What goes differently from the plan: options of a simulation, all off by default, all seeded.

Times are µs of simulated time. Each source of randomness has a generator of its own, spawned from ``seed``, so that
switching one on leaves the others as they were.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, log, sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from planner.model import InputError, Plan, Problem
from simulator.dispatch.system import System

Unit = Literal["slice", "device", "server"]
Replan = Callable[[float, float], System | None]


@dataclass(frozen=True)
class Failure:
    """A unit of a stage's pool that stops at ``at_us`` and is back ``repair_us`` later; ``index`` counts units."""

    unit: Unit
    pipeline: int
    stage: int
    index: int
    at_us: int
    repair_us: int


@dataclass(frozen=True)
class FailureRate:
    """Units that fail independently: exponential times of mean ``between_us`` up and ``repair_us`` down."""

    unit: Unit
    between_us: float
    repair_us: float


@dataclass(frozen=True)
class Degradation:
    """A time in which transfers that begin take ``factor`` times as long."""

    from_us: int
    until_us: int
    factor: float


@dataclass(frozen=True)
class Switch:
    """A plan that takes over at a time: the old one's devices drain, load the new models, and go on."""

    at_us: int
    system: System


@dataclass(frozen=True, eq=False)
class World:
    """Everything that can go differently.

    Attributes
    ----------
    spread
        Standard deviation of the logarithm of service times around the planned ones (which are the median): for all
        stages, or ``[pipeline, stage]`` (`stage_spread` takes it from a profile).
    factors
        Measured over planned service times, drawn from with replacement, in place of ``spread``.
    failures, failure_rate
        What stops when. A batch on it is retried once where its deadline allows, else lost.
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
    spread: float | NDArray[np.float64] = 0.0
    factors: NDArray[np.float64] | None = None
    failures: tuple[Failure, ...] = ()
    failure_rate: FailureRate | None = None
    load_us: int = 0
    switches: tuple[Switch, ...] = ()
    replan: Replan | None = None
    replan_every_us: int = 0
    degradations: tuple[Degradation, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if np.min(self.spread) < 0 or (self.factors is not None and np.min(self.factors) <= 0):
            raise InputError("world: expected a spread of at least 0 and factors above 0")
        if self.replan is not None and self.replan_every_us <= 0:
            raise InputError(f"world: replan_every_us: expected a time above 0 µs, got {self.replan_every_us}")
        if any(part.factor <= 0 for part in self.degradations):
            raise InputError("world: degradations: expected factors above 0")

    def generators(self) -> tuple[np.random.Generator, np.random.Generator]:
        """Return the generators of service times and of failures."""
        service, failing = np.random.default_rng(self.seed).spawn(2)
        return service, failing


def stage_spread(problem: Problem, plan: Plan, dnn_name: str) -> NDArray[np.float64]:
    """Return ``[pipeline, stage]`` spreads of service times at the planned batch, from the profile's.

    Blocks vary independently: with latencies l_i and spreads s_i the stage's is
    ``sqrt(log(1 + sum(l_i² · (exp(s_i²) - 1)) / sum(l_i)²))``; 0 where the profile was not measured.
    """
    pipelines = plan.of(dnn_name)
    spread = np.zeros((len(pipelines), max(len(pipeline.stages) for pipeline in pipelines)))
    for p, pipeline in enumerate(pipelines):
        profile = problem.dnn(dnn_name).variant(pipeline.variant)
        for s, stage in enumerate(pipeline.stages):
            table = profile.table(stage.device, stage.share)
            if table.spread is None:
                continue
            blocks = slice(stage.first_block, stage.last_block)
            latency_us = table.block_latency_us(stage.batch)[blocks]
            nearest = next(i for i, batch in enumerate(table.batches) if batch >= stage.batch)
            variance = sum(
                mean**2 * (exp(sigma**2) - 1)
                for mean, sigma in zip(latency_us, table.spread[nearest][blocks], strict=True)
            )
            spread[p, s] = sqrt(log(1 + variance / sum(latency_us) ** 2))
    return spread


def slices_of(system: System, unit: Unit, pipeline: int, stage: int, index: int) -> range:
    """Return the slices of a unit; raises InputError if the pool has no such unit."""
    slices = int(system.slices[pipeline, stage]) if pipeline < len(system.stages) and stage < system.max_stages else 0
    width = unit_size(system, unit, pipeline, stage) if slices else 1
    if not 0 <= index * width < slices:
        raise InputError(f"world: stage {stage} of pipeline {pipeline} has no {unit} {index}; it has {slices} slices")
    return range(index * width, min((index + 1) * width, slices))


def unit_size(system: System, unit: Unit, pipeline: int, stage: int) -> int:
    """Return how many slices fail together."""
    sizes = {"slice": 1, "device": system.share[pipeline, stage], "server": system.server_slices[pipeline, stage]}
    return int(sizes[unit])


def drawn_failures(system: System, rate: FailureRate, end_us: int, rng: np.random.Generator) -> list[Failure]:
    """Return the failures of all units up to a time."""
    found = []
    for p, stages in enumerate(system.stages.tolist()):
        for s in range(stages):
            for index in range(-(-int(system.slices[p, s]) // unit_size(system, rate.unit, p, s))):
                at_us = rng.exponential(rate.between_us)
                while at_us < end_us:
                    repair_us = rng.exponential(rate.repair_us)
                    found.append(Failure(rate.unit, p, s, index, int(at_us), int(repair_us) + 1))
                    at_us += repair_us + rng.exponential(rate.between_us)
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
        **{name: stacked(name) for name in tables},
    )
