"""Check pools of several stages: who may be one, and that its pipelines get no more than it has."""

from collections.abc import Callable, Iterator

from planner.model.check_placement import Finding
from planner.model.plan import Plan
from planner.model.problem import Problem


def check_pools(
    problem: Problem, plan: Plan, tolerance: float, slice_rps: Callable[[int, int], float]
) -> Iterator[Finding]:
    """Yield what stages that name one pool break; ``slice_rps(pipeline, stage)`` is what a slice alone sustains."""
    members: dict[str, list[tuple[int, int]]] = {}
    for number, position in plan.homes:
        name = plan.pipelines[number].stages[position].pool
        if name is not None:
            members.setdefault(name, []).append((number, position))
    for name, found in members.items():
        alike, taken = set(), 0.0
        for number, position in found:
            pipeline = plan.pipelines[number]
            stage = pipeline.stages[position]
            copies = problem.stage_copies(pipeline.dnn, pipeline.variant, stage.first_block, stage.last_block)
            if copies is None:
                blocks = f"[{stage.first_block}, {stage.last_block})"
                text = f"expected merged blocks in a pool, got {blocks} of {pipeline.variant}"
                yield Finding("pool", f"pipelines[{number}].stages[{position}]", 1, text)
            alike.add((copies, stage.device, stage.share, stage.slices, stage.batch, stage.latency_us))
            taken += stage.throughput_rps / (stage.slices * slice_rps(number, position))
        if len(alike) > 1:
            places = [f"pipelines[{number}].stages[{position}]" for number, position in found]
            text = f"expected the same blocks, device, share, slices, batch and latency of {', '.join(places)}"
            yield Finding("pool", f"pool {name}", len(alike) - 1, text)
        elif not taken <= 1 + tolerance:
            text = f"expected its pipelines to take at most all of it, got {taken:.9g}"
            yield Finding("pool", f"pool {name}", taken - 1, text)
