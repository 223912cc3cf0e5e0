"""Which method sizes the pipelines of a problem, or NP's plan, and the plans that they begin with and are held against.

A plan to begin with is there before anything else (`planner.planning.baselines.start`); methods, NP's plan and tidying
up then share the time that is left, so that there is an answer whenever it is over.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import isclose

from planner.model import InputError, Problem
from planner.model.objective import MAXIMISED
from planner.planning.answers.canonical import canonical
from planner.planning.baselines import better_of, size_np_closed_form, unpartitioned
from planner.planning.pipelines.candidates import Candidate, best_of_segments, enumerate_candidates
from planner.planning.pipelines.reach import unreachable
from planner.planning.pipelines.sizing import Sizing
from planner.planning.programme.backends import Clock, Limits, Report, TooLate
from planner.planning.programme.block_bound import block_bound
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
BEGIN_NP_SECONDS, BEGIN_COLUMNS_SECONDS = 10.0, 6.0  # for the plans that others are compared with, or begin with
CANONICAL_METHODS = ("dynamic",)  # whose plans have the fewest devices, then pipelines, by themselves
NP_SHARE, NP_SECONDS = 0.2, 2.0  # of a limited time, what is kept for NP's plan: this share, but no more than that


def size_pipelines(
    problem: Problem, method: str, backend: str, clock: Clock, start: Sizing | None, progress: Report | None
) -> tuple[Sizing, str]:
    """Return the pipelines found, or NP's plan, which is one of theirs, where that is better or nothing else was found.

    A plan to begin with is kept. Where time is limited, a part of it is NP's: before a programme, which
    may take longer than it is given, else what the other method leaves.
    """
    limit_s = clock.remaining().time_limit_s
    if limit_s is not None and not (method in ("auto", "decomposition") and decomposition.admits(problem)):
        start = _better_by_np(problem, start, backend, clock.at_most(min(NP_SHARE * limit_s, NP_SECONDS)))
    sizing, bound, used = start, None, "start"
    try:
        found, used = _by_method(problem, method, backend, clock.sparing(NP_SHARE, NP_SECONDS), start, progress)
        bound = found.bound
        sizing = better_of(problem, found, start) or found
        if used == "decomposition" and found.pipelines:  # it begins with NP's plan
            return replace(sizing, bound=bound), used
    except TooLate as late:
        log.info("no pipelines in the time given; NP's plan is taken")
        bound = late.bound
    if bound is not None and sizing and (_proven(problem, sizing, bound, clock) or _beyond_np(problem, sizing)):
        return replace(sizing, bound=bound), used
    try:
        whole, _ = size_np(problem, "auto", backend, clock.at_most(BEGIN_NP_SECONDS), start, None)
        sizing = better_of(problem, sizing, whole) or sizing or whole
    except InputError:  # NP cannot serve all of them, or not in the time that was left
        if sizing is None:
            raise TooLate from None
    return replace(sizing, bound=block_bound(problem) if bound is None else bound), used


def _proven(problem: Problem, sizing: Sizing, bound: float, clock: Clock) -> bool:
    return isclose(bound, sizing.value(problem), rel_tol=clock.remaining().gap, abs_tol=1e-12)


def _beyond_np(problem: Problem, sizing: Sizing) -> bool:
    """Tell whether no plan of NP is better than this one, by what NP's relaxation cannot exceed."""
    whole = unpartitioned(problem)
    try:
        bound = relax(whole, all_candidates(whole)).bound
    except InputError:  # NP cannot serve all of them
        return True
    value = sizing.value(problem)
    return bound <= value if MAXIMISED[problem.options.objective] else bound >= value


def _better_by_np(problem: Problem, start: Sizing | None, backend: str, clock: Clock) -> Sizing | None:
    """Return NP's plan where it is better than the one to begin with, or there is none yet."""
    try:
        return better_of(problem, start, size_np(problem, "auto", backend, clock, start, None)[0])
    except InputError:  # NP cannot serve all of them, or not in that time
        return start


