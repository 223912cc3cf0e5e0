"""The main plan by exact dynamic programming, for at most two device types.

A plan is a multiset of items (`planner.planning.pipelines.sizes`) per DNN, whose use of devices is rounded up to whole
ones per (DNN, position, type). DNNs do not share devices, so that per DNN a table of the best value on (i, j) whole
devices is all that the other DNNs need to know.

1. Two tables per DNN bound its value from below and above (`planner.planning.whole_devices.tables`). The lower ones,
combined over
   DNNs (`planner.planning.whole_devices.splits`), give a plan of value I.
2. While the upper ones, combined, promise more than I, look at the very cells that this split of the cluster takes:
   the best multiset there with all roundings (`planner.planning.whole_devices.labels`) replaces the promise.

The result is optimal when the upper tables promise nothing better than I. A search stopped at its limit of labels or
time leaves a valid bound, and the mixed-integer programme over the candidates left closes the gap.

Of the plans of that value the one on the fewest devices is then found in the same way, on these devices one of the
fewest pipelines.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from planner.model import InputError, Problem
from planner.planning.pipelines.candidates import Candidate
from planner.planning.pipelines.sizes import TIE
from planner.planning.pipelines.sizing import Report, Sized, Sizing
from planner.planning.programme import milp
from planner.planning.programme.backends import Clock, Limits
from planner.planning.whole_devices import labels, tables
from planner.planning.whole_devices.splits import Cell, best_split, fewest_devices
from planner.planning.whole_devices.tables import EPSILON, TYPES, Tables, admits, expects

__all__ = ["TYPES", "admits", "expects", "size"]

log = logging.getLogger(__name__)

LABEL_LIMIT = 50_000
SIMPLEST_LIMIT = 2_000  # labels; and seconds: a plan that is only good to read is not worth waiting for
SPARE_LIMIT_S = 1.0


@dataclass
class _Bounds(Tables):
    """The tables of one DNN, and the searches that bring them together."""

    searched: list[tuple[Cell, float, tuple[int, ...]]] = field(default_factory=list)

    def space(self, cell: Cell) -> labels.Space:
        return labels.Space(self.items, cell, self.units, self.rest)

    def close(self, cell: Cell, floor: float, enough: float) -> bool:
        """Search a cell for a value above ``floor``; tell whether a bound moved."""
        before = self.lower[cell], self.upper[cell]
        floor = max(floor, float(self.lower[cell]))
        found = labels.search(self.space(cell), floor=floor, enough=enough, label_limit=LABEL_LIMIT)
        log.debug("devices %s: %.9g to %.9g, found %.9g to %.9g", cell, *before, found.value, found.bound)
        if found.items:
            self.searched.append((cell, found.value, found.items))
            larger = self.lower[cell[0] :, cell[1] :]
            np.maximum(larger, found.value, out=larger)
        smaller = self.upper[: cell[0] + 1, : cell[1] + 1]
        np.minimum(smaller, found.bound, out=smaller)
        return (self.lower[cell], self.upper[cell]) != before

    def pipelines(self, cell: Cell) -> list[Sized]:
        """Return the plan behind ``lower[cell]``."""
        for (i, j), value, items in self.searched:
            if i <= cell[0] and j <= cell[1] and value >= self.lower[cell]:
                return self._sized(items)
        return self.restricted.pipelines(cell)

    def simplest(self, cell: Cell, value: float) -> list[Sized]:
        """Return a plan on a cell of at least a value, ``lower[cell]`` or less, with the fewest pipelines."""
        known = self.pipelines(cell)
        items = labels.smallest(self.space(cell), value=value, fewer_than=len(known), label_limit=SIMPLEST_LIMIT)
        return known if items is None else self._sized(items)

    def _sized(self, items: tuple[int, ...]) -> list[Sized]:
        chosen = self.items.take(np.array(items))
        rows, values = chosen.row.tolist(), chosen.value.tolist()
        return [self.restricted.table.sized(row, value) for row, value in zip(rows, values, strict=True)]


def size(
    problem: Problem,
    candidates: Sequence[Candidate],
    backend: str,
    limits: Limits,
    report: Report | None = None,
) -> Sizing:
    """Return the best sizes of the candidates, to a gap, or until the time is up.

    Parameters
    ----------
    problem
        At most two device types, maximising the least throughput / weight.
    candidates
        Of all DNNs.
    backend
        Solves what is left where a search ended at its limit of labels.
    limits
        When to stop closing the gap.
    report
        Is told every better plan or bound.

    Raises
    ------
    InputError
        The problem is of another kind, or its tables are too large.
    """
    if not admits(problem, candidates):
        raise InputError(
            "method dynamic: expected at most 2 device types, the objective max_min_throughput and at most "
            f"{tables.CELL_LIMIT} table cells; use --method milp or columns"
        )
    if {candidate.dnn for candidate in candidates} != set(range(len(problem.dnns))):
        return Sizing((), 0.0, "none")
    clock = Clock(limits)
    bounds = [_Bounds(**vars(known)) for known in tables.build(problem, candidates, clock)]
    bound, cells = _close(bounds, limits.gap, clock, report or (lambda found: None))
    value = min(float(known.lower[cell]) for known, cell in zip(bounds, cells, strict=True)) / TIE
    cells = _spare(bounds, cells, value, clock.at_most(SPARE_LIMIT_S))
    pipelines = [sized for known, cell in zip(bounds, cells, strict=True) for sized in known.simplest(cell, value)]
    found = Sizing(tuple(pipelines), bound, "none").merged()
    found = replace(found, bound=max(bound, found.value(problem)))  # sums of floats in another order
    if found.bound <= found.value(problem) * (1 + limits.gap):
        return found
    return _finish(problem, bounds, found, backend, clock)


def _close(bounds: Sequence[_Bounds], gap: float, clock: Clock, report: Report) -> tuple[float, list[Cell]]:
    """Bring the tables together until they agree on the best split; return the bound, and the cells of that split."""
    while True:
        incumbent, cells = best_split([one.lower for one in bounds])
        bound, promising = best_split([one.upper for one in bounds])
        bound = max(bound, incumbent)
        pipelines = (sized for one, cell in zip(bounds, cells, strict=True) for sized in one.pipelines(cell))
        report(Sizing(tuple(pipelines), bound, "none").merged())
        log.debug("%.9g to %.9g on %s", incumbent, bound, promising)
        floor = incumbent * (1 + EPSILON)
        if bound <= max(floor, incumbent * (1 + gap)) or clock.over:
            return bound, cells
        if not any([one.close(cell, floor, bound) for one, cell in zip(bounds, promising, strict=True)]):
            return bound, cells


def _spare(bounds: Sequence[_Bounds], cells: list[Cell], value: float, clock: Clock) -> list[Cell]:
    """Return the split that gives every DNN a value with the fewest devices, as far as it is settled in time."""
    floor = float(np.nextafter(value, 0.0))
    while not clock.over:
        cells = fewest_devices([known.lower for known in bounds], value) or cells
        promising = fewest_devices([known.upper for known in bounds], value) or cells
        if sum(map(sum, promising)) >= sum(map(sum, cells)):
            break
        doubtful = [(known, cell) for known, cell in zip(bounds, promising, strict=True) if known.lower[cell] < value]
        if not any([known.close(cell, floor, value) for known, cell in doubtful]):
            break
    return cells


def _finish(problem: Problem, bounds: Sequence[_Bounds], found: Sizing, backend: str, clock: Clock) -> Sizing:
    """Solve the programme over the candidates that have an item left, which are those of every better plan."""
    if clock.over:
        return found
    left = [known.restricted.table.candidates[row] for known in bounds for row in np.unique(known.items.row).tolist()]
    log.info("%d candidates are left to the mixed-integer programme", len(left))
    try:
        last = milp.size(problem, left, backend, clock.remaining())
    except InputError:  # no plan in the time that was left
        return found
    value = found.value(problem)
    best = max(found, last, key=lambda sizing: sizing.value(problem))
    return Sizing(best.pipelines, min(found.bound, max(last.bound, value)), last.backend)
