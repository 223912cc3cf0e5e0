"""Pipelines end to end that adapt: a plan per rate, and plans that take over as the predicted rate changes.

Counts of arrivals do not depend on what serves them, so all decisions are known from the arrivals alone; the run is one
in a world of plans that take over (`simulator.engine.world.Switch`): the old plan's devices finish what was promised,
load the new one's models, and go on. As nothing serves twice meanwhile, a change costs service: a planner should change
only where it is worth that.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.model import InputError, Plan, Problem
from planner.model.accuracy import variant_accuracy
from simulator.adaptation.predictors import Predictor
from simulator.dispatch.system import Ints, System
from simulator.engine.run import simulate
from simulator.engine.system import build_system
from simulator.engine.world import Switch, World
from simulator.results.records import Records

SECOND_US = 1_000_000


@dataclass(frozen=True, eq=False)
class PipelinePlan:
    """Pipelines that serve an application, good for ``rate_rps``, and how accurate each is (percent)."""

    system: System
    rate_rps: float
    accuracy: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse accuracies of other pipelines."""
        if len(self.accuracy) != len(self.system.stages):
            raise InputError(
                f"plan of {self.system.dnn}: expected an accuracy for each of {len(self.system.stages)} pipelines, "
                f"got {len(self.accuracy)}"
            )


def pipeline_plan(problem: Problem, plan: Plan, name: str, rate_rps: float) -> PipelinePlan:
    """Return what serves a DNN or application of a plan; raises InputError as `build_system`, or without accuracies."""
    dnn = problem.dnn(name)
    accuracy = tuple(variant_accuracy(dnn, pipeline.variant) for pipeline in plan.of(name))
    return PipelinePlan(build_system(problem, plan, name), rate_rps, accuracy)


PipelinePlanner = Callable[[float, PipelinePlan], PipelinePlan]  # rate to plan for, plan in use


@dataclass(frozen=True, eq=False)
class AdaptedPipelines:
    """A run of pipelines that adapt.

    ``at_us`` and ``plans`` are when each plan took over, the first at 0. ``accuracy`` is the mean (percent) over the
    requests that were served, each by the pipeline that really served it.
    """

    records: Records
    at_us: tuple[int, ...]
    plans: tuple[PipelinePlan, ...]
    accuracy: float


def by_rate(plans: Sequence[PipelinePlan], patience: float = 0.8) -> PipelinePlanner:
    """Return the planner that takes the plan of the least rate that suffices.

    It goes back to a smaller one only if that suffices for the rate over ``patience``, so that a load around a limit
    does not change plans all the time; above all rates it takes the largest.
    """
    if not plans or not 0 < patience <= 1:
        raise InputError(f"plans by rate: expected a plan at least and a patience in (0, 1], got {patience}")
    ordered = sorted(plans, key=lambda plan: plan.rate_rps)

    def choose(rate_rps: float, in_use: PipelinePlan) -> PipelinePlan:
        wanted = next((plan for plan in ordered if plan.rate_rps >= rate_rps), ordered[-1])
        if wanted.rate_rps < in_use.rate_rps and wanted.rate_rps * patience < rate_rps:
            return in_use
        return wanted

    return choose


def run_adapted(
    first: PipelinePlan,
    arrivals_us: Ints,
    predictor: Predictor,
    planner: PipelinePlanner,
    *,
    interval_s: int = 10,
    margin: float = 0.0,
    world: World | None = None,
) -> AdaptedPipelines:
    """Simulate pipelines under arrivals, looking every ``interval_s`` at the counts so far and planning anew.

    Parameters
    ----------
    first
        The plan at the start.
    margin
        What is added to the predicted rate, as a share.
    world
        What else goes differently; its ``load_us`` is the time to load models.

    Raises
    ------
    InputError
        An interval below 1 s, a margin not above -1, or a world with plans of its own that take over.
    """
    world = world or World()
    if interval_s < 1 or not margin > -1 or world.switches:
        raise InputError(
            "adaptation of pipelines: expected an interval of at least 1 s, a margin above -1 and a world without "
            f"plans that take over, got {interval_s}, {margin} and {len(world.switches)} plans"
        )
    seconds = int(arrivals_us[-1]) // SECOND_US + 1 if len(arrivals_us) else 0
    counts = np.bincount(arrivals_us // SECOND_US, minlength=seconds).astype(np.float64)
    at_us, plans = [0], [first]
    for now in range(interval_s, seconds, interval_s):
        wanted = planner(predictor(counts[:now]) * (1 + margin), plans[-1])
        if wanted is not plans[-1]:
            at_us.append(now * SECOND_US)
            plans.append(wanted)
    switches = tuple(Switch(at, plan.system) for at, plan in zip(at_us[1:], plans[1:], strict=True))
    records = simulate(first.system, arrivals_us, world=replace(world, switches=switches))
    return AdaptedPipelines(records, tuple(at_us), tuple(plans), _accuracy(records, plans))


def _accuracy(records: Records, plans: Sequence[PipelinePlan]) -> float:
    """Return the mean accuracy of what was served; pipelines are numbered on from plan to plan."""
    accuracy = np.array([percent for plan in plans for percent in plan.accuracy])
    served = records.visit[0][records.finished]
    return float(accuracy[records.visits[0].pipeline[served]].mean()) if len(served) else 0.0
