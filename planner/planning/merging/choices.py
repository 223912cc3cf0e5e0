"""Schemes as choices inside the deployment's programme: the most that sharing can still save, whoever shares.

To the programme of `planner.planning.merging.deployment` come, for every set K of members (model, group) that could be
one copy (two or more models, equal bytes, none a head; the *place* of K is what they are groups of),

    u_K binary      the members of K share one copy                                       ``share[K]``
    c_{K,j}         that copy is on device j, 0 to 1                                      ``copy[K,j]``
    b_{m,g,K,j}     the copy of K on device j is the one that (m, g) uses there, 0 to 1     ``uses[m,g,K,j]``
    a_{m,g,j}       a copy of the member's own is on device j, 0 to 1                      ``own[m,g,j]``

    one_copy[m,g]     sum over K that hold (m, g) of u_K <= 1
    held[m,g,j]       a_{m,g,j} + sum over K that hold (m, g) of b_{m,g,K,j} >= sum over I that hold g, k of q_{m,I,k,j}
    uses[m,g,K,j]     b_{m,g,K,j} <= c_{K,j}
    open[K,j]         c_{K,j} <= u_K
    refused[r]        not everything that a refused answer r shares: for every set R of r, u of the sets that hold it;
                      their sum over r is at most |r| - 1 (a set that holds two of r counts twice)
    load[m]           sum over K with a member of m of (|K| - 1) · u_K <= load            where a limit is given

and memory[j] counts c and a. The optimum bounds what any further try can save, as long as sharing more is never easier.
As there, rows that follow, but not from the relaxation, with N_p integer the copies of a place p on all devices:

    copies[p]         N_p = sum over j, K of c_{K,j} + sum over j, (m, g) of a_{m,g,j}          of the place
    busy[f,p,j]       the copies of p on j >= sum over (m, g) of p, over I that hold g, k of f(v_{m,I,k}) · q_{m,I,k,j}
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import combinations

from planner.planning.merging.deployment import (
    SCALE_BYTES,
    Deployment,
    Formulation,
    MergeProblem,
    extract,
    held_by,
    without_memory,
)
from planner.planning.merging.schemes import Member, Sharing
from planner.planning.merging.stages import ROUNDING, Replicated, dual_loads, holding
from planner.planning.programme.backends import Limits, TooLate, solve
from planner.planning.programme.linear import LinearModel

MOST_USES = 300_000


@dataclass(frozen=True)
class Choice:
    """What to share, the deployment with it, and the least memory that no other choice undercuts."""

    sharing: Sharing
    deployment: Deployment


def places(problem: MergeProblem) -> list[tuple[Member, ...]]:
    """Return groups of two or more models that could be one copy: equal ones at the same place, at most one a model.

    Models of unlike architectures share where their groups are of equal kind and bytes, wherever these stand.
    """
    alike: defaultdict[tuple[int, str, int], list[Member]] = defaultdict(list)
    for model, merged in enumerate(problem.models):
        met: defaultdict[tuple[int, str], int] = defaultdict(int)
        for group, one in enumerate(merged.groups):
            if one.mergeable:
                kind = one.parameter_bytes, one.kind
                alike[(*kind, met[kind])].append((model, group))
                met[kind] += 1
    return [tuple(members) for members in alike.values() if len(members) > 1]


def candidates(problem: MergeProblem) -> list[frozenset[Member]]:
    """Return every set of members that could be one copy: two or more of a place."""
    return [
        frozenset(chosen)
        for members in places(problem)
        for size in range(2, len(members) + 1)
        for chosen in combinations(members, size)
    ]


def best_choice(
    problem: MergeProblem,
    refused: Collection[Sharing],
    load: int | None = None,
    at_most_bytes: int | None = None,
    begin: Choice | None = None,
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
    begin
        A choice to begin from; it may be ruled out.

    Raises
    ------
    TooLate
        Nothing was found in the time given, though something may be left; its bound is the least memory (bytes).
        Programmes of more than `MOST_USES` columns b are not tried.
    """
    if (
        sum(len(members) * 2 ** (len(members) - 1) for members in places(problem)) * len(problem.device_bytes)
        > MOST_USES
    ):
        raise TooLate("too many sets of models could share to choose among all of them; search among fewer models")
    formulation = without_memory(problem)
    sets = [members for members in candidates(problem) if load is None or len(members) <= load + 1]
    model = formulation.model
    shared = {members: model.add_column(f"share[{set_name(members)}]", upper=1, integer=True) for members in sets}
    add_one_copy(model, shared)
    add_refused(model, shared, refused)
    if load is not None:
        add_load(model, shared, load, len(problem.models))
    counts = _add_memory(formulation, shared, at_most_bytes)
    start = None if begin is None else _start(formulation, shared, counts, begin)
    solution, _ = solve(model, "highs", limits or Limits(gap=1e-7), start)
    if solution.status == "infeasible":
        return None
    if not solution.found:
        raise TooLate("no choice was found in the time given; raise the time limit", solution.bound * SCALE_BYTES)
    chosen = frozenset(members for members, column in shared.items() if solution.values[column] > 0.5)
    return Choice(chosen, extract(formulation, solution, chosen))


