"""The one call that plans: checks the input, picks a method, and checks the plan before it is returned."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import isclose
from time import perf_counter

from planner.model import InputError, Plan, Problem, digest
from planner.model.check import check
from planner.model.plan import Scheduler
from planner.model.problem import GIVEN_RATES
from planner.planning.answers.canonical import canonical
from planner.planning.answers.changes import size_from
from planner.planning.baselines import (
    better_by_whole_tasks,
    better_of,
    devices_of,
    first_plan,
    size_dart_r,
    size_np_closed_form,
    unpartitioned,
    with_closed_form_x0,
    with_x0,
)
from planner.planning.merging import shared_pools
from planner.planning.pipelines.candidates import Candidate, best_of_segments, enumerate_candidates
from planner.planning.pipelines.reach import unreachable
from planner.planning.pipelines.sizing import Sizing, build_plan, plan_of
from planner.planning.programme.backends import BACKENDS, Clock, Limits, TooLate, versions
from planner.planning.programme.block_bound import block_bound
from planner.planning.whole_devices import chains, columns, decomposition, dynamic, narrowed
from planner.planning.whole_devices.plan_search import Report

log = logging.getLogger(__name__)

# Methods over enumerated candidates. ``auto`` and the schedulers' own are told in `make_plan`.
Method = Callable[[Problem, Sequence[Candidate], str, Limits], Sizing]
METHODS: dict[str, Method] = {
    "milp": narrowed.size,
    "dynamic": dynamic.size,
}
# Up to so many pipelines are listed (for two device types, where the dynamic programme is exact, the second number); a
# hundred million take about 2 s and leave some hundred thousand candidates. Above, they are generated.
ENUMERABLE, ENUMERABLE_EXACT = 100_000_000, 500_000_000
SOME_PER_DNN, MANY_PER_DNN = 25, 150  # devices: generated columns give the plan to begin with, or the plan
LONG = 5  # stages, from which on chains are tried where pipelines are too many to list
BEGIN_NP_SECONDS, BEGIN_COLUMNS_SECONDS = 10.0, 6.0  # for the plans that others are compared with, or begin with
CANONICAL_METHODS = ("dynamic",)  # whose plans have the fewest devices, then pipelines, by themselves
NP_SHARE, NP_SECONDS = 0.2, 2.0  # of a limited time, what is kept for NP's plan: this share, but no more than that
SCHEDULER_METHODS = {
    "pipelines": ("auto", *METHODS, "decomposition", "columns"),
    "np": ("auto", "milp", "decomposition", "columns", "closed-form"),
    "dart-r": ("auto",),
}


def make_plan(
    problem: Problem,
    scheduler: Scheduler = "pipelines",
    *,
    method: str = "auto",
    backend: str = "highs",
    gap: float = 1e-6,
    time_limit_s: float | None = None,
    np_plan: Plan | None = None,
    current: Plan | None = None,
    max_started: int | None = None,
    pipelines: int | None = None,
    progress: Report | None = None,
) -> Plan:
    """Return the best plan of a scheduler, with a proven bound, after every constraint of it was checked.

    Parameters
    ----------
    problem
        What to plan. Where a DNN's ``np_throughput_rps`` is None it is computed first: exactly where NP has at most
        64 candidates (about one per DNN variant and device type; 128 for at most two device types), else from NP's
        relaxation (`planner.planning.baselines.with_x0`).
    scheduler
        ``pipelines``, or a baseline: ``np`` or ``dart-r`` (`planner.planning.baselines`).
    method
        For pipelines ``milp``, ``dynamic`` (at most two device types), ``decomposition`` (any number of types, shared
        devices, given rates) or ``columns`` (large problems). ``auto`` is dynamic where it admits the problem,
        decomposition for the objectives that it knows, up to `ENUMERABLE` pipelines and `MANY_PER_DNN` devices per DNN
        where these are their own, else columns, and milp for all other objectives and options. For np ``milp``,
        ``decomposition``, ``columns`` or ``closed-form``; ``auto`` is milp for at most two device types or another
        objective, else as for pipelines. Where blocks are merged, pipelines may have pools of several DNNs
        (`planner.planning.merging.shared_pools`), by milp.
    backend
        ``highs``, ``gurobi``, ``cbc``, or ``auto``: Gurobi where its licence admits the model, else HiGHS.
    gap
        The relative gap at which a solver may stop and the plan counts as optimal.
    time_limit_s
        After this time the best plan so far is returned with its gap; one of whole devices
        (`planner.planning.baselines.start`) is made before anything else, whatever that takes.
    np_plan
        The NP plan whose devices DART-r begins with; computed where None.
    current, max_started
        The plan in use and how many slices may be started anew to get from it to the next one
        (`planner.planning.answers.changes`); by method milp, for pipelines only.
    pipelines
        1 for plans of one pipeline per DNN (`planner.planning.whole_devices.chains`), None for any number.
    progress
        Is told the value and the bound, ``progress(value, bound)``, whenever either gets better (by decomposition
        and columns, which may take long). Ctrl-C (KeyboardInterrupt) ends the search with the best plan so far.

    Raises
    ------
    InputError
        A DNN cannot meet its SLO on this cluster, the cluster is too small, an option is unknown, or the backend is
        not available; the message says what to do.

    Examples
    --------
    >>> from planner.model import *
    >>> table = LatencyTable("L4", 1, (1, 2), ((6000,), (8000,)), Provenance("measured", "by hand"))
    >>> profile = Profile("toy", (Block(("a",)),), (), (table,))
    >>> problem = Problem(Cluster((DeviceType("L4", 4),), Network(10)), (Dnn("toy", 20_000, (profile,)),))
    >>> plan = make_plan(problem, "np")
    >>> plan.value, plan.status, [(stage.batch, stage.slices) for stage in plan.pipelines[0].stages]
    (1000.0, 'optimal', [(2, 4)])
    """
    _check_options(scheduler, method, backend, gap, time_limit_s)
    asked, problem = problem, problem.planned
    _check_limits(problem, scheduler, method)
    if (current is None) != (max_started is None):
        raise InputError("a current plan and the number of slices that may be started belong together; give both")
    begin_s, clock = perf_counter(), Clock(Limits(gap, time_limit_s))
    half = Limits(gap, None if time_limit_s is None else time_limit_s / 2)
    known = with_closed_form_x0(problem) if method == "closed-form" else with_x0(problem, backend, half)
    if problem.merged and scheduler == "pipelines":
        if method not in ("auto", "milp") or current is not None or pipelines is not None:
            raise InputError(
                f"merged blocks are for method milp, without a current plan or a number of pipelines, got {method}"
            )
        return _checked(known, _plan_merged(known, digest(asked), backend, gap, clock, begin_s), asked)
    if current is not None and max_started is not None:
        sizing, method = _size_changes(known, scheduler, method, current, max_started, backend, clock), "milp"
    elif pipelines is not None:
        sizing, method = _size_chains(known, scheduler, method, pipelines, clock), "chains"
    elif scheduler == "pipelines":
        start = better_by_whole_tasks(known, asked.applications, first_plan(known), backend, clock)
        sizing, method = _size_pipelines_or_np(known, method, backend, clock, start, progress)
    elif scheduler == "np":
        sizing, method = _size_np(known, method, backend, clock, first_plan(known), progress)
    else:
        sizing, method = _size_dart_r(known, np_plan, backend, clock), "rule"
    _refuse_nothing(known, [sizing.throughput_rps(number) for number in range(len(known.dnns))], clock)
    plan = build_plan(
        known,
        sizing,
        scheduler=scheduler,
        method=method,
        gap=gap,
        seconds=perf_counter() - begin_s,
        problem_sha256=digest(asked),
        versions=versions(sizing.backend),
    )
    return _checked(known, plan, asked)


def _plan_merged(problem: Problem, problem_sha256: str, backend: str, gap: float, clock: Clock, begin_s: float) -> Plan:
    """Return the plan of a problem with merged blocks, whose pools may serve several DNNs."""
    found = shared_pools.size(problem, all_candidates(problem), backend, clock.remaining())
    _refuse_nothing(problem, [sum(one.throughput_rps for one in found.of(dnn.name)) for dnn in problem.dnns], clock)
    return plan_of(
        problem,
        found.pipelines,
        found.layouts,
        found.bound,
        scheduler="pipelines",
        method="milp",
        backend=found.backend,
        gap=gap,
        seconds=perf_counter() - begin_s,
        problem_sha256=problem_sha256,
        versions=versions(found.backend),
    )


def _checked(known: Problem, plan: Plan, asked: Problem) -> Plan:
    """Return a plan after every constraint of it was checked."""
    violations = check(known, plan, given=asked)
    if violations:
        raise RuntimeError(f"the plan found breaks {len(violations)} constraints, the first: {violations[0]}")
    return plan


def _check_options(scheduler: str, method: str, backend: str, gap: float, time_limit_s: float | None) -> None:
    if scheduler not in SCHEDULER_METHODS:
        raise InputError(f"unknown scheduler {scheduler!r}; expected one of {list(SCHEDULER_METHODS)}")
    if method not in SCHEDULER_METHODS[scheduler]:
        raise InputError(
            f"scheduler {scheduler} has no method {method!r}; expected one of {list(SCHEDULER_METHODS[scheduler])}"
        )
    if backend not in (*BACKENDS, "auto"):
        raise InputError(f"unknown backend {backend!r}; expected one of {[*BACKENDS, 'auto']}")
    if not 0 <= gap < 1:
        raise InputError(f"gap: expected a number in [0, 1), got {gap}")
    if time_limit_s is not None and not time_limit_s > 0:  # NaN, too
        raise InputError(f"time limit: expected more than 0 s, got {time_limit_s}")


def _check_limits(problem: Problem, scheduler: str, method: str) -> None:
    if not problem.options.limited:
        return
    if method not in ("auto", "milp") or scheduler == "dart-r":
        raise InputError(
            f"budgets and accuracies are for method milp and schedulers pipelines and np, got {method} and {scheduler}"
        )
    if problem.options.min_accuracy is not None and problem.options.objective not in GIVEN_RATES:
        raise InputError(
            f"min_accuracy: expected an objective that serves given rates ({', '.join(GIVEN_RATES)}), got "
            f"{problem.options.objective}"
        )


def _size_pipelines_or_np(
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
        found, used = _size_pipelines(problem, method, backend, clock.sparing(NP_SHARE, NP_SECONDS), start, progress)
        bound = found.bound
        sizing = better_of(problem, found, start) or found
        if used == "decomposition" and found.pipelines:  # it begins with NP's plan
            return replace(sizing, bound=bound), used
    except TooLate as late:
        log.info("no pipelines in the time given; NP's plan is taken")
        bound = late.bound
    gap = clock.remaining().gap
    if bound is not None and sizing and isclose(bound, sizing.value(problem), rel_tol=gap, abs_tol=1e-12):
        return replace(sizing, bound=bound), used
    try:
        whole, _ = _size_np(problem, "auto", backend, clock.at_most(BEGIN_NP_SECONDS), start, None)
        sizing = better_of(problem, sizing, whole) or sizing or whole
    except InputError:  # NP cannot serve all of them, or not in the time that was left
        if sizing is None:
            raise TooLate from None
    return replace(sizing, bound=block_bound(problem) if bound is None else bound), used


def _better_by_np(problem: Problem, start: Sizing | None, backend: str, clock: Clock) -> Sizing | None:
    """Return NP's plan where it is better than the one to begin with, or there is none yet."""
    try:
        return better_of(problem, start, _size_np(problem, "auto", backend, clock, start, None)[0])
    except InputError:  # NP cannot serve all of them, or not in that time
        return start


