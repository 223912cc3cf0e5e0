"""The main plan as a mixed-integer linear programme over candidates (PPipe, ATC'25, section 5).

Sets
    d   DNNs;  g  device types;  p  positions in a pipeline
    c   candidates (`planner.planning.pipelines.candidates`), each of one DNN; stage s = p of c runs on type g(c, s),
        in shares of 1/k(c, s)

Parameters
----------
    x_{c,s}    what one slice of stage s of candidate c sustains (requests/s)
    count_g    devices of type g;  count_g · k slices of 1/k
    w_d        weight of DNN d

Variables
    y_c >= 0           throughput of candidate c                                         ``rate[d/c]``
    n_{c,s} integer    slices of its stage s                                             ``slices[d/c,s]``
    N_{d,p,g} integer  whole devices of type g at position p of DNN d                    ``whole[d,p,g]``
    Y_d, U_g           throughput of DNN d, devices of type g in use                     ``throughput[d]``, ``used[g]``

Objective, by default: maximise z with w_d · z <= Y_d for every d (PPipe's weighted max-min throughput, ATC'25
section 5); the others are in `planner.planning.programme.objectives`.

Constraints
    throughput[d]     Y_d <= sum of y_c over the candidates of d
    capacity[d/c,s]   y_c <= x_{c,s} · n_{c,s}
    whole[d,p,g]      sum of n_{c,s} / k(c, s) over the stages s = p on g <= N_{d,p,g}
    devices[g]        sum of N_{d,p,g} over d and p <= U_g <= count_g

Where such sums do not say what fits on devices, layouts take their place (`planner.planning.programme.pools`). With
shared devices (``options.device_sharing``) the rows of a type stand for all d and p together.

A stage that runs batches in parts (``options.stage_batches``), or several processes in a segment, takes its slices in
groups of as many: its column ``slices`` counts groups, and x, 1/k and count_g · k are those of a group.

Deviation: PPipe's own programme holds cuts, batch sizes and shares as binaries, with one configuration per sequence of
device types. Candidates carry those choices, so this one contains all of its plans, and plans with several
configurations per sequence.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import inf

import numpy as np

from planner.model import InputError, Problem
from planner.model.objective import MAXIMISED
from planner.model.placing import Pool, pool_of
from planner.model.problem import GIVEN_RATES
from planner.model.segments import Kind, kind_of, processes
from planner.planning.pipelines.candidates import Candidate
from planner.planning.pipelines.sizing import Report, Sized, Sizing
from planner.planning.programme.backends import Clock, Interrupted, Limits, Start, TooLarge, TooLate, solve
from planner.planning.programme.linear import LinearModel, Solution, Status
from planner.planning.programme.objectives import PlanColumns, set_objective
from planner.planning.programme.pools import PoolColumns, add_pool
from planner.planning.programme.relaxation import Relaxation, affordable, most_slices, overloaded, relax, unit_losses

log = logging.getLogger(__name__)

ROUNDING = 1e-9
AT_ONCE = 320  # up to so many candidates are solved at once, more in two steps
SHORTLIST = 80  # candidates in the first, quick step
SHORTLIST_LIMITS = Limits(gap=1e-4, time_limit_s=3.0)
PER_SECOND = 1_000  # candidates that a solver gets per second left: what prepares larger models looks at no clock

TROUBLE = (
    "the solver ended without a plan and without a reason (numerical trouble); try another --backend, or bring rates, "
    "weights and prices closer together"
)


WHOLE_DEVICES = "the rates asked for cannot be served with whole devices; add devices, or ask for less"


Segments = Mapping[Pool, Mapping[Kind, Sequence[tuple[int, Fraction]]]]  # terms (column, segments per unit)


@dataclass
class Formulation:
    """The model of a problem's plan and the numbers of its columns."""

    problem: Problem
    candidates: Sequence[Candidate]
    model: LinearModel = field(default_factory=LinearModel)
    throughput: list[int] = field(default_factory=list)
    used: list[int] = field(default_factory=list)
    rate: list[int] = field(default_factory=list)
    slices: list[tuple[int, ...]] = field(default_factory=list)
    pools: dict[Pool, list[PoolColumns]] = field(default_factory=dict)
    clock: Clock = field(default_factory=lambda: Clock(Limits()))
    asked: tuple[float, ...] = ()  # the part of each DNN's rate that was asked for, where rates were raised


