"""What can be served of a problem that cannot be served whole, and what every other DNN would need.

DNNs that no pipeline serves within their SLO are left out. Rates that are too much are served at their largest common
share. Where devices are too few for all DNNs, as many are served as can be: with the sets a of devices that DNN d needs
at least (of each type u_{d,a,g}: whole devices, or parts of one where DNNs share them), the programme

    maximise sum over d, a of y_{d,a}     subject to     sum over a of y_{d,a} <= 1              for every d
                                                         sum over d, a of u_{d,a,g} · y_{d,a} <= count_g   for every g

picks them, the weightier of equally many.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from math import ceil
from typing import Any

from planner.model import Dnn, InputError, Plan, Problem
from planner.model.objective import MAXIMISED, needed_rate_rps
from planner.model.plan import Scheduler
from planner.planning.answers.explain import servable
from planner.planning.api import make_plan
from planner.planning.baselines import unpartitioned, with_x0
from planner.planning.pipelines.candidates import Candidate, enumerate_candidates
from planner.planning.programme.backends import Clock, Limits, TooLate, solve
from planner.planning.programme.linear import LinearModel

MOST_SETS = 4  # that a reason names

Devices = tuple[Fraction, ...]  # in the order of the cluster's types


@dataclass(frozen=True)
class BestEffort:
    """The part of a problem that is planned, its plan, and by DNN why it is not served as asked, and what it needs."""

    problem: Problem
    plan: Plan
    not_served: Mapping[str, str]


def plan_best_effort(problem: Problem, scheduler: Scheduler = "pipelines", **options: Any) -> BestEffort:
    """Return the best plan of what can be served, and what cannot be.

    Parameters
    ----------
    options
        As of `make_plan`.

    Raises
    ------
    InputError
        Nothing can be served, or the time was up before any plan was found.

    Examples
    --------
    Two DNNs want an L4 of their own, and there is one:

    >>> from planner.model import *
    >>> table = LatencyTable("L4", 1, (1,), ((6000,),), Provenance("measured", "by hand"))
    >>> profile = Profile("toy", (Block(("a",)),), (), (table,))
    >>> dnns = (Dnn("first", 20_000, (profile,), weight=2.0), Dnn("second", 20_000, (profile,)))
    >>> found = plan_best_effort(Problem(Cluster((DeviceType("L4", 1),), Network(10)), dnns))
    >>> [dnn.name for dnn in found.problem.dnns]
    ['first']
    >>> print(found.not_served["second"])  # doctest: +NORMALIZE_WHITESPACE
    devices are too few: its SLO of 20.00 ms needs at least 1 L4 (166.7 requests/s), and 1 L4 serve 1 of 2 DNNs; add as
    many, or plan fewer DNNs
    """
    clock = Clock(Limits(time_limit_s=options.get("time_limit_s")))
    left, reasons = servable(problem, clock.part(1 / 2))

    def planned(some: Problem) -> Plan:
        return make_plan(some, scheduler, **{**options, "time_limit_s": clock.remaining().time_limit_s})

    try:
        return BestEffort(left, planned(left), reasons)
    except TooLate:
        raise
    except InputError as error:
        refused = str(error)
    if not MAXIMISED[left.options.objective]:
        left = _by_rates(left)
    try:
        made = planned(left)
    except TooLate:
        raise
    except InputError:
        left, made, too_few = _without_some(left, scheduler, clock, planned)
        reasons |= too_few
    if left.options.objective != problem.options.objective:
        reasons |= {
            dnn.name: f"{made.throughput_rps(dnn.name):.4g} of the {dnn.weight:.4g} requests/s asked for ({refused})"
            for dnn in left.dnns
        }
    return BestEffort(left, made, reasons)


def _by_rates(problem: Problem) -> Problem:
    """Return the problem whose optimum serves the largest common share of all rates."""
    dnns = tuple(replace(dnn, weight=needed_rate_rps(dnn, problem.options.objective)) for dnn in problem.dnns)
    return replace(problem, dnns=dnns, options=replace(problem.options, objective="max_min_throughput"))


def _without_some(
    problem: Problem, scheduler: Scheduler, clock: Clock, planned: Callable[[Problem], Plan]
) -> tuple[Problem, Plan, dict[str, str]]:
    """Return the problem of as many DNNs as the devices are enough for, its plan, and what the others need."""
    whole = problem if scheduler == "pipelines" else unpartitioned(problem)
    known = with_x0(whole, limits=clock.part(1 / 2))
    sets = [_least_devices(known, number) for number in range(len(known.dnns))]
    try:
        left = problem.with_dnns(_served_together(problem, [tuple(own) for own in sets]))
        made = planned(left)
    except TooLate:
        raise
    except InputError:  # parts of devices add up to less than layouts allow: whoever earns most is served
        weighted = replace(problem, options=replace(problem.options, objective="max_weighted_throughput"))
        chosen = planned(weighted)
        left = problem.with_dnns(tuple(dnn for dnn in problem.dnns if chosen.of(dnn.name)))
        made = planned(left)
    served = {dnn.name for dnn in left.dnns}
    there = " + ".join(f"{device.count} {device.name}" for device in problem.cluster.device_types if device.count)
    reasons = {
        dnn.name: (
            f"devices are too few: its SLO of {dnn.slo_us / 1000:.2f} ms{_rate(dnn)} needs at least "
            f"{_text(problem, own)}, and {there} serve {len(served)} of {len(problem.dnns)} DNNs; "
            "add as many, or plan fewer DNNs"
        )
        for dnn, own in zip(problem.dnns, sets, strict=True)
        if dnn.name not in served
    }
    return left, made, reasons


def _rate(dnn: Dnn) -> str:
    return f" at the {dnn.rate_rps:.4g} requests/s asked for" if dnn.rate_rps is not None else ""


def _least_devices(problem: Problem, number: int) -> dict[Devices, float]:
    """Return the sets of devices that can serve a DNN and hold no other such set, and how much each serves at most."""
    served_rps: dict[Devices, float] = {}
    for candidate in enumerate_candidates(problem, number, problem.dnns[number].np_throughput_rps or 0.0):
        used = _used(problem, candidate)
        rate_rps = min(groups * rps for groups, rps in zip(candidate.groups, candidate.slice_rps, strict=True))
        served_rps[used] = max(served_rps.get(used, 0.0), rate_rps)
    return {
        used: rate_rps
        for used, rate_rps in sorted(served_rps.items(), key=lambda one: (sum(one[0]), -one[1]))
        if not any(other != used and all(a <= b for a, b in zip(other, used, strict=True)) for other in served_rps)
    }


def _used(problem: Problem, candidate: Candidate) -> Devices:
    """Return what the fewest slices of a candidate take of each type; where DNNs share no devices, whole ones."""
    used = [Fraction(0)] * len(problem.cluster.device_types)
    for device, share, groups in zip(candidate.devices, candidate.shares, candidate.groups, strict=True):
        parts = groups * problem.cluster.device_types[device].fraction(share)
        used[device] += ceil(parts) if problem.options.device_sharing == "own" else parts
    return tuple(used)


def _served_together(problem: Problem, sets: Sequence[Sequence[Devices]]) -> tuple[Dnn, ...]:
    """Return as many DNNs as the devices are enough for, by the sets that each may have."""
    model = LinearModel(maximise=True)
    total = sum(dnn.weight for dnn in problem.dnns)
    terms: list[list[tuple[int, float]]] = [[] for _ in problem.cluster.device_types]
    first = [0]
    for dnn, own in zip(problem.dnns, sets, strict=True):
        worth = 1 + dnn.weight / (2 * total)  # the weights of all together do not make up for one DNN
        columns = [
            model.add_column(f"{dnn.name}[{at}]", upper=1, objective=worth, integer=True) for at in range(len(own))
        ]
        model.add_row(f"once[{dnn.name}]", [(column, 1.0) for column in columns], upper=1)
        for column, used in zip(columns, own, strict=True):
            for needed, parts in zip(terms, used, strict=True):
                if parts:
                    needed.append((column, float(parts)))
        first.append(first[-1] + len(own))
    for device, needed in zip(problem.cluster.device_types, terms, strict=True):
        model.add_row(f"devices[{device.name}]", needed, upper=device.count)
    solution, _ = solve(model)
    return tuple(
        dnn
        for dnn, (begin, end) in zip(problem.dnns, pairwise(first), strict=True)
        if any(value > 0.5 for value in solution.values[begin:end])
    )


def _text(problem: Problem, sets: Mapping[Devices, float]) -> str:
    """Write sets of devices as ``1 L4 (250 requests/s), or 1 T4 + 2 P4 (40 requests/s)``."""
    names = [device.name for device in problem.cluster.device_types]
    ways = [
        f"{' + '.join(f'{parts} {name}' for parts, name in zip(used, names, strict=True) if parts)} "
        f"({rate_rps:.4g} requests/s)"
        for used, rate_rps in list(sets.items())[:MOST_SETS]
    ]
    return ", or ".join(ways) + (f", or one of {len(sets) - MOST_SETS} other sets" if len(sets) > MOST_SETS else "")
