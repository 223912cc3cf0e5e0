"""Deployments of many models: families apart and exactly, then all of them together.

Models that share nothing with each other, directly or by others, need as much memory together as they need apart, as
long as the devices suffice. So each family is deployed as if the devices were its own
(`planner.planning.merging.branch_and_bound`); what lies on its devices is then put on those that there are,

    x_{b,j}     binary: what lies on device b of a family is on device j
    all         sum over j of x_{b,j} = 1
    busy[j]     sum over b of load_b · x_{b,j} <= 1
    memory[j]   sum over b of bytes_b · x_{b,j} <= memory_j
    one[m,j]    sum over the b that run a stage of model m of x_{b,j} <= 1

(any placement will do; what two devices of a family hold is not taken for one copy), and the families' bounds add up to
a bound of all. Where that is not enough, because a family is too large to be deployed exactly or devices are few,
copies are counted (`planner.planning.merging.counting`), replicas packed (`planner.planning.merging.packing`), and what
was found is improved a few models at a time (`planner.planning.merging.neighbourhoods`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from planner.model import InputError
from planner.planning.merging.branch_and_bound import least_memory
from planner.planning.merging.counting import count_copies
from planner.planning.merging.deployment import (
    NOTHING_FITS,
    SCALE_BYTES,
    DeployedStage,
    Deployment,
    MergeProblem,
    Stages,
    device_bytes,
    hopeless,
    loads_of,
)
from planner.planning.merging.neighbourhoods import improve
from planner.planning.merging.packing import pack
from planner.planning.merging.stages import ROUNDING, Replicated, families
from planner.planning.programme.backends import Clock, Limits, TooLate, solve
from planner.planning.programme.linear import LinearModel

APART_SHARE, COUNTING_SHARE, PACKING_SHARE = 0.7, 0.4, 0.1  # of the time that is left; the rest is for improving
ALONE = 0.95  # of the gap, for every family
PLACING = Limits(gap=1.0, time_limit_s=5.0)
DEFAULT = Limits(gap=0.01, time_limit_s=60.0)


def deploy_large(problem: MergeProblem, backend: str = "highs", limits: Limits = DEFAULT) -> Deployment:
    """Return a deployment with little memory in use, and a proven bound; for problems too large for `deploy`.

    Parameters
    ----------
    limits
        The gap at which to stop, and the time; without a time limit, that of `DEFAULT`.

    Raises
    ------
    InputError
        No deployment keeps the limits of memory, load and devices, none was found, or the problem wants
        ``all_stages``, of which this knows nothing.
    TooLate
        None was found in time.

    Examples
    --------
    >>> from planner.planning.merging.schemes import LayerGroup, MergeModel, Scheme, sharing_of
    >>> group, head = LayerGroup(100, 1.0), LayerGroup(10, 1.0, mergeable=False)
    >>> models = tuple(MergeModel(name, (group, head), 1, 1.0, 0.3) for name in "abcd")
    >>> shared = sharing_of(models, [Scheme((0, 1, 2, 3), 0, 2)])
    >>> found = deploy_large(MergeProblem(models, (1000, 1000, 1000), shared))
    >>> found.memory_bytes, round(found.gap, 2) <= 0.01
    (240, True)
    """
    if problem.all_stages:
        raise InputError("all_stages: deploying many models knows nothing of empty stages; use `deploy`")
    if (reason := hopeless(problem)) is not None:
        raise InputError(reason)
    limit_s = DEFAULT.time_limit_s if limits.time_limit_s is None else limits.time_limit_s
    clock = Clock(Limits(limits.gap, limit_s))
    found = _apart(problem, ALONE * limits.gap, _part(clock, APART_SHARE))
    if len(found) == 1 and len(set(problem.device_bytes)) == 1:
        stages = found[0].stages
    else:
        stages = _together(problem, found, backend, clock.within(PLACING))
    bound = sum(one.bound_bytes for one in found)
    if stages is None or bound < (1 - limits.gap) * sum(device_bytes(problem, stages)):
        found = _counted(problem, found, backend, _part(clock, COUNTING_SHARE))
        bound = sum(one.bound_bytes for one in found)
        if stages is None:  # devices may be too few, which families alone do not know
            bound = max(bound, count_copies(problem, backend, _part(clock, COUNTING_SHARE).remaining()).bound_bytes)
        enough = bound / (1 - limits.gap)
        if stages is None:
            stages = _packed(problem, found, enough, _part(clock, PACKING_SHARE))
        stages = improve(problem, stages, enough, clock)
    memory = sum(device_bytes(problem, stages))
    bound = min(bound, float(memory))
    return Deployment(stages, memory, bound, "optimal" if memory - bound <= limits.gap * memory else "feasible")


@dataclass(frozen=True)
class _Apart:
    """Some models that share nothing with others, and what was found for them, as if all devices were theirs."""

    numbers: tuple[int, ...]
    stages: Stages | None = None
    bound_bytes: float = 0.0
    finished: bool = False
    chosen: tuple[Replicated, ...] = ()  # stages that need the fewest copies, where they were counted

    def alone(self, problem: MergeProblem) -> MergeProblem:
        """Return the family's own problem."""
        place = {number: at for at, number in enumerate(self.numbers)}
        sharing = frozenset(
            frozenset((place[model], group) for model, group in members)
            for members in problem.sharing
            if min(members)[0] in place
        )
        return MergeProblem(tuple(problem.models[number] for number in self.numbers), problem.device_bytes, sharing)


