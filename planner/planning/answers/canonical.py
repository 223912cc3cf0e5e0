"""The canonical plan: at equal objective, every DNN on the fewest devices, then in the fewest pipelines.

A plan gives each DNN d whole devices of each type, and the objective needs only some throughput of it: w_d · z under
max-min, its rate where rates are given, else what it has. That leaves a problem of its own per DNN, on those devices:

    fewest devices     minimise sum of U_g, subject to Y_d >= what is needed
    fewest pipelines   minimise sum of open_c, n_{c,s} <= most_{c,s} · open_c, subject to both

over the formulation of `planner.planning.programme.milp`, with open_c binary and most_{c,s} = count_g · k. Of equally
many pipelines those with the fewest stages are taken.

Devices that DNNs share are counted for all of them together, and so are those of plans that money or accuracy limits;
their pipelines are the given ones, less those that nothing needs. Where energy is the objective, pipelines are the
given ones, as far as the rates go to them.

Deviation: devices are not exchanged between DNNs, which would couple them again; on PPipe's 24 MAF'19 problems it costs
one device in one of them, and takes 0.1 s instead of seconds. Nor are candidates looked at beyond the `LARGEST` that
lose least by the relaxation's prices (`planner.planning.programme.relaxation`).
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np

from planner.model import Problem
from planner.model.objective import MAXIMISED, needed_rate_rps
from planner.model.placing import Layouts, Pool
from planner.planning.pipelines.candidates import Candidate
from planner.planning.pipelines.sizing import Sized, Sizing
from planner.planning.programme import milp
from planner.planning.programme.backends import Clock, Limits, Start, TooLate, solve
from planner.planning.programme.objectives import rate_costs
from planner.planning.programme.relaxation import affordable, most_slices, relax

LIMITS = Limits(gap=1e-6, time_limit_s=1.0)  # each; a plan that is only good to read is not worth waiting for
LARGEST = 200
FAR = 1000  # a stage counts so much less than a pipeline


def canonical(
    problem: Problem, candidates: Sequence[Candidate], sizing: Sizing, backend: str, limits: Limits
) -> Sizing:
    """Return a plan of equal objective that is cheaper and simpler where there is one.

    The time left in ``limits``, at most `LIMITS` for either step of a DNN, ends the search with the best plan so far.
    """
    clock = Clock(limits)
    sizing = sizing.merged()
    if problem.options.objective == "least_memory":  # fewer devices may hold more
        return sizing
    if problem.options.objective == "least_energy":  # and draw more
        return sizing if problem.options.limited else _at_work(problem, sizing)
    if problem.options.limited or problem.options.device_sharing == "shared":
        return _fewest_together(problem, sizing, backend, clock)
    found: list[Sized] = []
    layouts: dict[Pool, tuple[Layouts, ...]] = {}
    for dnn in range(len(problem.dnns)):
        name, mine = problem.dnns[dnn].name, _of(sizing.pipelines, dnn)
        simplest: Sizing | None = None
        if mine:
            own = [replace(candidate, dnn=0) for candidate in candidates if candidate.dnn == dnn]
            alone = _alone(problem, sizing, dnn)
            with suppress(TooLate):
                clock.expect_time()
                simplest = _simplest(alone, own, replace(sizing, pipelines=mine), backend, clock)
        kept = sizing.layouts if simplest is None else simplest.layouts
        layouts |= {pool: held for pool, held in kept.items() if pool[1] == name}
        found += (_renumbered(sized, dnn) for sized in (mine if simplest is None else simplest.pipelines))
    return replace(sizing, pipelines=tuple(found), layouts=layouts)


def _at_work(problem: Problem, sizing: Sizing) -> Sizing:
    """Return the pipelines that a rate goes to, those of the fewest joules first, on the slices that it needs."""
    cost = rate_costs(problem, sizing.candidates)
    left = [needed_rate_rps(dnn, problem.options.objective) * (1 - milp.ROUNDING) for dnn in problem.dnns]
    kept = []
    for number in np.argsort(cost, kind="stable").tolist():
        sized = sizing.pipelines[number]
        if left[sized.candidate.dnn] > 0:
            kept.append(sized.serving(min(left[sized.candidate.dnn], sized.throughput_rps)))
            left[sized.candidate.dnn] -= sized.throughput_rps
    return replace(sizing, pipelines=tuple(kept))


def _fewest_together(problem: Problem, sizing: Sizing, backend: str, clock: Clock) -> Sizing:
    """Return the pipelines in use on the fewest devices in all, where the objective leaves that open."""
    if not MAXIMISED[problem.options.objective] or not sizing.pipelines:
        return sizing
    try:
        formulation = milp.build(problem, sorted(set(sizing.candidates)), clock)
    except TooLate:
        return sizing
    milp.keep_objective(formulation, sizing.value(problem))
    formulation.model.set_objective([(column, 1.0) for column in formulation.used], maximise=False)
    solution, _ = solve(formulation.model, backend, clock.within(LIMITS), milp.start_from(formulation, sizing))
    if not solution.found:
        return sizing
    found = milp.extract(formulation, solution, sizing.bound, sizing.backend)
    fewer = sum(found.devices(problem).values()) < sum(sizing.devices(problem).values())
    return found if fewer and found.value(problem) >= sizing.value(problem) * (1 - milp.ROUNDING) else sizing


def _of(pipelines: Sequence[Sized], dnn: int) -> tuple[Sized, ...]:
    """Return the pipelines of a DNN, as those of DNN 0 of a problem of its own."""
    return tuple(_renumbered(sized, 0) for sized in pipelines if sized.candidate.dnn == dnn)


def _renumbered(sized: Sized, dnn: int) -> Sized:
    return replace(sized, candidate=replace(sized.candidate, dnn=dnn))


def _alone(problem: Problem, sizing: Sizing, number: int) -> Problem:
    """Return the problem of one DNN: to serve what the objective needs on the devices that the plan gives it."""
    dnn = problem.dnns[number]
    mine = replace(sizing, pipelines=tuple(sized for sized in sizing.pipelines if sized.candidate.dnn == number))
    needed_rps = mine.throughput_rps(number)
    if problem.options.objective == "max_min_throughput":
        needed_rps = min(needed_rps, dnn.weight * sizing.value(problem))
    elif not MAXIMISED[problem.options.objective] and dnn.rate_rps is not None:
        needed_rps = min(needed_rps, dnn.rate_rps)
    devices = mine.devices(problem)
    counts = {device.name: devices.get(index, 0) for index, device in enumerate(problem.cluster.device_types)}
    return replace(
        problem,
        cluster=problem.cluster.with_counts(counts),
        dnns=(replace(dnn, rate_rps=needed_rps * (1 - milp.ROUNDING)),),
        options=replace(problem.options, objective="fewest_devices"),
    )


def _simplest(problem: Problem, candidates: Sequence[Candidate], best: Sizing, backend: str, clock: Clock) -> Sizing:
    """Solve both steps for one DNN, each from the plan that the one before left."""
    relaxation = relax(problem, candidates, clock)
    kept = affordable(problem, candidates, relaxation, best.value(problem), best.candidates, clock)[:LARGEST]
    formulation = milp.build(problem, sorted({*kept, *best.candidates}), clock)
    proven = relaxation.bound > best.value(problem) - 1 + milp.ROUNDING  # no device less is possible
    for step in (_count_pipelines,) if proven else (milp.start_from, _count_pipelines):
        start = step(formulation, best)
        solution, _ = solve(formulation.model, backend, clock.within(LIMITS), start)
        if solution.found:
            found = milp.extract(formulation, solution, best.bound, backend)
            best = min(best, found, key=lambda sizing: _effort(problem, sizing))
    return best


def _count_pipelines(formulation: milp.Formulation, plan: Sizing) -> Start:
    """Minimise the candidates in use, on no more devices than the plan has; return where to begin."""
    milp.keep_objective(formulation, plan.value(formulation.problem))
    model = formulation.model
    start = dict(milp.start_from(formulation, plan))
    in_use, opened = set(plan.candidates), []
    for candidate, rate, slices in zip(formulation.candidates, formulation.rate, formulation.slices, strict=True):
        name = model.column_names[rate].replace("rate", "open", 1)
        column = model.add_column(name, upper=1.0, integer=True)
        start[column] = float(candidate in in_use)
        opened.append((column, 1.0 + len(slices) / FAR))
        for stage, (count, most) in enumerate(zip(slices, most_slices(formulation.problem, candidate), strict=True)):
            model.add_row(f"{name},{stage}", [(count, 1.0), (column, -most)], upper=0.0)
    model.set_objective(opened, maximise=False)
    return start


def _effort(problem: Problem, sizing: Sizing) -> tuple[int, int, int]:
    stages = sum(len(sized.slices) for sized in sizing.pipelines)
    return sum(sizing.devices(problem).values()), len(sizing.pipelines), stages
