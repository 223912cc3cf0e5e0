"""The canonical plan: among the plans of equal objective one with the fewest devices, then the fewest pipelines.

Two more programmes over the formulation of `planner.planning.milp`, each with the result of the one before as a row:

    fewest devices     minimise sum of U_g, subject to the objective's value
    fewest pipelines   minimise sum of open_c, n_{c,s} <= most_{c,s} · open_c, subject to both

with open_c binary and most_{c,s} = count_g · k. Plans of the known value hold only candidates that lose little enough
(`planner.planning.relaxation`), so both are small. Without a known gap of 0 the value is the best one found.
"""

from collections.abc import Sequence

from planner.model import Problem
from planner.planning import milp
from planner.planning.backends import Clock, Limits, Start, solve
from planner.planning.candidates import Candidate
from planner.planning.relaxation import affordable, relax
from planner.planning.sizing import Sizing

LIMITS = Limits(gap=1e-6, time_limit_s=2.0)  # each; a plan that is only good to read is not worth waiting for


def canonical(
    problem: Problem, candidates: Sequence[Candidate], sizing: Sizing, backend: str, limits: Limits
) -> Sizing:
    """Return a plan of equal objective that is cheaper and simpler where there is one.

    The time left in ``limits``, at most `LIMITS` for either step, ends the search with the best plan so far.
    """
    clock = Clock(limits)
    value = sizing.value(problem)
    kept = affordable(problem, candidates, relax(problem, candidates), value, sizing.candidates)
    formulation = milp.build(problem, kept)
    milp.keep_objective(formulation, value)
    model = formulation.model
    best = sizing
    for step in (_fewest_devices, _fewest_pipelines):
        start = step(formulation, best)
        solution, _ = solve(model, backend, clock.within(LIMITS), start)
        if solution.found:
            best = _simpler(problem, best, Sizing(milp.extract(formulation, solution), sizing.bound, sizing.backend))
    return best


def _fewest_devices(formulation: milp.Formulation, sizing: Sizing) -> Start:
    """Minimise the devices in use."""
    formulation.model.set_objective([(column, 1.0) for column in formulation.used], maximise=False)
    return milp.start_from(formulation, sizing.pipelines)


def _fewest_pipelines(formulation: milp.Formulation, sizing: Sizing) -> Start:
    """Minimise the candidates in use, on no more devices than the plan has."""
    model, types = formulation.model, formulation.problem.cluster.device_types
    devices = sum(sizing.devices().values())
    model.add_row("fewest devices", [(column, 1.0) for column in formulation.used], upper=devices)
    start = dict(milp.start_from(formulation, sizing.pipelines))
    in_use, opened = set(sizing.candidates), []
    for candidate, rate, slices in zip(formulation.candidates, formulation.rate, formulation.slices, strict=True):
        name = model.column_names[rate].replace("rate", "open", 1)
        column = model.add_column(name, upper=1.0, integer=True)
        start[column] = float(candidate in in_use)
        opened.append((column, 1.0))
        for stage, (count, device, share) in enumerate(zip(slices, candidate.devices, candidate.shares, strict=True)):
            most = types[device].count * share
            model.add_row(f"{name},{stage}", [(count, 1.0), (column, -most)], upper=0.0)
    model.set_objective(opened, maximise=False)
    return start


def _simpler(problem: Problem, one: Sizing, other: Sizing) -> Sizing:
    """Return the plan with fewer devices, then fewer pipelines; never one that gives away value for it."""

    def effort(sizing: Sizing) -> tuple[int, int]:
        return sum(sizing.devices().values()), len(sizing.pipelines)

    return other if effort(other) < effort(one) and milp.as_good(problem, other, one) else one
