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
from planner.planning.merging.schemes import Scheme, Sharing, middle, sharing_of
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
    tree = Tree(problem, savings)
    tries: list[Try] = []
    while (scheme := tree.next()) is not None:
        sharing = tree.with_accepted(scheme)
        tries.append(Try(sharing, tree.waiting[scheme], oracle(sharing), scheme))
        report(tries[-1])
        tree.answer(scheme, tries[-1].accepted)
    sharing = tree.with_accepted()
    deployment = savings.deployment(sharing) or deploy(replace(problem, sharing=sharing), limits=limits)
    return Found(tuple(tries), sharing, deployment, savings.apart_bytes - deployment.memory_bytes, None)


def applies(problem: MergeProblem) -> bool:
    """Whether all models have equal groups and are in order of their stage limits."""
    stages = [model.max_stages for model in problem.models]
    groups = {
        tuple((group.parameter_bytes, group.mergeable, group.kind) for group in model.groups)
        for model in problem.models
    }
    return stages == sorted(stages) and len(groups) == 1


class Tree:
    """The schemes that wait, with what they would save beside all that was accepted."""

    def __init__(self, problem: MergeProblem, savings: Savings) -> None:
        self.problem, self.savings = problem, savings
        self.accepted: tuple[Scheme, ...] = ()
        self.waiting: dict[Scheme, int] = {}
        self._seen: set[Scheme] = set()
        self._add(Scheme(tuple(range(len(problem.models))), 0, max(len(model.groups) for model in problem.models)))

    def next(self) -> Scheme | None:
        """Return what to ask next, the scheme that saves the most; None at the end."""
        return max(self.waiting, key=lambda one: (self.waiting[one], -one.first, -one.models[0]), default=None)

    def with_accepted(self, *schemes: Scheme) -> Sharing:
        """Return what was accepted and some schemes, together."""
        return sharing_of(self.problem.models, (*self.accepted, *schemes))

    def answer(self, scheme: Scheme, accepted: bool) -> None:
        """Take the answer about a scheme that waits."""
        del self.waiting[scheme]
        if accepted:
            self.accepted = (*self.accepted, scheme)
            left = [other for other in self.waiting if not overlap(other, scheme)]
            self.waiting.clear()
            self._seen.difference_update(left)
            for other in left:
                self._add(other)
        else:
            for half in halves(self.problem, scheme):
                if not any(overlap(half, other) for other in self.accepted):
                    self._add(half)

    def _add(self, scheme: Scheme) -> None:
        if scheme not in self._seen and shares(self.problem, scheme):
            self._seen.add(scheme)
            saved = self.savings.of(self.with_accepted(scheme))
            if saved is not None and saved > (self.savings.of(self.with_accepted()) or 0):
                self.waiting[scheme] = saved


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
