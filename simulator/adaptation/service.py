"""What is adapted: tasks with variants, a central queue each, as a network of stations (IPA, JSys 2024, section 3)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal, get_args

import numpy as np

from planner.model import InputError
from planner.model.applications import AccuracyRule, combined_accuracy
from simulator.dispatch.system import Ints
from simulator.engine.network import (
    BY_SLACK,
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

Placement = Literal["round robin", "idle first", "by slack"]
PLACEMENTS: dict[Placement, int] = {"round robin": ROUND_ROBIN, "idle first": IDLE_FIRST, "by slack": BY_SLACK}
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

    def takes_s(self, batch: int) -> float:
        """Return the time for a batch (s): linear between known sizes, the ends beyond them.

        >>> Variant("m", 50.0, 1, {1: 0.125, 5: 0.625}).takes_s(3)
        0.375
        """
        known = sorted(self.batch_s)
        return float(np.interp(batch, known, [self.batch_s[size] for size in known]))


@dataclass(frozen=True)
class ServedTask:
    """A task, and the variants that may do it."""

    name: str
    variants: tuple[Variant, ...]


@dataclass(frozen=True)
class Setting:
    """What a task runs: replicas of its variants, ``replicas[variant]`` (none beyond), and the largest batch."""

    replicas: tuple[int, ...]
    batch: int

    def __post_init__(self) -> None:
        """Leave out what is not run, so that equal settings are equal."""
        used = max((number + 1 for number, count in enumerate(self.replicas) if count), default=0)
        object.__setattr__(self, "replicas", self.replicas[:used])

    @property
    def variant(self) -> int:
        """The variant that runs; of several the last, which is the most accurate where they are in that order."""
        return len(self.replicas) - 1


def running(variant: int, batch: int, replicas: int) -> Setting:
    """Return the setting of one variant, by its number.

    >>> running(1, 4, 3)
    Setting(replicas=(0, 3), batch=4)
    """
    return Setting((0,) * variant + (replicas,), batch)


def loading(before: Setting, after: Setting) -> tuple[int, ...]:
    """Return how many replicas of each variant have to load for another setting; those there already go on.

    >>> loading(Setting((2, 1), 4), Setting((1, 3), 1))
    (0, 2)
    """
    pairs = zip_longest(before.replicas, after.replicas, fillvalue=0)
    return tuple(max(0, wanted - there) for there, wanted in pairs)


Configuration = tuple[Setting, ...]  # a setting per task


@dataclass(frozen=True)
class Service:
    """A chain of tasks and the rules of its queues.

    A batch leaves a task's queue when it is full or its first request has waited ``timeout_s``. Requests of at least
    ``drop_age_s`` since their arrival are dropped before and after each task; None is never. A task has at most
    ``most_replicas``. ``rule`` combines the accuracies of the tasks.

    Where a task runs several variants side by side, ``placement`` *by slack* gives each batch the most accurate one
    that ends in time for its oldest request, ``answer_by_s`` being divided over the tasks in proportion to the time
    that a request takes there (equal flexibility: Kao and Garcia-Molina, ICDCS 1993); variants are then listed by
    accuracy.
    """

    tasks: tuple[ServedTask, ...]
    timeout_s: float = 1.0
    drop_age_s: float | None = None
    placement: Placement = "round robin"
    most_replicas: int = 100
    rule: AccuracyRule = "multiply"
    answer_by_s: float | None = None

    def __post_init__(self) -> None:
        """Refuse services of nothing and rules that there are not."""
        if not self.tasks or not all(task.variants for task in self.tasks):
            raise InputError("service: expected at least one task, each with at least one variant")
        if self.placement not in PLACEMENTS:
            raise InputError(f"placement: expected one of {list(get_args(Placement))}, got {self.placement!r}")
        if self.placement == "by slack":
            if self.answer_by_s is None or not self.answer_by_s > 0:
                raise InputError(f"placement by slack: expected answer_by_s above 0 s, got {self.answer_by_s}")
            for task in self.tasks:
                accuracies = [variant.accuracy for variant in task.variants]
                if accuracies != sorted(accuracies):
                    raise InputError(
                        f"placement by slack: task {task.name}: expected variants from the least to the most accurate, "
                        f"got {[(variant.name, variant.accuracy) for variant in task.variants]}"
                    )

    def check(self, configuration: Configuration) -> None:
        """Raise InputError where a configuration is none of this service."""
        if len(configuration) != len(self.tasks):
            raise InputError(
                f"configuration: expected a setting per task ({len(self.tasks)}), got {len(configuration)}"
            )
        for task, setting in zip(self.tasks, configuration, strict=True):
            where = f"configuration: task {task.name}"
            if len(setting.replicas) > len(task.variants):
                raise InputError(
                    f"{where}: expected variants of 0 to {len(task.variants) - 1}, got {len(setting.replicas) - 1}"
                )
            known = [max(task.variants[number].batch_s) for number, count in enumerate(setting.replicas) if count]
            if not 1 <= setting.batch <= min(known, default=0):
                raise InputError(f"{where}: expected a batch of 1 to {min(known, default=0)}, got {setting.batch}")
            if min(setting.replicas) < 0 or not 1 <= sum(setting.replicas) <= self.most_replicas:
                raise InputError(f"{where}: expected 1 to {self.most_replicas} replicas, got {list(setting.replicas)}")

    def cores(self, configuration: Configuration) -> int:
        """Return the cores that a configuration takes."""
        return sum(
            count * variant.cores
            for task, setting in zip(self.tasks, configuration, strict=True)
            for variant, count in zip(task.variants, setting.replicas, strict=False)
        )

    def loading_cores(self, task: int, before: Setting, after: Setting) -> int:
        """Return the cores of a task's replicas that load while what was there still serves."""
        pairs = zip(loading(before, after), self.tasks[task].variants, strict=False)
        return sum(count * variant.cores for count, variant in pairs)

    def capacity_rps(self, configuration: Configuration) -> float:
        """Return the requests/s that the slowest task of a configuration sustains."""
        return min(sum(_shares_rps(task, setting)) for task, setting in zip(self.tasks, configuration, strict=True))

    def accuracy(self, configuration: Configuration) -> float:
        """Return the accuracy (percent) of a configuration at full load, variants side by side by what they sustain."""
        means = []
        for task, setting in zip(self.tasks, configuration, strict=True):
            shares_rps = _shares_rps(task, setting)
            served = sum(rps * one.accuracy for rps, one in zip(shares_rps, task.variants, strict=False))
            means.append(served / sum(shares_rps))
        return combined_accuracy(means, self.rule)

    def network(self, configuration: Configuration) -> Network:
        """Return the stations, servers and route of a service that starts with a configuration."""
        self.check(configuration)
        each = SPARES * self.most_replicas
        stations = tuple(self._station(number, setting) for number, setting in enumerate(configuration))
        running = [
            [number for number, count in enumerate(setting.replicas) for _ in range(count)] for setting in configuration
        ]
        kinds = [kind for own in running for kind in [*own, *[0] * (each - len(own))]]
        on = [place < len(own) for own in running for place in range(each)]
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
            end_by_us=self._end_by_us(number),
        )

    def _end_by_us(self, number: int) -> int:
        """Return the age by which a task should have served a request."""
        if self.answer_by_s is None:
            return NO_LIMIT_US
        takes_s = [
            sum(one.batch_s[min(one.batch_s)] for one in task.variants) / len(task.variants) for task in self.tasks
        ]
        return round(self.answer_by_s * sum(takes_s[: number + 1]) / sum(takes_s) * 1e6)

    def changes(self, old: Configuration, new: Configuration, at_us: int, ready_us: Sequence[int]) -> list[Change]:
        """Return what the engine is to do to get from one configuration to another, each task at its ``ready_us``."""
        self.check(new)
        return [
            Change(at_us, number, setting.replicas, setting.batch, ready_us[number])
            for number, (before, setting) in enumerate(zip(old, new, strict=True))
            if before != setting
        ]


def _shares_rps(task: ServedTask, setting: Setting) -> list[float]:
    """Return what the replicas of each variant sustain."""
    return [
        count * setting.batch / one.takes_s(setting.batch)
        for one, count in zip(task.variants, setting.replicas, strict=False)
    ]


def batch_latencies_us(variant: Variant, largest: int) -> Ints:
    """Return ``[batch]`` latencies (µs) for 0 to ``largest``.

    >>> batch_latencies_us(Variant("m", 50.0, 1, {1: 0.1, 4: 0.4}), 5).tolist()
    [100000, 100000, 200000, 300000, 400000, 400000]
    """
    return np.array([round(variant.takes_s(batch) * 1e6) for batch in range(largest + 1)])