def _start(
    formulation: Formulation, shared: Mapping[frozenset[Member], int], counts: Collection[int], begin: Choice
) -> dict[int, float]:
    """Return the values of what is chosen, where it runs, and how many copies there are."""
    held = held_by(formulation.problem, begin.deployment.stages, begin.sharing)
    stages = {
        Replicated(stage.model, (stage.first, stage.last), len(stage.devices)): stage.devices
        for stage in begin.deployment.stages
    }
    chosen = {column: float(stage in stages) for stage, column in formulation.stage.items()}
    chosen |= {column: float(device in stages.get(stage, ())) for (stage, device), column in formulation.on.items()}
    for column, members in zip(counts, places(formulation.problem), strict=True):
        chosen[column] = float(sum(len(one.intersection(members)) for one in held))
    return chosen | {column: float(members in begin.sharing) for members, column in shared.items()}


def set_name(members: frozenset[Member]) -> str:
    """Return how a set of members is called in names of columns and rows."""
    return "+".join(f"{model}.{group}" for model, group in sorted(members))


def _holding(shared: Mapping[frozenset[Member], int]) -> dict[Member, dict[frozenset[Member], int]]:
    """Return for every member the sets that hold it, with their columns."""
    found: defaultdict[Member, dict[frozenset[Member], int]] = defaultdict(dict)
    for members, column in shared.items():
        for member in members:
            found[member][members] = column
    return found


def add_one_copy(model: LinearModel, shared: Mapping[frozenset[Member], int]) -> None:
    """Add that a member shares one copy at most; ``shared`` has the columns of sets of members."""
    for (number, group), sets in sorted(_holding(shared).items()):
        model.add_row(f"one_copy[{number},{group}]", [(column, 1.0) for column in sets.values()], upper=1)


def add_refused(model: LinearModel, shared: Mapping[frozenset[Member], int], refused: Collection[Sharing]) -> None:
    """Add that nothing is chosen that shares all of a refused answer; what no choice can share needs no row."""
    for number, answer in enumerate(refused):
        terms: Counter[int] = Counter()
        held = 0
        for members in answer:
            holders = [column for holder, column in shared.items() if members <= holder]
            terms.update(holders)  # a set that holds two of an answer's counts twice
            held += bool(holders)
        if held == len(answer):
            model.add_row(f"refused[{number}]", terms.items(), upper=len(answer) - 1)


def add_load(model: LinearModel, shared: Mapping[frozenset[Member], int], load: int, models: int) -> None:
    """Add that no model's sum over its shared groups of (models that share it - 1) exceeds a load."""
    for number in range(models):
        terms = [
            (column, len(members) - 1.0)
            for members, column in shared.items()
            if any(owner == number for owner, _ in members)
        ]
        model.add_row(f"load[{number}]", terms, upper=load)


