"""Which method sizes the pipelines of a problem, or NP's plan, and the plans that they begin with and are held against.

A plan to begin with is there before anything else (`planner.planning.baselines.start`); methods, NP's plan and tidying
up then share the time that is left, so that there is an answer whenever it is over.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from math import inf, isclose

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
# For the plan of columns that the decomposition begins with: where devices are many; and, in a share of the time left
# and at most so many seconds, where a limit is less than good plans of its own may take, by the pipelines to list. Of
# very few DNNs the programme over columns has plans that the decomposition finds much later.
BEGIN_SECONDS_PER_TYPE = 2.0
BEGIN_SHARE, BEGIN_SHARE_OF_FEW, BEGIN_SECONDS, BEGIN_SECONDS_PER_PIPELINE = 0.4, 0.75, 4.0, 1e-6
# What listing them takes at most, and the share of a limited time up to which they are listed.
LISTING_SECONDS_PER_PIPELINE, LISTING_SHARE = 6e-8, 0.5
SHORT_SECONDS = 10.0  # with less of which a good plan comes before good prices in the decomposition, else after them
FEW_DNNS = 12  # up to which columns have a plan sooner than NP is found to a per mille, and mostly a better one
CANONICAL_METHODS = ("dynamic",)  # whose plans have the fewest devices, then pipelines, by themselves
# NP's plan is looked for to such a gap before a method, at most so many seconds, and to its end after the method where
# the best plan is not known to pass it.
NP_GAP, NP_SECONDS = 1e-3, 3.0


def size_pipelines(problem: Problem, method: str, backend: str, clock: Clock, best: Incumbent) -> tuple[Sizing, str]:
    """Return the pipelines found, or NP's plan, which is one of theirs, where that is better.

    NP's plan is looked for to a per mille, which takes a moment, where time is limited or a decomposition begins
    with it. If the best plan does not pass what no plan of NP is better than, NP goes on to its end after the method:
    without a limit pipelines are never below it.

    Raises
    ------
    TooLate
        The time was up; ``best`` has the best plan and bound so far.
    """
    whole = Unpartitioned(problem, backend, best)
    try:
        found, used = _by_method(problem, method, backend, clock, best, whole)
    except TooLate as late:
        if late.bound is not None:
            best.prove(late.bound)
        raise
    best.report(found)
    if not _proven(best, clock):
        whole.end(clock)
    simplest = better_of(problem, found, best.plan) or found  # of equal plans, the one that was tidied up
    return replace(simplest, bound=found.bound if best.bound is None else best.bound), used


def _is_limited(clock: Clock) -> bool:
    return clock.remaining().time_limit_s is not None


def _is_short(clock: Clock) -> bool:
    left_s = clock.remaining().time_limit_s
    return left_s is not None and left_s < SHORT_SECONDS


def _has_many(problem: Problem) -> bool:
    """Tell whether devices are so many that generated columns have a plan at once, mostly one that is beyond NP's."""
    return columns.admits(problem) and _devices_per_dnn(problem) > SOME_PER_DNN


class Unpartitioned:
    """NP's plan, which no plan of pipelines is to be worse than, as far as it can still be better than the best."""

    def __init__(self, problem: Problem, backend: str, best: Incumbent) -> None:
        self._problem, self._backend, self._best = problem, backend, best
        self._maximised = MAXIMISED[problem.options.objective]
        self._begun = False
        self.bound: float | None = None  # what no plan of NP is better than

    def begin(self, clock: Clock) -> None:
        """Let a plan within a per mille of NP's best be known, as far as it is found in its part of the time."""
        if not self._begun and not self._within(NP_GAP):
            part = clock.at_most(NP_SECONDS)
            self._search(replace(part.remaining(), gap=max(NP_GAP, part.remaining().gap)), tidy=False)
        self._begun = True

    def end(self, clock: Clock) -> None:
        """Let NP's plan be known in the time left, unless the best is known to be no worse."""
        if not clock.over and not self._within(0.0):
            self._search(clock.remaining(), tidy=True)

    def _search(self, limits: Limits, tidy: bool) -> None:
        try:
            clock = Clock(limits)
            self._take(size_np(self._problem, "auto", self._backend, clock, self._best, self._take, tidy=tidy)[0])
        except TooLate as late:
            log.info("NP: %s", late)
        except InputError as error:  # NP cannot serve all of them
            log.info("NP: %s", error)
            self._prove(-inf if self._maximised else inf)

    def _take(self, found: Sizing) -> None:
        self._prove(found.bound)
        self._best.offer(found)

    def _prove(self, bound: float) -> None:
        tighter = min if self._maximised else max
        self.bound = bound if self.bound is None else tighter(bound, self.bound)

    def _within(self, gap: float) -> bool:
        """Tell whether the best plan is within a gap of all of NP's, by the relaxation until something is tighter."""
        if self._best.plan is None:
            return False
        if self.bound is None:
            whole = unpartitioned(self._problem)
            try:
                self._prove(relax(whole, all_candidates(whole)).bound)
            except InputError:  # NP cannot serve all of them
                self._prove(-inf if self._maximised else inf)
        assert self.bound is not None
        value = self._best.value
        return value >= self.bound * (1 - gap) if self._maximised else value <= self.bound * (1 + gap)


