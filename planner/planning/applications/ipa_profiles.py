"""From IPA's profiles to its programme's inputs: task SLAs, base cores, fitted profiles (JSys 2024, sections 4.1, 4.3).

A profile is a set of points: a variant on so many cores runs a batch in a latency, and sustains a throughput.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from planner.model import InputError
from planner.planning.applications.accuracy import ranked
from planner.planning.applications.ipa import Ipa, Option, Weights

Cores = int

INPUTS = (
    "profile_set", "only_measured_profiles", "sla_factor", "threshold_rps", "normalize_accuracy", "baseline_mode",
    "batching_cap", "arrival_rate_rps", "accuracy_method", "alpha", "beta", "gamma", "scaling_cap", "active_variant",
    "initial_replicas",
)  # fmt: skip


@dataclass(frozen=True)
class Point:
    """A measurement of a variant: the 99th percentile of latency (s) and the throughput (requests/s) of one replica."""

    variant: str
    accuracy: float
    cores: Cores
    batch: int
    latency_s: float
    throughput_rps: float


@dataclass(frozen=True)
class TaskProfile:
    """The points of one task, in any order; each (variant, cores, batch) at most once."""

    name: str
    points: tuple[Point, ...]

    def __post_init__(self) -> None:
        """Refuse a task without points, points met twice, and numbers that are none."""
        seen = set()
        for point in self.points:
            key = point.variant, point.cores, point.batch
            where = f"task {self.name}: variant {point.variant}, {point.cores} cores, batch {point.batch}"
            if key in seen:
                raise InputError(f"{where}: two points; keep one")
            if not (point.latency_s > 0 and point.throughput_rps > 0):
                raise InputError(
                    f"{where}: expected a latency and a throughput above 0, "
                    f"got {point.latency_s} s and {point.throughput_rps} requests/s"
                )
            seen.add(key)
        if not self.points:
            raise InputError(f"task {self.name} has no profile points; profile at least one variant")

    @property
    def accuracies(self) -> dict[str, float]:
        """The accuracy of each variant, in order of appearance."""
        return {point.variant: point.accuracy for point in self.points}

    @property
    def core_levels(self) -> list[Cores]:
        """The numbers of cores that were profiled, increasing."""
        return sorted({point.cores for point in self.points})

    def of(self, variant: str, cores: Cores) -> list[Point]:
        """Return the points of a variant on so many cores, by batch."""
        found = (point for point in self.points if point.variant == variant and point.cores == cores)
        return sorted(found, key=lambda point: point.batch)


def task_profiles(points: Iterable[Mapping[str, Any]]) -> list[TaskProfile]:
    """Return the profiles of an application's tasks, in order of appearance, from points as the reference keeps them.

    A point has ``task``, ``variant``, ``accuracy``, ``cpu``, ``batch``, ``latency_s`` and ``throughput_rps``.
    """
    tasks: defaultdict[str, list[Point]] = defaultdict(list)
    for row in points:
        names = "variant", "accuracy", "cpu", "batch", "latency_s", "throughput_rps"
        tasks[row["task"]].append(Point(*(row[name] for name in names)))
    return [TaskProfile(task, tuple(own)) for task, own in tasks.items()]


def task_sla_s(profile: TaskProfile, sla_factor: float) -> float:
    """Return a task's SLA (s): 5 · factor · the mean over variants of the latency at batch 1 on the most cores.

    Deviation of the reference's code from its paper, which says 5 times at base cores.
    """
    most = profile.core_levels[-1]
    latencies_s = [profile.of(variant, most)[0].latency_s for variant in profile.accuracies]
    return 5 * sla_factor * sum(latencies_s) / len(latencies_s)


def base_cores(
    profile: TaskProfile, threshold_rps: float, sla_s: float, counted: int | None = None
) -> dict[str, Cores]:
    """Return the cores of one replica of each variant, by the reference's rule.

    Per variant and level of cores count the batches that reach the threshold within the SLA. Variants are walked by
    increasing accuracy with one pointer into the levels that never goes back: for every variant but the first it goes
    up once if the next level counts more than this one; then, while the count is 0, it goes up.

    Parameters
    ----------
    threshold_rps, sla_s
        What a batch size must reach to count: throughput at least, latency at most.
    counted
        How many batch sizes are looked at, from the smallest; None is all.

    Raises
    ------
    InputError
        A variant reaches the threshold on no level.
    """
    levels = profile.core_levels
    pointer = 0
    chosen = {}
    for number, (variant, _) in enumerate(sorted(profile.accuracies.items(), key=lambda entry: entry[1])):
        counts = [
            sum(
                p.throughput_rps >= threshold_rps and p.latency_s <= sla_s for p in profile.of(variant, level)[:counted]
            )
            for level in levels
        ]
        if number and pointer + 1 < len(levels) and counts[pointer + 1] > counts[pointer]:
            pointer += 1
        while counts[pointer] == 0:
            pointer += 1
            if pointer == len(levels):
                raise InputError(
                    f"task {profile.name}: variant {variant} reaches {threshold_rps:g} requests/s within {sla_s:.3g} s "
                    f"on none of {levels} cores; lower the threshold, raise the SLA, or leave the variant out"
                )
            if pointer + 1 < len(levels) and counts[pointer + 1] > counts[pointer]:
                pointer += 1
        chosen[variant] = levels[pointer]
    return {variant: chosen[variant] for variant in profile.accuracies}


def fitted(profile: TaskProfile) -> TaskProfile:
    """Return the profile with latencies fitted over the batch, at batches 1, 2, 4, ... of the measured range.

    Per variant and cores: a polynomial of degree 2, or a line where that gets negative, through the measured latencies;
    the throughput is batch / latency.
    """
    measured: defaultdict[tuple[str, Cores], list[Point]] = defaultdict(list)
    for point in profile.points:
        measured[point.variant, point.cores].append(point)
    points = [fit for group in measured.values() for fit in _fit(group)]
    return TaskProfile(profile.name, tuple(points))


def _fit(group: Sequence[Point]) -> list[Point]:
    batches = np.array([point.batch for point in group], dtype=float)
    latencies_s = np.array([point.latency_s for point in group])
    every = np.arange(batches.min(), batches.max() + 1)
    for degree in (min(2, len(group) - 1), min(1, len(group) - 1)):
        fit_s = np.polyval(np.polyfit(batches, latencies_s, degree), every)
        if (fit_s > 0).all():
            break
    else:
        first = group[0]
        raise InputError(
            f"latencies of {first.variant} on {first.cores} cores fall so steeply with the batch that no "
            "line through them stays positive; measure them again"
        )
    first = group[0]
    found = []
    position = 1
    while position <= len(every):
        batch, latency_s = int(every[position - 1]), float(fit_s[position - 1])
        found.append(Point(first.variant, first.accuracy, first.cores, batch, latency_s, batch / latency_s))
        position *= 2
    return found


def scaled(accuracies: Mapping[str, float]) -> dict[str, float]:
    """Return accuracies in percent as fractions; raises InputError where one is outside [0, 100]."""
    for name, accuracy in accuracies.items():
        if not 0 <= accuracy <= 100:
            raise InputError(f"accuracy of {name}: expected percent in [0, 100], got {accuracy}")
    return {name: accuracy / 100 for name, accuracy in accuracies.items()}


def programme_of(inputs: Mapping[str, Any], profiles: Mapping[str, Sequence[TaskProfile]]) -> Ipa:
    """Return the programme of a case by the reference's rules for SLAs, base cores and baselines.

    ``inputs`` are named as the reference's (`INPUTS`); baseline_mode *scale* fixes active_variant, *switch*
    initial_replicas. ``profiles[profile_set]`` are measured points.

    Raises
    ------
    InputError
        An input is missing or names what is not there, or a variant has no base cores.
    """
    if missing := [name for name in INPUTS if name not in inputs]:
        raise InputError(f"inputs: {', '.join(missing)} missing; add them, as the reference names them")
    if inputs["profile_set"] not in profiles:
        raise InputError(f"no profiles of {inputs['profile_set']!r}; there are {sorted(profiles)}")
    measured = profiles[inputs["profile_set"]]
    known = measured if inputs["only_measured_profiles"] else [fitted(profile) for profile in measured]
    options, total_s = [], 0.0
    for number, (profile, source) in enumerate(zip(known, measured, strict=True)):
        sla_s = task_sla_s(profile, inputs["sla_factor"])
        total_s += sla_s
        counted = len({point.batch for point in source.points})
        cores = base_cores(profile, inputs["threshold_rps"], sla_s, counted)
        percent = profile.accuracies
        accuracies = ranked(percent) if inputs["normalize_accuracy"] else scaled(percent)
        variants = [inputs["active_variant"][number]] if inputs["baseline_mode"] == "scale" else list(percent)
        if variants[0] not in percent:
            raise InputError(f"active_variant of {profile.name}: expected one of {list(percent)}, got {variants[0]!r}")
        own = tuple(
            Option(variant, accuracies[variant], cores[variant], point.batch, point.latency_s, point.throughput_rps)
            for variant in variants
            for point in profile.of(variant, cores[variant])
            if point.batch <= inputs["batching_cap"]
        )
        if not own:
            least = min(point.batch for point in profile.points)
            raise InputError(f"batching_cap: expected at least {least}, got {inputs['batching_cap']}")
        options.append(own)
    return Ipa(
        tuple(options),
        inputs["arrival_rate_rps"],
        total_s,
        inputs["accuracy_method"],
        Weights(inputs["alpha"], inputs["beta"], inputs["gamma"]),
        tuple(inputs["initial_replicas"]) if inputs["baseline_mode"] == "switch" else None,
        inputs["scaling_cap"],
    )
