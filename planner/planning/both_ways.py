"""Applications planned both ways, end to end and task by task: the better plan, which no plan of either way beats.

Neither way holds all plans of the other. Pipelines cut within models, and their stages span seams; task by task, one
queue feeds several configurations of a task, and batches are built anew, in other sizes. Both promise their latency to
every request (task by task: the *worst* rule), so that their values are alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from time import perf_counter
from typing import Literal

from planner.model import InputError, Plan, Problem, TaskPlan
from planner.model.objective import MAXIMISED
from planner.planning.api import make_plan
from planner.planning.applications.per_task import search_per_task
from planner.planning.incumbent import Progress
from planner.planning.programme.backends import Limits, TooLate

ENDED = "the search was ended before there was one"
Way = Literal["end to end", "task by task"]


@dataclass(frozen=True)
class BothWays:
    """The plans of both ways, None where a way has none, for the reason in ``reasons``.

    Attributes
    ----------
    way, plan, value
        The better way, its plan and what that is worth by the problem's objective; end to end of equal ones.
    bound
        What no plan of either way is better than; infinite (0 for what is minimised) where a way was not through in
        time.
    """

    way: Way
    plan: Plan | TaskPlan
    value: float
    bound: float
    end_to_end: Plan | None
    per_task: TaskPlan | None
    reasons: Mapping[Way, str]


def plan_both_ways(
    problem: Problem,
    *,
    backend: str = "highs",
    gap: float = 1e-6,
    time_limit_s: float | None = None,
    progress: Progress | None = None,
) -> BothWays:
    """Return the better of the plans end to end and task by task, each of which was checked.

    Ctrl-C (KeyboardInterrupt) ends the search with the best plan so far, if there is one.

    Parameters
    ----------
    problem
        Of applications (or DNNs) with given rates. Trees, fan-out and very many choices have plans task by task only,
        shared devices and other objectives end to end only.
    time_limit_s
        For both together; task by task, which is the quicker one, takes at most half of it.
    progress
        Is told what `planner.planning.make_plan` tells of plans end to end.

    Raises
    ------
    InputError
        Neither way has a plan; the message is that of the way that got further, or that the time was too short.

    Examples
    --------
    Two tasks of 2 ms each: end to end one device does both, task by task each has its own.

    >>> from planner.model import *
    >>> table = LatencyTable("L4", 1, (1,), ((2000,),), Provenance("measured", "by hand"))
    >>> find, name = (Profile(each, (Block(("a",)),), (), (table,), input_bytes=9) for each in ("find", "name"))
    >>> tasks = Task("find", (find,)), Task("name", (name,))
    >>> application = Application("photos", 20_000, tasks, rate_rps=200.0)
    >>> cluster = Cluster((DeviceType("L4", 4),), Network(10))
    >>> options = Options("fewest_devices", batch_building_factor=0)
    >>> both = plan_both_ways(Problem(cluster, (), options, (application,)))
    >>> both.way, both.value, both.bound, both.per_task.value
    ('end to end', 1.0, 1.0, 2.0)
    """
    begin_s = perf_counter()
    reasons: dict[Way, str] = {}
    errors: list[InputError] = []
    per_task: TaskPlan | None = None
    end_to_end: Plan | None = None
    interrupted = False
    try:
        half_s = None if time_limit_s is None else time_limit_s / 2
        per_task, interrupted = search_per_task(problem, "worst", backend, Limits(gap, half_s))
    except InputError as error:
        reasons["task by task"] = str(error)
        errors.append(error)
    try:
        if interrupted:
            raise KeyboardInterrupt
        left_s = None if time_limit_s is None else max(time_limit_s / 2, time_limit_s - (perf_counter() - begin_s))
        end_to_end = make_plan(problem, backend=backend, gap=gap, time_limit_s=left_s, progress=progress)
    except KeyboardInterrupt:
        if per_task is None:
            raise
        errors.append(TooLate(ENDED))
        reasons["end to end"] = ENDED
    except InputError as error:
        reasons["end to end"] = str(error)
        errors.append(error)
    maximises = MAXIMISED[problem.options.objective]
    found: list[tuple[Way, Plan | TaskPlan, float]] = []
    if end_to_end is not None:
        found.append(("end to end", end_to_end, end_to_end.value))
    if per_task is not None:
        found.append(("task by task", per_task, per_task.value))
    if not found:
        late = [error for error in errors if isinstance(error, TooLate)]
        chains = all(application.is_chain for application in problem.applications)
        raise late[0] if late else errors[-1 if chains else 0]
    better = max if maximises else min
    way, plan, value = better(found, key=lambda one: one[2])
    bounds = [one.bound for _, one, _ in found]
    if any(isinstance(error, TooLate) for error in errors):
        bounds.append(inf if maximises else 0.0)
    return BothWays(way, plan, value, better(bounds), end_to_end, per_task, reasons)
