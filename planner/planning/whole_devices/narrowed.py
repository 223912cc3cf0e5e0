"""The mixed-integer programme over the candidates that tables leave, for two device types.

`planner.planning.whole_devices.tables` gives a plan and the candidates that a better one can hold, usually a few dozen
of thousands; where it does not apply, or candidates are few, the programme takes them as they are.
"""

from collections.abc import Sequence

from planner.model import Problem
from planner.planning.pipelines.candidates import Candidate
from planner.planning.pipelines.sizing import Report, Sizing
from planner.planning.programme import by_dnn, milp
from planner.planning.programme.backends import Clock, Limits
from planner.planning.whole_devices import tables


def size(
    problem: Problem, candidates: Sequence[Candidate], backend: str, limits: Limits, report: Report | None = None
) -> Sizing:
    """Return the best sizes of the candidates, to a gap or until the time is up; reports and raises as `milp.size`."""
    if by_dnn.admits(problem):
        return by_dnn.size(problem, candidates, backend, limits, report)
    if problem.options.limited or len(candidates) <= milp.SHORTLIST or not tables.admits(problem, candidates):
        return milp.size(problem, candidates, backend, limits, report=report)
    clock = Clock(limits)
    first, kept = tables.narrowed(problem, candidates, clock)
    return milp.size(problem, kept, backend, clock.remaining(), begin=first, report=report)
