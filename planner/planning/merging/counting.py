"""Deployments of many models: stages and copies counted over all devices first, devices after.

The programme of `planner.planning.merging.deployment` has columns per device, which are alike where devices are alike;
here copies are only counted. With its words, w_I = mu_m · t_I / T_m the load of a stage, J the number of devices,

    r_{m,I,k}   binary: the stage I of model m has k replicas                            ``stage[m,I,k]``
    n_c         integer: the copies of class c on all devices                            ``copies[c]``

    minimise    sum over c of size_c · n_c + sum over r of k · (bytes of its unshared groups) · r_{m,I,k}
    path, stages    as there
    members[m,g]    n_c >= sum over I that hold g of k · r_{m,I,k}             for every member (m, g) of c
    busy[f,c]       n_c >= sum over members (m, g), over I that hold g, of k · f(w_I / k) · r_{m,I,k}
    busy[f]         J >= sum over all of k · f(w_I / k) · r_{m,I,k}
    one[m]          sum over I of k · r_{m,I,k} <= J
    memory          what is in use <= sum of memory_j

f is dual feasible: numbers whose sum is at most 1 have images whose sum is at most 1 (Fekete and Schepers, "New classes
of fast lower bounds for bin packing problems", Mathematical Programming 91, 2001, u^(e) there): f(x) = x, and f_e(x) =
0 below e, x up to 1 - e, 1 above. What a device with a copy of c runs of c's members is a load of at most 1, so that
the optimum bounds every deployment. Counts of the least + `MORE` or above are one column, which costs what its least
count does and counts in busy[f] with f(x) = x alone.

The replicas are then packed on devices by ruin and recreate (Schrimpf et al., Journal of Computational Physics 159,
2000): those of a few devices are taken off and put back one by one, where they add the fewest bytes; a model may be cut
anew; what is worse is taken at first, too. What is left of the gap is partly the bound's: a class's copies are counted
without asking whether the same devices hold the classes before and after it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from planner.model import InputError
from planner.planning.merging.deployment import (
    NOTHING_FITS,
    ROUNDING,
    SCALE_BYTES,
    DeployedStage,
    Deployment,
    Interval,
    MergeProblem,
    device_bytes,
    hopeless,
    intervals,
    latency_share,
    least_replicas,
)
from planner.planning.merging.schemes import Member
from planner.planning.programme.backends import Clock, Limits, solve
from planner.planning.programme.linear import LinearModel

MORE = 2  # replicas beyond the least that have columns of their own
THRESHOLDS = (0.5, 0.4, 0.3, 0.2)  # e of f_e
PACKING_SHARE = 0.4  # of the time, left for packing
ROUNDS = 20_000
RUINED = 5  # devices at most, a round
CUT_ANEW = 0.3  # rounds in which a model gets other stages
HOTTEST = 0.01  # of the memory in use, the mean loss that is taken at first


@dataclass(frozen=True)
class Replicated:
    """A stage of a model with its number of replicas; ``open_ended`` stands for more of them, too."""

    model: int
    interval: Interval
    replicas: int
    open_ended: bool = False


@dataclass
class Counting:
    """The programme and the numbers of its columns."""

    problem: MergeProblem
    model: LinearModel = field(default_factory=LinearModel)
    stage: dict[Replicated, int] = field(default_factory=dict)
    load: dict[Replicated, float] = field(default_factory=dict)
    copies: list[int] = field(default_factory=list)

    @property
    def classes(self) -> list[frozenset[Member]]:
        """The sets of members that share one copy, in the order of ``copies``."""
        return sorted(self.problem.sharing, key=min)


def build(problem: MergeProblem) -> Counting:
    """Return the programme that counts."""
    counting = Counting(problem)
    _add_columns(counting)
    _add_paths(counting)
    _add_copies(counting)
    _add_totals(counting)
    return counting


def _add_columns(counting: Counting) -> None:
    problem, model = counting.problem, counting.model
    devices = len(problem.device_bytes)
    for number, merged in enumerate(problem.models):
        for interval in intervals(merged):
            least = least_replicas(merged, interval)
            for count in range(least, min(least + MORE, devices) + 1):
                one = Replicated(number, interval, count, count == least + MORE < devices)
                name = f"stage[{merged.name},{interval[0]}-{interval[1]},{count}]"
                counting.stage[one] = model.add_column(name, upper=1, integer=True)
                counting.load[one] = merged.mean_devices * latency_share(merged, interval)
    counting.copies = [
        model.add_column(f"copies[{number}]", upper=devices, integer=True) for number in range(len(problem.sharing))
    ]


def _add_paths(counting: Counting) -> None:
    problem, model = counting.problem, counting.model
    for number, merged in enumerate(problem.models):
        own = {one: column for one, column in counting.stage.items() if one.model == number}
        for boundary in range(len(merged.groups) + 1):
            begins = [(column, 1.0) for one, column in own.items() if one.interval[0] == boundary]
            ends = [(column, -1.0) for one, column in own.items() if one.interval[1] == boundary]
            balance = (boundary == 0) - (boundary == len(merged.groups))
            model.add_row(f"path[{merged.name},{boundary}]", [*begins, *ends], lower=balance, upper=balance)
        model.add_row(f"stages[{merged.name}]", [(column, 1.0) for column in own.values()], upper=merged.max_stages)
        taken = [(column, float(one.replicas)) for one, column in own.items()]
        model.add_row(f"one[{merged.name}]", taken, upper=len(problem.device_bytes))


def _add_copies(counting: Counting) -> None:
    """Add that copies are at least those of every member, and enough for the load of all."""
    model = counting.model
    holding: defaultdict[Member, list[Replicated]] = defaultdict(list)
    for one in counting.stage:
        for group in range(*one.interval):
            holding[one.model, group].append(one)
    for number, (members, copies) in enumerate(zip(counting.classes, counting.copies, strict=True)):
        for member in sorted(members):
            terms = [(counting.stage[one], -float(one.replicas)) for one in holding[member]]
            model.add_row(f"members[{number},{member[0]},{member[1]}]", [(copies, 1.0), *terms], lower=0)
        here = [one for member in sorted(members) for one in holding[member]]
        for name, weighted in _busy(counting, here):
            model.add_row(f"busy[{name},{number}]", [(copies, 1.0 + ROUNDING), *weighted], lower=0)


def _busy(counting: Counting, stages: Iterable[Replicated]) -> Iterable[tuple[str, list[tuple[int, float]]]]:
    """Yield for every dual feasible function the negative of what stages take of devices."""
    stages = list(stages)
    for threshold in (0.0, *THRESHOLDS):
        terms = []
        for one in stages:
            share = counting.load[one] / one.replicas
            if threshold and one.open_ended:
                continue
            taken = one.replicas * dual_feasible(share, threshold)
            if taken:
                terms.append((counting.stage[one], -taken))
        yield f"{threshold:g}", terms


def dual_feasible(load: float, threshold: float) -> float:
    """Return f_e(x): 0 below e, 1 above 1 - e, else x.

    Examples
    --------
    >>> dual_feasible(0.6, 0.5), dual_feasible(0.6, 0.3), dual_feasible(0.2, 0.3)
    (1.0, 0.6, 0.0)
    """
    if load < threshold:
        return 0.0
    return 1.0 if threshold and load > 1 - threshold + ROUNDING else load


def _add_totals(counting: Counting) -> None:
    """Add the limits of all devices together, and the objective."""
    problem, model = counting.problem, counting.model
    for name, terms in _busy(counting, counting.stage):
        model.add_row(f"busy[{name}]", terms, lower=-len(problem.device_bytes) * (1 + ROUNDING))
    shared = {member for members in problem.sharing for member in members}
    total = [
        (copies, _bytes(problem, [min(members)]))
        for members, copies in zip(counting.classes, counting.copies, strict=True)
    ]
    for one, column in counting.stage.items():
        own = [(one.model, group) for group in range(*one.interval) if (one.model, group) not in shared]
        total.append((column, one.replicas * _bytes(problem, own)))
    model.add_row("memory", total, upper=sum(problem.device_bytes) / SCALE_BYTES)
    model.set_objective(total, maximise=False)


def _bytes(problem: MergeProblem, members: Iterable[Member]) -> float:
    return sum(problem.models[model].groups[group].parameter_bytes for model, group in members) / SCALE_BYTES


def deploy_counted(problem: MergeProblem, backend: str = "highs", limits: Limits | None = None) -> Deployment:
    """Return a deployment with little memory in use, and a proven bound; for problems too large for `deploy`.

    Parameters
    ----------
    limits
        A gap of 1 % and a minute if None; part of the time is for packing.

    Raises
    ------
    InputError
        No deployment keeps the limits of memory, load and devices, none was found in time, or the problem wants
        ``all_stages``, of which counting knows nothing.

    Examples
    --------
    >>> from planner.planning.merging.schemes import LayerGroup, MergeModel, Scheme, sharing_of
    >>> group, head = LayerGroup(100, 1.0), LayerGroup(10, 1.0, mergeable=False)
    >>> models = tuple(MergeModel(name, (group, head), 1, 1.0, 0.3) for name in "abcd")
    >>> shared = sharing_of(models, [Scheme((0, 1, 2, 3), 0, 2)])
    >>> found = deploy_counted(MergeProblem(models, (1000, 1000, 1000), shared))
    >>> found.memory_bytes, round(found.bound_bytes)
    (240, 240)
    """
    if problem.all_stages:
        raise InputError("all_stages: counting copies knows nothing of empty stages; use `deploy`")
    if (reason := hopeless(problem)) is not None:
        raise InputError(reason)
    limits = limits or Limits(gap=0.01, time_limit_s=60.0)
    clock = Clock(limits)
    counting = build(problem)
    time_limit_s = None if limits.time_limit_s is None else (1 - PACKING_SHARE) * limits.time_limit_s
    solution, _ = solve(counting.model, backend, Limits(limits.gap / 4, time_limit_s))
    if solution.status == "infeasible":
        raise InputError(NOTHING_FITS)
    if not solution.found:
        raise InputError("no deployment was found in the time given; raise the time limit")
    chosen = [one for one, column in counting.stage.items() if solution.values[column] > 0.5]
    bound = solution.bound * SCALE_BYTES
    stages = pack(problem, chosen, enough_bytes=bound / (1 - limits.gap), over=lambda: clock.over)
    if stages is None:
        raise InputError(
            "the stages that need the fewest copies were not packed on the devices; "
            "add devices or memory, or try `deploy`"
        )
    memory = sum(device_bytes(problem, stages))
    bound = min(bound, float(memory))
    return Deployment(stages, memory, bound, "optimal" if memory - bound <= limits.gap * memory else "feasible")


def pack(
    problem: MergeProblem,
    chosen: Sequence[Replicated],
    enough_bytes: float,
    over: Callable[[], bool] = lambda: False,
    seed: int = 0,
) -> tuple[DeployedStage, ...] | None:
    """Return stages on devices, with as little memory as was found; None where they do not fit.

    Parameters
    ----------
    chosen
        The stages of all models with their replicas, to begin with.
    enough_bytes
        Memory at which to stop.
    over
        Tells when to stop in any case.
    """
    packing = _Packing(problem, chosen)
    rng = np.random.default_rng(seed)
    packing.recreate(rng)
    current, best, found = packing.cost(), float("inf"), list(packing.placed)
    for turn in range(ROUNDS):
        if current < best:
            best, found = current, list(packing.placed)
        if best <= enough_bytes or over():
            break
        before = list(packing.placed)
        packing.ruin(rng)
        packing.recreate(rng)
        cost = packing.cost()
        if cost < current + HOTTEST * best * (1 - turn / ROUNDS) ** 2 * rng.exponential():
            current = cost
        else:
            packing.placed = before
    return _stages(found) if all(device >= 0 for _, device in found) else None


class _Packing:
    """Replicas on devices, as (stage, device) pairs; -1 is nowhere."""

    def __init__(self, problem: MergeProblem, chosen: Sequence[Replicated]) -> None:
        self.problem = problem
        self.memory = np.array(problem.device_bytes, dtype=np.float64)
        shared = {member: min(members) for members in problem.sharing for member in members}
        kinds: dict[Member, int] = {}
        self.kinds = [
            [kinds.setdefault(shared.get((m, g), (m, g)), len(kinds)) for g in range(len(model.groups))]
            for m, model in enumerate(problem.models)
        ]
        self.sizes = np.array([SCALE_BYTES * _bytes(problem, [member]) for member in kinds], dtype=np.float64)
        self.family = _families(problem)
        self.placed = [(one, -1) for one in chosen for _ in range(one.replicas)]
        self._known: dict[Replicated, tuple[NDArray[np.bool_], float]] = {}

    def takes(self, one: Replicated) -> tuple[NDArray[np.bool_], float]:
        """Return which groups a replica of a stage holds, and its load."""
        if one not in self._known:
            model = self.problem.models[one.model]
            holds = np.zeros(len(self.sizes), dtype=np.bool_)
            holds[self.kinds[one.model][slice(*one.interval)]] = True
            self._known[one] = holds, model.mean_devices * latency_share(model, one.interval) / one.replicas
        return self._known[one]

    def ruin(self, rng: np.random.Generator) -> None:
        """Take the replicas of one family off a few devices, or all replicas; cut one model anew now and then."""
        family = self.family[rng.integers(len(self.family))]
        taken = {m for m, own in enumerate(self.family) if own == family} if rng.random() < 0.7 else None
        there = sorted({device for one, device in self.placed if taken is None or one.model in taken} - {-1})
        count = int(rng.integers(2, RUINED + 1))
        ruined = set(rng.permutation(there)[:count].tolist())
        self.placed = [
            (one, -1 if device in ruined and (taken is None or one.model in taken) else device)
            for one, device in self.placed
        ]
        if rng.random() < CUT_ANEW:
            self.cut_anew(int(rng.choice(sorted(taken) if taken else len(self.family))), rng)

    def cut_anew(self, number: int, rng: np.random.Generator) -> None:
        """Give a model the stages of another one of its family, or other ones, and take it off all devices."""
        model = self.problem.models[number]
        like = [one.interval[0] for one, _ in self.placed if self.family[one.model] == self.family[number]]
        cuts = {int(rng.choice(like)) if rng.random() < 0.7 else int(rng.integers(len(model.groups)))}
        while len(cuts) < model.max_stages and rng.random() < 0.5:
            cuts.add(int(rng.integers(len(model.groups))))
        bounds = sorted(cut for cut in cuts if 0 < cut < len(model.groups))[: model.max_stages - 1]
        self.placed = [(one, device) for one, device in self.placed if one.model != number]
        for interval in zip((0, *bounds), (*bounds, len(model.groups)), strict=True):
            count = min(least_replicas(model, interval) + int(rng.random() < 0.2), len(self.memory))
            self.placed += [(Replicated(number, interval, count), -1)] * count

    def recreate(self, rng: np.random.Generator) -> None:
        """Put back what lies nowhere, large loads rather first, each where it adds the fewest bytes."""
        holds, busy = self.held()
        used = holds @ self.sizes
        left = [at for at, (_, device) in enumerate(self.placed) if device < 0]
        order = {at: self.takes(self.placed[at][0])[1] * rng.uniform(0.4, 1.6) for at in left}
        for at in sorted(left, key=lambda one: -order[one]):
            stage = self.placed[at][0]
            needs, load = self.takes(stage)
            added = (needs & ~holds) @ self.sizes
            fits = (busy + load <= 1 + ROUNDING) & (used + added <= self.memory)
            fits[[device for one, device in self.placed if one.model == stage.model and device >= 0]] = False
            if fits.any():
                tight = (2.0 - busy - load) * rng.uniform(0.5, 1.5)  # bytes at most, so that it decides ties alone
                place = int(np.argmin(np.where(fits, added + tight, np.inf)))
                self.placed[at] = stage, place
                holds[place] |= needs
                busy[place] += load
                used[place] += added[place]

    def held(self) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Return which groups lie on which device, and how busy each is."""
        holds = np.zeros((len(self.memory), len(self.sizes)), dtype=np.bool_)
        busy = np.zeros(len(self.memory))
        for one, device in self.placed:
            if device >= 0:
                needs, load = self.takes(one)
                holds[device] |= needs
                busy[device] += load
        return holds, busy

    def cost(self) -> float:
        """Return the bytes in use, and as many as all devices have for every replica that lies nowhere."""
        nowhere = sum(device < 0 for _, device in self.placed)
        return float(nowhere * self.memory.sum() + (self.held()[0] @ self.sizes).sum())


def _stages(placed: Sequence[tuple[Replicated, int]]) -> tuple[DeployedStage, ...]:
    """Return stages with their devices, by model and place."""
    found: defaultdict[tuple[int, Interval], list[int]] = defaultdict(list)
    for one, device in placed:
        found[one.model, one.interval].append(device)
    return tuple(
        DeployedStage(model, *interval, tuple(sorted(own))) for (model, interval), own in sorted(found.items())
    )


def _families(problem: MergeProblem) -> list[int]:
    """Return a number per model, alike where models share something, directly or by others."""
    family = list(range(len(problem.models)))
    for members in problem.sharing:
        joined = {family[model] for model, _ in members}
        family = [min(joined) if own in joined else own for own in family]
    return family
