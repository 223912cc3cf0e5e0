"""The best sharing that an oracle accepts, in few questions and with a proof.

Sharing is a choice inside the programme (`planner.planning.merging.choices`), so that the most that anything not yet
ruled out could save is known at any time: a bound. As long as sharing more is never easier, an answer rules out more
than itself: what shares all of something refused is refused, what shares part of something accepted is accepted.

Which question to ask is a matter of skill only (`planner.planning.merging.questions`). Between the largest *load*
accepted and the smallest refused,

1. *bisect*: ask for the best choice whose loads are at most in the middle, until these loads are neighbours;
2. *prove*: the best choice not ruled out saves more than the best accepted. Ask for the part of it that is just above
   the load accepted and saves most: refused, that rules out every choice that holds it; accepted, it raises the load,
   and the search goes on.

The search ends when nothing that is not ruled out saves more than the best accepted. Where the time of a programme is
short, what is left of the last choice without what was refused takes the place of its answer, and its bound stays; the
rest of bisecting then does without programmes.
"""

from collections.abc import Callable
from math import inf

from planner.model import InputError
from planner.planning.merging.choices import Choice, best_choice
from planner.planning.merging.deployment import MergeProblem, deploy
from planner.planning.merging.oracles import History
from planner.planning.merging.questions import core, everything, lightened, load_of, without
from planner.planning.merging.results import Found, Savings, Try
from planner.planning.merging.schemes import Sharing
from planner.planning.programme.backends import Clock, Limits, TooLate

ASKING_GAP = 0.3  # of the memory of what is asked about next: it has to be better than the best, not the best of all


def search(
    problem: MergeProblem,
    history: History,
    *,
    most_tries: int | None = None,
    limits: Limits | None = None,
    time_limit_s: float | None = None,
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
        Of every programme that is solved, some three a question.
    time_limit_s
        After so many seconds no more questions are asked; the oracle is not interrupted.

    Raises
    ------
    InputError
        Nothing can be deployed, or the oracle fails.
    TooLate
        What shares nothing was not deployed within the limits of a programme.
    """
    state = _Search(problem, history, limits or Limits(gap=1e-7), time_limit_s)
    wanted = state.left(everything(problem))
    while wanted is not None and not state.clock.over:
        if most_tries is not None and len(state.tries) >= most_tries:
            state.left(wanted, gap=state.limits.gap)
            break
        tried = state.ask(state.question(wanted))
        if tried is not None:
            report(tried)
        wanted = state.left(wanted)
    return state.found()


class _Search:
    """The best accepted so far, and the least memory of anything better that is not ruled out."""

    def __init__(self, problem: MergeProblem, history: History, limits: Limits, time_limit_s: float | None) -> None:
        self.problem, self.history, self.limits = problem, history, limits
        self.clock = Clock(limits)
        self.savings = Savings(problem, lambda one: deploy(one, limits=self.next_limits()))
        self.tries: list[Try] = []
        self.best: Sharing = frozenset()
        self.best_saved = self.savings.of(self.best)
        self.clock = Clock(Limits(limits.gap, time_limit_s))  # from here on there is something to return
        self.least_bytes = 0.0
        self.late = False  # whether a programme was not solved in its time
        most = len(problem.models) * max(len(model.groups) for model in problem.models)
        self.high = min((load_of(sharing) for sharing in history.refused), default=most)
        self.low = 0
        for sharing in history.accepted:
            self._accept(sharing)

    def next_limits(self) -> Limits:
        """Return the limits of the next programme."""
        left_s, own_s = self.clock.remaining().time_limit_s, self.limits.time_limit_s
        return Limits(self.limits.gap, own_s if left_s is None else left_s if own_s is None else min(left_s, own_s))

    def left(self, last: Sharing, gap: float = ASKING_GAP) -> Sharing | None:
        """Return a choice that is not ruled out and saves more than the best; None where none is known.

        ``last`` is the choice before. No choice needs less memory than ``least_bytes`` then, near the least by the gap.
        """
        begin = self._choice(without(self.problem, last, self.history.refused))
        better = None if self.best_saved is None else self.savings.apart_bytes - self.best_saved - 1
        if self.late and self.high > self.low + 1 and begin:  # what is asked next is made by hand, too
            return begin.sharing
        try:
            found = best_choice(
                self.problem,
                self.history.refused,
                at_most_bytes=better,
                begin=begin,
                limits=Limits(gap, self.next_limits().time_limit_s),
            )
        except TooLate as late:
            self.late = True
            self.least_bytes = max(self.least_bytes, late.bound or 0.0)
            return begin.sharing if begin and (better is None or begin.deployment.memory_bytes <= better) else None
        self.least_bytes = max(self.least_bytes, inf if found is None else found.deployment.bound_bytes)
        return None if found is None else found.sharing

    def question(self, wanted: Sharing) -> Sharing:
        """Return what to ask, given the best choice that is not ruled out."""
        if load_of(wanted) <= self.low + 1:
            return wanted
        if self.high > self.low + 1:
            lighter = self._lighter(wanted, (self.low + self.high) // 2)
            if lighter is not None and self.history.known(lighter) is None:
                return lighter
        return core(self.problem, wanted, self.low + 1)

    def _lighter(self, wanted: Sharing, load: int) -> Sharing | None:
        """Return the best choice of a load at most."""
        begin = self._choice(without(self.problem, lightened(self.problem, wanted, load), self.history.refused))
        if self.late and begin:
            return begin.sharing
        try:
            found = best_choice(self.problem, self.history.refused, load=load, begin=begin, limits=self.next_limits())
        except TooLate:
            found = None
            self.late = True
        self.late |= found is not None and found.deployment.status != "optimal"
        choices = [choice for choice in (found, begin) if choice is not None]
        return min(choices, key=lambda one: one.deployment.memory_bytes).sharing if choices else None

    def _choice(self, sharing: Sharing) -> Choice | None:
        """Return some sharing with its deployment; None where there is none, or none was found in time."""
        try:
            deployment = self.savings.deployment(sharing)
        except TooLate:
            return None
        return None if deployment is None else Choice(sharing, deployment)

    def ask(self, sharing: Sharing) -> Try | None:
        """Ask the oracle; return the try, None where the answer was known."""
        choice, known = self._choice(sharing), self.history.known(sharing)
        saved = 0 if choice is None else self.savings.apart_bytes - choice.deployment.memory_bytes
        tried = Try(sharing, saved, self.history(sharing))
        if known is None:
            self.tries.append(tried)
        if tried.accepted:
            self._accept(sharing)
        else:
            self.high = min(self.high, load_of(sharing))
            self.low = min(self.low, self.high - 1)
        return tried if known is None else None

    def _accept(self, sharing: Sharing) -> None:
        self.low = max(self.low, load_of(sharing))
        self.high = max(self.high, self.low + 1)
        choice = self._choice(sharing)
        if choice is not None:
            saved = self.savings.apart_bytes - choice.deployment.memory_bytes
            if self.best_saved is None or saved > self.best_saved:
                self.best, self.best_saved = sharing, saved

    def found(self) -> Found:
        """Return the best accepted, with what could be saved at most."""
        deployment = self.savings.deployment(self.best)
        if deployment is None or self.best_saved is None:
            raise InputError(
                "nothing that the oracle accepts can be deployed; add devices or memory, or allow more stages"
            )
        could = -inf if self.least_bytes == inf else self.savings.apart_bytes - int(max(0.0, self.least_bytes))
        return Found(tuple(self.tries), self.best, deployment, self.best_saved, int(max(self.best_saved, could)))
