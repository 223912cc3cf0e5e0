"""Which method sizes the pipelines of a problem, or NP's plan, and the plans that they begin with and are held against.

A plan to begin with is there before anything else (`planner.planning.baselines.start`); methods, NP's plan and tidying
up then share the time that is left, so that there is an answer whenever it is over.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from math import isclose

from planner.model import InputError, Problem
from planner.model.objective import MAXIMISED
from planner.planning.answers.canonical import canonical
from planner.planning.baselines import better_of, size_np_closed_form, unpartitioned
from planner.planning.incumbent import Incumbent
from planner.planning.pipelines.candidates import Candidate, best_of_segments, enumerate_candidates
from planner.planning.pipelines.reach import unreachable
from planner.planning.pipelines.sizing import Report, Sizing
from planner.planning.programme.backends import Clock, Limits, TooLate
from planner.planning.programme.relaxation import relax
from planner.planning.whole_devices import chains, columns, decomposition, dynamic, narrowed

log = logging.getLogger(__name__)

# Methods over enumerated candidates. ``auto`` and the schedulers' own are told in `make_plan`.
Method = Callable[[Problem, Sequence[Candidate], str, Limits, Report | None], Sizing]
METHODS: Mapping[str, Method] = {"milp": narrowed.size, "dynamic": dynamic.size}
# Up to so many pipelines are listed (for two device types, where the dynamic programme is exact, the second number); a
# hundred million take about 2 s and leave some hundred thousand candidates. Above, they are generated.
ENUMERABLE, ENUMERABLE_EXACT = 100_000_000, 500_000_000
SOME_PER_DNN, MANY_PER_DNN = 25, 150  # devices: generated columns give the plan to begin with, or the plan
LONG = 5  # stages, from which on chains are tried where pipelines are too many to list
DECIDING_SECONDS = 60.0  # for plans and bounds beyond those of generated columns
BEGIN_SECONDS_PER_TYPE = 2.0  # for the plan of columns that the decomposition begins with
CANONICAL_METHODS = ("dynamic",)  # whose plans have the fewest devices, then pipelines, by themselves
# Of a limited time NP's plan gets so many seconds, and then half, up to the second number.
NP_SECONDS, NP_HALF_SECONDS = 5.0, 10.0
NP_FIRST_S = 20.0  # of time left, below which NP's plan comes first even where it is hardly needed


def size_pipelines(problem: Problem, method: str, backend: str, clock: Clock, best: Incumbent) -> tuple[Sizing, str]:
    """Return the pipelines found, or NP's plan, which is one of theirs, where that is better.

    Where time is limited NP's plan is looked for first, as if it had been asked for, so that pipelines are no worse
    than NP in the same time; where devices are many and time is not short, generated columns come before it. Else that
    is done before a decomposition, which begins with it, and after other methods. It is left out where it cannot be
    better.

    Raises
    ------
    TooLate
        The time was up; ``best`` has the best plan and bound so far.
    """
    left_s = clock.remaining().time_limit_s
    np_first = left_s is not None and (left_s < NP_FIRST_S or not _has_many(problem))
    if np_first:
        _offer_np(problem, backend, clock, best)
    try:
        found, used = _by_method(problem, method, backend, clock, best, np_first)
    except TooLate as late:
        if late.bound is not None:
            best.prove(late.bound)
        raise
    best.report(found)
    if not np_first and used != "decomposition" and not _proven(best, clock):
        _offer_np(problem, backend, clock, best)
    simplest = better_of(problem, found, best.plan) or found  # of equal plans, the one that was tidied up
    return replace(simplest, bound=found.bound if best.bound is None else best.bound), used


def _has_many(problem: Problem) -> bool:
    """Tell whether devices are so many that generated columns have a plan at once, mostly one that is beyond NP's."""
    return columns.admits(problem) and _devices_per_dnn(problem) > SOME_PER_DNN


