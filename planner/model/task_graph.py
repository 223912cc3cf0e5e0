"""What the tasks of an application form: who takes from whom, the rates that reach each, the ways to the leaves."""

from collections.abc import Sequence

from planner.model.applications import Application, Task, choice_accuracy
from planner.model.dnn import Dnn
from planner.model.errors import InputError
from planner.model.problem import Problem
from planner.model.profile import Profile


def applications_of(problem: Problem) -> tuple[Application, ...]:
    """Return the applications of a problem, DNNs among them as applications of one task."""
    return (*(_as_application(dnn) for dnn in problem.dnns), *problem.applications)


def _as_application(dnn: Dnn) -> Application:
    task = Task(dnn.name, dnn.variants, dnn.accuracy)
    return Application(dnn.name, dnn.slo_us, (task,), weight=dnn.weight, rate_rps=dnn.rate_rps)


def task_rates(application: Application) -> list[float]:
    """Return the requests/s that reach each task: the application's rate times the fan-outs on the way.

    >>> from planner.model import *
    >>> table = LatencyTable("L4", 1, (1,), ((9,),), Provenance("bound", ""))
    >>> model = Profile("m", (Block(("a",)),), (), (table,))
    >>> detect, name = Task("detect", (model,)), Task("name", (model,), fan_out=2.5)
    >>> task_rates(Application("a", 1000, (detect, name), rate_rps=10.0))
    [10.0, 25.0]
    """
    rates: list[float] = []
    for task, before in zip(application.tasks, application.predecessors, strict=True):
        rates.append((application.rate_rps or 0.0 if before is None else rates[before]) * task.fan_out)
    return rates


def ways(application: Application) -> list[list[int]]:
    """Return the tasks on the way to each leaf of the tree, the first task first.

    >>> from planner.model import *
    >>> table = LatencyTable("L4", 1, (1,), ((9,),), Provenance("bound", ""))
    >>> model = Profile("m", (Block(("a",)),), (), (table,))
    >>> tasks = Task("detect", (model,)), Task("name", (model,)), Task("track", (model,), after="detect")
    >>> ways(Application("a", 1000, tasks))
    [[0, 1], [0, 2]]
    """
    to_task: list[list[int]] = []
    before = application.predecessors
    for number, previous in enumerate(before):
        to_task.append([*(to_task[previous] if previous is not None else []), number])
    return [way for number, way in enumerate(to_task) if number not in before]


def known_accuracy(application: Application, choice: Sequence[Profile]) -> float:
    """Return the accuracy (percent) of a choice; raises InputError where a variant's is missing."""
    accuracy = choice_accuracy(application, choice)
    if accuracy is None:
        missing = [
            f"{task.name}/{variant.name}"
            for task, variant in zip(application.tasks, choice, strict=True)
            if variant.name not in task.accuracy
        ]
        raise InputError(
            f"accuracy of {application.name}/{missing[0]}: missing; objectives and limits of accuracy need it for "
            "every variant"
        )
    return accuracy
