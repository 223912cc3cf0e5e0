"""Replicas of stages on devices with little memory in use, by ruin and recreate.

The replicas of a few devices are taken off and put back one by one, where they add the fewest bytes; a model may be cut
anew; what is worse is taken at first, too (Schrimpf et al., Journal of Computational Physics 159, 2000).
"""

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from planner.planning.merging.deployment import DeployedStage, MergeProblem, Stages
from planner.planning.merging.schemes import Member
from planner.planning.merging.stages import ROUNDING, Interval, Replicated, families, least_replicas, replica_load

ROUNDS = 20_000
RUINED = 5  # devices at most, a round
CUT_ANEW = 0.3  # rounds in which a model gets other stages
HOTTEST = 0.01  # of the memory in use, the mean loss that is taken at first


def pack(
    problem: MergeProblem,
    chosen: Sequence[Replicated],
    enough_bytes: float,
    over: Callable[[], bool] = lambda: False,
    seed: int = 0,
) -> Stages | None:
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
        self.sizes = np.array([problem.models[m].groups[g].parameter_bytes for m, g in kinds], dtype=np.float64)
        self.family = families(problem.models, problem.sharing)
        self.placed = [(one, -1) for one in chosen for _ in range(one.replicas)]
        self._known: dict[Replicated, tuple[NDArray[np.bool_], float]] = {}

    def takes(self, one: Replicated) -> tuple[NDArray[np.bool_], float]:
        """Return which groups a replica of a stage holds, and its load."""
        if one not in self._known:
            holds = np.zeros(len(self.sizes), dtype=np.bool_)
            holds[self.kinds[one.model][slice(*one.interval)]] = True
            self._known[one] = holds, replica_load(self.problem.models, one)
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


def _stages(placed: Sequence[tuple[Replicated, int]]) -> Stages:
    """Return stages with their devices, by model and place."""
    found: defaultdict[tuple[int, Interval], list[int]] = defaultdict(list)
    for one, device in placed:
        found[one.model, one.interval].append(device)
    return tuple(
        DeployedStage(model, *interval, tuple(sorted(own))) for (model, interval), own in sorted(found.items())
    )