def _proven(best: Incumbent, clock: Clock) -> bool:
    known = best.plan is not None and best.bound is not None
    return known and isclose(best.bound or 0.0, best.value, rel_tol=clock.remaining().gap, abs_tol=1e-12)


def _by_method(
    problem: Problem, method: str, backend: str, clock: Clock, best: Incumbent, whole: Unpartitioned
) -> tuple[Sizing, str]:
    if problem.options.limited:
        method = "milp"
    if problem.options.stage_batches:  # the other methods know one batch size per pipeline
        if method not in ("auto", "milp"):
            raise InputError(f"stage_batches is for method milp, got {method}")
        method = "milp"
    if method == "auto" and decomposition.admits(problem):
        method = _method_for(problem, clock)
    if method != "decomposition" and _is_limited(clock) and not _has_many(problem):
        whole.begin(clock)
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
        return _decomposed(problem, backend, clock, best, whole), method
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
    elif not _has_for_each(problem, clock, LISTING_SECONDS_PER_PIPELINE / LISTING_SHARE):
        method = "columns"
    else:
        method = _by_devices(problem)
    log.info("%d pipelines, %d device types: %s", pipelines, len(types), method)
    return method


def _by_devices(problem: Problem) -> str:
    return "decomposition" if _devices_per_dnn(problem) <= MANY_PER_DNN else "columns"


def _devices_per_dnn(problem: Problem) -> float:
    return sum(device.count for device in problem.cluster.device_types) / len(problem.dnns)


def _decomposed(problem: Problem, backend: str, clock: Clock, best: Incumbent, whole: Unpartitioned) -> Sizing:
    """Return the plan of the decomposition, which begins with NP's and, where it takes long, that of columns."""
    best.by = "decomposition"
    if not _has_many(problem) and len(problem.dnns) > FEW_DNNS:
        whole.begin(clock)
    limits = _beginning(problem, clock)
    if limits is not None:
        with suppress(TooLate):
            best.report(columns.size(problem, backend, limits, best.report)[0])
    whole.begin(clock)
    if not _has_for_each(problem, clock, LISTING_SECONDS_PER_PIPELINE):
        whole.end(clock)
    found = decomposition.size(problem, clock.remaining(), begin=best.plan, report=best.report, soon=_is_short(clock))
    return _tidied(problem, found, backend, clock)


def _has_for_each(problem: Problem, clock: Clock, seconds: float) -> bool:
    """Tell whether the time left has so many seconds for each pipeline that may have to be listed."""
    left_s = clock.remaining().time_limit_s
    return left_s is None or left_s > seconds * columns.enumeration_size(problem)


def _beginning(problem: Problem, clock: Clock) -> Limits | None:
    """Return the limits of columns that the decomposition begins with; None where it begins without any."""
    if _has_many(problem):
        return clock.within(Limits(1e-4, BEGIN_SECONDS_PER_TYPE * len(problem.cluster.device_types)))
    if not columns.admits(problem) or _has_for_each(problem, clock, BEGIN_SECONDS_PER_PIPELINE):
        return None
    share = BEGIN_SHARE_OF_FEW if len(problem.dnns) <= columns.FEW_DNNS else BEGIN_SHARE
    return Clock(clock.part(share)).at_most(BEGIN_SECONDS).remaining()


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
    problem: Problem,
    method: str,
    backend: str,
    clock: Clock,
    best: Incumbent,
    report: Report | None = None,
    *,
    tidy: bool = True,
) -> tuple[Sizing, str]:
    """Return NP's plan: the method's, or the one so far where that is better.

    Parameters
    ----------
    report
        Is told plans on the way; by default ``best``, with their bounds.
    tidy
        Whether to look for one on the fewest devices.

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
        if tidy:
            found = canonical(whole, candidates, found, backend, clock.remaining())
        return _no_worse(whole, found, best), method
    return _no_worse(whole, _tidied(whole, found, backend, clock) if tidy else found, best), method


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
