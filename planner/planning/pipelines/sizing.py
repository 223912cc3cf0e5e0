"""Sizings: candidates with their numbers of slices, what every method finds, and plans made of them."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, isclose

from planner.model import Pipeline, Plan, Problem, Stage, digest
from planner.model.memory import planned_memory_bytes
from planner.model.objective import MAXIMISED, objective_value, plan_cost
from planner.model.placing import Layouts, Pool, devices_for, devices_used, neighbour_grounds, place, pool_of
from planner.model.plan import Scheduler
from planner.model.segments import Kind, kind_of, processes
from planner.model.served import plan_accuracy, plan_watts, planned_working_watts
from planner.planning.pipelines.candidates import Candidate
from planner.planning.pipelines.terrain import batch_building_us

ROUNDING = 1e-6  # of an objective


@dataclass(frozen=True)
class Sized:
    """A candidate with the number of slices of each stage.

    >>> sized = Sized(Candidate(0, 0, (0, 1, 3), (0, 1), (2, 1), (4, 4), (100.0, 70.0)), (1, 2))
    >>> sized.throughput_rps
    100.0
    """

    candidate: Candidate
    slices: tuple[int, ...]

    @property
    def throughput_rps(self) -> float:
        """What the slowest stage sustains: the least x_s · n_s."""
        return min(rps * count for rps, count in zip(self.candidate.slice_rps, self.slices, strict=True))

    def trimmed(self) -> "Sized":
        """Return the same throughput on as few slices as it needs."""
        return self.serving(self.throughput_rps)

    def serving(self, rps: float) -> "Sized":
        """Return a throughput above 0 on as few slices as it needs."""
        slices = (
            group * ceil(rps * (1 - 1e-12) / (group * slice_rps))
            for group, slice_rps in zip(self.candidate.groups, self.candidate.slice_rps, strict=True)
        )
        return Sized(self.candidate, tuple(slices))


@dataclass(frozen=True)
class Sizing:
    """What a method found: the pipelines in use, a proven bound on the objective, and the solver behind it.

    ``layouts`` holds, for pools in which sums of fractions do not say what fits, the segments of every device.
    """

    pipelines: tuple[Sized, ...]
    bound: float
    backend: str
    layouts: Mapping[Pool, tuple[Layouts, ...]] = field(default_factory=dict)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The candidates in use."""
        return tuple(sized.candidate for sized in self.pipelines)

    def merged(self) -> "Sizing":
        """Return the same plan with one pipeline per candidate, which serves at least what its parts did.

        >>> halves = Candidate(0, 0, (0, 1), (0,), (2,), (1,), (10.0,))
        >>> Sizing((Sized(halves, (1,)), Sized(halves, (2,))), 30.0, "highs").merged().pipelines[0].slices
        (3,)
        """
        slices: dict[Candidate, tuple[int, ...]] = {}
        for sized in self.pipelines:
            known = slices.get(sized.candidate, (0,) * len(sized.slices))
            slices[sized.candidate] = tuple(one + other for one, other in zip(known, sized.slices, strict=True))
        pipelines = tuple(Sized(candidate, counts).trimmed() for candidate, counts in slices.items())
        return replace(self, pipelines=pipelines)

    def throughput_rps(self, dnn: int) -> float:
        """Return the throughput of a DNN (an index)."""
        return sum(sized.throughput_rps for sized in self.pipelines if sized.candidate.dnn == dnn)

    def devices(self, problem: Problem) -> dict[int, int]:
        """Return the devices in use per device type (an index)."""
        segments: dict[Pool, Counter[Kind]] = {}
        for sized in self.pipelines:
            chosen = sized.candidate
            for position, (device, share, count) in enumerate(
                zip(chosen.devices, chosen.shares, sized.slices, strict=True)
            ):
                name, dnn = problem.cluster.device_types[device].name, problem.dnns[chosen.dnn].name
                pool = pool_of(problem.options.device_sharing, name, dnn, position)
                segments.setdefault(pool, Counter())[kind_of(share)] += -(-count // processes(share))
        total: Counter[int] = Counter()
        for pool, counts in segments.items():
            found = devices_for(problem.cluster.device(pool[0]), counts, self.layouts.get(pool))
            total[problem.cluster.index(pool[0])] += found
        return dict(total)

    def value(self, problem: Problem) -> float:
        """Return the objective that this sizing reaches."""
        working = 0.0
        if problem.options.objective == "least_energy":
            working = planned_working_watts(problem, [pipeline_of(problem, sized) for sized in self.pipelines])
        accuracy: Mapping[str, float] = {}
        if problem.options.objective == "most_accurate":
            accuracy = plan_accuracy(problem, [pipeline_of(problem, sized) for sized in self.pipelines])
        memory_bytes = 0
        if problem.options.objective == "least_memory":
            memory_bytes = planned_memory_bytes(problem, [pipeline_of(problem, sized) for sized in self.pipelines])
        return objective_value(
            problem,
            {dnn.name: self.throughput_rps(index) for index, dnn in enumerate(problem.dnns)},
            {problem.cluster.device_types[index].name: count for index, count in self.devices(problem).items()},
            working,
            accuracy,
            memory_bytes,
        )


Report = Callable[[Sizing], None]  # is told every better plan, and a better bound with the plan so far


def build_plan(
    problem: Problem,
    sizing: Sizing,
    *,
    scheduler: Scheduler,
    method: str,
    gap: float,
    seconds: float,
    problem_sha256: str,
    versions: Mapping[str, str],
) -> Plan:
    """Return the plan that a sizing describes, with every latency, throughput and the objective recomputed.

    Parameters
    ----------
    problem
        What was planned, with X0 known.
    sizing
        What a method found.
    scheduler, method, seconds
        How, for the record.
    gap
        The relative gap up to which the plan counts as optimal.
    problem_sha256
        The hash of the problem as the user gave it.
    versions
        Of what computed the plan, by name.
    """
    pipelines = tuple(pipeline_of(problem, sized) for sized in sorted(sizing.pipelines, key=_reading_order))
    return plan_of(
        problem,
        pipelines,
        sizing.layouts,
        sizing.bound,
        scheduler=scheduler,
        method=method,
        backend=sizing.backend,
        gap=gap,
        seconds=seconds,
        problem_sha256=problem_sha256,
        versions=versions,
    )


def plan_of(
    problem: Problem,
    pipelines: tuple[Pipeline, ...],
    layouts: Mapping[Pool, Sequence[Layouts]],
    bound: float,
    *,
    scheduler: Scheduler,
    method: str,
    backend: str,
    gap: float,
    seconds: float,
    problem_sha256: str,
    versions: Mapping[str, str],
) -> Plan:
    """Return the plan of some pipelines, placed and valued; for the rest see `build_plan`."""
    plan = Plan(
        scheduler=scheduler,
        objective=problem.options.objective,
        status="feasible",
        value=0.0,
        bound=bound,
        method=method,
        backend=backend,
        seconds=seconds,
        problem_sha256=problem_sha256,
        profile_sha256={
            f"{dnn.name}/{variant.name}": digest(variant) for dnn in problem.dnns for variant in dnn.variants
        },
        pipelines=pipelines,
        versions=dict(versions),
        placement=place(problem, pipelines, layouts),
        gap_asked=gap,
        np_throughput_rps={dnn.name: dnn.np_throughput_rps or 0.0 for dnn in problem.dnns},
    )
    devices = devices_used(problem, plan)
    accuracy = plan_accuracy(problem, pipelines)
    working = planned_working_watts(problem, pipelines) if problem.options.objective == "least_energy" else 0.0
    throughput_rps = {dnn.name: plan.throughput_rps(dnn.name) for dnn in problem.dnns}
    memory_bytes = planned_memory_bytes(problem, pipelines)
    value = objective_value(problem, throughput_rps, devices, working, accuracy, memory_bytes)
    beyond = max if MAXIMISED[problem.options.objective] else min
    if isclose(value, bound, rel_tol=ROUNDING):  # which may put the value a hair past the bound
        bound = beyond(value, bound)
    plan = replace(plan, value=value, bound=bound)
    drawn = plan_watts(problem, pipelines, devices)
    return replace(
        plan,
        status="optimal" if plan.gap <= gap else "feasible",
        neighbours=neighbour_grounds(problem, plan),
        watts=drawn and drawn[0],
        joules_per_thousand=drawn and drawn[1],
        accuracy=accuracy,
        cost_per_hour=plan_cost(problem, devices),
    )


def _reading_order(sized: Sized) -> tuple[int, float, Candidate]:
    """DNN by DNN, the pipelines of largest throughput first."""
    return sized.candidate.dnn, -sized.throughput_rps, sized.candidate


def pipeline_of(problem: Problem, sized: Sized) -> Pipeline:
    """Return the pipeline that a sized candidate describes; X0 must be known."""
    chosen = sized.candidate
    dnn = problem.dnns[chosen.dnn]
    profile = dnn.variants[chosen.variant]
    network = problem.cluster.network
    names = [problem.cluster.device_types[device].name for device in chosen.devices]
    stages = []
    for position, name in enumerate(names):
        first, last = chosen.cuts[position], chosen.cuts[position + 1]
        batch, share, slices = chosen.batches[position], chosen.shares[position], sized.slices[position]
        transfer_us = 0.0
        if position + 1 < len(names):
            hop = network.link(name, names[position + 1])
            wire_us = network.wire_us(name, names[position + 1], profile.cut_bytes[last - 1])
            transfer_us = chosen.batches[0] * wire_us + hop.hop_latency_us
        stages.append(
            Stage(
                first_block=first,
                last_block=last,
                device=name,
                share=share,
                slices=slices,
                batch=batch,
                latency_us=profile.stage_latency_us(name, share, batch, first, last),
                transfer_us=transfer_us,
                throughput_rps=slices * chosen.slice_rps[position],
            )
        )
    return Pipeline(
        dnn=dnn.name,
        variant=profile.name,
        throughput_rps=sized.throughput_rps,
        batch_building_us=batch_building_us(problem, chosen.batches[0], dnn.np_throughput_rps or 0.0),
        slack_us=float(problem.slack_us(dnn)),
        stages=tuple(stages),
    )
