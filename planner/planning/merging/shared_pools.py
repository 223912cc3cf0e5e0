"""Plans with pools of several DNNs: the main plan's programme, and merged stages that one pool serves.

To the programme over candidates (`planner.planning.programme.milp`) comes a choice: a stage of merged blocks
(`planner.model.merged`) has slices of its own, or takes part in the pool π of all stages of equal blocks, device, share
and batch size. With l a candidate and the stages of it that lie in pools,

    y_l >= 0           throughput of l                                                   ``rate[d/l]``
    n_{l,s} integer    slices of a stage of its own                                      ``slices[d/l,s]``
    n_π integer        slices of a pool                                                  ``slices[π]``

    throughput[d]      Y_d <= sum of y_l over the l of d
    capacity[d/l,s]    y_l <= x_{l,s} · n_{l,s}
    capacity[π]        sum over the stages (l, s) in π of y_l / x_{l,s} <= n_π

and slices on devices, devices in the cluster, and objectives as there. SLOs, budgets of latency and batch building stay
each DNN's own: a batch of one DNN alone keeps them, which is what reservation dispatch needs; batches that mix DNNs
fill sooner. A pool counts its weights once per slice, for it is one stage.

Pools change no relaxation: with slices divided at will a stage is as dear in a pool as alone. So the relaxation over
candidates (`planner.planning.programme.relaxation`) bounds these plans too, and its prices tell which of them no better
plan can hold: what y_l loses, slices of stages of its own counted whole, must be within the distance from the bound.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import product
from math import ceil, inf

import numpy as np

from planner.model import InputError, Pipeline, Problem
from planner.model.objective import MAXIMISED
from planner.model.placing import Layouts, Pool, pool_of
from planner.model.segments import Kind, kind_of, processes
from planner.planning.arrays import Floats, Integers
from planner.planning.pipelines.candidates import Candidate, enumerate_pipelines, pareto_best, worth
from planner.planning.pipelines.sizing import Sized, pipeline_of
from planner.planning.programme import milp
from planner.planning.programme.backends import Clock, Limits, solve
from planner.planning.programme.linear import Solution
from planner.planning.programme.objectives import rate_costs
from planner.planning.programme.relaxation import Relaxation, most_slices, overloaded, relax, unit_losses

Key = tuple[object, ...]  # blocks (their copies), device, share and batch of a pool
FIRST = 60  # candidates of the first, rough solve
FIRST_LIMITS = Limits(gap=1e-3, time_limit_s=5.0)
TIDY_LIMITS = Limits(gap=1e-6, time_limit_s=2.0)
MOST_SIZES = 64  # numbers of slices looked at one by one
ROUNDING = 1e-9
TOO_LATE = "no plan with shared pools was found in the time given; raise the time limit"


@dataclass(frozen=True)
class Labelled:
    """A candidate, and per stage the pool that it is in; None where its slices are its own."""

    candidate: Candidate
    pools: tuple[Key | None, ...]


@dataclass(frozen=True)
class Found:
    """Pipelines of a plan, the segments of devices where sums do not say what fits, a bound, and the solver."""

    pipelines: tuple[Pipeline, ...]
    layouts: Mapping[Pool, tuple[Layouts, ...]]
    bound: float
    backend: str

    def of(self, dnn: str) -> Iterator[Pipeline]:
        """Yield the pipelines of a DNN."""
        return (pipeline for pipeline in self.pipelines if pipeline.dnn == dnn)


@dataclass
class Formulation(milp.Formulation):
    """The programme over candidates, some of whose stages are in pools: columns of slices that several of them have.

    ``members`` are the (candidate, stage) of the pool of a key, ``shared`` its column.
    """

    labelled: Sequence[Labelled] = ()
    shared: dict[Key, int] = field(default_factory=dict)
    members: dict[Key, list[tuple[int, int]]] = field(default_factory=dict)


def size(problem: Problem, candidates: Sequence[Candidate], backend: str, limits: Limits) -> Found:
    """Return the best plan whose merged stages may be pools of several DNNs.

    Parameters
    ----------
    problem
        With merged blocks, as it is planned (`Problem.planned`), and X0 known.
    candidates
        Those of all DNNs, the Pareto-best at least.

    Raises
    ------
    InputError
        Rates or budgets are out of reach, or no plan was found in the time given.
    """
    clock = Clock(limits)
    labelled = [Labelled(one, (None,) * len(one.devices)) for one in candidates]
    for dnn in range(len(problem.dnns)):
        labelled += poolable(problem, dnn, clock)
    distinct = list(dict.fromkeys(one.candidate for one in labelled))
    relaxation = relax(problem, distinct, clock)
    if relaxation.status == "infeasible":
        raise overloaded(problem, distinct)
    order = np.argsort(unit_losses(problem, distinct, relaxation), kind="stable")
    few = {distinct[number] for number in order[:FIRST]} | _cheapest_of_each(distinct, order.tolist())
    first = _solve(problem, [one for one in labelled if one.candidate in few], backend, clock.within(FIRST_LIMITS))
    if len(few) < len(distinct):
        kept = labelled
        if first is not None:
            reach = abs(relaxation.bound - first[0]) + ROUNDING * abs(relaxation.bound)
            losses = least_losses(problem, labelled, relaxation)
            kept = [one for one, loss in zip(labelled, losses, strict=True) if loss <= reach or one.candidate in few]
        last = _solve(problem, kept, backend, clock.remaining())
    else:
        last = _solve(problem, labelled, backend, clock.remaining())
    solved = [one for one in (last, first) if one is not None]
    if not solved:
        raise InputError(TOO_LATE if limits.time_limit_s is not None and clock.over else milp.WHOLE_DEVICES)
    maximised = MAXIMISED[problem.options.objective]
    best = (max if maximised else min)(solved, key=lambda one: one[0])
    bounds = [relaxation.bound, *([] if last is None else [last[1].bound])]
    return replace(best[1], bound=min(bounds) if maximised else max(bounds))


def _cheapest_of_each(candidates: Sequence[Candidate], order: Sequence[int]) -> set[Candidate]:
    """Return the candidates that lose least of every DNN, so that the first solve can serve all."""
    found: dict[int, Candidate] = {}
    for number in order:
        found.setdefault(candidates[number].dnn, candidates[number])
    return set(found.values())


def pool_key(problem: Problem, candidate: Candidate, stage: int) -> Key | None:
    """Return the pool that a stage of a candidate may be in; None where a block of it is not merged."""
    dnn = problem.dnns[candidate.dnn]
    variant = dnn.variants[candidate.variant].name
    copies = problem.stage_copies(dnn.name, variant, candidate.cuts[stage], candidate.cuts[stage + 1])
    if copies is None:
        return None
    return copies, candidate.devices[stage], candidate.shares[stage], candidate.batches[stage]


def poolable(problem: Problem, dnn: int, clock: Clock) -> list[Labelled]:
    """Return the candidates of a DNN with stages in pools, every choice of these.

    Of candidates that differ in what one slice of each stage sustains, and holds, alone, the Pareto-best stay. Raises
    TooLate where the clock is over before.
    """
    listed = enumerate_pipelines(problem, dnn, problem.dnns[dnn].np_throughput_rps or 0.0, pareto=False)
    alike: defaultdict[tuple[object, ...], list[Labelled]] = defaultdict(list)
    for number in _with_merged_stages(problem, dnn, listed.variant, listed.stages, listed.cuts):
        clock.expect_time()
        candidate = listed[int(number)]
        keys = [pool_key(problem, candidate, stage) for stage in range(len(candidate.devices))]
        for pools in product(*((None,) if key is None else (key, None) for key in keys)):
            if any(pools):
                place = candidate.variant, candidate.devices, candidate.shares, candidate.batches
                alike[(*place, pools)].append(Labelled(candidate, pools))
    found = []
    for some in alike.values():
        better = worth(problem, [one.candidate for one in some])
        found += [some[number] for number in pareto_best(better, np.zeros(len(some)))]
    return found


def _with_merged_stages(problem: Problem, dnn: int, variant: Integers, stages: Integers, cuts: Integers) -> Integers:
    """Return the rows of pipelines with a stage whose blocks are all merged."""
    merged = np.zeros(len(stages), dtype=bool)
    for number, profile in enumerate(problem.dnns[dnn].variants):
        copies = problem.copies.get((problem.dnns[dnn].name, profile.name), (None,) * len(profile.blocks))
        own = np.concatenate([[0], np.cumsum([copy is None for copy in copies])])  # blocks of its own before each
        for stage in range(cuts.shape[1] - 1):
            here = (variant == number) & (stage < stages)
            first, last = cuts[here, stage], cuts[here, stage + 1]
            merged[here] |= own[first] == own[last]
    found: Integers = np.flatnonzero(merged)
    return found


def least_losses(problem: Problem, labelled: Sequence[Labelled], relaxation: Relaxation) -> Floats:
    """Return per candidate the least that any rate of it loses, by prices of slices; infinite where no size fits.

    Stages of its own take whole slices, stages in pools parts of slices.
    """
    costs = rate_costs(problem, [one.candidate for one in labelled])
    losses = np.full(len(labelled), inf)
    for number, one in enumerate(labelled):
        chosen = one.candidate
        price = np.array([relaxation.slice_price[at] for at in zip(chosen.devices, chosen.shares, strict=True)])
        rps, own = np.array(chosen.slice_rps), np.array([pool is None for pool in one.pools])
        reward = relaxation.throughput_price[chosen.dnn] - costs[number]
        excess = float((price / rps).sum()) - reward
        if (price / rps)[~own].sum() >= reward or not own.any():  # the less, the better
            losses[number] = price[own].sum()
            continue
        most = np.array(most_slices(problem, chosen))
        counts = np.minimum(most, MOST_SIZES)
        rates = np.concatenate([rps[s] * np.arange(1, counts[s] + 1) for s in np.flatnonzero(own)])
        slices = rates[:, None] / rps
        whole = np.where(own, np.ceil(slices * (1 - ROUNDING)), slices)
        loss = whole @ price - reward * rates
        losses[number] = min(
            loss[(whole <= most * (1 + ROUNDING)).all(axis=1)].min(initial=inf),
            max(excess, 0.0) * rates.max() if (most[own] > MOST_SIZES).any() else inf,
        )
    return losses


def build(problem: Problem, labelled: Sequence[Labelled]) -> Formulation:
    """Return the programme over candidates with and without stages in pools."""
    formulation = Formulation(problem, [one.candidate for one in labelled], labelled=labelled)
    milp.add_totals(formulation)
    _add_columns(formulation)
    milp.add_throughput_rows(formulation)
    _add_capacities(formulation)
    milp.add_pools(formulation, _segments(formulation))
    milp.add_objective(formulation)
    return formulation


def _add_columns(formulation: Formulation) -> None:
    problem, model = formulation.problem, formulation.model
    for number, one in enumerate(formulation.labelled):
        name = f"{problem.dnns[one.candidate.dnn].name}/{number}"
        formulation.rate.append(model.add_column(f"rate[{name}]"))
        columns = []
        for stage, (key, most) in enumerate(zip(one.pools, most_slices(problem, one.candidate), strict=True)):
            upper = most // one.candidate.groups[stage]
            if key is None:
                columns.append(model.add_column(f"slices[{name},{stage}]", upper=upper, integer=True))
                continue
            if key not in formulation.shared:
                column = model.add_column(f"slices[{_named(len(formulation.shared))}]", upper=upper, integer=True)
                formulation.shared[key] = column
            formulation.members.setdefault(key, []).append((number, stage))
            columns.append(formulation.shared[key])
        formulation.slices.append(tuple(columns))


def _named(number: int) -> str:
    return f"pool {number}"


def _add_capacities(formulation: Formulation) -> None:
    """Add y_l <= x_{l,s} · n_{l,s}, and per pool the sum of y_l / x_{l,s} <= n."""
    for number, one in enumerate(formulation.labelled):
        name = f"{formulation.problem.dnns[one.candidate.dnn].name}/{number}"
        for stage, (key, column) in enumerate(zip(one.pools, formulation.slices[number], strict=True)):
            if key is None:
                rps = one.candidate.groups[stage] * one.candidate.slice_rps[stage]
                terms = [(formulation.rate[number], 1.0), (column, -rps)]
                formulation.model.add_row(f"capacity[{name},{stage}]", terms, upper=0.0)
    for count, (key, column) in enumerate(formulation.shared.items()):
        terms = [(column, -1.0)]
        for number, stage in formulation.members[key]:
            chosen = formulation.labelled[number].candidate
            terms.append((formulation.rate[number], 1 / (chosen.groups[stage] * chosen.slice_rps[stage])))
        formulation.model.add_row(f"capacity[{_named(count)}]", terms, upper=0.0)


def _segments(formulation: Formulation) -> milp.Segments:
    """Return the segments of slices; those of a pool, which several candidates have, once."""
    segments: defaultdict[Pool, defaultdict[Kind, dict[int, Fraction]]] = defaultdict(lambda: defaultdict(dict))
    names = {key: _named(number) for number, key in enumerate(formulation.shared)}
    for one, columns in zip(formulation.labelled, formulation.slices, strict=True):
        for stage, column in enumerate(columns):
            pool = _pool_of(formulation.problem, one, stage, names)
            share, group = one.candidate.shares[stage], one.candidate.groups[stage]
            segments[pool][kind_of(share)][column] = Fraction(group, processes(share))
    return {pool: {kind: list(own.items()) for kind, own in kinds.items()} for pool, kinds in segments.items()}


def _pool_of(problem: Problem, one: Labelled, stage: int, names: dict[Key, str]) -> Pool:
    key, device = one.pools[stage], problem.cluster.device_types[one.candidate.devices[stage]].name
    name = None if key is None else names[key]
    return pool_of(problem.options.device_sharing, device, problem.dnns[one.candidate.dnn].name, stage, name)


def _solve(problem: Problem, labelled: Sequence[Labelled], backend: str, limits: Limits) -> tuple[float, Found] | None:
    """Return the value and the plan of the programme over some candidates; None where none was found.

    Of equal plans one with few devices is taken, where that is not the objective.
    """
    formulation = build(problem, labelled)
    solution, name = solve(formulation.model, backend, limits)
    if not solution.found:
        return None
    bound, value, model = solution.bound, solution.objective, formulation.model
    if problem.options.objective.startswith("max"):
        model.add_row("objective", model.objective_terms, lower=value * (1 - ROUNDING))
        model.set_objective([(column, 1.0) for column in formulation.used], maximise=False)
        begin = {column: round(solution.values[column]) for column in _integers(formulation)}
        tidy, _ = solve(model, name, TIDY_LIMITS, begin)
        solution = tidy if tidy.found else solution
    return value, extract(formulation, solution, bound, name)


def extract(formulation: Formulation, solution: Solution, bound: float, backend: str) -> Found:
    """Return the plan in a solution, every stage on as few slices as its rates need; pools of one stage are its own."""
    problem = formulation.problem
    rates = [max(0.0, float(solution.values[column])) * (1 - ROUNDING) for column in formulation.rate]
    largest = max(rates, default=0.0)
    used = [number for number, rate in enumerate(rates) if rate > ROUNDING * largest]
    taken: defaultdict[Key, dict[int, float]] = defaultdict(dict)  # slices, per candidate
    for number in used:
        one = formulation.labelled[number]
        for key, rps in zip(one.pools, one.candidate.slice_rps, strict=True):
            if key is not None:
                taken[key][number] = rates[number] / rps
    used.sort(key=lambda number: (formulation.labelled[number].candidate.dnn, -rates[number], number))
    names: dict[Key, str] = {}
    pipelines = []
    for number in used:
        one = formulation.labelled[number]
        slices: list[int] = []
        pools: list[str | None] = []
        for stage, key in enumerate(one.pools):
            group, rps = one.candidate.groups[stage], one.candidate.slice_rps[stage]
            parts, name = rates[number] / rps, None
            if key is not None and len(taken[key]) > 1:
                parts, name = sum(taken[key].values()), names.setdefault(key, f"pool {len(names) + 1}")
            slices.append(group * max(1, ceil(parts / group - ROUNDING)))
            pools.append(name)
        pipelines.append(_pipeline(problem, Sized(one.candidate, tuple(slices)), pools, rates[number]))
    layouts = {
        pool: tuple(
            dict(zip(one.geometry.kinds, layout, strict=True))
            for one in columns
            for layout, column in one.layouts.items()
            for _ in range(round(solution.values[column]))
        )
        for pool, columns in formulation.pools.items()
        if any(one.layouts for one in columns) and problem.options.device_sharing == "shared"
    }
    return Found(tuple(pipelines), layouts, bound, backend)


def _pipeline(problem: Problem, sized: Sized, pools: Sequence[str | None], rate_rps: float) -> Pipeline:
    """Return a pipeline with the pools that its stages name; where there is one, it gets ``rate_rps`` of it."""
    pipeline = pipeline_of(problem, sized)
    if not any(pools):
        return pipeline
    stages = (
        stage if pool is None else replace(stage, pool=pool, throughput_rps=rate_rps)
        for stage, pool in zip(pipeline.stages, pools, strict=True)
    )
    return replace(pipeline, stages=tuple(stages), throughput_rps=rate_rps)


def _integers(formulation: Formulation) -> Iterator[int]:
    yield from formulation.shared.values()
    for one, columns in zip(formulation.labelled, formulation.slices, strict=True):
        yield from (column for key, column in zip(one.pools, columns, strict=True) if key is None)
