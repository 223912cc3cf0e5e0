"""Deployments made better a few models at a time: these are deployed anew, by an exact programme, around all others.

Large neighbourhood search (Shaw, "Using constraint programming and local search methods to solve vehicle routing
problems", CP 1998). A round takes some models M off all devices, rather of one family (models that share something),
or all of a family. In the words of `planner.planning.merging.deployment`, they may run on the devices J of the family,
some others and an empty one, cut as they are or at a few groups, alike for all of a family, so that parts can meet:

    busy[j]         sum of v_{m,I,k} · q_{m,I,k,j} <= 1 - the load of all others on j
    copy[G,m,j]     w_{G,j} >= sum over the I of m that hold G, k of q_{m,I,k,j}         for every model m that holds G
    memory[j]       sum over G of (bytes of G that all others do not hold on j) · w_{G,j} <= the memory left on j

with G groups that the same stages hold, as one. What is found is taken if it needs no more memory. Rounds take more
models as long as their programmes are solved fast, and fewer when they are not.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from time import monotonic

import numpy as np

from planner.planning.merging.deployment import (
    SCALE_BYTES,
    DeployedStage,
    MergeProblem,
    Stages,
    class_of,
    device_bytes,
    held_by,
    loads_of,
)
from planner.planning.merging.schemes import Member
from planner.planning.merging.stages import (
    ROUNDING,
    Replicated,
    add_paths,
    dual_loads,
    families,
    intervals,
    least_replicas,
    replica_load,
    stage_name,
)
from planner.planning.programme.backends import Clock, Limits, solve
from planner.planning.programme.linear import LinearModel, Solution

FEWEST = 2  # models that a round takes
ROUND_LIMITS = Limits(gap=1e-3, time_limit_s=10.0)
FAST_S, SLOW_S = 0.5, 3.0
MORE = 2  # replicas beyond the least
WHOLE = 0.3  # rounds that take a whole family
STRANGERS = 0.2  # other rounds that take a model of another family, too
WHOLE_CUTS, OTHER_CUTS = 5, 2  # other groups than now at which models may be cut
OTHER_DEVICES = 2


def improve(problem: MergeProblem, stages: Stages, enough_bytes: float, clock: Clock, seed: int = 0) -> Stages:
    """Return a deployment that needs no more memory than a given one.

    Parameters
    ----------
    stages
        Where every stage runs; it keeps all limits.
    enough_bytes
        Memory at which to stop.
    clock
        Tells when to stop in any case.
    """
    rng = np.random.default_rng(seed)
    family = families(problem.models, problem.sharing)
    used, count = sum(device_bytes(problem, stages)), FEWEST + 1.0
    first = sorted(set(family))  # each as a whole, to begin with
    while used > enough_bytes and not clock.over:
        begin_s = monotonic()
        whole = bool(first) or bool(rng.random() < WHOLE)
        chosen = first.pop() if first else family[int(rng.integers(len(family)))]
        taken = _models(family, chosen, len(family) if whole else round(count), rng)
        cuts = _cuts(problem, () if whole else stages, family, taken, WHOLE_CUTS if whole else OTHER_CUTS, rng)
        devices = _devices(problem, stages, family, taken, 0 if whole else OTHER_DEVICES, rng)
        limits = clock.at_most(ROUND_LIMITS.time_limit_s or 0).remaining()
        found = deploy_anew(problem, stages, cuts, devices, Limits(ROUND_LIMITS.gap, limits.time_limit_s))
        if found is not None and sum(device_bytes(problem, found)) <= used:
            stages, used = found, sum(device_bytes(problem, found))
        if not whole:
            took_s = monotonic() - begin_s
            count = min(max(count + 0.2 * (took_s < FAST_S) - 0.5 * (took_s > SLOW_S), FEWEST), len(family))
    return stages


def _models(family: Sequence[int], chosen: int, count: int, rng: np.random.Generator) -> set[int]:
    """Return so many models of a family, or all; of some of it, now and then with one of another family."""
    akin = [number for number, own in enumerate(family) if own == chosen]
    taken = set(rng.permutation(akin)[:count].tolist())
    if count < len(family) and rng.random() < STRANGERS:
        taken.add(int(rng.integers(len(family))))
    return taken


def _cuts(
    problem: MergeProblem,
    stages: Stages,
    family: Sequence[int],
    taken: Collection[int],
    others: int,
    rng: np.random.Generator,
) -> dict[int, set[int]]:
    """Return the groups before which models may be cut: where stages of their family begin, and some others."""
    found: dict[int, set[int]] = {}
    for own in sorted({family[number] for number in taken}):
        counts = {number: len(problem.models[number].groups) for number in taken if family[number] == own}
        here = {stage.first for stage in stages if family[stage.model] == own}
        here |= set(rng.integers(1, max(counts.values()) + 1, others).tolist())
        found |= {number: {0, count, *(cut for cut in here if cut < count)} for number, count in counts.items()}
    return found


def _devices(
    problem: MergeProblem,
    stages: Stages,
    family: Sequence[int],
    taken: Collection[int],
    others: int,
    rng: np.random.Generator,
) -> list[int]:
    """Return the devices of the families of some models, a few others, and one that is empty."""
    akin = {family[number] for number in taken}
    there = {device for stage in stages if family[stage.model] in akin for device in stage.devices}
    used = {device for stage in stages for device in stage.devices}
    empty = [device for device in range(len(problem.device_bytes)) if device not in used]
    return sorted({*there, *rng.permutation(sorted(used - there)).tolist()[:others], *empty[:1]})


@dataclass
class Round:
    """The programme of a round: some models on some devices, around the stages of all others."""

    problem: MergeProblem
    devices: Sequence[int]
    others: Stages
    model: LinearModel = field(default_factory=LinearModel)
    stage: dict[Replicated, int] = field(default_factory=dict)
    on: dict[tuple[Replicated, int], int] = field(default_factory=dict)


def deploy_anew(
    problem: MergeProblem, stages: Stages, cuts: dict[int, set[int]], devices: Sequence[int], limits: Limits
) -> Stages | None:
    """Return a deployment in which only some models run elsewhere, or otherwise; None where none was found in time.

    Parameters
    ----------
    stages
        A deployment that keeps all limits.
    cuts
        Which models to deploy anew, and the groups before which they may be cut; their ends among them.
    devices
        Where they may run; they run there now.
    """
    this = Round(problem, devices, tuple(stage for stage in stages if stage.model not in cuts))
    now = {
        Replicated(stage.model, (stage.first, stage.last), len(stage.devices)): stage.devices
        for stage in stages
        if stage.model in cuts
    }
    _add_stages(this, cuts, now)
    add_paths(this.model, {number: problem.models[number] for number in sorted(cuts)}, this.stage)
    _add_loads(this)
    _add_copies(this)
    start = {column: float(stage in now) for stage, column in this.stage.items()}
    start |= {column: float(device in now.get(stage, ())) for (stage, device), column in this.on.items()}
    solution, _ = solve(this.model, "highs", limits, start)
    return _stages(this, solution) if solution.found else None


def _add_stages(this: Round, cuts: dict[int, set[int]], now: Collection[Replicated]) -> None:
    """Add the stages that models may have, those that they have now among them, and where their replicas are."""
    models, model = this.problem.models, this.model
    stages = set(now)
    for number, own in cuts.items():
        for interval in intervals(models[number]):
            if set(interval) <= own:
                least = least_replicas(models[number], interval)
                most = min(least + MORE, len(this.devices))
                stages |= {Replicated(number, interval, count) for count in range(least, most + 1)}
    for stage in sorted(stages, key=lambda one: (one.model, one.interval, one.replicas)):
        name = stage_name(models, stage)
        chosen = this.stage[stage] = model.add_column(f"stage[{name}]", upper=1, integer=True)
        placed = []
        for device in this.devices:
            column = this.on[stage, device] = model.add_column(f"on[{name},{device}]", upper=1, integer=True)
            model.add_row(f"open[{name},{device}]", [(column, 1.0), (chosen, -1.0)], upper=0)
            placed.append((column, 1.0))
        model.add_row(f"placed[{name}]", [*placed, (chosen, -float(stage.replicas))], lower=0, upper=0)


def _add_loads(this: Round) -> None:
    """Add that a device runs one stage of a model, and what load the others leave."""
    models, model = this.problem.models, this.model
    loads = {stage: replica_load(models, stage) for stage in this.stage}
    busy = loads_of(this.problem, this.others)
    for device in this.devices:
        own: defaultdict[int, list[tuple[int, float]]] = defaultdict(list)
        for stage in this.stage:
            own[stage.model].append((this.on[stage, device], 1.0))
        for number, terms in own.items():
            model.add_row(f"one[{models[number].name},{device}]", terms, upper=1)
        terms = [(this.on[stage, device], load) for stage, load in loads.items()]
        model.add_row(f"busy[{device}]", terms, upper=1 + ROUNDING - busy[device])


def _add_copies(this: Round) -> None:
    """Add the copies that others do not hold already, what devices hold at most, and the objective."""
    problem, model = this.problem, this.model
    already = held_by(problem, this.others)
    used = device_bytes(problem, this.others)
    held: dict[int, dict[int, float]] = {device: {} for device in this.devices}
    for number, (stages, members) in enumerate(_alike(this).items()):
        by_load = list(dual_loads(problem.models, stages))
        copies = []
        for device in this.devices:
            copy = model.add_column(f"copy[{number},{device}]", upper=1)
            needed = sum(_bytes(problem, member) for member in members - already[device])
            held[device][copy] = needed / SCALE_BYTES
            copies.append((copy, 1.0))
            _add_copy(this, f"{number},{device}", copy, [(stage, this.on[stage, device]) for stage in stages])
            for name, taken in by_load:
                terms = [(this.on[stage, device], -part) for stage, part in taken.items()]
                model.add_row(f"busy[{name},{number},{device}]", [(copy, 1.0 + ROUNDING), *terms], lower=0)
        count = model.add_column(f"copies[{number}]", upper=len(this.devices), integer=True)
        model.add_row(f"copies[{number}]", [*copies, (count, -1.0)], lower=0, upper=0)
    for device, sizes in held.items():
        left = problem.device_bytes[device] - used[device]
        model.add_row(f"memory[{device}]", sizes.items(), upper=left / SCALE_BYTES)
    model.set_objective([term for sizes in held.values() for term in sizes.items()], maximise=False)


def _add_copy(this: Round, name: str, copy: int, present: Sequence[tuple[Replicated, int]]) -> None:
    """Add that a copy is where a stage of any model is that holds it."""
    own: defaultdict[int, list[tuple[int, float]]] = defaultdict(list)
    for stage, column in present:
        own[stage.model].append((column, -1.0))
    for number, terms in own.items():
        this.model.add_row(f"copy[{name},{number}]", [(copy, 1.0), *terms], lower=0)


def _alike(this: Round) -> dict[tuple[Replicated, ...], frozenset[Member]]:
    """Return the groups that the same stages hold, one member for each copy."""
    classes = class_of(this.problem)
    holders: defaultdict[Member, list[Replicated]] = defaultdict(list)
    for stage in this.stage:
        for group in stage.groups:
            holders[classes.get((stage.model, group), (stage.model, group))].append(stage)
    found: defaultdict[tuple[Replicated, ...], set[Member]] = defaultdict(set)
    for member, stages in holders.items():
        found[tuple(stages)].add(member)
    return {stages: frozenset(members) for stages, members in found.items()}


def _bytes(problem: MergeProblem, member: Member) -> int:
    return problem.models[member[0]].groups[member[1]].parameter_bytes


def _stages(this: Round, solution: Solution) -> Stages:
    """Return all stages, those of others and those deployed anew."""
    anew = [
        DeployedStage(
            stage.model,
            *stage.interval,
            tuple(device for device in this.devices if solution.values[this.on[stage, device]] > 0.5),
        )
        for stage, column in this.stage.items()
        if solution.values[column] > 0.5
    ]
    return tuple(sorted([*this.others, *anew], key=lambda one: (one.model, one.first)))