def _offer_np(problem: Problem, backend: str, clock: Clock, best: Incumbent) -> None:
    """Let NP's plan be known, as far as it is found in its part of the time, unless it cannot be better."""
    if clock.over or _beyond_np(problem, best):
        return
    left_s = clock.remaining().time_limit_s
    part_s = NP_HALF_SECONDS if left_s is None else max(NP_SECONDS, min(left_s / 2, NP_HALF_SECONDS))
    try:
        best.offer(size_np(problem, "auto", backend, clock.at_most(part_s), best, best.offer)[0])
    except InputError as error:
        log.info("NP: %s", error)


def _proven(best: Incumbent, clock: Clock) -> bool:
    known = best.plan is not None and best.bound is not None
    return known and isclose(best.bound or 0.0, best.value, rel_tol=clock.remaining().gap, abs_tol=1e-12)


def _beyond_np(problem: Problem, best: Incumbent) -> bool:
    """Tell whether no plan of NP is better than the best, by what NP's relaxation cannot exceed."""
    if best.plan is None or best.method == "start":  # that is a plan of NP
        return False
    whole = unpartitioned(problem)
    try:
        bound = relax(whole, all_candidates(whole)).bound
    except InputError:  # NP cannot serve all of them
        return True
    return bound <= best.value if MAXIMISED[problem.options.objective] else bound >= best.value


def _by_method(
    problem: Problem, method: str, backend: str, clock: Clock, best: Incumbent, np_known: bool
) -> tuple[Sizing, str]:
    if problem.options.limited:
        method = "milp"
    if problem.options.stage_batches:  # the other methods know one batch size per pipeline
        if method not in ("auto", "milp"):
            raise InputError(f"stage_batches is for method milp, got {method}")
        method = "milp"
    if method == "auto" and decomposition.admits(problem):
        method = _method_for(problem, clock)
    if method == "chains":
        best.by = method
        return chains.size(problem, clock.remaining()), method
    candidates = [] if method in ("columns", "decomposition") else all_candidates(problem, clock)
    if method == "auto":
        method = "dynamic" if dynamic.admits(problem, candidates) else "milp"
        if method == "milp" and decomposition.admits(problem):  # two device types, too many devices for tables
            method = _by_devices(problem)
    log.info("%d candidates, method %s", len(candidates), method)
    if method == "columns":
        best.by = method
        found, generated = columns.size(problem, backend, clock.remaining(), best.report)
        best.report(found)
        limits = clock.at_most(DECIDING_SECONDS).remaining()
        found = decomposition.size(problem, limits, begin=best.plan, report=best.report, generated=generated)
        return _tidied(problem, _or_chains(problem, found, clock), backend, clock), method
    if method == "decomposition":
        return _decomposed(problem, backend, clock, best, np_known), method
    best.by = method
    sizing = METHODS[method](problem, candidates, backend, clock.remaining(), best.report)
    if method not in CANONICAL_METHODS:
        sizing = canonical(problem, candidates, sizing, backend, clock.remaining())
    return sizing, method


def _method_for(problem: Problem, clock: Clock) -> str:
    """Return the method for an objective that the decomposition knows; ``auto``: the dynamic programme may apply."""
    if not columns.admits(problem):
        return "decomposition"
    pipelines = columns.enumeration_size(problem)
    types = problem.cluster.device_types
    few_types = len(types) <= dynamic.TYPES
    if pipelines > (ENUMERABLE_EXACT if few_types else ENUMERABLE):
        method = "chains" if problem.options.max_stages >= LONG and chains.exhaust(problem) else "columns"
    elif few_types and dynamic.expects(problem, clock.remaining().time_limit_s):
        method = "auto"
    else:
        method = _by_devices(problem)
    log.info("%d pipelines, %d device types: %s", pipelines, len(types), method)
    return method


def _by_devices(problem: Problem) -> str:
    return "decomposition" if _devices_per_dnn(problem) <= MANY_PER_DNN else "columns"


