"""A first plan for DNNs that share devices: every DNN covers what it must serve at the least price of slices.

At prices of slices (the relaxation's, `planner.planning.programme.relaxation`) the DNNs part: each needs pipelines of
at least a target throughput and pays for whole slices. A *cover* is one candidate, or the full sizes of a cheap one
and one candidate for what is left:

    cost(c, t)   sum over s of lambda_{g,k} · n_s,  n_s the least number of slices with x_s · n_s >= t

Types whose devices are asked for too much become dearer, the others cheaper, and from all covers so far a small
programme chooses one per DNN, until these fit or the rounds are over. Under max-min the target of all DNNs is w_d · z,
and z is found by bisection below the relaxation's bound.

It proves nothing. The programme (`planner.planning.programme.milp`) begins from it: first, roughly, over the candidates
that covers took, then over all that a better plan can hold, which proves.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.model import Problem
from planner.model.objective import MAXIMISED, needed_rate_rps
from planner.model.segments import Share
from planner.planning.arrays import Floats, Integers
from planner.planning.pipelines.candidates import Candidate
from planner.planning.pipelines.sizing import Sized, Sizing
from planner.planning.programme import milp
from planner.planning.programme.backends import Clock, Limits, solve
from planner.planning.programme.linear import LinearModel
from planner.planning.programme.relaxation import Relaxation, affordable, overloaded, relax

ROUNDS = 8  # of prices per target
HALVINGS = 9
SPREAD = 0.3  # of the logarithm of a price from DNN to DNN, so that covers differ
SEED = 0
CHOICE_LIMITS = Limits(gap=1e-3, time_limit_s=0.5)
LEAST_PRICE = 0.02  # of the dearest type's: no device is free
DAMPING = 0.7  # power of asked / there that a price changes by
CHEAP = 6  # candidates whose full sizes are tried before another covers the rest
BELOW = 4  # of these sizes, those just below the target
EXACT = 1 - 1e-12


@dataclass(frozen=True)
class Choices:
    """The candidates of one DNN as arrays ``[candidate, stage]``; stages beyond a candidate's own cost nothing."""

    candidates: Sequence[Candidate]
    slice_rps: Floats
    group: Integers
    device: Integers
    price: Floats  # of a slice, by the relaxation

    @classmethod
    def of(cls, candidates: Sequence[Candidate], slice_price: Mapping[tuple[int, Share], float]) -> "Choices":
        """Lay candidates out as arrays."""
        stages = max(len(candidate.devices) for candidate in candidates)
        shape = len(candidates), stages
        rps, group = np.full(shape, np.inf), np.ones(shape, dtype=np.int64)
        device, price = np.zeros(shape, dtype=np.int64), np.zeros(shape)
        for row, one in enumerate(candidates):
            own = slice(0, len(one.devices))
            rps[row, own], group[row, own], device[row, own] = one.slice_rps, one.groups, one.devices
            price[row, own] = [slice_price[place] for place in zip(one.devices, one.shares, strict=True)]
        return cls(candidates, rps, group, device, price)

    def slices(self, rows: Integers, rps: Floats) -> Integers:
        """Return the slices ``[row, target, stage]`` that each throughput needs."""
        per_group = (self.slice_rps * self.group)[rows, np.newaxis, :]
        needed = np.ceil(rps[np.newaxis, :, np.newaxis] / per_group * EXACT)
        return (needed * self.group[rows, np.newaxis, :]).astype(np.int64)

    def cover(self, target_rps: float, factor: Floats) -> list[Sized]:
        """Return a cheap cover of a throughput; ``factor[type]`` is what the relaxation's prices are multiplied by."""
        every = np.arange(len(self.candidates))
        price = self.price * factor[self.device]
        unit = (price / self.slice_rps).sum(axis=1)
        cheapest = np.argsort(unit, kind="stable")[:CHEAP]
        parts: list[tuple[float, int, float]] = [(0.0, -1, 0.0)]  # cost, row, throughput of the first part
        for row in cheapest.tolist():
            full = self.slice_rps[row] * self.group[row]
            for step in full[np.isfinite(full)].tolist():
                most = int(target_rps / step)
                for count in range(max(1, most - BELOW + 1), most + 1):
                    got = np.array([count * step])
                    cost = float((self.slices(np.array([row]), got)[0, 0] * price[row]).sum())
                    parts.append((cost, row, float(got[0])))
        rest = np.maximum(target_rps - np.array([got for _, _, got in parts]), 0.0)
        cost = np.array([cost for cost, _, _ in parts]) + (self.slices(every, rest) * price[:, np.newaxis, :]).sum(
            axis=2
        )
        row, part = np.unravel_index(int(cost.argmin()), cost.shape)
        found = []
        if rest[part] > target_rps * 1e-9:
            found.append(self._sized(int(row), float(rest[part])))
        if parts[part][1] >= 0:
            found.append(self._sized(parts[part][1], parts[part][2]))
        return found

    def _sized(self, row: int, rps: float) -> Sized:
        candidate = self.candidates[row]
        slices = self.slices(np.array([row]), np.array([rps]))[0, 0, : len(candidate.devices)]
        return Sized(candidate, tuple(slices.tolist()))


