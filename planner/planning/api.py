"""The one call that plans: checks the input, has a method size the plan, and checks it before it is returned."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from time import perf_counter

from planner.model import InputError, Plan, Problem, digest
from planner.model.check import check
from planner.model.objective import MAXIMISED
from planner.model.plan import Scheduler
from planner.model.problem import GIVEN_RATES
from planner.planning.answers.changes import size_from
from planner.planning.baselines import (
    better_by_whole_tasks,
    better_of,
    devices_of,
    find_x0,
    first_plan,
    plans_on_devices,
    size_dart_r,
    unpartitioned,
    with_closed_form_x0,
    with_quick_x0,
)
from planner.planning.incumbent import Incumbent, Progress
from planner.planning.merging import shared_pools
from planner.planning.methods import ENUMERABLE, METHODS, all_candidates, size_np, size_pipelines
from planner.planning.pipelines.sizing import Sizing, build_plan, plan_of
from planner.planning.programme.backends import BACKENDS, Clock, Limits, TooLate, versions
from planner.planning.programme.block_bound import block_bound
from planner.planning.whole_devices import chains, columns

log = logging.getLogger(__name__)

# What ends a search (a bound where none is known, writing the plan down, checking it) takes about twice as long as a
# plan to begin with, and is kept of a limited time, up to this share.
ENDING, ENDING_SHARE = 2.0, 0.25
X0_SHARE = 2 / 3  # of a limited time that X0 may take; what its work takes is a third of that
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
    progress: Progress | None = None,
) -> Plan:
    """Return the best plan of a scheduler, with a proven bound, after every constraint of it was checked.

    Parameters
    ----------
    problem
        What to plan. Where a DNN's ``np_throughput_rps`` is None it is computed first: exactly up to 150 devices per
        DNN as far as a limit of work allows, else from NP's relaxation (`planner.planning.baselines.with_x0`).
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
        Is told the value and the bound, ``progress(value, bound)``, whenever either gets better; as long as no bound is
        known it is infinite, or 0 for what is minimised. Ctrl-C (KeyboardInterrupt) ends the search with the best plan
        so far; there is one in a moment wherever whole devices allow it.

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
    planned = problem.planned
    _check_limits(planned, scheduler, method)
    _check_changes(current, max_started, pipelines)
    begin_s = perf_counter()
    asked = _Asked(
        begin_s, digest(problem), problem, scheduler, method, backend, gap, np_plan, current, max_started, pipelines
    )
    clock, best = Clock(Limits(gap, time_limit_s)), Incumbent(planned, progress)
    try:
        if asked.has_plans_to_begin_with:
            _begin(planned, best)
            clock = clock.sparing(ENDING_SHARE, ENDING * (perf_counter() - asked.begin_s))
        known = _with_x0(planned, method, backend, clock, best)
        if planned.merged and scheduler == "pipelines" and asked.anew:
            plan = _plan_merged(asked, known, clock, best)
            return _checked(known, replace(plan, x0_timed=best.x0_timed), problem)
        sizing, used = _size(asked, known, clock, best)
    except (KeyboardInterrupt, TooLate, SystemError) as ended:
        known, sizing, used = _so_far(ended, best, scheduler)
    _refuse_nothing(known, [sizing.throughput_rps(number) for number in range(len(known.dnns))], sizing.bound, clock)
    try:
        return _checked(known, _plan(asked, known, sizing, used, best.x0_timed), problem)
    except KeyboardInterrupt:  # the search has ended; what was found is not lost
        return _checked(known, _plan(asked, known, sizing, used, best.x0_timed), problem)


@dataclass(frozen=True)
class _Asked:
    """What is asked for: since when (s), of which problem, and how it is to be planned."""

    begin_s: float
    problem_sha256: str
    problem: Problem
    scheduler: Scheduler
    method: str
    backend: str
    gap: float
    np_plan: Plan | None
    current: Plan | None
    max_started: int | None
    pipelines: int | None

    @property
    def anew(self) -> bool:
        """Whether any number of pipelines will do, whatever is in use."""
        return self.current is None and self.pipelines is None

    @property
    def has_plans_to_begin_with(self) -> bool:
        """Whether plans of whole devices are answers."""
        return self.anew and self.scheduler != "dart-r" and self.method != "closed-form"