def build(problem: Problem, candidates: Sequence[Candidate], clock: Clock | None = None) -> Formulation:
    """Return the mixed-integer programme over the candidates; raises TooLate where a clock is over before."""
    raised = with_rates_of_a_slice(problem, candidates)
    asked = tuple(
        dnn.rate_rps / more.rate_rps if dnn.rate_rps and more.rate_rps else 1.0
        for dnn, more in zip(problem.dnns, raised.dnns, strict=True)
    )
    formulation = Formulation(raised, candidates, clock=clock or Clock(Limits()), asked=asked)
    add_totals(formulation)
    _add_columns(formulation)
    add_throughput_rows(formulation)
    _add_capacity_rows(formulation)
    add_pools(formulation, _segments(formulation))
    add_objective(formulation)
    return formulation


def with_rates_of_a_slice(problem: Problem, candidates: Sequence[Candidate]) -> Problem:
    """Return the problem with rates raised to what any pipeline serves, which changes no plan's worth.

    A rate far below that would be served by so small a part of a slice that a solver takes it for none. As any one
    pipeline serves the raised rate, requests go to pipelines in the same parts; their joules and accuracy count for the
    part that was asked for.
    """
    if problem.options.objective not in GIVEN_RATES:
        return problem
    least = _least_rps(candidates)
    dnns = (
        dnn
        if dnn.rate_rps is None
        else replace(dnn, rate_rps=max(dnn.rate_rps, least.get(number, 0.0) * (1 - ROUNDING)))
        for number, dnn in enumerate(problem.dnns)
    )
    return replace(problem, dnns=tuple(dnns))


def _with_weights_of_a_slice(problem: Problem, candidates: Sequence[Candidate], bound: float) -> Problem:
    """Return the problem with weights at which any pipeline of a DNN is worth the bound, where they are less.

    The least of all DNNs is at most the bound, so that this changes no plan's value, but it keeps integers from being
    so small a part of 1 that a solver takes them for 0.
    """
    if problem.options.objective != "max_min_throughput" or not 0 < bound < inf:
        return problem
    least = _least_rps(candidates)
    weights = (max(dnn.weight, least.get(number, 0.0) / bound) for number, dnn in enumerate(problem.dnns))
    return replace(problem, dnns=tuple(replace(d, weight=w) for d, w in zip(problem.dnns, weights, strict=True)))


def _least_rps(candidates: Sequence[Candidate]) -> dict[int, float]:
    """Return the least that a pipeline of each DNN serves."""
    least: dict[int, float] = {}
    for candidate in candidates:
        rps = min(group * rps for group, rps in zip(candidate.groups, candidate.slice_rps, strict=True))
        least[candidate.dnn] = min(rps, least.get(candidate.dnn, rps))
    return least


def add_totals(formulation: Formulation) -> None:
    """Add the columns Y_d and U_g; the limit count_g is a bound of U_g."""
    problem, model = formulation.problem, formulation.model
    types = problem.cluster.device_types
    formulation.throughput = [model.add_column(f"throughput[{dnn.name}]") for dnn in problem.dnns]
    formulation.used = [model.add_column(f"used[{device.name}]", upper=device.count) for device in types]