def _add_memory(formulation: Formulation, shared: dict[frozenset[Member], int], at_most_bytes: int | None) -> list[int]:
    """Add copies where they are used, what devices hold at most, and the objective; return how many there are."""
    problem, model = formulation.problem, formulation.model
    copies, counts = _add_copies(formulation, shared)
    of_place = {member for members in places(problem) for member in members}
    held: list[dict[int, float]] = [dict(one) for one in copies]
    for (stage, device), column in formulation.on.items():
        rest = [(stage.model, group) for group in stage.groups if (stage.model, group) not in of_place]
        held[device][column] = sum(_bytes(problem, member) for member in rest) / SCALE_BYTES
    for device, (terms, memory) in enumerate(zip(held, problem.device_bytes, strict=True)):
        model.add_row(f"memory[{device}]", terms.items(), upper=memory / SCALE_BYTES)
    total = [term for terms in held for term in terms.items()]
    if at_most_bytes is not None:
        model.add_row("better", total, upper=at_most_bytes / SCALE_BYTES)
    model.set_objective(total, maximise=False)
    return counts


def _add_copies(
    formulation: Formulation, shared: dict[frozenset[Member], int]
) -> tuple[list[dict[int, float]], list[int]]:
    """Add copies of places, shared and own; return per device their columns with their megabytes, and their numbers."""
    problem, model = formulation.problem, formulation.model
    holders, sets = holding(formulation.stage), _holding(shared)
    held: list[dict[int, float]] = [{} for _ in formulation.devices]
    counts = []
    for number, members in enumerate(places(problem)):
        size = _bytes(problem, members[0]) / SCALE_BYTES
        stages = [stage for member in members for stage in holders.get(member, [])]
        by_load = list(dual_loads(problem.models, stages))
        everywhere: list[int] = []
        for device in formulation.devices:
            here = _add_uses(formulation, {one: holders.get(one, []) for one in members}, sets, device)
            for name, taken in by_load:
                terms = [(formulation.on[stage, device], -part) for stage, part in taken.items()]
                row = [*((column, 1.0 + ROUNDING) for column in here), *terms]
                model.add_row(f"busy[{name},{number},{device}]", row, lower=0)
            held[device].update(dict.fromkeys(here, size))
            everywhere += here
        most = len(members) * len(formulation.devices)
        count = model.add_column(f"copies[{number}]", upper=most, integer=True)
        model.add_row(f"copies[{number}]", [*((one, 1.0) for one in everywhere), (count, -1.0)], lower=0, upper=0)
        counts.append(count)
    return held, counts


def _add_uses(
    formulation: Formulation,
    stages: Mapping[Member, Collection[Replicated]],
    sets: Mapping[Member, Mapping[frozenset[Member], int]],
    device: int,
) -> list[int]:
    """Add that members of a place whose stages are on a device have a copy there; return the columns of the copies."""
    model = formulation.model
    copies: dict[frozenset[Member], int] = {}
    own = []
    for member, holders in stages.items():
        name = f"{member[0]},{member[1]}"
        own.append(model.add_column(f"own[{name},{device}]", upper=1))
        held = [(own[-1], 1.0)]
        for shared, share in sets[member].items():
            if shared not in copies:
                copy = copies[shared] = model.add_column(f"copy[{set_name(shared)},{device}]", upper=1)
                model.add_row(f"open[{set_name(shared)},{device}]", [(share, 1.0), (copy, -1.0)], lower=0)
            uses = model.add_column(f"uses[{name},{set_name(shared)},{device}]", upper=1)
            model.add_row(f"uses[{name},{set_name(shared)},{device}]", [(copies[shared], 1.0), (uses, -1.0)], lower=0)
            held.append((uses, 1.0))
        present = [(formulation.on[stage, device], -1.0) for stage in holders]
        model.add_row(f"held[{name},{device}]", [*held, *present], lower=0)
    return [*copies.values(), *own]


def _bytes(problem: MergeProblem, member: Member) -> int:
    return problem.models[member[0]].groups[member[1]].parameter_bytes
