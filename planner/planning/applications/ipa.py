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

Variables
    x_{s,v,k} binary     the choice of task s                                              ``choose[s/v,k]``
    P_s, z_{s,v}         product of the accuracies up to task s, and its part by variant   ``product[s]``, ``part[s/v]``

Replicas are no variables: cost only grows with them, so that n_{s,v,k} = max(1, ceil(rate / h_{s,v,k})) is optimal; a
choice that needs more than the limit is left out. With RIM's fixed replicas n is given, and choices that cannot keep up
with so many are left out.

    maximise   alpha · ACC - beta · sum R · n · x - gamma · sum k · x
    one[s]       sum over v, k of x_{s,v,k} = 1
    latency      sum over s, v, k of (l + (k - 1) / rate) · x <= sla_s                 batch building; 0 at rate 0

ACC is linear for *sum* and *average*. For *multiply* it is P of the last task, exactly and linearly (a >= 0):

    part_sum[s]    sum over v of z_{s,v} = P_{s-1},   P_{-1} = 1
    part[s/v]      z_{s,v} <= sum over k of x_{s,v,k}
    product[s]     P_s = sum over v of a_{s,v} · z_{s,v}

with every P_s divided by the largest that it can be, so that long chains keep their digits. The relaxation of these
rows is weak over many tasks, where fractions of good variants multiply to more than any choice does. So chains of
`LONG` tasks and more have rows that every choice keeps: P is exp(L), L the sum of logarithms of accuracies, and a
convex function lies below its chords. With points t_0 < .. < t_n over the range of L, binaries d_i for the piece that
it lies in and weights u_i, w_i of the piece's ends:

    log          sum of log a_{s,v} · x = L = sum over i of t_i · u_i + t_{i+1} · w_i
    piece[i]     u_i + w_i = d_i,   sum of d_i = 1
    chord        P <= sum over i of exp(t_i) · u_i + exp(t_{i+1}) · w_i

Deviation: the reference multiplies pairs of binaries, triples by enumeration and four tasks not at all. Its code also
counts batch building wrong (it sums the binaries, so that the SLA is looser by the same for every choice);
`as_coded` solves that programme, for comparison.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil, exp, log, prod

import numpy as np

from planner.model import InputError
from planner.model.applications import ACCURACY_RULES, AccuracyRule, combined_accuracy
from planner.planning.programme.backends import Limits, solve
from planner.planning.programme.linear import LinearModel, Solution

MOST_REPLICAS = 100
LONG = 4  # tasks from which on products have chords
PIECES = 24
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

    def useful(self, task: int) -> list[Option]:
        """Return the options of a task that keep up and can be in an optimum.

        Left out are those than which another one costs less and is no less accurate and no slower.
        """
        able = [option for option in self.options[task] if self.needed(task, option) is not None]
        known = [(self.cost(task, o), -o.accuracy, o.latency_s + self.building_s(o)) for o in able]
        return [
            option
            for option, (cost, error, latency_s) in zip(able, known, strict=True)
            if not any(c < cost and e <= error and latency <= latency_s for c, e, latency in known)
        ]

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


@dataclass
class Formulation:
    """The model with its columns: ``chosen`` maps (task, option) to a binary."""

    ipa: Ipa
    model: LinearModel = field(default_factory=lambda: LinearModel(maximise=True))
    chosen: dict[tuple[int, Option], int] = field(default_factory=dict)
    accuracy: list[tuple[int, float]] = field(default_factory=list)

    def of(self, task: int) -> list[tuple[Option, int]]:
        """Return the options of a task with their columns."""
        return [(option, column) for (number, option), column in self.chosen.items() if number == task]


def build(ipa: Ipa, keep: Collection[tuple[int, Option]] = ()) -> Formulation:
    """Return the programme; raises InputError where a task has no option that keeps up with the rate.

    ``keep`` are options (with their task) that stay in it although others are better, if they keep up.
    """
    formulation = Formulation(ipa)
    _add_choices(formulation, keep)
    _add_latency_row(formulation)
    if ipa.rule == "multiply":
        _add_product(formulation)
    else:
        _add_sum(formulation)
    _set_objective(formulation)
    return formulation


