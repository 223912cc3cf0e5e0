"""The next plan from the current one: at most so many slices are started anew.

A slice holds blocks [i, j) of a variant of a DNN on a share of a device of type g; call that its role r. A slice that
keeps its role keeps running, whatever the pipeline and the batch size it then serves; stopping one costs nothing;
giving it another role, or a free device a role, means loading a model, which is what is limited. Over the formulation
of `planner.planning.programme.milp`, with o_r slices in role r now:

    started[r]   sum of n_{c,s} over the stages s of candidates c in role r  -  a_r <= o_r
    started      sum of a_r <= most

Candidates that differ from a better one only in cuts can keep slices running that the better one cannot, so all of them
take part; of candidates with equal roles the Pareto-best remain. At equal objective the fewest slices are started.

The current plan, as far as it is still one, starts nothing, so that no plan is worse. Where pipelines are too many to
list, its own and those of long chains (`planner.planning.whole_devices.chains`) are what there is to choose from.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.model import InputError, Pipeline, Plan, Problem, digest
from planner.model.check import check, slice_rps
from planner.model.segments import Share
from planner.planning.baselines import better_of
from planner.planning.pipelines.candidates import Candidate, enumerate_candidates, pareto_best
from planner.planning.pipelines.reach import unreachable
from planner.planning.pipelines.sizing import Report, Sized, Sizing, build_plan
from planner.planning.programme import milp
from planner.planning.programme.backends import Clock, Limits, solve
from planner.planning.programme.block_bound import block_bound
from planner.planning.whole_devices import chains, columns

log = logging.getLogger(__name__)

MOST_LISTED = 100_000_000  # pipelines: seconds
CHAIN_LIMITS = Limits(gap=1e-6, time_limit_s=10.0)
TIDY_LIMITS = Limits(gap=1e-6, time_limit_s=2.0)


@dataclass(frozen=True, order=True)
class Role:
    """What a slice has loaded: blocks of a variant of a DNN, on a share of a device type."""

    dnn: str
    variant: str
    first_block: int
    last_block: int
    device: str
    share: Share


def slices_by_role(plan: Plan) -> Counter[Role]:
    """Return how many slices a plan has in each role."""
    found: Counter[Role] = Counter()
    for pipeline in plan.pipelines:
        for stage in pipeline.stages:
            role = Role(pipeline.dnn, pipeline.variant, stage.first_block, stage.last_block, stage.device, stage.share)
            found[role] += stage.slices
    return found


def slices_started(current: Plan, following: Plan) -> int:
    """Return the slices that are started anew to get from one plan to the next.

    >>> from planner.model import *
    >>> def plan(slices):
    ...     stage = Stage(0, 2, "L4", 1, slices, 1, 8000, 0.0, 125.0)
    ...     return Plan("pipelines", "max_min_throughput", "optimal", 0, 0, "", "", 0, "", {},
    ...                 (Pipeline("toy", "toy", 125.0, 0.0, 0.0, (stage,)),))
    >>> slices_started(plan(3), plan(5)), slices_started(plan(5), plan(3))
    (2, 0)
    """
    return (slices_by_role(following) - slices_by_role(current)).total()


def size_from(
    problem: Problem, current: Plan, most: int, backend: str, limits: Limits, report: Report | None = None
) -> Sizing:
    """Return the best plan that starts at most ``most`` slices anew; X0 must be known.

    Parameters
    ----------
    report
        Is told every better plan and bound.

    Raises
    ------
    InputError
        ``most`` is negative, a DNN cannot meet its SLO, or nothing can be found within the limit.
    """
    if most < 0:
        raise InputError(f"slices that may be started: expected at least 0, got {most}")
    clock = Clock(limits)
    running = slices_by_role(current)
    kept = _still_planned(problem, current)
    if kept is not None and report is not None:
        report(kept)
    listed = not columns.admits(problem) or columns.enumeration_size(problem) <= MOST_LISTED
    if listed:
        candidates = [candidate for number in range(len(problem.dnns)) for candidate in _candidates(problem, number)]
    else:
        chained = chains.size(problem, clock.within(CHAIN_LIMITS)) if chains.admits(problem) else None
        candidates = sorted({one for plan in (kept, chained) if plan is not None for one in plan.candidates})

    def limit_started(formulation: milp.Formulation) -> list[int]:
        return _limit_started(formulation, running, most)

    best = milp.size(problem, candidates, backend, clock.remaining(), limit_started, report=report if listed else None)
    best = replace(better_of(problem, best, kept) or best, bound=best.bound if listed else block_bound(problem))
    formulation = milp.build(problem, best.candidates)
    started = limit_started(formulation)
    milp.keep_objective(formulation, best.value(problem))
    formulation.model.set_objective([(column, 1.0) for column in started], maximise=False)
    start = milp.start_from(formulation, best)
    solution, _ = solve(formulation.model, backend, clock.within(TIDY_LIMITS), start)
    return milp.extract(formulation, solution, best.bound, best.backend) if solution.found else best


def _still_planned(problem: Problem, current: Plan) -> Sizing | None:
    """Return the current plan as one of a problem; None where it is none any more."""
    try:
        pipelines = tuple(_sized(problem, pipeline) for pipeline in current.pipelines)
        sizing = Sizing(pipelines, block_bound(problem), "none")
        made = build_plan(
            problem, sizing, scheduler="pipelines", method="milp", gap=0.0, seconds=0.0, problem_sha256=digest(problem),
            versions={},
        )  # fmt: skip
        return None if check(problem, made) else sizing
    except InputError as error:
        log.info("the current plan is none of this problem: %s", error)
        return None


def _sized(problem: Problem, pipeline: Pipeline) -> Sized:
    """Return a pipeline of a plan as a sized candidate; raises InputError where the problem does not know a name."""
    dnn, stages = problem.dnn(pipeline.dnn), pipeline.stages
    candidate = Candidate(
        problem.dnns.index(dnn),
        dnn.variants.index(dnn.variant(pipeline.variant)),
        (0, *(stage.last_block for stage in stages)),
        tuple(problem.cluster.index(stage.device) for stage in stages),
        tuple(stage.share for stage in stages),
        tuple(stage.batch for stage in stages),
        tuple(slice_rps(problem, dnn, pipeline, position) for position in range(len(stages))),
    )
    return Sized(candidate, tuple(stage.slices for stage in stages))


def _candidates(problem: Problem, number: int) -> list[Candidate]:
    """Return the candidates of a DNN that are Pareto-best among those with equal roles."""
    x0_rps = problem.dnns[number].np_throughput_rps or 0.0
    groups: defaultdict[tuple[object, ...], list[Candidate]] = defaultdict(list)
    for candidate in enumerate_candidates(problem, number, x0_rps, pareto=False):
        key = candidate.variant, candidate.cuts, candidate.devices, candidate.shares, candidate.parts
        groups[key].append(candidate)
    if not groups:
        raise unreachable(problem, number)
    return [candidate for group in groups.values() for candidate in _best_of(group)]


def _best_of(group: Sequence[Candidate]) -> Iterator[Candidate]:
    slice_rps = np.array([candidate.slice_rps for candidate in group])
    for row in pareto_best(slice_rps, np.zeros(len(group))):
        yield group[row]


def _limit_started(formulation: milp.Formulation, running: Counter[Role], most: int) -> list[int]:
    """Add the rows ``started[r]`` and ``started``; return the columns a_r."""
    by_role: defaultdict[Role, list[tuple[int, float]]] = defaultdict(list)
    for candidate, slices in zip(formulation.candidates, formulation.slices, strict=True):
        for stage, (column, group) in enumerate(zip(slices, candidate.groups, strict=True)):
            by_role[_role(formulation.problem, candidate, stage)].append((column, float(group)))
    model, started = formulation.model, []
    for role, terms in by_role.items():
        name = f"started[{role.dnn}/{role.variant},{role.first_block}-{role.last_block},{role.device}/{role.share}]"
        started.append(model.add_column(name))
        model.add_row(name, [*terms, (started[-1], -1.0)], upper=float(running[role]))
    model.add_row("started", [(column, 1.0) for column in started], upper=float(most))
    return started


def _role(problem: Problem, candidate: Candidate, stage: int) -> Role:
    dnn = problem.dnns[candidate.dnn]
    return Role(
        dnn.name,
        dnn.variants[candidate.variant].name,
        candidate.cuts[stage],
        candidate.cuts[stage + 1],
        problem.cluster.device_types[candidate.devices[stage]].name,
        candidate.shares[stage],
    )
