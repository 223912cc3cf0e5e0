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
from dataclasses import dataclass, field
from math import ceil

from planner.model import Application, InputError, Problem, Profile
from planner.model.objective import MAXIMISED, needed_rate_rps, price_per_hour
from planner.model.task_graph import applications_of, known_accuracy, task_rates, ways
from planner.model.task_plan import LatencyRule
from planner.model.task_worth import Configuration
from planner.planning.applications.choices import Choice, first_choices
from planner.planning.applications.configurations import configurations
from planner.planning.programme.linear import LinearModel

WHOLE = 100.0  # percent
UNSERVED = 1e4  # times the largest price of the objective


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
    latency: list[tuple[int, float]] = field(default_factory=list)  # columns, over the SLO of their application
    worth: list[tuple[int, float]] = field(default_factory=list, repr=False)  # the objective
    unserved: dict[int, int] = field(default_factory=dict)  # relaxed
    rows: dict[str, int] = field(default_factory=dict, repr=False)
    listed: list[bool] = field(default_factory=list)  # per application: whether all its choices are here

    def of(self, application: int, task: int) -> list[tuple[int, Configuration]]:
        """Return the configurations of a task with their numbers."""
        pairs = enumerate(self.configurations)
        return [(number, one) for number, (a, one) in pairs if (a, one.task) == (application, task)]


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


def able_variants(formulation: Formulation, a: int) -> list[list[Profile]]:
    """Return the variants of each task of an application that can be served."""
    tasks = formulation.applications[a].tasks
    served = [{one.variant for _, one in formulation.of(a, s)} for s in range(len(tasks))]
    return [[v for v in task.variants if v.name in names] for task, names in zip(tasks, served, strict=True)]


def _add_flows(formulation: Formulation, more: Sequence[tuple[int, Choice]], relaxed: bool) -> None:
    for a, application in enumerate(formulation.applications):
        choices, whole = first_choices(application, able_variants(formulation, a))
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
            formulation.latency.append((column, 1 / application.slo_us))
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
    formulation.worth = terms
    formulation.model.set_objective(terms, maximise=MAXIMISED[objective])