def _size(asked: _Asked, problem: Problem, clock: Clock, best: Incumbent) -> tuple[Sizing, str]:
    """Return the plan that a search to its end finds, and by which method."""
    if asked.current is not None and asked.max_started is not None:
        return _size_changes(asked, asked.current, asked.max_started, problem, clock, best), "milp"
    if asked.pipelines is not None:
        return _size_chains(asked, problem, clock), "chains"
    if asked.scheduler == "dart-r":
        return _size_dart_r(asked, problem, clock), "rule"
    if asked.scheduler == "np":
        return size_np(problem, asked.method, asked.backend, clock, best)
    better_by_whole_tasks(problem, asked.problem.applications, asked.backend, clock, best.offer)
    return size_pipelines(problem, asked.method, asked.backend, clock, best)


def _so_far(ended: BaseException, best: Incumbent, scheduler: Scheduler) -> tuple[Problem, Sizing, str]:
    """Return the best plan of a search that Ctrl-C or its time ended: its problem, itself with a bound, its method.

    Raises what ended the search where there is no plan, or where that was something else.
    """
    # numba's SystemError has Ctrl-C as its cause where that came while compiled code was called
    reason = ended.__cause__ if isinstance(ended, SystemError) else ended
    if not isinstance(reason, KeyboardInterrupt | TooLate):
        raise ended
    if best.plan is None:
        raise reason from None
    log.info("ended early (%s): the best plan so far is taken", type(reason).__name__)
    sizing = best.with_bound(lambda problem: block_bound(unpartitioned(problem) if scheduler == "np" else problem))
    return best.problem, sizing, best.method


def _plan(asked: _Asked, problem: Problem, sizing: Sizing, method: str, x0_timed: bool) -> Plan:
    plan = build_plan(
        problem,
        sizing,
        scheduler=asked.scheduler,
        method=method,
        gap=asked.gap,
        seconds=perf_counter() - asked.begin_s,
        problem_sha256=asked.problem_sha256,
        versions=versions(sizing.backend),
    )
    return replace(plan, x0_timed=x0_timed)


def _begin(problem: Problem, best: Incumbent) -> None:
    """Let a plan to begin with be known, in a moment: on the X0 that itself gives."""
    quick = with_quick_x0(problem)
    best.restart(quick, first_plan(quick), x0_timed=quick is not problem)


def _with_x0(problem: Problem, method: str, backend: str, clock: Clock, best: Incumbent) -> Problem:
    """Return the problem with X0; where a plan was begun, one that rests on X0 follows."""
    if method == "closed-form":
        return with_closed_form_x0(problem)
    # by the time that was given, not by what a busy machine has left of it
    allowed_s = None if clock.given_s is None else X0_SHARE * clock.given_s
    if best.plan is None:
        found = find_x0(problem, backend, clock.part(X0_SHARE), allowed_s=allowed_s)
        best.restart(found.problem, None, x0_timed=found.timed)
        return found.problem
    plan_on = plans_on_devices(best.problem)
    limits = clock.part(X0_SHARE)
    found = find_x0(problem, backend, limits, lambda devices: best.offer(plan_on(devices)), allowed_s=allowed_s)
    start = first_plan(found.problem)
    if found.devices is not None:
        start = better_of(found.problem, start, plans_on_devices(found.problem)(found.devices))
    best.restart(found.problem, start, x0_timed=found.timed)
    return found.problem


def _plan_merged(asked: _Asked, problem: Problem, clock: Clock, best: Incumbent) -> Plan:
    """Return the plan of a problem with merged blocks, whose pools may serve several DNNs.

    Raises TooLate where the plan to begin with is better, or nothing else was found in time.
    """
    if asked.method not in ("auto", "milp"):
        raise InputError(
            f"merged blocks are for method milp, without a current plan or a number of pipelines, got {asked.method}"
        )
    pipelines = columns.enumeration_size(problem)
    if pipelines > ENUMERABLE:
        text = (
            f"merged blocks: up to {pipelines:.1e} pipelines are too many to list; allow fewer stages, or cut models "
            "into fewer blocks"
        )
        log.warning("%s; what pools of several DNNs could bring is left out", text)
        raise TooLate(text)
    try:
        found = shared_pools.size(problem, all_candidates(problem, clock), asked.backend, clock.remaining())
    except InputError:
        if clock.over:
            raise TooLate from None
        raise
    best.prove(found.bound)
    served_rps = [sum(one.throughput_rps for one in found.of(dnn.name)) for dnn in problem.dnns]
    _refuse_nothing(problem, served_rps, found.bound, clock)
    plan = plan_of(
        problem,
        found.pipelines,
        found.layouts,
        found.bound,
        scheduler="pipelines",
        method="milp",
        backend=found.backend,
        gap=asked.gap,
        seconds=perf_counter() - asked.begin_s,
        problem_sha256=asked.problem_sha256,
        versions=versions(found.backend),
    )
    better = max if MAXIMISED[problem.options.objective] else min
    if best.plan is not None and better(plan.value, best.plan.value(problem)) != plan.value:
        raise TooLate
    return plan


