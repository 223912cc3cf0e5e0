"""A plan to begin with, within a fraction of a second: whole DNNs on devices dealt out by a rounded relaxation.

Every DNN first gets one device that can serve it, by augmenting paths, so that there is a plan wherever NP has one.
With x_{d,g} further devices of type g for DNN d, r_{d,g} requests/s each, the linear programme

    maximise z   subject to   w_d · z <= sum over g of r_{d,g} · (first_{d,g} + x_{d,g})      for every d
                              sum over d of (first_{d,g} + x_{d,g}) <= count_g                for every g

is rounded down, and what is left goes, device by device, to the DNN that is served least, where it serves most for the
programme's price of the device. Devices are then exchanged, as long as that serves the least DNN more. For given rates
w_d is the rate, a plan needs z >= 1, and devices that nothing needs are given back, the dearest for what they serve
first. The weighted sum of throughputs is largest where every device goes to the DNN that it earns most with.

Where DNNs share devices, all devices of a type may also be cut into equal segments: the best cut of those tried counts.
No step looks at the clock: what it takes grows with DNNs · types, and not with devices.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf

import numpy as np

from planner.model import DeviceType, Problem
from planner.model.objective import MAXIMISED, needed_rate_rps, price_per_hour
from planner.model.packing import most_segments
from planner.model.problem import GIVEN_RATES
from planner.model.segments import Kind, kind_of, processes
from planner.planning.arrays import Floats, Integers
from planner.planning.baselines.unpartitioned import unpartitioned
from planner.planning.pipelines.candidates import Candidate, enumerate_candidates
from planner.planning.pipelines.sizing import Sized, Sizing
from planner.planning.programme.backends import solve
from planner.planning.programme.linear import LinearModel

ROUNDING = 1e-9
EXCHANGES = 20  # at most, per DNN
FREE = 1e-3  # of the dearest price: what a device counts at least when it is dealt out

Offers = Mapping[tuple[int, int], Candidate]  # (DNN, device type) -> what runs on a segment there


@dataclass(frozen=True)
class Deal:
    """What is dealt out: ``rate_rps[dnn, type]`` of a segment, ``units[type]`` segments, ``weight[dnn]``."""

    rate_rps: Floats
    units: Integers
    weight: Floats

    def values(self, held: Integers) -> Floats:
        """Return throughput / weight of every DNN with ``held[dnn, type]`` segments."""
        served: Floats = (self.rate_rps * held).sum(axis=1) / self.weight
        return served


def first_plan(problem: Problem) -> Sizing | None:
    """Return a plan of one-stage pipelines, with no bound; None where there is none, or money or accuracy limit plans.

    X0 must be known. Without shared devices there is one wherever NP can give every DNN a device (for given rates:
    wherever this rule serves them).

    Examples
    --------
    >>> from planner.model import *
    >>> table = LatencyTable("L4", 1, (1,), ((8000,),), Provenance("measured", "by hand"))
    >>> dnn = Dnn("toy", 20_000, (Profile("toy", (Block(("a",)),), (), (table,)),))
    >>> first_plan(Problem(Cluster((DeviceType("L4", 3),), Network(10)), (dnn,))).pipelines[0].slices
    (3,)
    """
    if problem.options.limited:
        return None
    whole = unpartitioned(problem)
    candidates = [
        candidate
        for number, dnn in enumerate(whole.dnns)
        for candidate in enumerate_candidates(whole, number, dnn.np_throughput_rps or 0.0)
    ]
    kinds: list[list[Kind]] = [[] for _ in whole.cluster.device_types]
    for candidate in candidates:
        kind = kind_of(candidate.shares[0])
        if kind not in kinds[candidate.devices[0]]:
            kinds[candidate.devices[0]].append(kind)
    for own, device in zip(kinds, whole.cluster.device_types, strict=True):
        own.sort(key=partial(_fineness, device))
    best: Sizing | None = None
    better = max if MAXIMISED[problem.options.objective] else min
    for level in range(max(map(len, kinds), default=0)):
        found = _dealt(whole, candidates, [own[min(level, len(own) - 1)] if own else 1 for own in kinds])
        if found is not None:
            best = found if best is None else better(best, found, key=lambda sizing: sizing.value(problem))
    return best


def plans_on_devices(problem: Problem) -> Callable[[Mapping[tuple[int, int], int]], Sizing | None]:
    """Return a function of whole devices ``(DNN, type)`` that plans one-stage pipelines on them, with no bound.

    X0 must be known. There are no such plans, None, where given rates, money or accuracy limit them.
    """
    if problem.options.limited or problem.options.objective in GIVEN_RATES:
        return lambda devices: None
    whole = unpartitioned(problem)
    offers = _best_of_each(
        candidate
        for number, dnn in enumerate(whole.dnns)
        for candidate in enumerate_candidates(whole, number, dnn.np_throughput_rps or 0.0)
    )

    def plan_on(devices: Mapping[tuple[int, int], int]) -> Sizing:
        held = np.zeros((len(whole.dnns), len(whole.cluster.device_types)), dtype=np.int64)
        for key, count in devices.items():
            held[key] = count if key in offers else 0
        return _sizing(offers, held, inf)

    return plan_on


def _best_of_each(candidates: Iterable[Candidate]) -> dict[tuple[int, int], Candidate]:
    """Return the candidates that serve most on a segment, by DNN and device type."""
    offers: dict[tuple[int, int], Candidate] = {}
    for candidate in candidates:
        key = candidate.dnn, candidate.devices[0]
        if key not in offers or _unit_rps(candidate) > _unit_rps(offers[key]):
            offers[key] = candidate
    return offers


def _dealt(problem: Problem, candidates: Sequence[Candidate], kinds: Sequence[Kind]) -> Sizing | None:
    """Return a plan on devices that are cut into segments of one kind per type."""
    types, objective = problem.cluster.device_types, problem.options.objective
    offers = _best_of_each(one for one in candidates if kind_of(one.shares[0]) == kinds[one.devices[0]])
    rate_rps = np.zeros((len(problem.dnns), len(types)))
    for key, candidate in offers.items():
        rate_rps[key] = _unit_rps(candidate)
    counts = [device.count * most_segments(device, kind) for device, kind in zip(types, kinds, strict=True)]
    units = np.where(rate_rps.any(axis=0), counts, 0)
    weights = [needed_rate_rps(dnn, objective) or dnn.weight for dnn in problem.dnns]
    deal = Deal(rate_rps, units, np.array(weights))
    if objective == "max_weighted_throughput":
        held = np.zeros(rate_rps.shape, dtype=np.int64)
        held[(rate_rps * deal.weight[:, np.newaxis]).argmax(axis=0), np.arange(len(types))] = units
    else:
        found = _least_served_first(deal)
        if found is None:
            return None
        held = found
    if objective in GIVEN_RATES:
        if deal.values(held).min() < 1:
            return None
        priced = objective == "least_cost"
        cost = [price_per_hour(problem, device.name) if priced else 1.0 for device in types]
        held = _needed(deal, held, np.array(cost) / [most_segments(*own) for own in zip(types, kinds, strict=True)])
    return _sizing(offers, held, inf if MAXIMISED[objective] else 0.0)


def _fineness(device: DeviceType, kind: Kind) -> tuple[int, str]:
    return most_segments(device, kind), str(kind)


def _unit_rps(candidate: Candidate) -> float:
    """Return what a segment serves."""
    return candidate.slice_rps[0] * processes(candidate.shares[0])


def _sizing(offers: Offers, held: Integers, bound: float) -> Sizing:
    pipelines = []
    for dnn, device in np.argwhere(held).tolist():
        candidate = offers[dnn, device]
        pipelines.append(Sized(candidate, (int(held[dnn, device]) * processes(candidate.shares[0]),)))
    return Sizing(tuple(pipelines), bound, "none")


def _least_served_first(deal: Deal) -> Integers | None:
    """Return the segments of every DNN and type, at least one for each DNN; None where that is impossible."""
    held = one_each(deal.rate_rps, deal.units)
    if held is None:
        return None
    further, price = _relaxed(deal, held)
    held += further
    left = deal.units - held.sum(axis=0)
    score = deal.rate_rps / (price + FREE * price.max() + ROUNDING * (price.max() == 0))
    for _ in range(2 * deal.rate_rps.size):
        least = int(deal.values(held).argmin())
        open_to = np.where(left > 0, score[least], 0.0)
        if not open_to.any():  # no device makes the least more
            break
        held[least, open_to.argmax()] += 1
        left[open_to.argmax()] -= 1
    return exchanged(deal, held)


def exchanged(deal: Deal, held: Integers) -> Integers:
    """Return segments with which the least DNN is served more: it gets one of another DNN, and may give one for it.

    Of all such exchanges that leave both above what the least had, the one is taken that leaves the lesser of them
    most, again and again.

    >>> deal = Deal(np.array([[9.0, 5.0], [8.0, 1.0]]), np.array([1, 1]), np.array([1.0, 1.0]))
    >>> exchanged(deal, np.array([[1, 0], [0, 1]])).tolist()
    [[0, 1], [1, 0]]
    """
    held = held.copy()
    worth = deal.rate_rps / deal.weight[:, np.newaxis]
    given = np.concatenate([np.zeros((len(worth), 1)), worth], axis=1)  # nothing, or one of a type
    for _ in range(EXCHANGES * len(worth)):
        value = deal.values(held)
        least = int(value.argmin())
        change = worth[least, :, np.newaxis] - given[least]  # [type got, type given or nothing]
        others = value[:, np.newaxis, np.newaxis] + given[:, np.newaxis] - worth[:, :, np.newaxis]
        both = np.minimum(value[least] + change, others)  # [other DNN, type got, type given or nothing]
        both[held == 0] = -inf
        both[least] = -inf
        both[:, :, np.flatnonzero(np.append(1, held[least]) == 0)] = -inf
        other, got, gave = np.unravel_index(int(both.argmax()), both.shape)
        if both[other, got, gave] <= value[least] * (1 + ROUNDING):
            break
        held[least, got] += 1
        held[other, got] -= 1
        if gave > 0:
            held[least, gave - 1] -= 1
            held[other, gave - 1] += 1
    return held


def one_each(rate_rps: Floats, units: Integers) -> Integers | None:
    """Return one segment per DNN, by augmenting paths, on types that serve it; None where there are too few.

    >>> one_each(np.array([[9.0, 5.0], [8.0, 0.0]]), np.array([1, 1])).tolist()
    [[0, 1], [1, 0]]
    """
    relative = rate_rps / np.maximum(rate_rps.max(axis=0, initial=0.0), ROUNDING)
    wanted = [[kind for kind in np.argsort(-row, kind="stable").tolist() if row[kind] > 0] for row in relative]
    seated: list[list[int]] = [[] for _ in units]

    def seat(dnn: int, seen: set[int]) -> bool:
        for kind in wanted[dnn]:
            if kind in seen:
                continue
            seen.add(kind)
            if len(seated[kind]) < units[kind]:
                seated[kind].append(dnn)
                return True
            for at, other in enumerate(seated[kind]):
                if seat(other, seen):
                    seated[kind][at] = dnn
                    return True
        return False

    if not all(seat(dnn, set()) for dnn in range(len(rate_rps))):
        return None
    held = np.zeros(rate_rps.shape, dtype=np.int64)
    for kind, dnns in enumerate(seated):
        held[dnns, kind] = 1
    return held


def _relaxed(deal: Deal, first: Integers) -> tuple[Integers, Floats]:
    """Return the further segments of the linear programme, rounded down, and what a segment of each type is worth."""
    model = LinearModel()
    least = model.add_column("least")
    left = deal.units - first.sum(axis=0)
    pairs = [(dnn, kind) for dnn, kind in np.argwhere(deal.rate_rps > 0).tolist() if left[kind] > 0]
    columns = {pair: model.add_column(f"segments[{pair[0]},{pair[1]}]", upper=float(left[pair[1]])) for pair in pairs}
    of_dnn: list[list[tuple[int, float]]] = [[] for _ in deal.weight]
    of_type: list[list[tuple[int, float]]] = [[] for _ in left]
    for (dnn, kind), column in columns.items():
        of_dnn[dnn].append((column, -float(deal.rate_rps[dnn, kind] / deal.weight[dnn])))
        of_type[kind].append((column, 1.0))
    for dnn, value in enumerate(deal.values(first).tolist()):
        model.add_row(f"served[{dnn}]", [(least, 1.0), *of_dnn[dnn]], upper=value)
    rows = [model.add_row(f"units[{kind}]", of_type[kind], upper=float(n)) for kind, n in enumerate(left)]
    model.set_objective([(least, 1.0)], maximise=True)
    solution, _ = solve(model, "highs")
    further = np.zeros_like(first)
    if not solution.found:
        return further, np.ones(len(left))
    for pair, column in columns.items():
        further[pair] = int(solution.values[column] + ROUNDING)
    fits = further.sum(axis=0) <= left
    return np.where(fits, further, 0), abs(solution.row_duals[rows])


def _needed(deal: Deal, held: Integers, cost: Floats) -> Integers:
    """Return the segments that the weights, which are rates, need; the dearest for what they serve go first."""
    held = held.copy()
    for dnn, rate_rps in enumerate(deal.rate_rps):
        dear = np.divide(cost, rate_rps, out=np.zeros_like(cost), where=rate_rps > 0)
        for kind in np.argsort(-dear, kind="stable").tolist():
            if held[dnn, kind]:
                spare_rps = float(rate_rps @ held[dnn]) - deal.weight[dnn]
                held[dnn, kind] -= min(held[dnn, kind], int(max(spare_rps, 0.0) / rate_rps[kind]))
    return held


def better_of(problem: Problem, *plans: Sizing | None) -> Sizing | None:
    """Return the best plan, the first of equal ones; of plans that serve all DNNs, where all are to be served."""
    served = [plan for plan in plans if plan is not None and plan.pipelines and _serves_all(problem, plan)]
    best = max if MAXIMISED[problem.options.objective] else min
    return best(served, key=lambda plan: plan.value(problem), default=None)


def _serves_all(problem: Problem, plan: Sizing) -> bool:
    if problem.options.objective == "max_weighted_throughput":
        return True
    return all(plan.throughput_rps(number) > 0 for number in range(len(problem.dnns)))
