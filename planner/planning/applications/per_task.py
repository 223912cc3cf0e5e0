"""Plans task by task: the best solution of the programme in `planner.planning.applications.formulation`.

Where choices of variants are too many to list, prices ask for those that matter (`choices`). Of equal plans the one of
the fewest devices, then of the least latencies, is taken.
"""

from dataclasses import replace
from math import ceil
from time import perf_counter
from typing import get_args

from planner.model import InputError, Problem, TaskFlow, TaskPlan, TaskService
from planner.model.check_tasks import check_tasks
from planner.model.objective import MAXIMISED
from planner.model.problem import Objective
from planner.model.task_graph import task_rates
from planner.model.task_plan import LatencyRule
from planner.model.task_worth import Configuration
from planner.planning.applications.choices import Choice, best_choice
from planner.planning.applications.formulation import Formulation, able_variants, build
from planner.planning.applications.task_plans import plan_of
from planner.planning.arrays import Floats
from planner.planning.programme.backends import Clock, Interrupted, Limits, TooLate, solve
from planner.planning.programme.linear import Solution

LATENCY_RULES: tuple[LatencyRule, ...] = get_args(LatencyRule)
OBJECTIVES: tuple[Objective, ...] = ("most_accurate", "least_cost", "fewest_devices")
SIMPLEST_SECONDS, SIMPLEST_SHARE, SIMPLEST_GAP = 2.0, 0.2, 1e-3  # for the simplest of equal plans
PERFECT_PERCENT = 100.0  # what no accuracy exceeds
ROUNDING = 1e-6  # relative: rates below this are none, and slices this near to fewer are fewer


def plan_per_task(
    problem: Problem, latency: LatencyRule = "worst", *, backend: str = "highs", limits: Limits | None = None
) -> TaskPlan:
    """Return the best plan that serves applications task by task, after every constraint of it was checked.

    Parameters
    ----------
    problem
        Serves given rates: objective ``most_accurate``, ``least_cost`` or ``fewest_devices``. DNNs are applications of
        one task. Shares 1/k only, each device for one task.
    latency
        What counts as a task's latency: that of its slowest configuration in use (*worst*), or the *mean*.
    limits
        When to stop with the best plan so far, as Ctrl-C (KeyboardInterrupt) does where there is one.

    Raises
    ------
    InputError
        An option does not fit, a task cannot be served, or nothing keeps the limits; the message says which.

    Examples
    --------
    Two variants of one task; the budget pays for two devices, so that a third of the requests get the better one:

    >>> from planner.model import *
    >>> measured = Provenance("measured", "by hand")
    >>> small, large = (
    ...     Profile(name, (Block((name,)),), (), (LatencyTable("L4", 1, (1,), ((us,),), measured),))
    ...     for name, us in (("small", 5_000), ("large", 10_000))
    ... )
    >>> task = Task("classify", (small, large), {"small": 60.0, "large": 80.0})
    >>> application = Application("photos", 50_000, (task,), rate_rps=300.0)
    >>> cluster = Cluster((DeviceType("L4", 4, price_per_hour=1.0),), Network(10))
    >>> options = Options("most_accurate", budget_per_hour=2.0)
    >>> plan = plan_per_task(Problem(cluster, (), options, (application,)))
    >>> [(one.variant, round(one.rate_rps)) for one in plan.services], round(plan.accuracy["photos"], 2)
    ([('small', 200), ('large', 100)], 66.67)
    """
    return search_per_task(problem, latency, backend, limits or Limits())[0]


