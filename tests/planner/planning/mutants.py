"""Plans of every kind with one thing in them changed, whatever it is: a wrong one never passes.

A mutant differs from a sound plan in one field of one record, or in one entry of a list or mapping. What may pass is
only what is still true (`still_true`): other slots or devices that are free, say, or a bound that is further away.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from itertools import chain
from math import inf, nan
from typing import Any

import numpy as np
from sharing_oracle import fewest, geometry

from planner.model import Plan, Problem, TaskPlan
from planner.model.placing import devices_used
from planner.model.problem import MINIMISED
from planner.model.task_worth import task_devices

# What a plan says of how it was made, which nothing in a problem can contradict.
HISTORY = {"backend", "seconds", "versions", "method", "x0_timed"}
FACTORS = 0.0, 0.5, 0.999, 1.001, 2.0, -1.0, 1e9


def mutants(value: Any, rng: np.random.Generator, strings: list[str]) -> Iterator[Any]:
    """Yield values that differ from a given one in one place, whatever it is made of."""
    if is_dataclass(value):
        for each in fields(value):
            old = getattr(value, each.name)
            unknown = ["a pool" if each.name == "pool" else 1.0] if old is None else []
            for changed in [] if each.name in HISTORY else chain(unknown, mutants(old, rng, strings)):
                yield replace(value, **{each.name: changed})  # type: ignore[type-var]
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield {name: other for name, other in value.items() if name != key}
            yield {(f"{name}x" if name == key else name): other for name, other in value.items()}
            yield from ({**value, key: changed} for changed in mutants(item, rng, strings))
        yield {**value, "more": next(iter(value.values()), 1.0)}
    elif isinstance(value, tuple):
        for number, item in enumerate(value):
            rest = value[number + 1 :]
            yield value[:number] + rest
            yield (*value[:number], item, item, *rest)
            yield from ((*value[:number], changed, *rest) for changed in mutants(item, rng, strings))
        if len(value) > 1:
            yield value[::-1]
    elif isinstance(value, str):
        yield str(rng.choice(strings))
        yield ""
    elif isinstance(value, int):
        yield value + int(rng.choice([-7, -2, -1, 1, 2, 1000]))
    elif isinstance(value, float):
        yield value * float(rng.choice(FACTORS))
        yield value + 1.0
        yield nan
        yield inf


def strings_of(value: Any) -> Iterator[str]:
    """Yield all that a plan names."""
    if is_dataclass(value):
        yield from chain.from_iterable(strings_of(getattr(value, each.name)) for each in fields(value))
    elif isinstance(value, Mapping):
        yield from chain.from_iterable(strings_of(item) for pair in value.items() for item in pair)
    elif isinstance(value, tuple):
        yield from chain.from_iterable(map(strings_of, value))
    elif isinstance(value, str):
        yield value


def same_but(mutant: Any, original: Any, *names: str) -> bool:
    """Tell whether two plans differ in these fields only."""
    return bool(replace(mutant, **{name: getattr(original, name) for name in names}) == original)


def within_bound(problem: Problem, plan: Plan | TaskPlan) -> bool:
    """Tell whether value, bound, the gap asked for and the status agree."""
    sign = -1 if problem.options.objective in MINIMISED else 1
    beyond = sign * (plan.value - plan.bound) <= 1e-6 * max(abs(plan.value), 1e-12)
    return beyond and (plan.status == "optimal") == (plan.gap <= plan.gap_asked)


def still_true(problem: Problem, plan: Plan, mutant: Plan) -> bool:
    """Tell whether a changed plan says nothing wrong."""
    if same_but(mutant, plan, "bound", "gap_asked", "status"):
        return within_bound(problem, mutant)
    if same_but(mutant, plan, "placement"):
        return not mutant.placement or lies_right(problem, plan, mutant)
    if same_but(mutant, plan, "scheduler"):
        shared = problem.options.device_sharing == "shared"
        stages = [stage for one in plan.pipelines for stage in one.stages]
        whole = all(problem.cluster.device(one.device).fraction(one.share) == 1 for one in stages)
        alone = len(stages) == len(plan.pipelines)
        return mutant.scheduler == "np" and plan.method != "dynamic" and alone and (whole or shared)
    if same_but(mutant, plan, "pipelines"):  # in another order, or a pool of merged blocks that one stage alone has
        names = [stage.pool for one in mutant.pipelines for stage in one.stages if stage.pool is not None]
        stages = tuple(
            replace(one, stages=tuple(replace(s, pool=None) for s in one.stages)) for one in mutant.pipelines
        )
        alone = bool(problem.merged) and len(set(names)) == len(names) and stages == plan.pipelines
        return alone or Counter(mutant.pipelines) == Counter(plan.pipelines)
    optional = "watts", "joules_per_thousand", "cost_per_hour", "accuracy", "np_throughput_rps"
    unsaid = [name for name in optional if not getattr(mutant, name) and getattr(plan, name)]
    return bool(unsaid) and same_but(mutant, plan, *unsaid)


def lies_right(problem: Problem, plan: Plan, mutant: Plan) -> bool:
    """Tell from slots alone whether every slice lies once where it may, on as many devices as before."""
    slices: Counter[tuple[int, int, int]] = Counter()
    held: defaultdict[tuple[str, int], Counter[tuple[int, int, int]]] = defaultdict(Counter)
    for one in mutant.placement:
        if not (0 <= one.pipeline < len(plan.pipelines) and 0 <= one.stage < len(plan.pipelines[one.pipeline].stages)):
            return False
        stage = plan.pipelines[one.pipeline].stages[one.stage]
        for number in range(one.devices):
            for slot in one.slots:
                held[stage.device, one.device + number][one.pipeline, one.stage, slot] += 1
        slices.update((one.pipeline, one.stage, one.first_slice + at) for at in range(one.devices * len(one.slots)))
    wanted = Counter(
        (number, position, at)
        for number, pipeline in enumerate(plan.pipelines)
        for position, stage in enumerate(pipeline.stages)
        if plan.homes[number, position] == (number, position)
        for at in range(stage.slices)
    )
    per_type = Counter(name for name, _ in held)
    enough = all(0 <= number < problem.cluster.device(name).count for name, number in held)
    return (
        slices == wanted
        and enough
        and per_type == devices_used(problem, plan)
        and all(_holds(problem, plan, name, own) for (name, _), own in held.items())
    )


def _holds(problem: Problem, plan: Plan, name: str, held: Mapping[tuple[int, int, int], int]) -> bool:
    device, taken = problem.cluster.device(name), Counter[int]()
    segments: Counter[int | str] = Counter()
    for (number, position, slot), together in held.items():
        share = plan.pipelines[number].stages[position].share
        kind = share if isinstance(share, int) else share.partition("/")[0]
        _, width, starts = geometry(device, kind)
        if slot not in starts or together > (int(share.partition("/")[2] or 1) if isinstance(share, str) else 1):
            return False
        taken.update(range(slot, slot + width))
        segments[kind] += 1
    owners = {(plan.pipelines[number].dnn, position) for number, position, _ in held}
    named = {isinstance(kind, str) for kind in segments}
    alone = problem.options.device_sharing == "shared" or len(owners) == 1
    return max(taken.values()) == 1 and len(named) == 1 and fewest(device, segments) == 1 and alone


def missed(
    plans: Sequence[tuple[Problem, Any]], wrong: Callable[[Problem, Any], Sequence[object]], true: Callable[..., bool]
) -> tuple[int, list[Any]]:
    """Return how many mutants are wrong, and those of them that pass."""
    rng, tried, passed = np.random.default_rng(0), 0, []
    for problem, plan in plans:
        assert not wrong(problem, plan)
        for mutant in mutants(plan, rng, sorted({*strings_of(plan), "nowhere"})):
            if mutant != plan and not true(problem, plan, mutant):
                tried += 1
                passed += [] if wrong(problem, mutant) else [(plan, mutant)]
    return tried, passed


def true_of_tasks(problem: Problem, plan: TaskPlan, mutant: TaskPlan) -> bool:
    """Tell whether a changed task plan says nothing wrong."""
    if same_but(mutant, plan, "bound", "gap_asked", "status"):
        return within_bound(problem, mutant)
    if same_but(mutant, plan, "latency_rule"):  # where a request waits for nothing, mean and worst are one
        return all(service.batch == 1 for service in plan.services)
    if same_but(mutant, plan, "services", "flows"):  # in another order, or with slices that are spare
        if Counter(mutant.services) == Counter(plan.services) and Counter(mutant.flows) == Counter(plan.flows):
            return True
        before, after = ([replace(one, slices=1) for one in some.services] for some in (plan, mutant))
        enough = all(0 < one.rate_rps <= one.slices * one.slice_rps * (1 + 1e-6) for one in mutant.services)
        if before != after or mutant.flows != plan.flows or not enough:
            return False
        return task_devices(problem, mutant.services) == task_devices(problem, plan.services)
    return False