def _checked(known: Problem, plan: Plan, asked: Problem) -> Plan:
    """Return a plan after every constraint of it was checked.

    A bound that the plan itself is beyond is not believed; that of blocks takes its place.
    """
    past = plan.value - plan.bound if MAXIMISED[known.options.objective] else plan.bound - plan.value
    if past > 0:
        log.warning("a bound of %.9g was stated, and the plan found is worth %.9g", plan.bound, plan.value)
        plan = replace(plan, bound=block_bound(known))
        plan = replace(plan, status="optimal" if plan.gap <= plan.gap_asked else "feasible")
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
    if time_limit_s is not None and not 0 < time_limit_s < inf:  # NaN, too
        raise InputError(f"time limit: expected more than 0 s, got {time_limit_s}")


def _check_changes(current: Plan | None, max_started: int | None, pipelines: int | None) -> None:
    if (current is None) != (max_started is None):
        raise InputError("a current plan and the number of slices that may be started belong together; give both")
    if current is not None and pipelines is not None:
        raise InputError(
            "a number of pipelines is for plans made anew, not from a current one; leave out one of the two"
        )


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


def _size_changes(
    asked: _Asked, current: Plan, max_started: int, problem: Problem, clock: Clock, best: Incumbent
) -> Sizing:
    if asked.scheduler != "pipelines" or asked.method not in ("auto", "milp"):
        got = f"{asked.scheduler} and {asked.method}"
        raise InputError(f"a current plan is for scheduler pipelines and method milp, got {got}")
    best.restart(problem, None, x0_timed=best.x0_timed)
    best.by = "milp"
    return size_from(problem, current, max_started, asked.backend, clock.remaining(), best.report)


def _size_chains(asked: _Asked, problem: Problem, clock: Clock) -> Sizing:
    if asked.pipelines != 1 or asked.scheduler != "pipelines" or asked.method != "auto":
        got = f"{asked.pipelines}, {asked.scheduler} and {asked.method}"
        raise InputError(f"pipelines: expected 1, with scheduler pipelines and method auto, got {got}")
    return chains.size(problem, clock.remaining())


def _size_dart_r(asked: _Asked, problem: Problem, clock: Clock) -> Sizing:
    np_plan = asked.np_plan
    if np_plan is None:
        np_plan = make_plan(problem, "np", backend=asked.backend, time_limit_s=clock.remaining().time_limit_s)
    return size_dart_r(problem, devices_of(np_plan))


def _refuse_nothing(problem: Problem, throughput_rps: Sequence[float], bound: float, clock: Clock) -> None:
    """Refuse a plan that leaves a DNN without pipelines though the objective is to serve all.

    Devices are said to be too few only where that is proven: where no plan is worth more than nothing.
    """
    if problem.options.objective == "max_weighted_throughput":
        return
    for dnn, served_rps in zip(problem.dnns, throughput_rps, strict=True):
        if served_rps == 0:
            if clock.over:
                raise TooLate(f"no plan that serves {dnn.name} was found in the time given; raise the time limit")
            if problem.options.objective in GIVEN_RATES:
                raise InputError(
                    f"{dnn.name}: its rate of {dnn.rate_rps:g} requests/s was lost beside other numbers (numerical "
                    "trouble); try another --backend, or bring rates, weights and prices closer together"
                )
            own = problem.options.device_sharing == "own"
            fewer = own and sum(device.count for device in problem.cluster.device_types) < len(problem.dnns)
            if problem.options.objective == "max_min_throughput" and bound > 0 and not fewer:
                raise InputError(
                    f"no plan that serves {dnn.name} beside the others was found, and none is proven impossible; try "
                    "another --method, add devices, or plan fewer DNNs"
                )
            devices = " + ".join(f"{device.count} {device.name}" for device in problem.cluster.device_types)
            raise InputError(
                f"{dnn.name} gets no devices: {devices} are too few for {len(problem.dnns)} DNNs"
                f"{', which do not share devices' if own else ''}; add devices, plan fewer DNNs, "
                f"{'let them share devices (device_sharing), ' if own else ''}or raise the limit of started slices"
            )
