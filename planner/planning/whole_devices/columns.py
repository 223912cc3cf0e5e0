"""The main plan by column generation, for many device types, DNNs and devices.

Where candidates are too many to enumerate, they are generated as the relaxation
(`planner.planning.programme.relaxation`) asks for them: its dual prices over the columns so far go to
`planner.planning.pipelines.pricing`, which returns the cheapest pipeline of every DNN; those that cost less than their
throughput is worth become columns.

*Bound.* At any prices lambda >= 0 of device types, with m_d(lambda) the cheapest cost of a request/s of DNN d over
*all* pipelines, a plan of value z pays at least z · sum of w_d · m_d out of at most lambda · counts:

    z  <=  lambda · counts / sum over d of w_d · m_d(lambda)

Prices swing from round to round; pricing at the middle between the last prices asked and the new ones halves the
rounds. A round whose middle finds nothing is repeated at the relaxation's own prices, and generation ends when those
find nothing either.

*Whole devices.* More columns come from pricing at perturbed prices, and all one-stage pipelines are columns. Then
`planner.planning.whole_devices.rounding` looks for the largest value that whole devices can serve, and where the
columns are few the mixed-integer programme over them has the last word; of up to `FEW_DNNS` DNNs the only one.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import comb, inf

import numpy as np

from planner.model import InputError, Problem
from planner.planning.arrays import Floats
from planner.planning.pipelines.candidates import Candidate, enumerate_candidates
from planner.planning.pipelines.pricing import Pricer, pricers
from planner.planning.pipelines.reach import unreachable
from planner.planning.pipelines.sizing import Report, Sizing
from planner.planning.pipelines.terrain import planned_batches
from planner.planning.programme import milp
from planner.planning.programme.backends import Clock, Limits, TooLate
from planner.planning.programme.relaxation import relax
from planner.planning.whole_devices import rounding
from planner.planning.whole_devices.fractions import by_fractions

log = logging.getLogger(__name__)

SMOOTHING = 0.5
CLOSED = 1e-7  # relative gap at which generation ends, and least relative saving of a new column
ROUNDS = 200
PERTURBATIONS = 12
SPREAD = 0.15  # of the logarithm of perturbed prices
POLISH_COLUMNS = 600  # up to this many, the mixed-integer programme runs over all columns
POLISH_LIMIT_S = 10.0
FEW_DNNS = 4  # up to which the programme over the columns finds more, and sooner, than rounding
SEED = 0


@dataclass(frozen=True)
class Generated:
    """Columns, the bound that no plan exceeds, value and prices of the relaxation over the columns, and pricers."""

    columns: tuple[Candidate, ...]
    bound: float
    value: float
    device_price: Floats
    pricers: Sequence[Sequence[Pricer]]


def admits(problem: Problem) -> bool:
    """Tell whether the method applies: it maximises the least throughput / weight, on devices of each DNN's own."""
    return problem.options.objective == "max_min_throughput" and by_fractions(problem)


def size(problem: Problem, backend: str, limits: Limits, report: Report | None = None) -> tuple[Sizing, Generated]:
    """Return a good plan with the relaxation's bound, and the columns generated; X0 must be known.

    Parameters
    ----------
    report
        Is told the bound, and every better plan.

    Raises
    ------
    InputError
        The problem has another objective, or a DNN no pipeline that meets its SLO.
    """
    if not admits(problem):
        raise InputError(
            "method columns: expected max_min_throughput, device_sharing own and shares that may be added up, "
            f"got {problem.options.objective}, {problem.options.device_sharing} and "
            f"{[list(device.offers) for device in problem.cluster.device_types]}; use milp"
        )
    clock = Clock(limits)
    priced = []
    for number in range(len(problem.dnns)):
        clock.expect_time()
        priced.append(pricers(problem, number))
    generated = generate(problem, priced, clock)
    log.info("%d columns, bound %.9g", len(generated.columns), generated.bound)
    tell: Report = (lambda found: None) if report is None else report
    tell(Sizing((), generated.bound, "highs"))
    columns = _enriched(problem, priced, generated, clock)
    few = len(problem.dnns) <= FEW_DNNS
    rounded = clock.at_most(0.0) if few else clock  # relaxed rates rounded up, at any rate
    best = rounding.size(problem, columns, generated.device_price, generated.bound, rounded, tell)
    if len(columns) <= POLISH_COLUMNS and best.value(problem) < generated.bound * (1 - limits.gap):
        best = _polished(problem, columns, best, backend, clock)
    return replace(best, bound=max(generated.bound, best.value(problem))), generated


def enumeration_size(problem: Problem) -> int:
    """Return how many pipelines there are to enumerate, before any is found too slow.

    >>> from planner.model import *
    >>> table = LatencyTable("L4", 1, (1,), ((4000, 4000),), Provenance("measured", "by hand"))
    >>> profile = Profile("toy", (Block(("a",)), Block(("b",))), (1_250_000,), (table,))
    >>> enumeration_size(Problem(Cluster((DeviceType("L4", 2),), Network(10)), (Dnn("toy", 20_000, (profile,)),)))
    2
    """
    total = 0
    for dnn in problem.dnns:
        for profile in dnn.variants:
            places = sum(
                profile.has(device.name, share) for device in problem.cluster.device_types for share in device.offers
            )
            blocks, batches = len(profile.blocks), len(planned_batches(profile))
            most = min(problem.options.max_stages, blocks)
            total += batches * sum(comb(blocks - 1, count - 1) * places**count for count in range(1, most + 1))
    return total