def _size_pipelines(
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
    sizing = METHODS[method](problem, candidates, backend, clock.remaining())
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


def _size_changes(
    problem: Problem, scheduler: str, method: str, current: Plan, max_started: int, backend: str, clock: Clock
) -> Sizing:
    if scheduler != "pipelines" or method not in ("auto", "milp"):
        raise InputError(f"a current plan is for scheduler pipelines and method milp, got {scheduler} and {method}")
    return size_from(problem, current, max_started, backend, clock.remaining())


def _size_chains(problem: Problem, scheduler: str, method: str, pipelines: int, clock: Clock) -> Sizing:
    if pipelines != 1 or scheduler != "pipelines" or method != "auto":
        got = f"{pipelines}, {scheduler} and {method}"
        raise InputError(f"pipelines: expected 1, with scheduler pipelines and method auto, got {got}")
    return chains.size(problem, clock.remaining())


def _size_np(
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
    sizing = METHODS["milp"](whole, candidates, backend, clock.remaining())
    return canonical(whole, candidates, sizing, backend, clock.remaining()), "milp"


def _size_dart_r(problem: Problem, np_plan: Plan | None, backend: str, clock: Clock) -> Sizing:
    if np_plan is None:
        np_plan = make_plan(problem, "np", backend=backend, time_limit_s=clock.remaining().time_limit_s)
    return size_dart_r(problem, devices_of(np_plan))


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


def _refuse_nothing(problem: Problem, throughput_rps: Sequence[float], clock: Clock) -> None:
    """Refuse a plan that leaves a DNN without pipelines though the objective is to serve all."""
    if problem.options.objective == "max_weighted_throughput":
        return
    for dnn, served_rps in zip(problem.dnns, throughput_rps, strict=True):
        if served_rps == 0:
            if clock.over:
                raise TooLate(f"no plan that serves {dnn.name} was found in the time given; raise the time limit")
            devices = " + ".join(f"{device.count} {device.name}" for device in problem.cluster.device_types)
            own = problem.options.device_sharing == "own"
            raise InputError(
                f"{dnn.name} gets no devices: {devices} are too few for {len(problem.dnns)} DNNs"
                f"{', which do not share devices' if own else ''}; add devices, plan fewer DNNs, "
                f"{'let them share devices (device_sharing), ' if own else ''}or raise the limit of started slices"
            )