def first_plan(
    problem: Problem, candidates: Sequence[Candidate], relaxation: Relaxation, clock: Clock
) -> tuple[Sizing | None, list[Candidate]]:
    """Return the best plan that covers give, None where none fits, and all candidates that they took."""
    objective = problem.options.objective
    if objective == "max_weighted_throughput" or problem.options.limited:
        return None, []  # no throughput to cover, or more to keep than throughputs
    floor = LEAST_PRICE * max(relaxation.slice_price.values(), default=0.0)
    prices = {place: max(price, floor) for place, price in relaxation.slice_price.items()}
    choices = []
    for number in range(len(problem.dnns)):
        mine = [candidate for candidate in candidates if candidate.dnn == number]
        if not mine:
            return None, []
        choices.append(Choices.of(mine, prices))
    taken: Counter[Candidate] = Counter()
    best: Sizing | None = None
    if objective == "max_min_throughput":
        low, high = 0.0, relaxation.bound
        for _ in range(HALVINGS):
            target = (low + high) / 2
            found = _fitting(problem, choices, [dnn.weight * target for dnn in problem.dnns], taken, clock)
            if found is not None:
                best, low = found, max(target, found.value(problem))
            else:
                high = target
            if clock.over or high <= low:
                break
    else:
        rates = [needed_rate_rps(dnn, objective) for dnn in problem.dnns]
        best = _fitting(problem, choices, rates, taken, clock)
    return best, [candidate for candidate, _ in taken.most_common()]


def _fitting(
    problem: Problem, choices: Sequence[Choices], targets_rps: Sequence[float], taken: Counter[Candidate], clock: Clock
) -> Sizing | None:
    """Return covers of all targets that fit the cluster, one per DNN of those that changing prices give."""
    types = problem.cluster.device_types
    rng = np.random.default_rng(SEED)
    factor = np.ones(len(types))
    known: list[dict[tuple[Sized, ...], Floats]] = [{} for _ in choices]
    for _ in range(ROUNDS):
        asked = np.zeros(len(types))
        for own, rps, covers in zip(choices, targets_rps, known, strict=True):
            cover = tuple(own.cover(rps, factor * np.exp(rng.normal(0.0, SPREAD, len(types)))))
            covers.setdefault(cover, _filled(problem, cover))
            taken.update(one.candidate for one in cover)
            asked += covers[cover]
        plan = _one_each(problem, known, clock)
        if plan is not None or clock.over:
            return plan
        counts = np.array([device.count for device in types], dtype=np.float64)
        factor *= (np.maximum(asked, 0.2 * counts) / np.maximum(counts, 1e-9)) ** DAMPING
        factor /= factor[counts > 0].mean()
    return None


def _filled(problem: Problem, cover: Sequence[Sized]) -> Floats:
    """Return the devices of each type that a cover fills, in fractions."""
    types = problem.cluster.device_types
    filled = np.zeros(len(types))
    for one in cover:
        for device, share, slices in zip(one.candidate.devices, one.candidate.shares, one.slices, strict=True):
            filled[device] += slices * float(types[device].fraction(share))
    return filled


def _one_each(problem: Problem, known: Sequence[Mapping[tuple[Sized, ...], Floats]], clock: Clock) -> Sizing | None:
    """Return one cover per DNN, of those known, that fit the cluster together; None where no such choice is found.

    A small programme: the largest load of a type, its part of the devices there are, is least.
    """
    types = problem.cluster.device_types
    model = LinearModel()
    load = model.add_column("load")
    columns = [
        [
            (model.add_column(f"cover[{dnn},{number}]", upper=1.0, integer=True), cover)
            for number, cover in enumerate(own)
        ]
        for dnn, own in enumerate(known)
    ]
    for dnn, own in enumerate(columns):
        model.add_row(f"one[{dnn}]", [(column, 1.0) for column, _ in own], lower=1.0)
    for index, device in enumerate(types):
        terms = [
            (column, float(covers[cover][index]))
            for own, covers in zip(columns, known, strict=True)
            for column, cover in own
            if covers[cover][index]
        ]
        if terms:
            model.add_row(f"load[{device.name}]", [*terms, (load, -float(device.count))], upper=0.0)
    model.set_objective([(load, 1.0)], maximise=False)
    solution, _ = solve(model, "highs", clock.within(CHOICE_LIMITS))
    if not solution.found or solution.objective > 1 + 1e-9:
        return None
    chosen = [sized for own in columns for column, cover in own if solution.values[column] > 0.5 for sized in cover]
    plan = Sizing(tuple(chosen), 0.0, "none").merged()
    used = plan.devices(problem)
    return plan if all(used.get(index, 0) <= device.count for index, device in enumerate(types)) else None


def size(problem: Problem, candidates: Sequence[Candidate], backend: str, limits: Limits) -> Sizing:
    """Return the best sizes of the candidates on shared devices, to a gap or until the time is up.

    Raises
    ------
    InputError
        As `planner.planning.programme.milp.size` does.
    """
    clock = Clock(limits)
    relaxation = relax(problem, candidates)
    if relaxation.status == "infeasible":
        raise overloaded(problem, candidates)
    best, taken = first_plan(problem, candidates, relaxation, clock)
    if best is None:
        return milp.size(problem, candidates, backend, clock.remaining())
    if len(candidates) > milp.AT_ONCE:
        few = list(dict.fromkeys([*best.candidates, *taken[: milp.SHORTLIST]]))
        best = milp.size(problem, few, backend, clock.within(milp.SHORTLIST_LIMITS), begin=best)
    kept = affordable(problem, candidates, relaxation, best.value(problem), best.candidates)
    found = milp.size(problem, kept, backend, clock.remaining(), begin=best)
    tighter = min if MAXIMISED[problem.options.objective] else max
    return replace(found, bound=tighter(found.bound, relaxation.bound))
