"""Solvers, one module each with a function ``solve(model, limits, start)``; ``solve`` here picks one by name.

To add a solver, write its module and name it in `BACKENDS`.
"""

import logging
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import version as installed_version

from planner.model import InputError
from planner.planning.programme.backends.clock import Clock, Limits, TooLate, Work
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
    "Work",
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


class Unavailable(InputError):
    """A solver that is not installed, or whose licence is missing or does not admit the model."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C stopped a solver; ``solution`` is what ``backend`` had found."""

    def __init__(self, solution: Solution) -> None:
        """Keep what was found."""
        super().__init__()
        self.solution, self.backend = solution, "none"


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
    for name in names:
        try:
            return _solve(model, name, limits, start, report), name
        except Unavailable as error:
            if name == names[-1]:
                raise
            log.info("%s; using %s", error, names[-1])
        except Interrupted as stopped:
            stopped.backend = name
            raise
    raise AssertionError("there is always a backend to try")


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
