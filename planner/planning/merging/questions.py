"""What to ask an oracle about: parts of sharing that keep most of what it saves.

The measure of a model's *load* is the sum over its shared groups of (models that share it - 1).
"""

from collections import Counter
from collections.abc import Iterable

from planner.planning.merging.choices import places
from planner.planning.merging.deployment import MergeProblem
from planner.planning.merging.oracles import within
from planner.planning.merging.schemes import Member, Sharing


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


def lightened(problem: MergeProblem, sharing: Sharing, load: int) -> Sharing:
    """Return a part of some sharing in which no model exceeds a load: groups by their bytes, as many models as fit.

    Models that do not fit with others share among themselves.
    """
    kept: list[frozenset[Member]] = []
    for members in _by_bytes(problem, sharing):
        left = sorted(members)
        while len(left) > 1:
            parts = (frozenset(left[:size]) for size in range(len(left), 1, -1))
            part = next((part for part in parts if load_of(frozenset([*kept, part])) <= load), None)
            if part is not None:
                kept.append(part)
            left = left[1:] if part is None else left[len(part) :]
    return frozenset(kept)


def without(problem: MergeProblem, sharing: Sharing, refused: Iterable[Sharing]) -> Sharing:
    """Return what is left of some sharing when of everything refused that it holds the least bytes are taken out."""
    kept = set(sharing)
    for answer in refused:
        if within(answer, frozenset(kept)):
            least = min(answer, key=lambda members: (_bytes(problem, min(members)), min(members)))
            whole = next(members for members in kept if least <= members)
            kept.remove(whole)
            rest = whole - {max(least)}
            if len(rest) > 1:
                kept.add(rest)
    return frozenset(kept)


def _by_bytes(problem: MergeProblem, sharing: Sharing) -> list[frozenset[Member]]:
    return sorted(sharing, key=lambda members: (-_bytes(problem, min(members)), min(members)))


def _bytes(problem: MergeProblem, member: Member) -> int:
    return problem.models[member[0]].groups[member[1]].parameter_bytes