def _add_choices(formulation: Formulation, keep: Collection[tuple[int, Option]]) -> None:
    ipa, model = formulation.ipa, formulation.model
    for task, options in enumerate(ipa.options):
        useful = set(ipa.useful(task))
        for option in options:
            if option not in useful and ((task, option) not in keep or ipa.needed(task, option) is None):
                continue
            name = f"choose[{task}/{option.variant},{option.batch}]"
            formulation.chosen[task, option] = model.add_column(name, upper=1, integer=True)
        columns = [column for _, column in formulation.of(task)]
        if not columns:
            limit = ipa.most_replicas if ipa.replicas is None else ipa.replicas[task]
            raise InputError(
                f"task {task}: no variant serves {ipa.rate_rps:g} requests/s with {limit} replicas; "
                "allow more replicas, larger batches, or other variants"
            )
        model.add_row(f"one[{task}]", [(column, 1.0) for column in columns], lower=1, upper=1)


def _add_latency_row(formulation: Formulation) -> None:
    ipa = formulation.ipa
    terms = [(column, option.latency_s + ipa.building_s(option)) for (_, option), column in formulation.chosen.items()]
    formulation.model.add_row("latency", terms, upper=ipa.sla_s + ipa.looser_s)


def _add_sum(formulation: Formulation) -> None:
    tasks = len(formulation.ipa.options) if formulation.ipa.rule == "average" else 1
    formulation.accuracy = [(column, option.accuracy / tasks) for (_, option), column in formulation.chosen.items()]


def _add_product(formulation: Formulation) -> None:
    model = formulation.model
    before: int | None = None
    largest = []
    for task in range(len(formulation.ipa.options)):
        options = formulation.of(task)
        accuracies = {option.variant: option.accuracy for option, _ in options}
        largest.append(max(accuracies.values()) or 1.0)
        product = model.add_column(f"product[{task}]", upper=1)
        parts = {variant: model.add_column(f"part[{task}/{variant}]", upper=1) for variant in accuracies}
        for variant, part in parts.items():
            chosen = [(column, -1.0) for option, column in options if option.variant == variant]
            model.add_row(f"part[{task}/{variant}]", [(part, 1.0), *chosen], upper=0)
        sums = [(part, 1.0) for part in parts.values()]
        if before is None:
            model.add_row(f"part_sum[{task}]", sums, lower=1, upper=1)
        else:
            model.add_row(f"part_sum[{task}]", [*sums, (before, -1.0)], lower=0, upper=0)
        terms = [(part, -accuracies[variant] / largest[-1]) for variant, part in parts.items()]
        model.add_row(f"product[{task}]", [(product, 1.0), *terms], lower=0, upper=0)
        before = product
    if before is not None:
        formulation.accuracy = [(before, prod(largest))]
        if len(largest) >= LONG:
            _add_chords(formulation, before, largest)


def _add_chords(formulation: Formulation, product: int, largest: Sequence[float]) -> None:
    """Bound the product of many tasks by chords of exp over the sum of logarithms; a product with a 0 is below any."""
    model = formulation.model
    terms, least = [], 0.0
    for task, most in enumerate(largest):
        options = formulation.of(task)
        smallest = min((option.accuracy for option, _ in options if option.accuracy > 0), default=most)
        logs = [(column, log(max(option.accuracy, smallest) / most)) for option, column in options]
        least += min(value for _, value in logs)
        terms += logs
    points = [2 * log(at) for at in np.linspace(exp(least / 2), 1.0, PIECES + 1)]
    chord, pieces = [(product, -1.0)], []
    for number, (low, high) in enumerate(pairwise(points)):
        piece = model.add_column(f"piece[{number}]", upper=1, integer=True)
        ends = [model.add_column(f"{end}[{number}]", upper=1) for end in ("low", "high")]
        model.add_row(f"piece[{number}]", [(piece, -1.0), *((end, 1.0) for end in ends)], lower=0, upper=0)
        terms += [(ends[0], -low), (ends[1], -high)]
        chord += [(ends[0], exp(low)), (ends[1], exp(high))]
        pieces.append((piece, 1.0))
    model.add_row("pieces", pieces, lower=1, upper=1)
    model.add_row("log", terms, lower=0, upper=0)
    model.add_row("chord", chord, lower=0)


def _set_objective(formulation: Formulation) -> None:
    ipa = formulation.ipa
    terms = {column: ipa.weights.accuracy * accuracy for column, accuracy in formulation.accuracy}
    for (task, option), column in formulation.chosen.items():
        terms[column] = terms.get(column, 0.0) - ipa.cost(task, option)
    formulation.model.set_objective(terms.items(), maximise=True)


def extract(formulation: Formulation, solution: Solution) -> Configuration:
    """Return the configuration in a solution, with everything that it is worth computed from its choices."""
    ipa = formulation.ipa
    options = [
        max(formulation.of(task), key=lambda entry: solution.values[entry[1]])[0] for task in range(len(ipa.options))
    ]
    return evaluate(ipa, options)


