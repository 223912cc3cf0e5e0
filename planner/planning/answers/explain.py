"""Why a problem has no plan, or none that is better: least SLOs, and what one more device would be worth."""

from collections.abc import Mapping
from dataclasses import dataclass

from planner.model import Problem
from planner.planning.baselines import with_x0
from planner.planning.pipelines.candidates import Candidate, enumerate_candidates
from planner.planning.pipelines.reach import LeastSlo, least_slo, unreachable
from planner.planning.programme.relaxation import overloaded, relax


@dataclass(frozen=True)
class Explanation:
    """What holds a problem's objective where it is.

    ``bound`` is the linear relaxation's: no plan is better. ``worth[type]`` is the change of that bound per additional
    device of a type, 0 for types that are not scarce; it is the slope at the present counts and holds for small
    changes.
    """

    least_slo: tuple[LeastSlo, ...]
    bound: float
    worth: Mapping[str, float]


def explain(problem: Problem) -> Explanation:
    """Return the least SLO of every DNN, the relaxation's bound and what one more device of each type is worth.

    Raises
    ------
    InputError
        A DNN cannot run, or meet its SLO, on the cluster, or the rates asked for cannot be served.

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
    least = tuple(least_slo(problem, number) for number in range(len(problem.dnns)))
    candidates: list[Candidate] = []
    for number, dnn in enumerate(problem.dnns):
        found = enumerate_candidates(problem, number, dnn.np_throughput_rps or 0.0)
        if not found:
            raise unreachable(problem, number)
        candidates += found
    relaxation = relax(problem, candidates)
    if relaxation.status == "infeasible":
        raise overloaded(problem, candidates)
    names = [device.name for device in problem.cluster.device_types]
    return Explanation(least, relaxation.bound, dict(zip(names, relaxation.worth.tolist(), strict=True)))