def _add_columns(formulation: Formulation) -> None:
    problem, model = formulation.problem, formulation.model
    for number, candidate in enumerate(formulation.candidates):
        formulation.clock.expect_time()
        name = f"{problem.dnns[candidate.dnn].name}/{number}"
        formulation.rate.append(model.add_column(f"rate[{name}]"))
        formulation.slices.append(
            tuple(
                model.add_column(f"slices[{name},{stage}]", upper=most // group, integer=True)
                for stage, (most, group) in enumerate(
                    zip(most_slices(problem, candidate), candidate.groups, strict=True)
                )
            )
        )


def add_throughput_rows(formulation: Formulation) -> None:
    """Add Y_d <= sum of y_c."""
    rates = defaultdict(list)
    for candidate, rate in zip(formulation.candidates, formulation.rate, strict=True):
        rates[candidate.dnn].append((rate, -1.0))
    for index, dnn in enumerate(formulation.problem.dnns):
        terms = [(formulation.throughput[index], 1.0), *rates[index]]
        formulation.model.add_row(f"throughput[{dnn.name}]", terms, upper=0.0)


def _add_capacity_rows(formulation: Formulation) -> None:
    """Add y_c <= x_{c,s} · n_{c,s}, where x is at most the rate asked for: no more is of use."""
    given = formulation.problem.options.objective in GIVEN_RATES
    for number, (candidate, rate, slices) in enumerate(
        zip(formulation.candidates, formulation.rate, formulation.slices, strict=True)
    ):
        formulation.clock.expect_time()
        name = f"{formulation.problem.dnns[candidate.dnn].name}/{number}"
        most_rps = formulation.problem.dnns[candidate.dnn].rate_rps if given else None
        group_rps = (
            min(group * rps, most_rps or inf) for group, rps in zip(candidate.groups, candidate.slice_rps, strict=True)
        )
        for stage, (column, rps) in enumerate(zip(slices, group_rps, strict=True)):
            formulation.model.add_row(f"capacity[{name},{stage}]", [(rate, 1.0), (column, -rps)], upper=0.0)


def _segments(formulation: Formulation) -> Segments:
    members: defaultdict[Pool, defaultdict[Kind, list[tuple[int, Fraction]]]] = defaultdict(lambda: defaultdict(list))
    for candidate, slices in zip(formulation.candidates, formulation.slices, strict=True):
        formulation.clock.expect_time()
        for position, (column, share, group) in enumerate(zip(slices, candidate.shares, candidate.groups, strict=True)):
            pool = _pool(formulation.problem, candidate, position)
            members[pool][kind_of(share)].append((column, Fraction(group, processes(share))))
    return members


def add_pools(formulation: Formulation, segments: Segments) -> None:
    """Add the rows of every pool, of ``segments`` in terms of columns, and sum of its devices <= U_g."""
    problem, model = formulation.problem, formulation.model
    devices: dict[str, list[tuple[int, float]]] = {device.name: [] for device in problem.cluster.device_types}
    for pool, own in sorted(segments.items()):
        device, dnn, position = pool
        name = f"{dnn},{position},{device}" if dnn else device
        columns = add_pool(model, name, problem.cluster.device(device), own)
        formulation.pools[pool] = columns
        devices[device] += (term for one in columns for term in one.devices)
    for (name, terms), used in zip(devices.items(), formulation.used, strict=True):
        model.add_row(f"devices[{name}]", [*terms, (used, -1.0)], upper=0.0)


def add_objective(formulation: Formulation) -> None:
    """Give the programme the problem's objective, and the rows that this needs."""
    own = formulation
    columns = PlanColumns(own.throughput, own.used, own.rate, own.candidates, own.slices, own.asked)
    set_objective(own.model, own.problem, columns)


def _pool(problem: Problem, candidate: Candidate, position: int) -> Pool:
    device = problem.cluster.device_types[candidate.devices[position]].name
    return pool_of(problem.options.device_sharing, device, problem.dnns[candidate.dnn].name, position)


def extract(formulation: Formulation, solution: Solution, bound: float, backend: str) -> Sizing:
    """Return the plan in a solution: pipelines trimmed to the slices that their throughput needs, and its layouts."""
    found = []
    for candidate, columns in zip(formulation.candidates, formulation.slices, strict=True):
        counts = (round(solution.values[column]) for column in columns)
        slices = tuple(group * count for group, count in zip(candidate.groups, counts, strict=True))
        if min(slices) > 0:
            found.append(Sized(candidate, slices).trimmed())
    layouts = {
        pool: tuple(
            dict(zip(one.geometry.kinds, layout, strict=True))
            for one in columns
            for layout, column in one.layouts.items()
            for _ in range(round(solution.values[column]))
        )
        for pool, columns in formulation.pools.items()
        if any(one.layouts for one in columns)
    }
    return Sizing(tuple(found), bound, backend, layouts)


def start_from(formulation: Formulation, plan: Sizing) -> Start:
    """Return the integer columns' values in a plan, for a solver to begin from."""
    slices = {sized.candidate: sized.slices for sized in plan.merged().pipelines}
    start: dict[int, float] = {}
    segments: defaultdict[Pool, Counter[Kind]] = defaultdict(Counter)
    for candidate, columns in zip(formulation.candidates, formulation.slices, strict=True):
        counts = slices.get(candidate, (0,) * len(columns))
        start.update(
            zip(columns, (count // group for count, group in zip(counts, candidate.groups, strict=True)), strict=True)
        )
        for position, (share, count) in enumerate(zip(candidate.shares, counts, strict=True)):
            segments[_pool(formulation.problem, candidate, position)][kind_of(share)] += count // processes(share)
    for pool, pool_columns in formulation.pools.items():
        for one in pool_columns:
            start |= one.start(segments[pool], plan.layouts.get(pool))
    return start


def keep_objective(formulation: Formulation, value: float) -> None:
    """Add the row ``objective``: as good as ``value``, up to rounding; another objective can then follow."""
    model = formulation.model
    if model.maximise:
        model.add_row("objective", model.objective_terms, lower=value * (1 - ROUNDING))
    else:
        model.add_row("objective", model.objective_terms, upper=value * (1 + ROUNDING))


def size(
    problem: Problem,
    candidates: Sequence[Candidate],
    backend: str,
    limits: Limits,
    restrict: Callable[[Formulation], object] | None = None,
    begin: Sizing | None = None,
    report: Report | None = None,
) -> Sizing:
    """Return the best sizes of the candidates, to a gap, or until the time is up.

    A large programme is first solved, roughly, over the `SHORTLIST` candidates that the relaxation's prices favour.
    Candidates that lose too much to be in any better plan are then left out, which changes no optimum, and the rest is
    solved from the first plan. Where that is more than a solver can take in the time left, those that lose least are
    solved, and the bound is the relaxation's.

    Parameters
    ----------
    restrict
        May add columns and rows that allow fewer plans.
    begin
        A plan known already, in place of the first, rough one. The candidates may then lack what only worse plans need.
    report
        Is told every better plan and bound, and when Ctrl-C comes the best.

    Raises
    ------
    InputError
        No sizes satisfy the problem.
    TooLate
        None were found in time.
    """
    clock = Clock(limits)
    relaxation = relax(problem, candidates, clock)
    if relaxation.status == "infeasible":
        raise overloaded(problem, candidates)
    maximised = MAXIMISED[problem.options.objective]
    tighter = min if maximised else max
    modelled = _with_weights_of_a_slice(problem, candidates, relaxation.bound)
    first, kept = begin, candidates
    status: Status = "no solution"
    last, complete = None, False

    def tell(found: Sizing) -> None:
        if report is not None:
            report(replace(found, bound=tighter(relaxation.bound, found.bound) if complete else relaxation.bound))

    try:
        if first is None and len(candidates) > AT_ONCE and not problem.options.limits_accuracy:
            order = np.argsort(unit_losses(problem, candidates, relaxation), kind="stable")
            shortlist = [candidates[number] for number in order[:SHORTLIST]]
            first, status = _solve(modelled, shortlist, backend, clock.within(SHORTLIST_LIMITS), None, restrict, tell)
        if first is not None:
            tell(first)
        if first is not None and begin is None:
            kept = affordable(problem, candidates, relaxation, first.value(problem), first.candidates, clock)
        taken = _in_time(problem, kept, relaxation, clock)
        complete = len(taken) == len(kept)
        last, status = _solve(modelled, taken, backend, clock.remaining(), first, restrict, tell)
    except TooLate:
        log.info("no time to build the programme over %d candidates", len(kept))
    found = [sizing for sizing in (last, first) if sizing is not None]  # of equal ones, the solver's
    if not found:
        if status == "infeasible" and complete:
            raise InputError(_without_plan(problem))
        late = clock.over or limits.time_limit_s is not None
        raise TooLate(bound=relaxation.bound) if late else InputError(TROUBLE)
    best = (max if maximised else min)(found, key=lambda sizing: sizing.value(problem))
    proven = tighter(relaxation.bound, last.bound) if last is not None and complete else relaxation.bound
    return replace(best, bound=proven)


def _without_plan(problem: Problem) -> str:
    """Return why a programme has no solution; one without rates to serve has that of no pipelines."""
    if problem.options.objective not in GIVEN_RATES:
        return TROUBLE
    limits = {"budget_per_hour": problem.options.budget_per_hour, "min_accuracy": problem.options.min_accuracy}
    stated = [name for name, limit in limits.items() if limit is not None]
    return WHOLE_DEVICES + (f", or change {' or '.join(stated)}" if stated else "")


def _in_time(
    problem: Problem, candidates: Sequence[Candidate], relaxation: Relaxation, clock: Clock
) -> Sequence[Candidate]:
    """Return what a solver can be given in the time left: the candidates that lose least, and the best of every DNN."""
    left_s = clock.remaining().time_limit_s
    most = len(candidates) if left_s is None else max(AT_ONCE, int(PER_SECOND * left_s))
    if len(candidates) <= most:
        return candidates
    order = np.argsort(unit_losses(problem, candidates, relaxation), kind="stable")
    _, best = np.unique([candidates[number].dnn for number in order], return_index=True)
    return [candidates[number] for number in np.union1d(order[:most], order[best])]


def _solve(
    problem: Problem,
    candidates: Sequence[Candidate],
    backend: str,
    limits: Limits,
    begin: Sizing | None,
    restrict: Callable[[Formulation], object] | None,
    report: Report,
) -> tuple[Sizing | None, Status]:
    """Build, solve and extract; a model that is too large for the solver's licence is solved by HiGHS."""
    clock = Clock(limits)
    formulation = build(problem, candidates, clock)
    if restrict is not None:
        restrict(formulation)
    start = start_from(formulation, begin) if begin else None

    def tell(solution: Solution) -> None:
        if solution.found:
            report(extract(formulation, solution, solution.bound, backend))

    try:
        try:
            solution, name = solve(formulation.model, backend, clock.remaining(), start, tell)
        except TooLarge as error:
            log.warning("%s; HiGHS solves this one", error)
            solution, name = solve(formulation.model, "highs", clock.remaining(), start, tell)
    except Interrupted as stopped:
        tell(stopped.solution)
        raise
    return extract(formulation, solution, solution.bound, name) if solution.found else None, solution.status
