"""What a search tells on its way, on standard error: a line per better plan or bound, once it takes a while."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isfinite
from threading import Lock, Timer
from time import monotonic

from planner.cli.app import errors
from planner.model.objective import MAXIMISED
from planner.model.plan import relative_gap
from planner.model.problem import UNITS, Objective

QUIET_S = 1.0  # a search that ends sooner tells nothing


@contextmanager
def told(what: str, objective: Objective) -> Iterator[Callable[[float, float], None]]:
    """Yield a function that is told a value and a bound, and shows what is being done.

    Parameters
    ----------
    what
        Is being done, for the spinner of a terminal.
    objective
        Of values and bounds.
    """
    begin_s, lock = monotonic(), Lock()
    lines: list[str] = []
    with errors.status(what) as spinner:

        def flush() -> None:
            with lock:
                while lines:
                    errors.print(lines.pop(0))

        def tell(value: float, bound: float) -> None:
            seconds = monotonic() - begin_s
            line = f"{seconds:7.1f} s  {value:.6g} {UNITS[objective]}, {_bound(objective, value, bound)}"
            with lock:
                lines.append(line)
            spinner.update(f"{what}: {line.strip()}")
            if seconds >= QUIET_S:
                flush()

        timer = Timer(QUIET_S, flush)
        timer.daemon = True
        timer.start()
        try:
            yield tell
        finally:
            timer.cancel()


def _bound(objective: Objective, value: float, bound: float) -> str:
    """Write what is known of all plans: nothing yet, where a bound is infinite, or 0 for what is minimised."""
    if not isfinite(bound) or bound == 0:
        return "bound not known yet"
    side = "most" if MAXIMISED[objective] else "least"
    return f"at {side} {bound:.6g} possible (gap {relative_gap(value, bound):.1e})"
