"""Why a problem has no plan, or none that is better: least SLOs, and what one more device would be worth."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from planner.model import InputError, Problem
from planner.planning.baselines import with_x0
from planner.planning.pipelines.candidates import Candidate, enumerate_candidates
from planner.planning.pipelines.reach import LeastSlo, least_slo, unreachable
from planner.planning.programme.backends import Limits
from planner.planning.programme.relaxation import overloaded, relax


@dataclass(frozen=True)
class Explanation:
    """What holds a problem's objective where it is.

    ``least_slo`` has every DNN that the cluster can run; ``unreachable`` says, by DNN, why it cannot be served as
    asked. ``bound`` is the linear relaxation's over all others: no plan is better. ``worth[type]`` is the change of
    that bound per additional device of a type, 0 for types that are not scarce; it is the slope at the present counts
    and holds for small changes.
    """

    least_slo: tuple[LeastSlo, ...]
    unreachable: Mapping[str, str]
    bound: float
    worth: Mapping[str, float]


def explain(problem: Problem) -> Explanation:
    """Return the least SLO of every DNN, the relaxation's bound and what one more device of each type is worth.

    Raises
    ------
    InputError
        No DNN can be served, or the rates asked for cannot.

    Examples
    --------
    One L4 serves 250 requests/s in batches of 2, and needs 8 ms of the 12 ms that slack leaves of the SLO:

    >>> from planner.model import *
    >>> table = LatencyTable("L4", 1, (1, 2), ((6000,), (8000,)), Provenance("measured", "by hand"))
    >>> profile = Profile("toy", (Block(("a",)),), (), (table,))
    >>> problem = Problem(Cluster((DeviceType("L4", 4),), Network(10)), (Dnn("toy", 20_000, (profile,)),))
    >>> explained = explain(problem)
    >>> print(explained.least_slo[0])
    10.00 ms = inference 6.00 ms + slack 4.00 ms, on L4 blocks 0-0 at batch 1
    >>> explained.bound, dict(explained.worth)
    (1000.0, {'L4': 250.0})
    """
    problem = with_x0(problem.planned)
    reasons = reasons_of(problem)
    least = []
    for number in range(len(problem.dnns)):
        with suppress(InputError):  # it cannot run at all, which is among the reasons
            least.append(least_slo(problem, number))
    problem = without(problem, reasons)
    candidates: list[Candidate] = []
    for number, dnn in enumerate(problem.dnns):
        candidates += enumerate_candidates(problem, number, dnn.np_throughput_rps or 0.0)
    relaxation = relax(problem, candidates)
    if relaxation.status == "infeasible":
        raise overloaded(problem, candidates)
    names = [device.name for device in problem.cluster.device_types]
    return Explanation(
        tuple(least), reasons, relaxation.bound, dict(zip(names, relaxation.worth.tolist(), strict=True))
    )


def reasons_of(problem: Problem) -> dict[str, str]:
    """Return, by DNN, why no pipeline serves it as asked; X0 must be known."""
    return {
        dnn.name: str(unreachable(problem, number))
        for number, dnn in enumerate(problem.dnns)
        if not enumerate_candidates(problem, number, dnn.np_throughput_rps or 0.0)
    }


def without(problem: Problem, names: Mapping[str, str]) -> Problem:
    """Return a problem less the DNNs named, with why; raises InputError, with all of why, where none is left."""
    left = tuple(dnn for dnn in problem.dnns if dnn.name not in names)
    if not left:
        raise InputError("no DNN can be served: " + "; ".join(names.values()))
    return problem.with_dnns(left)


def servable(problem: Problem, limits: Limits | None = None) -> tuple[Problem, dict[str, str]]:
    """Return a problem, as it is planned, less the DNNs that no pipeline serves as asked, and by DNN why.

    Parameters
    ----------
    limits
        Of finding X0.

    Raises
    ------
    InputError
        None is left.

    Examples
    --------
    >>> from planner.model import *
    >>> table = LatencyTable("L4", 1, (1,), ((6000,),), Provenance("measured", "by hand"))
    >>> profile = Profile("toy", (Block(("a",)),), (), (table,))
    >>> dnns = (Dnn("quick", 9_000, (profile,)), Dnn("slow", 20_000, (profile,)))
    >>> left, reasons = servable(Problem(Cluster((DeviceType("L4", 4),), Network(10)), dnns))
    >>> [dnn.name for dnn in left.dnns], list(reasons)
    (['slow'], ['quick'])
    """
    planned = problem.planned
    reasons = reasons_of(with_x0(planned, limits=limits))
    return without(planned, reasons), reasons