def generate(problem: Problem, priced: Sequence[Sequence[Pricer]], clock: Clock | None = None) -> Generated:
    """Return the columns that the relaxation needs, and its bound; fewer and a higher one where a clock is over.

    Raises
    ------
    InputError
        A DNN has no pipeline that meets its SLO.
    TooLate
        The clock was over before there were any for all of them.
    """
    clock = clock or Clock(Limits())
    weights = np.array([dnn.weight for dnn in problem.dnns])
    counts = np.array([device.count for device in problem.cluster.device_types], dtype=np.float64)
    price = np.divide(1.0, counts, out=np.zeros_like(counts), where=counts > 0)
    columns: dict[Candidate, None] = {}
    bound = inf
    for device in range(len(counts) + 1):
        if clock.over:
            raise TooLate(bound=bound if bound < inf else None)
        skewed = price.copy()
        skewed[device:][:1] *= 0.01
        found = [_cheapest(pricer_list, skewed) for pricer_list in priced]
        if not all(found):
            raise unreachable(problem, found.index([]))
        columns.update((candidate, None) for options in found for _, candidate in options)
        bound = min(bound, _bound(found, weights, counts, skewed))
    asked, smooth = price / (price @ counts), True
    for number in range(ROUNDS):
        relaxation = relax(problem, tuple(columns))
        value = relaxation.bound
        if bound <= value * (1 + CLOSED) or clock.over:
            break
        price = relaxation.device_price
        asked = SMOOTHING * asked + (1 - SMOOTHING) * price if smooth and number else price
        found = [_cheapest(pricer_list, asked) for pricer_list in priced]
        bound = min(bound, _bound(found, weights, counts, asked))
        new = [
            candidate
            for options, worth in zip(found, relaxation.throughput_price, strict=True)
            for _, candidate in options
            if candidate not in columns and _cost(candidate, price) < worth * (1 - CLOSED)
        ]
        columns.update((candidate, None) for candidate in new)
        log.debug("round %d: %.9g to %.9g, %d new of %d columns", number, value, bound, len(new), len(columns))
        if not new and not smooth:
            break
        smooth = bool(new)
    return Generated(tuple(columns), bound, value, relaxation.device_price, priced)


def _cheapest(pricer_list: Iterable[Pricer], device_price: Floats) -> list[tuple[float, Candidate]]:
    """Return the cheapest pipeline of a DNN per number of stages, with its cost per request/s."""
    best: dict[int, tuple[float, Candidate]] = {}
    for pricer in pricer_list:
        for cost, candidate in pricer.cheapest(device_price):
            stages = len(candidate.devices)
            if stages not in best or cost < best[stages][0]:
                best[stages] = cost, candidate
    return list(best.values())


def _bound(
    found: Sequence[Sequence[tuple[float, Candidate]]], weights: Floats, counts: Floats, device_price: Floats
) -> float:
    """Return what prices prove, given the cheapest pipelines at them."""
    cheapest = np.array([min(cost for cost, _ in options) for options in found])
    spent = float(weights @ cheapest)
    return float(device_price @ counts) / spent if spent > 0 else inf


def _cost(candidate: Candidate, device_price: Floats) -> float:
    """Return what a request/s on a candidate costs."""
    return sum(
        float(device_price[device]) / (int(share) * slice_rps)
        for device, share, slice_rps in zip(candidate.devices, candidate.shares, candidate.slice_rps, strict=True)
    )


def _enriched(
    problem: Problem, priced: Sequence[Sequence[Pricer]], generated: Generated, clock: Clock
) -> list[Candidate]:
    """Return the columns with those of perturbed prices and all one-stage pipelines."""
    rng = np.random.default_rng(SEED)
    columns = dict.fromkeys(generated.columns)
    floor = 0.01 * generated.device_price.max()
    for _ in range(PERTURBATIONS):
        if clock.over:
            break
        noise = np.exp(rng.normal(0.0, SPREAD, len(generated.device_price)))
        price = np.maximum(generated.device_price, floor) * noise
        for pricer_list in priced:
            columns.update((candidate, None) for _, candidate in _cheapest(pricer_list, price))
    whole = replace(problem, options=replace(problem.options, max_stages=1))
    for number, dnn in enumerate(problem.dnns):
        columns.update(dict.fromkeys(enumerate_candidates(whole, number, dnn.np_throughput_rps or 0.0)))
    return list(columns)


def _polished(problem: Problem, columns: Sequence[Candidate], best: Sizing, backend: str, clock: Clock) -> Sizing:
    """Return the plan of the mixed-integer programme over the columns where it is better."""
    try:
        few = len(problem.dnns) <= FEW_DNNS
        limits = clock.at_most(POLISH_LIMIT_S).remaining() if few else clock.within(Limits(time_limit_s=POLISH_LIMIT_S))
        found = milp.size(problem, columns, backend, limits, begin=best)
    except InputError:  # no plan in the time given
        return best
    return found if found.value(problem) > best.value(problem) else best