def search_per_task(problem: Problem, latency: LatencyRule, backend: str, limits: Limits) -> tuple[TaskPlan, bool]:
    """Return the plan of `plan_per_task`, and whether Ctrl-C ended the search for it."""
    begin_s, clock, interrupted = perf_counter(), Clock(limits), False
    if latency not in LATENCY_RULES:
        raise InputError(f"latency: expected one of {list(LATENCY_RULES)}, got {latency!r}")
    _check_options(problem)
    formulation, bound = _with_choices(build(problem.relied_on, latency), latency, backend, clock)
    try:
        solution, used = solve(formulation.model, backend, clock.remaining())
    except Interrupted as stopped:
        solution, used, interrupted = stopped.solution, stopped.backend, True
        if not solution.found:
            raise
    if not solution.found:
        raise _none(formulation, latency, solution, backend, clock)
    simplest = solution
    if not interrupted:
        try:
            simplest = _simplest(formulation, solution, backend, clock)
        except KeyboardInterrupt:
            interrupted = True
    bound = solution.bound if bound is None else bound

    def plan() -> TaskPlan:
        services, flows = extract(formulation, simplest)
        return _checked(problem, plan_of(problem, services, flows, latency, bound, used, limits.gap), begin_s)

    try:
        return plan(), interrupted
    except KeyboardInterrupt:  # the search has ended; what was found is not lost
        return plan(), True


def _checked(problem: Problem, plan: TaskPlan, begin_s: float) -> TaskPlan:
    """Return a plan with the time that it took, after every constraint of it was checked."""
    if violations := check_tasks(problem, plan):
        raise RuntimeError(f"the plan found breaks {len(violations)} constraints, the first: {violations[0]}")
    return replace(plan, seconds=perf_counter() - begin_s)


def _check_options(problem: Problem) -> None:
    options = problem.options
    if options.objective not in OBJECTIVES:
        raise InputError(f"objective: task by task expected one of {list(OBJECTIVES)}, got {options.objective!r}")
    if options.device_sharing != "own":
        raise InputError(
            f"device_sharing: task by task each device serves one task, expected 'own', got {options.device_sharing!r}"
        )


def _with_choices(
    formulation: Formulation, latency: LatencyRule, backend: str, clock: Clock
) -> tuple[Formulation, float | None]:
    """Return the programme with the choices that prices ask for, and its value's bound; None where all are listed.

    Where half of the time is over before prices ask for no more, it is the programme with those so far, and its bound
    what no plan is better than by any prices: 100 % of accuracy, or no devices.
    """
    if all(formulation.listed):
        return formulation, None
    problem, more = formulation.problem, list(formulation.flow)
    maximises = MAXIMISED[problem.options.objective]
    choosing = Clock(clock.part(1 / 2))
    while True:
        relaxed = build(problem, latency, more, relaxed=True)
        solution, _ = solve(relaxed.model, backend, choosing.remaining())
        if choosing.over:
            return build(problem, latency, more), PERFECT_PERCENT if maximises else 0.0
        if not solution.found:
            return build(problem, latency, more), None
        sign = 1.0 if maximises else -1.0
        found = [
            (a, choice)
            for a in range(len(relaxed.applications))
            if not relaxed.listed[a] and (choice := _improving(relaxed, a, sign * solution.row_duals)) is not None
        ]
        if not found:
            return build(problem, latency, more), solution.objective
        more += found


def _improving(formulation: Formulation, a: int, duals: Floats) -> Choice | None:
    """Return the choice that improves the relaxation most, None where none does; ``duals`` are those of maximising."""
    application, rows = formulation.applications[a], formulation.rows
    rate_rps = application.rate_rps or 1.0
    prices = []
    for task, reaching_rps, variants in zip(
        application.tasks, task_rates(application), able_variants(formulation, a), strict=True
    ):
        of_task = f"split[{application.name}/{task.name}/"
        prices.append({v.name: reaching_rps / rate_rps * duals[rows[f"{of_task}{v.name}]"]] for v in variants})
    worth = 0.0
    if formulation.problem.options.objective == "most_accurate":
        worth = 1.0 / sum(one.rate_rps or 0.0 for one in formulation.applications)
    if f"accuracy[{application.name}]" in rows:
        worth -= duals[rows[f"accuracy[{application.name}]"]]
    choice, value = best_choice(application, able_variants(formulation, a), max(0.0, worth), prices)
    improves = value > duals[rows[f"served[{application.name}]"]] + ROUNDING * max(1.0, abs(value))
    return choice if improves and (a, choice) not in formulation.flow else None