def _by_method(
    problem: Problem, method: str, backend: str, clock: Clock, start: Sizing | None, progress: Report | None
) -> tuple[Sizing, str]:
    if problem.options.limited:
        method = "milp"
    if problem.options.stage_batches:  # the other methods know one batch size per pipeline
        if method not in ("auto", "milp"):
            raise InputError(f"stage_batches is for method milp, got {method}")
        method = "milp"
    if method == "auto" and decomposition.admits(problem):
        method = _method_for(problem)
    candidates = [] if method in ("columns", "decomposition") else all_candidates(problem, clock)
    if method == "auto":
        method = "dynamic" if dynamic.admits(problem, candidates) else "milp"
        if method == "milp" and decomposition.admits(problem):  # two device types, too many devices for tables
            method = _by_devices(problem)
    if method == "columns":
        found = columns.size(problem, backend, clock.remaining(), progress)
        return _tidied(problem, _or_chains(problem, found, clock), backend, clock), method
    if method == "decomposition":
        return _decomposed(problem, backend, clock, start, progress), method
    log.info("%d candidates, method %s", len(candidates), method)
    sizing = METHODS[method](problem, candidates, backend, clock.remaining(), progress)
    if method not in CANONICAL_METHODS:
        sizing = canonical(problem, candidates, sizing, backend, clock.remaining())
    return sizing, method


def _method_for(problem: Problem) -> str:
    """Return the method for an objective that the decomposition knows; ``auto``: the dynamic programme may apply."""
    if not columns.admits(problem):
        return "decomposition"
    pipelines = columns.enumeration_size(problem)
    types = problem.cluster.device_types
    few_types = len(types) <= dynamic.TYPES
    if pipelines > (ENUMERABLE_EXACT if few_types else ENUMERABLE):
        method = "columns"
    elif few_types:
        method = "auto"
    else:
        method = _by_devices(problem)
    log.info("%d pipelines, %d device types: %s", pipelines, len(types), method)
    return method


def _by_devices(problem: Problem) -> str:
    return "decomposition" if _devices_per_dnn(problem) <= MANY_PER_DNN else "columns"


def _devices_per_dnn(problem: Problem) -> float:
    return sum(device.count for device in problem.cluster.device_types) / len(problem.dnns)


def _decomposed(problem: Problem, backend: str, clock: Clock, start: Sizing | None, progress: Report | None) -> Sizing:
    begin = _to_begin_with(problem, backend, clock, start)
    try:
        found = decomposition.size(problem, clock.remaining(), begin=begin, report=progress)
    except TooLate:
        if begin is None:
            raise
        found = replace(begin, bound=block_bound(problem))
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


def _to_begin_with(problem: Problem, backend: str, clock: Clock, start: Sizing | None) -> Sizing | None:
    """Return NP's plan, or that of generated columns where devices are many; None where neither serves all DNNs.

    No plan is worse than what the decomposition begins with.
    """
    found = [start]
    try:
        limits = clock.within(Limits(1e-4, BEGIN_NP_SECONDS))
        found.append(decomposition.size(unpartitioned(problem), limits, begin=start))
    except InputError as error:
        log.info("NP has no plan: %s", error)
    if columns.admits(problem) and _devices_per_dnn(problem) > SOME_PER_DNN and not clock.over:
        found.append(columns.size(problem, backend, clock.within(Limits(1e-4, BEGIN_COLUMNS_SECONDS))))
    return better_of(problem, *found)


def size_np(
    problem: Problem, method: str, backend: str, clock: Clock, start: Sizing | None, progress: Report | None
) -> tuple[Sizing, str]:
    """Return NP's plan: the method's, or the one to begin with where that is better, or the time is up."""
    if method == "closed-form":
        return size_np_closed_form(problem), method
    whole = unpartitioned(problem)
    try:
        found, used = _size_whole(whole, method, backend, clock, start, progress)
        return replace(better_of(whole, found, start) or found, bound=found.bound), used
    except TooLate as late:
        if start is None:
            raise
        return replace(start, bound=block_bound(whole) if late.bound is None else late.bound), "start"


def _size_whole(
    whole: Problem, method: str, backend: str, clock: Clock, start: Sizing | None, progress: Report | None
) -> tuple[Sizing, str]:
    if whole.options.limited:
        method = "milp"
    if method == "auto" and decomposition.admits(whole):
        method = _method_for(whole)
    if method == "columns":
        return _tidied(whole, columns.size(whole, backend, clock.remaining(), progress), backend, clock), method
    if method == "decomposition":
        found = decomposition.size(whole, clock.remaining(), begin=start, report=progress)
        return _tidied(whole, found, backend, clock), method
    candidates = all_candidates(whole)
    sizing = METHODS["milp"](whole, candidates, backend, clock.remaining(), progress)
    return canonical(whole, candidates, sizing, backend, clock.remaining()), "milp"


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
