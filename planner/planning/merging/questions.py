"""What to ask an oracle about: parts of sharing that keep most of what it saves.

The measure of a model's *load* is the sum over its shared groups of (models that share it - 1).
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from itertools import combinations

from planner.planning.merging.choices import places
from planner.planning.merging.deployment import SCALE_BYTES, MergeProblem
from planner.planning.merging.schemes import Member, Sharing
from planner.planning.merging.stages import ROUNDING, Replicated, intervals, least_replicas, replica_load
from planner.planning.programme.backends import solve
from planner.planning.programme.linear import LinearModel


def everything(problem: MergeProblem) -> Sharing:
    """Return all that could be one copy, shared by all models that can."""
    return frozenset(frozenset(members) for members in places(problem))


def load_of(sharing: Sharing) -> int:
    """Return the largest load of a model.

    >>> load_of(frozenset({frozenset({(0, 0), (1, 0), (2, 0)}), frozenset({(0, 1), (1, 1)})}))
    3
    """
    return max(_loads(sharing).values(), default=0)


def _loads(sharing: Iterable[frozenset[Member]]) -> Counter[int]:
    loads: Counter[int] = Counter()
    for members in sharing:
        loads.update({model: len(members) - 1 for model, _ in members})
    return loads


def core(problem: MergeProblem, sharing: Sharing, load: int) -> Sharing:
    """Return a part of some sharing that gives one model just a load, and holds nothing else: it rules out the more.

    For every model, groups are added by their bytes, whole where that does not exceed the load, else among as many
    models as it allows; of all models that for which this saves most. If none has so much load, all is returned.
    """
    best, most = sharing, -1
    for model in range(len(problem.models)):
        kept: set[frozenset[Member]] = set()
        left, saved = load, 0
        for members in _by_bytes(problem, sharing):
            own = [member for member in members if member[0] == model]
            if own and left:
                part = frozenset([*own, *sorted(members - set(own))][: left + 1])
                kept.add(part)
                left -= len(part) - 1
                saved += _bytes(problem, own[0]) * (len(part) - 1)
        if left == 0 and saved > most:
            best, most = frozenset(kept), saved
    return best


def teams(problem: MergeProblem, load: int) -> Iterator[Sharing]:
    """Yield sharing in which models are divided into teams, each of which shares its heaviest groups up to a load.

    Begins with what would save the most if every team was on one device; teams whose stages with these groups are too
    much for one are left out. A small programme: u_T binary for every team T, each model in one at most.
    """
    sharing = {
        team: shared
        for size in range(2, min(len(problem.models), load + 1) + 1)
        for team in combinations(range(len(problem.models)), size)
        if (shared := _heaviest(problem, team, load)) and _fit(problem, shared)
    }
    model = LinearModel(maximise=True)
    columns = {
        team: model.add_column(f"team[{team}]", upper=1, objective=_saved(problem, shared), integer=True)
        for team, shared in sharing.items()
    }
    for number in range(len(problem.models)):
        model.add_row(f"one[{number}]", [(column, 1.0) for team, column in columns.items() if number in team], upper=1)
    while True:
        solution, _ = solve(model)
        chosen = [team for team, column in columns.items() if solution.found and solution.values[column] > 0.5]
        if not chosen:
            return
        yield frozenset().union(*(sharing[team] for team in chosen))
        model.add_row(f"other[{chosen}]", [(columns[team], 1.0) for team in chosen], upper=len(chosen) - 1)


def _heaviest(problem: MergeProblem, team: Collection[int], load: int) -> Sharing:
    """Return the groups with the most bytes that some models can share without exceeding a load, all of them each."""
    kept: list[frozenset[Member]] = []
    for members in _by_bytes(problem, everything(problem)):
        own = frozenset(member for member in members if member[0] in team)
        if len(own) > 1 and load_of(frozenset([*kept, own])) <= load:
            kept.append(own)
    return frozenset(kept)


def _fit(problem: MergeProblem, sharing: Sharing) -> bool:
    """Whether a device could run the stages that hold all that is shared, with the fewest replicas of each."""
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for number, group in (member for members in sharing for member in members):
        groups[number].append(group)
    busy = 0.0
    for number, own in groups.items():
        merged = problem.models[number]
        holding = [one for one in intervals(merged) if one[0] <= min(own) and max(own) < one[1]]
        busy += min(
            replica_load(problem.models, Replicated(number, one, least_replicas(merged, one))) for one in holding
        )
    return busy <= 1 + ROUNDING


def _saved(problem: MergeProblem, sharing: Sharing) -> float:
    return sum((len(members) - 1) * _bytes(problem, min(members)) for members in sharing) / SCALE_BYTES


def _by_bytes(problem: MergeProblem, sharing: Sharing) -> list[frozenset[Member]]:
    return sorted(sharing, key=lambda members: (-_bytes(problem, min(members)), min(members)))


def _bytes(problem: MergeProblem, member: Member) -> int:
    return problem.models[member[0]].groups[member[1]].parameter_bytes