def extract(formulation: Formulation, solution: Solution) -> tuple[tuple[TaskService, ...], tuple[TaskFlow, ...]]:
    """Return the services in a solution, with no more slices than their rates need, and the choices that are taken."""
    services = []
    for number, (a, one) in enumerate(formulation.configurations):
        application = formulation.applications[a]
        rate_rps = float(solution.values[formulation.rate[number]])
        if rate_rps <= ROUNDING * task_rates(application)[one.task]:
            continue
        slices = _slices(rate_rps, one, solution.values[formulation.slices[number]])
        services.append(
            TaskService(
                application.name,
                application.tasks[one.task].name,
                one.variant,
                one.device,
                one.share,
                one.batch,
                slices,
                rate_rps,
                one.slice_rps,
                one.latency_us,
            )
        )
    flows = tuple(
        TaskFlow(application.name, tuple(variant.name for variant in choice), float(solution.values[column]))
        for (a, choice), column in formulation.flow.items()
        for application in [formulation.applications[a]]
        if solution.values[column] > ROUNDING * (application.rate_rps or 0.0)
    )
    return tuple(services), flows


def _slices(rate_rps: float, one: Configuration, found: float) -> int:
    """Return the slices that a rate needs: as many as were found, or fewer where those suffice."""
    needed = ceil(rate_rps / one.slice_rps * (1 - ROUNDING))
    return min(needed, round(found)) or needed


def _simplest(formulation: Formulation, found: Solution, backend: str, clock: Clock) -> Solution:
    """Return, of all solutions as good as one, that of the fewest devices, then of the least latencies.

    Where none is found in `SIMPLEST_SECONDS`, or a part of the time limit, it is the one given.
    """
    model, maximises = formulation.model, MAXIMISED[formulation.problem.options.objective]
    least = ROUNDING**1.5 * max(1.0, abs(found.objective))
    reached = {"lower": found.objective - least} if maximises else {"upper": found.objective + least}
    model.add_row("as good", formulation.worth, **reached)
    weight = 0.5 / len(formulation.latency)
    latency = [(column, weight * share) for column, share in formulation.latency]
    model.set_objective([*((column, 1.0) for column in formulation.used), *latency], maximise=False)
    limits = Clock(clock.part(SIMPLEST_SHARE)).at_most(SIMPLEST_SECONDS).remaining()
    simplest, _ = solve(model, backend, replace(limits, gap=SIMPLEST_GAP))
    return simplest if simplest.found else found


def _none(formulation: Formulation, latency: LatencyRule, solution: Solution, backend: str, clock: Clock) -> InputError:
    """Return the error that says what is in reach where nothing keeps the limits."""
    problem = formulation.problem
    options = problem.options
    if solution.status == "no solution":
        return TooLate()
    free = replace(problem, options=replace(options, budget_per_hour=None, min_accuracy=None))
    names = ", ".join(application.name for application in formulation.applications)
    if not options.limited or free.options == options:
        return InputError(
            f"{names}: the rates cannot be served task by task on this cluster within the SLOs; add devices, lower the "
            "rates, or raise the SLOs"
        )
    if options.min_accuracy is not None:
        best = replace(free, options=replace(free.options, objective="most_accurate"))
        reached = plan_per_task(best, latency, backend=backend, limits=clock.remaining())
        least = min(reached.accuracy.values())
        if least < options.min_accuracy:
            return InputError(
                f"min_accuracy: {options.min_accuracy:g} % is out of reach; with the whole cluster it is {least:.2f} %"
            )
    cheapest = replace(problem, options=replace(options, budget_per_hour=None, objective="least_cost"))
    cost = plan_per_task(cheapest, latency, backend=backend, limits=clock.remaining()).value
    return InputError(
        f"budget_per_hour: {options.budget_per_hour:g} is below what the cheapest plan costs, {cost:g}; raise it"
    )