def _part(clock: Clock, share: float) -> Clock:
    return clock.at_most(share * (clock.remaining().time_limit_s or 0.0))


def _apart(problem: MergeProblem, gap: float, clock: Clock) -> list[_Apart]:
    """Return for every family what was found for it alone; small ones come first, and leave time to others."""
    own = families(problem.models, problem.sharing)
    members = [tuple(number for number, other in enumerate(own) if other == one) for one in sorted(set(own))]
    found = []
    for place, numbers in enumerate(sorted(members, key=len)):
        alone = least_memory(_Apart(numbers).alone(problem), gap, _part(clock, 1 / (len(members) - place)))
        if alone.stages is None and alone.finished:
            raise InputError(NOTHING_FITS)
        stages = None
        if alone.stages is not None:
            stages = tuple(replace(stage, model=numbers[stage.model]) for stage in alone.stages)
        found.append(_Apart(numbers, stages, alone.bound_bytes, alone.finished))
    return found


def _counted(problem: MergeProblem, found: Sequence[_Apart], backend: str, clock: Clock) -> list[_Apart]:
    """Return the families with a bound by counting copies, and stages to begin with, where these are missing."""
    counted = []
    left = sum(not one.finished for one in found)
    for one in found:
        if not one.finished:
            copies = count_copies(one.alone(problem), backend, _part(clock, 1 / left).remaining())
            left -= 1
            chosen = tuple(replace(stage, model=one.numbers[stage.model]) for stage in copies.chosen)
            one = replace(one, bound_bytes=max(one.bound_bytes, copies.bound_bytes), chosen=chosen)
        counted.append(one)
    return counted


def _packed(problem: MergeProblem, found: Sequence[_Apart], enough: float, clock: Clock) -> Stages:
    """Return all families' stages on the devices that there are."""
    chosen: list[Replicated] = []
    for one in found:
        own = [Replicated(stage.model, (stage.first, stage.last), len(stage.devices)) for stage in one.stages or ()]
        chosen += own or one.chosen
    known = {stage.model for stage in chosen}
    stages = None
    if len(known) == len(problem.models):
        stages = pack(problem, chosen, enough_bytes=enough, over=lambda: clock.over)
    if stages is None:
        raise TooLate(
            "no deployment was found in the time given; raise the time limit, add devices or memory, or try `deploy`",
            sum(one.bound_bytes for one in found),
        )
    return stages


def _together(problem: MergeProblem, found: Sequence[_Apart], backend: str, limits: Limits) -> Stages | None:
    """Return the families' deployments on the devices that there are; None where they were not placed there."""
    loads: list[float] = []
    sizes: list[float] = []
    runs: list[list[DeployedStage]] = []
    for one in found:
        if one.stages is None:
            return None
        load, size = loads_of(problem, one.stages), device_bytes(problem, one.stages)
        for device in sorted({device for stage in one.stages for device in stage.devices}):
            loads.append(load[device])
            sizes.append(size[device] / SCALE_BYTES)
            runs.append([stage for stage in one.stages if device in stage.devices])
    model = LinearModel()
    devices = range(len(problem.device_bytes))
    on = [[model.add_column(f"on[{b},{j}]", upper=1, integer=True) for j in devices] for b in range(len(runs))]
    for b, columns in enumerate(on):
        model.add_row(f"all[{b}]", [(column, 1.0) for column in columns], lower=1, upper=1)
    for j, memory in enumerate(problem.device_bytes):
        here = [columns[j] for columns in on]
        model.add_row(f"busy[{j}]", zip(here, loads, strict=True), upper=1 + ROUNDING)
        model.add_row(f"memory[{j}]", zip(here, sizes, strict=True), upper=memory / SCALE_BYTES)
        for number in range(len(problem.models)):
            terms = [(here[b], 1.0) for b, own in enumerate(runs) if any(stage.model == number for stage in own)]
            model.add_row(f"one[{number},{j}]", terms, upper=1)
    solution, _ = solve(model, backend, limits)
    if not solution.found:
        return None
    places: dict[tuple[int, int, int], list[int]] = {}
    for columns, own in zip(on, runs, strict=True):
        device = next(j for j, column in enumerate(columns) if solution.values[column] > 0.5)
        for stage in own:
            places.setdefault((stage.model, stage.first, stage.last), []).append(device)
    return tuple(DeployedStage(*stage, tuple(sorted(devices))) for stage, devices in sorted(places.items()))
