"""The best sharing that an oracle accepts, in few questions and with a proof.

Sharing is a choice inside the programme (`planner.planning.merging.choices`), so that the most that anything not yet
ruled out could save is known at any time: a bound. As long as sharing more is never easier, an answer rules out more
than itself: what shares all of something refused is refused, what shares part of something accepted is accepted.

Which question to ask is a matter of skill only. The measure of a model's *load* is the sum over its shared groups of
(models that share it - 1). Between the largest load accepted and the smallest refused,

1. *bisect*: ask for the best choice whose loads are at most in the middle, until these loads are neighbours;
2. *prove*: the best choice not ruled out saves more than the best accepted. Ask for the part of it that is just above
   the load accepted and keeps the groups that save most: refused, that rules out every choice that holds it; accepted,
   it raises the load, and the search goes on.

The search ends when nothing that is not ruled out saves more than the best accepted.
"""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

from planner.model import InputError
from planner.planning.merging.choices import best_choice
from planner.planning.merging.deployment import MergeProblem, deploy
from planner.planning.merging.oracles import History
from planner.planning.merging.results import Found, Savings, Try
from planner.planning.merging.schemes import Member, Sharing
from planner.planning.programme.backends import Limits, TooLate


def search(
    problem: MergeProblem,
    history: History,
    *,
    most_tries: int | None = None,
    limits: Limits | None = None,
    report: Callable[[Try], None] = lambda _: None,
) -> Found:
    """Return the sharing that saves the most of all that the oracle accepts.

    Parameters
    ----------
    history
        The oracle, with the answers that are known already; these cost no tries.
    most_tries
        After so many questions the best accepted so far is returned, with what further ones could still save as bound.
    limits
        Of every programme that is solved, one or two a question; where time is short the search goes on with what was
        found, and ends, with a bound, where nothing was.

    Raises
    ------
    InputError
        Nothing can be deployed, or the oracle fails.
    """
    savings = Savings(problem, partial(deploy, limits=limits))
    best: Sharing = frozenset()
    best_saved = savings.of(best)
    tries: list[Try] = []
    low, high = _loads(problem, history)
    least_bytes: float | None = (
        0.0  # that something not ruled out, and better than the best, needs; None: there is none
    )
    while True:
        try:
            left = best_choice(problem, history.refused, at_most_bytes=_better(savings, best_saved), limits=limits)
        except TooLate as late:
            least_bytes = max(least_bytes or 0.0, late.bound or 0.0)  # what was left before holds what is left now
            break
        least_bytes = None if left is None else left.deployment.bound_bytes
        if left is None or (most_tries is not None and len(tries) >= most_tries):
            break
        sharing = _question(problem, history, left.sharing, low, high, limits)
        saved, accepted = savings.of(sharing), history(sharing)
        tries.append(Try(sharing, saved or 0, accepted))
        report(tries[-1])
        if accepted:
            low = max(low, load_of(sharing))
            high = max(high, low + 1)
            if saved is not None and (best_saved is None or saved > best_saved):
                best, best_saved = sharing, saved
        else:
            high = min(high, load_of(sharing))
            low = min(low, high - 1)
    if best_saved is None:
        raise InputError("nothing that the oracle accepts can be deployed; add devices or memory, or allow more stages")
    bound = best_saved if least_bytes is None else max(best_saved, savings.apart_bytes - int(max(0.0, least_bytes)))
    return Found(tuple(tries), best, deploy(replace(problem, sharing=best), limits=limits), best_saved, bound)


def _loads(problem: MergeProblem, history: History) -> tuple[int, int]:
    """Return the largest load accepted and the smallest refused, as far as answers are known."""
    most = len(problem.models) * max(len(model.groups) for model in problem.models)
    high = min((load_of(sharing) for sharing in history.refused), default=most)
    accepted = (load_of(sharing) for sharing, answer in history.answers.items() if answer)
    return min(max(accepted, default=0), high - 1), high


def _question(
    problem: MergeProblem, history: History, wanted: Sharing, low: int, high: int, limits: Limits | None
) -> Sharing:
    """Return what to ask, given the best choice that is not ruled out."""
    if load_of(wanted) <= low + 1:
        return wanted
    if high > low + 1:
        lighter = None
        with suppress(TooLate):
            lighter = best_choice(problem, history.refused, load=(low + high) // 2, limits=limits)
        if lighter is not None and history.known(lighter.sharing) is None:
            return lighter.sharing
    return core(problem, wanted, low + 1)


def _better(savings: Savings, saved: int | None) -> int | None:
    return None if saved is None else savings.apart_bytes - saved - 1


def load_of(sharing: Sharing) -> int:
    """Return the largest load of a model: the sum over its shared groups of (models that share it - 1)."""
    loads: Counter[int] = Counter()
    for members in sharing:
        loads.update({model: len(members) - 1 for model, _ in members})
    return max(loads.values(), default=0)


def core(problem: MergeProblem, sharing: Sharing, load: int) -> Sharing:
    """Return the part of some sharing that is just at a load and keeps the groups that save the most.

    Groups are added by the bytes that they save, whole where that does not exceed the load, else among as many models
    as it allows.
    """
    kept: set[frozenset[Member]] = set()

    def saves(members: frozenset[Member]) -> int:
        model, group = min(members)
        return problem.models[model].groups[group].parameter_bytes * (len(members) - 1)

    for members in sorted(sharing, key=lambda one: (-saves(one), min(one))):
        ordered = sorted(members)
        for size in range(len(ordered), 1, -1):
            part = frozenset(ordered[:size])
            if load_of(frozenset({*kept, part})) <= load:
                kept.add(part)
                break
        if load_of(frozenset(kept)) == load:
            break
    return frozenset(kept)
