"""What is adapted: tasks with variants, a central queue each, as a network of stations (IPA, JSys 2024, section 3)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from planner.model import InputError
from planner.model.applications import AccuracyRule
from simulator.dispatch.system import Ints
from simulator.engine.network import (
    CENTRAL,
    IDLE_FIRST,
    NO_LIMIT_US,
    ROUND_ROBIN,
    Change,
    Network,
    Route,
    Station,
    Step,
    servers,
)

Placement = Literal["round robin", "idle first"]
PLACEMENTS: dict[Placement, int] = {"round robin": ROUND_ROBIN, "idle first": IDLE_FIRST}
SPARES = 3  # servers of a task per replica that it may have: in use, loading, and draining


@dataclass(frozen=True)
class Variant:
    """A model that does a task: accuracy (percent), cores of a replica, seconds that it takes for a batch, by size."""

    name: str
    accuracy: float
    cores: int
    batch_s: Mapping[int, float]

    def __post_init__(self) -> None:
        """Refuse accuracies out of their scale, and times that are none."""
        if not 0 <= self.accuracy <= 100:
            raise InputError(f"accuracy of {self.name}: expected percent in [0, 100], got {self.accuracy}")
        if not self.batch_s or min(self.batch_s) < 1 or not min(self.batch_s.values()) > 0:
            raise InputError(
                f"variant {self.name}: expected batch sizes of at least 1 and times above 0 s, got {dict(self.batch_s)}"
            )


@dataclass(frozen=True)
class ServedTask:
    """A task, and the variants that may do it."""

    name: str
    variants: tuple[Variant, ...]


@dataclass(frozen=True)
class Setting:
    """What a task runs: the number of its variant, the largest batch, the number of replicas."""

    variant: int
    batch: int
    replicas: int


Configuration = tuple[Setting, ...]  # a setting per task


@dataclass(frozen=True)
class Service:
    """A chain of tasks and the rules of its queues.

    A batch leaves a task's queue when it is full or its first request has waited ``timeout_s``. Requests of at least
    ``drop_age_s`` since their arrival are dropped before and after each task; None is never. A task has at most
    ``most_replicas``. ``rule`` combines the accuracies of the tasks.
    """

    tasks: tuple[ServedTask, ...]
    timeout_s: float = 1.0
    drop_age_s: float | None = None
    placement: Placement = "round robin"
    most_replicas: int = 100
    rule: AccuracyRule = "multiply"

    def __post_init__(self) -> None:
        """Refuse services of nothing and rules that there are not."""
        if not self.tasks or not all(task.variants for task in self.tasks):
            raise InputError("service: expected at least one task, each with at least one variant")
        if self.placement not in PLACEMENTS:
            raise InputError(f"placement: expected one of {list(get_args(Placement))}, got {self.placement!r}")

    def check(self, configuration: Configuration) -> None:
        """Raise InputError where a configuration is none of this service."""
        if len(configuration) != len(self.tasks):
            raise InputError(
                f"configuration: expected a setting per task ({len(self.tasks)}), got {len(configuration)}"
            )
        for task, setting in zip(self.tasks, configuration, strict=True):
            where = f"configuration: task {task.name}"
            if not 0 <= setting.variant < len(task.variants):
                raise InputError(f"{where}: expected a variant of 0 to {len(task.variants) - 1}, got {setting.variant}")
            known = sorted(task.variants[setting.variant].batch_s)
            if not 1 <= setting.batch <= known[-1]:
                raise InputError(f"{where}: expected a batch of 1 to {known[-1]}, got {setting.batch}")
            if not 1 <= setting.replicas <= self.most_replicas:
                raise InputError(f"{where}: expected 1 to {self.most_replicas} replicas, got {setting.replicas}")

    def cores(self, configuration: Configuration) -> int:
        """Return the cores that a configuration takes."""
        pairs = zip(self.tasks, configuration, strict=True)
        return sum(setting.replicas * task.variants[setting.variant].cores for task, setting in pairs)

    def network(self, configuration: Configuration) -> Network:
        """Return the stations, servers and route of a service that starts with a configuration."""
        self.check(configuration)
        each = SPARES * self.most_replicas
        stations = tuple(self._station(number, setting) for number, setting in enumerate(configuration))
        kinds = [setting.variant for setting in configuration for _ in range(each)]
        on = [place < setting.replicas for setting in configuration for place in range(each)]
        last = len(self.tasks) - 1
        steps = tuple(Step(number, (number + 1,) if number < last else ()) for number in range(len(self.tasks)))
        return Network(servers(kinds, on=on), stations, (Route("application", steps),))

    def _station(self, number: int, setting: Setting) -> Station:
        task, each = self.tasks[number], SPARES * self.most_replicas
        largest = max(max(variant.batch_s) for variant in task.variants)
        latency_us = np.array([batch_latencies_us(variant, largest) for variant in task.variants])
        return Station(
            CENTRAL,
            tuple(range(number * each, (number + 1) * each)),
            latency_us,
            max_batch=setting.batch,
            timeout_us=round(self.timeout_s * 1e6),
            placement=PLACEMENTS[self.placement],
            drop_age_us=NO_LIMIT_US if self.drop_age_s is None else round(self.drop_age_s * 1e6),
        )

    def changes(self, old: Configuration, new: Configuration, at_us: int, ready_us: int) -> list[Change]:
        """Return what the engine is to do to get from one configuration to another."""
        self.check(new)
        return [
            Change(at_us, number, setting.variant, setting.batch, setting.replicas, ready_us)
            for number, (before, setting) in enumerate(zip(old, new, strict=True))
            if before != setting
        ]


def batch_latencies_us(variant: Variant, largest: int) -> Ints:
    """Return ``[batch]`` latencies (µs) for 0 to ``largest``: linear between known sizes, the ends beyond them.

    >>> batch_latencies_us(Variant("m", 50.0, 1, {1: 0.1, 4: 0.4}), 5).tolist()
    [100000, 100000, 200000, 300000, 400000, 400000]
    """
    known = sorted(variant.batch_s)
    at_s: Sequence[float] = [variant.batch_s[batch] for batch in known]
    return np.rint(np.interp(np.arange(largest + 1), known, at_s) * 1e6).astype(np.int64)
