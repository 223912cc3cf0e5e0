"""Schemes as choices inside the deployment's programme: the most that sharing can still save, whoever shares.

To the programme of `planner.planning.merging.deployment` come, for every set K of members (model, group) that could be
one copy (two or more models, equal bytes, none a head),

    u_K binary      the members of K share one copy                                       ``share[K]``
    c_{K,j}         that copy is on device j, 0 to 1                                      ``copy[K,j]``
    a_{m,g,j}       a copy of the member's own is on device j, 0 to 1                      ``own[m,g,j]``

    one_copy[m,g]     sum over K that hold (m, g) of u_K <= 1
    copy[K,m,g,j]     c_{K,j} >= (sum over I that hold g of q_{m,I,j}) + u_K - 1           for every member (m, g) of K
    own[m,g,j]        a_{m,g,j} >= (sum over I that hold g of q_{m,I,j}) - sum over K that hold (m, g) of u_K
    refused[r]        not everything that a refused answer r shares: for every set R of r, u of the sets that hold it;
                      their sum over r is at most |r| - 1
    load[m]           sum over K with a member of m of (|K| - 1) · u_K <= load            where a limit is given

and memory[j] counts c and a. The optimum bounds what any further try can save, as long as sharing more is never easier.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import combinations

from planner.planning.merging.deployment import (
    SCALE_BYTES,
    Deployment,
    Formulation,
    MergeProblem,
    extract,
    without_memory,
)
from planner.planning.merging.schemes import Member, Scheme, Sharing
from planner.planning.programme.backends import Limits, TooLate, solve


@dataclass(frozen=True)
class Choice:
    """What to share, the deployment with it, and the least memory that no other choice undercuts."""

    sharing: Sharing
    deployment: Deployment


def candidates(problem: MergeProblem) -> list[frozenset[Member]]:
    """Return every set of members that could be one copy: equal groups at the same place of two or more models.

    Models of unlike architectures share where their groups are of equal kind and bytes, wherever these stand.
    """
    alike: defaultdict[tuple[int, str, int], dict[int, Member]] = defaultdict(dict)
    for model, merged in enumerate(problem.models):
        met: defaultdict[tuple[int, str], int] = defaultdict(int)
        for group, one in enumerate(merged.groups):
            if one.mergeable:
                kind = one.parameter_bytes, one.kind
                alike[(*kind, met[kind])][model] = (model, group)
                met[kind] += 1
    return [
        frozenset(members[model] for model in chosen)
        for members in alike.values()
        for size in range(2, len(members) + 1)
        for chosen in combinations(members, size)
    ]


def best_choice(
    problem: MergeProblem,
    refused: Collection[Sharing],
    load: int | None = None,
    at_most_bytes: int | None = None,
    limits: Limits | None = None,
) -> Choice | None:
    """Return what saves the most of all that is not refused, up to limits; None where nothing is left.

    Parameters
    ----------
    refused
        Answers: what shares all of one of these, or more, is left out.
    load
        Largest sum over a model's shared groups of (models that share it - 1); None is no limit.
    at_most_bytes
        Only choices that need no more memory than this are of interest.

    Raises
    ------
    TooLate
        Nothing was found in the time given, though something may be left; its bound is the least memory (bytes).
    """
    formulation = without_memory(problem)
    sets = candidates(problem)
    model = formulation.model
    shared = {members: model.add_column(f"share[{_name(members)}]", upper=1, integer=True) for members in sets}
    _add_one_copy(formulation, shared)
    _add_refused(formulation, shared, refused)
    if load is not None:
        _add_load(formulation, shared, load)
    _add_memory(formulation, shared, at_most_bytes)
    solution, _ = solve(model, "highs", limits or Limits(gap=1e-7))
    if solution.status == "infeasible":
        return None
    if not solution.found:
        raise TooLate("no choice was found in the time given; raise the time limit", solution.bound * SCALE_BYTES)
    chosen = frozenset(members for members, column in shared.items() if solution.values[column] > 0.5)
    return Choice(chosen, extract(formulation, solution, chosen))


def _name(members: frozenset[Member]) -> str:
    return "+".join(f"{model}.{group}" for model, group in sorted(members))


def _holding(shared: dict[frozenset[Member], int]) -> dict[Member, list[int]]:
    """Return for every member the columns of the sets that hold it."""
    holding: defaultdict[Member, list[int]] = defaultdict(list)
    for members, column in shared.items():
        for member in members:
            holding[member].append(column)
    return holding


def _add_one_copy(formulation: Formulation, shared: dict[frozenset[Member], int]) -> None:
    for (model, group), columns in sorted(_holding(shared).items()):
        formulation.model.add_row(f"one_copy[{model},{group}]", [(column, 1.0) for column in columns], upper=1)


def _add_refused(formulation: Formulation, shared: dict[frozenset[Member], int], refused: Collection[Sharing]) -> None:
    for number, answer in enumerate(refused):
        terms = dict.fromkeys(
            (column for members in answer for holder, column in shared.items() if members <= holder), 1.0
        )
        formulation.model.add_row(f"refused[{number}]", terms.items(), upper=len(answer) - 1)


def _add_load(formulation: Formulation, shared: dict[frozenset[Member], int], load: int) -> None:
    for model in range(len(formulation.problem.models)):
        terms = [
            (column, len(members) - 1.0)
            for members, column in shared.items()
            if any(owner == model for owner, _ in members)
        ]
        formulation.model.add_row(f"load[{model}]", terms, upper=load)


def _add_memory(formulation: Formulation, shared: dict[frozenset[Member], int], at_most_bytes: int | None) -> None:
    problem, model = formulation.problem, formulation.model
    holding = _holding(shared)
    total: defaultdict[int, float] = defaultdict(float)
    for device, memory in enumerate(problem.device_bytes):
        held: defaultdict[int, float] = defaultdict(float)
        present: defaultdict[Member, list[int]] = defaultdict(list)
        for (number, (first, last), where), column in formulation.on.items():
            if where == device:
                for group in range(first, last):
                    present[number, group].append(column)
        for members, share in shared.items():
            copy = model.add_column(f"copy[{_name(members)},{device}]", upper=1)
            held[copy] += _bytes(problem, min(members))
            for member in sorted(members):
                terms = [(column, -1.0) for column in present[member]]
                model.add_row(
                    f"copy[{_name(members)},{member},{device}]", [(copy, 1.0), (share, -1.0), *terms], lower=-1
                )
        for member, columns in present.items():
            if member not in holding:
                for column in columns:
                    held[column] += _bytes(problem, member)
                continue
            own = model.add_column(f"own[{member[0]},{member[1]},{device}]", upper=1)
            held[own] += _bytes(problem, member)
            terms = [(own, 1.0), *((column, -1.0) for column in columns), *((s, 1.0) for s in holding[member])]
            model.add_row(f"own[{member[0]},{member[1]},{device}]", terms, lower=0)
        terms = [(column, size / SCALE_BYTES) for column, size in held.items()]
        model.add_row(f"memory[{device}]", terms, upper=memory / SCALE_BYTES)
        for column, size in held.items():
            total[column] += size / SCALE_BYTES
    if at_most_bytes is not None:
        model.add_row("better", total.items(), upper=at_most_bytes / SCALE_BYTES)
    model.set_objective(total.items(), maximise=False)


def _bytes(problem: MergeProblem, member: Member) -> int:
    return problem.models[member[0]].groups[member[1]].parameter_bytes


def as_schemes(sharing: Sharing) -> tuple[Scheme, ...]:
    """Return sharing at equal places as schemes, consecutive groups of the same models together."""
    return tuple(_runs(sharing))


def _runs(sharing: Sharing) -> Iterator[Scheme]:
    groups: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    for members in sharing:
        models = tuple(sorted(model for model, _ in members))
        groups[models].append(min(members)[1])
    for models, places in sorted(groups.items()):
        places.sort()
        first = 0
        for last in range(1, len(places) + 1):
            if last == len(places) or places[last] != places[last - 1] + 1:
                yield Scheme(models, places[first], places[last - 1] + 1)
                first = last
