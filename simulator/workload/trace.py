"""Traces: who was called when, as recorded, and which DNN each function stands for."""

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planner.model import InputError
from simulator.workload.arrivals import TimesS

YEAR_S = 365.25 * 86_400
EPOCH_S = 3 * YEAR_S  # longer than any recording: later times count from an epoch


@dataclass(frozen=True, eq=False)
class Trace:
    """Invocations in order of time.

    ``times_s`` are start times in seconds from the recording's beginning, sorted. ``function[i]`` is the
    index in ``functions`` of the function that invocation i called; ``functions`` holds (application,
    function) names in the order in which the file first names them. ``source`` is for messages. ``spread`` says that
    a seed chose the times: the file has counts per minute.
    """

    times_s: TimesS
    function: NDArray[np.int32]
    functions: tuple[tuple[str, str], ...]
    source: str
    spread: bool = False

    def __len__(self) -> int:
        """Return the number of invocations."""
        return len(self.times_s)

    @property
    def rate_rps(self) -> float:
        """Average rate: (n - 1) / (last - first), in invocations per second; 0 where no time passes."""
        span_s = float(self.times_s[-1] - self.times_s[0]) if len(self) else 0.0
        return (len(self) - 1) / span_s if span_s > 0 else 0.0


def from_arrivals(
    times_s: TimesS, function: NDArray[np.int32], functions: tuple[tuple[str, str], ...], source: str
) -> Trace:
    """Return the trace of arrivals in any order.

    Times that count from an epoch (1970 or the like) are counted from the first arrival instead.

    Raises
    ------
    InputError
        Years pass between two arrivals: a line is astray among others.
    """
    order = np.argsort(times_s, kind="stable")
    times_s, function = times_s[order], function[order]
    gaps_s = np.diff(times_s)
    if len(gaps_s) and gaps_s.max() > EPOCH_S:
        after = int(gaps_s.argmax())
        raise InputError(
            f"{source}: {gaps_s[after] / YEAR_S:.1f} years pass between the arrivals at {times_s[after]:.6g} s and at "
            f"{times_s[after + 1]:.6g} s; is a line astray among them, or the unit wrong?"
        )
    if times_s[0] > EPOCH_S:
        times_s = times_s - times_s[0]
    return Trace(times_s, function, functions, source)


def select(
    trace: Trace,
    *,
    apps: Collection[str] | None = None,
    functions: Collection[str] | None = None,
    busiest: int | None = None,
    window_s: tuple[float, float] | None = None,
) -> Trace:
    """Return the invocations of a trace that meet every condition given; times are kept.

    Parameters
    ----------
    apps, functions
        Names of applications and functions to keep, or unambiguous beginnings of at least 6 characters.
    busiest
        Then keep the functions with most invocations (in the window), so many of them.
    window_s
        Keep times in [start, end) seconds.

    Raises
    ------
    InputError
        A name is unknown or ambiguous, or nothing is left.

    Examples
    --------
    >>> calls = Trace(np.array([0.0, 1.0, 2.0]), np.array([0, 1, 1], np.int32), (("a", "f"), ("a", "g")), "example")
    >>> select(calls, busiest=1).times_s.tolist()
    [1.0, 2.0]
    """
    keep = np.ones(len(trace), dtype=bool)
    if window_s is not None:
        keep &= (trace.times_s >= window_s[0]) & (trace.times_s < window_s[1])
    chosen = chosen_functions(trace.functions, apps, functions, trace.source)
    keep &= chosen[trace.function]
    if busiest is not None:
        calls = np.bincount(trace.function[keep], minlength=len(trace.functions))
        top = np.argsort(-calls, kind="stable")[:busiest]
        chosen &= np.isin(np.arange(len(trace.functions)), top[calls[top] > 0])
        keep &= chosen[trace.function]
    if not keep.any():
        raise InputError(f"{trace.source}: no invocation is left after the selection; choose other functions or times")
    return _compact(replace(trace, times_s=trace.times_s[keep], function=trace.function[keep]))


def assign(trace: Trace, dnns: int) -> tuple[TimesS, ...]:
    """Return the times of each of ``dnns`` DNNs: function i of the trace stands for DNN i mod ``dnns``.

    Round robin in the order in which the file first names the functions, as the serving literature does.

    >>> calls = Trace(np.array([0.0, 1.0, 2.0]), np.array([0, 1, 2], np.int32), (("a", "f"),) * 3, "example")
    >>> [times.tolist() for times in assign(calls, 2)]
    [[0.0, 2.0], [1.0]]
    """
    if not 1 <= dnns <= len(trace.functions):
        raise InputError(
            f"{trace.source}: expected 1 to {len(trace.functions)} DNNs (it has so many functions), got {dnns}"
        )
    dnn = trace.function % dnns
    return tuple(trace.times_s[dnn == index] for index in range(dnns))


def chosen_functions(
    known: tuple[tuple[str, str], ...],
    apps: Collection[str] | None,
    functions: Collection[str] | None,
    source: str,
) -> NDArray[np.bool_]:
    """Return which of the ``known`` (application, function) pairs the given names select; raises InputError."""
    chosen = np.ones(len(known), dtype=bool)
    for position, what, wanted in ((0, "application", apps), (1, "function", functions)):
        if wanted is None:
            continue
        names = sorted({pair[position] for pair in known})
        full = {_match(name, names, what, source) for name in wanted}
        chosen &= np.fromiter((pair[position] in full for pair in known), bool, len(known))
    return chosen


def could_be_chosen(pair: tuple[str, str], apps: Collection[str] | None, functions: Collection[str] | None) -> bool:
    """Say whether a name met while reading may turn out to be chosen by `chosen_functions`."""
    return all(
        wanted is None or any(name.startswith(beginning) for beginning in wanted)
        for name, wanted in zip(pair, (apps, functions), strict=True)
    )


def _match(name: str, names: list[str], what: str, source: str) -> str:
    """Return the known name that is ``name``, or the only one that begins with it."""
    if name in names:
        return name
    found = [known for known in names if known.startswith(name)] if len(name) >= 6 else []
    if len(found) != 1:
        raise InputError(
            f"{source}: {what} {name!r} matches {len(found)} of {len(names)}; give a name, or a longer beginning of one"
        )
    return found[0]


def _compact(trace: Trace) -> Trace:
    """Renumber the functions that are still called from 0, in the old order."""
    used, function = np.unique(trace.function, return_inverse=True)
    return replace(trace, function=function.astype(np.int32), functions=tuple(trace.functions[index] for index in used))
