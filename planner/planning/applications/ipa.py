"""IPA's programme: one variant, batch size and number of replicas per task (JSys 2024, section 4.2, equations 8 to 10).

Sets
    s      tasks of a chain
    v, k   variants of a task, batch sizes of a variant

Parameters
----------
    a_{s,v}          accuracy (a fraction, or a rank)
    R_{s,v}          cores of one replica
    l_{s,v,k}        latency of a batch of k (s)
    h_{s,v,k}        what one replica sustains at batch k (requests/s)
    rate, sla_s      requests/s of the application, end-to-end SLA (s)

Choices
    x_{s,v,k} binary     the choice of task s

Replicas are no variables: cost only grows with them, so that n_{s,v,k} = max(1, ceil(rate / h_{s,v,k})) is optimal; a
choice that needs more than the limit is left out. With RIM's fixed replicas n is given, and choices that cannot keep up
with so many are left out.

    maximise   alpha · ACC - beta · sum R · n · x - gamma · sum k · x
    one        sum over v, k of x_{s,v,k} = 1 for every task s
    latency    sum over s, v, k of (l + (k - 1) / rate) · x <= sla_s                   batch building; 0 at rate 0

where ACC is a sum, an average, or for *multiply* a product: a multiple-choice knapsack, which
`planner.planning.applications.multiple_choice` solves to the optimum. Accuracies of sums are costs below 0. A product
with a factor of 0 is worth nothing, and so no more than the cheapest choice of all: that one, and the best one of
factors above 0, are compared. All optima follow one by one: without the choice found, what is left splits by the first
task that differs (Lawler, Management Science 1972), and each part has an optimum of its own.

Deviation: the reference is a quadratic programme, with triples by enumeration and four tasks not at all. Its code also
counts batch building wrong (it sums the binaries, so that the SLA is looser by the same for every choice);
`as_coded` solves that programme, for comparison.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from math import ceil

import numpy as np

from planner.model import InputError
from planner.model.applications import ACCURACY_RULES, AccuracyRule, combined_accuracy
from planner.planning.applications.multiple_choice import best_choice
from planner.planning.arrays import Floats

MOST_REPLICAS = 100
ROUNDING = 1e-9
SAME = 1e-9  # relative difference of objectives that counts as a tie


@dataclass(frozen=True)
class Option:
    """A variant of a task at a batch size, on one replica: cores, latency (s), and what it sustains (requests/s)."""

    variant: str
    accuracy: float
    cores: int
    batch: int
    latency_s: float
    throughput_rps: float


@dataclass(frozen=True)
class Weights:
    """What accuracy, cores and batch sizes are worth: alpha, beta and gamma of the objective."""

    accuracy: float
    cores: float
    batch: float = 1e-6


@dataclass(frozen=True)
class Ipa:
    """The programme's data. ``options[s]`` are the choices of task s; ``replicas[s]`` fixes their number (RIM)."""

    options: tuple[tuple[Option, ...], ...]
    rate_rps: float
    sla_s: float
    rule: AccuracyRule
    weights: Weights
    replicas: tuple[int, ...] | None = None
    most_replicas: int = MOST_REPLICAS
    as_coded: bool = False

    def __post_init__(self) -> None:
        """Refuse rules that there are not, negative rates, and accuracies that no product can be made of."""
        if self.rule not in ACCURACY_RULES:
            raise InputError(f"unknown rule of accuracy {self.rule!r}; expected one of {list(ACCURACY_RULES)}")
        if not self.rate_rps >= 0:
            raise InputError(f"rate: expected at least 0 requests/s, got {self.rate_rps}")
        if self.replicas is not None and len(self.replicas) != len(self.options):
            raise InputError(f"replicas: expected one number per task ({len(self.options)}), got {len(self.replicas)}")
        for option in (option for options in self.options for option in options):
            if self.rule == "multiply" and option.accuracy < 0:
                raise InputError(
                    f"accuracy of {option.variant}: expected at least 0 to multiply, got {option.accuracy}"
                )

    def needed(self, task: int, option: Option) -> int | None:
        """Return the replicas of an option of a task, None where it cannot keep up with the rate."""
        least = max(1, ceil(self.rate_rps / option.throughput_rps * (1 - ROUNDING)))
        most = self.most_replicas if self.replicas is None else self.replicas[task]
        if least > most:
            return None
        return least if self.replicas is None else most

    def building_s(self, option: Option) -> float:
        """Return the time to build a batch of an option (s)."""
        return (option.batch - 1) / self.rate_rps if self.rate_rps > 0 and not self.as_coded else 0.0

    def cost(self, task: int, option: Option) -> float:
        """Return what an option takes from the objective: beta · R · n + gamma · k."""
        cores = (self.needed(task, option) or 0) * option.cores
        return self.weights.cores * cores + self.weights.batch * option.batch

    def able(self, task: int) -> list[Option]:
        """Return the options of a task that keep up with the rate; raises InputError where there are none."""
        able = [option for option in self.options[task] if self.needed(task, option) is not None]
        if not able:
            limit = self.most_replicas if self.replicas is None else self.replicas[task]
            raise InputError(
                f"task {task}: no variant serves {self.rate_rps:g} requests/s with {limit} replicas; "
                "allow more replicas, larger batches, or other variants"
            )
        return able

    @property
    def looser_s(self) -> float:
        """By how much the reference's code exceeds the SLA (s): the sum of variants · (batches - 1) / rate."""
        if not self.as_coded or self.rate_rps == 0:
            return 0.0
        counts = [
            len({option.variant for option in options}) * (len({option.batch for option in options}) - 1)
            for options in self.options
        ]
        return sum(counts) / self.rate_rps


