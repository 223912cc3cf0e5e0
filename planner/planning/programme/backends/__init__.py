"""Solvers, one module each with a function ``solve(model, limits, start)``; ``solve`` here picks one by name.

To add a solver, write its module and name it in `BACKENDS`.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version as installed_version
from time import monotonic

from planner.model import InputError
from planner.planning.programme.linear import LinearModel, Solution, without_values
from planner.planning.programme.scaling import far_apart, scaled

__all__ = [
    "BACKENDS",
    "Clock",
    "Interrupted",
    "Limits",
    "SolutionReport",
    "Start",
    "TooLarge",
    "TooLate",
    "Unavailable",
    "solve",
    "version",
    "versions",
]

log = logging.getLogger(__name__)

BACKENDS = ("highs", "gurobi", "cbc")
AUTO_ORDER = ("gurobi", "highs")
SECOND_OPINIONS = ("cbc", "highs")

Start = Mapping[int, float]  # column -> value
SolutionReport = Callable[[Solution], None]  # is told better solutions of a model, or better bounds, on the way


@dataclass(frozen=True)
class Limits:
    """When a solver may stop: at a relative ``gap``, or after ``time_limit_s`` seconds (None: never)."""

    gap: float = 1e-6
    time_limit_s: float | None = None


class TooLate(InputError):
    """The time was up before any plan was found: there may be one. ``bound`` is what was proven, if anything was."""

    def __init__(
        self, text: str = "no plan was found in the time given; raise the time limit", bound: float | None = None
    ) -> None:
        """Say what was being done, and keep the bound."""
        super().__init__(text)
        self.bound = bound


class Clock:
    """The time left of some limits."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._begin_s = monotonic()

    def remaining(self) -> Limits:
        """Return the limits less the time that has passed, at least a hundredth of a second."""
        if self._limits.time_limit_s is None:
            return self._limits
        left_s = self._limits.time_limit_s - (monotonic() - self._begin_s)
        return Limits(self._limits.gap, max(0.01, left_s))

    def half(self) -> Limits:
        """Return the limits with half of the time left."""
        left = self.remaining()
        return left if left.time_limit_s is None else Limits(left.gap, left.time_limit_s / 2)

    def sparing(self, share: float, most_s: float) -> "Clock":
        """Return a clock that is over a share of the limit earlier, by ``most_s`` at most."""
        limit_s = self._limits.time_limit_s
        spared = Clock(self._limits)
        spared._begin_s = self._begin_s - (0.0 if limit_s is None else min(share * limit_s, most_s))
        return spared

    def at_most(self, seconds: float) -> "Clock":
        """Return a clock with the time left, but no more than so many seconds."""
        left = self.remaining()
        return Clock(Limits(left.gap, seconds if left.time_limit_s is None else min(seconds, left.time_limit_s)))

    @property
    def over(self) -> bool:
        """Whether there is no time left."""
        limit_s = self._limits.time_limit_s
        return limit_s is not None and monotonic() - self._begin_s >= limit_s

    def expect_time(self) -> None:
        """Raise `TooLate` where there is no time left: for loops that make what nothing can be done without."""
        if self.over:
            raise TooLate

    def within(self, other: Limits) -> Limits:
        """Return other limits, cut to half of the time left."""
        left_s = self.remaining().time_limit_s
        if left_s is None or other.time_limit_s is None:
            return other
        return Limits(other.gap, min(other.time_limit_s, left_s / 2))


class Unavailable(InputError):
    """A solver that is not installed, or whose licence is missing or does not admit the model."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C stopped a solver; ``solution`` is what it had found."""

    def __init__(self, solution: Solution) -> None:
        """Keep what was found."""
        super().__init__()
        self.solution = solution


class TooLarge(Unavailable):
    """A solver whose licence admits models, but not one of this size."""


def solve(
    model: LinearModel,
    backend: str = "highs",
    limits: Limits | None = None,
    start: Start | None = None,
    report: SolutionReport | None = None,
) -> tuple[Solution, str]:
    """Solve a model and return the solution and the name of the solver that found it.

    A model whose numbers are far apart is scaled first (`planner.planning.programme.scaling`), and only infeasible, or
    too much for a solver, where two of them, or the one that there is, say so.

    Parameters
    ----------
    model
        What to solve.
    backend
        ``highs``, ``gurobi`` or ``cbc``; ``auto`` is Gurobi where its licence admits the model, else HiGHS.
    limits
        When the solver may stop.
    start
        Values of the integer columns of a feasible solution, to begin from; the solver fills in the others.

    Raises
    ------
    InputError
        There is no such backend, or it is not available; the message says what to do.
    Interrupted
        Ctrl-C stopped HiGHS or Gurobi.

    Examples
    --------
    >>> model = LinearModel(maximise=True)
    >>> pipelines = model.add_column("pipelines", objective=1.0, integer=True)
    >>> row = model.add_row("devices[L4]", [(pipelines, 2.0)], upper=7)
    >>> solution, name = solve(model, "highs")
    >>> solution.status, solution.objective, name
    ('optimal', 3.0, 'highs')
    """
    limits = limits or Limits()
    names = AUTO_ORDER if backend == "auto" else (backend,)
    for name in names[:-1]:
        try:
            return _solve(model, name, limits, start, report), name
        except Unavailable as error:
            log.info("%s; using %s", error, names[-1])
    return _solve(model, names[-1], limits, start, report), names[-1]


def version(backend: str) -> str:
    """Return the version of an installed solver."""
    return str(_module(backend).version())


def versions(backend: str) -> dict[str, str]:
    """Return the versions of poolpipe and of a solver, where one was used."""
    found = {"poolpipe": installed_version("poolpipe")}
    return found if backend not in BACKENDS else found | {backend: version(backend)}


def _solve(
    model: LinearModel, name: str, limits: Limits, start: Start | None, report: SolutionReport | None
) -> Solution:
    if not far_apart(model.arrays()):
        solution: Solution = _module(name).solve(model, limits, start, report)
        return solution
    clock, scale = Clock(limits), scaled(model)
    unscaled = report and (lambda solution: report(scale.undo(solution, model)))
    try:
        solution = _module(name).solve(scale.model, limits, start, unscaled)
    except Interrupted as stopped:
        raise Interrupted(scale.undo(stopped.solution, model)) from None
    if solution.status in ("infeasible", "no solution"):
        solution = _confirmed(scale.model, solution, name, clock)
    return scale.undo(solution, model)


def _confirmed(model: LinearModel, refused: Solution, name: str, clock: Clock) -> Solution:
    """Ask another solver about a model that one does not solve, and believe the one that finds a solution.

    Where no time is left to ask, nothing is known.
    """
    for other in SECOND_OPINIONS:
        if other == name:
            continue
        if clock.over:
            return without_values("no solution", maximise=model.maximise)
        try:
            solution: Solution = _module(other).solve(model, clock.remaining(), None)
        except Unavailable:
            continue
        if solution.found:
            log.warning("%s does not solve a badly scaled model, %s does", name, other)
            return solution
        return refused
    return refused


def _module(name: str):  # type: ignore[no-untyped-def]  # modules that share a function, not a type
    if name not in BACKENDS:
        raise InputError(f"unknown backend {name!r}; expected one of {[*BACKENDS, 'auto']}")
    try:
        return import_module(f"planner.planning.programme.backends.{name}")
    except ImportError as error:
        raise Unavailable(f"backend {name}: {error}; install it with pip, or use --backend highs") from None