def _devices_per_dnn(problem: Problem) -> float:
    return sum(device.count for device in problem.cluster.device_types) / len(problem.dnns)


def _decomposed(problem: Problem, backend: str, clock: Clock, best: Incumbent, np_known: bool) -> Sizing:
    """Return the plan of the decomposition, which begins with NP's and, where devices are many, that of columns."""
    best.by = "decomposition"
    if _has_many(problem):
        limits = clock.within(Limits(1e-4, BEGIN_SECONDS_PER_TYPE * len(problem.cluster.device_types)))
        with suppress(TooLate):
            best.report(columns.size(problem, backend, limits, best.report)[0])
    if not np_known:
        _offer_np(problem, backend, clock, best)
    found = decomposition.size(problem, clock.remaining(), begin=best.plan, report=best.report)
    return _tidied(problem, found, backend, clock)


def _or_chains(problem: Problem, found: Sizing, clock: Clock) -> Sizing:
    """Return a plan of long chains where these are better, which columns do not see where devices are few."""
    if not chains.admits(problem) or problem.options.max_stages < LONG:
        return found
    chained = chains.size(problem, clock.remaining())
    better = chained.value(problem) > found.value(problem)
    return replace(found, pipelines=chained.pipelines) if better else found


def _tidied(problem: Problem, sizing: Sizing, backend: str, clock: Clock) -> Sizing:
    """Return the plan with every DNN on the fewest devices that its own pipelines need."""
    in_use = [sized.candidate for sized in sizing.merged().pipelines]
    return canonical(problem, in_use, sizing, backend, clock.remaining())


def size_np(
    problem: Problem, method: str, backend: str, clock: Clock, best: Incumbent, report: Report | None = None
) -> tuple[Sizing, str]:
    """Return NP's plan: the method's, or the one so far where that is better.

    Parameters
    ----------
    report
        Is told plans on the way; by default ``best``, with their bounds.

    Raises
    ------
    TooLate
        The time was up; ``best`` has the best plan so far.
    """
    if method == "closed-form":
        return size_np_closed_form(problem), method
    whole = unpartitioned(problem)
    if whole.options.limited:
        method = "milp"
    if method == "auto":
        method = _method_for(whole, clock) if decomposition.admits(whole) else "milp"
    if method not in ("columns", "decomposition"):
        method = "milp"
    if report is None:
        best.by, report = method, best.report
    if method == "columns":
        found, _ = columns.size(whole, backend, clock.remaining(), report)
    elif method == "decomposition":
        found = decomposition.size(whole, clock.remaining(), begin=best.plan, report=report)
    else:
        candidates = all_candidates(whole)
        found = METHODS["milp"](whole, candidates, backend, clock.remaining(), report)
        return _no_worse(whole, canonical(whole, candidates, found, backend, clock.remaining()), best), method
    return _no_worse(whole, _tidied(whole, found, backend, clock), best), method


def _no_worse(problem: Problem, found: Sizing, best: Incumbent) -> Sizing:
    return replace(better_of(problem, found, best.plan) or found, bound=found.bound)


def all_candidates(problem: Problem, clock: Clock | None = None) -> list[Candidate]:
    """Return the candidates of all DNNs; raises InputError where one has none, TooLate where a clock is over before.

    X0 must be known.
    """
    found: list[Candidate] = []
    reasons: list[str] = []
    for number, dnn in enumerate(problem.dnns):
        if clock is not None:
            clock.expect_time()
        candidates = enumerate_candidates(problem, number, dnn.np_throughput_rps or 0.0)
        if not candidates:
            reasons.append(str(unreachable(problem, number)))
        found += best_of_segments(problem, candidates) if candidates else []
    if len(reasons) > 1:
        reasons[0] = f"{len(reasons)} of {len(problem.dnns)} DNNs cannot be served: {reasons[0]}"
    if reasons:
        raise InputError("; ".join(reasons))
    return found
