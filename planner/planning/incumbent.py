"""The best plan so far and what bounds all plans, whoever found them: the answer whenever a search is ended.

Methods report plans and bounds on their way (`planner.planning.pipelines.sizing.Report`). What ends a search, Ctrl-C
(KeyboardInterrupt) or a time limit (`planner.planning.programme.backends.TooLate`), may then end it anywhere.
"""

from collections.abc import Callable
from dataclasses import replace
from math import inf

from planner.model import Problem
from planner.model.objective import MAXIMISED
from planner.planning.baselines import better_of
from planner.planning.pipelines.sizing import Sizing

Progress = Callable[[float, float], None]  # is told a value and a bound

TOLD = 1e-6  # relative: a bound that is better by less is not told


class Incumbent:
    """What is known of a problem's plans.

    Attributes
    ----------
    problem
        With X0 as known, which plans rest on.
    plan, bound
        The best plan, and what no plan is better than; None as long as nothing is known.
    by, method
        The method that is searching, and the one that found the plan.
    x0_timed
        Whether X0 is what was known when time was up (`planner.model.Plan`).
    """

    def __init__(self, problem: Problem, progress: Progress | None = None) -> None:
        self.by = self.method = "start"
        self.x0_timed = False
        self._progress = progress
        self._told: tuple[float | None, float | None] = None, None
        self.restart(problem, None)

    def restart(self, problem: Problem, plan: Sizing | None, *, x0_timed: bool = False) -> None:
        """Go on with another X0, for which bounds no longer hold, and with a plan that rests on it."""
        self.problem, self.x0_timed = problem, x0_timed
        self.plan: Sizing | None = None
        self.bound: float | None = None
        if plan is not None:
            self.offer(plan)

    def offer(self, found: Sizing | None) -> None:
        """Take a plan where it is better; what it states as a bound does not count, as it is that of other plans."""
        best = better_of(self.problem, self.plan, found)
        if best is not self.plan:
            self.plan, self.method = best, self.by
        self._tell()

    def report(self, found: Sizing) -> None:
        """Take a plan where it is better, and its bound where it is tighter."""
        self.prove(found.bound)
        self.offer(found)

    def prove(self, bound: float) -> None:
        """Take a bound where it is tighter; it is told with the next plan or report."""
        tighter = min if self._maximised else max
        self.bound = bound if self.bound is None else tighter(bound, self.bound)

    @property
    def value(self) -> float:
        """What the best plan is worth."""
        assert self.plan is not None
        return self.plan.value(self.problem)

    def with_bound(self, otherwise: Callable[[Problem], float]) -> Sizing:
        """Return the plan with its bound: the one proven, else what a function says of the problem."""
        assert self.plan is not None
        bound = otherwise(self.problem) if self.bound is None else self.bound
        return replace(self.plan, bound=(max if self._maximised else min)(bound, self.plan.value(self.problem)))

    @property
    def _maximised(self) -> bool:
        return MAXIMISED[self.problem.options.objective]

    def _tell(self) -> None:
        """Tell what is better than what was told before, plans of another X0 included."""
        if self._progress is None or self.plan is None:
            return
        sign = 1.0 if self._maximised else -1.0
        value, bound = self.value, self.bound
        known, known_bound = self._told
        better = known is None or sign * (value - known) > 0
        tighter = bound is not None and (known_bound is None or sign * (known_bound - bound) > TOLD * abs(bound))
        if better or tighter:
            value = value if known is None or better else known
            bound = bound if known_bound is None or tighter else known_bound
            self._told = value, bound
            unknown = inf if self._maximised else 0.0
            self._progress(value, unknown if bound is None else bound)
