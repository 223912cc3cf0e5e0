"""Which runs a plan rests on, and which of them nobody has measured.

A planner takes what looks cheap, that is, what was underestimated: bounds that hold for 95 % of all runs hold for far
fewer of those chosen. But a plan rests on few runs. So measure these, complete and plan again, until a plan rests on
nothing but measurements: it is then as true as one made from whole profiles. Bounds of the rest make the way there
short, for what was overestimated is not chosen, and what was underestimated is found out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from planner.completion.cells import Place
from planner.model import InputError, Plan
from planner.model.applications import SEAM
from planner.model.observed import Observed, Run


@dataclass(frozen=True)
class Relied:
    """A run that a plan rests on: blocks [``first_block``, ``last_block``) of it, for so many requests/s."""

    place: Place
    first_block: int
    last_block: int
    throughput_rps: float


def relied_on(plan: Plan, observed: Observed) -> tuple[Relied, ...]:
    """Return the runs whose latencies a plan's stages add up, those that most requests pass first.

    A stage of an application's chain rests on a run of each variant that it has blocks of.

    Raises
    ------
    InputError
        The plan serves a model that the observations do not know, or one with other blocks.
    """
    found: dict[Place, Relied] = {}
    for pipeline in plan.pipelines:
        models = _models(pipeline.variant, observed)
        starts = [0]
        for model in models:
            starts.append(starts[-1] + len(observed.model(model).blocks))
        if pipeline.stages[-1].last_block != starts[-1]:
            raise InputError(
                f"pipeline of {pipeline.dnn}: {pipeline.variant} has {starts[-1]} blocks in the observations, "
                f"{pipeline.stages[-1].last_block} in the plan; plan with profiles that were completed from these"
            )
        for stage in pipeline.stages:
            for model, start, end in zip(models, starts[:-1], starts[1:], strict=True):
                first, last = max(stage.first_block, start) - start, min(stage.last_block, end) - start
                if first < last:
                    place = model, stage.device, stage.share, stage.batch
                    known = found.get(place, Relied(place, first, last, 0.0))
                    found[place] = Relied(
                        place,
                        min(first, known.first_block),
                        max(last, known.last_block),
                        known.throughput_rps + pipeline.throughput_rps,
                    )
    return tuple(sorted(found.values(), key=lambda one: -one.throughput_rps))


def unmeasured(plan: Plan, observed: Observed) -> tuple[Relied, ...]:
    """Return the runs that a plan rests on with a block that was not measured alone; see `relied_on`."""
    timed: dict[Place, set[int]] = {}
    for run in observed.runs:
        if not run.beside:
            blocks = {block for block, value in enumerate(run.latency_us) if value is not None}
            timed.setdefault(run.place[:4], set()).update(blocks)
    return tuple(
        one
        for one in relied_on(plan, observed)
        if not timed.get(one.place, set()).issuperset(range(one.first_block, one.last_block))
    )


def among(runs: Sequence[Run], wanted: Sequence[Relied]) -> tuple[Run, ...]:
    """Return the runs made alone that are wanted."""
    places = {one.place for one in wanted}
    return tuple(run for run in runs if not run.beside and run.place[:4] in places)


def _models(variant: str, observed: Observed) -> list[str]:
    """Return the observed models that a variant consists of: itself, or the variants of an application's tasks."""
    known = {model.name for model in observed.models}
    parts = [variant] if variant in known else variant.split(SEAM)
    for part in parts:
        if part not in known:
            raise InputError(
                f"the plan serves {part!r}, which was never observed; expected some of {sorted(known)}: name the "
                "observations that its profiles were completed from"
            )
    return parts
