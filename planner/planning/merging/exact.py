"""The best sharing that an oracle accepts, in few questions and with a proof.

Sharing is a choice inside the programme (`planner.planning.merging.choices`), so that the most that anything not yet
ruled out could save is known at any time: a bound. As long as sharing more is never easier, an answer rules out more
than itself: what shares all of something refused is refused, what shares part of something accepted is accepted.

What is *wanted* is what saves the most of all that is not ruled out and saves more than the best accepted: on layouts
that are known (`planner.planning.merging.layouts`) as long as there is any, else the programme finds another layout, or
proves that there is none. Layouts hold what shares all it can, what shares nothing, and what was accepted.

Which question to ask is a matter of skill only. First all that is wanted. Then, between the largest *load* accepted and
the smallest refused (`planner.planning.merging.questions`),

1. *bisect*: ask for the best choice whose loads are at most in the middle, until these loads are neighbours;
2. *prove*: ask for the part of what is wanted that is just above the load accepted and saves most: refused, that rules
   out every choice that holds it; accepted, it raises the load, and the search goes on.

The search ends when nothing that is not ruled out saves more than the best accepted. Programmes that were late are not
tried again. Without those of a load, teams of models are deployed, and what is shared and where it runs is improved by
turns. And before anything is proven, or where no known layout has anything better, CoMPI's search
(`planner.planning.merging.bisection`) is followed from its root, with the answers that are known: without limits on
questions and time no less is saved than by it. What is left then is searched for with all the time that is left.
"""

from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from math import inf

from planner.model import InputError
from planner.planning.merging import bisection
from planner.planning.merging.choices import Choice, best_choice
from planner.planning.merging.deployment import Deployment, MergeProblem, deploy
from planner.planning.merging.layouts import Layouts
from planner.planning.merging.oracles import History
from planner.planning.merging.questions import core, everything, load_of, teams
from planner.planning.merging.results import Found, Savings, Try
from planner.planning.merging.schemes import Sharing
from planner.planning.programme.backends import Clock, Limits, TooLate

ASKING_GAP = 0.3  # of the memory of what is asked about next: it has to be better than the best, not the best of all
MOST_TEAMS = 5  # divisions of models that are deployed where programmes are late


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

    What a refused try would have saved is that of the best layout known then; another one might save more.

    Parameters
    ----------
    history
        The oracle, with the answers that are known already; these cost no tries.
    most_tries
        After so many questions the best accepted so far is returned, with what further ones could still save as bound.
    limits
        Of every programme that is solved, one to four a question.
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
    while not state.clock.over and (most_tries is None or len(state.tries) < most_tries):
        question = state.question()
        if question is None:
            break
        tried = state.ask(question)
        if tried is not None:
            report(tried)
    return state.found()