def evaluate(ipa: Ipa, options: Sequence[Option]) -> Configuration:
    """Return what one option per task amounts to; each must keep up with the rate."""
    choices = tuple(Choice(option, ipa.needed(task, option) or 0) for task, option in enumerate(options))
    accuracy = combined_accuracy([option.accuracy for option in options], ipa.rule, whole=1.0)
    cores, batches = sum(choice.cores for choice in choices), sum(option.batch for option in options)
    objective = ipa.weights.accuracy * accuracy - ipa.weights.cores * cores - ipa.weights.batch * batches
    return Configuration(
        choices, objective, accuracy, sum(option.latency_s + ipa.building_s(option) for option in options)
    )


def optimise(ipa: Ipa, backend: str = "highs", limits: Limits | None = None) -> Configuration:
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
    return next(optima(ipa, backend, limits))


def optima(ipa: Ipa, backend: str = "highs", limits: Limits | None = None) -> Iterator[Configuration]:
    """Yield all configurations of the largest objective, one by one; raises as `optimise` does."""
    formulation = build(ipa)
    limits = limits or Limits(gap=0.0)
    best: float | None = None
    while True:
        solution, _ = solve(formulation.model, backend, limits)
        if not solution.found:
            if best is None:
                raise _unreachable(formulation)
            return
        found = extract(formulation, solution)
        if best is not None and found.objective < best - SAME * max(1.0, abs(best)):
            return
        best = found.objective if best is None else best
        yield found
        columns = [formulation.chosen[task, choice.option] for task, choice in enumerate(found.choices)]
        formulation.model.add_row("other", [(column, 1.0) for column in columns], upper=len(columns) - 1)


def least_change(ipa: Ipa, current: Configuration, backend: str = "highs") -> Configuration:
    """Return, among the best configurations, one that changes the fewest variants and batch sizes of the one in use.

    Examples
    --------
    >>> one, other = Option("one", 0.5, 1, 1, 0.1, 10.0), Option("other", 0.5, 1, 1, 0.1, 10.0)
    >>> ipa = Ipa(((one, other),), 5.0, 1.0, "sum", Weights(1.0, 1.0))
    >>> least_change(ipa, evaluate(ipa, [other])).choices[0].option.variant
    'other'
    """
    best = optimise(ipa, backend)
    formulation = build(ipa)
    slack = SAME * max(1.0, abs(best.objective))
    formulation.model.add_row("objective", formulation.model.objective_terms, lower=best.objective - slack)
    formulation.model.set_objective([(column, 1.0) for column in _unchanged(formulation, current)], maximise=True)
    solution, _ = solve(formulation.model, backend, Limits(gap=0.0))
    return extract(formulation, solution) if solution.found else best


def optimise_from(ipa: Ipa, current: Configuration, switching: float, backend: str = "highs") -> Configuration:
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
    used = [(choice.option.variant, choice.option.batch) for choice in current.choices]
    keep = {
        (task, option)
        for task, options in enumerate(ipa.options)
        for option in options
        if task < len(used) and (option.variant, option.batch) == used[task]
    }
    formulation = build(ipa, keep)
    terms = dict(formulation.model.objective_terms)
    for column in _unchanged(formulation, current):
        terms[column] = terms.get(column, 0.0) + switching
    formulation.model.set_objective(terms.items(), maximise=True)
    solution, _ = solve(formulation.model, backend, Limits(gap=0.0))
    if not solution.found:
        raise _unreachable(formulation)
    return extract(formulation, solution)


def _unchanged(formulation: Formulation, current: Configuration) -> list[int]:
    """Return the columns of the variants and batch sizes in use."""
    used = [(choice.option.variant, choice.option.batch) for choice in current.choices]
    return [
        column
        for (task, option), column in formulation.chosen.items()
        if task < len(used) and (option.variant, option.batch) == used[task]
    ]


def _unreachable(formulation: Formulation) -> InputError:
    """Return the error that tells the least latency."""
    ipa = formulation.ipa
    least = [
        min(
            (option.latency_s + ipa.building_s(option), option.variant, option.batch)
            for option, _ in formulation.of(task)
        )
        for task in range(len(ipa.options))
    ]
    total_s = sum(latency_s for latency_s, _, _ in least)
    made_of = ", ".join(f"{variant} at batch {batch}" for _, variant, batch in least)
    return InputError(
        f"no choice of variants meets the SLA of {ipa.sla_s:.4g} s at {ipa.rate_rps:g} requests/s; "
        f"the least latency is {total_s:.4g} s ({made_of}); raise the SLA, or profile faster variants or more cores"
    )