@dataclass(frozen=True)
class Choice:
    """What a task runs."""

    option: Option
    replicas: int

    @property
    def cores(self) -> int:
        """Cores in use."""
        return self.replicas * self.option.cores


@dataclass(frozen=True)
class Configuration:
    """A choice per task, and what it is worth."""

    choices: tuple[Choice, ...]
    objective: float
    accuracy: float
    latency_s: float

    @property
    def cores(self) -> int:
        """Cores in use by all tasks."""
        return sum(choice.cores for choice in self.choices)

    def changes(self, other: "Configuration") -> int:
        """Return how many tasks run another variant or batch size than in another configuration."""
        pairs = zip(self.choices, other.choices, strict=True)
        return sum((a.option.variant, a.option.batch) != (b.option.variant, b.option.batch) for a, b in pairs)


def evaluate(ipa: Ipa, options: Sequence[Option]) -> Configuration:
    """Return what one option per task amounts to; each must keep up with the rate."""
    choices = tuple(Choice(option, ipa.needed(task, option) or 0) for task, option in enumerate(options))
    accuracy = combined_accuracy([option.accuracy for option in options], ipa.rule, whole=1.0)
    cores, batches = sum(choice.cores for choice in choices), sum(option.batch for option in options)
    objective = ipa.weights.accuracy * accuracy - ipa.weights.cores * cores - ipa.weights.batch * batches
    return Configuration(
        choices, objective, accuracy, sum(option.latency_s + ipa.building_s(option) for option in options)
    )


def optimise(ipa: Ipa) -> Configuration:
    """Return the best configuration, proven.

    Raises
    ------
    InputError
        No combination of variants and batch sizes meets the SLA, or none keeps up with the rate.

    Examples
    --------
    Two cores more buy the better variant of one task:

    >>> small, large = Option("small", 0.5, 1, 1, 0.1, 10.0), Option("large", 0.9, 2, 1, 0.2, 6.0)
    >>> best = optimise(Ipa(((small, large),), 10.0, 1.0, "sum", Weights(10.0, 1.0)))
    >>> best.choices[0].option.variant, best.cores, round(best.objective, 6)
    ('large', 4, 4.999999)
    """
    return next(optima(ipa))


def optima(ipa: Ipa) -> Iterator[Configuration]:
    """Yield all configurations of the largest objective, one by one; raises as `optimise` does."""
    every = [ipa.able(task) for task in range(len(ipa.options))]
    first = _best(ipa, every)
    if first is None:
        raise _unreachable(ipa)
    least = first.objective - SAME * max(1.0, abs(first.objective))
    number = count()
    parts = [(-first.objective, next(number), first, every)]
    while parts:
        _, _, found, options = heappop(parts)
        yield found
        chosen = [choice.option for choice in found.choices]
        for task, own in enumerate(options):
            others = [option for option in own if option != chosen[task]]
            part = [*([option] for option in chosen[:task]), others, *options[task + 1 :]]
            best = _best(ipa, part) if others else None
            if best is not None and best.objective >= least:
                heappush(parts, (-best.objective, next(number), best, part))


def least_change(ipa: Ipa, current: Configuration) -> Configuration:
    """Return, among the best configurations, one that changes the fewest variants and batch sizes of the one in use.

    A change costs so little that all together they outweigh nothing but ties.

    Examples
    --------
    >>> one, other = Option("one", 0.5, 1, 1, 0.1, 10.0), Option("other", 0.5, 1, 1, 0.1, 10.0)
    >>> ipa = Ipa(((one, other),), 5.0, 1.0, "sum", Weights(1.0, 1.0))
    >>> least_change(ipa, evaluate(ipa, [other])).choices[0].option.variant
    'other'
    """
    best = optimise(ipa)
    return optimise_from(ipa, current, SAME * max(1.0, abs(best.objective)) / len(ipa.options))


