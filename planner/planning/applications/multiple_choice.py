"""One option per task: a multiple-choice knapsack whose accuracies multiply, solved exactly.

Of every task s one option o is chosen, with logarithm of accuracy a, cost c and time t:

    maximise   worth · exp(A) - C,   A = sum of a,   C = sum of c,   T = sum of t <= limit

*Bound.* For any mu, lambda >= 0 a choice with A in [low, high] has at most the value

    max(worth · exp(low) - mu · low, worth · exp(high) - mu · high) + h(mu)
    h(mu) = min over lambda of lambda · limit + sum over s of max over o of (mu · a - c - lambda · t)

as exp is convex. h does not know the piece [low, high], so that one grid of mu serves all pieces of the range of A.

*Search.* In a piece an option loses what its mu · a - c - lambda · t is below its task's largest, and a choice is worth
at most the bound less all its losses. Labels (sums over the first tasks) are dropped where their losses, or the least
time or accuracies to come, rule out a value above the one to beat, or where another label is as good in A, C and T.
The value to beat begins near the bound and falls to the best choice known: what beats it then is the optimum.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner.planning.arrays import Flags, Floats, Integers

ROUNDING = 1e-9  # relative: times this much above the limit are within it
RESOLUTION = 1e-12  # relative: values nearer to each other are equal
FEW = 2000  # choices that are labelled without a bound
PIECES = 128
SLOPES = 256  # values of mu
FINER, REFINEMENTS = 8, 2  # values of mu around a piece's best one, and how often
BISECTIONS = 40
CLOSER = (1 / 64, 1 / 16, 1 / 4, 1)  # of the distance from the bound to the best choice known
BLOCK = 512  # labels compared at once


@dataclass(frozen=True)
class Options:
    """The options of all tasks, padded to arrays ``[task, option]``: cost is infinite where there is none."""

    accuracy: Floats
    cost: Floats
    time: Floats
    number: Integers  # in the lists given
    worth: float
    limit: float

    def value(self, choice: Integers) -> float:
        """Return what a choice (an option per task) is worth."""
        tasks = np.arange(len(choice))
        return float(self.worth * np.exp(self.accuracy[tasks, choice].sum()) - self.cost[tasks, choice].sum())


def best_choice(
    accuracies: Sequence[Floats], costs: Sequence[Floats], times: Sequence[Floats], worth: float, limit: float
) -> list[int] | None:
    """Return the number of the best option of each task, None where no choice keeps the limit.

    Parameters
    ----------
    accuracies
        Logarithms of accuracies, an array per task; of no matter where ``worth`` is 0.
    costs, times
        Of the same options.
    worth, limit
        What a product of accuracies of 1 is worth (>= 0), and the most time.

    Examples
    --------
    The second option of the second task is worth its cost, that of the first takes too long:

    >>> import numpy as np
    >>> logs, costs = np.log([0.5, 0.9]), np.array([1.0, 2.0])
    >>> best_choice([logs, logs], [costs, costs], [np.array([1.0, 3.0]), np.array([1.0, 2.0])], 100.0, 3.5)
    [0, 1]
    """
    if worth == 0:
        accuracies = [np.zeros(len(cost)) for cost in costs]
    options = _padded(accuracies, costs, times, worth, limit * (1 + ROUNDING))
    tasks = np.arange(len(options.cost))
    fastest = np.where(np.isfinite(options.cost), options.time, np.inf).argmin(axis=1)
    if options.time[tasks, fastest].sum() > options.limit:
        return None
    best: list[int] = options.number[tasks, _search(options, fastest)].tolist()
    return best


def _padded(
    accuracies: Sequence[Floats], costs: Sequence[Floats], times: Sequence[Floats], worth: float, limit: float
) -> Options:
    """Return the options that no other one of their task is as good as in all respects."""
    kept = [_undominated(*one) for one in zip(accuracies, costs, times, strict=True)]
    shape = len(kept), max(len(numbers) for numbers in kept)
    arrays = np.zeros(shape), np.full(shape, np.inf), np.zeros(shape)
    number = np.zeros(shape, dtype=np.int64)
    for task, numbers in enumerate(kept):
        number[task, : len(numbers)] = numbers
        for array, own in zip(arrays, (accuracies, costs, times), strict=True):
            array[task, : len(numbers)] = own[task][numbers]
    return Options(*arrays, number, worth, limit)


def _undominated(accuracy: Floats, cost: Floats, time: Floats) -> Integers:
    """Return the entries than which no other is as accurate, cheap and quick, the first of equal ones."""
    order = np.lexsort((-accuracy, cost, time))
    kept: Integers = np.empty(0, dtype=np.int64)
    for begin in range(0, len(order), BLOCK):
        both = np.concatenate((kept, order[begin : begin + BLOCK]))  # sorted by time: only earlier ones are as good
        new = both[len(kept) :]
        better = (accuracy[both] >= accuracy[new, np.newaxis]) & (cost[both] <= cost[new, np.newaxis])
        earlier = np.arange(len(both)) < np.arange(len(kept), len(both))[:, np.newaxis]
        kept = np.concatenate((kept, new[~(better & earlier).any(axis=1)]))
    return kept


def _search(options: Options, known: Integers) -> Integers:
    if np.prod(np.isfinite(options.cost).sum(axis=1), dtype=float) <= FEW:
        found = _label(options, np.zeros_like(options.cost), np.inf, (-np.inf, np.inf))
        return known if found is None else found
    pieces, known = _bounded(options, known)
    value, distance = options.value(known), pieces.bound.max() - options.value(known)
    tolerance = RESOLUTION * max(1.0, abs(value), options.worth)
    for part in CLOSER:
        to_beat = max(value, float(pieces.bound.max() - part * distance)) + tolerance
        for piece in np.argsort(-pieces.bound):
            if pieces.bound[piece] <= max(to_beat, value + tolerance):
                break
            to_lose = float(pieces.bound[piece] - max(to_beat, value + tolerance))
            found = _label(options, pieces.losses(options, piece), to_lose, pieces.range(piece))
            if found is not None and options.value(found) > value:
                known, value = found, options.value(found)
        if value >= to_beat:
            break
    return known


@dataclass(frozen=True)
class Pieces:
    """Pieces of the range of A, one after the other, with their bounds and the multipliers behind these."""

    ends: Floats
    bound: Floats
    mu: Floats
    multiplier: Floats  # lambda

    def range(self, piece: int) -> tuple[float, float]:
        """Return the least and the largest A of a piece; rounding at the ends of the whole range leaves nothing out."""
        last = len(self.bound) - 1
        return (
            float(self.ends[piece]) if piece else -np.inf,
            float(self.ends[piece + 1]) if piece < last else np.inf,
        )

    def losses(self, options: Options, piece: int) -> Floats:
        """Return what every option is below the largest of its task, infinite where there is none."""
        score = self.mu[piece] * options.accuracy - options.cost - self.multiplier[piece] * options.time
        losses: Floats = score.max(axis=1, keepdims=True) - score
        return losses


def _bounded(options: Options, known: Integers) -> tuple[Pieces, Integers]:
    """Return the bounds of all pieces, and the best choice known once they are found."""
    there = np.isfinite(options.cost)
    low = np.where(there, options.accuracy, np.inf).min(axis=1).sum()
    high = np.where(there, options.accuracy, -np.inf).max(axis=1).sum()
    if options.worth == 0 or low == high:
        ends, mu = np.array([low, high]), np.zeros(1)
    else:
        ends = 2 * np.log(np.linspace(np.exp(low / 2), np.exp(high / 2), PIECES + 1))
        widest = np.where(there, options.cost, -np.inf).max(axis=1).sum() - options.cost.min(axis=1).sum()
        scale = max(float(widest), RESOLUTION) / (high - low)
        mu = np.concatenate(([0.0], np.geomspace(1e-3 * scale, 1e3 * scale, SLOPES - 1)))
    relaxed, multiplier, known = _relaxed(options, mu, known)
    bound = _ends_value(options, ends, mu) + relaxed  # [piece, mu]
    best = bound.argmin(axis=1)
    pieces = Pieces(ends, bound.min(axis=1), mu[best], multiplier[best])
    below, above = mu[np.maximum(best - 1, 0)], mu[np.minimum(best + 1, len(mu) - 1)]
    for _ in range(REFINEMENTS if len(mu) > 1 else 0):
        open_ = np.flatnonzero(pieces.bound > options.value(known))
        if not len(open_):
            break
        finer = np.linspace(below[open_], above[open_], FINER, axis=1)
        relaxed, multiplier, known = _relaxed(options, finer.ravel(), known)
        own = _ends_value(options, ends, finer.ravel()).reshape(len(ends) - 1, *finer.shape)[open_, range(len(open_))]
        bound = own + relaxed.reshape(finer.shape)
        best, rows = bound.argmin(axis=1), np.arange(len(open_))
        better = open_[bound[rows, best] < pieces.bound[open_]]
        chosen = np.isin(open_, better)
        pieces.bound[better] = bound[rows, best][chosen]
        pieces.mu[better] = finer[rows, best][chosen]
        pieces.multiplier[better] = multiplier.reshape(finer.shape)[rows, best][chosen]
        below[open_] = finer[rows, np.maximum(best - 1, 0)]
        above[open_] = finer[rows, np.minimum(best + 1, FINER - 1)]
    return pieces, known


def _ends_value(options: Options, ends: Floats, mu: Floats) -> Floats:
    """Return the largest worth · exp(A) - mu · A in each piece ``[piece, mu]``."""
    at_ends = options.worth * np.exp(ends)[:, np.newaxis] - mu * ends[:, np.newaxis]
    return np.maximum(at_ends[:-1], at_ends[1:])


def _relaxed(options: Options, mu: Floats, known: Integers) -> tuple[Floats, Floats, Integers]:
    """Return h(mu), the lambda behind each, and the best choice seen that keeps the limit, or ``known``."""
    gain = mu[:, np.newaxis, np.newaxis] * options.accuracy - options.cost
    tasks = np.arange(len(options.cost))

    def at(multiplier: Floats) -> tuple[Floats, Integers, Flags]:
        score = gain - multiplier[:, np.newaxis, np.newaxis] * options.time
        choice = score.argmax(axis=2)
        bound = score.max(axis=2).sum(axis=1) + multiplier * options.limit
        return bound, choice, options.time[tasks, choice].sum(axis=1) <= options.limit

    multiplier = np.zeros(len(mu))
    best, choice, free = at(multiplier)  # where the limit is kept for nothing, lambda is 0
    choice[~free] = known
    costs = options.cost[np.isfinite(options.cost)]
    scale = max(float(np.ptp(costs)), RESOLUTION) / max(options.limit, RESOLUTION)
    low, high = (np.full(len(mu), np.log(factor * scale)) for factor in (1e-6, 1e9))
    for _ in range(0 if free.all() else BISECTIONS):
        middle = (low + high) / 2
        bound, chosen, fits = at(np.exp(middle))
        multiplier = np.where(bound < best, np.exp(middle), multiplier)
        best = np.minimum(bound, best)
        choice[fits & ~free] = chosen[fits & ~free]
        low, high = np.where(fits, low, middle), np.where(fits, middle, high)
    values = options.worth * np.exp(options.accuracy[tasks, choice].sum(axis=1))
    values -= options.cost[tasks, choice].sum(axis=1)
    return best, multiplier, choice[values.argmax()] if values.max() > options.value(known) else known


def _label(options: Options, losses: Floats, to_lose: float, within: tuple[float, float]) -> Integers | None:
    """Return the best choice that loses no more than ``to_lose`` and whose A is within a range, None where none is."""
    allowed = np.isfinite(options.cost) & (losses <= to_lose)
    if not allowed.any(axis=1).all():
        return None
    low, high = within[0] - RESOLUTION, within[1] + RESOLUTION
    least_time = _to_come(np.where(allowed, options.time, np.inf).min(axis=1))
    least = _to_come(np.where(allowed, options.accuracy, np.inf).min(axis=1))
    most = _to_come(np.where(allowed, options.accuracy, -np.inf).max(axis=1))
    accuracy = cost = time = loss = np.zeros(1)
    ways = np.zeros((1, 0), dtype=np.int64)  # [label, task]: the options chosen
    for task, own in enumerate(allowed):
        able = np.flatnonzero(own)
        accuracy, cost, time, loss = (
            np.add.outer(sums, array[task, able]).ravel()
            for sums, array in (
                (accuracy, options.accuracy),
                (cost, options.cost),
                (time, options.time),
                (loss, losses),
            )
        )
        open_ = np.flatnonzero(
            (loss <= to_lose)
            & (time + least_time[task + 1] <= options.limit)
            & (accuracy + most[task + 1] >= low)
            & (accuracy + least[task + 1] <= high)
        )
        kept = open_[_undominated(accuracy[open_], cost[open_], time[open_])]
        accuracy, cost, time, loss = accuracy[kept], cost[kept], time[kept], loss[kept]
        before, last = np.divmod(kept, len(able))
        ways = np.column_stack((ways[before], able[last]))
    if not len(ways):
        return None
    best: Integers = ways[(options.worth * np.exp(accuracy) - cost).argmax()]
    return best


def _to_come(per_task: Floats) -> Floats:
    """Return the sums over the tasks from each on; none are left after the last."""
    return np.append(per_task[::-1].cumsum()[::-1], 0.0)
