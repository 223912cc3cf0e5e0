"""What is best shared where stages run already: a small programme for every known layout.

A *layout* is where every stage runs. Let h_{K,j} be how many of a set K of members (model, group) are on device j. That
they share one copy saves g_{K,j} = max(0, h_{K,j} - 1) times its bytes there. Only sets whose members meet, each with
another one on some device and all by such meetings, can be of use. With u_K binary: K shares one copy,

    maximise    sum over K, j of g_{K,j} · u_K
    one_copy, refused, load     as in `planner.planning.merging.choices`
    memory[j]   what lies on j without sharing - sum over K of g_{K,j} · u_K <= memory_j

What it finds shares nothing without need, so that it is accepted rather, and rules out more when refused.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations

from planner.planning.merging.choices import Choice, add_load, add_one_copy, add_refused, places, set_name
from planner.planning.merging.deployment import (
    SCALE_BYTES,
    Deployment,
    MergeProblem,
    Stages,
    device_bytes,
    held_by,
)
from planner.planning.merging.oracles import within
from planner.planning.merging.schemes import Member, Sharing
from planner.planning.programme.backends import Limits, solve
from planner.planning.programme.linear import LinearModel

PROGRAMME_LIMITS = Limits(gap=1e-9)


@dataclass(frozen=True)
class Layout:
    """Where stages run, the bytes on each device with nothing shared, and what sets of members save there.

    ``least_bytes`` is a bound on the memory of all that is not ruled out; ``choice`` has it, once it was looked for.
    """

    stages: Stages
    apart_bytes: tuple[int, ...]
    gains: Mapping[frozenset[Member], tuple[int, ...]]
    least_bytes: int = 0
    choice: Choice | None = None


class Layouts:
    """All layouts that are known, each once up to the order of equal devices."""

    def __init__(self, problem: MergeProblem) -> None:
        self.problem = problem
        self._known: dict[tuple[tuple[int, tuple[Member, ...]], ...], Layout] = {}

    def __len__(self) -> int:
        """Return how many layouts are known."""
        return len(self._known)

    def add(self, stages: Stages) -> None:
        """Add a layout that keeps loads."""
        here = held_by(self.problem, stages, frozenset())
        held = [tuple(sorted(members)) for members in here]
        key = tuple(sorted(zip(self.problem.device_bytes, held, strict=True)))
        if key not in self._known:
            apart = tuple(device_bytes(self.problem, stages, frozenset()))
            self._known[key] = Layout(stages, apart, dict(_gains(self.problem, here)))

    def deployed(self, sharing: Sharing) -> Deployment | None:
        """Return the known layout that needs the least memory with some sharing; None where none has the memory."""
        found = []
        for layout in self._known.values():
            used = device_bytes(self.problem, layout.stages, sharing)
            if all(taken <= memory for taken, memory in zip(used, self.problem.device_bytes, strict=True)):
                found.append(Deployment(layout.stages, sum(used), 0.0, "feasible"))
        return min(found, key=lambda one: one.memory_bytes, default=None)

    def best(self, refused: Collection[Sharing]) -> Choice | None:
        """Return what needs the least memory of all that is not ruled out, on any known layout.

        ``refused`` never gets less from call to call.
        """
        while self._known:
            key, layout = min(self._known.items(), key=lambda one: one[1].least_bytes)
            if layout.choice is not None and not any(within(answer, layout.choice.sharing) for answer in refused):
                return layout.choice
            choice = self._best_on(layout, refused)
            if choice is None:
                del self._known[key]
            else:
                self._known[key] = replace(layout, least_bytes=choice.deployment.memory_bytes, choice=choice)
        return None

    def best_of_load(self, refused: Collection[Sharing], load: int) -> Choice | None:
        """Return the same of all in which no model's load exceeds a limit."""
        found = [self._best_on(layout, refused, load) for layout in self._known.values()]
        return min(
            (choice for choice in found if choice is not None),
            key=lambda choice: choice.deployment.memory_bytes,
            default=None,
        )

    def _best_on(self, layout: Layout, refused: Collection[Sharing], load: int | None = None) -> Choice | None:
        model = LinearModel(maximise=True)
        shared = {
            members: model.add_column(
                f"share[{set_name(members)}]", upper=1, objective=sum(saved) / SCALE_BYTES, integer=True
            )
            for members, saved in layout.gains.items()
        }
        add_one_copy(model, shared)
        add_refused(model, shared, refused)
        if load is not None:
            add_load(model, shared, load, len(self.problem.models))
        for device, (taken, memory) in enumerate(zip(layout.apart_bytes, self.problem.device_bytes, strict=True)):
            if taken > memory:
                saved = [(column, layout.gains[members][device] / SCALE_BYTES) for members, column in shared.items()]
                model.add_row(f"memory[{device}]", saved, lower=(taken - memory) / SCALE_BYTES)
        solution, _ = solve(model, "highs", PROGRAMME_LIMITS)
        if not solution.found:
            return None
        sharing = frozenset(members for members, column in shared.items() if solution.values[column] > 0.5)
        used = sum(layout.apart_bytes) - sum(sum(layout.gains[members]) for members in sharing)
        return Choice(sharing, Deployment(layout.stages, used, 0.0, "feasible"))


def _gains(
    problem: MergeProblem, here: Collection[Collection[Member]]
) -> Iterator[tuple[frozenset[Member], tuple[int, ...]]]:
    """Yield sets of members that meet, with the bytes that one copy saves on each device."""
    for members in places(problem):
        model, group = members[0]
        size = problem.models[model].groups[group].parameter_bytes
        if size:
            for joined in _meeting(members, here):
                for count in range(2, len(joined) + 1):
                    for chosen in combinations(joined, count):
                        if len(_meeting(chosen, here)) == 1:
                            there = (len(set(chosen).intersection(one)) for one in here)
                            yield frozenset(chosen), tuple(size * max(0, some - 1) for some in there)


def _meeting(members: Collection[Member], here: Collection[Collection[Member]]) -> list[list[Member]]:
    """Return members in lists: those that meet on a device, directly or by others."""
    lists = [{member} for member in members]
    for one in here:
        joined = [some for some in lists if some.intersection(one)]
        if len(joined) > 1:
            lists = [some for some in lists if some not in joined] + [set().union(*joined)]
    return [sorted(some) for some in lists]