def optimise_from(ipa: Ipa, current: Configuration, switching: float) -> Configuration:
    """Return the configuration of the largest objective less ``switching`` per task that changes variant or batch size.

    The objective in what is returned is without that cost.

    Examples
    --------
    The better variant is worth 4 - 1 = 3 more; a change may cost 2, not 4:

    >>> small, large = Option("small", 0.5, 1, 1, 0.1, 10.0), Option("large", 0.9, 2, 1, 0.1, 10.0)
    >>> ipa = Ipa(((small, large),), 10.0, 1.0, "sum", Weights(10.0, 1.0))
    >>> [optimise_from(ipa, evaluate(ipa, [small]), cost).choices[0].option.variant for cost in (2.0, 4.0)]
    ['large', 'small']
    """
    found = _best(ipa, [ipa.able(task) for task in range(len(ipa.options))], current, switching)
    if found is None:
        raise _unreachable(ipa)
    return found


def _best(
    ipa: Ipa, options: Sequence[Sequence[Option]], current: Configuration | None = None, switching: float = 0.0
) -> Configuration | None:
    """Return the best configuration of some options per task that keep up, None where none meets the SLA."""
    used = [] if current is None else [(choice.option.variant, choice.option.batch) for choice in current.choices]
    changed = [
        [switching * (task < len(used) and (one.variant, one.batch) != used[task]) for one in own]
        for task, own in enumerate(options)
    ]

    def value(chosen: Sequence[int]) -> float:
        configuration = evaluate(ipa, [own[number] for own, number in zip(options, chosen, strict=True)])
        return configuration.objective - sum(own[number] for own, number in zip(changed, chosen, strict=True))

    costs = [
        np.array([ipa.cost(task, one) + more for one, more in zip(own, extra, strict=True)])
        for task, (own, extra) in enumerate(zip(options, changed, strict=True))
    ]
    times = [np.array([one.latency_s + ipa.building_s(one) for one in own]) for own in options]
    accuracies = [np.array([one.accuracy for one in own]) for own in options]
    alpha, limit_s = ipa.weights.accuracy, ipa.sla_s + ipa.looser_s
    if ipa.rule == "multiply":
        found = _best_products(accuracies, costs, times, alpha, limit_s)
    else:
        part = alpha / len(options) if ipa.rule == "average" else alpha
        costs = [cost - part * accuracy for cost, accuracy in zip(costs, accuracies, strict=True)]
        found = [best_choice(accuracies, costs, times, 0.0, limit_s)]
    best = max((chosen for chosen in found if chosen is not None), key=value, default=None)
    return None if best is None else evaluate(ipa, [own[n] for own, n in zip(options, best, strict=True)])


def _best_products(
    accuracies: Sequence[Floats], costs: Sequence[Floats], times: Sequence[Floats], alpha: float, limit_s: float
) -> list[list[int] | None]:
    """Return the best choice of accuracies above 0 and, where some are 0, the cheapest choice of all."""
    there = [np.flatnonzero(accuracy > 0) for accuracy in accuracies]
    found: list[list[int] | None] = []
    if any(len(numbers) < len(accuracy) for numbers, accuracy in zip(there, accuracies, strict=True)):
        found.append(best_choice(accuracies, costs, times, 0.0, limit_s))
    if all(len(numbers) for numbers in there):
        positive, own_costs, own_times = (
            [array[numbers] for array, numbers in zip(arrays, there, strict=True)]
            for arrays in (accuracies, costs, times)
        )
        best = best_choice([np.log(accuracy) for accuracy in positive], own_costs, own_times, alpha, limit_s)
        found.append(best and [int(numbers[n]) for numbers, n in zip(there, best, strict=True)])
    return found


def _unreachable(ipa: Ipa) -> InputError:
    """Return the error that tells the least latency."""
    least = [
        min((option.latency_s + ipa.building_s(option), option.variant, option.batch) for option in ipa.able(task))
        for task in range(len(ipa.options))
    ]
    total_s = sum(latency_s for latency_s, _, _ in least)
    made_of = ", ".join(f"{variant} at batch {batch}" for _, variant, batch in least)
    return InputError(
        f"no choice of variants meets the SLA of {ipa.sla_s:.4g} s at {ipa.rate_rps:g} requests/s; "
        f"the least latency is {total_s:.4g} s ({made_of}); raise the SLA, or profile faster variants or more cores"
    )
