"""CoMPI's search for schemes (SoCC 2025, section 4.3): rectangles of models and groups, the largest saving first.

It begins with all models and all groups. A rectangle that the oracle refuses is split into two halves of its models and
into two halves of its groups; when one is accepted, what all others would save is planned anew, and those that overlap
it or save nothing more are dropped. There is no way back.

Models are halved where their stage limits change, nearest the middle; groups where half of their latency is.

Deviation: what a scheme would save is that of the optimal deployment (`planner.planning.merging.deployment`). The
reference's planner, a recursion (`planner.planning.merging.recursion`), takes infeasible plans for large savings and
counts heads as shared.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from planner.model import InputError
from planner.planning.merging.deployment import MergeProblem, deploy
from planner.planning.merging.oracles import Oracle
from planner.planning.merging.results import Found, Savings, Try
from planner.planning.merging.schemes import Scheme, middle, sharing_of
from planner.planning.programme.backends import Limits


def search(
    problem: MergeProblem,
    oracle: Oracle,
    report: Callable[[Try], None] = lambda _: None,
    *,
    limits: Limits | None = None,
) -> Found:
    """Return what the reference's search finds; the models of ``problem`` are in order of their stage limits.

    ``limits`` are those of every deployment.

    Raises
    ------
    InputError
        The models are in another order, or nothing can be deployed even with all that was accepted.
    """
    stages = [model.max_stages for model in problem.models]
    if stages != sorted(stages):
        raise InputError(f"models: expected them by increasing stage limit, got limits {stages}")
    savings = Savings(problem, partial(deploy, limits=limits))
    whole = Scheme(tuple(range(len(stages))), 0, max(len(model.groups) for model in problem.models))
    accepted: tuple[Scheme, ...] = ()
    tries: list[Try] = []
    waiting: dict[Scheme, int] = {}
    seen: set[Scheme] = set()

    def saved_by(*schemes: Scheme) -> int | None:
        return savings.of(sharing_of(problem.models, schemes))

    def add(scheme: Scheme) -> None:
        if scheme not in seen and shares(problem, scheme):
            seen.add(scheme)
            saved = saved_by(*accepted, scheme)
            if saved is not None and saved > (saved_by(*accepted) or 0):
                waiting[scheme] = saved

    add(whole)
    while waiting:
        scheme = max(waiting, key=lambda one: (waiting[one], -one.first, -one.models[0]))
        sharing = sharing_of(problem.models, (*accepted, scheme))
        tried = Try(sharing, waiting.pop(scheme), oracle(sharing), scheme)
        tries.append(tried)
        report(tried)
        if tried.accepted:
            accepted = (*accepted, scheme)
            left = [other for other in waiting if not overlap(other, scheme)]
            waiting.clear()
            seen.difference_update(left)
            for other in left:
                add(other)
        else:
            for half in halves(problem, scheme):
                if not any(overlap(half, other) for other in accepted):
                    add(half)
    sharing = sharing_of(problem.models, accepted)
    deployment = savings.deployment(sharing) or deploy(replace(problem, sharing=sharing), limits=limits)
    return Found(tuple(tries), sharing, deployment, savings.apart_bytes - deployment.memory_bytes, None)


def shares(problem: MergeProblem, scheme: Scheme) -> bool:
    """Whether a scheme shares anything."""
    return len(scheme.models) > 1 and bool(sharing_of(problem.models, [scheme]))


def overlap(one: Scheme, other: Scheme) -> bool:
    """Whether two schemes meet in a group of a model."""
    return bool(set(one.models) & set(other.models)) and one.first < other.last and other.first < one.last


def halves(problem: MergeProblem, scheme: Scheme) -> Iterator[Scheme]:
    """Yield the two halves of a scheme's groups and the two halves of its models."""
    if scheme.last - scheme.first > 1:
        latencies = [group.latency for group in problem.models[scheme.models[0]].groups]
        half = sum(latencies[scheme.first : scheme.last]) / 2
        cut = min(range(scheme.first + 1, scheme.last), key=lambda cut: abs(sum(latencies[scheme.first : cut]) - half))
        yield Scheme(scheme.models, scheme.first, cut)
        yield Scheme(scheme.models, cut, scheme.last)
    if len(scheme.models) > 1:
        cut = middle([problem.models[model].max_stages for model in scheme.models])
        yield Scheme(scheme.models[:cut], scheme.first, scheme.last)
        yield Scheme(scheme.models[cut:], scheme.first, scheme.last)