class _Search:
    """The best accepted so far, and the least memory of anything better that is not ruled out."""

    def __init__(self, problem: MergeProblem, history: History, limits: Limits, time_limit_s: float | None) -> None:
        self.problem, self.history, self.limits = problem, history, limits
        self.clock = Clock(limits)
        self.layouts = Layouts(problem)
        self.savings = Savings(problem, self._deploy)
        self.tries: list[Try] = []
        self.best: Choice | None = None
        self.low, self.high = 0, None if not history.refused else min(map(load_of, history.refused))
        self._accept(frozenset())
        self.clock = Clock(Limits(limits.gap, time_limit_s))  # from here on there is something to return
        self.late = self.late_below = False  # whether a programme was not solved in its time, one with a load
        self.least_bytes = self._least_of_all()
        for sharing in history.accepted:
            self._accept(sharing)
        self.rule: bisection.Tree | None = None

    def next_limits(self) -> Limits:
        """Return the limits of the next programme."""
        left_s, own_s = self.clock.remaining().time_limit_s, self.limits.time_limit_s
        return Limits(self.limits.gap, own_s if left_s is None else left_s if own_s is None else min(left_s, own_s))

    def _deploy(self, problem: MergeProblem) -> Deployment:
        """Deploy within limits; what is late is replaced by the best layout known."""
        try:
            found = deploy(problem, limits=self.next_limits())
        except TooLate:
            known = self.layouts.deployed(problem.sharing)
            if known is None:
                raise
            return known
        self.layouts.add(found.stages)
        return found

    def _deployed(self, sharing: Sharing) -> Deployment | None:
        """Return the best deployment known, also of layouts that became known later."""
        known = [self.layouts.deployed(sharing)]
        with suppress(TooLate):
            known.append(self.savings.deployment(sharing))
        return min((one for one in known if one is not None), key=lambda one: one.memory_bytes, default=None)

    def _least_of_all(self) -> float:
        """Return the least memory with all shared that can be."""
        try:
            deployment = self.savings.deployment(everything(self.problem))
        except TooLate as late:
            return late.bound or 0.0
        return inf if deployment is None else deployment.bound_bytes

    def _accept(self, sharing: Sharing) -> None:
        self.low = max(self.low, load_of(sharing))
        if self.high is not None:
            self.high = max(self.high, self.low + 1)
        deployment = self._deployed(sharing)
        if deployment is not None and self.is_better(Choice(sharing, deployment)):
            self.best = Choice(sharing, deployment)

    def is_better(self, choice: Choice | None) -> bool:
        """Whether a choice saves more than the best accepted."""
        return choice is not None and (
            self.best is None or choice.deployment.memory_bytes < self.best.deployment.memory_bytes
        )

    @property
    def proven(self) -> bool:
        """Whether nothing that is not ruled out saves more than the best accepted."""
        best_bytes = inf if self.best is None else self.best.deployment.memory_bytes
        return self.least_bytes == inf or self.least_bytes > best_bytes - 1

    def wanted(self) -> Choice | None:
        """Return what saves the most of all that is not ruled out, and more than the best; None where none is known."""
        known = self._known()
        if known is None and not (self.proven or self.late):
            self.bound(self.next_limits())
            known = self._known()
        return known

    def _known(self) -> Choice | None:
        """Return the same on layouts that are known."""
        known = self.layouts.best(self.history.refused)
        return known if self.is_better(known) else None

    def bound(self, limits: Limits, gap: float = ASKING_GAP, begin: Choice | None = None) -> None:
        """Bound the memory of all that is not ruled out and better than the best; a layout of it becomes known."""
        better = None if self.best is None else self.best.deployment.memory_bytes - 1
        limits = Limits(gap, limits.time_limit_s)
        try:
            found = best_choice(self.problem, self.history.refused, at_most_bytes=better, begin=begin, limits=limits)
        except TooLate as late:
            self.late = True
            self.least_bytes = max(self.least_bytes, late.bound or 0.0)
            return
        if found is None or not self.is_better(found):  # not by a byte: the programme counts in megabytes
            self.least_bytes = inf
        else:
            self.least_bytes = max(self.least_bytes, found.deployment.bound_bytes)
            self.layouts.add(found.deployment.stages)

    def question(self) -> Sharing | None:
        """Return what to ask next; None where nothing can be better, or nothing better is known."""
        wanted = self.wanted()
        if wanted is None and self.proven:
            return None
        if wanted is not None and (self.high is None or load_of(wanted.sharing) <= self.low + 1):
            return wanted.sharing
        lighter = self._between(wanted)
        if lighter is not None:
            return lighter.sharing
        if (wanted is None or self.late_below) and (by_rule := self._by_rule()) is not None:
            return by_rule
        if wanted is None and self.clock.remaining().time_limit_s is not None:  # late: once more, with all time left
            self.bound(self.clock.remaining())
            wanted = self._known()
        return None if wanted is None else self._just_above(wanted.sharing)

    def _just_above(self, wanted: Sharing) -> Sharing:
        """Return the part of what is wanted that is just above the load accepted, or the next one that is not known."""
        for load in range(self.low + 1, load_of(wanted)):
            part = core(self.problem, wanted, load)
            if self.history.known(part) is None:
                return part
        return wanted

    def _between(self, wanted: Choice | None) -> Choice | None:
        """Return the best choice up to the middle of the loads accepted and refused, or above where none is better.

        Where programmes are late, first up to the load accepted: layouts became known since that was asked for.
        """
        low, high = self.low, self.low if self.high is None else self.high
        loads = [low] if self.late_below else []
        while high > low + 1:
            low = (low + high) // 2
            loads.append(low)
        for load in loads:
            lighter = wanted if wanted is not None and load_of(wanted.sharing) <= load else self._lighter(load)
            if lighter is not None and self.is_better(lighter) and self.history.known(lighter.sharing) is None:
                return lighter
            if self.clock.over:
                break
        return None

    def _lighter(self, load: int) -> Choice | None:
        """Return the best choice of a load at most that is not ruled out; where programmes are late, a good one."""
        found = self.layouts.best_of_load(self.history.refused, load)
        if not self.late_below:
            limits = self.next_limits()
            try:
                chosen = best_choice(self.problem, self.history.refused, load=load, begin=found, limits=limits)
            except TooLate:
                self.late_below = True
            else:
                if chosen is None:
                    return None
                self.late_below = chosen.deployment.status != "optimal"
                self.layouts.add(chosen.deployment.stages)
        if self.late_below:
            self._add_layouts(load)
        return self.layouts.best_of_load(self.history.refused, load)

    def _add_layouts(self, load: int) -> None:
        """Deploy teams of models, and then by turns what is best shared and where that is best deployed."""
        for sharing in islice(teams(self.problem, load), MOST_TEAMS):
            self._deployed(sharing)
        found, before_bytes = self.layouts.best_of_load(self.history.refused, load), inf
        while found is not None and found.deployment.memory_bytes < before_bytes and not self.clock.over:
            before_bytes = found.deployment.memory_bytes
            self._deployed(found.sharing)
            found = self.layouts.best_of_load(self.history.refused, load)

    def _by_rule(self) -> Sharing | None:
        """Return the next question of CoMPI's search that is not answered yet."""
        if not bisection.applies(self.problem):
            return None
        self.rule = self.rule or bisection.Tree(self.problem, self.savings)
        while (scheme := self.rule.next()) is not None:
            sharing = self.rule.with_accepted(scheme)
            known = self.history.known(sharing)
            if known is None:
                return sharing
            self.rule.answer(scheme, known)
        return None

    def ask(self, sharing: Sharing) -> Try | None:
        """Ask the oracle; return the try, None where the answer was known."""
        known = self.history.known(sharing)
        accepted = self.history(sharing)
        if accepted:
            self._accept(sharing)
        else:
            self.high = min(load_of(sharing), load_of(sharing) if self.high is None else self.high)
            self.low = min(self.low, self.high - 1)
        if known is not None:
            return None
        deployment = self._deployed(sharing) if accepted else self.layouts.deployed(sharing)
        saved = 0 if deployment is None else self.savings.apart_bytes - deployment.memory_bytes
        self.tries.append(Try(sharing, saved, accepted))
        return self.tries[-1]

    def found(self) -> Found:
        """Return the best accepted, with what could be saved at most."""
        if not (self.proven or self.late or self.clock.over):
            self.bound(self.next_limits(), self.limits.gap, self.layouts.best(self.history.refused))
        if self.best is None:
            raise InputError(
                "nothing that the oracle accepts can be deployed; add devices or memory, or allow more stages"
            )
        deployment = self._deployed(self.best.sharing) or self.best.deployment
        saved = self.savings.apart_bytes - deployment.memory_bytes
        could = saved if self.proven else self.savings.apart_bytes - int(max(0.0, self.least_bytes))
        return Found(tuple(self.tries), self.best.sharing, deployment, saved, max(saved, could))
