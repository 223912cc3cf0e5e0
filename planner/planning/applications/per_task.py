"""Applications planned task by task, as IPA serves them (JSys 2024), on clusters of unlike devices.

Every task has a queue of its own and replicas of whole variants, each on a slice; a batch is built anew in front of
every task, so that tasks may have unlike batch sizes, branch, and hand several requests on. Which device types, shares
and batch sizes serve a task, and how its requests are divided among variants, is part of the plan.

Sets
    a, s, v    applications, their tasks, the variants of a task
    r          choices of an application: one variant per task
    c          configurations of a task: a variant on a share 1/k of device type g, in batches of b

Parameters
----------
    rate_s     requests/s that reach task s: the application's rate times the fan-outs on the way
    l_c        latency of a configuration: inference, the transfer of the batch's input (not for the first task; over
               the slowest link to g), and batch building (b - 1) / rate_s
    h_c        what a slice sustains: min(b / inference, 1 / (t_in · k · G), 1 / (t_out · k · G)), with the times t on
               the wire of what a request brings and hands on, and G devices that share a network card
    a_r        accuracy of a choice, by the application's rule: any rule is a number here

Variables
    f_r        requests/s that take a choice                                                ``flow[a/r]``
    y_c, n_c   requests/s of a configuration, its slices (integer)                          ``rate[c]``, ``slices[c]``
    N_{s,g}    devices of type g for task s (integer), U_g those of all tasks               ``devices``, ``used[g]``

    served[a]      sum over r of f_r = rate_a
    split[s/v]     fan-out of s · sum of f_r over choices with v = sum of y_c over configurations of v
    capacity[c]    y_c <= h_c · n_c
    devices[s,g]   sum over c of n_c / k <= N_{s,g};   used[g]: sum over s of N_{s,g} = U_g <= devices of type g
    budget         sum of price_g · U_g <= budget
    accuracy[a]    sum of a_r · f_r >= least accuracy · rate_a             (r: those that `choices` lists)
    latency[leaf]  sum of L_s over the tasks on the way to a leaf <= SLO - slack

where L_s is what the requests of task s take, by one of two rules: *worst*, the largest l_c of the configurations in
use (binary u_c: y_c <= rate_s · u_c, L_s >= l_c · u_c), which holds for every request, or *mean*, sum of l_c · y_c /
rate_s. Flows over choices make products of accuracies exact and linear, and say which variants go together.

End to end (`planner.planning.make_plan`) a batch stays together. A plan of one configuration per task, in one batch
size, on whole devices, is an end-to-end plan as well where a pipeline may have as many stages as there are tasks and
building a batch takes no longer: there end to end is never worse. It may be where tasks gain from unlike batch sizes or
from one queue in front of several configurations; `planner.planning.both_ways` takes the better plan.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from time import perf_counter
from typing import get_args

from planner.model import Application, InputError, Problem, Profile, TaskFlow, TaskPlan, TaskService
from planner.model.check_tasks import check_tasks
from planner.model.objective import MAXIMISED, needed_rate_rps, price_per_hour
from planner.model.problem import Objective
from planner.model.task_graph import applications_of, known_accuracy, task_rates, ways
from planner.model.task_plan import LatencyRule
from planner.model.task_worth import Configuration
from planner.planning.applications.choices import Choice, best_choice, first_choices
from planner.planning.applications.configurations import configurations
from planner.planning.applications.task_plans import plan_of
from planner.planning.arrays import Floats
from planner.planning.programme.backends import Limits, TooLate, solve
from planner.planning.programme.linear import LinearModel, Solution

LATENCY_RULES: tuple[LatencyRule, ...] = get_args(LatencyRule)
OBJECTIVES: tuple[Objective, ...] = ("most_accurate", "least_cost", "fewest_devices")
WHOLE = 100.0  # percent
UNSERVED = 1e4  # times the largest price of the objective
ROUNDING = 1e-6  # relative: rates below this are none, and slices this near to fewer are fewer


@dataclass
class Formulation:
    """The model and its columns."""

    problem: Problem
    applications: tuple[Application, ...]
    configurations: list[tuple[int, Configuration]]  # with the number of their application
    model: LinearModel = field(default_factory=LinearModel)
    flow: dict[tuple[int, tuple[Profile, ...]], int] = field(default_factory=dict, repr=False)
    rate: list[int] = field(default_factory=list)
    slices: list[int] = field(default_factory=list)
    used: list[int] = field(default_factory=list)
    unserved: dict[int, int] = field(default_factory=dict)  # relaxed
    rows: dict[str, int] = field(default_factory=dict, repr=False)
    listed: list[bool] = field(default_factory=list)  # per application: whether all its choices are here

    def of(self, application: int, task: int) -> list[tuple[int, Configuration]]:
        """Return the configurations of a task with their numbers."""
        pairs = enumerate(self.configurations)
        return [(number, one) for number, (a, one) in pairs if (a, one.task) == (application, task)]


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
    begin_s = perf_counter()
    limits = limits or Limits()
    if latency not in LATENCY_RULES:
        raise InputError(f"latency: expected one of {list(LATENCY_RULES)}, got {latency!r}")
    _check_options(problem)
    formulation, bound = _with_choices(build(problem.relied_on, latency), latency, backend, limits)
    solution, used = solve(formulation.model, backend, limits)
    if not solution.found:
        raise _none(formulation, latency, solution, backend, limits)
    services, flows = extract(formulation, solution)
    bound = solution.bound if bound is None else bound
    plan = plan_of(problem, services, flows, latency, bound, used, limits.gap)
    plan = replace(plan, seconds=perf_counter() - begin_s)
    if violations := check_tasks(problem, plan):
        raise RuntimeError(f"the plan found breaks {len(violations)} constraints, the first: {violations[0]}")
    return plan


def _check_options(problem: Problem) -> None:
    options = problem.options
    if options.objective not in OBJECTIVES:
        raise InputError(f"objective: task by task expected one of {list(OBJECTIVES)}, got {options.objective!r}")
    if options.device_sharing != "own":
        raise InputError(
            f"device_sharing: task by task each device serves one task, expected 'own', got {options.device_sharing!r}"
        )


def build(
    problem: Problem, latency: LatencyRule, more: Sequence[tuple[int, Choice]] = (), *, relaxed: bool = False
) -> Formulation:
    """Return the programme; raises InputError where a task cannot be served at all.

    ``more`` are choices of applications (by their numbers) beside the first ones, where not all are listed. If
    ``relaxed`` there are no integers, and requests may stay unserved at a price above all others.
    """
    applications = applications_of(problem)
    for dnn in problem.dnns:
        needed_rate_rps(dnn, problem.options.objective)
    for application in problem.applications:
        if application.rate_rps is None:
            raise InputError(f"rate_rps of {application.name}: missing; task by task plans serve given rates")
    found = [
        (a, one)
        for a, application in enumerate(applications)
        for s in range(len(application.tasks))
        for one in configurations(problem, application, s)
    ]
    formulation = Formulation(problem, applications, found)
    _add_flows(formulation, more, relaxed)
    _add_configurations(formulation)
    _add_splits(formulation)
    _add_devices(formulation)
    _add_latencies(formulation, latency)
    _add_limits(formulation)
    _set_objective(formulation)
    if relaxed:
        formulation.model.relax_integers()
    return formulation


def _able(formulation: Formulation, a: int) -> list[list[Profile]]:
    """Return the variants of each task of an application that can be served."""
    tasks = formulation.applications[a].tasks
    served = [{one.variant for _, one in formulation.of(a, s)} for s in range(len(tasks))]
    return [[v for v in task.variants if v.name in names] for task, names in zip(tasks, served, strict=True)]


def _add_flows(formulation: Formulation, more: Sequence[tuple[int, Choice]], relaxed: bool) -> None:
    for a, application in enumerate(formulation.applications):
        choices, whole = first_choices(application, _able(formulation, a))
        formulation.listed.append(whole)
        columns = []
        for choice in dict.fromkeys([*choices, *(choice for b, choice in more if b == a)]):
            name = f"flow[{application.name}/{'+'.join(variant.name for variant in choice)}]"
            column = formulation.model.add_column(name)
            formulation.flow[a, choice] = column
            columns.append((column, 1.0))
        if relaxed:
            formulation.unserved[a] = formulation.model.add_column(f"unserved[{application.name}]")
            columns.append((formulation.unserved[a], 1.0))
        rate_rps = application.rate_rps or 0.0
        name = f"served[{application.name}]"
        formulation.rows[name] = formulation.model.add_row(name, columns, lower=rate_rps, upper=rate_rps)


def _add_configurations(formulation: Formulation) -> None:
    for number, (a, one) in enumerate(formulation.configurations):
        application = formulation.applications[a]
        device = formulation.problem.cluster.device(one.device)
        name = f"{application.name}/{application.tasks[one.task].name}/{number}"
        most = min(device.count * one.share, ceil(task_rates(application)[one.task] / one.slice_rps))
        formulation.rate.append(formulation.model.add_column(f"rate[{name}]"))
        formulation.slices.append(formulation.model.add_column(f"slices[{name}]", upper=most, integer=True))
        terms = [(formulation.rate[-1], 1.0), (formulation.slices[-1], -one.slice_rps)]
        formulation.model.add_row(f"capacity[{name}]", terms, upper=0)


def _add_splits(formulation: Formulation) -> None:
    for a, application in enumerate(formulation.applications):
        fan_outs = [rate / (application.rate_rps or 1.0) for rate in task_rates(application)]
        for s, task in enumerate(application.tasks):
            for variant in task.variants:
                flows = [
                    (column, fan_outs[s])
                    for (b, choice), column in formulation.flow.items()
                    if b == a and choice[s] is variant
                ]
                rates = [(formulation.rate[n], -1.0) for n, one in formulation.of(a, s) if one.variant == variant.name]
                if flows:
                    name = f"split[{application.name}/{task.name}/{variant.name}]"
                    formulation.rows[name] = formulation.model.add_row(name, [*flows, *rates], lower=0, upper=0)


def _add_devices(formulation: Formulation) -> None:
    model = formulation.model
    types = formulation.problem.cluster.device_types
    devices: defaultdict[int, list[tuple[int, float]]] = defaultdict(list)
    for a, application in enumerate(formulation.applications):
        for s, task in enumerate(application.tasks):
            for g, device in enumerate(types):
                slices = [
                    (formulation.slices[n], 1 / one.share)
                    for n, one in formulation.of(a, s)
                    if one.device == device.name
                ]
                if not slices:
                    continue
                name = f"devices[{application.name}/{task.name},{device.name}]"
                column = model.add_column(name, upper=device.count, integer=True)
                model.add_row(name, [*slices, (column, -1.0)], upper=0)
                devices[g].append((column, 1.0))
    formulation.used = [model.add_column(f"used[{device.name}]", upper=device.count) for device in types]
    for g, device in enumerate(types):
        model.add_row(f"used[{device.name}]", [*devices[g], (formulation.used[g], -1.0)], lower=0, upper=0)


def _add_latencies(formulation: Formulation, latency: LatencyRule) -> None:
    model, problem = formulation.model, formulation.problem
    for a, application in enumerate(formulation.applications):
        rates = task_rates(application)
        columns = []
        for s, task in enumerate(application.tasks):
            name = f"{application.name}/{task.name}"
            column = model.add_column(f"latency[{name}]")
            columns.append(column)
            if latency == "mean":
                terms = [(formulation.rate[n], one.latency_us / rates[s]) for n, one in formulation.of(a, s)]
                model.add_row(f"latency[{name}]", [*terms, (column, -1.0)], lower=0, upper=0)
                continue
            for n, one in formulation.of(a, s):
                in_use = model.add_column(f"in_use[{name}/{n}]", upper=1, integer=True)
                model.add_row(f"in_use[{name}/{n}]", [(formulation.rate[n], 1.0), (in_use, -rates[s])], upper=0)
                model.add_row(f"worst[{name}/{n}]", [(column, 1.0), (in_use, -one.latency_us)], lower=0)
        for way in ways(application):
            limit_us = application.slo_us - round(problem.options.slack_fraction * application.slo_us)
            name = f"latency[{application.name}, to {application.tasks[way[-1]].name}]"
            model.add_row(name, [(columns[s], 1.0) for s in way], upper=limit_us)


def _add_limits(formulation: Formulation) -> None:
    options, model = formulation.problem.options, formulation.model
    if options.budget_per_hour is not None:
        model.add_row("budget", _costs_of_devices(formulation), upper=options.budget_per_hour)
    if options.min_accuracy is not None:
        for a, application in enumerate(formulation.applications):
            terms = [
                (column, known_accuracy(application, choice))
                for (b, choice), column in formulation.flow.items()
                if b == a
            ]
            terms += [(column, WHOLE) for b, column in formulation.unserved.items() if b == a]
            least = options.min_accuracy * (application.rate_rps or 0.0)
            name = f"accuracy[{application.name}]"
            formulation.rows[name] = model.add_row(name, terms, lower=least)


def _costs_of_devices(formulation: Formulation) -> list[tuple[int, float]]:
    pairs = zip(formulation.used, formulation.problem.cluster.device_types, strict=True)
    return [(column, price_per_hour(formulation.problem, device.name)) for column, device in pairs]


def _set_objective(formulation: Formulation) -> None:
    objective = formulation.problem.options.objective
    if objective == "most_accurate":
        total_rps = sum(application.rate_rps or 0.0 for application in formulation.applications)
        terms = [
            (column, known_accuracy(formulation.applications[a], choice) / total_rps)
            for (a, choice), column in formulation.flow.items()
        ]
    elif objective == "least_cost":
        terms = _costs_of_devices(formulation)
    else:
        terms = [(column, 1.0) for column in formulation.used]
    largest = max(abs(value) for _, value in terms)
    sign = -1.0 if MAXIMISED[objective] else 1.0
    terms += [(column, sign * UNSERVED * largest) for column in formulation.unserved.values()]
    formulation.model.set_objective(terms, maximise=MAXIMISED[objective])


def _with_choices(
    formulation: Formulation, latency: LatencyRule, backend: str, limits: Limits
) -> tuple[Formulation, float | None]:
    """Return the programme with the choices that prices ask for, and its value's bound; None where all are listed."""
    if all(formulation.listed):
        return formulation, None
    problem, more = formulation.problem, list(formulation.flow)
    maximises = MAXIMISED[problem.options.objective]
    while True:
        relaxed = build(problem, latency, more, relaxed=True)
        solution, _ = solve(relaxed.model, backend, limits)
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
        application.tasks, task_rates(application), _able(formulation, a), strict=True
    ):
        of_task = f"split[{application.name}/{task.name}/"
        prices.append({v.name: reaching_rps / rate_rps * duals[rows[f"{of_task}{v.name}]"]] for v in variants})
    worth = 0.0
    if formulation.problem.options.objective == "most_accurate":
        worth = 1.0 / sum(one.rate_rps or 0.0 for one in formulation.applications)
    if f"accuracy[{application.name}]" in rows:
        worth -= duals[rows[f"accuracy[{application.name}]"]]
    choice, value = best_choice(application, _able(formulation, a), max(0.0, worth), prices)
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


def _none(
    formulation: Formulation, latency: LatencyRule, solution: Solution, backend: str, limits: Limits
) -> InputError:
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
        reached = plan_per_task(best, latency, backend=backend, limits=limits)
        least = min(reached.accuracy.values())
        if least < options.min_accuracy:
            return InputError(
                f"min_accuracy: {options.min_accuracy:g} % is out of reach; with the whole cluster it is {least:.2f} %"
            )
    cheapest = replace(problem, options=replace(options, budget_per_hour=None, objective="least_cost"))
    cost = plan_per_task(cheapest, latency, backend=backend, limits=limits).value
    return InputError(
        f"budget_per_hour: {options.budget_per_hour:g} is below what the cheapest plan costs, {cost:g}; raise it"
    )
